//! The word that every request reads, in every order in which threads may meet at it: the same source over loom's atomics.
//!
//! A `cfg(loom)` would reach the runtime too, which then has no sockets. So the file is compiled here once more, with other atomics
//! above it, and the models run in every test.

use loom::{sync::Arc, thread};

use self::{
    belief::{Belief, Cell, Generation, Need, State},
    leases::Leases,
};
use crate::striped;

#[expect(dead_code, unreachable_pub, reason = "a model needs a part of it")]
#[path = "../../src/health/belief.rs"]
mod belief;

#[expect(unreachable_pub, reason = "as in the crate")]
#[path = "../../src/health/leases.rs"]
mod leases;

mod atomic {
    pub(super) use loom::sync::atomic::{AtomicU64, Ordering};
}

/// Two threads at one cell: what both have found.
fn both<A: 'static, B: 'static>(
    one: impl Fn(&Cell) -> A + Copy + Send + Sync + 'static,
    other: impl Fn(&Cell) -> B + Copy + Send + Sync + 'static,
    check: impl Fn(&Cell, A, B) + Send + Sync + 'static,
) {
    loom::model(move || {
        let cell = Arc::new(Cell::default());
        cell.publish(up());
        let beside = thread::spawn({
            let cell = Arc::clone(&cell);
            move || one(&cell)
        });
        let found = other(&cell);
        check(&cell, beside.join().expect("it does not panic"), found);
    });
}

fn up() -> Belief {
    Belief::new(State::Up, Generation::default())
}

#[test]
fn a_doubt_that_woke_the_monitor_is_there_when_it_looks_whatever_it_publishes_meanwhile() {
    let doubt = |cell: &Cell| cell.doubt(Generation::default());
    let monitor = |cell: &Cell| {
        let seen = cell.take_doubt();
        cell.publish(up());
        seen
    };
    both(doubt, monitor, |cell, woken, seen| assert!(woken && (seen || cell.take_doubt())));
}

#[test]
fn a_doubt_from_before_a_transition_never_outlives_it() {
    let doubt = |cell: &Cell| cell.doubt(Generation::default());
    let next = |cell: &Cell| cell.publish(Belief::new(State::Up, Generation::default().next()));
    both(doubt, next, |cell, _, ()| assert!(!cell.take_doubt() && cell.belief().is_clear(Need::Reads)));
}

#[test]
fn a_server_that_is_retired_while_the_monitor_publishes_stays_so() {
    both(Cell::retire, |cell| cell.publish(up()), |cell, (), ()| assert!(cell.belief().is_retired()));
}

#[test]
fn of_two_who_race_for_a_trial_one_takes_it() {
    let take = |cell: &Cell| cell.take_trial();
    let offer_and_take = |cell: &Cell| {
        cell.publish(up().behind());
        cell.offer_trial();
        cell.publish(up().behind());
        cell.take_trial()
    };
    both(take, offer_and_take, |cell, one, other| assert!(one != other && !cell.take_trial()));
}

#[test]
fn a_trial_that_is_taken_while_a_doubt_is_raised_loses_neither() {
    let offer = |cell: &Cell| {
        cell.publish(up().behind());
        cell.offer_trial();
        cell.take_trial()
    };
    let doubt = |cell: &Cell| cell.doubt(Generation::default());
    both(offer, doubt, |cell, taken, woken| assert!(taken && woken && cell.take_doubt()));
}

#[test]
fn leases_that_go_out_and_come_back_side_by_side_are_counted() {
    let lend = |cell: &Cell| {
        cell.lend();
        cell.note_return();
        cell.give_up();
    };
    let beside = move |cell: &Cell| {
        striped::take_the_other();
        lend(cell);
    };
    both(beside, lend, |cell, (), ()| assert_eq!(cell.leases(), Leases { out: 0, returned: 2 }));
}

#[test]
fn of_two_that_come_back_at_once_on_one_stripe_one_is_noted_at_least() {
    both(Cell::note_return, Cell::note_return, |cell, (), ()| {
        assert!((1..=2).contains(&cell.leases().returned));
    });
}

/// What is counted while a lease goes out on one thread and ends so on another, where one is out all the time.
fn counted_meanwhile(end: fn(&Cell), check: impl Fn(Leases) + Send + Sync + 'static) {
    loom::model(move || {
        let cell = Arc::new(Cell::default());
        cell.lend();
        let lender = thread::spawn({
            let cell = Arc::clone(&cell);
            move || {
                cell.lend();
                thread::spawn(move || {
                    striped::take_the_other();
                    end(&cell);
                })
            }
        });
        check(cell.leases());
        lender.join().and_then(thread::JoinHandle::join).expect("neither panics");
        assert_eq!(cell.leases().out, 1);
    });
}

#[test]
fn a_lease_that_is_given_up_on_another_thread_is_never_counted_as_over_and_not_as_lent() {
    counted_meanwhile(Cell::give_up, |Leases { out, returned }| {
        assert!((1..=2).contains(&out) && returned == 0, "{out} out, {returned} back");
    });
}
