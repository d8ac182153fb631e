//! A report in words, and in JSON. Neither holds a password or a user.

use std::path::Path;

use pgdetour::{
    config::{AliasKind, Balance, Mistake, Tls},
    health::Need,
};
use serde_json::{Value, json};

use super::{
    connect::Finding,
    report::{Alias, Report, Server, list},
};
use crate::{
    paint::{Paint, Tone},
    time::{bound, brief},
};

/// The report, line by line.
pub(super) fn lines(report: &Report<'_>, file: &Path, paint: Paint) -> Vec<String> {
    let servers = report.aliases.iter().filter(|alias| alias.server.is_some()).count();
    let count = |count: usize, what: &str, more: &str| format!("{count} {}", if count == 1 { what } else { more });
    let (aliases, servers) = (count(report.aliases.len(), "alias", "aliases"), count(servers, "server", "servers"));
    let mut lines = vec![format!("{}: {aliases}, {servers}, no mistakes", file.display())];
    lines.extend(report.warnings.iter().map(|warning| paint.text(Tone::Away, &format!("warning: {warning}"))));
    for alias in &report.aliases {
        lines.push(String::new());
        lines.push(format!("{}  {}", paint.text(Tone::Strong, alias.config.name.as_str()), subject(alias)));
        lines.push(entry(requests(alias), &route(alias)));
        if let Some(server) = &alias.server {
            lines.extend(server_lines(server, paint));
        }
    }
    if report.asked {
        let verdict = if report.is_fine() {
            (Tone::Good, "every server can be used")
        } else {
            (Tone::Bad, "not every server can be used")
        };
        lines.extend([String::new(), paint.text(verdict.0, verdict.1)]);
    }
    lines
}

fn entry(name: &str, says: &str) -> String {
    format!("  {name:<17} {says}")
}

fn subject(alias: &Alias<'_>) -> String {
    match &alias.config.kind {
        AliasKind::Server(server) => {
            format!("{} at {}, {}", server.role, server.target.address(), protection(&server.target.tls))
        }
        AliasKind::Group { members, balance } => format!("group of {}, {}", list(members), balance_word(*balance)),
        _ => list(&alias.chain.own),
    }
}

