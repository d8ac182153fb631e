//! Writes under faults: what was executed is never reported as undone, and nothing is done twice (F27, F56, F62-F64, F67).

use std::{
    error::Error,
    process::Stdio,
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
    time::Duration,
};

use pgdetour::{
    Alias, Config, Router, Transaction,
    config::{Balance, CallSettings, Pings, PoolSettings, Role},
    policy::Outcome,
    pool::{Bb8Postgres, DeadpoolPostgres},
    testkit::{Direction, Fault, Proxy},
};
use tokio_postgres::error::SqlState;

use crate::harness::{MS, Pair, SOON, Story, Subject, Tested, quick, soon};

/// A router whose way to the primary is a proxy, with one connection at a time and calls of that length.
pub(crate) async fn proxied(pair: &Pair, call_timeout: Duration) -> Result<(Proxy, Router), Box<dyn Error>> {
    let proxy = Proxy::start((pair.primary().host(), pair.primary().port())).await?;
    let way = pair.primary().url_at("127.0.0.1", proxy.addr().port());
    // What is cut here is no outage.
    let pings = Pings { failure_threshold: 100, ..quick() };
    let config = Config::builder()
        .pings(pings)
        .pool(PoolSettings::of_size(1))
        .calls(CallSettings { call_timeout, ..CallSettings::default() })
        .server("primary", Role::Primary, way)
        .server("replica", Role::Replica, pair.replica().url());
    let router = Router::<DeadpoolPostgres>::start(config.build()?).await?;
    Ok((proxy, router))
}

pub(crate) async fn with_table(pair: &Pair) -> Tested {
    Ok(pair.primary().execute("CREATE TABLE ledger (entry int8)").await?)
}

pub(crate) async fn entries(pair: &Pair) -> Result<i64, Box<dyn Error>> {
    Ok(pair.primary().connect().await?.query_one("SELECT count(*) FROM ledger", &[]).await?.get(0))
}

