//! What became of the statement that failed.

use super::classify::{Fault, Severity};

/// What became of a statement that failed, as far as this side can know.
///
/// The three are ordered by how little they promise: where two apply to one call, the last of them is the one to believe.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Outcome {
    /// Not a byte of it left this process, or no connection was there to take it. It was not executed and will not be.
    NotSent,
    /// The server has said that it failed, and with it the transaction that it was in. It may have begun, nothing of it stays
    /// (but for what PostgreSQL never rolls back: sequences, and what a function did outside of the database).
    RolledBack,
    /// It may have left, and no answer came: it was executed, or not, or still is being executed. A `COMMIT` that was lost is the
    /// same. A plain statement may be run again if running it twice does no harm, and only the caller knows that.
    Unknown,
}

impl Outcome {
    /// What became of a transaction whose `COMMIT` has left and failed so.
    ///
    /// An ERROR is the server's word that it rolled back, unless it says itself that it does not know, or is one that a proxy
    /// in between makes up when it loses its server. After a FATAL or without an answer nobody knows.
    #[must_use]
    pub fn of_commit(fault: Fault) -> Self {
        match fault {
            Fault::Reported { sqlstate, severity: Severity::Error } => match sqlstate.as_str() {
                "40003" | "57P01" | "57P02" | "57P03" => Self::Unknown,
                code if code.starts_with("08") || code.starts_with("XX") => Self::Unknown,
                _ => Self::RolledBack,
            },
            Fault::NotOnReplica | Fault::StalePlan => Self::RolledBack,
            Fault::Reported { severity: Severity::Fatal, .. } | Fault::Replay => Self::Unknown,
            Fault::Connect(_) | Fault::Session(_) | Fault::Closed | Fault::Late => Self::Unknown,
            Fault::Lookup | Fault::Garbled | Fault::WrongRole | Fault::Tls | Fault::Login => Self::Unknown,
            Fault::Settings | Fault::Resource | Fault::NotAdmitted | Fault::PoolFull => Self::Unknown,
            Fault::PoolClosed | Fault::Misuse | Fault::Unknown => Self::Unknown,
        }
    }

    /// Whether running the statement again has the effect of running it once: all but [`Unknown`](Self::Unknown).
    #[must_use]
    pub const fn is_safe_to_retry(self) -> bool {
        match self {
            Self::NotSent | Self::RolledBack => true,
            Self::Unknown => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_may_have_happened_is_not_safe_to_run_again() {
        assert!(Outcome::NotSent.is_safe_to_retry());
        assert!(Outcome::RolledBack.is_safe_to_retry());
        assert!(!Outcome::Unknown.is_safe_to_retry());
    }

    #[test]
    fn a_commit_that_failed_was_rolled_back_only_where_the_server_itself_says_so() {
        let told = |code, severity| {
            let sqlstate = super::super::classify::Sqlstate::parse(code).unwrap();
            Outcome::of_commit(Fault::Reported { sqlstate, severity })
        };
        for code in ["40001", "40P01", "23503", "23505", "53100", "57014", "P0001"] {
            assert_eq!(told(code, Severity::Error), Outcome::RolledBack, "{code}");
            assert_eq!(told(code, Severity::Fatal), Outcome::Unknown, "{code}");
        }
        for code in ["08006", "08007", "40003", "57P01", "XX000"] {
            assert_eq!(told(code, Severity::Error), Outcome::Unknown, "{code}");
        }
        assert_eq!(Outcome::of_commit(Fault::Closed), Outcome::Unknown);
        assert_eq!(Outcome::of_commit(Fault::Late), Outcome::Unknown);
    }

    #[test]
    fn of_two_outcomes_the_one_that_promises_less_is_the_greater() {
        assert_eq!([Outcome::Unknown, Outcome::NotSent, Outcome::RolledBack].iter().max(), Some(&Outcome::Unknown));
        assert_eq!(Outcome::NotSent.max(Outcome::RolledBack), Outcome::RolledBack);
    }
}
