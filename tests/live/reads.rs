//! `Alias::read` on real servers: whatever happens to a replica under load, no read fails (F01, F02, F05, F06, F08, F42, F43,
//! F54, F61). What happens to the way there is in `connection`.

use std::{
    error::Error,
    sync::atomic::{AtomicUsize, Ordering},
};

use pgdetour::{
    Alias, Lease, Router,
    config::{CallSettings, Hedge, Pings, PoolSettings},
    policy::Outcome,
    pool::{Bb8Postgres, DeadpoolPostgres},
    testkit::{Server, Stop},
};

use crate::harness::{Load, MS, Pair, Story, Subject, Tested, number, pid, quick, soon};

/// Something that is done to the replica under load, and how it is undone.
#[derive(Clone, Copy)]
enum Blow {
    Kill,
    Stop(Stop),
    Freeze,
}

/// 200 reads a second before, during and after: none fails, and in the end all are answered at home.
async fn no_read_fails<B: Subject>(blow: Blow, reads_meanwhile: usize) -> Tested {
    let pair = Pair::start().await?;
    let router = pair.router::<B>().await?;
    let (alias, mut story) = (router.alias("replica")?, Story::of(&router));
    let mut load = Load::reading(&alias);
    load.until_at_home(20).await?;
    let replica = pair.replica();
    match blow {
        Blow::Kill => replica.kill().await?,
        Blow::Stop(how) => replica.stop(how).await?,
        Blow::Freeze => replica.freeze().await?,
    }
    story.until("replica", "outage_opened").await?;
    load.until_more(reads_meanwhile).await?;
    match blow {
        Blow::Freeze => replica.thaw().await?,
        Blow::Kill | Blow::Stop(_) => replica.start().await?,
    }
    story.until("replica", "outage_closed").await?;
    let report = load.end_at_home().await?;
    assert!(report.detoured >= reads_meanwhile / 2, "{report:?}");
    router.shutdown().await;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn no_read_fails_when_its_replica_is_killed() -> Tested {
    no_read_fails::<DeadpoolPostgres>(Blow::Kill, 100).await
}

#[tokio::test(flavor = "multi_thread")]
async fn with_bb8_too_no_read_fails_when_its_replica_is_killed() -> Tested {
    no_read_fails::<Bb8Postgres>(Blow::Kill, 100).await
}

#[tokio::test(flavor = "multi_thread")]
async fn no_read_fails_when_its_replica_is_stopped_fast() -> Tested {
    no_read_fails::<DeadpoolPostgres>(Blow::Stop(Stop::Fast), 100).await
}

#[tokio::test(flavor = "multi_thread")]
async fn no_read_fails_when_its_replica_is_stopped_at_once() -> Tested {
    no_read_fails::<DeadpoolPostgres>(Blow::Stop(Stop::Immediate), 100).await
}

#[tokio::test(flavor = "multi_thread")]
async fn no_read_fails_while_its_replica_is_frozen_for_five_seconds() -> Tested {
    no_read_fails::<DeadpoolPostgres>(Blow::Freeze, 800).await
}

#[tokio::test(flavor = "multi_thread")]
async fn no_read_fails_while_every_session_is_terminated_each_second() -> Tested {
    let pair = Pair::start().await?;
    let router = pair.router::<DeadpoolPostgres>().await?;
    let (alias, mut story) = (router.alias("replica")?, Story::of(&router));
    let mut load = Load::reading(&alias);
    load.until_at_home(20).await?;
    for _ in 0..5 {
        assert!(pair.replica().terminate_backends().await? > 0, "the pool and the monitor have sessions");
        load.until_more(200).await?;
    }
    load.end_at_home().await?;
    assert_eq!(story.so_far("replica").await, [""; 0]);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn with_hedges_reads_go_on_before_anybody_knows_that_their_replica_is_frozen() -> Tested {
    let pair = Pair::start().await?;
    // Nothing is found out here.
    let pings = Pings { ping_timeout: 60_000 * MS, monitoring_ping_frequency: 60_000 * MS, ..quick() };
    let calls = CallSettings { hedge_after: Hedge::After(50 * MS), retry_budget: 100, ..CallSettings::default() };
    let router: Router = Router::start(pair.config().pings(pings).calls(calls).build()?).await?;
    let (alias, mut story) = (router.alias("replica")?, Story::of(&router));
    let mut load = Load::reading(&alias);
    load.until_at_home(20).await?;
    pair.replica().freeze().await?;
    load.until_more(300).await?;
    pair.replica().thaw().await?;
    load.until_at_home(20).await?;
    let report = load.end().await?;
    assert!(report.failed == 0 && report.detoured >= 200, "{report:?}");
    assert_eq!(story.so_far("replica").await, [""; 0]);
    Ok(())
}

/// A replica that cancels what is in the way of its replay, and a table with rows that a read may see.
async fn conflicting() -> Result<(Pair, Router), Box<dyn Error>> {
    let pair = Pair::with(|cluster| cluster.setting("max_standby_streaming_delay", "0")).await?;
    pair.primary().execute("CREATE TABLE seen AS SELECT generate_series(1, 100)").await?;
    pair.wait_for_replay().await?;
    let router = pair.router().await?;
    Ok((pair, router))
}

/// Reads the table on the replica while the primary truncates it, in the middle of a transaction that sees it.
async fn read_in_conflict(
    pair: &Pair,
    alias: &Alias,
    runs: &AtomicUsize,
    then: &str,
) -> Result<(i64, bool), Box<dyn Error>> {
    let read = alias.read(|lease| async move {
        runs.fetch_add(1, Ordering::Relaxed);
        lease.batch_execute("BEGIN ISOLATION LEVEL REPEATABLE READ").await?;
        let seen = number(&lease, "SELECT count(*) FROM seen").await?;
        if !lease.is_detour() {
            pair.primary().execute("TRUNCATE seen").await?;
            lease.batch_execute(then).await?;
            // At the latest by now the session has heard of it.
            pair.wait_for_replay().await?;
            number(&lease, "SELECT count(*) FROM seen").await?;
        }
        lease.batch_execute("COMMIT").await?;
        Ok::<_, Box<dyn Error + Send + Sync>>((seen, lease.is_detour()))
    });
    Ok(soon("the read", read).await??)
}

async fn a_conflict_goes_elsewhere(then: &str) -> Tested {
    let (pair, router) = conflicting().await?;
    let (alias, mut story, runs) = (router.alias("replica")?, Story::of(&router), AtomicUsize::new(0));
    // On the primary the whole transaction is run again.
    assert_eq!(read_in_conflict(&pair, &alias, &runs, then).await?, (0, true));
    assert_eq!(runs.into_inner(), 2);
    let home = alias.read(|lease| async move { Ok::<_, tokio_postgres::Error>(lease.is_detour()) }).await?;
    assert!(!home, "a conflict speaks against nobody");
    assert_eq!(story.so_far("replica").await, [""; 0]);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_read_that_conflicts_with_replay_is_answered_elsewhere_and_opens_no_outage() -> Tested {
    a_conflict_goes_elsewhere("SELECT pg_sleep(20)").await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_transaction_that_conflicts_while_it_is_idle_is_run_again_as_a_whole() -> Tested {
    a_conflict_goes_elsewhere("").await
}

/// A pair whose aliases have one connection each and such settings for calls.
async fn narrow<B: Subject>(calls: CallSettings) -> Result<(Pair, Router<B>), Box<dyn Error>> {
    let pair = Pair::start().await?;
    let one = PoolSettings { max_size: 1, ..PoolSettings::default() };
    let router = Router::start(pair.config().pool(one).calls(calls).build()?).await?;
    Ok((pair, router))
}

/// Waits until nothing sleeps there any more.
async fn nobody_sleeps(server: &Server) -> Tested {
    let client = server.connect().await?;
    let sleepers = "SELECT count(*) FROM pg_stat_activity WHERE wait_event = 'PgSleep'";
    let awake = async {
        while client.query_one(sleepers, &[]).await?.get::<_, i64>(0) > 0 {
            tokio::task::yield_now().await;
        }
        Ok::<_, tokio_postgres::Error>(())
    };
    Ok(soon("the end of the statement", awake).await??)
}

async fn a_late_read_is_cancelled<B: Subject>() -> Tested {
    let (pair, router) = narrow::<B>(CallSettings { call_timeout: 300 * MS, ..CallSettings::default() }).await?;
    let alias = router.alias("replica")?;
    let first = alias.read(async |lease: Lease<B>| pid(&lease).await).await?;
    let read = alias.read(async |lease: Lease<B>| number(&lease, "SELECT 1::int8 FROM pg_sleep(600)").await);
    let error = read.await.expect_err("it sleeps for longer");
    assert!(error.is_late() && error.outcome() == Outcome::Unknown && error.is_safe_to_retry(), "{error}");
    nobody_sleeps(pair.replica()).await?;
    let next = alias.read(async |lease: Lease<B>| pid(&lease).await).await?;
    assert_ne!(next, first, "its connection was lent again");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_read_that_is_late_is_cancelled_at_the_server_and_its_connection_closed() -> Tested {
    a_late_read_is_cancelled::<DeadpoolPostgres>().await
}

#[tokio::test(flavor = "multi_thread")]
async fn with_bb8_too_a_late_read_is_cancelled() -> Tested {
    a_late_read_is_cancelled::<Bb8Postgres>().await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_read_that_is_dropped_is_cancelled_at_the_server() -> Tested {
    let (pair, router) = narrow::<DeadpoolPostgres>(CallSettings::default()).await?;
    let alias = router.alias("replica")?;
    let read = alias.read(async |lease: Lease| number(&lease, "SELECT 1::int8 FROM pg_sleep(600)").await);
    assert!(tokio::time::timeout(100 * MS, read).await.is_err());
    nobody_sleeps(pair.replica()).await?;
    assert_eq!(soon("a read", alias.read(async |lease: Lease| number(&lease, "SELECT 7::int8").await)).await??, 7);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn the_server_is_told_of_the_deadline_and_the_session_does_not_keep_it() -> Tested {
    let calls = CallSettings { pass_deadline: true, ..CallSettings::default() };
    let (_pair, router) = narrow::<DeadpoolPostgres>(calls).await?;
    let alias = router.alias("replica")?;
    let setting = "SELECT setting::int8 FROM pg_settings WHERE name = 'statement_timeout'";
    let told = alias.read(async |lease: Lease| {
        Ok::<_, tokio_postgres::Error>((number(&lease, setting).await?, pid(&lease).await?))
    });
    let (limit, session) = router.with_deadline(2000 * MS, told).await?;
    assert!(limit > 1000 && limit <= 2000, "{limit} ms");
    let lease = alias.get().await?;
    assert_eq!((number(&lease, setting).await?, pid(&lease).await?), (0, session));
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_read_has_done_before_its_error_is_not_called_rolled_back() -> Tested {
    let (_pair, router) = narrow::<DeadpoolPostgres>(CallSettings::default()).await?;
    let alias = router.alias("replica")?;
    // As many statements as the server says failed: one.
    let committed = "SET application_name = 'done'; COMMIT; SELECT 1 / 0";
    let read = alias.read(async |lease: Lease| lease.batch_execute(committed).await);
    assert_eq!(read.await.unwrap_err().outcome(), Outcome::Unknown);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn an_error_of_the_statements_own_is_not_tried_again_and_repeats_no_value() -> Tested {
    let (_pair, router) = narrow::<DeadpoolPostgres>(CallSettings::default()).await?;
    let alias = router.alias("replica")?;
    let read = alias
        .read(async |lease: Lease| number(&lease, "SELECT ('hunter2' || relname)::int8 FROM pg_class LIMIT 1").await);
    let error = read.await.unwrap_err();
    assert_eq!((error.attempts().len(), error.outcome()), (1, Outcome::Unknown));
    assert!(error.is_safe_to_retry(), "a read may be made again, whatever became of it");
    let told = error.to_string();
    assert!(
        told.contains("ERROR 22P02") && !told.contains("hunter2") && !format!("{error:?}").contains("hunter2"),
        "{told}"
    );
    let own = error.into_source().and_then(|source| source.downcast::<tokio_postgres::Error>().ok());
    assert_eq!(own.and_then(|own| own.code().cloned()).map(|code| code.code().to_owned()).as_deref(), Some("22P02"));

    let timed_out =
        alias.read(async |lease: Lease| lease.batch_execute("SET statement_timeout = 50; SELECT pg_sleep(600)").await);
    let error = timed_out.await.unwrap_err();
    assert!(error.attempts().len() == 1 && error.to_string().contains("ERROR 57014"), "{error}");
    Ok(())
}
