//! What became of the statement that failed.

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
    fn of_two_outcomes_the_one_that_promises_less_is_the_greater() {
        assert_eq!([Outcome::Unknown, Outcome::NotSent, Outcome::RolledBack].iter().max(), Some(&Outcome::Unknown));
        assert_eq!(Outcome::NotSent.max(Outcome::RolledBack), Outcome::RolledBack);
    }
}
