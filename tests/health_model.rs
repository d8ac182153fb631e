//! Does the state machine keep its promises whatever happens? Random signals, answers, silences and pauses against a model of it.

#[path = "health_model/model.rs"]
mod model;
#[path = "health_model/run.rs"]
mod run;

use std::time::{Duration, Instant};

use pgdetour::{
    config::Pings,
    health::{Action, Cause, Change, Finding, Health, Signal, State},
};
use proptest::prelude::*;

use self::run::{Event, Reply, Run};

const MS: Duration = Duration::from_millis(1);

#[expect(clippy::disallowed_methods, reason = "simulated time has to begin somewhere")]
fn base() -> Instant {
    Instant::now()
}

/// Frequencies as a configuration would let them through: none inverted.
fn pings() -> impl Strategy<Value = Pings> {
    (20_u32..5_000, 10_u32..40, 10_u32..40, 20_u32..3_000, 1_u32..=10, (1_u32..=4, 1_u32..=3)).prop_map(
        |(error, outage, monitoring, timeout, shorter, (failures, successes))| {
            let outage = error * outage / 10;
            let monitoring = (outage * monitoring / 10).max(timeout);
            Pings {
                error_ping_frequency: error * MS,
                outage_ping_frequency: outage * MS,
                monitoring_ping_frequency: monitoring * MS,
                outage_log_frequency: 7 * outage * MS,
                ping_timeout: timeout * MS,
                outage_ping_timeout: (timeout / shorter).clamp(1, outage) * MS,
                failure_threshold: failures,
                success_threshold: successes,
                ..Pings::default()
            }
        },
    )
}

fn reply() -> impl Strategy<Value = Reply> {
    prop_oneof![
        3 => Just(Reply::Answered),
        3 => Just(Reply::Refused),
        3 => Just(Reply::Silent),
        1 => Just(Reply::Inconclusive),
    ]
}

fn time() -> impl Strategy<Value = Duration> {
    // Short steps fall between the pings of a round, long ones see many rounds.
    prop_oneof![(0_u32..100).prop_map(|ms| ms * MS), (0_u32..20_000).prop_map(|ms| ms * MS)]
}

fn event() -> impl Strategy<Value = Event> {
    prop_oneof![
        6 => time().prop_map(Event::Pass),
        1 => time().prop_map(Event::Starve),
        4 => (reply(), reply(), 0_u32..400).prop_map(|(fresh, kept, after)| Event::Reply { fresh, kept, after: after * MS }),
        3 => (1_usize..4).prop_map(Event::Doubts),
        1 => Just(Event::Slow),
        2 => Just(Event::Lost),
        1 => any::<bool>().prop_map(Event::AwaitRole),
    ]
}

fn events() -> impl Strategy<Value = Vec<Event>> {
    prop::collection::vec(event(), 0..60)
}

