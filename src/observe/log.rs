//! Events as `tracing` records. The names and fields here are an interface: people alert on them.

use std::time::Duration;

use super::event::{Event, EventKind, Hook};
use crate::{
    config::{AliasName, Mistake},
    health::Cause,
    plan::Mode,
};

/// Writes what a configuration probably does not mean.
pub(crate) fn warn(warnings: &[Mistake]) {
    for warning in warnings {
        tracing::warn!(target: "pgdetour", event = "config_warning", "{warning}");
    }
}

/// Writes one event to the log: an outage at ERROR, its end at INFO.
/// A field without a value is left out of the record.
pub(super) fn record(event: &Event) {
    let (name, pid) = (event.kind.name(), std::process::id());
    let (alias, server) = (event.alias.as_ref().map(|alias| alias.as_str()), event.address.as_deref());
    match &event.kind {
        EventKind::OutageOpened { cause, detour, detected_in } => {
            let detour = detour.as_ref().map_or("none", |target| target.as_str());
            tracing::error!(target: "pgdetour", event = name, alias, server, %cause, detour, detected_in_s = detected_in.as_secs_f64(), pid, "outage opened");
        }
        EventKind::OutageOngoing { duration, tally, cause, next_ping } => tracing::error!(
            target: "pgdetour", event = name, alias, server, duration_s = duration.as_secs_f64(),
            detoured = tally.detoured, refused = tally.refused, failed = tally.failed, %cause,
            next_ping_s = next_ping.as_secs_f64(), pid, "outage goes on"
        ),
        EventKind::OutageClosed { duration, tally } => tracing::info!(
            target: "pgdetour", event = name, alias, server, duration_s = duration.as_secs_f64(),
            detoured = tally.detoured, refused = tally.refused, failed = tally.failed, pid, "recovered"
        ),
        EventKind::BreakerOpened { cause, detour } => {
            let detour = detour.as_ref().map_or("none", |target| target.as_str());
            tracing::warn!(target: "pgdetour", event = name, alias, server, %cause, detour, pid, "breaker opened");
        }
        EventKind::BreakerClosed { duration } => tracing::info!(
            target: "pgdetour", event = name, alias, server, duration_s = duration.as_secs_f64(), pid, "breaker closed"
        ),
        EventKind::AdmissionStopped { cause } => {
            tracing::warn!(target: "pgdetour", event = name, alias, server, %cause, pid, "no new connections admitted");
        }
        EventKind::AdmissionResumed => {
            tracing::info!(target: "pgdetour", event = name, alias, server, pid, "new connections admitted again");
        }
        EventKind::DetourNarrowed { of, usable, size, latency } => tracing::warn!(
            target: "pgdetour", event = name, alias, server, of = of.as_str(), usable, size,
            latency_s = latency.as_secs_f64(), pid, "slow: the detour is narrowed"
        ),
        EventKind::DetourWidened { of } => {
            tracing::info!(target: "pgdetour", event = name, alias, server, of = of.as_str(), pid, "the detour is wide again");
        }
        EventKind::Drained { lasting, by, detour } => drained(event, (*lasting, by), detour.as_ref()),
        EventKind::Undrained { duration, by } => undrained(event, *duration, by.as_deref()),
        EventKind::PingAsked { by } | EventKind::HoldEnded { by } => asked(event, by),
        EventKind::HookFailed { hook, cause } => hook_failed(event, *hook, cause),
        EventKind::PingInconclusive { cause } => {
            tracing::warn!(target: "pgdetour", event = name, alias, server, %cause, pid, "ping tells nothing of the server's health");
        }
        EventKind::RoleChanged { from, to, timeline } => {
            tracing::warn!(target: "pgdetour", event = name, alias, server, %from, %to, timeline = timeline.map(|line| line.0), pid, "role changed");
        }
        EventKind::StandingChanged { standing } => {
            tracing::error!(target: "pgdetour", event = name, alias, server, %standing, pid, "standing changed");
        }
        EventKind::CommitUnconfirmed => {
            tracing::warn!(target: "pgdetour", event = name, alias, server, pid, "a write did not wait for the replicas: a failover may lose it");
        }
        EventKind::HistoryStalled { .. } | EventKind::HistoryResumed | EventKind::HistoryLost { .. } => {
            history(&event.kind)
        }
        EventKind::ModeChanged { from, to } => mode_changed(name, *from, *to),
    }
}

fn hook_failed(event: &Event, hook: Hook, cause: &Cause) {
    let (alias, server) = (event.alias.as_ref().map(|alias| alias.as_str()), event.address.as_deref());
    let (name, pid, hook) = (event.kind.name(), std::process::id(), hook.name());
    tracing::error!(target: "pgdetour", event = name, alias, server, hook, %cause, pid, "hook failed");
}

fn drained(event: &Event, (lasting, by): (Duration, &str), detour: Option<&AliasName>) {
    let (alias, server) = (event.alias.as_ref().map(|alias| alias.as_str()), event.address.as_deref());
    let (detour, lasting_s) = (detour.map_or("none", |target| target.as_str()), lasting.as_secs_f64());
    let (name, pid) = (event.kind.name(), std::process::id());
    tracing::warn!(target: "pgdetour", event = name, alias, server, by, lasting_s, detour, pid, "drained");
}

fn undrained(event: &Event, duration: Duration, by: Option<&str>) {
    let (alias, server) = (event.alias.as_ref().map(|alias| alias.as_str()), event.address.as_deref());
    let (name, pid, duration_s) = (event.kind.name(), std::process::id(), duration.as_secs_f64());
    tracing::info!(target: "pgdetour", event = name, alias, server, by, duration_s, pid, "drained no more");
}

fn asked(event: &Event, by: &str) {
    let (alias, server) = (event.alias.as_ref().map(|alias| alias.as_str()), event.address.as_deref());
    let (name, pid) = (event.kind.name(), std::process::id());
    tracing::info!(target: "pgdetour", event = name, alias, server, by, pid, "asked for by hand");
}

/// For the better at INFO.
fn mode_changed(name: &str, from: Mode, to: Mode) {
    let pid = std::process::id();
    match to > from {
        true => tracing::warn!(target: "pgdetour", event = name, %from, %to, pid, "mode changed for the worse"),
        false => tracing::info!(target: "pgdetour", event = name, %from, %to, pid, "mode changed for the better"),
    }
}

/// What is kept of outages.
fn history(kind: &EventKind) {
    let (name, pid) = (kind.name(), std::process::id());
    match kind {
        EventKind::HistoryStalled { cause, waiting } => {
            tracing::warn!(target: "pgdetour", event = name, %cause, waiting, pid, "outages cannot be stored: has pgdetour migrate been run, and may the role write there?");
        }
        EventKind::HistoryLost { outages } => {
            tracing::warn!(target: "pgdetour", event = name, outages, pid, "outages were given up before they could be stored");
        }
        _ => tracing::info!(target: "pgdetour", event = name, pid, "outages are stored again"),
    }
}
