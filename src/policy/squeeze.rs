//! How much of a detour may be used while its target is slow? Half as much at each slow look, a little more at each good one.

use std::time::Duration;

/// By what part of its size a detour grows again at each good look.
const GROWTH: usize = 8;

/// The usable size of one detour: additive increase, multiplicative decrease, as TCP does it.
#[derive(Debug, Clone)]
pub(crate) struct Squeeze {
    size: usize,
    usable: usize,
    limit: Duration,
}

impl Squeeze {
    /// A detour of `size` connections, all usable, to a target whose round trips should take no longer than `limit`.
    pub(crate) fn new(size: usize, limit: Duration) -> Self {
        Self { size, usable: size, limit }
    }

    /// Takes in how long a round trip took. From then on so many connections are usable, and always one.
    pub(crate) fn on(&mut self, latency: Duration) -> usize {
        self.usable = match latency > self.limit {
            true => self.usable / 2,
            false => self.usable + self.size.div_ceil(GROWTH),
        }
        .clamp(1, self.size.max(1));
        self.usable
    }

    /// Makes all of it usable again: nobody needs the detour now.
    pub(crate) fn release(&mut self) {
        self.usable = self.size;
    }

    /// How many connections are held back.
    pub(crate) fn held_back(&self) -> usize {
        self.size.saturating_sub(self.usable)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const LIMIT: Duration = Duration::from_millis(20);

    #[test]
    fn a_slow_target_gets_half_as_much_each_time_and_a_calm_one_a_little_more() {
        let mut squeeze = Squeeze::new(16, LIMIT);
        assert_eq!([LIMIT * 2; 6].map(|slow| squeeze.on(slow)), [8, 4, 2, 1, 1, 1]);
        assert_eq!([LIMIT; 9].map(|calm| squeeze.on(calm)), [3, 5, 7, 9, 11, 13, 15, 16, 16]);
        assert_eq!(squeeze.held_back(), 0);
        squeeze.on(LIMIT * 2);
        squeeze.release();
        assert_eq!(squeeze.held_back(), 0);
    }

    proptest! {
        #[test]
        fn always_one_is_usable_slow_never_grows_calm_never_shrinks_and_calm_restores_all(
            size in 1_usize..100,
            looks in prop::collection::vec(any::<bool>(), 0..60),
        ) {
            let (mut squeeze, mut before) = (Squeeze::new(size, LIMIT), size);
            for slow in looks {
                let usable = squeeze.on(if slow { LIMIT * 3 } else { LIMIT / 3 });
                prop_assert!((1..=size).contains(&usable) && usable + squeeze.held_back() == size);
                let right = if slow { usable <= before.div_ceil(2) } else { usable >= before };
                prop_assert!(right, "{} after {}, slow: {}", usable, before, slow);
                before = usable;
            }
            for _ in 0..GROWTH {
                squeeze.on(LIMIT);
            }
            prop_assert_eq!(squeeze.held_back(), 0);
        }
    }
}
