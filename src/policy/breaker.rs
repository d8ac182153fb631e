//! When do requests turn from a server that answers its pings and serves its calls badly?
//!
//! ```text
//!             too many of its calls failed or were slow
//!   ┌────────┐──────────────────────────────────────────▶┌──────┐
//!   │ Closed │                                           │ Open │◀─────────┐
//!   └────────┘◀──────────┐                               └──────┘          │ a trial went badly:
//!    ▲     │             │ success_threshold                 │ the hold    │ a longer hold
//!    │     │ down        │ trials went well                  ▼ is over     │
//!    │     ▼             │                               ┌──────────┐──────┘
//!   ┌─────┐              └───────────────────────────────│ HalfOpen │ one call at a time
//!   │ Out │◀── down, from either ────────────────────────└──────────┘
//!   └─────┘ up again: begins anew
//! ```
//!
//! An open breaker places its server behind all others. Whether a server is down is for pings to say: that is a verdict, which the
//! breaker follows, and from which it takes no calls over.

use std::{
    collections::VecDeque,
    fmt,
    time::{Duration, Instant},
};

use super::calls::Counts;
use crate::config::{BreakerSettings, Pings};

/// Looks within one window: a call counts for at most a tenth of it too long.
const LOOKS: u32 = 10;

/// The shortest time between two looks.
const SHORTEST: Duration = Duration::from_millis(10);

/// A hold that was doubled so often grows no more: from 30 s to 8 minutes.
const DOUBLINGS: u32 = 4;

/// The breaker of one server.
#[derive(Debug, Clone)]
pub struct Breaker {
    settings: BreakerSettings,
    /// The first hold: the frequency of pings during an outage.
    first_hold: Duration,
    trials: u32,
    state: State,
    window: VecDeque<(Instant, Counts)>,
    /// How long the last hold was, and when the breaker closed after it. Forgotten after calm.
    last: Option<(Duration, Instant)>,
}

#[derive(Debug, Clone)]
enum State {
    Closed,
    Open { tripped: Tripped, until: Instant },
    HalfOpen { tripped: Tripped, passed: u32, trial: Trial },
    Out { tripped: Option<Tripped> },
}

/// Since when and why it is open, and how long this hold is.
#[derive(Debug, Clone, Copy)]
struct Tripped {
    since: Instant,
    trip: Trip,
    hold: Duration,
}

/// A call that was let through to see how it does: what had been counted before it, and when it was offered.
#[derive(Debug, Clone, Copy)]
struct Trial {
    before: Counts,
    offered: Instant,
}

/// Why a breaker opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Trip {
    /// The server failed too many calls.
    Failing {
        /// So many.
        failed: u64,
        /// Of so many.
        made: u64,
    },
    /// It answered too many too slowly, or not before another server that was asked later.
    Slow {
        /// So many.
        slow: u64,
        /// Of so many.
        made: u64,
        /// A call that takes as long is slow.
        after: Duration,
    },
}

/// What a breaker did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Shift {
    /// It opened: requests turn from the server where another one serves.
    Opened(Trip),
    /// One request is to go there, to see how it does.
    OfferTrial,
    /// It closed again, after this long.
    Closed(Duration),
}

impl Breaker {
    /// A closed one that has seen nothing yet.
    #[must_use]
    pub fn new(settings: BreakerSettings, pings: &Pings) -> Self {
        Self {
            settings,
            first_hold: pings.outage_ping_frequency,
            trials: pings.success_threshold.max(1),
            state: State::Closed,
            window: VecDeque::new(),
            last: None,
        }
    }

    /// Goes on where another one of the same server was: after a reload, which may have changed the settings. Whoever is on trial
    /// tells the one before; this one offers it anew.
    pub fn resume(&mut self, before: Self) {
        self.state = match before.state {
            State::HalfOpen { tripped, trial, .. } => State::Open { tripped, until: trial.offered },
            state @ (State::Closed | State::Open { .. } | State::Out { .. }) => state,
        };
        (self.window, self.last) = (before.window, before.last);
    }

    /// How long until the next look.
    #[must_use]
    pub fn interval(&self) -> Duration {
        (self.settings.breaker_window / LOOKS).max(SHORTEST)
    }

    /// Since when it is open or half-open, and why. A server that is down is out for another reason.
    #[must_use]
    pub fn tripped(&self) -> Option<(Instant, Trip)> {
        match &self.state {
            State::Open { tripped, .. } | State::HalfOpen { tripped, .. } => Some((tripped.since, tripped.trip)),
            State::Closed | State::Out { .. } => None,
        }
    }

    /// Since when it was told as open, and why: also while its server is down.
    #[must_use]
    pub fn told(&self) -> Option<(Instant, Trip)> {
        match &self.state {
            State::Out { tripped } => tripped.map(|tripped| (tripped.since, tripped.trip)),
            State::Closed | State::Open { .. } | State::HalfOpen { .. } => self.tripped(),
        }
    }

    /// Until when an open one lets no request through on trial.
    #[must_use]
    pub fn held_until(&self) -> Option<Instant> {
        match &self.state {
            State::Open { until, .. } => Some(*until),
            State::Closed | State::HalfOpen { .. } | State::Out { .. } => None,
        }
    }

