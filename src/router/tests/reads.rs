//! Where does a read go, how often, and what is left of it? In virtual time, over pools without a network.

use std::{future::pending, io, sync::Mutex, time::Duration};

use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::super::{Alias, Error, Lease, Router, fake::FakePool};
use crate::{
    clock,
    config::{CallSettings, Config, ConfigBuilder, PoolSettings, Role},
    policy::Outcome,
    pool::{Backend, PoolStatus, Stream, Streams},
};

pub(super) const MS: Duration = Duration::from_millis(1);

/// Servers that answer and have no room for a ping: nothing is found out about them.
pub(super) fn streams() -> Streams {
    Streams::new(|_| Box::pin(full()))
}

/// A stream to one of them.
pub(super) async fn full() -> Stream {
    let (ours, mut theirs) = tokio::io::duplex(1024);
    tokio::spawn(async move {
        let length = theirs.read_u32().await.unwrap_or(4);
        let _ = theirs.read_exact(&mut vec![0; length as usize - 4]).await;
        let words = b"SFATAL\0VFATAL\0C53300\0Mtoo many clients already\0\0";
        let length = u32::try_from(words.len() + 4).unwrap();
        let _ = theirs.write_all(&[b"E", &length.to_be_bytes()[..], words].concat()).await;
    });
    Stream::new(ours)
}

pub(super) fn config(calls: CallSettings) -> ConfigBuilder {
    let url = |host: &str| format!("postgres://app@{host}/app?sslmode=disable");
    Config::builder()
        .pool(PoolSettings { max_size: 2, detour_size: 2, min_idle: 0, ..PoolSettings::default() })
        .calls(calls)
        .server("primary", Role::Primary, url("db1"))
        .server("replica", Role::Replica, url("db2"))
}

pub(super) async fn router(calls: CallSettings) -> Router<FakePool> {
    let config = config(calls).build();
    Router::start_over(streams(), config.unwrap(), |spec| Ok(FakePool::new(spec.max_size))).await.unwrap()
}

pub(super) async fn replica(calls: CallSettings) -> Alias<FakePool> {
    router(calls).await.alias("replica").unwrap()
}

/// The pool of the alias's own server.
pub(super) fn own(alias: &Alias<FakePool>) -> PoolStatus {
    alias.line.route.own()[0].pool.status()
}

pub(super) fn leases_out(alias: &Alias<FakePool>) -> u32 {
    let stops = alias.line.route.own().iter().chain(alias.line.route.failover());
    stops.map(|stop| stop.server.leases().out).sum()
}

/// What a session says that was lost.
pub(super) fn lost() -> io::Error {
    io::ErrorKind::ConnectionReset.into()
}

/// Where the attempts of a call went.
#[derive(Default)]
pub(super) struct Visits(Mutex<Vec<String>>);

impl Visits {
    pub(super) fn note(&self, lease: &Lease<FakePool>) -> usize {
        let mut visits = self.0.lock().unwrap();
        visits.push(lease.server().to_string());
        visits.len()
    }

    pub(super) fn so_far(&self) -> Vec<String> {
        self.0.lock().unwrap().clone()
    }
}

/// A read that is lost so often and then answered.
async fn lost_times(alias: &Alias<FakePool>, times: usize, visits: &Visits) -> Result<usize, Error> {
    alias
        .read(|lease| {
            let visit = visits.note(&lease);
            async move { if visit <= times { Err(lost()) } else { Ok(visit) } }
        })
        .await
}

#[tokio::test(start_paused = true)]
async fn a_read_that_loses_its_server_is_answered_by_the_next_of_the_plan_at_once() {
    let (replica, visits) = (replica(CallSettings::default()).await, Visits::default());
    let begun = clock::now();
    assert_eq!(lost_times(&replica, 1, &visits).await.unwrap(), 2);
    assert_eq!(visits.so_far(), ["replica", "primary"]);
    assert_eq!(clock::now(), begun, "there is nothing to wait for");
}

