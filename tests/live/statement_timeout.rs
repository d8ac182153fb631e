//! A write whose deadline its server is told of (`pass_deadline`): the server itself ends its statements, and never its `COMMIT`.

use std::sync::atomic::{AtomicU32, Ordering};

use pgdetour::{
    Config, Router, Transaction,
    config::{CallSettings, Pings, PoolSettings, Role},
    policy::Outcome,
    testkit::{Direction, Fault, Proxy},
};
use tokio_postgres::Error;

use crate::{
    harness::{MS, Pair, Tested, number, pid, quick, soon},
    write::{enter, entries, waiting_for_its_replica, with_table},
};

const SETTING: &str = "SELECT setting::int8 FROM pg_settings WHERE name = 'statement_timeout'";

/// The limit and the session of a transaction.
async fn told(transaction: Transaction) -> Result<(i64, i32), Error> {
    let limit = transaction.query_one(SETTING, &[]).await?.get(0);
    Ok((limit, transaction.query_one("SELECT pg_backend_pid()", &[]).await?.get(0)))
}

#[tokio::test(flavor = "multi_thread")]
async fn the_server_is_told_of_a_write_s_deadline_and_the_session_does_not_keep_it() -> Tested {
    let pair = Pair::start().await?;
    pgdetour::migrate(&pair.primary().connect().await?).await?;
    let calls = CallSettings { pass_deadline: true, ..CallSettings::default() };
    let config = pair.config().pool(PoolSettings::of_size(1)).calls(calls);
    let router: Router = Router::start(config.build()?).await?;
    let primary = router.alias("primary")?;
    let isolated = primary.write(|transaction| async move {
        // The work may still choose.
        transaction.batch_execute("SET TRANSACTION ISOLATION LEVEL SERIALIZABLE").await?;
        told(transaction).await
    });
    let written = router.with_deadline(2000 * MS, isolated).await?;
    let once = router.with_deadline(2000 * MS, primary.write_once("key", told)).await?;
    for (limit, _) in [written, once] {
        assert!(limit > 1000 && limit <= 2000, "{limit} ms");
    }
    let lease = primary.get().await?;
    assert_eq!((number(&lease, SETTING).await?, [written.1, once.1]), (0, [pid(&lease).await?; 2]));
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_write_that_its_network_has_cut_off_is_ended_by_its_server_at_the_deadline() -> Tested {
    let pair = Pair::start().await?;
    with_table(&pair).await?;
    pgdetour::migrate(&pair.primary().connect().await?).await?;
    let proxy = Proxy::start((pair.primary().host(), pair.primary().port())).await?;
    let config = Config::builder()
        // What is cut here is no outage.
        .pings(Pings { failure_threshold: 100, ..quick() })
        .calls(CallSettings { pass_deadline: true, call_timeout: 2000 * MS, ..CallSettings::default() })
        .server("primary", Role::Primary, pair.primary().url_at("127.0.0.1", proxy.addr().port()));
    let router: Router = Router::start(config.build()?).await?;
    let primary = router.alias("primary")?;
    let (holder, admin) = (pair.primary().connect().await?, pair.primary().connect().await?);
    holder.batch_execute("BEGIN; INSERT INTO pgdetour.writes VALUES ('held', NULL, now()); LOCK TABLE ledger").await?;
    let until = async |waiting: i64| {
        let count = "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock'";
        while admin.query_one(count, &[]).await?.get::<_, i64>(0) != waiting {}
        Ok::<_, Error>(())
    };
    let work = |transaction: Transaction| async move { enter(&transaction, 1).await };
    // The first waits for the table, the second for its key.
    for (keyed, outcome) in [(false, Outcome::RolledBack), (true, Outcome::NotSent)] {
        let write = async { if keyed { primary.write_once("held", work).await } else { primary.write(work).await } };
        let cut_off = async {
            soon("its wait for a lock", until(1)).await??;
            // The request to cancel goes there too.
            Tested::Ok(proxy.set(Fault::BlackHole { direction: Direction::Both }).await?)
        };
        let (written, cut) = tokio::join!(write, cut_off);
        cut?;
        let error = written.expect_err("the lock is held");
        assert_eq!((error.is_late(), error.outcome()), (true, outcome), "{error}");
        soon("its end", until(0)).await??;
        proxy.set(Fault::None).await?;
    }
    holder.batch_execute("ROLLBACK").await?;
    assert_eq!((primary.write_once("held", work).await?, entries(&pair).await?), (1, 1));
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_write_whose_statement_takes_too_long_is_rolled_back_and_not_made_again() -> Tested {
    let pair = Pair::start().await?;
    with_table(&pair).await?;
    let router: Router = pair.router().await?;
    let (primary, runs) = (router.alias("primary")?, AtomicU32::new(0));
    let slow = primary.write(|transaction| {
        runs.fetch_add(1, Ordering::Relaxed);
        async move {
            enter(&transaction, 1).await?;
            transaction.batch_execute("SET LOCAL statement_timeout = 50; SELECT pg_sleep(600)").await
        }
    });
    let error = slow.await.expect_err("it sleeps for longer");
    assert!(error.to_string().contains("ERROR 57014"), "{error}");
    assert_eq!((error.outcome(), error.is_late(), runs.load(Ordering::Relaxed)), (Outcome::RolledBack, false, 1));
    assert_eq!(entries(&pair).await?, 0);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_commit_may_take_longer_than_a_statement() -> Tested {
    let (pair, router) = waiting_for_its_replica().await?;
    let primary = router.alias("primary")?;
    // Were this COMMIT cut, it would be a success: nothing waits for the replica then.
    let work = |transaction: Transaction| async move {
        transaction.batch_execute("SET LOCAL statement_timeout = 50").await?;
        enter(&transaction, 2).await
    };
    for keyed in [false, true] {
        let written = async { if keyed { primary.write_once("key", work).await } else { primary.write(work).await } };
        let error = soon("the deadline", written).await?.expect_err("nobody confirms it");
        assert_eq!((error.outcome(), error.is_late()), (Outcome::Unknown, true), "{error}");
    }
    drop(pair);
    Ok(())
}