    /// Ends the hold of an open one: the next look lets a request through on trial. False where there is none.
    pub fn end_hold(&mut self, now: Instant) -> bool {
        let State::Open { until, .. } = &mut self.state else { return false };
        let held = *until > now;
        *until = (*until).min(now);
        held
    }

    /// Follows the monitor's verdict: whether the server is down. What was counted up to an outage's end says nothing after it.
    pub fn follow(&mut self, down: bool, now: Instant) -> Option<Shift> {
        match (&self.state, down) {
            (State::Out { .. }, true) => None,
            (State::Closed, false) | (State::Open { .. }, false) | (State::HalfOpen { .. }, false) => None,
            (State::Closed, true) => {
                self.state = State::Out { tripped: None };
                None
            }
            (State::Open { tripped, .. } | State::HalfOpen { tripped, .. }, true) => {
                self.state = State::Out { tripped: Some(*tripped) };
                None
            }
            (State::Out { tripped }, false) => {
                let tripped = *tripped;
                self.close(tripped, now)
            }
        }
    }

    /// Looks at what was counted so far.
    pub fn look(&mut self, counts: Counts, now: Instant) -> Option<Shift> {
        match self.state.clone() {
            State::Closed => {
                let within = self.slide(counts, now);
                let trip = self.judge(within, self.settings.breaker_min_calls.max(1))?;
                let hold = self.next_hold(now);
                let tripped = Tripped { since: now, trip, hold };
                self.state = State::Open { tripped, until: now + hold };
                Some(Shift::Opened(trip))
            }
            State::Open { until, .. } if now < until => None,
            State::Open { tripped, .. } => {
                let trial = Trial { before: counts, offered: now };
                self.state = State::HalfOpen { tripped, passed: 0, trial };
                Some(Shift::OfferTrial)
            }
            State::HalfOpen { tripped, passed, trial } => self.look_at_trial((tripped, passed, trial), counts, now),
            State::Out { .. } => None,
        }
    }

    fn look_at_trial(
        &mut self,
        (tripped, passed, trial): (Tripped, u32, Trial),
        counts: Counts,
        now: Instant,
    ) -> Option<Shift> {
        let since = counts.since(trial.before);
        let again = Trial { before: counts, offered: now };
        if since.made == 0 {
            // Whoever took it told nothing, or has yet to: another one, not more often than a server that is down is pinged.
            let due = now >= trial.offered + self.first_hold;
            if due {
                self.state = State::HalfOpen { tripped, passed, trial: again };
            }
            return due.then_some(Shift::OfferTrial);
        }
        if self.judge(since, 1).is_some() {
            let hold = self.longer(tripped.hold);
            self.state = State::Open { tripped: Tripped { hold, ..tripped }, until: now + hold };
            return None;
        }
        if passed + 1 < self.trials {
            self.state = State::HalfOpen { tripped, passed: passed + 1, trial: again };
            return Some(Shift::OfferTrial);
        }
        self.close(Some(tripped), now)
    }

    /// Closes, with nothing counted yet; what there is to tell if it was told as open.
    fn close(&mut self, tripped: Option<Tripped>, now: Instant) -> Option<Shift> {
        self.state = State::Closed;
        self.window.clear();
        let tripped = tripped?;
        self.last = Some((tripped.hold, now));
        Some(Shift::Closed(now.saturating_duration_since(tripped.since)))
    }

    /// Takes the counts into the window; what was counted within it.
    fn slide(&mut self, counts: Counts, now: Instant) -> Counts {
        self.window.push_back((now, counts));
        let begins = now.checked_sub(self.settings.breaker_window);
        // The first one stays that is no younger than the window's beginning.
        while begins.is_some_and(|begins| self.window.get(1).is_some_and(|(at, _)| *at <= begins)) {
            self.window.pop_front();
        }
        counts.since(self.window.front().map_or(counts, |(_, first)| *first))
    }

    /// Why these calls, if they are enough, open a breaker.
    fn judge(&self, counts: Counts, enough: u32) -> Option<Trip> {
        let Counts { made, failed, slow } = counts;
        let reaches = |count: u64, rate: u32| rate > 0 && count > 0 && count * 100 >= made * u64::from(rate);
        if made < u64::from(enough) {
            None
        } else if reaches(failed, self.settings.breaker_failure_rate) {
            Some(Trip::Failing { failed, made })
        } else if reaches(slow, self.settings.breaker_slow_rate) {
            Some(Trip::Slow { slow, made, after: self.settings.breaker_slow_after })
        } else {
            None
        }
    }

    /// A breaker that opens soon after it has closed is held longer each time.
    fn next_hold(&self, now: Instant) -> Duration {
        match self.last {
            Some((hold, closed)) if now < closed + 2 * hold => self.longer(hold),
            Some(_) | None => self.first_hold,
        }
    }

    fn longer(&self, hold: Duration) -> Duration {
        (2 * hold).min(self.first_hold * 2_u32.pow(DOUBLINGS))
    }
}

impl fmt::Display for Trip {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Failing { failed, made } => write!(f, "{failed} of {made} calls failed"),
            Self::Slow { slow, made, after } => {
                let after = humantime::format_duration(*after);
                write!(f, "{slow} of {made} calls took {after} or longer, or lost to a second server")
            }
        }
    }
}
