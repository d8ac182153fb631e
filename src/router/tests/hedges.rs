//! When is a read asked of a second server, and which of the two counts? In virtual time, as the reads.

use std::{future::pending, io, time::Duration};

use super::{
    super::{Alias, Error, Router, fake::FakePool, trail::Trail},
    reads::{MS, Visits, config, dropped_after, leases_out, lost, own, replica, router, streams},
};
use crate::{
    clock,
    config::{CallSettings, Hedge, PoolSettings},
    health::{Belief, State},
    pool::Backend,
};

fn hedging_after(after: Duration) -> CallSettings {
    CallSettings { hedge_after: Hedge::After(after), ..CallSettings::default() }
}

/// A read that its first server answers after `first` and any other after `second`; which of them it was.
async fn raced(alias: &Alias<FakePool>, visits: &Visits, [first, second]: [Duration; 2]) -> Result<String, Error> {
    alias
        .read(|lease| {
            let wait = if visits.note(&lease) == 1 { first } else { second };
            async move {
                tokio::time::sleep(wait).await;
                Ok::<_, io::Error>(lease.server().to_string())
            }
        })
        .await
}

#[tokio::test(start_paused = true)]
async fn a_read_whose_server_is_slow_is_answered_by_another_and_the_slow_one_is_cancelled() {
    let (replica, visits, begun) = (replica(hedging_after(50 * MS)).await, Visits::default(), clock::now());
    assert_eq!(raced(&replica, &visits, [5000 * MS, 3 * MS]).await.unwrap(), "primary");
    let took = clock::now() - begun;
    assert!((53 * MS..=56 * MS).contains(&took), "{took:?}");
    assert_eq!((own(&replica).size, leases_out(&replica)), (0, 0), "the loser's connection is closed");
}

#[tokio::test(start_paused = true)]
async fn the_first_server_may_still_win_and_a_read_that_is_soon_answered_is_asked_once() {
    let replica = replica(hedging_after(50 * MS)).await;
    let visits = Visits::default();
    assert_eq!(raced(&replica, &visits, [60 * MS, 30 * MS]).await.unwrap(), "replica");
    assert_eq!(visits.so_far(), ["replica", "primary"]);
    // It keeps its place until its session has ended.
    tokio::task::yield_now().await;
    let detour = replica.line.route.failover()[0].pool.status();
    assert_eq!((detour.size, own(&replica).idle, leases_out(&replica)), (0, 1, 0));

    let visits = Visits::default();
    assert_eq!(raced(&replica, &visits, [49 * MS, MS]).await.unwrap(), "replica");
    assert_eq!(visits.so_far(), ["replica"]);
}

#[tokio::test(start_paused = true)]
async fn a_wait_for_a_connection_is_hedged_too() {
    let (replica, visits) = (replica(hedging_after(50 * MS)).await, Visits::default());
    let _all = (replica.get().await.unwrap(), replica.get().await.unwrap());
    assert_eq!(raced(&replica, &visits, [MS, MS]).await.unwrap(), "primary");
    assert_eq!((visits.so_far().len(), leases_out(&replica)), (1, 2));
}

#[tokio::test(start_paused = true)]
async fn nobody_is_asked_twice_without_a_budget_or_another_server() {
    let visits = Visits::default();
    let calls = CallSettings { retry_budget: 0, ..hedging_after(50 * MS) };
    assert_eq!(raced(&replica(calls).await, &visits, [200 * MS, MS]).await.unwrap(), "replica");
    assert_eq!(visits.so_far(), ["replica"]);

    let (visits, router) = (Visits::default(), router(hedging_after(50 * MS)).await);
    assert_eq!(raced(&router.alias("primary").unwrap(), &visits, [200 * MS, MS]).await.unwrap(), "primary");
    assert_eq!(visits.so_far(), ["primary"]);
}

#[tokio::test(start_paused = true)]
async fn hedges_are_a_share_of_the_calls_too() {
    let replica = replica(hedging_after(50 * MS)).await;
    let mut asked = 0;
    for _ in 0..200 {
        let visits = Visits::default();
        raced(&replica, &visits, [60 * MS, 60 * MS]).await.unwrap();
        asked += visits.so_far().len() - 1;
    }
    assert!((38..=44).contains(&asked), "{asked} of 200");
}

#[tokio::test(start_paused = true)]
async fn while_one_attempt_still_runs_the_other_may_fail() {
    let (replica, visits) = (replica(hedging_after(50 * MS)).await, Visits::default());
    let read = replica.read(|lease| {
        let first = visits.note(&lease) == 1;
        async move {
            tokio::time::sleep(if first { 60 * MS } else { 5 * MS }).await;
            if first { Ok(lease.server().to_string()) } else { Err(lost()) }
        }
    });
    assert_eq!(read.await.unwrap(), "replica");
    assert_eq!(visits.so_far(), ["replica", "primary"]);
}

