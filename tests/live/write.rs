//! Writes under faults: what was executed is never reported as undone, and nothing is done twice (F27, F56, F62-F64, F67).

use std::{
    error::Error,
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
};

use pgdetour::{
    Alias, Config, Router, Transaction,
    config::{Balance, CallSettings, Pings, PoolSettings, Role},
    policy::Outcome,
    pool::{Bb8Postgres, DeadpoolPostgres},
    testkit::{Direction, Fault, Proxy},
};
use tokio_postgres::error::SqlState;

use crate::harness::{MS, Pair, Subject, Tested, quick, soon};

/// A router whose way to the primary is a proxy, with one connection at a time and calls of 2 s.
async fn proxied(pair: &Pair) -> Result<(Proxy, Router), Box<dyn Error>> {
    let proxy = Proxy::start((pair.primary().host(), pair.primary().port())).await?;
    let way = pair.primary().url_at("127.0.0.1", proxy.addr().port());
    // What is cut here is no outage.
    let pings = Pings { failure_threshold: 100, ..quick() };
    let config = Config::builder()
        .pings(pings)
        .pool(PoolSettings::of_size(1))
        .calls(CallSettings { call_timeout: 2000 * MS, ..CallSettings::default() })
        .server("primary", Role::Primary, way)
        .server("replica", Role::Replica, pair.replica().url());
    let router = Router::<DeadpoolPostgres>::start(config.build()?).await?;
    Ok((proxy, router))
}

async fn with_table(pair: &Pair) -> Tested {
    Ok(pair.primary().execute("CREATE TABLE ledger (entry int8)").await?)
}

async fn entries(pair: &Pair) -> Result<i64, Box<dyn Error>> {
    Ok(pair.primary().connect().await?.query_one("SELECT count(*) FROM ledger", &[]).await?.get(0))
}

async fn enter<B: Subject>(transaction: &Transaction<B>, entry: i64) -> Result<u64, tokio_postgres::Error> {
    B::of(transaction).execute("INSERT INTO ledger VALUES ($1)", &[&entry]).await
}

async fn writes_and_rolls_back<B: Subject>() -> Tested {
    let pair = Pair::start().await?;
    with_table(&pair).await?;
    let router = Router::<B>::start(pair.config().pool(PoolSettings::of_size(1)).build()?).await?;
    let primary = router.alias("primary")?;
    let name = String::from("captured by reference");
    // In a task of its own, which has to be `Send`, with a borrowed capture.
    let written = tokio::spawn({
        let primary = primary.clone();
        async move {
            let name = &name;
            primary
                .write(|transaction| async move {
                    enter(&transaction, i64::try_from(name.len()).unwrap_or_default()).await?;
                    pid_in(&transaction).await
                })
                .await
        }
    });
    let first = soon("a write", written).await???;
    assert_eq!(entries(&pair).await?, 1);

    let failed = primary
        .write(|transaction| async move {
            enter(&transaction, 2).await?;
            B::of(&transaction).execute("SELECT 1 / 0", &[]).await
        })
        .await
        .expect_err("it fails");
    assert_eq!(failed.outcome(), Outcome::RolledBack, "{failed}");
    assert!(failed.is_safe_to_retry() && !failed.is_unavailable());
    let source = Error::source(&failed).and_then(|source| source.downcast_ref::<tokio_postgres::Error>());
    assert_eq!(source.and_then(|error| error.code()), Some(&SqlState::DIVISION_BY_ZERO));

    // An error of the application's own gives the write up, too; the connection is used again.
    let given_up = primary
        .write(|transaction| async move {
            enter(&transaction, 3).await?;
            Err::<(), Box<dyn Error + Send + Sync>>("not enough".into())
        })
        .await
        .expect_err("it fails");
    assert_eq!(given_up.into_source().map(|source| source.to_string()).as_deref(), Some("not enough"));
    let last = primary.write(|transaction| async move { pid_in(&transaction).await }).await?;
    assert_eq!((entries(&pair).await?, last), (1, first));
    Ok(())
}

