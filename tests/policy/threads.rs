//! What all threads share, in every order in which they may meet: the same source over loom's atomics.
//!
//! A `cfg(loom)` would reach the runtime too, which then has no sockets. So the files are compiled here once more, with other atomics
//! above them, and the models run in every test.

use std::time::Duration;

use loom::{model::Builder, sync::Arc, thread};

use self::{budget::Budget, latency::Latencies};

#[expect(dead_code, unreachable_pub, reason = "a model needs a part of it")]
#[path = "../../src/policy/budget.rs"]
mod budget;
#[expect(dead_code, unreachable_pub, reason = "a model needs a part of it")]
#[path = "../../src/policy/latency.rs"]
mod latency;

mod atomic {
    pub(super) use loom::sync::atomic::{AtomicU32, AtomicU64, Ordering};
}

fn check(model: impl Fn() + Send + Sync + 'static) {
    let mut builder = Builder::new();
    // More switches than that find no more and take for ever.
    builder.preemption_bound = Some(3);
    builder.check(model);
}

#[test]
fn two_threads_that_want_the_last_retry_get_one() {
    check(|| {
        let budget = Arc::new(Budget::new(50, 1));
        let other = thread::spawn({
            let budget = Arc::clone(&budget);
            move || budget.withdraw()
        });
        let (one, other) = (budget.withdraw(), other.join().expect("it does not panic"));
        assert!(one != other, "one of two gets it: {one}, {other}");
    });
}

#[test]
fn whatever_the_order_retries_are_no_more_than_the_share_and_the_reserve() {
    check(|| {
        let budget = Arc::new(Budget::new(50, 1));
        let call = |budget: &Budget| {
            budget.deposit();
            usize::from(budget.withdraw()) + usize::from(budget.withdraw())
        };
        let other = thread::spawn({
            let budget = Arc::clone(&budget);
            move || call(&budget)
        });
        let retries = call(&budget) + other.join().expect("it does not panic");
        // Two calls at half a retry each, and the one in reserve; a deposit into a full account is lost.
        assert!((1..=2).contains(&retries), "{retries}");
    });
}

#[test]
fn a_call_that_is_recorded_while_the_window_turns_is_counted_once() {
    check(|| {
        let latencies = Arc::new(Latencies::sized(2, 1));
        latencies.record(Duration::ZERO);
        let other = thread::spawn({
            let latencies = Arc::clone(&latencies);
            move || latencies.record(Duration::ZERO)
        });
        latencies.record(Duration::ZERO);
        other.join().expect("it does not panic");
        assert_eq!(latencies.known(), 3);
    });
}

#[test]
fn whatever_was_lost_or_kept_too_long_at_a_turn_is_put_right_by_the_turns_after_it() {
    check(|| {
        let latencies = Arc::new(Latencies::sized(1, 1));
        let other = thread::spawn({
            let latencies = Arc::clone(&latencies);
            move || (0..2).for_each(|_| latencies.record(Duration::ZERO))
        });
        (0..2).for_each(|_| latencies.record(Duration::ZERO));
        other.join().expect("it does not panic");
        assert!(latencies.known() <= 4, "no call is counted twice");
        (0..3).for_each(|_| latencies.record(Duration::ZERO));
        assert_eq!(latencies.known(), 2, "the segment that is written and the one before it");
    });
}
