//! The table of faults, row by row: `faults.toml`.

use std::{collections::BTreeSet, fmt::Debug};

use pgdetour::policy::{Class, Effort, Fault, Network, Outcome, Severity, Sqlstate, Verdict, verdict};
use serde::Deserialize;

const OUTCOMES: [Outcome; 3] = [Outcome::NotSent, Outcome::RolledBack, Outcome::Unknown];

/// Every fault that is not reported with a SQLSTATE.
const NAMED: [Fault; 25] = [
    Fault::Replay,
    Fault::NotOnReplica,
    Fault::StalePlan,
    Fault::Connect(Network::Refused),
    Fault::Connect(Network::Unreachable),
    Fault::Connect(Network::TimedOut),
    Fault::Connect(Network::Broken),
    Fault::Session(Network::Refused),
    Fault::Session(Network::Unreachable),
    Fault::Session(Network::TimedOut),
    Fault::Session(Network::Broken),
    Fault::Closed,
    Fault::Late,
    Fault::Lookup,
    Fault::Garbled,
    Fault::WrongRole,
    Fault::Tls,
    Fault::Login,
    Fault::Settings,
    Fault::Resource,
    Fault::NotAdmitted,
    Fault::PoolFull,
    Fault::PoolClosed,
    Fault::Misuse,
    Fault::Unknown,
];

#[derive(Debug, Deserialize)]
struct Table {
    row: Vec<Row>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Row {
    condition: String,
    faults: Vec<String>,
    class: String,
    outcomes: Vec<String>,
    read: String,
    write: String,
}

impl Row {
    fn faults(&self) -> impl Iterator<Item = Fault> {
        self.faults.iter().map(|text| fault(text).unwrap_or_else(|| panic!("{}: {text} is no fault", self.condition)))
    }

    fn outcomes(&self) -> impl Iterator<Item = Outcome> {
        self.outcomes.iter().map(|text| {
            let named = OUTCOMES.into_iter().find(|outcome| spelt(outcome) == *text);
            named.unwrap_or_else(|| panic!("{}: {text} is no outcome", self.condition))
        })
    }
}

fn rows() -> Vec<Row> {
    toml_edit::de::from_str::<Table>(include_str!("faults.toml")).expect("the table can be read").row
}

fn spelt(what: &impl Debug) -> String {
    format!("{what:?}")
}

fn fault(text: &str) -> Option<Fault> {
    let reported = |code, severity| Some(Fault::Reported { sqlstate: Sqlstate::parse(code)?, severity });
    match text.split_once(' ') {
        Some(("ERROR", code)) => reported(code, Severity::Error),
        Some(("FATAL", code)) => reported(code, Severity::Fatal),
        // `Connect Refused` in the table is `Connect(Refused)` in code.
        Some((name, rest)) => NAMED.into_iter().find(|fault| spelt(fault) == format!("{name}({rest})")),
        None => NAMED.into_iter().find(|fault| spelt(fault) == text),
    }
}

#[test]
fn each_fault_is_of_the_class_the_table_says() {
    for row in rows() {
        for fault in row.faults() {
            assert_eq!(spelt(&fault.class()), row.class, "{}: {fault:?}", row.condition);
        }
    }
}

#[test]
fn each_call_is_made_again_as_the_table_says_and_not_otherwise() {
    for row in rows() {
        for (fault, outcome) in row.faults().flat_map(|fault| row.outcomes().map(move |outcome| (fault, outcome))) {
            let here = format!("{}: {fault:?}, {outcome:?}", row.condition);
            assert_eq!(spelt(&verdict(Effort::Read, fault, outcome)), row.read, "{here}, a read");
            let write = if outcome.is_safe_to_retry() { row.write.as_str() } else { "GiveUp" };
            assert_eq!(spelt(&verdict(Effort::Write, fault, outcome)), write, "{here}, a write");
        }
    }
}

#[test]
fn a_write_that_may_have_happened_is_never_made_again_and_no_write_goes_elsewhere() {
    let reported = rows().into_iter().flat_map(|row| row.faults().collect::<Vec<_>>());
    for fault in NAMED.into_iter().chain(reported) {
        assert_eq!(verdict(Effort::Write, fault, Outcome::Unknown), Verdict::GiveUp, "{fault:?}");
        for outcome in OUTCOMES {
            assert_ne!(verdict(Effort::Write, fault, outcome), Verdict::Elsewhere, "{fault:?}, {outcome:?}");
        }
    }
}

#[test]
fn what_a_setting_or_the_application_did_wrong_is_not_tried_again_for_having_a_second_server() {
    for row in rows().iter().filter(|row| row.class == "Config") {
        assert!(row.faults().all(|fault| OUTCOMES.iter().all(|&outcome| {
            verdict(Effort::Read, fault, outcome) == Verdict::GiveUp && !Class::Config.asks_for_ping()
        })));
    }
}

#[test]
fn whatever_fails_a_ping_asks_for_one() {
    for fault in rows().iter().flat_map(|row| row.faults().collect::<Vec<_>>()) {
        assert!(!fault.class().fails_ping() || fault.class().asks_for_ping(), "{fault:?}");
    }
}

#[test]
fn no_fault_is_missing_in_the_table() {
    let listed: BTreeSet<String> = rows().iter().flat_map(Row::faults).map(|fault| spelt(&fault)).collect();
    let missing: Vec<_> = NAMED.into_iter().filter(|fault| !listed.contains(&spelt(fault))).collect();
    assert!(missing.is_empty(), "{missing:?}");
}
