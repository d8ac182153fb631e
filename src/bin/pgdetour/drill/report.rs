//! A drill told to machines: JSON, and JUnit XML for continuous integration.

use std::{fmt::Write, time::Duration};

use serde_json::{Value, json};

use super::{
    plan::{Fault, Limits},
    record::{Figures, Record, Way},
};
use crate::safe::{safe, xml};

/// How many reasons of failed calls are told.
pub(super) const REASONS: usize = 5;

/// What became of one fault.
#[derive(Debug)]
pub(super) struct Outcome {
    pub(super) fault: Fault,
    /// None: it was not reached.
    pub(super) played: Option<Played>,
}

/// What happened.
#[derive(Debug)]
pub(super) struct Played {
    pub(super) record: Record,
    pub(super) figures: Figures,
    /// Why it did not go well.
    pub(super) complaints: Vec<String>,
}

impl Outcome {
    pub(super) fn is_fine(&self) -> bool {
        self.played.as_ref().is_some_and(|played| played.complaints.is_empty())
    }

    fn took(&self) -> Duration {
        self.played.as_ref().map_or(Duration::ZERO, |played| played.record.took)
    }
}

/// The drill as JSON.
pub(super) fn json(outcomes: &[Outcome], interrupted: bool) -> Value {
    let faults: Vec<Value> = outcomes.iter().map(fault).collect();
    json!({
        "fine": !interrupted && outcomes.iter().all(Outcome::is_fine),
        "interrupted": interrupted,
        "faults": faults,
    })
}

fn fault(outcome: &Outcome) -> Value {
    let fault = &outcome.fault;
    let mut told = json!({ "fault": fault.name, "alias": fault.alias.as_str(), "limits": limits(fault.limits) });
    let Some(Played { record, figures, complaints }) = &outcome.played else {
        told["skipped"] = true.into();
        return told;
    };
    let by = |way: Way| record.reads.iter().filter(move |read| read.way == way);
    let reads =
        |way: Way| json!({ "made": by(way).count(), "failed": by(way).filter(|read| read.served.is_err()).count() });
    let writes = figures.writes;
    let more = json!({
        "fine": complaints.is_empty(),
        "complaints": complaints,
        "took_ms": milliseconds(record.took),
        "detection_ms": figures.detection.map(milliseconds),
        "return_ms": figures.home.map(milliseconds),
        "came_home": figures.is_home,
        "longest_gap_ms": milliseconds(figures.gap),
        "reads": {
            "made": figures.reads, "failed": figures.failed, "retried": figures.retried, "detoured": figures.detoured,
            "read": reads(Way::Read), "get": reads(Way::Get),
        },
        "writes": {
            "made": writes.made, "acknowledged": writes.acknowledged, "undone": writes.undone, "unknown": writes.unknown,
            "lost": writes.lost, "doubled": writes.doubled, "denied": writes.denied,
        },
        "other_outages": record.elsewhere.iter().map(|alias| alias.as_str()).collect::<Vec<_>>(),
        "reasons": record.reasons(REASONS),
    });
    if let (Some(told), Value::Object(more)) = (told.as_object_mut(), more) {
        told.extend(more);
    }
    told
}

fn limits(limits: Limits) -> Value {
    json!({
        "max_gap_ms": limits.gap.map(milliseconds),
        "max_failed": limits.failed,
        "max_detection_ms": limits.detection.map(milliseconds),
        "max_return_ms": limits.home.map(milliseconds),
    })
}

fn milliseconds(time: Duration) -> f64 {
    (time.as_secs_f64() * 1e6).round() / 1e3
}

