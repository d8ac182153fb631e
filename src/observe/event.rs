//! What the outside is told: transitions and refusals, each once, as values.

use std::{fmt, sync::Arc, time::Duration};

use super::{
    record::Level,
    stamp::{Stamp, ms},
};
use crate::{
    config::{AliasName, Role},
    health::{Cause, Tally, Timeline},
    plan::{Mode, Standing},
};

/// Something that happened to a server or a service, or to the router as a whole.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Event {
    /// Larger than that of every event before it.
    pub number: u64,
    /// When it was told, by the wall clock: the log, the status page and the history have the same.
    pub at: Stamp,
    /// The alias that declares the server, or the name of the service. `None`: it is about the router.
    pub alias: Option<AliasName>,
    /// `host:port/database` of the server, or the address of the service: the log's field `server`.
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
        /// Since the first sign of it: the time to detect. Of a ping that was not answered the sign is its beginning.
        detected_in: Duration,
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
    /// Somebody has had it drained: new requests go elsewhere where another server serves. It is no outage.
    Drained {
        /// For how long, unless that is ended before.
        lasting: Duration,
        /// Who has asked for it.
        by: Arc<str>,
        /// Where its reads go now. `None`: still there, since nobody else takes them.
        detour: Option<AliasName>,
    },
    /// It is drained no more.
    Undrained {
        /// How long it was.
        duration: Duration,
        /// Who has asked for that. `None`: its time was over, or a reload has taken it away.
        by: Option<Arc<str>>,
    },
    /// Somebody has asked for a ping.
    PingAsked {
        /// Who.
        by: Arc<str>,
    },
    /// Somebody has ended the hold of its open breaker: a request goes there on trial.
    HoldEnded {
        /// Who.
        by: Arc<str>,
    },
    /// What an application's service does about an outage did not end well: [`Service`](crate::service::Service).
    HookFailed {
        /// Which.
        hook: Hook,
        /// Why: its error, that it panicked, or that it took too long.
        cause: Cause,
    },
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
    /// The table of outages takes nothing: it is missing, or the role may not write there. About no server in particular; it is
    /// not told while the primary is out.
    HistoryStalled {
        /// What the primary says.
        cause: Cause,
        /// Outages that wait to be stored.
        waiting: usize,
    },
    /// It takes them again, and has all of them.
    HistoryResumed,
    /// So many outages were given up before they could be stored, since too many waited.
    HistoryLost {
        /// How many.
        outages: u64,
    },
    /// The router's mode changed: about no server in particular.
    ModeChanged {
        /// What it was.
        from: Mode,
        /// What it is.
        to: Mode,
    },
}

/// What a [`Service`](crate::service::Service) does about an outage.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Hook {
    /// When it opens.
    Failover,
    /// When it closes.
    Recover,
}

impl Hook {
    /// Its name, as the log's field `hook` has it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Failover => "failover",
            Self::Recover => "recover",
        }
    }
}

impl Event {
    /// About a server, or else about the router. Its number and its time are those at which it is emitted.
    pub(crate) fn new(about: Option<(AliasName, Arc<str>)>, kind: EventKind) -> Self {
        let (alias, address) = about.unzip();
        Self { number: 0, at: Stamp::default(), alias, address, kind }
    }

    /// Whether it is about the server that this alias declares, or the service of this name.
    #[must_use]
    pub fn is_about(&self, alias: &str) -> bool {
        self.alias.as_ref().is_some_and(|about| about.as_str() == alias)
    }
}

