//! Notices a server from which no lease comes back.

use std::time::{Duration, Instant};

use super::leases::Leases;

/// The shortest time between two looks.
const SHORTEST: Duration = Duration::from_millis(2);

/// The longest from when no lease comes back any more until it is noticed. The first look after that may come a quarter of the bound
/// later, if no lease was out at the one before.
pub(super) fn longest_until_noticed(after: Duration) -> Duration {
    after + (after / 4).max(2 * SHORTEST)
}

/// Looks at a server's lease counters now and then. It needs no clock on the path of a request.
#[derive(Debug)]
pub struct SlowWatch {
    after: Duration,
    last: Leases,
    /// The first look since which leases were out and none came back.
    since: Option<Instant>,
}

impl SlowWatch {
    /// A watch that speaks up after this long.
    #[must_use]
    pub fn new(after: Duration) -> Self {
        Self { after, last: Leases { out: 0, returned: 0 }, since: None }
    }

    /// Takes a look. True when leases are out and none has come back for long enough.
    #[must_use]
    pub fn look(&mut self, leases: Leases, now: Instant) -> bool {
        let stuck = leases.out > 0 && leases.returned == self.last.returned && self.last.out > 0;
        let since = if stuck { self.since.unwrap_or(now) } else { now };
        self.since = (leases.out > 0).then_some(since);
        self.last = leases;
        stuck && now.saturating_duration_since(since) >= self.after
    }

    /// How long until the next look: often enough to be at most a tenth late while there is traffic.
    #[must_use]
    pub fn interval(&self) -> Duration {
        let interval = if self.last.out > 0 { self.after / 10 } else { self.after / 4 };
        interval.max(SHORTEST)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    fn leases(out: u32, returned: u32) -> Leases {
        Leases { out, returned }
    }

    #[test]
    fn leases_that_come_back_are_never_slow() {
        let (start, mut watch) = (crate::clock::now(), SlowWatch::new(100 * MS));
        assert!((0..50).all(|i| !watch.look(leases(3, i), start + i * 10 * MS)));
    }

    #[test]
    fn a_server_that_keeps_its_leases_is_slow_after_the_bound_and_not_before() {
        let (start, mut watch) = (crate::clock::now(), SlowWatch::new(100 * MS));
        let slow: Vec<bool> = (0..=11).map(|i| watch.look(leases(1, 7), start + i * 10 * MS)).collect();
        assert_eq!(slow.iter().position(|&slow| slow), Some(10));
    }

    #[test]
    fn an_idle_server_is_never_slow() {
        let (start, mut watch) = (crate::clock::now(), SlowWatch::new(100 * MS));
        assert!((0..50).all(|i| !watch.look(leases(0, 7), start + i * 100 * MS)));
    }
}
