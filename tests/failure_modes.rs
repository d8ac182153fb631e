//! Does `docs/failure-modes.md` say what the code does? Its tables are read, and each claim that code decides is compared with it.

use std::collections::{BTreeMap, BTreeSet};

use pgdetour::{
    config::Pings,
    health::Bounds,
    policy::{Class, Effort, Fault, Network, Outcome, Severity, Sqlstate, Verdict, excuses, verdict},
};

const PAGE: &str = include_str!("../docs/failure-modes.md");
const README: &str = include_str!("../README.md");
/// Every error that has a place in the classification.
const KNOWN: &str = include_str!("policy/faults.toml");

/// How the page calls the errors that come without a SQLSTATE, and the table of the classification.
const NAMES: [(&str, &str, Fault); 25] = [
    ("refused", "Connect Refused", Fault::Connect(Network::Refused)),
    ("unreachable", "Connect Unreachable", Fault::Connect(Network::Unreachable)),
    ("connect timed out", "Connect TimedOut", Fault::Connect(Network::TimedOut)),
    ("connect broken", "Connect Broken", Fault::Connect(Network::Broken)),
    ("late", "Late", Fault::Late),
    ("closed", "Closed", Fault::Closed),
    ("reset", "Session Broken", Fault::Session(Network::Broken)),
    ("session refused", "Session Refused", Fault::Session(Network::Refused)),
    ("session unreachable", "Session Unreachable", Fault::Session(Network::Unreachable)),
    ("session timed out", "Session TimedOut", Fault::Session(Network::TimedOut)),
    ("name unknown", "Lookup", Fault::Lookup),
    ("garbled", "Garbled", Fault::Garbled),
    ("wrong role", "WrongRole", Fault::WrongRole),
    ("no TLS", "Tls", Fault::Tls),
    ("no login", "Login", Fault::Login),
    ("bad setting", "Settings", Fault::Settings),
    ("no handles", "Resource", Fault::Resource),
    ("not admitted", "NotAdmitted", Fault::NotAdmitted),
    ("pool full", "PoolFull", Fault::PoolFull),
    ("pool closed", "PoolClosed", Fault::PoolClosed),
    ("replay conflict", "Replay", Fault::Replay),
    ("not on a replica", "NotOnReplica", Fault::NotOnReplica),
    ("stale plan", "StalePlan", Fault::StalePlan),
    ("misuse", "Misuse", Fault::Misuse),
    ("unknown", "Unknown", Fault::Unknown),
];

/// One row of a table: its cells.
type Row = Vec<&'static str>;

/// The rows below the table whose first column has this title.
fn rows(title: &str) -> Vec<Row> {
    let cells = |line: &'static str| line.trim_matches('|').split('|').map(str::trim).collect::<Row>();
    let (mut found, mut inside) = (Vec::new(), false);
    for line in PAGE.lines() {
        if !line.starts_with('|') {
            inside = false;
        } else if cells(line)[0] == title {
            inside = true;
        } else if inside && !line.starts_with("| ---") {
            found.push(cells(line));
        }
    }
    assert!(!found.is_empty(), "no table of the page begins with {title:?}");
    found
}

/// What a text has between two of these, in their order.
fn between<'a>(text: &'a str, mark: &str) -> Vec<&'a str> {
    text.split(mark).skip(1).step_by(2).collect()
}

fn fault(name: &str) -> Fault {
    let reported = |code, severity| Fault::Reported {
        sqlstate: Sqlstate::parse(code).unwrap_or_else(|| panic!("{name:?} is no SQLSTATE")),
        severity,
    };
    match name.split_once(' ') {
        Some(("ERROR", code)) => reported(code, Severity::Error),
        Some(("FATAL", code)) => reported(code, Severity::Fatal),
        _ => NAMES.iter().find(|known| known.0 == name).unwrap_or_else(|| panic!("{name:?} is no error")).2,
    }
}

fn spelt(verdict: Verdict) -> &'static str {
    match verdict {
        Verdict::Elsewhere => "next server",
        Verdict::Again => "same server",
        Verdict::GiveUp => "fails",
    }
}

