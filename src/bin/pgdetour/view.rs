//! A router's status as lines for people: `status` prints them, `watch` draws them again and again.

use std::time::Duration;

use pgdetour::{
    Mode,
    config::Role,
    health::{Need, State},
    observe::status::{AliasStatus, PoolUse, ServerStatus, ServiceStatus, Status},
};

use crate::{
    line::Line,
    paint::Tone,
    safe::safe,
    table::{Side, aligned},
    time::bound,
};

/// A row, what it means, and its cells.
type Row = (Option<Tone>, Vec<String>);

/// What is so as a whole, in one line.
pub(crate) fn headline(status: &Status) -> Line {
    let yes = |yes: bool, what: &str| {
        if yes { (None, format!(", {what}")) } else { (Some(Tone::Bad), format!(", no {what}")) }
    };
    let (reads, writes) = (yes(status.reads, "reads"), yes(status.writes, "writes"));
    let process = &status.process;
    let host = process.host.as_deref().map_or_else(String::new, |host| format!(" on {}", safe(host)));
    let tone = match status.mode {
        Mode::Normal => Tone::Good,
        Mode::Degraded => Tone::Away,
        _ => Tone::Bad,
    };
    Line::toned(Some(tone), status.mode.name().to_uppercase())
        .and(reads.0, reads.1)
        .and(writes.0, writes.1)
        .and(Some(Tone::Faint), format!("   process {}{host}, pgdetour {}", process.pid, safe(&process.pgdetour)))
}

/// Where each alias's requests go.
pub(crate) fn aliases(status: &Status) -> Vec<Line> {
    let sides = [Side::Left, Side::Left, Side::Left, Side::Right, Side::Left];
    let rows = status.aliases.iter().map(|alias| {
        let (tone, goes) = goes(alias);
        let needs = match alias.needs {
            Need::Reads => "reads",
            Need::Writes => "writes",
        };
        let waiting = alias.waiting.to_string();
        (tone, vec![safe(&alias.name), needs.to_owned(), goes, waiting, note(alias)])
    });
    table(["ALIAS", "NEEDS", "GOES TO", "WAITING", ""], &sides, rows.collect())
}

/// Where its requests go, and what that means.
pub(crate) fn goes(alias: &AliasStatus) -> (Option<Tone>, String) {
    match &alias.target {
        None => (Some(Tone::Bad), "nowhere".to_owned()),
        Some(target) if alias.detour => (Some(Tone::Away), format!("{} (detour)", safe(target))),
        Some(target) => (None, safe(target)),
    }
}

fn note(alias: &AliasStatus) -> String {
    let drained = alias
        .drained
        .as_ref()
        .map(|drain| format!("drained by {} for {} more", safe(&drain.by), lasting(drain.left_ms)));
    let group = (!alias.group.is_empty()).then(|| {
        let members: Vec<String> = alias.group.iter().map(|member| safe(member)).collect();
        format!("group of {}", members.join(", "))
    });
    [group, drained].into_iter().flatten().collect::<Vec<_>>().join("; ")
}

/// How each server is.
pub(crate) fn servers(status: &Status) -> Vec<Line> {
    use Side::{Left, Right};
    let sides = [Left, Left, Left, Left, Right, Right, Left, Right, Left];
    let header = ["SERVER", "ROLE", "STATE", "SINCE", "LAG", "POOL", "DETOURS", "NEXT PING", "WHY"];
    let rows = status.servers.iter().map(|server| {
        let (tone, state, since, why) = state(server);
        let cells = vec![
            safe(&server.name),
            role(server),
            state.to_owned(),
            since,
            server.lag_bytes.map_or_else(|| "-".to_owned(), bytes),
            pool(server.pool),
            detours(server),
            next_ping(server.next_ping_ms),
            why,
        ];
        (tone, cells)
    });
    table(header, &sides, rows.collect())
}

/// How everything else is that is watched.
pub(crate) fn services(status: &Status) -> Vec<Line> {
    let sides = [Side::Left, Side::Left, Side::Left, Side::Left, Side::Right, Side::Left];
    let rows = status.services.iter().map(|service| {
        let ServiceStatus { name, kind, state, outage, next_ping_ms, .. } = service;
        let (tone, word) = believed(*state);
        let since = outage.as_ref().map_or_else(|| "-".to_owned(), |outage| lasting(outage.lasting_ms));
        let why = outage.as_ref().map_or_else(String::new, |outage| safe(&outage.cause));
        (tone, vec![safe(name), safe(kind), word.to_owned(), since, next_ping(*next_ping_ms), why])
    });
    table(["SERVICE", "KIND", "STATE", "SINCE", "NEXT PING", "WHY"], &sides, rows.collect())
}

/// What a server is meant to be, and what it is where that is something else.
fn role(server: &ServerStatus) -> String {
    let word = |role: Role| role.to_string();
    match server.observed {
        Some(observed) if observed != server.declared => format!("{}, is {}", word(server.declared), word(observed)),
        _ => word(server.declared),
    }
}

/// What it means, in a word, for how long, and why.
fn state(server: &ServerStatus) -> (Option<Tone>, &'static str, String, String) {
    if let Some(outage) = &server.outage {
        let (tone, word) = believed(server.state);
        return (tone, word, lasting(outage.lasting_ms), safe(&outage.cause));
    }
    if server.standing.word != "sound" {
        return (Some(Tone::Bad), "unfit", "-".to_owned(), safe(&server.standing.text));
    }
    if let Some(breaker) = &server.breaker {
        return (Some(Tone::Away), "behind", lasting(breaker.lasting_ms), safe(&breaker.cause));
    }
    if let Some(drain) = &server.drained {
        let why = format!("by {}, {} more", safe(&drain.by), lasting(drain.left_ms));
        return (Some(Tone::Away), "drained", "-".to_owned(), why);
    }
    let (tone, word) = believed(server.state);
    let why = if server.admits { "" } else { "admits no new connections" };
    (tone, word, "-".to_owned(), why.to_owned())
}

