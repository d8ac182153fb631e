//! The state of one server with what belongs to it: an open outage, and how far its recovery has come.

use std::time::{Duration, Instant};

use super::{belief::State, change::Change, signal::Cause};

/// The state, and its data.
#[derive(Debug)]
pub(super) enum Status {
    Up,
    Suspect,
    Down(Outage),
    Recovering { outage: Outage, successes: u32 },
}

/// An open outage.
#[derive(Debug, Clone)]
pub(super) struct Outage {
    pub(super) opened: Instant,
    /// When the outside last heard of it.
    pub(super) told: Instant,
    /// From its first sign to its opening.
    pub(super) detected_in: Duration,
    /// Why the last ping failed.
    pub(super) cause: Cause,
}

impl Outage {
    /// One that opens now.
    pub(super) fn new(cause: Cause, detected_in: Duration, now: Instant) -> Self {
        Self { opened: now, told: now, detected_in, cause }
    }

    /// That it lasts, once per `frequency`.
    pub(super) fn tell_again(&mut self, frequency: Duration, next_ping: Duration, now: Instant) -> Option<Change> {
        if now < self.told + frequency {
            return None;
        }
        self.told = now;
        Some(Change::OutageOngoing { duration: now - self.opened, cause: self.cause.clone(), next_ping })
    }
}

impl Status {
    pub(super) fn state(&self) -> State {
        match self {
            Self::Up => State::Up,
            Self::Suspect => State::Suspect,
            Self::Down(_) => State::Down,
            Self::Recovering { .. } => State::Recovering,
        }
    }

    pub(super) fn outage(&self) -> Option<&Outage> {
        match self {
            Self::Down(outage) | Self::Recovering { outage, .. } => Some(outage),
            Self::Up | Self::Suspect => None,
        }
    }

    pub(super) fn outage_mut(&mut self) -> Option<&mut Outage> {
        match self {
            Self::Down(outage) | Self::Recovering { outage, .. } => Some(outage),
            Self::Up | Self::Suspect => None,
        }
    }
}
