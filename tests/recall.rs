//! A lease's drop against the call that wants it back, in every order: the same source over loom's atomics.
//!
//! As in `tests/shared_belief`, the file is compiled here once more, with other atomics above it.

use loom::{sync::Arc, thread};

use self::whereabouts::Whereabouts;

#[path = "../src/router/whereabouts.rs"]
mod whereabouts;

mod atomic {
    pub(super) use loom::sync::atomic::{AtomicU64, Ordering};
}

/// A lease that comes back after so many statements, where that is known, while it is called back.
fn race(sent: Option<u64>) {
    loom::model(move || {
        let lease = Arc::new(Whereabouts::out());
        let drops = thread::spawn({
            let lease = Arc::clone(&lease);
            move || (lease.come_back(sent), lease.is_called_back())
        });
        let (called, found) = (lease.call_back(), lease.sent());
        let (came, closes) = drops.join().expect("it does not panic");
        assert!(came != called, "came back: {came}, called back: {called}");
        assert_eq!((closes, found), if called { (true, None) } else { (false, sent) });
    });
}

#[test]
fn exactly_one_of_come_back_and_call_back_wins_and_both_know_which() {
    race(Some(3));
    race(Some(0));
}

#[test]
fn a_lease_whose_statements_may_still_follow_comes_back_without_their_number() {
    race(None);
}