impl EventKind {
    /// How loud it is in the log.
    #[must_use]
    pub fn level(&self) -> Level {
        match self {
            Self::OutageOpened { .. }
            | Self::OutageOngoing { .. }
            | Self::HookFailed { .. }
            | Self::StandingChanged { .. } => Level::Error,
            Self::ModeChanged { from, to } if to > from => Level::Warn,
            Self::BreakerOpened { .. }
            | Self::AdmissionStopped { .. }
            | Self::DetourNarrowed { .. }
            | Self::Drained { .. }
            | Self::PingInconclusive { .. }
            | Self::RoleChanged { .. }
            | Self::HistoryStalled { .. }
            | Self::HistoryLost { .. }
            | Self::CommitUnconfirmed => Level::Warn,
            Self::OutageClosed { .. }
            | Self::BreakerClosed { .. }
            | Self::AdmissionResumed
            | Self::DetourWidened { .. }
            | Self::Undrained { .. }
            | Self::PingAsked { .. }
            | Self::HoldEnded { .. }
            | Self::HistoryResumed
            | Self::ModeChanged { .. } => Level::Info,
        }
    }

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
            Self::Drained { .. } => "drained",
            Self::Undrained { .. } => "undrained",
            Self::PingAsked { .. } => "ping_asked",
            Self::HoldEnded { .. } => "hold_ended",
            Self::HookFailed { .. } => "hook_failed",
            Self::PingInconclusive { .. } => "ping_inconclusive",
            Self::RoleChanged { .. } => "role_changed",
            Self::StandingChanged { .. } => "standing_changed",
            Self::CommitUnconfirmed => "commit_unconfirmed",
            Self::HistoryStalled { .. } => "history_stalled",
            Self::HistoryResumed => "history_resumed",
            Self::HistoryLost { .. } => "history_lost",
            Self::ModeChanged { .. } => "mode_changed",
        }
    }
}

/// In a few words, without the server.
impl fmt::Display for EventKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let to = |detour: &Option<AliasName>, nobody: &'static str| {
            detour.as_ref().map_or_else(|| nobody.to_owned(), |target| format!("reads go to {target}"))
        };
        match self {
            Self::OutageOpened { cause, detour, .. } => write!(f, "down: {cause}; {}", to(detour, "nobody stands in")),
            Self::OutageOngoing { duration, cause, .. } => write!(f, "down for {}: {cause}", rounded(*duration)),
            Self::OutageClosed { duration, .. } => write!(f, "up again after {}", rounded(*duration)),
            Self::BreakerOpened { cause, detour } => {
                write!(f, "breaker opened: {cause}; {}", to(detour, "nobody else serves"))
            }
            Self::BreakerClosed { duration } => write!(f, "breaker closed after {}", rounded(*duration)),
            Self::AdmissionStopped { cause } => write!(f, "admits no new connections: {cause}"),
            Self::HookFailed { hook, cause } => write!(f, "{} failed: {cause}", hook.name()),
            Self::AdmissionResumed => f.write_str("admits new connections again"),
            Self::DetourNarrowed { of, usable, size, latency } => {
                write!(f, "slow, a round trip took {}: {usable} of {size} connections for {of}", rounded(*latency))
            }
            Self::DetourWidened { of } => write!(f, "all connections for {of} may be used again"),
            Self::Drained { lasting, by, detour } => {
                write!(f, "drained by {by} for {}; {}", rounded(*lasting), to(detour, "nobody else serves"))
            }
            Self::Undrained { duration, by } => {
                let by = by.as_ref().map_or_else(String::new, |by| format!(" by {by}"));
                write!(f, "drained no more{by}, after {}", rounded(*duration))
            }
            Self::PingAsked { by } => write!(f, "a ping was asked for by {by}"),
            Self::HoldEnded { by } => write!(f, "the hold of its breaker was ended by {by}"),
            Self::PingInconclusive { cause } => write!(f, "pings tell nothing of its health: {cause}"),
            Self::RoleChanged { from, to, .. } => write!(f, "was a {from}, is a {to}"),
            Self::StandingChanged { standing } => write!(f, "{standing}"),
            Self::CommitUnconfirmed => f.write_str("a write did not wait for the replicas: a failover may lose it"),
            Self::HistoryStalled { cause, waiting } => {
                write!(
                    f,
                    "{waiting} outages cannot be stored: {cause} (has pgdetour migrate been run, and may the role write there?)"
                )
            }
            Self::HistoryResumed => f.write_str("outages are stored again"),
            Self::HistoryLost { outages } => write!(f, "{outages} outages were given up before they could be stored"),
            Self::ModeChanged { from, to } => write!(f, "mode: was {from}, is {to}"),
        }
    }
}

/// To the millisecond.
fn rounded(duration: Duration) -> humantime::FormattedDuration {
    humantime::format_duration(Duration::from_millis(ms(duration)))
}
