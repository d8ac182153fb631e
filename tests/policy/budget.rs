//! The share of calls that may be made a second time.

use std::{
    sync::atomic::{AtomicU64, Ordering},
    thread,
};

use pgdetour::policy::Budget;
use proptest::prelude::*;

/// An account kept without cleverness, in hundredths of a retry.
struct Model {
    left: u64,
    percent: u64,
    most: u64,
}

proptest! {
    #[test]
    fn a_budget_is_an_account_that_each_call_pays_into_and_that_is_full_at_its_reserve(
        percent in 0_u32..300, reserve in 0_u32..20, steps in prop::collection::vec(any::<bool>(), 0..500),
    ) {
        let budget = Budget::new(percent, reserve);
        let (percent, reserve) = (u64::from(percent), u64::from(reserve));
        let mut model = Model { left: reserve * 100, percent, most: (reserve * 100).max(100).max(percent) };
        let (mut calls, mut retries) = (0, 0);
        for call in steps {
            if call {
                budget.deposit();
                calls += 1;
                model.left = (model.left + model.percent).min(model.most);
            } else {
                let expected = model.left >= 100;
                model.left -= if expected { 100 } else { 0 };
                prop_assert_eq!(budget.withdraw(), expected);
                retries += u64::from(expected);
            }
            prop_assert!(retries * 100 <= calls * percent + reserve * 100);
        }
    }
}

#[test]
fn a_long_calm_saves_up_no_more_than_the_reserve() {
    let budget = Budget::new(20, 10);
    (0..100_000).for_each(|_| budget.deposit());
    assert_eq!((0..100).filter(|_| budget.withdraw()).count(), 10);
}

#[test]
fn of_a_thousand_calls_that_all_fail_a_fifth_is_made_again_and_the_reserve() {
    let budget = Budget::new(20, 10);
    let retried = (0..1_000).filter(|_| {
        budget.deposit();
        budget.withdraw()
    });
    // The first deposit finds the account full.
    assert_eq!(retried.count(), 209);
}

#[test]
fn threads_that_share_a_budget_lose_no_deposit_and_double_no_withdrawal() {
    const CALLS: u64 = 20_000;
    let (budget, retries) = (Budget::new(25, 1_000_000), AtomicU64::new(0));
    // What it begins with, so that it never is full and its deposits can be counted.
    (0..1_000_000).for_each(|_| assert!(budget.withdraw()));
    thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                for _ in 0..CALLS {
                    budget.deposit();
                    retries.fetch_add(u64::from(budget.withdraw()), Ordering::Relaxed);
                }
            });
        }
    });
    while budget.withdraw() {
        retries.fetch_add(1, Ordering::Relaxed);
    }
    assert_eq!(retries.into_inner(), CALLS, "a quarter of four times as many calls");
}
