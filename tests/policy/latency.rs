//! What is known of how long calls take.

use std::{thread, time::Duration};

use pgdetour::policy::Latencies;
use proptest::prelude::*;

const MS: Duration = Duration::from_millis(1);

/// The true quantile: the shortest that this share of them does not exceed.
fn exact(micros: &[u64], share: f64) -> u64 {
    let mut sorted = micros.to_vec();
    sorted.sort_unstable();
    let rank = ((micros.len() as f64 * share).ceil() as usize).max(1);
    sorted[rank - 1]
}

proptest! {
    #[test]
    fn a_quantile_is_never_below_the_true_one_and_at_most_an_eighth_above(
        micros in prop::collection::vec(prop_oneof![0_u64..64, 0_u64..10_000, 0_u64..100_000_000], 32..1_000),
        share in prop_oneof![Just(0.0), Just(0.5), Just(0.9), Just(0.95), Just(1.0), 0.0..0.96],
    ) {
        let latencies = Latencies::new();
        micros.iter().for_each(|&micros| latencies.record(Duration::from_micros(micros)));
        let exact = exact(&micros, share);
        match latencies.quantile(share) {
            Some(told) => {
                let told = told.as_micros() as u64;
                prop_assert!(told > exact && told <= exact + exact / 8 + 1, "{} for {}", told, exact);
            }
            None => prop_assert!(micros.len() as f64 * (1.0 - share) < 1.0 && share < 1.0),
        }
    }

    #[test]
    fn what_was_before_the_last_two_windows_is_forgotten_and_the_last_one_never_is(
        before in 0_usize..5_000, after in 2_048_usize..5_000,
    ) {
        let latencies = Latencies::new();
        (0..before).for_each(|_| latencies.record(900 * MS));
        (0..after).for_each(|_| latencies.record(MS));
        prop_assert!((1_024..=2_048).contains(&latencies.known()));
        prop_assert!(latencies.quantile(1.0).is_some_and(|longest| longest < 2 * MS));
    }
}

#[test]
fn nothing_is_told_until_enough_is_known() {
    let latencies = Latencies::new();
    let known = |share| latencies.quantile(share).is_some();
    (0..31).for_each(|_| latencies.record(MS));
    assert!(!known(0.5));
    latencies.record(MS);
    assert!(known(0.5) && known(0.95) && known(1.0) && !known(0.99));
    (0..68).for_each(|_| latencies.record(MS));
    assert!(known(0.99) && !known(0.999));
}

#[test]
fn a_nonsensical_share_is_taken_for_the_nearest_sensible_one() {
    let latencies = Latencies::new();
    (1..=100).for_each(|ms| latencies.record(ms * MS));
    assert_eq!(latencies.quantile(-1.0), latencies.quantile(0.0));
    assert_eq!(latencies.quantile(7.0), latencies.quantile(1.0));
}

#[test]
fn what_takes_for_ever_counts_as_two_minutes() {
    let latencies = Latencies::new();
    (0..100).for_each(|_| latencies.record(Duration::MAX));
    assert_eq!(latencies.quantile(0.5), Some(Duration::from_micros(1 << 27)));
}

#[test]
fn calls_recorded_on_many_threads_are_all_counted() {
    let latencies = Latencies::new();
    thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| (0..250).for_each(|ms| latencies.record(ms * MS)));
        }
    });
    assert_eq!(latencies.known(), 1_000);
    let median = latencies.quantile(0.5).expect("enough is known");
    assert!((124 * MS..=141 * MS).contains(&median), "{median:?}");
}