#[tokio::test(start_paused = true)]
async fn the_same_server_is_tried_again_when_all_have_failed_and_only_after_a_wait() {
    let (replica, visits) = (replica(CallSettings::default()).await, Visits::default());
    let begun = clock::now();
    lost_times(&replica, 2, &visits).await.unwrap();
    assert_eq!(visits.so_far(), ["replica", "primary", "replica"]);
    let waited = clock::now() - begun;
    assert!(waited > Duration::ZERO && waited < 100 * MS, "{waited:?}");
}

#[tokio::test(start_paused = true)]
async fn an_error_of_the_works_own_is_not_tried_again_and_comes_back_as_it_is() {
    let (replica, visits) = (replica(CallSettings::default()).await, Visits::default());
    let read = replica.read(|lease| {
        visits.note(&lease);
        async move { Err::<(), _>("no such order") }
    });
    let error = read.await.unwrap_err();
    assert_eq!(visits.so_far(), ["replica"]);
    assert_eq!((error.attempts().len(), error.is_late()), (1, false));
    assert_eq!(error.into_source().unwrap().to_string(), "no such order");
}

#[tokio::test(start_paused = true)]
async fn without_a_budget_no_read_is_tried_twice() {
    let replica = replica(CallSettings { retry_budget: 0, ..CallSettings::default() }).await;
    let visits = Visits::default();
    let error = lost_times(&replica, 1, &visits).await.unwrap_err();
    assert_eq!(visits.so_far(), ["replica"]);
    assert!(error.to_string().contains("the retry budget is spent"), "{error}");
    assert!(error.is_safe_to_retry());
}

#[tokio::test(start_paused = true)]
async fn while_everything_fails_retries_are_a_share_of_the_calls() {
    let (replica, visits) = (replica(CallSettings::default()).await, Visits::default());
    for _ in 0..1000 {
        lost_times(&replica, usize::MAX, &visits).await.unwrap_err();
    }
    let retries = visits.so_far().len() - 1000;
    assert!((190..=204).contains(&retries), "{retries} of 1000 calls, at 20 percent and a reserve of four");
}

#[tokio::test(start_paused = true)]
async fn work_that_never_ends_is_dropped_in_time_and_its_connection_is_closed() {
    let replica = replica(CallSettings { call_timeout: 300 * MS, ..CallSettings::default() }).await;
    let begun = clock::now();
    let read = replica.read(|lease| async move {
        let _held = lease;
        pending::<Result<(), io::Error>>().await
    });
    let error = read.await.unwrap_err();
    let took = clock::now() - begun;
    assert!(error.is_late() && (300 * MS..=320 * MS).contains(&took), "{took:?}");
    assert_eq!((error.outcome(), error.attempts()[0].work()), (Outcome::Unknown, took));
    assert_eq!((own(&replica).size, leases_out(&replica)), (0, 0));
}

#[tokio::test(start_paused = true)]
async fn the_earlier_of_a_deadline_around_it_and_its_own_ends_a_read() {
    let router = router(CallSettings { call_timeout: 300 * MS, ..CallSettings::default() }).await;
    let replica = router.alias("replica").unwrap();
    for (around, expected) in [(100 * MS, 100 * MS), (900 * MS, 300 * MS)] {
        let begun = clock::now();
        let read = replica.read(|lease| async move {
            let _held = lease;
            pending::<Result<(), io::Error>>().await
        });
        assert!(router.with_deadline(around, read).await.unwrap_err().is_late());
        assert!(clock::now() - begun <= expected + 20 * MS);
    }
}

#[tokio::test(start_paused = true)]
async fn the_time_is_one_for_waits_and_attempts() {
    let replica = replica(CallSettings { call_timeout: 300 * MS, ..CallSettings::default() }).await;
    let all = (replica.get().await.unwrap(), replica.get().await.unwrap());
    let begun = clock::now();
    let read = replica.read(|_| async { Ok::<_, io::Error>(()) });
    let error = read.await.unwrap_err();
    assert!(error.is_late() && error.attempts().is_empty() && error.outcome() == Outcome::NotSent);
    assert!(clock::now() - begun <= 320 * MS);

    drop(all);
    let begun = clock::now();
    let slow = replica.read(|lease| async move {
        tokio::time::sleep(200 * MS).await;
        drop(lease);
        Err::<(), _>(lost())
    });
    let error = slow.await.unwrap_err();
    assert!(error.is_late() && error.attempts().len() == 2, "{error}");
    assert!(clock::now() - begun <= 320 * MS);
}

