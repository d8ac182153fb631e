//! What do the outages of a span of time come to? Times to detect and to recover, and how available each alias was.

use std::{collections::BTreeSet, time::Duration};

use serde::Serialize;

use super::{spans::Spans, table::SeenOutage};
use crate::observe::{Stamp, ms};

/// What is looked at.
#[derive(Debug, Clone)]
pub struct Scope {
    /// From this moment.
    pub since: Stamp,
    /// To this one.
    pub until: Stamp,
    /// An outage that is open in the table and was not told of for so long is of a process that has ended.
    pub silence: Duration,
    /// The aliases, each with the servers of its plan: its own first, by the aliases that declare them.
    pub aliases: Vec<(String, Vec<String>)>,
}

/// A report.
#[derive(Debug, Clone, Serialize)]
#[non_exhaustive]
pub struct Report {
    /// From this moment.
    pub since: Stamp,
    /// To this one.
    pub until: Stamp,
    /// The outages, the oldest first. What several processes have seen at the same time is one.
    pub outages: Vec<Incident>,
    /// Every alias of the configuration, and whatever else had an outage.
    pub aliases: Vec<NameReport>,
}

/// An outage as all processes together have seen it.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[non_exhaustive]
pub struct Incident {
    /// The alias or service.
    pub name: String,
    /// Where it is.
    pub address: String,
    /// When the first of them found it.
    pub opened: Stamp,
    /// When the last of them saw its end. None: it lasts, or nobody who knows is left.
    pub closed: Option<Stamp>,
    /// Whether it lasts.
    pub open: bool,
    /// From the first opening to the last end.
    pub lasted_ms: u64,
    /// The time to detect: the shortest and the longest of any of them.
    pub detected_ms: Span,
    /// How many processes have seen it.
    pub processes: u64,
    /// Why the first of them opened it.
    pub cause: String,
    /// Where the reads of the first of them went. None: nowhere.
    pub detour: Option<String>,
    /// Reads that another server took, of all of them.
    pub detoured: u64,
    /// Requests that no server took.
    pub refused: u64,
    /// Leases that were lost.
    pub failed: u64,
}

/// The least and the most of something.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct Span {
    /// The least.
    pub min: u64,
    /// The most.
    pub max: u64,
}

/// One alias or service over the whole span of time.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[non_exhaustive]
pub struct NameReport {
    /// Its name.
    pub name: String,
    /// Its own outages: none for a group.
    pub outages: u64,
    /// How long they were together, without what overlaps.
    pub out_ms: u64,
    /// The time to detect, of half of them no longer than this.
    pub detect_ms: Option<u64>,
    /// The time to recover, of half of those that are over no longer than this.
    pub recover_ms: Option<u64>,
    /// The longest that is over.
    pub longest_ms: Option<u64>,
    /// Reads that another server took.
    pub detoured: u64,
    /// Requests that no server took.
    pub refused: u64,
    /// Leases that were lost.
    pub failed: u64,
    /// The share of the time in which its own server answered, in percent. None for a group.
    pub available: Option<f64>,
    /// The share of the time in which any server of its plan answered, in percent.
    pub served: f64,
}

impl Report {
    /// The report on these, as far as they lie within `scope`.
    #[must_use]
    pub fn new(seen: &[SeenOutage], scope: &Scope) -> Self {
        let inside = |one: &&SeenOutage| {
            let (from, to) = one.span(scope.until, scope.silence);
            from < scope.until && to > scope.since
        };
        let mut seen: Vec<&SeenOutage> = seen.iter().filter(inside).collect();
        seen.sort_by(|one, other| (one.outage.opened, &one.outage.id).cmp(&(other.outage.opened, &other.outage.id)));
        let outages = incidents(&seen, scope);
        let known: BTreeSet<&str> = scope.aliases.iter().map(|(name, _)| name.as_str()).collect();
        let others: BTreeSet<&str> =
            outages.iter().map(|outage| outage.name.as_str()).filter(|name| !known.contains(name)).collect();
        let aliases = scope.aliases.iter().map(|(name, plan)| of_name(name, plan, &seen, &outages, scope));
        let others = others.into_iter().map(|name| of_name(name, &[name.to_owned()], &seen, &outages, scope));
        let aliases = aliases.chain(others).collect();
        Self { since: scope.since, until: scope.until, outages, aliases }
    }
}

