//! When servers are pinged: three frequencies, one ping at a time, and not at all unless asked.

use tokio::time::sleep;

use super::*;
use crate::{
    config::Monitoring,
    health::{Over, State},
};

/// Whether all lie within a tenth of `frequency`, up to the millisecond to which timers are good.
#[track_caller]
fn all_about(gaps: &[Duration], frequency: Duration) {
    let (least, most) = (frequency * 9 / 10, frequency * 11 / 10 + Duration::from_millis(2));
    assert!(!gaps.is_empty() && gaps.iter().all(|gap| (least..=most).contains(gap)), "{gaps:?}");
}

#[tokio::test(start_paused = true)]
async fn a_server_that_is_up_is_pinged_at_the_monitoring_frequency_over_both_kinds_of_connections() {
    let mut bench = Bench::start(pair(), |_, _| {});
    bench.silence(2 * HOUR).await;
    for fake in &bench.fakes {
        all_about(&fake.gaps(), 120 * SECOND);
        let over: Vec<Over> = fake.pings().iter().map(|ping| ping.1).collect();
        assert!(over.chunks_exact(2).all(|two| two == [Over::Fresh, Over::Kept]), "{over:?}");
        assert_eq!(fake.most_in_flight(), 1);
    }
    assert_ne!(bench.fakes[0].gaps(), bench.fakes[1].gaps(), "servers are not pinged in step");
}

#[tokio::test(start_paused = true)]
async fn a_server_that_is_down_is_pinged_at_the_outage_frequency_over_fresh_connections() {
    let mut bench = Bench::settled(pair()).await;
    bench.fake("replica").dies();
    assert_eq!(bench.told().await.1.name(), "outage_opened");
    bench.fake("replica").forget();
    sleep(HOUR - SECOND).await;
    let replica = bench.fake("replica");
    all_about(&replica.gaps(), 30 * SECOND);
    assert!(replica.pings().iter().all(|ping| ping.1 == Over::Fresh));
}

#[tokio::test(start_paused = true)]
async fn a_primary_that_was_demoted_is_asked_at_the_outage_frequency_until_it_takes_writes_again() {
    let mut bench = Bench::settled(pair()).await;
    bench.fake("primary").becomes(Role::Replica);
    assert_eq!([bench.told().await.1.name(), bench.told().await.1.name()], ["standing_changed", "role_changed"]);
    let next = bench.shared.table.load().entries()[0].known.next_ping;
    assert!(next - clock::now() <= 33 * SECOND, "who asks when to come back is told so: {:?}", next - clock::now());
    bench.fakes.iter().for_each(Fake::forget);
    bench.silence(HOUR).await;
    // The replica too: where it was promoted meanwhile, it outranks the old primary when that comes back.
    bench.fakes.iter().for_each(|fake| all_about(&fake.gaps(), 30 * SECOND));
    bench.fake("primary").becomes(Role::Primary);
    let promoted = clock::now();
    assert_eq!([bench.told().await.1.name(), bench.told().await.1.name()], ["standing_changed", "role_changed"]);
    assert!(clock::now() - promoted <= 33 * SECOND);
    sleep(31 * SECOND).await;
    bench.fakes.iter().for_each(Fake::forget);
    sleep(HOUR).await;
    bench.fakes.iter().for_each(|fake| all_about(&fake.gaps(), 120 * SECOND));
}

#[tokio::test(start_paused = true)]
async fn while_the_primary_is_out_its_replicas_are_asked_at_the_outage_frequency_and_no_stranger_is() {
    let stranger =
        pair().server("stranger", Role::Replica, "postgres://app@127.0.0.1:3/app").failover("stranger", [""; 0]);
    let mut bench = Bench::settled(stranger).await;
    bench.fake("primary").dies();
    assert_eq!(bench.told().await.1.name(), "outage_opened");
    sleep(30 * SECOND).await;
    bench.fakes.iter().for_each(Fake::forget);
    sleep(HOUR).await;
    all_about(&bench.fake("replica").gaps(), 30 * SECOND);
    all_about(&bench.fake("stranger").gaps(), 120 * SECOND);
}

#[tokio::test(start_paused = true)]
async fn an_error_triggers_a_ping_at_once_and_opens_nothing_if_that_is_answered() {
    let mut bench = Bench::settled(pair()).await;
    sleep(20 * SECOND).await;
    bench.doubt("replica");
    assert_eq!(bench.belief("replica").state(), State::Suspect);
    sleep(SECOND).await;
    assert_eq!(bench.fake("replica").pings().len(), 1);
    assert_eq!(bench.belief("replica").state(), State::Up);
    assert!(bench.fake("primary").pings().is_empty(), "the other server has nothing to do with it");
    bench.silence(10 * SECOND).await;
}

