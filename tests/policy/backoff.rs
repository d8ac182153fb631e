//! Waits before the same server is tried again.

use std::time::Duration;

use pgdetour::policy::Backoff;
use proptest::prelude::*;

const MS: Duration = Duration::from_millis(1);

proptest! {
    #[test]
    fn a_wait_is_never_longer_than_the_cap_or_the_base_doubled_so_often(
        base in 0_u64..10_000_000_000, cap in 0_u64..100_000_000_000, attempt in any::<u32>(), random in any::<u64>(),
    ) {
        let backoff = Backoff { base: Duration::from_nanos(base), cap: Duration::from_nanos(cap) };
        let doubled = 2_u128.checked_pow(attempt).and_then(|factor| factor.checked_mul(u128::from(base)));
        let longest = if base == 0 { 0 } else { doubled.unwrap_or(u128::MAX).min(u128::from(cap)) };
        prop_assert!(backoff.delay(attempt, random).as_nanos() <= longest);
    }

    #[test]
    fn more_chance_is_a_longer_wait_and_more_attempts_are_too(
        attempt in 0_u32..40, random in any::<u64>(), other in any::<u64>(),
    ) {
        let backoff = Backoff { base: 10 * MS, cap: 1_000 * MS };
        prop_assert!(backoff.delay(attempt, random.min(other)) <= backoff.delay(attempt, random.max(other)));
        prop_assert!(backoff.delay(attempt, random) <= backoff.delay(attempt + 1, random));
    }
}

#[test]
fn waits_are_spread_over_all_of_the_span() {
    let backoff = Backoff { base: 10 * MS, cap: 1_000 * MS };
    let mut tenths = [0; 10];
    // Every tenth of all numbers in turn.
    (0..1_000).for_each(|step| {
        let delay = backoff.delay(2, u64::MAX / 1_000 * step);
        tenths[delay.as_micros() as usize / 4_000] += 1;
    });
    assert!(tenths.iter().all(|&count| (95..=105).contains(&count)), "{tenths:?}");
}

#[test]
fn a_wait_doubles_up_to_the_cap_even_at_the_longest_durations() {
    let longest = |backoff: Backoff, attempt| backoff.delay(attempt, u64::MAX).as_millis();
    let backoff = Backoff { base: 10 * MS, cap: 100 * MS };
    assert_eq!([0, 1, 2, 3, 4, 99].map(|attempt| longest(backoff, attempt)), [9, 19, 39, 79, 99, 99]);
    let endless = Backoff { base: Duration::MAX, cap: Duration::MAX };
    assert!(endless.delay(7, u64::MAX) > Duration::from_secs(100 * 365 * 86_400));
    let none = Backoff { base: Duration::ZERO, cap: 100 * MS };
    assert_eq!(none.delay(99, u64::MAX), Duration::ZERO);
}