/// Joins what several processes have seen of the same server at the same time.
fn incidents(seen: &[&SeenOutage], scope: &Scope) -> Vec<Incident> {
    let mut all: Vec<(Incident, Stamp, BTreeSet<&str>)> = Vec::new();
    for one in seen {
        let (from, to) = one.span(scope.until, scope.silence);
        let outage = &one.outage;
        let open = one.is_open(scope.until, scope.silence);
        let same = all.iter_mut().rev().find(|(incident, end, processes)| {
            // One process sees one outage after the other.
            let again = processes.contains(one.process.as_str());
            incident.name == outage.name && incident.address == outage.address && from <= *end && !again
        });
        let Some((incident, end, processes)) = same else {
            all.push((first(one, open), to, BTreeSet::from([one.process.as_str()])));
            continue;
        };
        *end = to.max(*end);
        processes.insert(&one.process);
        incident.open |= open;
        incident.closed = incident.closed.max(outage.closed);
        let Span { min, max } = incident.detected_ms;
        incident.detected_ms = Span { min: min.min(outage.detected_ms), max: max.max(outage.detected_ms) };
        incident.detoured += outage.detoured;
        incident.refused += outage.refused;
        incident.failed += outage.failed;
    }
    let all = all.into_iter().map(|(incident, end, processes)| Incident {
        closed: incident.closed.filter(|_| !incident.open),
        lasted_ms: ms(end.since(incident.opened)),
        processes: processes.len() as u64,
        ..incident
    });
    all.collect()
}

fn first(one: &SeenOutage, open: bool) -> Incident {
    let outage = &one.outage;
    Incident {
        name: outage.name.clone(),
        address: outage.address.clone(),
        opened: outage.opened,
        closed: outage.closed,
        open,
        lasted_ms: 0,
        detected_ms: Span { min: outage.detected_ms, max: outage.detected_ms },
        processes: 1,
        cause: outage.cause.clone(),
        detour: outage.detour.clone(),
        detoured: outage.detoured,
        refused: outage.refused,
        failed: outage.failed,
    }
}

fn of_name(name: &str, plan: &[String], seen: &[&SeenOutage], outages: &[Incident], scope: &Scope) -> NameReport {
    let window = (scope.since, scope.until);
    let out = |name: &str| {
        let its = seen.iter().filter(|one| one.outage.name == name);
        Spans::union(its.map(|one| one.span(scope.until, scope.silence)), window)
    };
    let own = out(name);
    let nobody = plan.iter().map(|server| out(server)).reduce(|one, other| one.and(&other)).unwrap_or_default();
    let percent = |spans: &Spans| {
        let whole = scope.until.since(scope.since).as_secs_f64();
        if whole > 0.0 { 100.0 * (1.0 - spans.total().as_secs_f64() / whole) } else { 100.0 }
    };
    let its = || outages.iter().filter(|outage| outage.name == name);
    let over = || its().filter(|outage| outage.closed.is_some()).map(|outage| outage.lasted_ms);
    NameReport {
        name: name.to_owned(),
        outages: its().count() as u64,
        out_ms: ms(own.total()),
        detect_ms: median(its().map(|outage| outage.detected_ms.min).collect()),
        recover_ms: median(over().collect()),
        longest_ms: over().max(),
        detoured: its().map(|outage| outage.detoured).sum(),
        refused: its().map(|outage| outage.refused).sum(),
        failed: its().map(|outage| outage.failed).sum(),
        available: plan.iter().any(|server| server == name).then(|| percent(&own)),
        served: percent(&nobody),
    }
}

