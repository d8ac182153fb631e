//! What does a write cost that the router commits? The same statements through it and in a transaction of a bare pool, in turns.
//!
//! The test kit's servers do not wait for a disk: what is measured is round trips and work, of which a disk would hide most.

mod support;

use std::{
    sync::atomic::{AtomicU64, Ordering},
    time::Duration,
};

use deadpool_postgres::{ClientWrapper, Manager, ManagerConfig, Pool, RecyclingMethod};
use pgdetour::{
    Alias, Config, Router,
    config::{PoolSettings, Role},
    pool::DeadpoolPostgres,
    testkit::{Cluster, Server},
};
use tokio_postgres::{Error, NoTls};

use support::{
    Fallible, Judged, Row, Spread, Unit, Wanted, progress,
    turns::{in_tasks, in_turns, tasks_of},
};

/// Connections of each pool.
const SIZE: usize = 16;
/// Rows for each task: no task waits for another's.
const ROWS: usize = 1000;
const UPDATE: &str = "UPDATE counts SET count = count + 1 WHERE id = $1";

/// What is done in each transaction.
async fn count(client: &ClientWrapper, id: i32) -> Result<u64, Error> {
    let statement = client.prepare_cached(UPDATE).await?;
    client.execute(&statement, &[&id]).await
}

fn row_of(task: usize, turn: usize) -> i32 {
    (task * ROWS + turn % ROWS) as i32
}

/// As many transactions in each task, begun and committed by their caller.
async fn bare(pool: &Pool, tasks: usize, times: usize) -> Duration {
    in_tasks(pool, tasks, move |pool, task| async move {
        for turn in 0..times {
            let mut client = pool.get().await.expect("the server is up");
            let transaction = client.transaction().await.expect("the server is up");
            let statement = transaction.prepare_cached(UPDATE).await.expect("the server is up");
            transaction.execute(&statement, &[&row_of(task, turn)]).await.expect("the server is up");
            transaction.commit().await.expect("the server is up");
        }
    })
    .await
}

async fn write(alias: &Alias<DeadpoolPostgres>, tasks: usize, times: usize) -> Duration {
    in_tasks(alias, tasks, move |alias, task| async move {
        for turn in 0..times {
            let id = row_of(task, turn);
            let written = alias.write(|transaction| async move { count(&transaction, id).await });
            written.await.expect("the server is up");
        }
    })
    .await
}

async fn write_once(alias: &Alias<DeadpoolPostgres>, tasks: usize, times: usize) -> Duration {
    static KEYS: AtomicU64 = AtomicU64::new(0);
    in_tasks(alias, tasks, move |alias, task| async move {
        for turn in 0..times {
            let (id, key) = (row_of(task, turn), KEYS.fetch_add(1, Ordering::Relaxed).to_string());
            let written = alias.write_once(&key, |transaction| async move { count(&transaction, id).await });
            written.await.expect("the server is up");
        }
    })
    .await
}

async fn prepare(server: &Server) -> Fallible<()> {
    let client = server.connect().await?;
    pgdetour::migrate(&client).await?;
    client
        .batch_execute(
            "CREATE TABLE counts (id int PRIMARY KEY, count int NOT NULL) WITH (fillfactor = 50);
             INSERT INTO counts SELECT n, 0 FROM generate_series(0, 10000) AS n",
        )
        .await?;
    client.batch_execute("VACUUM ANALYZE counts").await?;
    Ok(())
}

async fn measure(wanted: Wanted) -> Fallible<Vec<Row>> {
    let cluster = Cluster::builder().setting("shared_buffers", "32MB").start().await?;
    let server = cluster.primary();
    prepare(server).await?;
    let settings = ManagerConfig { recycling_method: RecyclingMethod::Fast };
    let pool = Pool::builder(Manager::from_config(server.url().parse()?, NoTls, settings)).max_size(SIZE).build()?;
    let config = Config::builder().pool(PoolSettings { max_size: SIZE, ..PoolSettings::default() });
    let router: Router = Router::start(config.server("primary", Role::Primary, server.url()).build()?).await?;
    let alias = router.alias("primary")?;
    let mut rows = Vec::new();
    for (part, must, aim) in [("write", 1.5, 1.25), ("write_once", 4.0, 2.5)] {
        for tasks in if wanted.has(part) { [1, 8].as_slice() } else { &[] } {
            let tasks = *tasks;
            progress(format_args!("  {}", tasks_of(tasks)));
            let spread: Spread = match part {
                "write" => in_turns(|times| bare(&pool, tasks, times), |times| write(&alias, tasks, times)).await,
                _ => in_turns(|times| bare(&pool, tasks, times), |times| write_once(&alias, tasks, times)).await,
            };
            rows.push(Row {
                measure: format!("`Alias::{part}` of one UPDATE over `Pool::get` + transaction, {}", tasks_of(tasks)),
                unit: Unit::Ratio,
                judged: Judged::MedianAtMost,
                must,
                aim,
                spread,
            });
        }
    }
    router.shutdown().await;
    Ok(rows)
}

fn main() -> Fallible<()> {
    support::run(measure)
}
