//! What now? Whether a call that failed is made again, and where.

use super::{
    classify::{Class, Fault, Severity},
    outcome::Outcome,
};

/// What a call is made for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Effort {
    /// It changes nothing, or its caller has said that it may be made twice. No row of it has reached the caller.
    Read,
    /// It changes something: a whole transaction, which is made again from its beginning or not at all.
    Write,
}

/// What to do about a call that failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Verdict {
    /// Make it on the next server of the plan, at once.
    Elsewhere,
    /// Make it on the same server, after a backoff. After [`Fault::StalePlan`] what its connection has prepared must go first.
    Again,
    /// Hand the error to the caller.
    GiveUp,
}

/// What to do about a call that failed so. It says what is safe and has a chance; how often, until when and for how many calls
/// at once is for the deadline and the [`Budget`](super::Budget) to say.
#[must_use]
pub fn verdict(effort: Effort, fault: Fault, outcome: Outcome) -> Verdict {
    match effort {
        Effort::Read => read(fault, outcome),
        Effort::Write => write(fault, outcome),
    }
}

/// A read may be made twice, so what became of the first hardly matters. It goes where it has a chance.
fn read(fault: Fault, outcome: Outcome) -> Verdict {
    match (fault, fault.class()) {
        (Fault::NotOnReplica, _) => Verdict::Elsewhere,
        (Fault::StalePlan, _) => Verdict::Again,
        (Fault::Reported { sqlstate, severity }, class) => match (sqlstate.as_str(), severity) {
            // The next server would get the same message.
            ("08P01", _) => Verdict::GiveUp,
            // Whose server is well. Of 08007 and 40003 nobody knows what became of the statement: to a read it is no matter.
            ("40001" | "26000", Severity::Error) | ("40P01" | "08007" | "40003", _) => Verdict::Again,
            ("57P05", Severity::Fatal) => Verdict::Again,
            _ => read_by_class(class, outcome),
        },
        (_, class) => read_by_class(class, outcome),
    }
}

fn read_by_class(class: Class, outcome: Outcome) -> Verdict {
    match class {
        Class::Hard | Class::Soft | Class::Overload | Class::Role | Class::Conflict => Verdict::Elsewhere,
        // What this process lacks it may not lack for the next connect; in the middle of a call nothing is known.
        Class::Local if outcome == Outcome::NotSent => Verdict::Elsewhere,
        Class::Local | Class::Config | Class::Application => Verdict::GiveUp,
    }
}

/// A write is made again only if it is certain that nothing of it stays. There is one primary, so never elsewhere.
fn write(fault: Fault, outcome: Outcome) -> Verdict {
    if !outcome.is_safe_to_retry() {
        return Verdict::GiveUp;
    }
    match (fault, fault.class()) {
        (Fault::StalePlan, _) => Verdict::Again,
        // Whoever talks like that is no server to hand a write to.
        (Fault::Garbled, _) => Verdict::GiveUp,
        (Fault::Reported { sqlstate, severity }, class) => match (sqlstate.as_str(), severity) {
            ("08P01" | "08007" | "40003", _) => Verdict::GiveUp,
            ("40001" | "26000", Severity::Error) | ("40P01", _) => Verdict::Again,
            // A proxy found no server: the codes themselves say so.
            ("08001" | "08004", Severity::Fatal) => Verdict::Again,
            ("57P05", Severity::Fatal) if outcome == Outcome::NotSent => Verdict::Again,
            _ => write_by_class(class, outcome),
        },
        (_, class) => write_by_class(class, outcome),
    }
}

fn write_by_class(class: Class, outcome: Outcome) -> Verdict {
    match class {
        Class::Hard | Class::Soft | Class::Overload | Class::Role | Class::Local if outcome == Outcome::NotSent => {
            Verdict::Again
        }
        // Rolled back because of the server: safe to make again, and the caller is told so.
        Class::Hard | Class::Soft | Class::Overload | Class::Role | Class::Local => Verdict::GiveUp,
        Class::Config | Class::Conflict | Class::Application => Verdict::GiveUp,
    }
}