/// The drill as JUnit XML: one suite, one case for each fault.
pub(super) fn junit(outcomes: &[Outcome]) -> String {
    let count = |wanted: &dyn Fn(&Outcome) -> bool| outcomes.iter().filter(|outcome| wanted(outcome)).count();
    let skipped = count(&|outcome| outcome.played.is_none());
    let failures = count(&|outcome| outcome.played.is_some() && !outcome.is_fine());
    let time: Duration = outcomes.iter().map(Outcome::took).sum();
    let sums = format!(
        "tests=\"{}\" failures=\"{failures}\" errors=\"0\" skipped=\"{skipped}\" time=\"{:.3}\"",
        outcomes.len(),
        time.as_secs_f64()
    );
    let mut text = format!(
        "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<testsuites name=\"pgdetour drill\" {sums}>\n  <testsuite name=\"pgdetour drill\" {sums}>\n"
    );
    for outcome in outcomes {
        // Writing to a string cannot fail.
        let _ = case(&mut text, outcome);
    }
    text.push_str("  </testsuite>\n</testsuites>\n");
    text
}

fn case(text: &mut String, outcome: &Outcome) -> std::fmt::Result {
    let (name, took) = (xml(&outcome.fault.label()), outcome.took().as_secs_f64());
    writeln!(text, "    <testcase classname=\"pgdetour.drill\" name=\"{name}\" time=\"{took:.3}\">")?;
    match &outcome.played {
        None => writeln!(text, "      <skipped message=\"the drill ended before it\"/>")?,
        Some(Played { complaints, .. }) if complaints.is_empty() => {}
        Some(Played { complaints, record, .. }) => {
            let reasons = record.reasons(REASONS);
            let all: Vec<String> = complaints.iter().map(String::as_str).chain(reasons).map(xml).collect();
            let first = all.first().map(String::as_str).unwrap_or_default();
            writeln!(text, "      <failure type=\"drill\" message=\"{first}\">{}</failure>", all.join("\n"))?;
        }
    }
    if outcome.played.is_some() {
        writeln!(text, "      <system-out>{}</system-out>", xml(&fault(outcome).to_string()))?;
    }
    writeln!(text, "    </testcase>")
}

/// Why calls failed, harmless for a terminal.
pub(super) fn reasons(record: &Record) -> Vec<String> {
    record.reasons(REASONS).into_iter().map(safe).collect()
}

#[cfg(test)]
mod tests {
    use pgdetour::config::AliasName;

    use super::*;
    use crate::drill::{kind::Kind, plan::How};

    fn outcome(name: &str, complaints: Option<&[&str]>) -> Outcome {
        let alias = AliasName::new("replica").unwrap();
        let how = How::Built(Kind::Kill);
        let fault = Fault {
            name: name.into(),
            alias: alias.clone(),
            how,
            outage: true,
            limits: Limits::default(),
            read: alias,
            write: None,
        };
        let played = complaints.map(|complaints| Played {
            record: Record { took: Duration::from_millis(1500), ..Record::default() },
            figures: Figures::default(),
            complaints: complaints.iter().map(|text| (*text).to_owned()).collect(),
        });
        Outcome { fault, played }
    }

    #[test]
    fn junit_counts_failures_and_what_was_skipped() {
        let text = junit(&[
            outcome("kill", Some(&[])),
            outcome("stop", Some(&["too <slow>", "and \"more\""])),
            outcome("freeze", None),
        ]);
        assert!(text.contains("tests=\"3\" failures=\"1\" errors=\"0\" skipped=\"1\" time=\"3.000\""), "{text}");
        assert!(
            text.contains(
                "<failure type=\"drill\" message=\"too &lt;slow&gt;\">too &lt;slow&gt;\nand &quot;more&quot;</failure>"
            ),
            "{text}"
        );
        assert!(text.contains("<skipped message="), "{text}");
    }

    #[test]
    fn a_name_that_is_markup_or_steers_a_terminal_is_neither_in_junit() {
        let text = junit(&[outcome("</testcase>\x1b[2J\0", Some(&[]))]);
        assert!(text.contains(r#"name="&lt;/testcase&gt;\u{1b}[2J\u{0}@replica""#), "{text}");
        assert!(!text.contains(['\x1b', '\0']), "{text}");
    }

    #[test]
    fn a_drill_that_was_interrupted_or_not_finished_is_not_fine() {
        let fine = [outcome("kill", Some(&[]))];
        assert_eq!((&json(&fine, false)["fine"], &json(&fine, true)["fine"]), (&true.into(), &false.into()));
        assert_eq!(json(&[outcome("kill", None)], false)["fine"], false);
    }
}
