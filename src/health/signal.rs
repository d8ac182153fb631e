//! Evidence about a server: what pings find and what sessions notice.

use std::{error::Error, fmt, iter::successors, sync::Arc};

use crate::config::Role;

/// A place in the write-ahead log.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Lsn(u64);

impl Lsn {
    /// Parses the notation of PostgreSQL, `16/B374D848`.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let (high, low) = text.split_once('/')?;
        let half = |part: &str| u32::from_str_radix(part, 16).ok();
        Some(Self(u64::from(half(high)?) << 32 | u64::from(half(low)?)))
    }

    /// How many bytes lie between this place and a later one; none if that is not later.
    #[must_use]
    pub fn bytes_to(self, later: Self) -> u64 {
        later.0.saturating_sub(self.0)
    }
}

impl fmt::Display for Lsn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:X}/{:X}", self.0 >> 32, self.0 & u64::from(u32::MAX))
    }
}

/// A line of history of a cluster: grows by one at each promotion.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Timeline(pub u32);

/// What `initdb` gave a cluster: its primary and all its replicas share it, nobody else has it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct SystemId(pub u64);

/// What a good ping read, in one round trip. What the ping's role may not read is missing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Facts {
    /// Whether it takes writes or replays them, by `pg_is_in_recovery()`.
    pub role: Role,
    /// Its line of history.
    pub timeline: Option<Timeline>,
    /// The cluster it belongs to.
    pub system: Option<SystemId>,
    /// Written so far by a primary, replayed so far by a replica.
    pub position: Option<Lsn>,
}

impl Facts {
    /// Whether nothing but the position differs.
    #[must_use]
    pub fn agrees_with(&self, other: &Self) -> bool {
        self.role == other.role && self.timeline == other.timeline && self.system == other.system
    }
}

/// So far is a chain of sources followed: one that leads back to itself must not hang whoever looks.
const LINKS: usize = 64;

/// Why a ping failed, with the whole chain of causes in one line. Cloning is cheap.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cause(Arc<str>);

impl Cause {
    /// A cause from text.
    #[must_use]
    pub fn new(text: impl AsRef<str>) -> Self {
        Self(text.as_ref().into())
    }

    /// A cause from an error and everything behind it.
    #[must_use]
    pub fn of(error: &dyn Error) -> Self {
        let mut text = error.to_string();
        for error in successors(error.source(), |error| Error::source(*error)).take(LINKS - 1) {
            let part = error.to_string();
            // Many errors repeat their source in their own text.
            if !text.contains(&part) {
                text.push_str(": ");
                text.push_str(&part);
            }
        }
        Self(text.into())
    }
}

impl fmt::Display for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // The text may come from a server: no line breaks and no terminal escapes reach a log.
        self.0.chars().try_for_each(|c| if c.is_control() { write!(f, " ") } else { write!(f, "{c}") })
    }
}

/// What one ping found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Finding {
    /// The server answered.
    Answered(Facts),
    /// It could not answer: refused, reset, closed, shutting down, starting up.
    Failed(Cause),
    /// Its deadline passed.
    Silent,
    /// It tells nothing of the server's health: a login was refused, connections ran out there, file handles here.
    Inconclusive(Cause),
}

/// One piece of evidence.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Signal {
    /// A ping ended.
    Ping(PingId, Finding),
    /// The watched connection ended.
    Lost,
    /// A session or lease saw something that asks for a ping.
    Doubt,
    /// Leases are out and none has come back for `slow_after`.
    Slow,
}

/// Which ping a finding belongs to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct PingId(pub(crate) u64);

/// Over which connection a ping goes. They see different faults: a stopped postmaster answers old sessions and hangs new ones.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Over {
    /// The watched connection.
    Kept,
    /// A connection made for this ping.
    Fresh,
}

#[cfg(test)]
mod tests {
    use super::*;

    /// It is its own source, and says something else each time.
    #[derive(Debug, Default)]
    struct Circle(std::sync::atomic::AtomicUsize);

    impl fmt::Display for Circle {
        fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            write!(f, "turn {}.", self.0.fetch_add(1, std::sync::atomic::Ordering::Relaxed))
        }
    }

    impl Error for Circle {
        fn source(&self) -> Option<&(dyn Error + 'static)> {
            Some(self)
        }
    }

    #[test]
    fn a_cause_of_an_error_that_is_its_own_source_ends() {
        let cause = Cause::of(&Circle::default()).to_string();
        assert!(cause.starts_with("turn 0.: turn 1.: "), "{cause}");
        assert_eq!(cause.matches("turn").count(), LINKS);
    }
}
