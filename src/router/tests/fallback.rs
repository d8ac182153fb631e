//! What is a read answered with when no server answers it? In virtual time, over pools without a network.

use std::{
    convert::Infallible,
    io,
    sync::atomic::{AtomicUsize, Ordering},
    time::Duration,
};

use super::{
    super::{Alias, Error, Fallback, Router, Served, fake::FakePool},
    reads::{config, router},
};
use crate::{
    config::{CallSettings, Config},
    pool::Backend,
};

const MINUTE: Duration = Duration::from_secs(60);

async fn replica() -> (Router<FakePool>, Alias<FakePool>) {
    let router = router(CallSettings { retry_budget: 0, ..CallSettings::default() }).await;
    let replica = router.alias("replica").unwrap();
    (router, replica)
}

fn last_good(key: &str) -> Fallback<i32> {
    Fallback::last_good(key, 5 * MINUTE)
}

/// A read that is answered so.
async fn answered(alias: &Alias<FakePool>, fallback: Fallback<i32>, answer: i32) -> Result<Served<i32>, Error> {
    alias.read_or(fallback, |_| async move { Ok::<_, Infallible>(answer) }).await
}

/// A read that loses its session.
async fn lost<T: Clone + Send + Sync + 'static>(
    alias: &Alias<FakePool>,
    fallback: Fallback<T>,
) -> Result<Served<T>, Error> {
    alias.read_or(fallback, |_| async { Err::<T, _>(io::Error::from(io::ErrorKind::ConnectionReset)) }).await
}

#[tokio::test(start_paused = true)]
async fn a_read_that_fails_is_answered_with_the_last_good_value_until_that_is_too_old() {
    let (_router, replica) = replica().await;
    assert_eq!(answered(&replica, last_good("orders").or(0), 7).await.unwrap(), Served::Live(7));
    tokio::time::sleep(5 * MINUTE).await;
    let stale = lost(&replica, last_good("orders").or(0)).await.unwrap();
    assert_eq!(stale, Served::Stale { value: 7, age: 5 * MINUTE });
    assert_eq!((stale.is_live(), stale.into_inner()), (false, 7));
    tokio::time::sleep(Duration::from_millis(1)).await;
    assert_eq!(lost(&replica, last_good("orders").or(0)).await.unwrap(), Served::Default(0));
    assert_eq!(lost(&replica, Fallback::to(1)).await.unwrap(), Served::Default(1));
    let error = lost(&replica, last_good("orders")).await.unwrap_err();
    assert_eq!(error.attempts().len(), 1, "{error}");
}

#[tokio::test(start_paused = true)]
async fn a_value_is_given_under_its_own_alias_key_and_type_alone() {
    let (router, replica) = replica().await;
    answered(&replica, last_good("orders"), 7).await.unwrap();
    assert!(lost(&replica, last_good("users")).await.is_err());
    assert!(lost::<u8>(&replica, Fallback::last_good("orders", MINUTE)).await.is_err());
    assert!(lost(&router.alias("primary").unwrap(), last_good("orders")).await.is_err());
    assert!(lost(&replica, last_good("orders")).await.is_ok());
}

#[tokio::test(start_paused = true)]
async fn an_error_of_the_works_own_is_no_reason_for_an_older_value() {
    let (_router, replica) = replica().await;
    answered(&replica, last_good("orders"), 7).await.unwrap();
    let own = replica.read_or(last_good("orders").or(0), |_| async { Err::<i32, _>("no such table") }).await;
    assert_eq!(own.unwrap_err().into_source().unwrap().to_string(), "no such table");
}

#[tokio::test(start_paused = true)]
async fn a_read_that_is_late_or_finds_no_connection_falls_back_too() {
    let (router, replica) = replica().await;
    let hangs = || replica.read_or(Fallback::to(1), |_| std::future::pending::<Result<i32, Infallible>>());
    let late = router.with_deadline(MINUTE / 60, hangs()).await.unwrap();
    assert_eq!(late, Served::Default(1));
    let _all = [replica.get().await.unwrap(), replica.get().await.unwrap()];
    assert!(replica.get().await.unwrap_err().is_overloaded());
    assert_eq!(answered(&replica, Fallback::to(2), 0).await.unwrap(), Served::Default(2));
}

#[tokio::test(start_paused = true)]
async fn logins_and_settings_that_are_wrong_are_covered_up_by_no_old_value_unless_a_server_is_out_besides() {
    let (_router, replica) = replica().await;
    answered(&replica, last_good("orders"), 7).await.unwrap();
    let (own, target) = (&replica.line.route.own()[0], &replica.line.route.failover()[0]);
    // As a setting does that the driver refuses.
    [own, target].iter().for_each(|stop| stop.pool.refuses(io::ErrorKind::InvalidInput));
    own.pool.evict();
    let error = answered(&replica, last_good("orders").or(0), 7).await.unwrap_err();
    assert!(error.is_unavailable(), "{error}");
    own.pool.refuses(io::ErrorKind::ConnectionRefused);
    let stale = answered(&replica, last_good("orders").or(0), 8).await.unwrap();
    assert_eq!(stale, Served::Stale { value: 7, age: Duration::ZERO });
}

#[tokio::test(start_paused = true)]
async fn the_end_of_the_router_is_told_and_covered_up_by_no_old_value() {
    let (router, replica) = replica().await;
    answered(&replica, last_good("orders"), 7).await.unwrap();
    router.shutdown().await;
    assert!(lost(&replica, last_good("orders").or(0)).await.unwrap_err().is_closed());
}

#[tokio::test(start_paused = true)]
async fn values_survive_a_reload_and_are_no_more_than_the_configuration_allows() {
    let (router, replica) = replica().await;
    let calls = || CallSettings { retry_budget: 0, ..CallSettings::default() };
    let sized = |size| -> Config { config(calls()).cache_size(size).build().unwrap() };
    answered(&replica, last_good("orders"), 7).await.unwrap();
    router.reload(config(calls()).build().unwrap()).await.unwrap();
    assert!(lost(&replica, last_good("orders")).await.is_ok());
    router.reload(sized(0)).await.unwrap();
    answered(&replica, last_good("orders"), 7).await.unwrap();
    assert!(lost(&replica, last_good("orders")).await.is_err());
    router.reload(sized(3)).await.unwrap();
    for key in 0..100 {
        answered(&replica, last_good(&key.to_string()), key).await.unwrap();
    }
    router.inner.last_good.load().settle();
    let mut kept = Vec::new();
    for key in 0..100 {
        kept.extend(lost(&replica, last_good(&key.to_string())).await.map(Served::into_inner));
    }
    assert_eq!(kept, [97, 98, 99]);
}

#[tokio::test(start_paused = true)]
async fn a_read_with_a_fallback_can_be_spawned_with_what_it_borrows_inside() {
    let (_router, replica) = replica().await;
    let reads = AtomicUsize::new(0);
    let read = tokio::spawn(async move {
        let key = format!("orders of {}", 7);
        let served = replica
            .read_or(Fallback::last_good(&*key, MINUTE).or(Vec::new()), |lease| {
                reads.fetch_add(1, Ordering::Relaxed);
                let key = &key;
                async move { Ok::<_, Infallible>(vec![key.len(), lease.number as usize]) }
            })
            .await;
        (served.unwrap(), reads.into_inner())
    });
    assert_eq!(read.await.unwrap(), (Served::Live(vec![11, 0]), 1));
}
