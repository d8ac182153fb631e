//! One round of pings: a first one, those that confirm its failure, and what they come to together.

use std::time::{Duration, Instant};

use super::signal::{Cause, Over, PingId};

/// A ping that has started and not ended.
#[derive(Debug, Clone, Copy)]
struct Flight {
    id: PingId,
    over: Over,
    deadline: Instant,
}

/// The pings that together give one verdict.
#[derive(Debug)]
pub(super) struct Round {
    pub(super) started: Instant,
    flights: Vec<Flight>,
    failures: u32,
    cause: Option<Cause>,
    /// When the next confirming ping goes out, answered or not.
    pub(super) confirm_at: Option<Instant>,
    asked_fresh: bool,
    asked_kept: bool,
    kept_answered: bool,
}

/// What a round has come to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Verdict {
    /// Pings are in flight.
    Open,
    /// Too few have failed to tell.
    Confirm,
    /// Enough have failed, and the watched connection did not answer either.
    Down(Cause),
    /// New connections fail, and the watched connection answers.
    NotAdmitting(Cause),
}

impl Round {
    pub(super) fn new(now: Instant) -> Self {
        Self {
            started: now,
            flights: Vec::with_capacity(3),
            failures: 0,
            cause: None,
            confirm_at: None,
            asked_fresh: false,
            asked_kept: false,
            kept_answered: false,
        }
    }

    pub(super) fn start(&mut self, id: PingId, over: Over, deadline: Instant) {
        self.asked_fresh |= over == Over::Fresh;
        self.asked_kept |= over == Over::Kept;
        self.flights.push(Flight { id, over, deadline });
    }

    /// Takes a ping out of the round: over which connection it went and when it was due. `None` if it is not of this round.
    pub(super) fn end(&mut self, id: PingId) -> Option<(Over, Instant)> {
        let index = self.flights.iter().position(|flight| flight.id == id)?;
        let flight = self.flights.swap_remove(index);
        Some((flight.over, flight.deadline))
    }

    pub(super) fn fail(&mut self, over: Over, cause: Cause) {
        self.failures += 1;
        // Why a new connection failed tells more than that an old one ended.
        if over == Over::Fresh || self.cause.is_none() {
            self.cause = Some(cause);
        }
    }

    /// Notes that the watched connection answered. True if that alone decides the round: nothing had failed or was in doubt.
    pub(super) fn answer_over_kept(&mut self) -> bool {
        self.kept_answered = true;
        self.failures == 0 && self.flights.is_empty()
    }

    /// Notes that the watched connection has ended: what it answered before counts no more.
    pub(super) fn lose_kept(&mut self) {
        self.kept_answered = false;
    }

    /// Whether the watched connection should be asked too: it may answer where new ones are refused.
    pub(super) fn wants_kept(&self) -> bool {
        !self.asked_kept
    }

    /// When, after a confirming ping at `now`, silence asks for yet another.
    pub(super) fn confirm_again(&mut self, now: Instant, silence: Duration, threshold: u32) {
        let sent = self.failures + u32::try_from(self.flights.len()).unwrap_or(u32::MAX);
        self.confirm_at = (sent < threshold || !self.asked_fresh).then_some(now + silence);
    }

    /// The watched connection alone is never enough: one session may end on a server that is well.
    pub(super) fn verdict(&self, threshold: u32) -> Verdict {
        let enough = self.failures >= threshold && self.asked_fresh;
        match &self.cause {
            _ if !self.flights.is_empty() => Verdict::Open,
            Some(cause) if enough && self.kept_answered => Verdict::NotAdmitting(cause.clone()),
            Some(cause) if enough => Verdict::Down(cause.clone()),
            _ => Verdict::Confirm,
        }
    }
}
