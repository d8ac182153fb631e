//! What the outside is told: transitions and refusals, each once, as values.

use std::{sync::Arc, time::Duration};

use crate::{
    config::{AliasName, Role},
    health::{Cause, Tally, Timeline},
    plan::{Mode, Standing},
};

/// Something that happened to a server, or to the router as a whole.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Event {
    /// The alias that declares the server. `None`: it is about the router.
    pub alias: Option<AliasName>,
    /// `host:port/database` of the server: the log's field `server`.
    pub address: Option<Arc<str>>,
    /// What happened.
    pub kind: EventKind,
}

/// What happened.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum EventKind {
    /// The server is down.
    OutageOpened {
        /// Why, with the whole chain of causes.
        cause: Cause,
        /// Where its reads go now. `None`: nowhere.
        detour: Option<AliasName>,
    },
    /// It still is: every `outage_log_frequency`.
    OutageOngoing {
        /// For how long.
        duration: Duration,
        /// What became of its requests since the outage opened.
        tally: Tally,
        /// Why the last ping failed.
        cause: Cause,
        /// How long until the next.
        next_ping: Duration,
    },
    /// It is up again, and its requests go there; or a reload has taken it away.
    OutageClosed {
        /// How long it was down.
        duration: Duration,
        /// What became of its requests meanwhile.
        tally: Tally,
    },
    /// It answers its pings, and failed too many calls or was too slow: requests turn from it where another server takes them.
    BreakerOpened {
        /// How many calls of how many.
        cause: Cause,
        /// Where its reads go now. `None`: still there, since nobody else takes them.
        detour: Option<AliasName>,
    },
    /// Calls on it go well again, and requests go there.
    BreakerClosed {
        /// How long they did not.
        duration: Duration,
    },
    /// It answers on the connections it has and admits no new ones.
    AdmissionStopped {
        /// Why.
        cause: Cause,
    },
    /// It is slow, so that fewer of the requests for which it stands in go there at once.
    DetourNarrowed {
        /// The alias whose requests those are.
        of: AliasName,
        /// Connections that may be used for them to begin with; it may become fewer.
        usable: usize,
        /// Connections for them otherwise.
        size: usize,
        /// How long a round trip took.
        latency: Duration,
    },
    /// All connections for them may be used again, or are needed no more.
    DetourWidened {
        /// The alias whose requests those are.
        of: AliasName,
    },
    /// It admits new connections again.
    AdmissionResumed,
    /// Pings say nothing about its health: their login is refused, or connections ran out.
    PingInconclusive {
        /// What they say.
        cause: Cause,
    },
    /// It was promoted or demoted.
    RoleChanged {
        /// What it was.
        from: Role,
        /// What it is.
        to: Role,
        /// The line of history it is on.
        timeline: Option<Timeline>,
    },
    /// What it may be trusted with changed.
    StandingChanged {
        /// From now on.
        standing: Standing,
    },
    /// A write was committed there alone: its wait for synchronous replication was cancelled, or its session terminated meanwhile,
    /// so a failover may lose it. Told at most once a minute.
    CommitUnconfirmed,
    /// The router's mode changed: about no server in particular.
    ModeChanged {
        /// What it was.
        from: Mode,
        /// What it is.
        to: Mode,
    },
}

impl Event {
    /// Whether it is about the server that this alias declares.
    #[must_use]
    pub fn is_about(&self, alias: &str) -> bool {
        self.alias.as_ref().is_some_and(|about| about.as_str() == alias)
    }
}

impl EventKind {
    /// The stable name, as the log's field `event` has it.
    #[must_use]
    pub fn name(&self) -> &'static str {
        match self {
            Self::OutageOpened { .. } => "outage_opened",
            Self::OutageOngoing { .. } => "outage_ongoing",
            Self::OutageClosed { .. } => "outage_closed",
            Self::BreakerOpened { .. } => "breaker_opened",
            Self::BreakerClosed { .. } => "breaker_closed",
            Self::AdmissionStopped { .. } => "admission_stopped",
            Self::AdmissionResumed => "admission_resumed",
            Self::DetourNarrowed { .. } => "detour_narrowed",
            Self::DetourWidened { .. } => "detour_widened",
            Self::PingInconclusive { .. } => "ping_inconclusive",
            Self::RoleChanged { .. } => "role_changed",
            Self::StandingChanged { .. } => "standing_changed",
            Self::CommitUnconfirmed => "commit_unconfirmed",
            Self::ModeChanged { .. } => "mode_changed",
        }
    }
}