fn requests(alias: &Alias<'_>) -> &'static str {
    match alias.need() {
        Need::Reads => "reads go to",
        Need::Writes => "requests go to",
    }
}

/// `replica (at most 16 connections) -> primary (8)`.
fn route(alias: &Alias<'_>) -> String {
    let own = match alias.server {
        Some(_) => format!("{} (at most {} connections)", list(&alias.chain.own), alias.config.pool.max_size),
        None => list(&alias.chain.own),
    };
    let detours = alias.chain.failover.iter().map(|name| format!(" -> {name} ({})", alias.config.pool.detour_size));
    let detours: String = detours.collect();
    if detours.is_empty() { format!("{own}, and nowhere else") } else { format!("{own}{detours}") }
}

fn server_lines(server: &Server<'_>, paint: Paint) -> Vec<String> {
    let (bounds, most) = (&server.bounds, server.most);
    let mut lines = vec![
        entry("its process ends", &format!("seen at once; within {} if it did just before", bound(bounds.ended))),
        entry(
            "it falls silent",
            &format!("seen within {} when busy, {} when idle", bound(bounds.silent_busy), bound(bounds.silent_idle)),
        ),
        entry("it answers again", &format!("back within {}", bound(bounds.recovery))),
        entry(
            "connections",
            &format!(
                "at most {}: {} of its own, {} for detours, {} for pings",
                most.total(),
                most.own,
                most.detours,
                most.pings
            ),
        ),
    ];
    lines.extend(server.finding.as_ref().map(|finding| {
        let (tone, says) = now(server, finding);
        entry("now", &format!("{} ({})", paint.text(tone, &says), brief(finding.took)))
    }));
    lines
}

/// What a server answered, in words.
fn now(server: &Server<'_>, finding: &Finding) -> (Tone, String) {
    let known = &finding.entry.known;
    if let Some(cause) = problem(finding) {
        return (Tone::Bad, cause);
    }
    let Some(facts) = known.facts else { return (Tone::Bad, "no answer".to_owned()) };
    let optional = |what: &str, value: Option<String>| value.map(|value| format!("{what} {value}"));
    let parts = [
        Some(facts.role.to_string()),
        optional("timeline", facts.timeline.map(|timeline| timeline.0.to_string())),
        optional("position", facts.position.map(|position| position.to_string())),
        server.behind.map(|bytes| format!("{bytes} bytes behind")),
        optional("system", facts.system.map(|system| system.0.to_string())),
    ];
    let says = parts.into_iter().flatten().collect::<Vec<_>>().join(", ");
    if facts.role == server.config.role {
        (Tone::Good, says)
    } else {
        (Tone::Away, format!("{says}; declared a {}", server.config.role))
    }
}

/// Why it cannot be used.
fn problem(finding: &Finding) -> Option<String> {
    let known = &finding.entry.known;
    let down = known.outage.as_ref().map(|(_, cause)| format!("down: {cause}"));
    let refused = || finding.refused.as_ref().map(ToString::to_string);
    down.or_else(refused).or_else(|| (!finding.is_usable()).then(|| finding.entry.standing.to_string()))
}

/// The report for machines.
pub(super) fn json(report: &Report<'_>, file: &Path) -> Value {
    let warnings: Vec<Value> = report.warnings.iter().map(mistake).collect();
    let aliases: Vec<Value> = report.aliases.iter().map(alias_json).collect();
    json!({ "file": file, "fine": report.is_fine(), "mistakes": [], "warnings": warnings, "aliases": aliases })
}

fn alias_json(alias: &Alias<'_>) -> Value {
    let names = |names: &[pgdetour::config::AliasName]| names.iter().map(ToString::to_string).collect::<Vec<_>>();
    let balance = match &alias.config.kind {
        AliasKind::Group { balance, .. } => Some(balance_word(*balance)),
        _ => None,
    };
    json!({
        "alias": alias.config.name.as_str(),
        "own": names(&alias.chain.own),
        "balance": balance,
        "failover": names(&alias.chain.failover),
        "detour_size": alias.config.pool.detour_size,
        "server": alias.server.as_ref().map(server_json),
    })
}

fn server_json(server: &Server<'_>) -> Value {
    let (bounds, most) = (&server.bounds, server.most);
    json!({
        "address": server.config.target.address(),
        "role": server.config.role.to_string(),
        "tls": protection(&server.config.target.tls),
        "worst_case_s": {
            "ended": bounds.ended.as_secs_f64(),
            "silent_busy": bounds.silent_busy.as_secs_f64(),
            "silent_idle": bounds.silent_idle.as_secs_f64(),
            "recovery": bounds.recovery.as_secs_f64(),
        },
        "connections": { "own": most.own, "detours": most.detours, "pings": most.pings, "total": most.total() },
        "now": server.finding.as_ref().map(|finding| finding_json(server, finding)),
    })
}

fn finding_json(server: &Server<'_>, finding: &Finding) -> Value {
    let facts = finding.entry.known.facts;
    json!({
        "usable": finding.is_usable(),
        "problem": problem(finding),
        "role": facts.map(|facts| facts.role.to_string()),
        "timeline": facts.and_then(|facts| facts.timeline).map(|timeline| timeline.0),
        "position": facts.and_then(|facts| facts.position).map(|position| position.to_string()),
        "bytes_behind": server.behind,
        // A number beyond 2^53 would be rounded by many readers.
        "system": facts.and_then(|facts| facts.system).map(|system| system.0.to_string()),
        "took_ms": (finding.took.as_secs_f64() * 1e6).round() / 1e3,
    })
}

/// A mistake or a warning.
pub(super) fn mistake(mistake: &Mistake) -> Value {
    json!({
        "file": mistake.file,
        "line": mistake.line,
        "variable": mistake.variable,
        "key": mistake.key,
        "what": mistake.what,
        "remedy": mistake.remedy,
    })
}

fn protection(tls: &Tls) -> &'static str {
    match tls {
        Tls::Disable => "plain text",
        Tls::Require => "TLS without verification",
        Tls::VerifyCa(_) => "TLS, authority verified",
        Tls::VerifyFull(_) => "TLS, verified in full",
        _ => "TLS",
    }
}

fn balance_word(balance: Balance) -> &'static str {
    match balance {
        Balance::RoundRobin => "round-robin",
        Balance::Random => "random",
        Balance::LeastLoaded => "least-loaded",
        _ => "balanced",
    }
}
