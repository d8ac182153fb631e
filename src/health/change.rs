//! What comes out of the state machine: pings to send, and changes to tell.

use std::time::{Duration, Instant};

use super::signal::{Cause, Facts, Over, PingId};

/// A ping to send.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Order {
    /// To be named in the finding.
    pub id: PingId,
    /// Over which connection.
    pub over: Over,
    /// How long it may take in all.
    pub timeout: Duration,
}

/// What to do now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Action {
    /// Send this ping.
    Ping(Order),
    /// Tell this change.
    Tell(Change),
    /// Nothing before this moment, unless a signal comes. `None`: nothing but a signal.
    Wait(Option<Instant>),
}

/// What the outside has to be told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Change {
    /// The server is down.
    OutageOpened {
        /// Why.
        cause: Cause,
        /// Since the first sign of it.
        detected_in: Duration,
    },
    /// It still is.
    OutageOngoing {
        /// For how long.
        duration: Duration,
        /// Why the last ping failed.
        cause: Cause,
        /// How long until the next ping.
        next_ping: Duration,
    },
    /// It is up again.
    OutageClosed {
        /// How long it was down.
        duration: Duration,
    },
    /// It answers on the connections it has and admits no new ones.
    AdmissionStopped {
        /// Why the pings over new connections failed.
        cause: Cause,
    },
    /// It admits new connections again.
    AdmissionResumed,
    /// Pings say nothing about its health.
    PingInconclusive {
        /// What they say instead.
        cause: Cause,
    },
    /// It reports other facts than before: a promotion, another timeline, another cluster.
    FactsChanged {
        /// As of the good ping before.
        before: Option<Facts>,
        /// As of now.
        now: Facts,
    },
}