#[tokio::test(start_paused = true)]
async fn a_connection_that_the_work_has_given_back_is_left_alone_by_the_deadline() {
    let replica = replica(CallSettings { call_timeout: 100 * MS, ..CallSettings::default() }).await;
    let read = replica.read(|lease| async move {
        drop(lease);
        pending::<Result<(), io::Error>>().await
    });
    assert!(read.await.unwrap_err().is_late());
    assert_eq!((own(&replica).size, own(&replica).idle), (1, 1));
}

/// Drops the read after this long; what it held is free or closed then.
pub(super) async fn dropped_after(
    alias: &Alias<FakePool>,
    time: Duration,
    read: impl Future<Output = Result<(), Error>>,
) {
    assert!(tokio::time::timeout(time, read).await.is_err(), "it was to be dropped before it ends");
    tokio::task::yield_now().await;
    assert_eq!(leases_out(alias), 0);
    assert!(alias.get().await.is_ok());
}

#[tokio::test(start_paused = true)]
async fn a_read_that_is_dropped_leaves_nothing_behind_wherever_it_is() {
    let alias = replica(CallSettings::default()).await;
    let work = alias.read(|lease| async move {
        let _held = lease;
        pending::<Result<(), io::Error>>().await
    });
    dropped_after(&alias, MS, work).await;

    let wait = alias.read(|lease| async move {
        drop(lease);
        tokio::time::sleep(3 * MS).await;
        Err::<(), _>(lost())
    });
    // Two attempts, and then it waits before it tries the first server again.
    dropped_after(&alias, 6 * MS, wait).await;

    let all = (alias.get().await.unwrap(), alias.get().await.unwrap());
    let read = alias.read(|_| async { Ok::<_, io::Error>(()) });
    assert!(tokio::time::timeout(MS, read).await.is_err());
    assert_eq!(leases_out(&alias), 2);
    drop(all);
    assert_eq!((own(&alias).idle, leases_out(&alias)), (2, 0));
}

#[tokio::test(start_paused = true)]
async fn a_panic_in_the_work_passes_through_and_its_connection_is_closed() {
    let alias = replica(CallSettings::default()).await;
    let panics = tokio::spawn({
        let alias = alias.clone();
        async move {
            let read = alias.read(|lease| async move {
                let _held = lease;
                std::panic::resume_unwind(Box::new("on purpose, and without a word on the terminal"));
                #[expect(unreachable_code, reason = "it says what the work returns")]
                Ok::<(), io::Error>(())
            });
            read.await
        }
    });
    assert!(panics.await.unwrap_err().is_panic());
    assert_eq!((own(&alias).size, leases_out(&alias)), (0, 0));
}

#[tokio::test(start_paused = true)]
async fn in_a_spawned_task_the_work_may_borrow() {
    let alias = replica(CallSettings::default()).await;
    let task = tokio::spawn(async move {
        let (name, mut runs) = (String::from("order 7"), 0);
        let found = alias
            .read(|lease| {
                runs += 1;
                let (name, first) = (&name, runs == 1);
                async move {
                    tokio::task::yield_now().await;
                    if first { Err(lost()) } else { Ok(format!("{name} from {}", lease.server())) }
                }
            })
            .await;
        (found.unwrap(), runs)
    });
    assert_eq!(task.await.unwrap(), ("order 7 from primary".to_owned(), 2));
}

#[tokio::test(start_paused = true)]
async fn a_read_follows_a_reload() {
    let router = router(CallSettings::default()).await;
    let (alias, visits) = (router.alias("replica").unwrap(), Visits::default());
    router.reload((*router.config()).clone()).await.unwrap();
    lost_times(&alias, 1, &visits).await.unwrap();
    assert_eq!(visits.so_far(), ["replica", "primary"]);
    router.shutdown().await;
    assert!(lost_times(&alias, 0, &visits).await.unwrap_err().is_closed());
}
