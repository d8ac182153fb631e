//! Whether a fault went well: within its limits, nothing lost, everything back. Pure.

use std::time::Duration;

use super::{
    plan::Fault,
    record::{Figures, Record},
};
use crate::time::brief;

/// Why it did not go well; empty if it did.
pub(super) fn complaints(fault: &Fault, figures: &Figures, record: &Record) -> Vec<String> {
    let mut found: Vec<String> = record.problems.clone();
    if record.moments.fault.is_none() {
        return found;
    }
    found.extend(past_limits(fault, figures));
    if !fault.outage && record.moments.outage.is_some() {
        found.push("an outage was opened, though the server was up all along".to_owned());
    }
    if !figures.is_home {
        found.push("not all reads and writes were back at the end".to_owned());
    }
    let writes = figures.writes;
    let wrong = [
        (writes.lost, "acknowledged, and not there"),
        (writes.doubled, "done more than once"),
        (writes.denied, "said to be undone, and there"),
    ];
    let wrong = wrong.into_iter().filter(|(count, _)| *count > 0);
    found.extend(wrong.map(|(count, what)| format!("{count} of {} writes: {what}", writes.made)));
    found
}

fn past_limits(fault: &Fault, figures: &Figures) -> Vec<String> {
    let limits = fault.limits;
    let mut found = Vec::new();
    found.extend(past("longest gap", Some(figures.gap), limits.gap, brief));
    found.extend(past("failed reads", Some(figures.failed), limits.failed, |count| count.to_string()));
    match (figures.detection, limits.detection) {
        (None, Some(_)) if fault.outage => found.push("detection: no outage was opened".to_owned()),
        (detection, limit) => found.extend(past("detection", detection, limit, brief)),
    }
    found.extend(past("return", figures.home, limits.home, brief));
    found
}

fn past<T: PartialOrd + Copy>(
    what: &str,
    measured: Option<T>,
    limit: Option<T>,
    said: impl Fn(T) -> String,
) -> Option<String> {
    let (measured, limit) = (measured?, limit?);
    (measured > limit).then(|| format!("{what}: {} past the limit of {}", said(measured), said(limit)))
}

/// How long, for a table.
pub(super) fn time(time: Option<Duration>) -> String {
    time.map_or_else(|| "-".to_owned(), brief)
}

#[cfg(test)]
mod tests {
    use pgdetour::config::AliasName;

    use super::*;
    use crate::drill::{
        kind::Kind,
        plan::{How, Limits},
        record::{Moments, Writes},
    };

    const MS: Duration = Duration::from_millis(1);

    fn fault(limits: Limits) -> Fault {
        let alias = AliasName::new("replica").unwrap();
        let how = How::Built(Kind::Kill);
        Fault { name: "kill".into(), alias: alias.clone(), how, outage: true, limits, read: alias, write: None }
    }

    fn record() -> Record {
        Record { moments: Moments { fault: Some(MS), ..Moments::default() }, ..Record::default() }
    }

    fn figures() -> Figures {
        let (gap, detection, home) = (50 * MS, Some(7 * MS), Some(600 * MS));
        Figures { reads: 10, failed: 1, gap, detection, home, is_home: true, ..Figures::default() }
    }

    #[test]
    fn at_a_limit_all_is_well_and_past_it_not() {
        let at = Limits { gap: Some(50 * MS), failed: Some(1), detection: Some(7 * MS), home: Some(600 * MS) };
        assert_eq!(complaints(&fault(at), &figures(), &record()), [""; 0]);
        let past = Limits { gap: Some(49 * MS), failed: Some(0), detection: Some(6 * MS), home: Some(599 * MS) };
        let said = complaints(&fault(past), &figures(), &record());
        assert_eq!(said.len(), 4, "{said:?}");
        assert_eq!(said[0], "longest gap: 50 ms past the limit of 49 ms");
    }

    #[test]
    fn an_outage_that_is_never_found_is_past_any_limit() {
        let limits = Limits { detection: Some(7 * MS), ..Limits::default() };
        let unseen = Figures { detection: None, ..figures() };
        assert_eq!(complaints(&fault(limits), &unseen, &record()), ["detection: no outage was opened"]);
        assert_eq!(complaints(&Fault { outage: false, ..fault(limits) }, &unseen, &record()), [""; 0]);
    }

    #[test]
    fn a_write_that_is_lost_doubled_or_denied_is_a_complaint_without_any_limit() {
        let writes = Writes { made: 9, lost: 1, doubled: 2, denied: 3, ..Writes::default() };
        let said = complaints(&fault(Limits::default()), &Figures { writes, ..figures() }, &record());
        assert_eq!(said.len(), 3, "{said:?}");
    }
}
