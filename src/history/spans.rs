//! For how long was something so, when several have seen it and their times overlap? Sets of spans of time.

use std::time::Duration;

use crate::observe::Stamp;

/// Spans that neither touch nor overlap, the earliest first.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Spans(Vec<(Stamp, Stamp)>);

impl Spans {
    /// All that any of these covers, as far as it lies within `window`.
    pub(super) fn union(spans: impl IntoIterator<Item = (Stamp, Stamp)>, window: (Stamp, Stamp)) -> Self {
        let within = spans.into_iter().map(|(from, to)| (from.max(window.0), to.min(window.1)));
        let mut sorted: Vec<_> = within.filter(|(from, to)| from < to).collect();
        sorted.sort_unstable();
        let mut all: Vec<(Stamp, Stamp)> = Vec::with_capacity(sorted.len());
        for (from, to) in sorted {
            match all.last_mut() {
                Some(last) if from <= last.1 => last.1 = last.1.max(to),
                _ => all.push((from, to)),
            }
        }
        Self(all)
    }

    /// What both cover.
    pub(super) fn and(&self, other: &Self) -> Self {
        let (mut one, mut two) = (self.0.iter().peekable(), other.0.iter().peekable());
        let mut both = Vec::new();
        while let (Some(a), Some(b)) = (one.peek(), two.peek()) {
            let common = (a.0.max(b.0), a.1.min(b.1));
            if common.0 < common.1 {
                both.push(common);
            }
            // The one that ends first has nothing left in common with what follows.
            if a.1 < b.1 {
                one.next()
            } else {
                two.next()
            };
        }
        Self(both)
    }

    /// How long they are together.
    pub(super) fn total(&self) -> Duration {
        self.0.iter().map(|(from, to)| to.since(*from)).sum()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const ALWAYS: (u64, u64) = (0, 64);

    fn spans(pairs: &[(u64, u64)], window: (u64, u64)) -> Spans {
        let stamp = |(from, to): (u64, u64)| (Stamp::from_unix_ms(from), Stamp::from_unix_ms(to));
        Spans::union(pairs.iter().copied().map(stamp), stamp(window))
    }

    fn covers(pairs: &[(u64, u64)], at: u64) -> bool {
        pairs.iter().any(|(from, to)| (*from..*to).contains(&at))
    }

    #[test]
    fn what_overlaps_counts_once_and_what_lies_outside_not_at_all() {
        assert_eq!(spans(&[(5, 9), (1, 3), (2, 6), (20, 30)], (2, 25)), spans(&[(2, 9), (20, 25)], ALWAYS));
    }

    proptest! {
        #[test]
        fn a_set_covers_what_its_spans_cover(
            one in prop::collection::vec((0_u64..64, 0_u64..64), 0..6),
            two in prop::collection::vec((0_u64..64, 0_u64..64), 0..6),
        ) {
            let count = |is: &dyn Fn(u64) -> bool| Duration::from_millis((0..64).filter(|at| is(*at)).count() as u64);
            let (a, b) = (spans(&one, ALWAYS), spans(&two, ALWAYS));
            prop_assert_eq!(a.total(), count(&|at| covers(&one, at)));
            prop_assert_eq!(a.and(&b).total(), count(&|at| covers(&one, at) && covers(&two, at)));
        }
    }
}
