//! The state of one server with what belongs to it: an open outage, and how far its recovery has come.

use std::time::Instant;

use super::{belief::State, signal::Cause};

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
    /// Why the last ping failed.
    pub(super) cause: Cause,
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
}
