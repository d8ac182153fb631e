//! The same decision with its reasons: which servers in which order, and why each of the others is out.

use std::{
    fmt,
    sync::Arc,
    time::{Duration, Instant},
};

use crate::{
    config::AliasName,
    health::{Cause, Need, State},
    plan::table::{Entry, Standing},
};

/// A recovery is not seen by one ping alone.
const LEAST_WAIT: Duration = Duration::from_millis(100);

/// Where a request for an alias would go now, and why.
#[derive(Debug, Clone)]
pub struct Plan {
    /// The alias.
    pub alias: AliasName,
    /// Every server the alias may use, in order; those whose breaker is open come last.
    pub steps: Vec<Step>,
    /// Whether the alias is for writes and none of its own servers takes any, while reads of its cluster are served.
    pub read_only: bool,
}

/// One server of a plan.
#[derive(Debug, Clone)]
pub struct Step {
    /// The alias that declares the server.
    pub alias: AliasName,
    /// `host:port/database`.
    pub address: String,
    /// Whether it stands in for the alias's own servers.
    pub detour: bool,
    /// Whether a request may go there, and if not, why.
    pub reason: Reason,
    /// How long until the server is pinged next. Zero: it is being pinged.
    pub next_ping: Duration,
    /// How much of the detour may be used, where that is less than all of it.
    pub narrowed: Option<Narrowed>,
}

/// A detour of which less than all is used, since its target is slow: `detour_latency_limit`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Narrowed {
    /// Connections that may be used now.
    pub usable: usize,
    /// Connections it would have otherwise: `detour_size`.
    pub size: usize,
    /// How long a round trip took when that was last looked at.
    pub latency: Duration,
}

/// What decides about one server of a plan.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Reason {
    /// Requests go there.
    Usable,
    /// They go there too, over connections that are checked first: something was seen that a ping has yet to explain.
    Suspect,
    /// Its breaker is open: it answers its pings, and failed too many calls or was too slow. Requests go there where nobody else serves.
    Behind {
        /// For how long.
        lasting: Duration,
        /// Why.
        cause: Cause,
    },
    /// Somebody has had it drained: it is up, and requests go there where nobody else serves.
    Drained {
        /// For how much longer.
        left: Duration,
        /// Who has asked for it.
        by: Arc<str>,
    },
    /// An outage is open.
    Down {
        /// For how long.
        lasting: Duration,
        /// Why the last ping failed.
        cause: Cause,
    },
    /// It answers again, but not yet often enough.
    Recovering {
        /// How long the outage has lasted.
        lasting: Duration,
    },
    /// It may not be trusted with this.
    Unfit(Standing),
    /// A replica, where a request would write.
    Replica,
}

impl Reason {
    /// The reason for one server, of which `need` is asked.
    pub(super) fn of(entry: &Entry, need: Need, now: Instant) -> Self {
        let belief = entry.belief();
        let since = |(since, _): &(Instant, Cause)| now.saturating_duration_since(*since);
        let lasting = entry.known.outage.as_ref().map(since).unwrap_or_default();
        match (&entry.known.outage, entry.known.belief.state()) {
            (_, State::Recovering) => Self::Recovering { lasting },
            (Some((_, cause)), _) => Self::Down { lasting, cause: cause.clone() },
            _ if belief.serves(Need::Reads) && !belief.serves(need) && entry.standing == Standing::Sound => {
                Self::Replica
            }
            _ if !belief.serves(need) => Self::Unfit(entry.standing.clone()),
            _ if belief.is_behind(need) && belief.is_drained() => {
                entry.known.drained.as_ref().map_or(Self::Usable, |drain| Self::Drained {
                    left: drain.until.saturating_duration_since(now),
                    by: Arc::clone(&drain.by),
                })
            }
            _ if belief.is_behind(need) => entry
                .known
                .breaker
                .as_ref()
                .map_or(Self::Usable, |breaker| Self::Behind { lasting: since(breaker), cause: breaker.1.clone() }),
            (None, State::Up) => Self::Usable,
            (None, State::Suspect | State::Down) => Self::Suspect,
        }
    }

    /// The stable word for it, as a status has it.
    #[must_use]
    pub fn word(&self) -> &'static str {
        match self {
            Self::Usable => "up",
            Self::Suspect => "suspect",
            Self::Behind { .. } => "behind",
            Self::Drained { .. } => "drained",
            Self::Down { .. } => "down",
            Self::Recovering { .. } => "recovering",
            Self::Unfit(standing) => standing.word(),
            Self::Replica => "replica",
        }
    }

    /// Whether a request may go there.
    #[must_use]
    pub fn is_usable(&self) -> bool {
        matches!(self, Self::Usable | Self::Suspect | Self::Behind { .. } | Self::Drained { .. })
    }
}

impl Plan {
    /// The server a request would be sent to first.
    #[must_use]
    pub fn target(&self) -> Option<&Step> {
        self.steps.iter().find(|step| step.reason.is_usable())
    }

    /// When to come back, if no server is usable: when one of them is pinged next, at the earliest. `None`: a request may go now,
    /// or waiting will not help.
    #[must_use]
    pub fn retry_after(&self) -> Option<Duration> {
        let out = self.steps.iter().filter(|step| !matches!(step.reason, Reason::Replica));
        let next = out.map(|step| step.next_ping).min().filter(|_| self.target().is_none())?;
        Some(next.max(LEAST_WAIT))
    }

    /// Whether a request would go on a detour.
    #[must_use]
    pub fn is_detour(&self) -> bool {
        self.target().is_some_and(|step| step.detour)
    }
}

impl fmt::Display for Plan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.target() {
            Some(step) if step.detour => write!(f, "{} -> {} (detour)", self.alias, step.alias)?,
            Some(step) => write!(f, "{} -> {}", self.alias, step.alias)?,
            None => write!(f, "{} -> no usable server", self.alias)?,
        }
        self.steps.iter().try_for_each(|step| write!(f, "\n  {step}"))
    }
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({}): {}", self.alias, self.address, self.reason)?;
        let Some(Narrowed { usable, size, latency }) = self.narrowed else { return Ok(()) };
        write!(f, "; slow, so {usable} of {size} connections are used: a round trip took {}", rounded(latency))
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Usable => f.write_str("up"),
            Self::Suspect => f.write_str("suspect: connections are checked before they are lent"),
            Self::Behind { lasting, cause } => {
                write!(f, "up, and behind all others for {}: {cause}", rounded(*lasting))
            }
            Self::Drained { left, by } => write!(f, "up, and drained by {by} for {} more", rounded(*left)),
            Self::Down { lasting, cause } => write!(f, "down for {}: {cause}", rounded(*lasting)),
            Self::Recovering { lasting } => write!(f, "recovering after {}", rounded(*lasting)),
            Self::Unfit(standing) => write!(f, "{standing}"),
            Self::Replica => f.write_str("a replica: takes no writes"),
        }
    }
}

impl fmt::Display for Standing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Sound => f.write_str("up"),
            Self::NotPrimary => f.write_str("declared a primary, but it is in recovery and takes no writes"),
            Self::SplitBrain { other } => write!(f, "takes no writes: {other} is writable too, and not behind"),
            Self::Foreign { expected, found } => {
                write!(f, "belongs to another cluster (system identifier {}, not {})", found.0, expected.0)
            }
        }
    }
}

/// A duration to the millisecond, as people read it.
fn rounded(duration: Duration) -> humantime::FormattedDuration {
    humantime::format_duration(Duration::from_millis(u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)))
}