fn class(class: Class) -> String {
    format!("{class:?}").to_lowercase()
}

/// The errors that a row says are seen at a statement, or at a connect.
fn seen(row: &Row, at: &str) -> Vec<&'static str> {
    let parts = row[2].split(';').map(str::trim).filter(|part| !part.is_empty());
    parts.filter_map(|part| part.strip_prefix(at)?.strip_prefix(": ")).flat_map(|part| between(part, "`")).collect()
}

#[test]
fn every_fault_has_its_row() {
    let numbers: Vec<&str> = rows("#").iter().map(|row| row[0]).collect();
    let all: Vec<String> = (1..=67).map(|number| format!("F{number:02}")).collect();
    assert_eq!(numbers, all);
    for row in rows("#") {
        assert_eq!(row.len(), 8, "{row:?}");
        let seen = [seen(&row, "statement"), seen(&row, "connect")].concat();
        assert_eq!(seen, between(row[2], "`"), "{}: it is a statement or a connect that sees something", row[0]);
        for name in seen {
            fault(name);
        }
        assert!(row[3..].iter().all(|cell| !cell.is_empty()), "{row:?}");
    }
}

#[test]
fn calls_that_are_hit_in_their_middle_end_as_the_page_says() {
    for row in rows("#") {
        let faults: Vec<Fault> = seen(&row, "statement").into_iter().map(fault).collect();
        if faults.is_empty() {
            continue;
        }
        let of = |effort, outcome| -> BTreeSet<&str> {
            faults.iter().map(|fault| spelt(verdict(effort, *fault, outcome))).collect()
        };
        let told = |cell: &'static str| between(cell, "**").into_iter().collect::<BTreeSet<_>>();
        assert_eq!(told(row[4]), of(Effort::Read, Outcome::Unknown), "{}: a read", row[0]);
        assert_eq!(told(row[5]), of(Effort::Write, Outcome::RolledBack), "{}: a write that was rolled back", row[0]);
        assert_eq!(told(row[5]), of(Effort::Write, Outcome::Unknown), "{}: a write of which nobody knows", row[0]);
    }
}

/// What code decides about one error, as the page has it.
fn decided(name: &str) -> [String; 5] {
    let fault = fault(name);
    let of = |effort, outcome| spelt(verdict(effort, fault, outcome)).to_owned();
    [
        class(fault.class()),
        of(Effort::Read, Outcome::Unknown),
        if excuses(fault) { "older value" } else { "fails" }.to_owned(),
        of(Effort::Write, Outcome::NotSent),
        of(Effort::Write, Outcome::RolledBack),
    ]
}

/// All errors of the classification, as the page calls them, in its order.
fn all_errors() -> Vec<String> {
    #[derive(serde::Deserialize)]
    struct Table {
        row: Vec<Faults>,
    }
    #[derive(serde::Deserialize)]
    struct Faults {
        faults: Vec<String>,
    }
    let table: Table = toml_edit::de::from_str(KNOWN).expect("the table can be read");
    let mut found = Vec::new();
    for name in table.row.into_iter().flat_map(|row| row.faults) {
        let name = NAMES.iter().find(|known| known.1 == name).map_or(name, |known| known.0.to_owned());
        if !found.contains(&name) {
            found.push(name);
        }
    }
    found
}

#[test]
fn each_error_counts_as_the_page_says() {
    let mut told = BTreeMap::new();
    for row in rows("error") {
        for name in between(row[0], "`") {
            let before = told.insert(name.to_owned(), row[1..].iter().map(|cell| (*cell).to_owned()).collect());
            assert_eq!(before, None::<Vec<String>>, "{name} has two rows");
        }
    }
    let wrong = |name: &&String| told.get(*name).map(Vec::as_slice) != Some(&decided(name));
    let wrong: Vec<String> = all_errors().iter().filter(wrong).cloned().collect();
    assert!(wrong.is_empty(), "{wrong:?} have no row, or a wrong one. It should be:\n{}", table_of_errors());
    assert_eq!(told.len(), all_errors().len(), "errors that no code knows");
}

