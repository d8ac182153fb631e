//! When to ping next: three frequencies, jitter, and the bound on pings that errors ask for.

use std::time::{Duration, Instant};

use crate::config::Pings;

/// Between the good pings that close an outage: one answer may be luck.
pub(super) const RECOVERY_SPACING: Duration = Duration::from_millis(50);

/// How much later than its frequency a ping may go out, so that many processes do not ping in step.
const LATEST: f64 = 1.1;

/// The longest interval that a frequency comes to.
pub(super) fn longest(frequency: Duration) -> Duration {
    frequency.mul_f64(LATEST)
}

/// The longest that a ping which an error asks for may have to wait for the one before.
pub(super) fn longest_after_error(frequency: Duration) -> Duration {
    frequency.mul_f64(LATEST)
}

/// The clockwork of one server's pings.
#[derive(Debug)]
pub(super) struct Cadence {
    monitoring: Duration,
    outage: Duration,
    error: Duration,
    /// Whether a change of the server's role is waited for.
    role_awaited: bool,
    last_start: Option<Instant>,
    last_loss: Option<Instant>,
    chance: fastrand::Rng,
}

impl Cadence {
    pub(super) fn new(pings: &Pings, seed: u64) -> Self {
        Self {
            monitoring: pings.monitoring_ping_frequency,
            outage: pings.outage_ping_frequency,
            error: pings.error_ping_frequency,
            role_awaited: false,
            last_start: None,
            last_loss: None,
            chance: fastrand::Rng::with_seed(seed),
        }
    }

    /// Notes that a round of pings starts.
    pub(super) fn started(&mut self, now: Instant) {
        self.last_start = Some(now);
    }

    /// While the server is up.
    pub(super) fn after_good(&mut self, now: Instant) -> Instant {
        now + self.jittered(if self.role_awaited { self.outage } else { self.monitoring })
    }

    /// Notes whether a change of role is waited for; from when that is so, when the next ping is due at the latest. Every process
    /// waits from the same moment, so it comes anywhere within the frequency, as after an opening.
    pub(super) fn await_role(&mut self, awaited: bool, now: Instant) -> Option<Instant> {
        let begins = awaited && !self.role_awaited;
        self.role_awaited = awaited;
        begins.then(|| self.after_opening(now).max(self.after_error(now)))
    }

    /// When an outage has just opened. Every process has seen that at the same moment; the first ping comes anywhere within the
    /// frequency, so that they do not all find the server back at the same moment too.
    pub(super) fn after_opening(&mut self, now: Instant) -> Instant {
        now + self.outage.mul_f64(self.chance.f64().mul_add(0.95, 0.05))
    }

    /// While it is down.
    pub(super) fn during_outage(&mut self, now: Instant) -> Instant {
        now + self.jittered(self.outage)
    }

    /// Between the good pings that close an outage.
    pub(super) fn during_recovery(&mut self, now: Instant) -> Instant {
        now + RECOVERY_SPACING.min(self.outage)
    }

    /// After an error: now, but never sooner than the error frequency after the round before, so here the jitter only adds.
    pub(super) fn after_error(&mut self, now: Instant) -> Instant {
        let interval = self.error.mul_f64(self.chance.f64().mul_add(0.1, 1.0));
        self.last_start.map_or(now, |last| (last + interval).max(now))
    }

    /// Whether the end of a watched connection may be answered at once: once per error frequency.
    pub(super) fn may_answer_loss(&mut self, now: Instant) -> bool {
        let may = self.last_loss.is_none_or(|last| now >= last + self.error);
        if may {
            self.last_loss = Some(now);
        }
        may
    }

    /// Within ±10 %, so that many processes do not ping in step.
    fn jittered(&mut self, frequency: Duration) -> Duration {
        frequency.mul_f64(self.chance.f64().mul_add(0.2, 0.9))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    /// The largest share of `moments` that falls into any 100 ms.
    fn crowding(mut moments: Vec<Instant>) -> f64 {
        moments.sort();
        let within = |from: &Instant| moments.iter().filter(|at| (*from..*from + 100 * MS).contains(*at)).count();
        moments.iter().map(within).max().unwrap_or(0) as f64 / moments.len() as f64
    }

    #[test]
    fn a_hundred_processes_that_saw_one_outage_open_do_not_find_its_end_in_step() {
        let opened = crate::clock::now();
        let pings = Pings { outage_ping_frequency: Duration::from_secs(1), ..Pings::default() };
        for back in [300, 1000, 2500, 20_000].map(|ms| opened + ms * MS) {
            let found = (0..100).map(|seed| {
                let mut cadence = Cadence::new(&pings, seed);
                let mut ping = cadence.after_opening(opened);
                while ping < back {
                    ping = cadence.during_outage(ping);
                }
                assert!(ping <= back + longest(pings.outage_ping_frequency));
                ping
            });
            let share = crowding(found.collect());
            assert!(share <= 0.25, "{share} of them within 100 ms, {:?} after it opened", back - opened);
        }
    }
}
