//! How long it takes at worst until an outage is seen, and until its end is: what the cadences and the machine come to.

use std::time::Duration;

use super::{cadence, slow};
use crate::config::Pings;

/// The longest times from a fault to its outage, and from a server that answers again to the outage's end.
///
/// They leave out what the network and the server take to answer, to refuse, or to end a connection: on a network that works,
/// milliseconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct Bounds {
    /// The server's process ends, and so do its connections: the watched one is seen to end at once. This long only if it has ended
    /// once already within the last `error_ping_frequency`.
    pub ended: Duration,
    /// The server falls silent while no lease is out: the next ping finds out.
    pub silent_idle: Duration,
    /// The server falls silent while leases are out: that none comes back is noticed after `slow_after`.
    pub silent_busy: Duration,
    /// The server answers again, all reads come back.
    pub recovery: Duration,
}

impl Bounds {
    /// The bounds for a server that is pinged like this.
    #[must_use]
    pub fn of(pings: &Pings) -> Self {
        let verdict = silent_verdict(pings);
        let after_error = cadence::longest_after_error(pings.error_ping_frequency);
        let silent_idle = cadence::longest(pings.monitoring_ping_frequency) + verdict;
        let noticed = slow::longest_until_noticed(pings.slow_after);
        let more = pings.success_threshold.saturating_sub(1);
        let answers = cadence::RECOVERY_SPACING.min(pings.outage_ping_frequency) * more;
        Self {
            ended: after_error,
            silent_idle,
            silent_busy: silent_idle.min(noticed.max(after_error) + verdict),
            recovery: pings.outage_ping_timeout + cadence::longest(pings.outage_ping_frequency) + answers,
        }
    }
}

/// From the first ping into a silence to the verdict: a `ping_timeout` for the first two, which overlap, and half of one for each
/// further that the threshold asks for.
fn silent_verdict(pings: &Pings) -> Duration {
    pings.ping_timeout / 2 * pings.failure_threshold.max(2)
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use super::*;
    use crate::health::{Action, Change, Facts, Finding, Health, Order, PingId, Signal};

    const MS: Duration = Duration::from_millis(1);
    const FACTS: Facts = Facts { role: crate::config::Role::Replica, timeline: None, system: None, position: None };

    fn pings(failure_threshold: u32) -> Pings {
        Pings { failure_threshold, ..Pings::default() }
    }

    /// A server in simulated time: it answers at once or never.
    struct Simulation {
        health: Health,
        now: Instant,
        answers: bool,
        flights: Vec<(Instant, PingId)>,
    }

    impl Simulation {
        fn new(pings: Pings, seed: u64) -> Self {
            let now = crate::clock::now();
            Self { health: Health::new(pings, now, seed), now, answers: true, flights: Vec::new() }
        }

        /// Goes on until the machine tells something, or until `end`.
        fn run(&mut self, end: Instant) -> Option<Change> {
            loop {
                let next = match self.health.poll(self.now) {
                    Action::Ping(order) if self.answers => {
                        if let Some(change) = self.find(order.id, Finding::Answered(FACTS)) {
                            return Some(change);
                        }
                        continue;
                    }
                    Action::Ping(Order { id, timeout, .. }) => {
                        self.flights.push((self.now + timeout, id));
                        continue;
                    }
                    Action::Tell(change) => return Some(change),
                    Action::Wait(until) => until,
                };
                let silent = self.flights.iter().copied().min();
                self.now = [next, silent.map(|(at, _)| at), Some(end)].into_iter().flatten().min()?;
                if self.now >= end {
                    return None;
                }
                if let Some((_, id)) = silent.filter(|(at, _)| *at <= self.now) {
                    self.flights.retain(|(_, flight)| *flight != id);
                    if let Some(change) = self.find(id, Finding::Silent) {
                        return Some(change);
                    }
                }
            }
        }

        fn find(&mut self, id: PingId, finding: Finding) -> Option<Change> {
            let changes = self.health.on(Signal::Ping(id, finding), self.now);
            changes.into_iter().find(|change| !matches!(change, Change::FactsChanged { .. }))
        }
    }

    const FAR: Duration = Duration::from_secs(100_000);

    #[test]
    fn an_idle_server_that_falls_silent_is_down_within_the_bound_and_not_much_before_at_worst() {
        for threshold in 1..=5 {
            let bound = Bounds::of(&pings(threshold)).silent_idle;
            let worst = (0..300).map(|seed| {
                let mut it = Simulation::new(pings(threshold), seed);
                let end = it.now + MS;
                assert_eq!(it.run(end), None);
                it.answers = false;
                let silent_at = it.now;
                assert!(matches!(it.run(silent_at + FAR), Some(Change::OutageOpened { .. })));
                it.now - silent_at
            });
            let worst = worst.max().unwrap();
            assert!(worst <= bound && bound - worst < Duration::from_secs(2), "{threshold}: {worst:?} of {bound:?}");
        }
    }

    #[test]
    fn a_busy_server_that_falls_silent_is_down_within_the_bound() {
        for threshold in 1..=5 {
            let bound = Bounds::of(&pings(threshold)).silent_busy;
            for seed in 0..100 {
                let mut it = Simulation::new(pings(threshold), seed);
                let end = it.now + MS;
                assert_eq!(it.run(end), None);
                it.answers = false;
                let silent_at = it.now;
                let noticed = silent_at + slow::longest_until_noticed(Pings::default().slow_after);
                assert_eq!(it.run(noticed), None);
                let _ = it.health.on(Signal::Slow, it.now);
                assert!(matches!(it.run(silent_at + FAR), Some(Change::OutageOpened { .. })));
                assert!(it.now - silent_at <= bound, "{threshold}: {:?} of {bound:?}", it.now - silent_at);
            }
        }
    }

    #[test]
    fn a_server_that_answers_again_is_up_within_the_bound_and_not_much_before_at_worst() {
        let bound = Bounds::of(&pings(2)).recovery;
        let worst = (0..300).map(|seed| {
            let mut it = Simulation::new(pings(2), seed);
            it.answers = false;
            let end = it.now + FAR;
            assert!(matches!(it.run(end), Some(Change::OutageOpened { .. })));
            // Just after a ping has gone out, which is lost.
            while it.flights.is_empty() {
                let next = it.now + MS * 10;
                assert_eq!(it.run(next), None);
            }
            it.answers = true;
            let answers_at = it.now;
            assert!(matches!(it.run(answers_at + FAR), Some(Change::OutageClosed { .. })));
            it.now - answers_at
        });
        let worst = worst.max().unwrap();
        assert!(worst <= bound && bound - worst < Duration::from_secs(1), "{worst:?} of {bound:?}");
    }

    #[test]
    fn a_silence_that_begins_between_two_looks_is_noticed_within_the_bound() {
        let (start, after) = (crate::clock::now(), Duration::from_secs(1));
        let mut watch = crate::health::SlowWatch::new(after);
        assert!(!watch.look(crate::health::Leases { out: 0, returned: 7 }, start));
        // The only lease goes out right after that look, and never comes back.
        let (mut now, mut looks) = (start, 0);
        let noticed = loop {
            now += watch.interval();
            looks += 1;
            if watch.look(crate::health::Leases { out: 1, returned: 7 }, now) || looks > 100 {
                break now - start;
            }
        };
        assert_eq!(noticed, slow::longest_until_noticed(after));
    }
}