#[tokio::test(start_paused = true)]
async fn a_hedged_read_that_fails_everywhere_tells_both_attempts() {
    let calls = CallSettings { call_timeout: 80 * MS, ..hedging_after(50 * MS) };
    let replica = replica(calls).await;
    let read = replica.read(|lease| async move {
        let _held = lease;
        pending::<Result<(), io::Error>>().await
    });
    let error = read.await.unwrap_err();
    let servers: Vec<_> = error.attempts().iter().map(|attempt| attempt.server().as_str()).collect();
    assert_eq!((error.is_late(), servers), (true, vec!["replica", "primary"]), "{error}");
    assert_eq!(error.attempts()[1].work(), 30 * MS);
    assert_eq!((own(&replica).size, leases_out(&replica)), (0, 0));
}

#[tokio::test(start_paused = true)]
async fn a_hedged_read_that_is_dropped_leaves_nothing_behind() {
    let alias = replica(hedging_after(50 * MS)).await;
    let read = alias.read(|lease| async move {
        let _held = lease;
        pending::<Result<(), io::Error>>().await
    });
    dropped_after(&alias, 70 * MS, read).await;
}

#[tokio::test(start_paused = true)]
async fn what_is_slow_is_learnt_from_the_reads_before() {
    let calls = CallSettings { hedge_after: Hedge::P95, ..CallSettings::default() };
    let replica = replica(calls).await;
    for _ in 0..64 {
        let visits = Visits::default();
        raced(&replica, &visits, [10 * MS, MS]).await.unwrap();
        assert_eq!(visits.so_far().len(), 1, "too little is known yet");
    }
    let (visits, begun) = (Visits::default(), clock::now());
    assert_eq!(raced(&replica, &visits, [5000 * MS, MS]).await.unwrap(), "primary");
    let took = clock::now() - begun;
    assert!((10 * MS..=14 * MS).contains(&took), "{took:?}");
}

/// The alias of a replica with room for one read elsewhere, where nobody may wait.
async fn with_one_place_elsewhere(max_waiting: usize) -> Alias<FakePool> {
    let pool = PoolSettings { max_size: 2, detour_size: 1, min_idle: 0, max_waiting, ..PoolSettings::default() };
    let config = config(hedging_after(50 * MS)).pool_of("replica", pool).build().unwrap();
    let router = Router::start_over(streams(), config, |spec| Ok(FakePool::new(spec.max_size))).await.unwrap();
    router.alias("replica").unwrap()
}

#[tokio::test(start_paused = true)]
async fn a_second_attempt_that_was_refused_is_not_paid_for_again_and_again() {
    let replica = with_one_place_elsewhere(0).await;
    let _full = replica.line.route.failover()[0].pool.acquire().await.unwrap();
    let visits = Visits::default();
    assert_eq!(raced(&replica, &visits, [2000 * MS, MS]).await.unwrap(), "replica");
    let left = (0..10).filter(|_| replica.line.budget.withdraw()).count();
    assert!(left >= 3, "{left} of a reserve of four");
}

#[tokio::test(start_paused = true)]
async fn a_read_goes_on_when_its_first_attempt_fails_and_its_second_gets_no_connection() {
    let replica = with_one_place_elsewhere(10).await;
    let elsewhere = &replica.line.route.failover()[0];
    let _full = elsewhere.pool.acquire().await.unwrap();
    let visits = Visits::default();
    let read = replica.read(|lease| {
        let first = visits.note(&lease) == 1;
        async move {
            tokio::time::sleep(100 * MS).await;
            if first { Err(lost()) } else { Ok(lease.server().to_string()) }
        }
    });
    let goes = async {
        tokio::time::sleep(150 * MS).await;
        let down = Belief::new(State::Down, elsewhere.server.cell.belief().generation().next());
        elsewhere.server.publish(down);
    };
    let (answer, ()) = tokio::join!(read, goes);
    assert_eq!(answer.unwrap(), "replica");
    assert_eq!(visits.so_far(), ["replica", "replica"]);
}

#[tokio::test(start_paused = true)]
async fn to_ask_a_second_server_takes_no_place_on_trial() {
    let replica = replica(hedging_after(50 * MS)).await;
    let own = &replica.line.route.own()[0].server;
    own.publish(own.cell.belief().behind());
    own.cell.offer_trial();
    let trail = Trail::begin(&replica.line, &replica.router);
    let second = trail.beside(None).expect("there are two servers").await.unwrap();
    assert_eq!(second.server().as_str(), "replica", "beside the one that is asked first");
    assert!(own.cell.take_trial(), "it is there for a request that is sent there");
}
