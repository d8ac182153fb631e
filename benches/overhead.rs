//! What does the router cost? The same work through it and through the bare pool, in turns, on one PostgreSQL.

mod support;

use std::{future::Future, ops::Range, sync::Arc, time::Duration};

use deadpool_postgres::{Manager, ManagerConfig, RecyclingMethod};
use pgdetour::{
    Alias, Config, Router,
    config::{PoolSettings, Role},
    pool::{Backend, Bb8Postgres, DeadpoolPostgres},
    testkit::{Cluster, Server},
};
use tokio_postgres::NoTls;

use support::{
    Fallible, Judged, Row, Unit, Wanted, progress,
    turns::{in_tasks, in_turns, tasks_of},
};

/// Connections of each pool, all open and idle before anything is measured.
const SIZE: u32 = 16;
/// The same of a pool in which nobody has to wait.
const ROOMY: u32 = 32;
/// Rows of the table that is read.
const ROWS: i32 = 10_000;
const SELECT: &str = "SELECT note FROM orders WHERE id = $1";

/// Something that lends connections: a bare pool, or an alias.
trait Source: Clone + Send + Sync + 'static {
    type Held: Send + Sync;

    fn get(&self) -> impl Future<Output = Self::Held> + Send;
}

/// Something whose connections can be read over.
trait Readable: Source {
    fn read(held: &Self::Held, id: i32) -> impl Future<Output = ()> + Send;
}

impl Source for deadpool_postgres::Pool {
    type Held = deadpool_postgres::Client;

    async fn get(&self) -> Self::Held {
        Self::get(self).await.expect("the server is up")
    }
}

impl Readable for deadpool_postgres::Pool {
    async fn read(held: &Self::Held, id: i32) {
        read(held, id).await;
    }
}

impl Readable for Alias<DeadpoolPostgres> {
    async fn read(held: &Self::Held, id: i32) {
        read(held, id).await;
    }
}

async fn read(client: &deadpool_postgres::ClientWrapper, id: i32) {
    let statement = client.prepare_cached(SELECT).await.expect("the server is up");
    let row = client.query_one(&statement, &[&id]).await.expect("the server is up");
    assert_eq!(row.get::<_, &str>(0), format!("order {id}"));
}

impl Source for bb8::Pool<Bare> {
    type Held = bb8::PooledConnection<'static, Bare>;

    async fn get(&self) -> Self::Held {
        self.get_owned().await.expect("the server is up")
    }
}

impl<B: Backend<Connection: Sync>> Source for Alias<B> {
    type Held = pgdetour::Lease<B>;

    async fn get(&self) -> Self::Held {
        Self::get(self).await.expect("the server is up")
    }
}

/// What people run over bb8: a client, with its connection in a task of its own.
struct Bare(tokio_postgres::Config);

impl bb8::ManageConnection for Bare {
    type Connection = tokio_postgres::Client;
    type Error = tokio_postgres::Error;

    async fn connect(&self) -> Result<Self::Connection, Self::Error> {
        let (client, connection) = self.0.connect(NoTls).await?;
        tokio::spawn(connection);
        Ok(client)
    }

    async fn is_valid(&self, client: &mut Self::Connection) -> Result<(), Self::Error> {
        client.check_connection().await
    }

    fn has_broken(&self, client: &mut Self::Connection) -> bool {
        client.is_closed()
    }
}

/// Takes a connection and gives it back, `times` over, in each of `tasks` tasks; how long all of them took.
async fn borrow<S: Source>(source: &S, tasks: usize, times: usize) -> Duration {
    in_tasks(source, tasks, move |source, _| async move {
        for _ in 0..times {
            drop(source.get().await);
        }
    })
    .await
}

/// Reads a row by its primary key, `times` over, in each of `tasks` tasks, each time over a connection taken for that.
async fn select<S: Readable>(source: &S, tasks: usize, times: usize) -> Duration {
    in_tasks(source, tasks, move |source, task| async move {
        for turn in 0..times {
            let id = (task * 7919 + turn * 31) % ROWS as usize;
            S::read(&source.get().await, id as i32).await;
        }
    })
    .await
}

/// The same by `Alias::read`.
async fn read_over(alias: &Alias<DeadpoolPostgres>, tasks: usize, times: usize) -> Duration {
    in_tasks(alias, tasks, move |alias, task| async move {
        for turn in 0..times {
            let id = ((task * 7919 + turn * 31) % ROWS as usize) as i32;
            let work = |client: pgdetour::Lease| async move {
                read(&client, id).await;
                Ok::<_, tokio_postgres::Error>(())
            };
            alias.read(work).await.expect("the server is up");
        }
    })
    .await
}

async fn borrowing<A: Source, B: Source>(pool: &str, tasks: usize, bare: &A, alias: &B) -> Row {
    progress(format_args!("get and drop, {pool}, {tasks} tasks"));
    Row {
        measure: format!("`Alias::get()` + drop over bare `Pool::get()` + drop, {pool}, {}", tasks_of(tasks)),
        unit: Unit::Ratio,
        judged: Judged::MedianAtMost,
        must: 1.15,
        aim: 1.05,
        spread: in_turns(|times| borrow(bare, tasks, times), |times| borrow(alias, tasks, times)).await,
    }
}

