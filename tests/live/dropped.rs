//! What is left of statements whose futures were dropped, wherever that was: nothing that the next user would see (F61 to F64).

use std::{
    future::Future,
    panic::resume_unwind,
    pin::{Pin, pin},
    task::{Context, Poll},
};

use fastrand::Rng;
use pgdetour::{
    Alias, Lease, Router,
    config::{PoolSettings, SessionReset},
    pool::{Bb8Postgres, DeadpoolPostgres},
};
use tokio::{task::JoinSet, time::timeout};
use tokio_postgres::{Client, SimpleQueryMessage};

use crate::harness::{MS, Pair, SOON, Subject, Tested, number, pid, soon};

/// How many futures are dropped in all, and by how many users side by side.
const DROPS: usize = 1_000;
const USERS: usize = 8;

/// A future that is polled so often and no more: then there is nothing.
struct Polls<F> {
    left: usize,
    work: F,
}

impl<F: Future + Unpin> Future for Polls<F> {
    type Output = Option<F::Output>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        if self.left == 0 {
            return Poll::Ready(None);
        }
        self.left -= 1;
        match Pin::new(&mut self.work).poll(cx) {
            Poll::Ready(output) => Poll::Ready(Some(output)),
            // It is not polled again: what would wake it must not be waited for.
            Poll::Pending if self.left == 0 => Poll::Ready(None),
            Poll::Pending => Poll::Pending,
        }
    }
}

/// What a user is in the middle of.
#[derive(Clone, Copy, Debug)]
enum Work {
    Begin,
    Query,
    Commit,
    CopyIn,
    CopyOut,
}

