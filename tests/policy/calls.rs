//! What one call says of its server.

use std::{thread, time::Duration};

use pgdetour::policy::{Calls, Counts, Fault, Network, Severity, Sqlstate};

const MS: Duration = Duration::from_millis(1);

fn reported(code: &str) -> Fault {
    Fault::Reported { sqlstate: Sqlstate::parse(code).expect("it is a code"), severity: Severity::Error }
}

#[test]
fn an_error_of_the_application_is_an_answer_and_what_is_no_word_about_the_server_is_not_counted() {
    let calls = Calls::new(100 * MS);
    for fault in [None, Some(reported("23505")), Some(Fault::Misuse)] {
        calls.record(fault, MS);
    }
    assert_eq!(calls.counts(), Counts { made: 3, failed: 0, slow: 0 });
    for fault in [Fault::PoolFull, Fault::Resource, Fault::Replay, Fault::Login, Fault::WrongRole, reported("53300")] {
        calls.record(Some(fault), 200 * MS);
    }
    assert_eq!(calls.counts().made, 3);
}

#[test]
fn a_call_is_slow_from_the_bound_on_and_one_that_failed_is_not_counted_as_slow_too() {
    let calls = Calls::new(100 * MS);
    calls.record(None, 99 * MS);
    calls.record(None, 100 * MS);
    calls.record(Some(Fault::Late), 900 * MS);
    calls.record(Some(Fault::Session(Network::Broken)), MS);
    assert_eq!(calls.counts(), Counts { made: 4, failed: 2, slow: 1 });
}

#[test]
fn a_call_that_was_given_up_speaks_against_its_server_only_where_it_was_slow_by_then() {
    let calls = Calls::new(100 * MS);
    calls.record_late(99 * MS);
    assert_eq!(calls.counts(), Counts::default());
    calls.record_late(100 * MS);
    assert_eq!(calls.counts(), Counts { made: 1, failed: 1, slow: 0 });
}

#[test]
fn a_call_that_lost_to_another_server_was_slow_where_that_began_later_or_it_took_as_long_as_a_slow_one() {
    let calls = Calls::new(100 * MS);
    calls.record_lost(99 * MS, false);
    assert_eq!(calls.counts(), Counts::default(), "it may have been as fast");
    calls.record_lost(60 * MS, true);
    calls.record_lost(100 * MS, false);
    assert_eq!(calls.counts(), Counts { made: 2, failed: 0, slow: 2 });
}

#[test]
fn calls_on_many_threads_are_all_counted() {
    let calls = Calls::new(100 * MS);
    thread::scope(|scope| {
        for fault in [None, Some(Fault::Closed)] {
            let calls = &calls;
            scope.spawn(move || (0..10_000).for_each(|_| calls.record(fault, 200 * MS)));
        }
    });
    assert_eq!(calls.counts(), Counts { made: 20_000, failed: 10_000, slow: 10_000 });
}
