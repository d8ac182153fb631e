//! Servers that admit nobody new: stopped postmasters, shutdowns that wait, starts that take long, no room left
//! (F03, F07, F10-F13, F51).

use std::{fs::OpenOptions, io::Write as _, path::Path, time::Duration};

use pgdetour::{
    Error, EventKind, Router,
    config::{Pings, PoolSettings},
    health::State,
    pool::DeadpoolPostgres,
    testkit::{Server, Stop},
};

use crate::harness::{Load, Pair, Story, Tested, belief, number, pid, pinged, quick, soon, until};

/// Adds a line to a server's configuration, for its next start.
fn set(server: &Server, line: &str) -> std::io::Result<()> {
    let file = server.data_dir().join("postgresql.conf");
    OpenOptions::new().append(true).open(file)?.write_all(format!("{line}\n").as_bytes())
}

/// The cause of an outage or of a stop of admission.
fn cause(kind: EventKind) -> String {
    match kind {
        EventKind::OutageOpened { cause, .. }
        | EventKind::AdmissionStopped { cause }
        | EventKind::PingInconclusive { cause } => cause.to_string(),
        other => panic!("has no cause: {other:?}"),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stopped_postmaster_stops_admission_and_sessions_go_on_without_an_outage() -> Tested {
    let pair = Pair::start().await?;
    let router = pair.router::<DeadpoolPostgres>().await?;
    let (replica, mut story) = (router.alias("replica")?, Story::of(&router));
    let held = replica.get().await?;
    pair.replica().freeze_postmaster().await?;
    story.until("replica", "admission_stopped").await?;
    assert_eq!(number(&held, "SELECT 1::int8").await?, 1);
    assert!(!belief(&router, "replica").admits());

    // There is no idle session left to lend, and none can be made.
    let other = soon("a connection", replica.get()).await??;
    assert!(other.is_detour());
    let process = pid(&held).await?;
    drop(held);
    // The session is lent again as soon as its task has finished its turn.
    let again = async {
        loop {
            let lease = replica.get().await?;
            if !lease.is_detour() {
                return Ok::<_, Error>(lease);
            }
        }
    };
    assert_eq!(pid(&soon("the session that is left", again).await??).await?, process);

    pair.replica().thaw().await?;
    story.until("replica", "admission_resumed").await?;
    assert!(!soon("a new session", replica.get()).await??.is_detour());
    assert_eq!(story.so_far("replica").await, ["admission_stopped", "admission_resumed"]);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_smart_shutdown_stops_admission_and_sessions_go_on_without_an_outage() -> Tested {
    let pair = Pair::start().await?;
    let router = pair.router::<DeadpoolPostgres>().await?;
    let (replica, mut story) = (router.alias("replica")?, Story::of(&router));
    let held = replica.get().await?;
    let shutdown = pair.replica().stop(Stop::Smart);
    let meanwhile = async {
        let told = cause(story.until("replica", "admission_stopped").await?);
        assert!(told.contains("shutting down"), "{told}");
        assert_eq!(number(&held, "SELECT 1::int8").await?, 1);
        assert!(soon("a connection", replica.get()).await??.is_detour());
        assert_eq!(story.so_far("replica").await, ["admission_stopped"]);
        drop(held);
        // With its last sessions the server ends.
        router.shutdown().await;
        Tested::Ok(())
    };
    let (stopped, meanwhile) = tokio::join!(shutdown, meanwhile);
    meanwhile?;
    Ok(stopped?)
}

/// Starts a server that lets nobody in until `file` is there: the first thing recovery does is to ask this command.
fn hold_recovery(server: &Server, file: &Path) -> std::io::Result<()> {
    let file = file.display();
    set(server, &format!("restore_command = 'while [ ! -e {file} ]; do sleep 0.02; done; false'"))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_replica_that_starts_up_is_down_with_its_word_and_serves_when_it_is_ready() -> Tested {
    let pair = Pair::start().await?;
    let router = pair.router::<DeadpoolPostgres>().await?;
    let (replica, mut story) = (router.alias("replica")?, Story::of(&router));
    pair.replica().stop(Stop::Fast).await?;
    let go = pair.replica().data_dir().join("go");
    hold_recovery(pair.replica(), &go)?;
    let meanwhile = async {
        story.until("replica", "outage_opened").await?;
        said(&router, "the database system is starting up").await?;
        assert!(soon("a connection", replica.get()).await??.is_detour());
        std::fs::write(&go, "")?;
        story.until("replica", "outage_closed").await?;
        assert!(!soon("a connection", replica.get()).await??.is_detour());
        Tested::Ok(())
    };
    let (started, meanwhile) = tokio::join!(pair.replica().start(), meanwhile);
    meanwhile?;
    assert_eq!(story.so_far("replica").await, ["outage_opened", "outage_closed"]);
    Ok(started?)
}

/// Waits until the replica's last ping has failed with these words.
async fn said(router: &Router, words: &str) -> Tested {
    let heard = async {
        loop {
            router.monitor().await;
            tokio::task::yield_now().await;
            let plan = router.explain("replica")?.to_string();
            if plan.contains(words) {
                return Tested::Ok(());
            }
        }
    };
    soon(words, heard).await?
}

#[tokio::test(flavor = "multi_thread")]
async fn a_replica_without_hot_standby_is_down_with_the_detail_that_says_so() -> Tested {
    let pair = Pair::start().await?;
    let router = pair.router::<DeadpoolPostgres>().await?;
    let (replica, mut story) = (router.alias("replica")?, Story::of(&router));
    pair.replica().stop(Stop::Fast).await?;
    set(pair.replica(), "hot_standby = off")?;
    let meanwhile = async {
        story.until("replica", "outage_opened").await?;
        said(&router, "Hot standby mode is disabled").await?;
        assert!(soon("a connection", replica.get()).await??.is_detour());
        Tested::Ok(())
    };
    tokio::select! {
        started = pair.replica().start() => panic!("it never lets anybody in: {started:?}"),
        meanwhile = meanwhile => meanwhile?,
    }
    set(pair.replica(), "hot_standby = on")?;
    pair.replica().restart().await?;
    story.until("replica", "outage_closed").await?;
    assert_eq!(story.so_far("replica").await, ["outage_opened", "outage_closed"]);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_primary_in_crash_recovery_is_retried_until_it_is_back() -> Tested {
    let pair = Pair::start().await?;
    let router = pair.router::<DeadpoolPostgres>().await?;
    let (primary, mut story) = (router.alias("primary")?, Story::of(&router));
    let writer = primary.get().await?;
    writer.batch_execute("CREATE TABLE t AS SELECT generate_series(1, 200000) AS n").await?;
    pair.primary().kill().await?;
    story.until("primary", "outage_opened").await?;
    assert!(primary.get().await.unwrap_err().is_unavailable());
    pair.primary().start().await?;
    story.until("primary", "outage_closed").await?;
    drop(writer);
    let reader = soon("a connection", primary.get()).await??;
    assert_eq!(number(&reader, "SELECT count(*) FROM t").await?, 200_000);
    assert_eq!(story.so_far("replica").await, [""; 0]);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_replica_that_crashes_again_and_again_fails_no_read_and_each_outage_is_told_once() -> Tested {
    let pair = Pair::start().await?;
    let router = pair.router::<DeadpoolPostgres>().await?;
    let (replica, mut story) = (router.alias("replica")?, Story::of(&router));
    let mut load = Load::start(&replica);
    load.until_at_home(20).await?;
    for _ in 0..3 {
        pair.replica().kill().await?;
        story.until("replica", "outage_opened").await?;
        pair.replica().start().await?;
        story.until("replica", "outage_closed").await?;
        load.until_at_home(10).await?;
    }
    let report = load.end().await?;
    assert_eq!(report.failed, 0, "{report:?}");
    assert_eq!(story.so_far("replica").await, ["outage_opened", "outage_closed"].repeat(3));
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_replica_whose_storage_is_gone_stays_down_however_often_it_is_started() -> Tested {
    let pair = Pair::start().await?;
    let router = pair.router::<DeadpoolPostgres>().await?;
    let (replica, mut story) = (router.alias("replica")?, Story::of(&router));
    let mut load = Load::start(&replica);
    load.until_at_home(20).await?;
    pair.replica().kill().await?;
    let (control, away) = (pair.replica().data_dir().join("global"), pair.replica().data_dir().join("unmounted"));
    std::fs::rename(&control, &away)?;
    story.until("replica", "outage_opened").await?;
    for _ in 0..3 {
        assert!(pair.replica().start().await.is_err(), "no server starts without its control file");
    }
    load.until("detoured reads", |report| report.detoured >= 20).await?;
    std::fs::rename(&away, &control)?;
    pair.replica().start().await?;
    story.until("replica", "outage_closed").await?;
    load.end_at_home().await?;
    assert_eq!(story.so_far("replica").await, ["outage_opened", "outage_closed"]);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn too_many_clients_are_no_outage_and_sessions_go_on() -> Tested {
    let pair = Pair::with(|cluster| cluster.user("app").max_connections(20)).await?;
    // No ping but those that are asked for: each frees a slot when it replaces the watched connection.
    let pings = Pings { monitoring_ping_frequency: Duration::from_secs(600), ..quick() };
    let router = Router::<DeadpoolPostgres>::start(pair.config().pings(pings).build()?).await?;
    let (replica, mut story) = (router.alias("replica")?, Story::of(&router));
    let held = replica.get().await?;
    let mut crowd = Vec::new();
    while let Ok(client) = pair.replica().connect().await {
        crowd.push(client);
    }
    assert!(replica.report(&std::io::Error::from(std::io::ErrorKind::ConnectionRefused)));
    let told = cause(story.until("replica", "ping_inconclusive").await?);
    assert!(told.contains("too many clients") || told.contains("remaining connection slots"), "{told}");
    assert_eq!(number(&held, "SELECT 1::int8").await?, 1);
    let other = soon("a connection", replica.get()).await??;
    assert!(other.is_detour(), "the pool cannot grow there, so another server takes the read");
    drop((other, crowd));
    until(&router, "replica", State::Up).await?;
    assert_eq!(story.so_far("replica").await, ["ping_inconclusive"]);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn an_exhausted_pool_is_overload_and_no_outage() -> Tested {
    let pair = Pair::start().await?;
    let small = PoolSettings { max_size: 2, acquire_timeout: Duration::from_millis(100), ..PoolSettings::default() };
    let router = Router::<DeadpoolPostgres>::start(pair.config().pool(small).build()?).await?;
    let (replica, mut story) = (router.alias("replica")?, Story::of(&router));
    let held = [replica.get().await?, replica.get().await?];
    let refused = soon("a refusal", replica.get()).await?.unwrap_err();
    assert!(refused.is_overloaded() && !refused.is_unavailable());
    assert!(refused.to_string().contains("2 of 2 in use"), "{refused}");
    pinged(&router, &replica).await?;
    drop(held);
    assert!(!soon("a connection", replica.get()).await??.is_detour());
    assert_eq!(story.so_far("replica").await, [""; 0]);
    Ok(())
}
