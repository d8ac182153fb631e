//! What one call was, attempt by attempt: what its error has to tell.

use std::{error::Error as StdError, fmt, time::Duration};

use super::error::Error;
use crate::{
    config::AliasName,
    health::Cause,
    policy::{Backoff, Outcome},
};

/// An error of the application's, of whatever type it is.
pub(super) type BoxError = Box<dyn StdError + Send + Sync>;

/// Between two attempts on the same server.
pub(super) const BACKOFF: Backoff = Backoff { base: Duration::from_millis(10), cap: Duration::from_secs(1) };

/// One try of a call on one server, as [`Error::attempts`] lists them.
#[derive(Debug, Clone)]
pub struct Attempt {
    pub(super) server: AliasName,
    pub(super) detour: bool,
    pub(super) acquire: Duration,
    pub(super) work: Duration,
    pub(super) outcome: Outcome,
    pub(super) cause: Cause,
}

/// A call that ended without an answer.
pub(super) struct Failure {
    pub(super) alias: AliasName,
    pub(super) repeat: Repeat,
    pub(super) end: End,
    pub(super) attempts: Vec<Attempt>,
    /// What the last attempt that failed by itself failed with, as the work returned it.
    pub(super) source: Option<BoxError>,
}

/// When the same call may be made again without doing anything twice.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Repeat {
    /// Always: its caller has said so.
    Harmless,
    /// Where nothing of it stays.
    IfUndone,
    /// Always: by its key it finds out whether it has happened.
    #[cfg_attr(not(feature = "once"), allow(dead_code, reason = "what happens once has keys"))]
    ByKey,
}

/// Why a call was not tried once more.
#[derive(Debug)]
pub(super) enum End {
    /// Another attempt would not help, or might do harm.
    Failed,
    /// The alias's retry budget is spent.
    Spent,
    /// The deadline passed; so long was given.
    Late(Duration),
    /// No server gave a connection for it.
    Unserved(Error),
}

impl Attempt {
    /// The alias that declares the server it went to.
    #[must_use]
    pub fn server(&self) -> &AliasName {
        &self.server
    }

    /// Whether that server stood in for the one the alias names.
    #[must_use]
    pub fn is_detour(&self) -> bool {
        self.detour
    }

    /// How long it took to get a connection.
    #[must_use]
    pub fn acquire(&self) -> Duration {
        self.acquire
    }

    /// How long the work had the connection, until it failed or was given up.
    #[must_use]
    pub fn work(&self) -> Duration {
        self.work
    }

    /// What became of its statements.
    #[must_use]
    pub fn outcome(&self) -> Outcome {
        self.outcome
    }

    /// Why it failed. It holds no SQL and no values: the error itself is [`Error`]'s source.
    #[must_use]
    pub fn cause(&self) -> &Cause {
        &self.cause
    }
}

impl Failure {
    /// What became of the call: what the attempt says that promises least.
    pub(super) fn outcome(&self) -> Outcome {
        self.attempts.iter().map(|attempt| attempt.outcome).max().unwrap_or(Outcome::NotSent)
    }

    /// The error of a request for a connection, where it was that which failed.
    pub(super) fn unserved(&self) -> Option<&Error> {
        if let End::Unserved(error) = &self.end { Some(error) } else { None }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let alias = &self.alias;
        match &self.end {
            End::Failed => write!(f, "{alias}: the call failed")?,
            End::Spent => write!(f, "{alias}: the call failed, and the retry budget is spent")?,
            End::Late(within) => write!(f, "{alias}: no answer within {within:.1?}")?,
            End::Unserved(error) => write!(f, "{error}")?,
        }
        self.attempts.iter().try_for_each(|attempt| write!(f, "\n  {attempt}"))?;
        match (self.outcome(), self.repeat) {
            (Outcome::NotSent | Outcome::RolledBack, _) | (Outcome::Unknown, Repeat::Harmless) => Ok(()),
            (Outcome::Unknown, Repeat::IfUndone) => {
                f.write_str("\n  it may have happened: find out before it is made again")
            }
            (Outcome::Unknown, Repeat::ByKey) => {
                f.write_str("\n  it may have happened: a call with the same key finds out")
            }
        }
    }
}

/// Without the source: what the work returned may hold values.
impl fmt::Debug for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { alias, end, attempts, .. } = self;
        let mut shown = f.debug_struct("Failure");
        shown.field("alias", alias).field("end", end).field("attempts", attempts).finish_non_exhaustive()
    }
}

impl fmt::Display for Attempt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { server, acquire, work, cause, .. } = self;
        let detour = if self.detour { " (detour)" } else { "" };
        let outcome = match self.outcome {
            Outcome::NotSent => "not sent",
            Outcome::RolledBack => "rolled back",
            Outcome::Unknown => "outcome unknown",
        };
        write!(f, "tried {server}{detour}: {cause}; {outcome}, {acquire:.1?} for a connection, {work:.1?} at work")
    }
}