#[tokio::test(start_paused = true)]
async fn a_storm_of_errors_causes_one_ping_per_error_frequency_and_one_at_a_time() {
    let mut bench = Bench::settled(pair()).await;
    bench.fake("replica").behaves(Manner::Answers(SECOND / 2));
    for _ in 0..60_000 {
        bench.doubt("replica");
        sleep(Duration::from_millis(1)).await;
    }
    let replica = bench.fake("replica");
    assert!(replica.gaps().iter().all(|&gap| gap >= 5 * SECOND), "{:?}", replica.gaps());
    assert!((10..=13).contains(&replica.pings().len()), "{}", replica.pings().len());
    assert_eq!(replica.most_in_flight(), 1);
    bench.silence(SECOND).await;
}

#[tokio::test(start_paused = true)]
async fn a_server_that_ends_our_session_and_answers_is_up() {
    let mut bench = Bench::settled(pair()).await;
    sleep(50 * SECOND).await;
    bench.fake("replica").dies();
    bench.fake("replica").behaves(Manner::Answers(Duration::ZERO));
    bench.silence(10 * SECOND).await;
    assert_eq!(bench.belief("replica").state(), State::Up);
    assert_eq!(bench.fake("replica").pings().len(), 1);
}

#[tokio::test(start_paused = true)]
async fn leases_that_come_back_cause_no_ping_and_one_that_does_not_causes_some_at_the_error_frequency() {
    let mut bench = Bench::settled(pair()).await;
    let cell = &bench.server("replica").cell;
    for _ in 0..600 {
        cell.lend();
        sleep(SECOND / 10).await;
        cell.give_up();
        cell.note_return();
    }
    assert!(bench.fake("replica").pings().is_empty());
    cell.lend();
    sleep(30 * SECOND).await;
    assert!((4..=6).contains(&bench.fake("replica").pings().len()), "{:?}", bench.fake("replica").gaps());
    bench.silence(SECOND).await;
}

#[tokio::test(start_paused = true)]
async fn on_demand_nothing_is_pinged_unless_asked_and_then_only_what_is_due() {
    let mut bench = Bench::settled(pair().monitoring(Monitoring::OnDemand)).await;
    sleep(HOUR).await;
    assert!(bench.fakes.iter().all(|fake| fake.pings().is_empty()));
    bench.ask(Command::Run).await;
    bench.ask(Command::Run).await;
    assert!(bench.fakes.iter().all(|fake| fake.pings().len() == 1));
    bench.fake("replica").behaves(Manner::Refuses);
    bench.fake("replica").dies();
    sleep(HOUR).await;
    assert_eq!(bench.fake("replica").pings().len(), 1);
    bench.ask(Command::Run).await;
    assert_eq!(bench.told().await.1.name(), "outage_opened");
    assert_eq!(bench.belief("replica").state(), State::Down);
}

#[tokio::test(start_paused = true)]
async fn a_start_settles_within_one_ping_timeout_whatever_the_servers_do() {
    let manners = [Manner::Answers(SECOND / 10), Manner::Refuses, Manner::Hangs, Manner::IsFull];
    for manner in manners {
        let bench = Bench::start(pair(), |name, fake| {
            if name == "replica" {
                fake.behaves(manner);
            }
        });
        bench.ask(Command::Settle).await;
        let took = clock::now() - bench.start;
        assert!(took <= 3 * SECOND + SECOND / 100, "{manner:?}: {took:?}");
        let down = matches!(manner, Manner::Refuses | Manner::Hangs);
        assert_eq!(bench.belief("replica").state() == State::Down, down, "{manner:?}");
        assert_eq!(bench.belief("primary").state(), State::Up);
    }
}

#[tokio::test(start_paused = true)]
async fn a_server_that_hangs_holds_up_no_other() {
    let mut bench = Bench::settled(pair()).await;
    bench.fake("replica").behaves(Manner::Hangs);
    sleep(2 * HOUR).await;
    all_about(&bench.fake("primary").gaps(), 120 * SECOND);
    let mut told = Vec::new();
    while let Ok(Some(event)) = timeout(SECOND, bench.events.next()).await {
        told.push((event.alias.expect("it is about a server").to_string(), event.kind.name()));
    }
    assert!(told.iter().all(|(alias, _)| alias == "replica"), "{told:?}");
    assert_eq!(bench.belief("primary").state(), State::Up);
}