fn median(mut all: Vec<u64>) -> Option<u64> {
    all.sort_unstable();
    all.get(all.len().checked_sub(1)? / 2).copied()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::history::table::tests::outage;

    fn seen(process: &str, from: u64, to: Option<u64>) -> SeenOutage {
        let outage = outage(&format!("{process}-{from}"), from, to);
        SeenOutage { process: process.to_owned(), seen: Stamp::from_unix_ms(to.unwrap_or(from)), outage }
    }

    fn on(name: &str, one: SeenOutage) -> SeenOutage {
        SeenOutage { outage: crate::observe::OutageRecord { name: name.to_owned(), ..one.outage }, ..one }
    }

    fn scope() -> Scope {
        let plan = |all: &[&str]| all.iter().map(|one| (*one).to_owned()).collect();
        Scope {
            since: Stamp::from_unix_ms(1000),
            until: Stamp::from_unix_ms(2000),
            silence: Duration::from_millis(500),
            aliases: vec![
                ("primary".to_owned(), plan(&["primary"])),
                ("replica".to_owned(), plan(&["replica", "primary"])),
                ("reports".to_owned(), plan(&["replica", "primary"])),
            ],
        }
    }

    #[test]
    fn what_several_processes_see_at_the_same_time_is_one_outage() {
        let all = [seen("a", 1100, Some(1200)), seen("b", 1150, Some(1250)), seen("a", 1220, Some(1230))];
        let report = Report::new(&all, &scope());
        let told: Vec<_> =
            report.outages.iter().map(|one| (one.opened.unix_ms(), one.lasted_ms, one.processes)).collect();
        assert_eq!(told, [(1100, 150, 2), (1220, 10, 1)], "one process sees one outage after the other");
        let replica = &report.aliases[1];
        assert_eq!((replica.outages, replica.out_ms, replica.detoured), (2, 150, 30));
        assert_eq!(replica.available.map(|percent| percent.round()), Some(85.0));
    }

    #[test]
    fn an_alias_is_served_while_any_server_of_its_plan_is() {
        let all = [seen("a", 1100, Some(1300)), on("primary", seen("a", 1250, Some(1350)))];
        let report = Report::new(&all, &scope());
        let told: Vec<_> = report
            .aliases
            .iter()
            .map(|one| (one.name.as_str(), one.available.map(|percent| percent.round()), one.served.round()))
            .collect();
        assert_eq!(told, [("primary", Some(90.0), 90.0), ("replica", Some(80.0), 95.0), ("reports", None, 95.0)]);
    }

    #[test]
    fn an_outage_whose_process_has_ended_counts_as_long_as_it_was_seen() {
        let mut ended = seen("a", 1100, None);
        ended.seen = Stamp::from_unix_ms(1200);
        let open = seen("b", 1900, None);
        let report = Report::new(&[ended, open], &scope());
        let told: Vec<_> = report.outages.iter().map(|one| (one.lasted_ms, one.open, one.closed)).collect();
        assert_eq!(told, [(100, false, None), (100, true, None)]);
        assert_eq!(report.aliases[1].recover_ms, None);
    }

    #[test]
    fn what_lies_outside_is_left_out_and_what_reaches_in_counts_as_far_as_it_does() {
        let all = [seen("a", 10, Some(20)), seen("a", 900, Some(1100)), on("cache", seen("a", 1500, Some(1600)))];
        let report = Report::new(&all, &scope());
        assert_eq!(report.outages.len(), 2);
        let told: Vec<_> = report.aliases.iter().map(|one| (one.name.as_str(), one.out_ms)).collect();
        assert_eq!(told, [("primary", 0), ("replica", 100), ("reports", 0), ("cache", 100)]);
    }
}
