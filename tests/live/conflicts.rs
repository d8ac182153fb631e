//! Writes in each other's way: what the server undoes is done again, and what it may have done is said so (F27, F54, F62).

use std::{
    error::Error,
    sync::atomic::{AtomicU32, Ordering},
};

use pgdetour::{Alias, Router, Transaction, config::CallSettings, policy::Outcome, pool::DeadpoolPostgres};
use tokio::{sync::Barrier, try_join};

use crate::{
    harness::{MS, Pair, Tested, soon},
    write::{enter, entries, until_none_is_inside, with_table},
};

#[tokio::test(flavor = "multi_thread")]
async fn of_two_writes_that_deadlock_both_happen() -> Tested {
    let pair = Pair::start().await?;
    pair.primary().execute("CREATE TABLE pots AS SELECT n, 0 AS count FROM generate_series(1, 2) AS n").await?;
    let router = pair.router::<DeadpoolPostgres>().await?;
    let (primary, runs, both) = (router.alias("primary")?, AtomicU32::new(0), Barrier::new(2));
    let fill = |first: i32, second: i32| {
        primary.write({
            let (runs, both) = (&runs, &both);
            move |transaction| async move {
                let add = "UPDATE pots SET count = count + 1 WHERE n = $1";
                transaction.execute(add, &[&first]).await?;
                if runs.fetch_add(1, Ordering::Relaxed) < 2 {
                    both.wait().await;
                }
                transaction.execute(add, &[&second]).await
            }
        })
    };
    soon("both writes", async { try_join!(fill(1, 2), fill(2, 1)) }).await??;
    let row = pair.primary().connect().await?.query_one("SELECT min(count), max(count) FROM pots", &[]).await?;
    assert_eq!((row.get(0), row.get(1), runs.into_inner()), (2, 2, 3));
    Ok(())
}

/// Two writes that each note how many entries they see, with a key or without.
async fn note_both(primary: &Alias, with_key: bool) -> Result<u32, Box<dyn Error>> {
    let (runs, both) = (AtomicU32::new(0), Barrier::new(2));
    let note = |key: &'static str| {
        let (runs, both) = (&runs, &both);
        let work = move |transaction: Transaction| async move {
            transaction.execute("INSERT INTO ledger SELECT count(*) FROM ledger", &[]).await?;
            // Neither sees what the other has done, and the server finds out when the second commits.
            if runs.fetch_add(1, Ordering::Relaxed) < 2 {
                both.wait().await;
            }
            Ok::<_, tokio_postgres::Error>(())
        };
        async move { if with_key { primary.write_once(key, work).await } else { primary.write(work).await } }
    };
    soon("both writes", async { try_join!(note("one"), note("other")) }).await??;
    Ok(runs.into_inner())
}

#[tokio::test(flavor = "multi_thread")]
async fn of_two_serializable_writes_that_contradict_each_other_one_is_made_again_at_its_commit() -> Tested {
    let pair = Pair::with(|cluster| cluster.primary_setting("default_transaction_isolation", "serializable")).await?;
    with_table(&pair).await?;
    pgdetour::migrate(&pair.primary().connect().await?).await?;
    let router = pair.router::<DeadpoolPostgres>().await?;
    let primary = router.alias("primary")?;
    for with_key in [false, true] {
        let before = entries(&pair).await?;
        let runs = note_both(&primary, with_key).await?;
        let seen = "SELECT count(DISTINCT entry), count(*) FROM ledger";
        let row = pair.primary().connect().await?.query_one(seen, &[]).await?;
        assert_eq!((row.get(0), row.get(1)), (before + 2, before + 2), "as if one after the other");
        assert!(runs > 2, "nothing was made again");
    }
    Ok(())
}

/// A write that leaves a statement of so long behind, which has been sent by then.
async fn leave_behind(primary: &Alias, seconds: &str) -> Result<u64, pgdetour::Error> {
    let slow = format!("SELECT pg_sleep({seconds})");
    let work = |transaction: Transaction| {
        let slow = &slow;
        async move {
            let entered = enter(&transaction, 1).await?;
            tokio::select! {
                biased;
                _ = transaction.batch_execute(slow) => {}
                () = std::future::ready(()) => {}
            }
            Ok::<_, tokio_postgres::Error>(entered)
        }
    };
    primary.write(work).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_commit_behind_a_statement_that_takes_too_long_is_unknown() -> Tested {
    let pair = Pair::start().await?;
    with_table(&pair).await?;
    let calls = CallSettings { call_timeout: 1500 * MS, ..CallSettings::default() };
    let router = Router::start(pair.config().calls(calls).build()?).await?;
    let error = leave_behind(&router.alias("primary")?, "3").await.expect_err("its time is over");
    assert_eq!((error.outcome(), error.is_late()), (Outcome::Unknown, true), "{error}");
    // Whether the server still reads the COMMIT once it has slept is for it to say. Nothing goes on either way.
    until_none_is_inside(&pair).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_commit_behind_a_statement_that_is_cancelled_is_rolled_back() -> Tested {
    let pair = Pair::start().await?;
    with_table(&pair).await?;
    let router = pair.router::<DeadpoolPostgres>().await?;
    let (primary, admin) = (router.alias("primary")?, pair.primary().connect().await?);
    let cancel = async {
        let sleeping = "SELECT pg_cancel_backend(pid) FROM pg_stat_activity WHERE wait_event = 'PgSleep'";
        while admin.query(sleeping, &[]).await?.is_empty() {}
        Ok::<_, tokio_postgres::Error>(())
    };
    let (written, cancelled) = tokio::join!(leave_behind(&primary, "20"), cancel);
    cancelled?;
    let error = written.expect_err("it fails");
    assert_eq!(error.outcome(), Outcome::RolledBack, "{error}");
    assert_eq!(entries(&pair).await?, 0);
    Ok(())
}