fn both(reply: Reply, after: Duration) -> Event {
    Event::Reply { fresh: reply, kept: reply, after }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn whatever_happens_the_machine_does_as_the_model(pings in pings(), seed: u64, events in events()) {
        let mut run = Run::new(pings, base(), seed);
        run.play(&events);
        run.check_the_record();
    }

    #[test]
    fn a_straggler_changes_nothing(pings in pings(), seed: u64, events in events()) {
        let mut run = Run::new(pings, base(), seed);
        for event in events {
            run.play(&[event]);
            run.hear_stragglers();
        }
    }

    #[test]
    fn the_same_events_give_the_same_answers(pings in pings(), seed: u64, events in events()) {
        let base = base();
        let mut runs = [0; 2].map(|_| Run::new(pings.clone(), base, seed));
        runs.iter_mut().for_each(|run| run.play(&events));
        prop_assert_eq!(runs[0].trace(), runs[1].trace());
    }

    #[test]
    fn a_server_that_answers_is_up_before_long(pings in pings(), seed: u64, events in events()) {
        let mut run = Run::new(pings.clone(), base(), seed);
        run.play(&events);
        run.play(&[both(Reply::Answered, Duration::ZERO)]);
        // What is in flight, then a ping, then as many as the outage asks for; or, in doubt, one more.
        let round = pings.ping_timeout * pings.failure_threshold.max(2);
        let next = pings.monitoring_ping_frequency.max(pings.outage_ping_frequency + pings.error_ping_frequency).mul_f64(1.1);
        run.pass(round + next + 50 * MS * pings.success_threshold);
        if run.health.state() == State::Suspect {
            run.pass(pings.error_ping_frequency.mul_f64(1.1));
        }
        prop_assert_eq!(run.health.state(), State::Up);
        let quiet = run.told.len();
        run.pass(pings.monitoring_ping_frequency * 20);
        prop_assert_eq!(run.health.state(), State::Up);
        let news = run.told[quiet..].iter().filter(|(_, change)| !matches!(change, Change::AdmissionResumed));
        prop_assert_eq!(news.count(), 0, "a healthy server tells nothing");
    }

    #[test]
    fn silence_after_a_doubt_is_an_outage_within_error_frequency_and_timeout(pings in pings(), seed: u64, quiet in time()) {
        let pings = Pings { failure_threshold: pings.failure_threshold.min(2), ..pings };
        let mut run = Run::new(pings.clone(), base(), seed);
        run.pass(quiet + 2 * MS);
        run.play(&[both(Reply::Silent, MS), Event::Doubts(1)]);
        let bound = pings.error_ping_frequency.mul_f64(1.1) + pings.ping_timeout;
        run.pass(bound + 2 * MS);
        prop_assert_eq!(run.health.state(), State::Down);
    }

    #[test]
    fn silence_without_traffic_is_an_outage_within_monitoring_frequency_and_timeout(pings in pings(), seed: u64, quiet in time()) {
        let pings = Pings { failure_threshold: pings.failure_threshold.min(2), ..pings };
        let mut run = Run::new(pings.clone(), base(), seed);
        run.pass(quiet + 2 * MS);
        run.play(&[both(Reply::Silent, MS)]);
        run.pass(pings.monitoring_ping_frequency.mul_f64(1.1) + pings.ping_timeout + 2 * MS);
        prop_assert_eq!(run.health.state(), State::Down);
    }

    #[test]
    fn refusals_after_the_end_of_the_watched_connection_are_an_outage_at_once(pings in pings(), seed: u64, quiet in time()) {
        let mut run = Run::new(pings.clone(), base(), seed);
        run.pass(quiet + 2 * MS);
        run.play(&[both(Reply::Refused, Duration::ZERO), Event::Lost]);
        run.pass(Duration::ZERO);
        prop_assert_eq!(run.health.state(), State::Down);
    }

    #[test]
    fn a_role_that_is_waited_for_is_asked_for_at_the_outage_frequency(pings in pings(), seed: u64, quiet in time()) {
        let mut run = Run::new(pings.clone(), base(), seed);
        run.reply_after(Duration::ZERO);
        run.pass(quiet);
        let last = run.sent.len() - 1;
        run.play(&[Event::AwaitRole(true)]);
        run.pass(pings.outage_ping_frequency * 30);
        let starts: Vec<Instant> = run.sent[last..].iter().map(|(at, _)| *at).collect();
        // The ping that was to come anyway comes when it was to.
        let soonest = pings.error_ping_frequency.min(pings.monitoring_ping_frequency.mul_f64(0.9));
        prop_assert!(starts[1] - starts[0] >= soonest);
        prop_assert!((27..=35).contains(&starts.len()), "{} pings", starts.len());
        for pair in starts[1..].windows(2) {
            let ratio = (pair[1] - pair[0]).as_secs_f64() / pings.outage_ping_frequency.as_secs_f64();
            prop_assert!((0.899..=1.101).contains(&ratio), "{ratio}");
        }
        run.play(&[Event::AwaitRole(false), Event::Pass(pings.outage_ping_frequency * 2)]);
        let calm = run.sent.len();
        run.pass(pings.monitoring_ping_frequency * 10);
        prop_assert!((9..=12).contains(&(run.sent.len() - calm)), "{} pings", run.sent.len() - calm);
    }

    #[test]
    fn no_error_of_an_application_opens_an_outage(pings in pings(), seed: u64, events in events()) {
        // The server answers, or says nothing of its health; sessions end, leases doubt, and this process is starved.
        let well = events.into_iter().map(|event| match event {
            Event::Reply { fresh, kept, after } => {
                let kind = |reply| if reply == Reply::Answered { Reply::Answered } else { Reply::Inconclusive };
                Event::Reply { fresh: kind(fresh), kept: kind(kept), after: after.min(pings.outage_ping_timeout / 2 - MS / 2) }
            }
            other => other,
        });
        let well: Vec<Event> = well.collect();
        let mut run = Run::new(pings.clone(), base(), seed);
        run.reply_after(pings.outage_ping_timeout / 4);
        run.play(&well);
        prop_assert!(!run.opened_an_outage());
    }

    #[test]
    fn a_storm_of_errors_sends_one_ping_per_error_frequency(pings in pings(), seed: u64, every in 1_u32..50) {
        let mut run = Run::new(pings.clone(), base(), seed);
        run.reply_after(Duration::ZERO);
        run.pass(pings.error_ping_frequency.mul_f64(1.2).min(pings.monitoring_ping_frequency / 2));
        let (before, storm) = (run.sent.len(), pings.error_ping_frequency * 10);
        let step = pings.error_ping_frequency / every;
        for _ in 0..10 * every {
            run.play(&[Event::Doubts(20), Event::Pass(step)]);
        }
        let sent = run.sent.len() - before;
        prop_assert!(sent <= 12, "{} pings in {:?}", sent, storm);
    }

    #[test]
    fn terminating_the_watched_connection_again_and_again_costs_two_pings_per_error_frequency(pings in pings(), seed: u64) {
        let mut run = Run::new(pings.clone(), base(), seed);
        run.reply_after(Duration::ZERO);
        for _ in 0..200 {
            run.signal(Signal::Lost);
            run.pass(pings.error_ping_frequency / 20);
        }
        prop_assert!(run.sent.len() <= 24, "{} pings", run.sent.len());
        prop_assert!(!run.opened_an_outage());
    }

    #[test]
    fn jitter_stays_within_a_tenth(pings in pings(), seed: u64) {
        let mut run = Run::new(pings.clone(), base(), seed);
        run.reply_after(Duration::ZERO);
        run.pass(pings.monitoring_ping_frequency * 30);
        let starts: Vec<Instant> = run.sent.iter().map(|(at, _)| *at).collect();
        prop_assert!((27..=34).contains(&starts.len()), "{} pings", starts.len());
        for pair in starts.windows(2) {
            let ratio = (pair[1] - pair[0]).as_secs_f64() / pings.monitoring_ping_frequency.as_secs_f64();
            prop_assert!((0.899..=1.101).contains(&ratio), "{ratio}");
        }
    }
}

#[test]
fn a_server_whose_outage_was_taken_over_is_settled_by_a_failed_ping_too() {
    let (now, refused) = (base(), Cause::new("refused"));
    let pings = || Pings { failure_threshold: 1, ..Pings::default() };
    let [mut before, mut health] = [1, 7].map(|seed| Health::new(pings(), now, seed));
    let Action::Ping(order) = before.poll(now) else { panic!("its first ping is due at once") };
    let opened = before.on(Signal::Ping(order.id, Finding::Failed(refused.clone())), now);
    assert!(matches!(opened[..], [Change::OutageOpened { .. }]), "{opened:?}");
    health.resume(&before.told());
    let Action::Ping(order) = health.poll(now) else { panic!("its first ping is due at once") };
    assert!(health.on(Signal::Ping(order.id, Finding::Failed(refused)), now).is_empty());
    assert!(health.is_settled(), "a reload waits for this: it must not take as long as the outage");
}
