//! A `COMMIT` whose answer is lost, and another server that is the primary by the time somebody asks (F27, F31, F37).

use std::{
    error::Error,
    future::ready,
    sync::atomic::{AtomicU32, Ordering},
};

use pgdetour::{
    Config, Router, Transaction,
    config::{ConfigError, Pings, PoolSettings, Role},
    policy::Outcome,
    testkit::{Fault, Proxy, Server},
};

use crate::{
    harness::{Pair, Tested, quick, soon},
    write::{enter, entries, with_table},
};

/// Has each `COMMIT` of an entry wait for whoever holds this lock.
const SLOW_COMMIT: &str = "
    CREATE FUNCTION wait() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN PERFORM pg_advisory_xact_lock(1); RETURN NULL; END';
    CREATE CONSTRAINT TRIGGER slow AFTER INSERT ON ledger DEFERRABLE INITIALLY DEFERRED
        FOR EACH ROW EXECUTE FUNCTION wait()";

/// A pair whose commits can be held up, a proxy to its primary, and a router that knows no other way and no other server.
async fn stage() -> Result<(Pair, Proxy, Router), Box<dyn Error>> {
    let pair = Pair::start().await?;
    with_table(&pair).await?;
    pair.primary().execute(SLOW_COMMIT).await?;
    pgdetour::migrate(&pair.primary().connect().await?).await?;
    pair.wait_for_replay().await?;
    let proxy = Proxy::start((pair.primary().host(), pair.primary().port())).await?;
    let router = Router::start(only(pair.primary().url_at("127.0.0.1", proxy.addr().port()))?).await?;
    Ok((pair, proxy, router))
}

fn only(way: String) -> Result<Config, ConfigError> {
    // What is cut here is no outage.
    let pings = Pings { failure_threshold: 100, ..quick() };
    Config::builder().pings(pings).pool(PoolSettings::of_size(1)).server("primary", Role::Primary, way).build()
}

/// Writes, and cuts the way while the `COMMIT` is under way; nobody gets through any more. What else is done `before` the cut, and
/// `after` the `COMMIT` has been executed all the same?
async fn cut_a_commit<T>(
    (pair, proxy): (&Pair, &Proxy),
    write: impl Future<Output = T>,
    before: impl Future<Output = Tested>,
    after: impl Future<Output = Tested>,
) -> Result<T, Box<dyn Error>> {
    let admin = pair.primary().connect().await?;
    admin.query("SELECT pg_advisory_lock(1)", &[]).await?;
    let cut = async {
        let committing = "SELECT 1 FROM pg_stat_activity WHERE wait_event = 'advisory'";
        let begun = async {
            while admin.query(committing, &[]).await?.is_empty() {}
            Ok::<_, tokio_postgres::Error>(())
        };
        soon("a COMMIT", begun).await??;
        before.await?;
        proxy.set(Fault::Reset).await?;
        while proxy.open() > 0 {
            tokio::task::yield_now().await;
        }
        proxy.set(Fault::Hang).await?;
        admin.query("SELECT pg_advisory_unlock(1)", &[]).await?;
        let done = async {
            while entries(pair).await? == 0 {}
            Ok::<_, Box<dyn Error>>(())
        };
        soon("the end of the COMMIT", done).await??;
        after.await
    };
    let (written, cut) = tokio::join!(write, cut);
    cut?;
    Ok(written)
}

async fn count(server: &Server, sql: &str) -> Result<i64, Box<dyn Error>> {
    Ok(server.connect().await?.query_one(sql, &[]).await?.get(0))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_was_promoted_is_not_believed_about_a_commit_of_another_timeline() -> Tested {
    let (pair, proxy, router) = stage().await?;
    let (primary, promoted) = (router.alias("primary")?, pair.replica());
    promoted.promote().await?;
    // It gives out the same numbers, to others.
    let others = "DO 'BEGIN FOR n IN 1..200 LOOP PERFORM pg_current_xact_id(); COMMIT; END LOOP; END'";
    promoted.execute(others).await?;
    let before = async { Ok(router.reload(only(promoted.url())?).await?) };
    let write = primary.write(|transaction| async move { enter(&transaction, 1).await });
    let written = cut_a_commit((&pair, &proxy), write, before, ready(Ok(()))).await?;
    let asked = "SELECT count(*) FROM pg_stat_activity WHERE query LIKE 'SELECT pg_catalog.pg_xact_status%'";
    assert_eq!(count(promoted, asked).await?, 1, "it was asked");
    assert_eq!(written.expect_err("nobody knows").outcome(), Outcome::Unknown);
    Ok(())
}

/// A write with a key whose `COMMIT` is cut, after which the primary dies and its replica takes its place: the answer, how often
/// the work was run, and how many entries are there then.
async fn fail_over_in_a_commit(replicates: bool) -> Result<(u32, u32, i64), Box<dyn Error>> {
    let (pair, proxy, router) = stage().await?;
    let (primary, replica) = (router.alias("primary")?, pair.replica());
    if !replicates {
        replica.execute("ALTER SYSTEM SET primary_conninfo = ''").await?;
        replica.execute("SELECT pg_reload_conf()").await?;
        let ended = async {
            while count(replica, "SELECT count(*) FROM pg_stat_wal_receiver").await? > 0 {}
            Ok::<_, Box<dyn Error>>(())
        };
        soon("the end of replication", ended).await??;
    }
    let fail_over = async {
        if replicates {
            pair.wait_for_replay().await?;
        }
        pair.primary().kill().await?;
        replica.promote().await?;
        Ok(router.reload(only(replica.url())?).await?)
    };
    let runs = AtomicU32::new(0);
    let write = primary.write_once("key", |transaction: Transaction| {
        let run = runs.fetch_add(1, Ordering::Relaxed);
        async move { enter(&transaction, 1).await.map(|_| run) }
    });
    let written = cut_a_commit((&pair, &proxy), write, ready(Ok(())), fail_over).await?;
    Ok((written?, runs.into_inner(), count(replica, "SELECT count(*) FROM ledger").await?))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_write_with_a_key_is_found_on_the_server_that_is_the_primary_by_then() -> Tested {
    assert_eq!(fail_over_in_a_commit(true).await?, (0, 1, 1), "the answer of the first run");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_write_with_a_key_that_a_failover_has_lost_is_made_again() -> Tested {
    assert_eq!(fail_over_in_a_commit(false).await?, (1, 2, 1), "the answer of the second run");
    Ok(())
}
