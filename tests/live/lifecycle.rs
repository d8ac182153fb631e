//! How a router ends and how it goes over to another configuration: no session is left, handles follow.

use std::{
    error::Error,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use pgdetour::{
    EventKind, Router,
    pool::{AcquireError, AcquireErrorKind, Bb8Postgres, DeadpoolPostgres, FromSpec, PoolSpec},
    testkit::Server,
};

use crate::harness::{Pair, Story, Subject, Tested, number, soon};

/// Waits until a server has no client session but the one that counts them.
async fn is_deserted(server: &Server) -> Tested {
    let observer = server.connect().await?;
    let sql = "SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'client backend' AND pid <> pg_backend_pid()";
    let deserted = async {
        while observer.query_one(sql, &[]).await?.get::<_, i64>(0) > 0 {}
        Ok::<_, tokio_postgres::Error>(())
    };
    Ok(soon("the last session to end", deserted).await??)
}

async fn are_deserted(pair: &Pair) -> Tested {
    is_deserted(pair.primary()).await?;
    is_deserted(pair.replica()).await
}

async fn nothing_is_left<B: Subject>() -> Tested {
    let pair = Pair::start().await?;
    let router = pair.router::<B>().await?;
    let alias = router.alias("replica")?;
    for name in ["primary", "replica"] {
        assert_eq!(number(&router.alias(name)?.get().await?, "SELECT 1::int8").await?, 1);
    }
    drop(router);
    // An alias keeps the router at work.
    assert_eq!(number(&alias.get().await?, "SELECT 1::int8").await?, 1);
    drop(alias);
    are_deserted(&pair).await
}

#[tokio::test(flavor = "multi_thread")]
async fn the_drop_of_the_last_handle_closes_every_session() -> Tested {
    nothing_is_left::<DeadpoolPostgres>().await
}

#[tokio::test(flavor = "multi_thread")]
async fn with_bb8_too_the_drop_of_the_last_handle_closes_every_session() -> Tested {
    nothing_is_left::<Bb8Postgres>().await
}

async fn shutdown_closes_all<B: Subject>() -> Tested {
    let pair = Pair::start().await?;
    let router = pair.router::<B>().await?;
    let alias = router.alias("replica")?;
    let held = alias.get().await?;
    let waiting = tokio::spawn(async move { number(&held, "SELECT 1::int8 FROM pg_sleep(600)").await });
    let busy = alias.get().await?;
    soon("the end", router.shutdown()).await?;
    assert!(soon("the query of a lease that is out", waiting).await??.is_err());
    assert!(number(&busy, "SELECT 1::int8").await.is_err());
    assert!(alias.get().await.err().is_some_and(|error| error.is_closed()));
    assert!(router.alias("replica").is_err_and(|error| error.is_closed()));
    soon("a second end", router.shutdown()).await?;
    are_deserted_but_for_the_cancelled(&pair).await
}

/// A server process notices that its client is gone when it next talks to it: one that sleeps is woken to see.
async fn are_deserted_but_for_the_cancelled(pair: &Pair) -> Tested {
    pair.replica()
        .execute("SELECT pg_cancel_backend(pid) FROM pg_stat_activity WHERE query LIKE '%pg_sleep(600)'")
        .await?;
    are_deserted(pair).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_shutdown_closes_leased_sessions_too_and_lends_nothing_more() -> Tested {
    shutdown_closes_all::<DeadpoolPostgres>().await
}

#[tokio::test(flavor = "multi_thread")]
async fn with_bb8_too_a_shutdown_closes_leased_sessions() -> Tested {
    shutdown_closes_all::<Bb8Postgres>().await
}

/// Who a lease says that it is.
async fn name<B: Subject>(lease: &pgdetour::Lease<B>) -> Result<String, tokio_postgres::Error> {
    Ok(B::client(lease).query_one("SHOW application_name", &[]).await?.get(0))
}

#[tokio::test(flavor = "multi_thread")]
async fn handles_follow_a_reload_leases_outlive_it_and_one_that_fails_changes_nothing() -> Tested {
    let pair = Pair::start().await?;
    let way = |name: &str| format!("{}?application_name={name}", pair.replica().url());
    let fails = Arc::new(AtomicBool::new(false));
    let told_to = Arc::clone(&fails);
    let build = move |spec: PoolSpec| match told_to.load(Ordering::Relaxed) {
        false => DeadpoolPostgres::from_spec(spec),
        true => Err(AcquireError::new(AcquireErrorKind::Closed, "no pool today")),
    };
    let router = Router::start_with(pair.config_to(&way("before")).build()?, build).await?;
    let (replica, mut story) = (router.alias("replica")?, Story::of(&router));
    let held = replica.get().await?;
    assert_eq!(name(&held).await?, "before");

    fails.store(true, Ordering::Relaxed);
    let error = router.reload(pair.config_to(&way("never")).build()?).await.unwrap_err();
    assert!(error.source().is_some_and(|source| source.to_string().contains("pool")), "{error:?}");
    fails.store(false, Ordering::Relaxed);
    assert_eq!(name(&replica.get().await?).await?, "before");

    soon("the reload", router.reload(pair.config_to(&way("after")).build()?)).await??;
    assert_eq!(name(&replica.get().await?).await?, "after");
    assert_eq!(name(&held).await?, "before");
    assert_eq!(story.so_far("replica").await, [""; 0]);
    drop((held, replica, router));
    are_deserted(&pair).await
}

#[tokio::test(flavor = "multi_thread")]
async fn an_open_outage_is_told_once_across_a_reload() -> Tested {
    let pair = Pair::start().await?;
    let router = pair.router::<DeadpoolPostgres>().await?;
    let (replica, mut story) = (router.alias("replica")?, Story::of(&router));
    pair.replica().kill().await?;
    story.until("replica", "outage_opened").await?;
    soon("the reload", router.reload(pair.config().build()?)).await??;
    assert!(soon("a connection", replica.get()).await??.is_detour());
    pair.replica().start().await?;
    let EventKind::OutageClosed { .. } = story.until("replica", "outage_closed").await? else { unreachable!() };
    assert!(!soon("a connection", replica.get()).await??.is_detour());
    assert_eq!(story.so_far("replica").await, ["outage_opened", "outage_closed"]);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn an_error_of_the_application_asks_for_no_ping_and_casts_no_doubt() -> Tested {
    let pair = Pair::start().await?;
    let router = pair.router::<DeadpoolPostgres>().await?;
    let (primary, mut story) = (router.alias("primary")?, Story::of(&router));
    let irrelevant = [
        "SELECT 1/0",
        "SELECT * FROM nowhere",
        "SELEC",
        "SET statement_timeout = 1; SELECT pg_sleep(60)",
        "DO $$ BEGIN RAISE EXCEPTION 'forged' USING ERRCODE = '57P01'; END $$",
        "DO $$ BEGIN RAISE EXCEPTION 'forged' USING ERRCODE = '57P03'; END $$",
    ];
    for sql in irrelevant {
        let lease = primary.get().await?;
        let error: Box<dyn Error> = lease.batch_execute(sql).await.expect_err(sql).into();
        assert!(!lease.report(&*error) && !primary.report(&*error), "{sql}: {error:?}");
        assert!(!crate::harness::belief(&router, "primary").is_doubted(), "{sql}");
    }
    assert_eq!(story.so_far("primary").await, [""; 0]);
    Ok(())
}
