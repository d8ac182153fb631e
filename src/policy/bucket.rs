//! How often may something happen? A token bucket: a burst, and then so many a second.

use std::time::{Duration, Instant};

/// Allows a burst, and then one at a time at a steady pace.
#[derive(Debug, Clone)]
pub(crate) struct Bucket {
    interval: Duration,
    burst: u32,
    /// When the bucket is full again: so much of the burst is taken as lies between now and then.
    full_at: Option<Instant>,
}

impl Bucket {
    /// A full bucket of `burst` tokens, to which one comes back every `interval`.
    pub(crate) const fn new(interval: Duration, burst: u32) -> Self {
        Self { interval, burst, full_at: None }
    }

    /// Takes a token, if there is one.
    pub(crate) fn take(&mut self, now: Instant) -> bool {
        let full_at = self.full_at.map_or(now, |at| at.max(now)) + self.interval;
        let allowed = full_at <= now + self.interval * self.burst;
        if allowed {
            self.full_at = Some(full_at);
        }
        allowed
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const MS: Duration = Duration::from_millis(1);

    #[test]
    fn a_burst_is_allowed_and_then_one_for_each_interval() {
        let start = crate::clock::now();
        let mut bucket = Bucket::new(100 * MS, 3);
        let taken = (0..1000).filter(|ms| bucket.take(start + *ms * MS)).collect::<Vec<_>>();
        assert_eq!(taken, [0, 1, 2, 100, 200, 300, 400, 500, 600, 700, 800, 900]);
        assert_eq!((0..10).filter(|_| bucket.take(start + 10_000 * MS)).count(), 3, "it is full again after a while");
    }

    proptest! {
        #[test]
        fn within_any_span_no_more_is_allowed_than_the_burst_and_what_came_back(
            interval in 1_u32..50,
            burst in 1_u32..10,
            gaps in prop::collection::vec(0_u32..60, 1..300),
        ) {
            let (mut bucket, mut now) = (Bucket::new(interval * MS, burst), crate::clock::now());
            let mut taken = Vec::new();
            for gap in gaps {
                now += gap * MS;
                if bucket.take(now) {
                    taken.push(now);
                }
            }
            for (index, from) in taken.iter().enumerate() {
                for (count, until) in taken[index..].iter().enumerate() {
                    let came_back = (*until - *from).as_millis() / u128::from(interval);
                    prop_assert!((count as u128) < u128::from(burst) + came_back);
                }
            }
        }
    }
}