fn believed(state: State) -> (Option<Tone>, &'static str) {
    match state {
        State::Up => (None, "up"),
        State::Suspect => (Some(Tone::Away), "suspect"),
        State::Down => (Some(Tone::Bad), "down"),
        State::Recovering => (Some(Tone::Away), "recovering"),
    }
}

/// `3/16`: lent, and at most; with those who wait.
fn pool(pool: PoolUse) -> String {
    let waiting = if pool.waiting == 0 { String::new() } else { format!(" +{}", pool.waiting) };
    format!("{}/{}{waiting}", pool.lent, pool.max)
}

fn detours(server: &ServerStatus) -> String {
    let uses = server.detours.iter().map(|of| {
        let narrowed = if of.usable < of.size { format!(" of {}", of.size) } else { String::new() };
        format!("{} {}/{}{narrowed}", safe(&of.of), of.pool.lent, of.usable)
    });
    let uses = uses.collect::<Vec<_>>().join(", ");
    if uses.is_empty() { "-".to_owned() } else { uses }
}

/// When a server is pinged next.
pub(crate) fn next_ping(ms: u64) -> String {
    if ms == 0 { "now".to_owned() } else { lasting(ms) }
}

/// A time that goes on: in whole seconds from one on, since it is drawn once a second.
pub(crate) fn lasting(ms: u64) -> String {
    let ms = if ms < 1000 { ms } else { ms / 1000 * 1000 };
    bound(Duration::from_millis(ms))
}

fn bytes(bytes: u64) -> String {
    match bytes {
        0..10_000 => format!("{bytes} B"),
        10_000..10_000_000 => format!("{} kB", bytes / 1000),
        10_000_000..10_000_000_000 => format!("{} MB", bytes / 1_000_000),
        _ => format!("{} GB", bytes / 1_000_000_000),
    }
}

/// Rows under their header; none without rows.
fn table<const N: usize>(header: [&str; N], sides: &[Side], rows: Vec<Row>) -> Vec<Line> {
    if rows.is_empty() {
        return Vec::new();
    }
    let (mut tones, mut cells) = (vec![Some(Tone::Faint)], vec![header.map(str::to_owned).to_vec()]);
    for (tone, row) in rows {
        tones.push(tone);
        cells.push(row);
    }
    aligned(sides, &cells).into_iter().zip(tones).map(|(text, tone)| Line::toned(tone, text)).collect()
}

#[cfg(test)]
pub(crate) mod tests {
    use serde_json::json;

    use super::*;
    use crate::{paint::Paint, subject::Scene};

    /// The documented example, in which the replica is down.
    pub(crate) fn example() -> Status {
        let page = include_str!("../../../docs/status.md");
        let example = page.split("```json").nth(1).and_then(|rest| rest.split("```").next()).unwrap();
        serde_json::from_str(example).unwrap()
    }

    /// The same with these events, one of which after the other steers terminals.
    pub(crate) fn scene(numbers: &[u64]) -> Scene {
        let event =
            |number: &u64| json!({ "number": number, "alias": "replica", "text": format!("{number}\u{1b}[2J") });
        let status = example();
        let timeline = json!({
            "version": 1, "at": status.at, "process": status.process, "outages": [], "spans": [],
            "events": numbers.iter().map(event).collect::<Vec<_>>(),
        });
        Scene { status, timeline: serde_json::from_value(timeline).unwrap() }
    }

    pub(crate) const PLAIN: Paint = Paint { terminal: false, colour: false, unicode: true };

    fn text(lines: &[Line]) -> String {
        lines.iter().map(|line| line.painted(PLAIN, 400)).collect::<Vec<_>>().join("\n")
    }

    #[test]
    fn a_hostile_router_steers_no_terminal() {
        let mut status = example();
        let hostile = "x\x1b[2J\r\n\u{202e}y".to_owned();
        for alias in &mut status.aliases {
            alias.name.clone_from(&hostile);
            alias.target = Some(hostile.clone());
            alias.group = vec![hostile.clone()];
        }
        for server in &mut status.servers {
            server.name.clone_from(&hostile);
            server.standing.text.clone_from(&hostile);
            server.detours.iter_mut().for_each(|detour| detour.of.clone_from(&hostile));
            if let Some(outage) = &mut server.outage {
                outage.cause.clone_from(&hostile);
            }
        }
        status.process.host = Some(hostile.clone());
        status.process.pgdetour = hostile;
        let lines = [vec![headline(&status)], aliases(&status), servers(&status), services(&status)].concat();
        for line in &lines {
            let shown = line.painted(PLAIN, 4000);
            assert!(!shown.chars().any(|c| c.is_control() || c == '\u{202e}'), "{shown:?}");
        }
    }

    #[test]
    fn an_outage_is_told_with_its_cause_and_where_its_reads_go() {
        let status = example();
        let shown = text(&[vec![headline(&status)], aliases(&status), servers(&status)].concat());
        for part in ["DEGRADED", "(detour)", "down", "NEXT PING"] {
            assert!(shown.contains(part), "no {part:?} in\n{shown}");
        }
    }
}