/// The table as it should be: errors that count alike share a row.
fn table_of_errors() -> String {
    let mut groups: Vec<([String; 5], Vec<String>)> = Vec::new();
    for name in all_errors() {
        let decided = decided(&name);
        match groups.iter_mut().find(|(known, _)| *known == decided) {
            Some((_, names)) => names.push(name),
            None => groups.push((decided, vec![name])),
        }
    }
    let line = |(cells, names): &([String; 5], Vec<String>)| {
        let names: Vec<String> = names.iter().map(|name| format!("`{name}`")).collect();
        format!("| {} | {} |", names.join(" "), cells.join(" | "))
    };
    groups.iter().map(line).collect::<Vec<_>>().join("\n")
}

#[test]
fn what_speaks_against_a_server_is_what_the_page_says() {
    for name in all_errors() {
        let of = fault(&name).class();
        let (asks, fails) = match of {
            Class::Hard | Class::Soft => (true, true),
            Class::Role => (true, false),
            _ => (false, false),
        };
        assert_eq!((of.asks_for_ping(), of.fails_ping()), (asks, fails), "{name}");
        let meant = format!("*{}*", class(of)).to_lowercase();
        assert!(PAGE.to_lowercase().contains(&meant), "the page does not say what {meant} means");
    }
}

#[test]
fn a_class_of_codes_counts_as_the_page_says() {
    for (codes, class) in [("28", Class::Config), ("53", Class::Overload), ("58", Class::Soft), ("F0", Class::Soft)] {
        assert!(PAGE.contains("28 is\n*config*, 53 *overload*, 58 and F0 *soft*, and 08 *soft* where it is `FATAL`"));
        assert_eq!(fault(&format!("ERROR {codes}Z99")).class(), class, "{codes}");
    }
    assert_eq!(fault("FATAL 08Z99").class(), Class::Soft);
    assert_eq!(fault("ERROR 08Z99").class(), Class::Application);
    assert_eq!(fault("ERROR ZZZ99").class(), Class::Application);
}

#[test]
fn the_bounds_are_those_of_the_code() {
    let bounds = [Pings::default(), Pings::brisk()].map(|pings| Bounds::of(&pings));
    let known = [
        ("**ended**", bounds.map(|bounds| bounds.ended)),
        ("**silent, in use**", bounds.map(|bounds| bounds.silent_busy)),
        ("**silent, idle**", bounds.map(|bounds| bounds.silent_idle)),
        ("**back**", bounds.map(|bounds| bounds.recovery)),
    ];
    let told: Vec<(&str, &str, &str)> = rows("bound").iter().map(|row| (row[0], row[2], row[3])).collect();
    let spelt = known.map(|(name, of)| (name, of.map(|bound| humantime::format_duration(bound).to_string())));
    let should: Vec<(&str, &str, &str)> = spelt.iter().map(|(name, [one, other])| (*name, &**one, &**other)).collect();
    assert_eq!(told, should);
    for row in rows("#") {
        let named = between(row[7], "**").into_iter().map(|name| format!("**{name}**"));
        named.for_each(|name| assert!(known.iter().any(|known| known.0 == name), "{}: {name} is no bound", row[0]));
    }
}

#[test]
fn events_and_keys_are_those_of_the_readme() {
    let named =
        rows("#").into_iter().flat_map(|row| row[3..].iter().flat_map(|cell| between(cell, "`")).collect::<Vec<_>>());
    let is_name = |name: &&str| name.contains('_') && name.chars().all(|c| c.is_ascii_lowercase() || c == '_');
    // A setting of PostgreSQL's, not of ours.
    let ours = named.filter(is_name).filter(|name| *name != "statement_timeout");
    let unknown: BTreeSet<&str> = ours.filter(|name| !README.contains(&format!("`{name}`"))).collect();
    assert!(unknown.is_empty(), "{unknown:?} are not in the README");
    assert!(README.contains("](docs/failure-modes.md)"), "nobody finds the page");
}
