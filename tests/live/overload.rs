//! What load must not do: flood the primary with detours, the servers with pings, or look like an outage (F57, F58, F65).

use std::{
    sync::{
        Arc, Barrier,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use pgdetour::{
    Router,
    config::{Pings, PoolSettings},
    pool::{Bb8Postgres, DeadpoolPostgres},
    testkit::Proxy,
};
use tokio::{
    sync::{mpsc, watch},
    task::JoinSet,
};

use crate::harness::{MS, Pair, SOON, Story, Subject, Tested, now, number, pinged, quick, soon};

#[tokio::test(flavor = "multi_thread")]
async fn five_hundred_readers_on_a_detour_hold_no_more_than_detour_size_connections_of_the_primary() -> Tested {
    let pair = Pair::start().await?;
    let pool = PoolSettings { detour_size: 8, acquire_timeout: Duration::from_secs(20), ..PoolSettings::default() };
    let router = Router::<DeadpoolPostgres>::start(pair.config().pool(pool).build()?).await?;
    let (replica, mut story) = (router.alias("replica")?, Story::of(&router));
    pair.replica().kill().await?;
    story.until("replica", "outage_opened").await?;
    let (gate, opened) = watch::channel(false);
    let (arrived, mut arrivals) = mpsc::unbounded_channel();
    let mut readers = JoinSet::new();
    for _ in 0..500 {
        let (replica, arrived, mut opened) = (replica.clone(), arrived.clone(), opened.clone());
        readers.spawn(async move {
            let lease = replica.get().await.map_err(|error| error.to_string())?;
            lease.query_one("SELECT 'detoured'", &[]).await.map_err(|error| error.to_string())?;
            let _ = arrived.send(());
            let _ = opened.wait_for(|open| *open).await;
            Ok::<_, String>(lease.is_detour())
        });
    }
    for _ in 0..8 {
        soon("a reader with a connection", arrivals.recv()).await?;
    }
    // Each of them holds on to its connection, and 492 wait for one.
    let observer = pair.primary().connect().await?;
    let counted = "SELECT count(*) FROM pg_stat_activity WHERE query LIKE '%detoured%' AND pid <> pg_backend_pid()";
    for _ in 0..20 {
        assert_eq!(observer.query_one(counted, &[]).await?.get::<_, i64>(0), 8);
    }
    assert!(arrivals.try_recv().is_err(), "a ninth reader has a connection");
    gate.send_replace(true);
    while let Some(read) = soon("a read", readers.join_next()).await? {
        assert!(read??);
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_statement_given_up_on_a_detour_keeps_its_place_until_the_server_has_ended_its_session() -> Tested {
    statements_given_up_keep_their_place::<DeadpoolPostgres>().await?;
    statements_given_up_keep_their_place::<Bb8Postgres>().await
}

async fn statements_given_up_keep_their_place<B: Subject>() -> Tested {
    let pair = Pair::start().await?;
    let pool = PoolSettings { detour_size: 1, acquire_timeout: SOON, ..PoolSettings::default() };
    let router = Router::<B>::start(pair.config().pool(pool).build()?).await?;
    let (replica, mut story) = (router.alias("replica")?, Story::of(&router));
    pair.replica().kill().await?;
    story.until("replica", "outage_opened").await?;
    let observer = pair.primary().connect().await?;
    let counted = "SELECT count(*) FROM pg_stat_activity WHERE query LIKE '%detoured%' AND pid <> pg_backend_pid()";
    for statement in ["SELECT 1::int8, 'detoured', pg_sleep(1)", "BEGIN /* detoured */"] {
        let lease = soon("a lease", replica.get()).await??;
        assert!(lease.is_detour());
        // Who asked does not wait for the answer, and nobody ends the transaction.
        let asked = B::client(&lease).simple_query(statement);
        let _ = tokio::time::timeout(200 * MS, asked).await;
        drop(lease);
        let next = soon("the next lease", replica.get()).await??;
        number(&next, "SELECT 1::int8 /* detoured */").await?;
        assert_eq!(observer.query_one(counted, &[]).await?.get::<_, i64>(0), 1, "{statement}");
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn ten_thousand_tasks_that_report_errors_cause_no_more_pings_than_the_error_frequency_allows() -> Tested {
    let pair = Pair::start().await?;
    // The proxy is the network: it has a runtime of its own, which the storm does not slow.
    let aside = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
    let upstream = (pair.replica().host().to_owned(), pair.replica().port());
    let proxy = aside.spawn(Proxy::start(upstream)).await??;
    let way = pair.replica().url_at("127.0.0.1", proxy.addr().port());
    let every = 500 * MS;
    let pings = Pings {
        monitoring_ping_frequency: Duration::from_secs(600),
        outage_ping_frequency: Duration::from_secs(1),
        error_ping_frequency: every,
        ping_timeout: Duration::from_secs(3),
        ..quick()
    };
    let router = Router::<DeadpoolPostgres>::start(pair.config_to(&way).pings(pings).build()?).await?;
    let (replica, mut story) = (router.alias("replica")?, Story::of(&router));
    let (before, start) = (proxy.accepted(), tokio::time::Instant::from_std(now()));
    let storm = Arc::new(AtomicBool::new(true));
    let mut tasks = JoinSet::new();
    for _ in 0..10_000 {
        let (replica, storm) = (replica.clone(), Arc::clone(&storm));
        tasks.spawn(async move {
            let refused = std::io::Error::from(std::io::ErrorKind::ConnectionRefused);
            while storm.load(Ordering::Relaxed) {
                replica.report(&refused);
                tokio::task::yield_now().await;
            }
        });
    }
    // Each ping that an error asks for makes a connection.
    let four = async {
        while proxy.accepted() < before + 4 {
            tokio::task::yield_now().await;
        }
    };
    soon("four pings", four).await?;
    storm.store(false, Ordering::Relaxed);
    let (pings, took) = (proxy.accepted() - before, start.elapsed());
    while tasks.join_next().await.is_some() {}
    // The first may come at once, and by the time we look another may have gone out.
    assert!(took >= every * u32::try_from(pings - 2)?, "{pings} pings in {took:?}");
    assert_eq!(story.so_far("replica").await, [""; 0]);
    aside.shutdown_background();
    Ok(())
}

#[test]
fn an_application_that_blocks_all_its_workers_opens_no_outage() -> Tested {
    let workers = 2;
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(workers).enable_all().build()?;
    let (pair, router, mut story) = runtime.block_on(async {
        let pair = Pair::start().await?;
        let pings = Pings { error_ping_frequency: 100 * MS, slow_after: 100 * MS, ..quick() };
        let router = Router::<DeadpoolPostgres>::start(pair.config().pings(pings).build()?).await?;
        let story = Story::of(&router);
        Ok::<_, Box<dyn std::error::Error>>((pair, router, story))
    })?;
    let replica = router.alias("replica")?;
    let lease = runtime.block_on(replica.get())?;
    let busy = Arc::new(Barrier::new(workers + 1));
    // The fault itself: workers that wait for an answer, for five seconds, without letting their other tasks go on.
    let blocked: Vec<_> = (0..workers)
        .map(|_| {
            let (busy, (silent, answer)) = (Arc::clone(&busy), std::sync::mpsc::channel::<()>());
            runtime.spawn(async move {
                busy.wait();
                let _ = answer.recv_timeout(Duration::from_secs(5));
                drop(silent);
            })
        })
        .collect();
    busy.wait();
    let told = runtime.block_on(async {
        for worker in blocked {
            worker.await?;
        }
        drop(lease);
        pinged(&router, &replica).await?;
        Ok::<_, Box<dyn std::error::Error>>([story.so_far("primary").await, story.so_far("replica").await])
    })?;
    assert_eq!(told, [[""; 0]; 2]);
    drop((replica, router, story));
    runtime.block_on(async move { drop(pair) });
    Ok(())
}

/// Waits until no more clients than these have sessions on a primary whose detour is narrowed to one of eight connections, of which
/// nobody uses any. A connection that a place had opened would stay; the session of a ping goes.
async fn a_narrow_detour_has_sessions_at_most<B: Subject>(most: i64) -> Tested {
    let pair = Pair::start().await?;
    let too_slow = Some(Duration::from_nanos(1));
    let pool = PoolSettings { detour_size: 8, min_idle: 2, detour_latency_limit: too_slow, ..PoolSettings::default() };
    let router = Router::<B>::start(pair.config().pool(pool).build()?).await?;
    let (replica, mut story) = (router.alias("replica")?, Story::of(&router));
    pair.replica().kill().await?;
    story.until("primary", "detour_narrowed").await?;
    let narrowed = async {
        let usable = || replica.explain().steps.iter().find_map(|step| step.narrowed).map(|narrowed| narrowed.usable);
        while usable() != Some(1) {
            tokio::task::yield_now().await;
        }
    };
    soon("a detour of one", narrowed).await?;
    // The place that is left is a request's.
    number(&soon("that place", replica.get()).await??, "SELECT 1::int8").await?;
    let sql = "SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'client backend' AND pid <> pg_backend_pid()";
    let client = pair.primary().connect().await?;
    let few = async {
        while client.query_one(sql, &[]).await?.get::<_, i64>(0) > most {}
        Ok(())
    };
    soon("few sessions", few).await?
}

#[tokio::test(flavor = "multi_thread")]
async fn a_detour_that_is_narrowed_opens_no_connections_for_the_places_it_holds_back() -> Tested {
    // The monitor's, one to ask over, and those that were kept open before.
    a_narrow_detour_has_sessions_at_most::<DeadpoolPostgres>(4).await?;
    a_narrow_detour_has_sessions_at_most::<Bb8Postgres>(4).await
}
