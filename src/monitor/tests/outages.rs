//! What outages are opened by, told as, and closed by.

use tokio::time::sleep;

use super::*;
use crate::health::State;

#[tokio::test(start_paused = true)]
async fn an_error_finds_a_dead_server_in_no_time_although_nobody_had_watched_it() {
    let mut bench = Bench::settled(pair()).await;
    sleep(20 * SECOND).await;
    bench.fake("replica").behaves(Manner::Refuses);
    // Its sessions linger, so the watched connection answers: admission has stopped, which is no outage.
    bench.doubt("replica");
    let (alias, kind, _) = bench.told().await;
    assert_eq!((alias.as_str(), kind.name()), ("replica", "admission_stopped"));
    let before = clock::now();
    bench.fake("replica").dies();
    let (alias, kind, _) = bench.told().await;
    assert_eq!((alias.as_str(), kind.name()), ("replica", "outage_opened"));
    assert_eq!(clock::now() - before, Duration::ZERO);
}

#[tokio::test(start_paused = true)]
async fn an_outage_is_told_once_again_at_each_log_frequency_and_once_when_it_ends() {
    let mut bench = Bench::settled(pair()).await;
    sleep(60 * SECOND).await;
    bench.fake("replica").dies();
    let (alias, kind, opened) = bench.told().await;
    let EventKind::OutageOpened { cause, detour, .. } = kind else { panic!("{kind:?}") };
    assert_eq!((alias.as_str(), cause.to_string().as_str()), ("replica", "refused"));
    assert_eq!(detour.unwrap().as_str(), "primary");
    for hours in 1..=3 {
        let (_, kind, at) = bench.told().await;
        let EventKind::OutageOngoing { duration, cause, next_ping, .. } = kind else { panic!("{kind:?}") };
        assert!(at - opened - hours * HOUR < SECOND, "{:?}", at - opened);
        assert!(duration - hours * HOUR < SECOND);
        assert_eq!(cause.to_string(), "refused");
        assert!(next_ping <= 33 * SECOND, "{next_ping:?}");
    }
    bench.fake("replica").behaves(Manner::Answers(Duration::ZERO));
    let (_, kind, at) = bench.told().await;
    let EventKind::OutageClosed { duration, .. } = kind else { panic!("{kind:?}") };
    assert!(at - opened - duration < SECOND && at - opened < 3 * HOUR + 34 * SECOND);
    bench.silence(3 * HOUR).await;
}

#[tokio::test(start_paused = true)]
async fn the_end_of_the_watched_connection_is_seen_at_once_without_any_traffic() {
    let mut bench = Bench::settled(pair()).await;
    sleep(50 * SECOND).await;
    let died = clock::now();
    bench.fake("replica").dies();
    assert_eq!(bench.told().await.1.name(), "outage_opened");
    assert_eq!(clock::now() - died, Duration::ZERO);
    assert_eq!(bench.fake("replica").pings().len(), 2, "one ping and one that confirms it");
}

#[tokio::test(start_paused = true)]
async fn a_server_that_falls_silent_under_leases_is_down_after_slow_after_and_one_ping_timeout() {
    let mut bench = Bench::settled(pair()).await;
    sleep(50 * SECOND).await;
    bench.server("replica").cell.lend();
    bench.fake("replica").behaves(Manner::Hangs);
    let silent = clock::now();
    let (_, kind, _) = bench.told().await;
    let EventKind::OutageOpened { cause, .. } = kind else { panic!("{kind:?}") };
    assert_eq!(cause.to_string(), "no answer within 3s");
    let took = clock::now() - silent;
    // At a look: the first finds the lease, a later one that it has been out for a second.
    assert!((4 * SECOND..=4 * SECOND + SECOND / 2).contains(&took), "{took:?}");
}

#[tokio::test(start_paused = true)]
async fn a_failover_target_that_is_down_itself_is_passed_over_and_without_any_the_outage_says_so() {
    let chain = pair()
        .server("standby", Role::Replica, "postgres://app@127.0.0.1:3/app")
        .failover("replica", ["standby", "primary"]);
    let mut bench = Bench::settled(chain).await;
    let mut detours = Vec::new();
    for dying in ["standby", "replica", "primary"] {
        sleep(SECOND * 10).await;
        bench.fake(dying).dies();
        let (alias, kind, _) = bench.told().await;
        let EventKind::OutageOpened { detour, .. } = kind else { panic!("{kind:?}") };
        detours.push((alias, detour.map(|alias| alias.as_str().to_owned())));
    }
    let (primary, none) = (Some("primary".to_owned()), None);
    let expected = [("standby", primary.clone()), ("replica", primary), ("primary", none)];
    assert_eq!(detours, expected.map(|(alias, detour)| (alias.to_owned(), detour)));
    let plan = bench.shared.table.load();
    assert!(plan.entries().iter().all(|entry| entry.known.outage.is_some()));

    for fake in &bench.fakes {
        fake.behaves(Manner::Answers(Duration::ZERO));
    }
    for _ in 0..3 {
        assert_eq!(bench.told().await.1.name(), "outage_closed");
    }
}

#[tokio::test(start_paused = true)]
async fn an_outage_closes_after_two_good_pings_and_not_after_one() {
    let mut bench = Bench::settled(pair()).await;
    bench.fake("replica").dies();
    assert_eq!(bench.told().await.1.name(), "outage_opened");
    let replica = bench.fake("replica").clone();
    // One answer may be luck: refuse again as soon as there was one.
    replica.behaves(Manner::Answers(Duration::ZERO));
    let lucky = replica.pings().len() + 1;
    while replica.pings().len() < lucky {
        sleep(Duration::from_millis(1)).await;
    }
    replica.dies();
    bench.silence(HOUR / 2).await;
    assert_eq!(bench.belief("replica").state(), State::Down);
    replica.forget();
    replica.behaves(Manner::Answers(Duration::ZERO));
    assert_eq!(bench.told().await.1.name(), "outage_closed");
    assert_eq!(replica.pings().len(), 2);
    assert!(replica.gaps()[0] < SECOND / 10, "{:?}", replica.gaps());
}

#[tokio::test(start_paused = true)]
async fn a_server_without_room_is_told_of_once_and_is_no_outage() {
    let mut bench = Bench::settled(pair()).await;
    bench.fake("replica").behaves(Manner::IsFull);
    sleep(20 * SECOND).await;
    bench.doubt("replica");
    assert_eq!(bench.told().await.1.name(), "ping_inconclusive");
    bench.silence(HOUR - 30 * SECOND).await;
    bench.fake("replica").behaves(Manner::Answers(Duration::ZERO));
    bench.silence(3 * HOUR).await;
    assert_eq!(bench.belief("replica").state(), State::Up);
}