async fn pid_in<B: Subject>(transaction: &Transaction<B>) -> Result<i32, tokio_postgres::Error> {
    Ok(B::of(transaction).query_one("SELECT pg_backend_pid()", &[]).await?.get(0))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_write_commits_when_its_work_has_returned_and_else_leaves_nothing() -> Tested {
    writes_and_rolls_back::<DeadpoolPostgres>().await
}

#[tokio::test(flavor = "multi_thread")]
async fn with_bb8_too_a_write_is_all_or_nothing() -> Tested {
    writes_and_rolls_back::<Bb8Postgres>().await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_serialization_failure_runs_the_whole_work_again_and_a_plain_error_does_not() -> Tested {
    let pair = Pair::start().await?;
    with_table(&pair).await?;
    let router = pair.router::<DeadpoolPostgres>().await?;
    let primary = router.alias("primary")?;
    for (code, runs_expected) in [("40001", 3), ("40P01", 3), ("23505", 1)] {
        let runs = AtomicU32::new(0);
        let written = primary
            .write(|transaction| {
                let (run, raise) = (runs.fetch_add(1, Ordering::Relaxed), raise(code));
                async move {
                    enter(&transaction, 1).await?;
                    if run < 2 { transaction.batch_execute(&raise).await } else { Ok(()) }
                }
            })
            .await;
        assert_eq!((written.is_ok(), runs.into_inner()), (runs_expected == 3, runs_expected), "{code}");
    }
    assert_eq!(entries(&pair).await?, 2);
    Ok(())
}

fn raise(code: &str) -> String {
    format!("DO $$ BEGIN RAISE EXCEPTION 'on purpose' USING ERRCODE = '{code}'; END $$")
}

#[tokio::test(flavor = "multi_thread")]
async fn an_alias_that_is_not_a_primary_s_and_a_primary_that_is_out_are_refused() -> Tested {
    let pair = Pair::start().await?;
    let config = pair.config().failover("primary", ["replica"]).group("reads", ["replica"], Balance::RoundRobin);
    let router: Router = Router::start(config.build()?).await?;
    let runs = Arc::new(AtomicU32::new(0));
    let refused = async |alias: &Alias| {
        let runs = Arc::clone(&runs);
        let work = move |_| {
            runs.fetch_add(1, Ordering::Relaxed);
            async { Ok::<_, tokio_postgres::Error>(()) }
        };
        alias.write(work).await.expect_err("it fails")
    };
    for name in ["replica", "reads"] {
        let error = refused(&router.alias(name)?).await;
        assert!(error.outcome() == Outcome::NotSent && error.to_string().contains("takes no writes"), "{error}");
    }
    pair.primary().kill().await?;
    let primary = router.alias("primary")?;
    crate::harness::until(&router, "primary", pgdetour::health::State::Down).await?;
    assert!(primary.get().await?.is_detour(), "its reads go on");
    let error = refused(&primary).await;
    assert!(error.is_read_only() && error.outcome() == Outcome::NotSent, "{error}");
    assert_eq!(runs.load(Ordering::Relaxed), 0);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_transaction_that_has_failed_is_never_reported_as_committed() -> Tested {
    let pair = Pair::start().await?;
    with_table(&pair).await?;
    let router = pair.router::<DeadpoolPostgres>().await?;
    let primary = router.alias("primary")?;
    let swallowed = primary.write(|transaction| async move {
        enter(&transaction, 1).await?;
        let _ = transaction.batch_execute("SELECT 1 / 0").await;
        Ok::<_, tokio_postgres::Error>(())
    });
    let error = swallowed.await.expect_err("it fails");
    assert_eq!(error.outcome(), Outcome::RolledBack, "{error}");
    // It is sent and fails after the work has returned.
    let unawaited = primary.write(|transaction| async move {
        enter(&transaction, 1).await?;
        tokio::select! {
            biased;
            _ = transaction.batch_execute("SELECT pg_sleep(0.05); SELECT 1 / 0") => {}
            // It is sent by then.
            () = std::future::ready(()) => {}
        }
        Ok::<_, tokio_postgres::Error>(())
    });
    let error = unawaited.await.expect_err("it fails");
    assert_eq!(error.outcome(), Outcome::RolledBack, "{error}");
    assert_eq!(entries(&pair).await?, 0);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn work_that_ends_the_transaction_itself_leaves_an_unknown_outcome() -> Tested {
    let pair = Pair::start().await?;
    with_table(&pair).await?;
    let router = pair.router::<DeadpoolPostgres>().await?;
    let primary = router.alias("primary")?;
    for fails in [false, true] {
        let ended = primary.write(|transaction| async move {
            enter(&transaction, 1).await?;
            transaction.batch_execute("COMMIT").await?;
            if fails { transaction.batch_execute("SELECT 1 / 0").await } else { Ok(()) }
        });
        let error = ended.await.expect_err("it fails");
        assert_eq!(error.outcome(), Outcome::Unknown, "{error}");
    }
    assert_eq!(entries(&pair).await?, 2);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_lost_before_the_first_statement_runs_the_work_again_and_later_it_does_not() -> Tested {
    let pair = Pair::start().await?;
    with_table(&pair).await?;
    let router = pair.router::<DeadpoolPostgres>().await?;
    let primary = router.alias("primary")?;
    let admin = pair.primary().connect().await?;
    for before in [true, false] {
        let runs = AtomicU32::new(0);
        let (admin, first) = (&admin, || runs.fetch_add(1, Ordering::Relaxed) == 0);
        let written = primary.write(|transaction| {
            let first = first();
            async move {
                if !before {
                    enter(&transaction, 1).await?;
                }
                if first {
                    // All but this session, the only one that is inside a transaction.
                    let others =
                        "SELECT pg_terminate_backend(pid, 10000) FROM pg_stat_activity WHERE state LIKE 'idle in%'";
                    admin.query(others, &[]).await?;
                    while !transaction.is_closed() {
                        tokio::task::yield_now().await;
                    }
                }
                enter(&transaction, 2).await
            }
        });
        let written = written.await;
        let runs = runs.into_inner();
        match (before, written) {
            (true, Ok(_)) => assert_eq!((runs, entries(&pair).await?), (2, 1)),
            (false, Err(error)) => {
                assert_eq!((error.outcome(), runs), (Outcome::RolledBack, 1), "{error}");
                assert!(error.is_safe_to_retry() && entries(&pair).await? == 1);
            }
            (_, written) => panic!("{before}: {written:?} after {runs} runs"),
        }
    }
    Ok(())
}

/// A write after whose last statement the network gets this fault.
async fn write_into(primary: &Alias, proxy: &Proxy, fault: Fault) -> Result<u64, pgdetour::Error> {
    primary
        .write(|transaction| async move {
            let entered = enter(&transaction, 1).await?;
            proxy.set(fault).await?;
            Ok::<_, Box<dyn Error + Send + Sync>>(entered)
        })
        .await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_commit_whose_answer_is_swallowed_is_unknown_by_the_deadline() -> Tested {
    let pair = Pair::start().await?;
    with_table(&pair).await?;
    let (proxy, router) = proxied(&pair).await?;
    let hole = Fault::BlackHole { direction: Direction::Down };
    let (primary, longest) = (router.alias("primary")?, 2500 * MS);
    let written = tokio::time::timeout(longest, write_into(&primary, &proxy, hole)).await;
    let error = written.map_err(|_| "the deadline was 2 s")?.expect_err("it fails");
    assert_eq!(
        (error.outcome(), error.is_late(), error.is_safe_to_retry()),
        (Outcome::Unknown, true, false),
        "{error}"
    );
    // It was executed: who had been told "rolled back" would have done it twice.
    assert_eq!(entries(&pair).await?, 1);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_commit_whose_answer_is_lost_is_asked_for_where_the_server_is_well() -> Tested {
    let pair = Pair::start().await?;
    with_table(&pair).await?;
    let (proxy, router) = proxied(&pair).await?;
    let primary = router.alias("primary")?;
    // Enough for the answer to the question for the number, and not for that to the COMMIT.
    let number = Fault::CutAfter { bytes: 100, direction: Direction::Down };
    let mut known = 0;
    for _ in 0..5 {
        let before = entries(&pair).await?;
        primary.get().await?;
        let open = proxy.open();
        let heal = async {
            while proxy.open() >= open {
                tokio::task::yield_now().await;
            }
            proxy.set(Fault::None).await
        };
        let (written, healed) = tokio::join!(write_into(&primary, &proxy, number), heal);
        healed?;
        match written {
            Ok(_) => known += 1,
            Err(error) => assert_eq!(error.outcome(), Outcome::Unknown, "{error}"),
        }
        assert_eq!(entries(&pair).await?, before + 1);
    }
    assert!(known > 0, "nothing was found out");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_has_crashed_since_is_not_asked_what_became_of_a_commit() -> Tested {
    let pair = Pair::start().await?;
    with_table(&pair).await?;
    let (proxy, router) = proxied(&pair).await?;
    let primary = router.alias("primary")?;
    primary.write(|transaction| async move { enter(&transaction, 0).await }).await?;
    let open = proxy.open();
    let crash = async {
        while proxy.open() >= open {
            tokio::task::yield_now().await;
        }
        pair.primary().kill_one_backend().await?;
        proxy.set(Fault::None).await
    };
    let number = Fault::CutAfter { bytes: 100, direction: Direction::Down };
    let (written, crashed) = tokio::join!(write_into(&primary, &proxy, number), crash);
    crashed?;
    assert_eq!(written.expect_err("it fails").outcome(), Outcome::Unknown);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_commit_that_never_left_is_rolled_back() -> Tested {
    let pair = Pair::start().await?;
    with_table(&pair).await?;
    let (proxy, router) = proxied(&pair).await?;
    let written = write_into(&router.alias("primary")?, &proxy, Fault::Reset).await;
    let error = written.expect_err("it fails");
    // The reset may be seen before the COMMIT is written or after: whatever is said, nothing was executed.
    assert_eq!(entries(&pair).await?, 0, "{error}");
    Ok(())
}
