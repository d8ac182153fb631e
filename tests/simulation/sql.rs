//! The statements that the simulated servers understand.

/// A statement, and the lease on which it was sent, where it says so: `SELECT 1 /*L7*/`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Statement {
    pub(crate) what: What,
    pub(crate) lease: Option<u64>,
}

/// What a statement does.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum What {
    /// The monitor's question.
    Ping,
    Nothing,
    Begin,
    Commit,
    Rollback,
    /// Writes a line of the ledger.
    Insert(Value),
    /// Reads it.
    Find(Value),
    /// Takes as many milliseconds, unless it is interrupted.
    Wait(u64),
    /// The number of the transaction that is open.
    Number,
    /// Within what such numbers count.
    Epoch,
    /// What became of a transaction, and that again.
    Status(u64),
    /// Begins a transaction that holds a key, and tells the answer that is stored under it.
    Claim(String),
    /// Stores an answer under a key, and commits.
    Settle {
        key: String,
        answer: String,
    },
    /// Answers with as many rows.
    Rows(u64),
    /// Fails with this SQLSTATE, as an application can make any statement fail.
    Fail(String),
    /// Nothing the simulation knows.
    Unknown(String),
}

/// A value, or the parameter that stands for it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Value {
    Given(u64),
    Parameter,
}

impl Statement {
    pub(crate) fn parse(text: &str) -> Self {
        let (text, lease) = match text.split_once("/*L") {
            Some((text, rest)) => (text, rest.split_once("*/").and_then(|(number, _)| number.parse().ok())),
            None => (text, None),
        };
        Self { what: What::parse(text.trim()), lease }
    }

    /// How many parameters it takes.
    pub(crate) fn parameters(&self) -> usize {
        usize::from(matches!(self.what, What::Insert(Value::Parameter) | What::Find(Value::Parameter)))
    }

    /// How many columns it answers with.
    pub(crate) fn columns(&self) -> usize {
        match self.what {
            What::Ping => 4,
            What::Status(_) | What::Number => 2,
            What::Epoch | What::Find(_) | What::Wait(_) | What::Rows(_) | What::Fail(_) => 1,
            What::Claim(_)
            | What::Settle { .. }
            | What::Nothing
            | What::Begin
            | What::Commit
            | What::Rollback
            | What::Insert(_)
            | What::Unknown(_) => 0,
        }
    }
}

impl What {
    fn parse(text: &str) -> Self {
        let unknown = || Self::Unknown(text.to_owned());
        let after = |start: &str| text.strip_prefix(start).map(|rest| rest.trim_end_matches(')'));
        let number = |start: &str| after(start).and_then(|rest| rest.parse().ok());
        let value = |start: &str| match after(start) {
            Some("$1") => Some(Value::Parameter),
            rest => rest.and_then(|rest| rest.parse().ok()).map(Value::Given),
        };
        let middle = |start: &str, end: &str| Some(text.split_once(start)?.1.split_once(end)?.0.to_owned());
        if text.starts_with("BEGIN; INSERT INTO pgdetour.writes") {
            middle("VALUES (", ", pg_catalog.now()").map_or_else(unknown, Self::Claim)
        } else if text.starts_with("UPDATE pgdetour.writes") {
            let parts = middle("SET answer = ", " WHERE key = ").zip(middle(" WHERE key = ", "; COMMIT"));
            parts.map_or_else(unknown, |(answer, key)| Self::Settle { key, answer: unquoted(&answer) })
        } else if text.starts_with("DELETE FROM pgdetour.writes") {
            Self::Nothing
        } else if text.starts_with("SELECT r.recovering") {
            Self::Ping
        } else if text.starts_with("SELECT pg_catalog.pg_current_xact_id_if_assigned") {
            Self::Number
        } else if text.starts_with("SELECT pg_catalog.concat_ws") {
            Self::Epoch
        } else if let Some(rest) = text.strip_prefix("SELECT pg_catalog.pg_xact_status('") {
            rest.split_once('\'').and_then(|(number, _)| number.parse().ok()).map_or_else(unknown, Self::Status)
        } else if text == "SELECT 1" {
            Self::Rows(1)
        } else if text.is_empty() || text.starts_with("SET ") || text.starts_with("DISCARD ") {
            Self::Nothing
        } else if text.starts_with("BEGIN") || text.starts_with("START TRANSACTION") {
            Self::Begin
        } else if text.starts_with("COMMIT") {
            Self::Commit
        } else if text.starts_with("ROLLBACK") {
            Self::Rollback
        } else if let Some(value) = value("INSERT INTO ledger VALUES (") {
            Self::Insert(value)
        } else if let Some(value) = value("SELECT count(*) FROM ledger WHERE id = ") {
            Self::Find(value)
        } else if let Some(milliseconds) = number("SELECT wait(") {
            Self::Wait(milliseconds)
        } else if let Some(rows) = number("SELECT rows(") {
            Self::Rows(rows)
        } else if let Some(code) = after("SELECT fail(") {
            Self::Fail(code.to_owned())
        } else {
            unknown()
        }
    }
}

impl Value {
    pub(crate) fn with(self, parameters: &[String]) -> u64 {
        match self {
            Self::Given(value) => value,
            Self::Parameter => parameters.first().and_then(|text| text.parse().ok()).unwrap_or_default(),
        }
    }
}

/// What stands between two dollar quotes.
fn unquoted(literal: &str) -> String {
    let tag = literal.split('$').nth(1).unwrap_or_default();
    literal.trim_start_matches(&format!("${tag}$")).trim_end_matches(&format!("${tag}$")).to_owned()
}
