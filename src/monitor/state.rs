//! What is known of one service, as an application and its operator get it.

use std::{
    fmt,
    sync::Arc,
    time::{Duration, Instant},
};

use crate::{
    config::AliasName,
    health::{Cause, State},
};

/// What is known of one service: what [`Router::services`](crate::Router::services) gives.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct ServiceState {
    /// Its name.
    pub name: AliasName,
    /// What it is: `tcp`, `memcached`, `redis`, `amqp`, `http`, or the word of an own one.
    pub kind: Arc<str>,
    /// Where it is.
    pub address: Arc<str>,
    /// What is believed.
    pub state: State,
    /// Since when an outage has been open, and why the last ping failed.
    pub outage: Option<(Instant, Cause)>,
    /// Why the last ping told nothing, if it did.
    pub inconclusive: Option<Cause>,
    /// How long its last good ping took.
    pub ping_took: Option<Duration>,
    /// When the next ping is due. In the past: one is under way.
    pub next_ping: Instant,
    /// Whether its `failover` was called, and its `recover` was not yet.
    pub failed_over: bool,
    /// When this was looked at.
    pub at: Instant,
}

impl ServiceState {
    /// Whether an outage is open.
    #[must_use]
    pub fn is_out(&self) -> bool {
        matches!(self.state, State::Down | State::Recovering)
    }

    /// How long the open outage has lasted.
    #[must_use]
    pub fn lasting(&self) -> Option<Duration> {
        self.outage.as_ref().map(|(since, _)| self.at.saturating_duration_since(*since))
    }

    /// How long until the next ping.
    #[must_use]
    pub fn next_ping_in(&self) -> Duration {
        self.next_ping.saturating_duration_since(self.at)
    }
}

impl fmt::Display for ServiceState {
    /// `cache (memcached at 127.0.0.1:11211): down for 2s: …; next ping in 28s`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let rounded =
            |duration: Duration| humantime::format_duration(Duration::from_millis(duration.as_millis() as u64));
        write!(f, "{} ({} at {}): ", self.name, self.kind, self.address)?;
        let lasting = rounded(self.lasting().unwrap_or_default());
        match (self.state, &self.outage) {
            (State::Down, Some((_, cause))) => write!(f, "down for {lasting}: {cause}")?,
            (State::Down, None) => f.write_str("down")?,
            (State::Recovering, _) => write!(f, "recovering after {lasting}")?,
            (State::Suspect, _) => f.write_str("suspect: a ping has yet to explain what was seen")?,
            (State::Up, _) => f.write_str("up")?,
        }
        if let Some(cause) = &self.inconclusive {
            write!(f, "; the last ping told nothing: {cause}")?;
        }
        if self.failed_over {
            f.write_str("; failed over")?;
        }
        write!(f, "; next ping in {}", rounded(self.next_ping_in()))
    }
}
