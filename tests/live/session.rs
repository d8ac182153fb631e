//! One session that ends, hangs or is left in the middle: no outage, and nobody is lent what is left of it (F04, F06, F09, F61,
//! F63, F64).

use std::process::Command;

use pgdetour::{
    Alias, Router,
    config::PoolSettings,
    health::State,
    pool::{Bb8Postgres, DeadpoolPostgres},
};

use crate::harness::{Load, Pair, Story, Subject, Tested, number, pid, pinged, soon, until};

#[tokio::test(flavor = "multi_thread")]
async fn terminated_sessions_open_no_outage_and_reads_stay() -> Tested {
    let pair = Pair::start().await?;
    let router = pair.router::<DeadpoolPostgres>().await?;
    let (replica, mut story) = (router.alias("replica")?, Story::of(&router));
    let mut load = Load::start(&replica);
    load.until_at_home(20).await?;
    for _ in 0..3 {
        let process = pid(&replica.get().await?).await?;
        pair.replica().execute(&format!("SELECT pg_terminate_backend({process})")).await?;
        until(&router, "replica", State::Up).await?;
        load.until_at_home(20).await?;
    }
    let report = load.end().await?;
    assert_eq!((report.failed, report.detoured), (0, 0), "{report:?}");

    let mut load = Load::start(&replica);
    for _ in 0..3 {
        load.until_at_home(20).await?;
        assert!(pair.replica().terminate_backends().await? > 0, "the pool and the monitor have sessions");
        until(&router, "replica", State::Up).await?;
    }
    // While they end one after another a read may go elsewhere, and one that is tried again at once may lose two of them; then
    // all are back at home, and it was no outage.
    load.until_at_home(20).await?;
    load.end().await?;
    assert_eq!(story.so_far("replica").await, [""; 0]);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn when_one_server_process_crashes_no_read_fails_and_nobody_hangs() -> Tested {
    let pair = Pair::start().await?;
    let router = pair.router::<DeadpoolPostgres>().await?;
    let replica = router.alias("replica")?;
    let mut load = Load::start(&replica);
    load.until_at_home(20).await?;
    let bystander = replica.get().await?;
    let waiting = tokio::spawn(async move { number(&bystander, "SELECT 1::int8 FROM pg_sleep(600)").await });
    pair.replica().kill_one_backend().await?;
    // All sessions end with the one; how long recovery takes decides whether that is an outage.
    assert!(soon("the end of a bystander's session", waiting).await??.is_err());
    until(&router, "replica", State::Up).await?;
    load.end_at_home().await?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn one_frozen_server_process_opens_no_outage_and_holds_up_nobody_else() -> Tested {
    let pair = Pair::start().await?;
    let router = pair.router::<DeadpoolPostgres>().await?;
    let (replica, mut story) = (router.alias("replica")?, Story::of(&router));
    let hung = replica.get().await?;
    let process = pid(&hung).await?;
    signal("STOP", process);
    let query = tokio::spawn(async move { pid(&hung).await });
    let mut load = Load::start(&replica);
    load.until_at_home(20).await?;
    pinged(&router, &replica).await?;
    assert!(!query.is_finished());
    signal("CONT", process);
    assert_eq!(soon("the frozen process", query).await???, process);
    let report = load.end().await?;
    assert_eq!((report.failed, report.detoured), (0, 0), "{report:?}");
    assert_eq!(story.so_far("replica").await, [""; 0]);
    Ok(())
}

pub(crate) fn signal(name: &str, process: i32) {
    let sent = Command::new("kill").arg(format!("-{name}")).arg(process.to_string()).status();
    assert!(sent.expect("there is a `kill`").success(), "{process} takes a signal");
}

/// A router whose replica has one connection alone: whoever comes next would get what the one before has left.
async fn narrow<B: Subject>(pair: &Pair) -> Result<(Router<B>, Alias<B>), Box<dyn std::error::Error>> {
    let one = PoolSettings { max_size: 1, ..PoolSettings::default() };
    let router = Router::start(pair.config().pool(one).build()?).await?;
    let replica = router.alias("replica")?;
    Ok((router, replica))
}

async fn a_cancelled_read_is_not_lent_on<B: Subject>() -> Tested {
    let pair = Pair::start().await?;
    let (router, replica) = narrow::<B>(&pair).await?;
    let mut story = Story::of(&router);
    let lease = replica.get().await?;
    let first = pid(&lease).await?;
    let admin = pair.replica().connect().await?;
    let asleep = async {
        while admin.query("SELECT pid FROM pg_stat_activity WHERE wait_event = 'PgSleep'", &[]).await?.is_empty() {}
        Ok::<_, tokio_postgres::Error>(())
    };
    // One that has not begun leaves nothing behind, and its connection may be lent again.
    tokio::select! {
        slept = number(&lease, "SELECT 1::int8 FROM pg_sleep(600)") => return Err(format!("it ended: {slept:?}").into()),
        asleep = soon("the statement to run", asleep) => asleep??,
    }
    drop(lease);
    let next = soon("a connection that is free", replica.get()).await??;
    assert_ne!(soon("an answer at once", pid(&next)).await??, first);
    assert_eq!(story.so_far("replica").await, [""; 0]);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_connection_whose_read_was_cancelled_is_not_lent_again_while_that_runs() -> Tested {
    a_cancelled_read_is_not_lent_on::<DeadpoolPostgres>().await
}

#[tokio::test(flavor = "multi_thread")]
async fn with_bb8_too_a_cancelled_read_keeps_nobody_waiting() -> Tested {
    a_cancelled_read_is_not_lent_on::<Bb8Postgres>().await
}

/// A lease on which a transaction was begun by hand, that has written and not committed.
async fn open_transaction<B: Subject>(
    alias: &Alias<B>,
) -> Result<(pgdetour::Lease<B>, i32), Box<dyn std::error::Error>> {
    let lease = alias.get().await?;
    B::client(&lease).batch_execute("BEGIN; CREATE TABLE leaked ()").await?;
    let process = pid(&lease).await?;
    Ok((lease, process))
}

/// The next connection of the alias is outside of a transaction and sees nothing of the one before.
async fn is_clean<B: Subject>(alias: &Alias<B>, process: i32) -> Tested {
    let next = soon("a connection", alias.get()).await??;
    assert_ne!(pid(&next).await?, process);
    let seen = "SELECT count(*) FROM pg_class WHERE relname = 'leaked' OR pg_current_xact_id_if_assigned() IS NOT NULL";
    assert_eq!(number(&next, seen).await?, 0);
    Ok(())
}

async fn nothing_leaks<B: Subject>() -> Tested {
    let pair = Pair::start().await?;
    let one = PoolSettings { max_size: 1, ..PoolSettings::default() };
    let router = Router::<B>::start(pair.config().pool(one).build()?).await?;
    let primary = router.alias("primary")?;
    let (lease, process) = open_transaction(&primary).await?;
    drop(lease);
    is_clean(&primary, process).await?;

    let (lease, process) = open_transaction(&primary).await?;
    let panics = tokio::spawn(async move {
        let _held = lease;
        std::panic::resume_unwind(Box::new("on purpose, and without a word on the terminal"));
    });
    assert!(soon("the panic", panics).await?.is_err());
    is_clean(&primary, process).await
}

#[tokio::test(flavor = "multi_thread")]
async fn an_open_transaction_does_not_leak_by_a_drop_or_a_panic() -> Tested {
    nothing_leaks::<DeadpoolPostgres>().await
}

#[tokio::test(flavor = "multi_thread")]
async fn with_bb8_too_no_open_transaction_leaks() -> Tested {
    nothing_leaks::<Bb8Postgres>().await
}