async fn work(client: &Client, work: Work) -> Result<(), tokio_postgres::Error> {
    match work {
        Work::Begin => {
            client.batch_execute("BEGIN").await?;
            client.execute("INSERT INTO dropped VALUES (1)", &[]).await?;
        }
        Work::Query => drop(client.query("SELECT n, pg_sleep(0.0005) FROM generate_series(1, 5) AS n", &[]).await?),
        Work::Commit => {
            client.batch_execute("BEGIN; INSERT INTO dropped VALUES (2)").await?;
            client.batch_execute("COMMIT").await?;
        }
        Work::CopyIn => {
            let mut sink = pin!(client.copy_in::<_, &'static [u8]>("COPY dropped FROM STDIN").await?);
            sink.as_mut().finish().await?;
        }
        Work::CopyOut => {
            // Nobody reads these rows, so what comes after them never does.
            let _rows = client.copy_out("COPY (SELECT generate_series(1, 20000)) TO STDOUT").await?;
            client.batch_execute("SELECT 1").await?;
        }
    }
    Ok(())
}

/// Whether a lease is as a new connection would be: outside of a transaction, and it answers what it was asked.
async fn is_clean<B: Subject>(lease: &Lease<B>, tag: i64) -> bool {
    let sql = format!(
        "SELECT {tag}::int8 WHERE transaction_timestamp() = statement_timestamp() AND pg_current_xact_id_if_assigned() IS NULL"
    );
    let Ok(answers) = B::client(lease).simple_query(&sql).await else { return false };
    let rows = answers.iter().filter_map(|answer| match answer {
        SimpleQueryMessage::Row(row) => row.get(0),
        _ => None,
    });
    rows.eq([tag.to_string().as_str()])
}

/// One user: takes a connection, looks at it, begins something, and is gone in the middle of it. How many were not clean.
async fn user<B: Subject>(primary: Alias<B>, mut rng: Rng) -> Result<usize, String> {
    let mut dirty = 0;
    for turn in 0..DROPS / USERS {
        let lease = primary.get().await.map_err(|error| error.to_string())?;
        let tag = i64::from(rng.i32(..));
        dirty += usize::from(!is_clean(&lease, tag).await);
        let kind = rng.choice([Work::Begin, Work::Query, Work::Commit, Work::CopyIn, Work::CopyOut]).expect("five");
        let (left, within, panics) = (rng.usize(0..12), rng.u32(1..10) * MS, turn % 10 == 9);
        let gone = tokio::spawn(async move {
            let ended = timeout(within, Polls { left, work: Box::pin(work(B::client(&lease), kind)) }).await;
            if panics {
                resume_unwind(Box::new("on purpose, and without a word on the terminal"));
            }
            drop((ended, lease));
        });
        assert_eq!(gone.await.is_err(), panics);
    }
    Ok(dirty)
}

async fn dropped_anywhere<B: Subject>() -> Tested {
    let seed =
        std::env::var("PGDETOUR_SEED").ok().and_then(|seed| seed.parse().ok()).unwrap_or_else(|| fastrand::u64(..));
    println!("PGDETOUR_SEED={seed}");
    let pair = Pair::start().await?;
    pair.primary().execute("CREATE TABLE dropped (n int)").await?;
    let pool = PoolSettings { acquire_timeout: SOON, ..PoolSettings::of_size(4) };
    let router = Router::<B>::start(pair.config().pool(pool).build()?).await?;
    let primary = router.alias("primary")?;
    let mut rng = Rng::with_seed(seed);
    let users: JoinSet<_> = (0..USERS).map(|_| user(primary.clone(), rng.fork())).collect();
    let dirty = soon("all users", users.join_all()).await?.into_iter().sum::<Result<usize, _>>()?;
    assert_eq!(dirty, 0, "leases of {DROPS} were dirty, PGDETOUR_SEED={seed}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn futures_dropped_anywhere_and_panics_leave_no_dirty_lease() -> Tested {
    dropped_anywhere::<DeadpoolPostgres>().await
}

#[tokio::test(flavor = "multi_thread")]
async fn with_bb8_too_futures_dropped_anywhere_leave_no_dirty_lease() -> Tested {
    dropped_anywhere::<Bb8Postgres>().await
}

/// What a session keeps, as the next user finds it: its name, its locks, its temporary tables.
async fn kept<B: Subject>(lease: &Lease<B>) -> Result<(String, i64, i64), tokio_postgres::Error> {
    let name = B::client(lease).query_one("SHOW application_name", &[]).await?.get(0);
    let locks = "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND pid = pg_backend_pid()";
    let tables = "SELECT count(to_regclass('pg_temp.scratch'))";
    Ok((name, number(lease, locks).await?, number(lease, tables).await?))
}

async fn sessions_are_reset<B: Subject>(reset: SessionReset) -> Tested {
    let pair = Pair::start().await?;
    let pool = PoolSettings { session_reset: reset, ..PoolSettings::of_size(1) };
    let router = Router::<B>::start(pair.config().pool(pool).build()?).await?;
    let leaves = [
        ("primary", "SET application_name = 'mine'; SELECT pg_advisory_lock(1); CREATE TEMP TABLE scratch ()", 1),
        ("replica", "SET application_name = 'mine'; SELECT pg_advisory_lock(1)", 0),
    ];
    for (alias, sql, tables) in leaves {
        let alias = router.alias(alias)?;
        let lease = alias.get().await?;
        let (first, statement) = (pid(&lease).await?, B::client(&lease).prepare("SELECT 7::int8").await?);
        let fresh = kept(&lease).await?;
        B::client(&lease).batch_execute(sql).await?;
        assert_eq!(kept(&lease).await?, ("mine".to_owned(), 1, tables));
        drop(lease);
        let next = soon("the same connection", alias.get()).await??;
        assert_eq!(pid(&next).await?, first, "it is reset, not closed");
        match reset {
            SessionReset::DiscardAll => assert_eq!(kept(&next).await?, fresh),
            SessionReset::None => assert_eq!(kept(&next).await?, ("mine".to_owned(), 1, tables)),
        }
        // What the driver has prepared it goes on using.
        assert_eq!(B::client(&next).query_one(&statement, &[]).await?.get::<_, i64>(0), 7);
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_that_is_to_be_reset_forgets_its_last_user_and_keeps_its_prepared_statements() -> Tested {
    sessions_are_reset::<DeadpoolPostgres>(SessionReset::DiscardAll).await?;
    sessions_are_reset::<Bb8Postgres>(SessionReset::DiscardAll).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_that_is_not_to_be_reset_keeps_what_it_has() -> Tested {
    sessions_are_reset::<DeadpoolPostgres>(SessionReset::None).await
}