pub(crate) async fn enter<B: Subject>(transaction: &Transaction<B>, entry: i64) -> Result<u64, tokio_postgres::Error> {
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

#[tokio::test(flavor = "multi_thread")]
async fn work_with_a_key_that_ends_the_transaction_itself_is_not_made_again() -> Tested {
    let pair = Pair::start().await?;
    with_table(&pair).await?;
    pgdetour::migrate(&pair.primary().connect().await?).await?;
    let router = pair.router::<DeadpoolPostgres>().await?;
    let primary = router.alias("primary")?;
    for (key, fails) in [("ends", false), ("ends and fails", true)] {
        let runs = AtomicU32::new(0);
        // Nor by a second call, which finds the key without an answer.
        for told in ["the work ended the transaction itself", "has used the key"] {
            let ended = primary.write_once(key, |transaction| {
                runs.fetch_add(1, Ordering::Relaxed);
                async move {
                    enter(&transaction, 1).await?;
                    transaction.batch_execute("COMMIT").await?;
                    if fails { transaction.batch_execute("SELECT 1 / 0").await } else { Ok(()) }
                }
            });
            let error = ended.await.expect_err("it fails");
            assert_eq!((error.outcome(), error.is_safe_to_retry()), (Outcome::Unknown, false), "{error}");
            assert!(fails || error.to_string().contains(told), "{error}");
            assert_eq!(runs.load(Ordering::Relaxed), 1, "{key}: {error}");
        }
    }
    assert_eq!(entries(&pair).await?, 2);
    Ok(())
}

/// The answer to a COMMIT, and nothing before it, does not come back.
const AT_THE_ANSWER: Fault = Fault::CutAt { bytes: b"COMMIT\0", direction: Direction::Down };

/// A write after whose last statement the network gets this fault.
pub(crate) async fn write_into(primary: &Alias, proxy: &Proxy, fault: Fault) -> Result<u64, pgdetour::Error> {
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
    let (proxy, router) = proxied(&pair, 2000 * MS).await?;
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
    let (proxy, router) = proxied(&pair, SOON).await?;
    let primary = router.alias("primary")?;
    for entered in 1..=5 {
        let heal = async {
            proxy.until_cut().await?;
            assert_eq!(entries(&pair).await?, entered, "it was executed");
            Tested::Ok(proxy.set(Fault::None).await?)
        };
        let (written, healed) = tokio::join!(write_into(&primary, &proxy, AT_THE_ANSWER), soon("the cut", heal));
        healed??;
        assert_eq!((written?, entries(&pair).await?), (1, entered));
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_has_crashed_since_is_not_asked_what_became_of_a_commit() -> Tested {
    let pair = Pair::start().await?;
    with_table(&pair).await?;
    let (proxy, router) = proxied(&pair, SOON).await?;
    let primary = router.alias("primary")?;
    let crash = async {
        proxy.until_cut().await?;
        assert_eq!(entries(&pair).await?, 1, "it was executed");
        let bystander = pair.primary().connect().await?;
        pair.primary().kill_one_backend().await?;
        while bystander.simple_query("").await.is_ok() {}
        // It answers again before anybody can ask it.
        while pair.primary().connect().await.is_err() {}
        Tested::Ok(proxy.set(Fault::None).await?)
    };
    let (written, crashed) = tokio::join!(write_into(&primary, &proxy, AT_THE_ANSWER), soon("the cut", crash));
    crashed??;
    assert_eq!(written.expect_err("it fails").outcome(), Outcome::Unknown);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_commit_that_never_left_is_rolled_back() -> Tested {
    let pair = Pair::start().await?;
    with_table(&pair).await?;
    let (proxy, router) = proxied(&pair, SOON).await?;
    let written = write_into(&router.alias("primary")?, &proxy, Fault::Reset).await;
    let error = written.expect_err("it fails");
    // The reset may be seen before the COMMIT is written or after: whatever is said, nothing was executed.
    assert_eq!(entries(&pair).await?, 0, "{error}");
    Ok(())
}

/// A pair whose writes wait for the replica, which does not answer.
pub(crate) async fn waiting_for_its_replica() -> Result<(Pair, Router), Box<dyn Error>> {
    let pair = Pair::start().await?;
    with_table(&pair).await?;
    pgdetour::migrate(&pair.primary().connect().await?).await?;
    let calls = CallSettings { call_timeout: 700 * MS, ..CallSettings::default() };
    let router = Router::start(pair.config().calls(calls).build()?).await?;
    pair.replica().freeze().await?;
    pair.primary().execute("ALTER SYSTEM SET synchronous_standby_names = '*'").await?;
    pair.primary().execute("SELECT pg_reload_conf()").await?;
    // Every session reads it before its next statement.
    Ok((pair, router))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_commit_that_waits_for_a_frozen_replica_is_unknown_at_the_deadline() -> Tested {
    let (pair, router) = waiting_for_its_replica().await?;
    let primary = router.alias("primary")?;
    let written = primary.write(|transaction| async move { enter(&transaction, 1).await });
    let error = soon("the deadline", written).await?.expect_err("nobody confirms it");
    assert_eq!((error.outcome(), error.is_late()), (Outcome::Unknown, true), "{error}");
    assert_eq!(crate::harness::belief(&router, "primary").state(), pgdetour::health::State::Up);
    drop(pair);
    Ok(())
}

/// Does this to the sessions whose COMMIT waits for a replica, once there are some. The write succeeds, and it is told that nobody
/// confirmed it.
async fn a_commit_that_waits_survives(what: &str) -> Tested {
    let (pair, router) = waiting_for_its_replica().await?;
    let (primary, mut story) = (router.alias("primary")?, Story::of(&router));
    let admin = pair.primary().connect().await?;
    let waiting = format!("SELECT {what}(pid) FROM pg_stat_activity WHERE wait_event = 'SyncRep'");
    let interrupt = async {
        while admin.query(&waiting, &[]).await?.is_empty() {}
        Ok::<_, tokio_postgres::Error>(())
    };
    let written = primary.write(|transaction| async move { enter(&transaction, 1).await });
    let (written, interrupted) = tokio::join!(written, interrupt);
    interrupted?;
    assert_eq!(written?, 1);
    story.until("primary", "commit_unconfirmed").await?;
    assert_eq!(entries(&pair).await?, 1);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_commit_whose_wait_for_the_replica_is_cancelled_is_a_success_that_is_told_of() -> Tested {
    a_commit_that_waits_survives("pg_cancel_backend").await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_commit_whose_session_is_terminated_while_it_waits_for_the_replica_is_found_and_told_of() -> Tested {
    a_commit_that_waits_survives("pg_terminate_backend").await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_write_that_is_dropped_or_panics_or_loses_its_process_leaves_nothing_behind() -> Tested {
    let pair = Pair::start().await?;
    with_table(&pair).await?;
    let router: Router = Router::start(pair.config().pool(PoolSettings::of_size(1)).build()?).await?;
    let primary = router.alias("primary")?;
    // Dropped while a statement runs.
    let slow = primary.write(|transaction| async move {
        enter(&transaction, 1).await?;
        transaction.batch_execute("INSERT INTO ledger SELECT 2 FROM pg_sleep(0.3)").await
    });
    assert!(tokio::time::timeout(100 * MS, slow).await.is_err());
    // A panic in the work passes through.
    let panics = tokio::spawn({
        let primary = primary.clone();
        async move {
            let work = |transaction: Transaction| async move {
                enter(&transaction, 3).await?;
                std::panic::resume_unwind(Box::new("on purpose, and without a word on the terminal"));
                #[expect(unreachable_code, reason = "the type of the work")]
                Ok::<(), tokio_postgres::Error>(())
            };
            primary.write(work).await
        }
    });
    assert!(soon("the panic", panics).await?.is_err());
    // The process is gone, as far as the server can tell.
    let other = std::thread::spawn({
        let config = pair.config().build()?;
        move || {
            let runtime = tokio::runtime::Runtime::new().expect("a runtime");
            runtime.block_on(async {
                let router: Router = Router::start(config).await.expect("a router");
                let primary = router.alias("primary").expect("an alias");
                let work = |transaction: Transaction| async move {
                    enter(&transaction, 4).await?;
                    std::future::pending::<Result<(), tokio_postgres::Error>>().await
                };
                assert!(tokio::time::timeout(300 * MS, primary.write(work)).await.is_err());
            });
            runtime.shutdown_background();
        }
    });
    other.join().map_err(|_| "the other process panicked")?;
    let clean = primary.write(|transaction| async move {
        transaction.query_one("SELECT pg_current_xact_id_if_assigned() IS NULL", &[]).await?.try_get::<_, bool>(0)
    });
    assert!(clean.await?);
    until_none_is_inside(&pair).await?;
    assert_eq!(entries(&pair).await?, 0);
    Ok(())
}

/// Where a process that is going to be killed finds its server, and in the middle of what it is to be.
const URL: &str = "PGDETOUR_TEST_URL";
const HALFWAY: &str = "PGDETOUR_TEST_HALFWAY";

/// The process that is killed: it writes once, and in the middle of that says no more if it is told so.
async fn writes_until_it_is_killed(url: String) -> Tested {
    let config = Config::builder().pings(quick()).server("primary", Role::Primary, url);
    let router: Router = Router::start(config.build()?).await?;
    let work = |transaction: Transaction| async move {
        let entered = enter(&transaction, 1).await?;
        if std::env::var_os(HALFWAY).is_some() {
            std::future::pending::<()>().await;
        }
        Ok::<_, tokio_postgres::Error>(entered)
    };
    router.alias("primary")?.write_once("key", work).await?;
    Err("nobody has killed it".into())
}

/// Kills a process like this one in the middle of its write, or before the answer to its COMMIT, and calls with its key again.
async fn is_there_once_after_the_kill(halfway: bool) -> Tested {
    let pair = Pair::start().await?;
    with_table(&pair).await?;
    pgdetour::migrate(&pair.primary().connect().await?).await?;
    let (proxy, router) = proxied(&pair, SOON).await?;
    proxy.set(AT_THE_ANSWER).await?;
    let name = "write::what_a_killed_process_was_writing_is_there_once_when_its_key_is_used_again";
    let mut process = tokio::process::Command::new(std::env::current_exe()?);
    process.args(["--exact", name]).stdout(Stdio::null()).stderr(Stdio::null()).kill_on_drop(true);
    process.env(URL, pair.primary().url_at("127.0.0.1", proxy.addr().port()));
    if halfway {
        process.env(HALFWAY, "");
    }
    let mut process = process.spawn()?;
    let in_the_middle = async {
        if !halfway {
            return Tested::Ok(proxy.until_cut().await?);
        }
        let admin = pair.primary().connect().await?;
        let halfway =
            "SELECT pid FROM pg_stat_activity WHERE state = 'idle in transaction' AND query LIKE 'INSERT INTO ledger%'";
        while admin.query(halfway, &[]).await?.is_empty() {}
        Ok(())
    };
    soon("the middle of its write", in_the_middle).await??;
    process.kill().await?;
    proxy.set(Fault::None).await?;
    until_none_is_inside(&pair).await?;
    assert_eq!(entries(&pair).await?, i64::from(!halfway));
    let runs = AtomicU32::new(0);
    let work = |transaction: Transaction| {
        runs.fetch_add(1, Ordering::Relaxed);
        async move { enter(&transaction, 1).await }
    };
    assert_eq!(router.alias("primary")?.write_once("key", work).await?, 1);
    assert_eq!((entries(&pair).await?, runs.into_inner()), (1, u32::from(halfway)));
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_killed_process_was_writing_is_there_once_when_its_key_is_used_again() -> Tested {
    if let Ok(url) = std::env::var(URL) {
        return writes_until_it_is_killed(url).await;
    }
    is_there_once_after_the_kill(true).await?;
    is_there_once_after_the_kill(false).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_write_that_waits_for_a_lock_when_it_is_dropped_or_late_ends_at_the_server() -> Tested {
    let pair = Pair::start().await?;
    with_table(&pair).await?;
    pgdetour::migrate(&pair.primary().connect().await?).await?;
    let calls = CallSettings { call_timeout: 500 * MS, ..CallSettings::default() };
    let router: Router = Router::start(pair.config().calls(calls).build()?).await?;
    let primary = router.alias("primary")?;
    let holder = pair.primary().connect().await?;
    holder
        .batch_execute("BEGIN; LOCK TABLE ledger; INSERT INTO pgdetour.writes (key, expires_at) VALUES ('held', now())")
        .await?;
    let admin = pair.primary().connect().await?;
    let waiting = "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock'";
    let until = async |count: i64| {
        let seen = async {
            while admin.query_one(waiting, &[]).await?.get::<_, i64>(0) != count {}
            Ok::<_, tokio_postgres::Error>(())
        };
        soon(&format!("{count} that wait for the lock"), seen).await
    };
    let work = |transaction: Transaction| async move { enter(&transaction, 1).await };
    let dropped = tokio::spawn({
        let primary = primary.clone();
        async move { primary.write(work).await }
    });
    until(1).await??;
    dropped.abort();
    until(0).await??;
    let late = primary.write(work).await.expect_err("the lock is held");
    assert_eq!((late.is_late(), late.outcome()), (true, Outcome::RolledBack), "{late}");
    until(0).await??;
    // This one waits for its key.
    assert!(primary.write_once("held", work).await.expect_err("the key is held").is_late());
    until(0).await??;
    holder.batch_execute("ROLLBACK").await?;
    assert_eq!((primary.write(work).await?, entries(&pair).await?), (1, 1));
    Ok(())
}

/// Waits until no session of the application's is in the middle of anything.
pub(crate) async fn until_none_is_inside(pair: &Pair) -> Tested {
    let admin = pair.primary().connect().await?;
    let inside = "SELECT count(*) FROM pg_stat_activity \
                  WHERE backend_type = 'client backend' AND xact_start IS NOT NULL AND pid <> pg_backend_pid()";
    let ended = async {
        while admin.query_one(inside, &[]).await?.get::<_, i64>(0) > 0 {}
        Ok::<_, tokio_postgres::Error>(())
    };
    Ok(soon("the end of all transactions", ended).await??)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_has_one_effect_and_one_answer_until_it_expires() -> Tested {
    let pair = Pair::start().await?;
    with_table(&pair).await?;
    let calls = CallSettings { once_keep: 1500 * MS, call_timeout: 700 * MS, ..CallSettings::default() };
    let router: Router = Router::start(pair.config().calls(calls).build()?).await?;
    let primary = router.alias("primary")?;
    let once = |key: &'static str, entry: i64| {
        let primary = primary.clone();
        async move {
            let work = |transaction: Transaction| async move {
                enter(&transaction, entry).await?;
                Ok::<_, tokio_postgres::Error>(entry)
            };
            primary.write_once(key, work).await
        }
    };
    let unmade = once("a", 1).await.expect_err("there is no table");
    let source = Error::source(&unmade).and_then(|source| source.downcast_ref::<tokio_postgres::Error>());
    assert_eq!(source.and_then(|error| error.code()), Some(&SqlState::UNDEFINED_TABLE), "{unmade}");
    pgdetour::migrate(&pair.primary().connect().await?).await?;

    assert_eq!((once("it's $q0$", 1).await?, once("it's $q0$", 2).await?), (1, 1));
    // Of those that come together one does it, and all get its answer.
    let together: Vec<_> = (10..14).map(|entry| tokio::spawn(once("together", entry))).collect();
    let mut answers = Vec::new();
    for call in together {
        answers.push(soon("an answer", call).await???);
    }
    answers.dedup();
    assert_eq!((answers.len(), entries(&pair).await?), (1, 2));
    // Another type than was stored: it has happened all the same.
    let wrong = primary.write_once("together", |_| async { Ok::<_, tokio_postgres::Error>(String::new()) }).await;
    assert_eq!(wrong.expect_err("it is a number").outcome(), Outcome::Unknown);
    for key in ["", &"k".repeat(256), "a\0b"] {
        let refused = primary.write_once(key, |_| async { Ok::<_, tokio_postgres::Error>(0) }).await;
        assert_eq!(refused.expect_err("it is no key").outcome(), Outcome::NotSent);
    }
    // An error is not stored.
    let failed =
        primary.write_once("failed", |transaction| async move { transaction.batch_execute("SELECT 1 / 0").await });
    assert_eq!(failed.await.expect_err("a division by zero").outcome(), Outcome::RolledBack);
    assert_eq!(once("failed", 20).await?, 20);
    pair.primary().execute("SELECT pg_sleep(1.6)").await?;
    assert_eq!(once("together", 30).await?, 30);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_commit_with_a_key_whose_answer_is_lost_is_found_by_the_same_call_even_after_a_crash() -> Tested {
    let pair = Pair::start().await?;
    with_table(&pair).await?;
    pgdetour::migrate(&pair.primary().connect().await?).await?;
    let proxy = Proxy::start((pair.primary().host(), pair.primary().port())).await?;
    let way = pair.primary().url_at("127.0.0.1", proxy.addr().port());
    let config = Config::builder().pings(quick()).server("primary", Role::Primary, way);
    let router: Router = Router::start(config.build()?).await?;
    let primary = router.alias("primary")?;
    let crash = async {
        proxy.until_cut().await?;
        pair.primary().kill().await?;
        pair.primary().start().await?;
        proxy.set(Fault::None).await
    };
    let runs = AtomicU32::new(0);
    let written = primary.write_once("key", |transaction| {
        let (proxy, run) = (&proxy, runs.fetch_add(1, Ordering::Relaxed));
        async move {
            enter(&transaction, 1).await?;
            if run == 0 {
                proxy.set(AT_THE_ANSWER).await?;
            }
            Ok::<_, Box<dyn Error + Send + Sync>>(run)
        }
    });
    let (written, crashed) = tokio::join!(written, soon("the cut", crash));
    crashed??;
    // The COMMIT was executed, so the answer is that of the first run.
    assert_eq!((written?, runs.into_inner(), entries(&pair).await?), (0, 1, 1));
    Ok(())
}