async fn reading<A: Readable, B: Readable>(tasks: usize, size: u32, bare: &A, alias: &B) -> Row {
    progress(format_args!("primary-key SELECT, {tasks} tasks over {size} connections"));
    let measure = "throughput of primary-key SELECTs over the bare pool's";
    Row {
        measure: format!("{measure}, {} over {size} connections", tasks_of(tasks)),
        unit: Unit::Ratio,
        judged: Judged::MedianAtLeast,
        must: 0.98,
        aim: 1.0,
        // Times are the inverse of throughputs.
        spread: in_turns(|times| select(alias, tasks, times), |times| select(bare, tasks, times)).await,
    }
}

/// What is left of the cost where a connection is taken once: the tap, and the session that turns with it.
async fn holding(bare: &deadpool_postgres::Pool, alias: &Alias<DeadpoolPostgres>) -> Row {
    progress("primary-key SELECT over a connection that is held");
    let (bare, lease) = (Arc::new(Source::get(bare).await), Arc::new(Source::get(alias).await));
    let over_bare = |times| read_held::<deadpool_postgres::Pool>(&bare, times);
    Row {
        measure: "throughput of primary-key SELECTs over the bare pool's, one connection that is held".to_owned(),
        unit: Unit::Ratio,
        judged: Judged::MedianAtLeast,
        must: 0.99,
        aim: 1.0,
        // As above.
        spread: in_turns(|times| read_held::<Alias<DeadpoolPostgres>>(&lease, times), over_bare).await,
    }
}

async fn read_held<S: Readable>(held: &Arc<S::Held>, times: usize) -> Duration {
    in_tasks(held, 1, move |held, _| async move {
        for turn in 0..times {
            S::read(&held, (turn * 31 % ROWS as usize) as i32).await;
        }
    })
    .await
}

async fn calling(tasks: usize, bare: &deadpool_postgres::Pool, alias: &Alias<DeadpoolPostgres>) -> Row {
    progress(format_args!("Alias::read, {tasks} tasks"));
    Row {
        measure: format!("`Alias::read` over `Pool::get` + query, healthy, {}", tasks_of(tasks)),
        unit: Unit::Ratio,
        judged: Judged::MedianAtMost,
        must: 1.05,
        aim: 1.01,
        spread: in_turns(|times| select(bare, tasks, times), |times| read_over(alias, tasks, times)).await,
    }
}

/// Opens all connections of a pool.
async fn fill<S: Source>(source: &S, size: u32) {
    let mut held = Vec::new();
    for _ in 0..size {
        held.push(source.get().await);
    }
}

/// A bare pool and an alias over a pool as large, all connections open, and the router that has to be shut down.
async fn deadpools(
    server: &Server,
    size: u32,
) -> Fallible<(deadpool_postgres::Pool, Alias<DeadpoolPostgres>, Router<DeadpoolPostgres>)> {
    let settings = ManagerConfig { recycling_method: RecyclingMethod::Fast };
    let connections = Manager::from_config(server.url().parse()?, NoTls, settings);
    let bare = deadpool_postgres::Pool::builder(connections).max_size(size as usize).build()?;
    let router: Router<DeadpoolPostgres> = Router::start(config(server, size)?).await?;
    let alias = router.alias("primary")?;
    tokio::join!(fill(&bare, size), fill(&alias, size));
    Ok((bare, alias, router))
}

async fn prepare(server: &Server) -> Fallible<()> {
    let client = server.connect().await?;
    let rows: Range<i32> = 0..ROWS;
    client.batch_execute("CREATE TABLE orders (id int PRIMARY KEY, note text NOT NULL)").await?;
    client
        .execute(
            "INSERT INTO orders SELECT n, 'order ' || n FROM generate_series($1::int, $2::int) n",
            &[&rows.start, &rows.end],
        )
        .await?;
    client.batch_execute("VACUUM ANALYZE orders").await?;
    Ok(())
}

fn config(server: &Server, size: u32) -> Fallible<Config> {
    let pool = PoolSettings { max_size: size as usize, ..PoolSettings::default() };
    Ok(Config::builder().pool(pool).server("primary", Role::Primary, server.url()).build()?)
}

async fn measure(_: Wanted) -> Fallible<Vec<Row>> {
    let cluster =
        Cluster::builder().setting("shared_buffers", "32MB").setting("max_connections", "200").start().await?;
    let server = cluster.primary();
    prepare(server).await?;
    let mut rows = Vec::new();

    let (bare, alias, router) = deadpools(server, SIZE).await?;
    for tasks in [1, 8] {
        rows.push(borrowing("deadpool", tasks, &bare, &alias).await);
    }
    let mut reads = Vec::new();
    for tasks in [1, 8, 32] {
        reads.push(reading(tasks, SIZE, &bare, &alias).await);
    }
    reads.push(holding(&bare, &alias).await);
    reads.push(calling(8, &bare, &alias).await);
    router.shutdown().await;
    bare.close();

    let (bare, alias, router) = deadpools(server, ROOMY).await?;
    reads.insert(2, reading(32, ROOMY, &bare, &alias).await);
    router.shutdown().await;
    bare.close();

    let builder = bb8::Pool::builder().max_size(SIZE).test_on_check_out(false);
    let bare = builder.build(Bare(server.url().parse()?)).await?;
    let router: Router<Bb8Postgres> = Router::start(config(server, SIZE)?).await?;
    let alias = router.alias("primary")?;
    tokio::join!(fill(&bare, SIZE), fill(&alias, SIZE));
    for tasks in [1, 8] {
        rows.push(borrowing("bb8", tasks, &bare, &alias).await);
    }
    rows.extend(reads);
    router.shutdown().await;
    Ok(rows)
}

fn main() -> Fallible<()> {
    support::run(measure)
}
