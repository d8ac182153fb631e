//! Every back end gives the same verdicts: one suite, run over deadpool, over bb8 and, but for what needs a tap, over sqlx.

#![cfg(all(feature = "deadpool", feature = "bb8", feature = "sqlx", feature = "testkit"))]

use std::{
    error::Error,
    future::Future,
    io,
    pin::pin,
    sync::Arc,
    task::{Context, Poll, Waker},
    time::Duration,
};

use pgdetour::{
    config::{AliasKind, Config, PoolSettings, Role},
    health::{Belief, State},
    policy::{Fault, Network},
    pool::{
        AcquireError, AcquireErrorKind, Backend, Bb8Postgres, Condition, Connector, DeadpoolPostgres, Dial, FromSpec,
        PoolSpec, Server, Sqlx, SqlxSession,
    },
    testkit::Cluster,
};
use sqlx::{Connection as _, Executor as _};
use tokio::{net::TcpListener, runtime::Handle, sync::Notify, task::JoinSet, time::timeout};

type Tested = Result<(), Box<dyn Error>>;

/// Long enough for anything that is going to happen at all.
const SOON: Duration = Duration::from_secs(20);

/// A back end under test.
trait Subject: FromSpec + Backend<Connection: Sync> {}

impl Subject for DeadpoolPostgres {}

impl Subject for Bb8Postgres {}

impl Subject for Sqlx {}

/// A pool, and the server it connects to as the router knows it.
struct Bench<B> {
    pool: Arc<B>,
    server: Arc<Server>,
}

impl<B: Subject> Bench<B> {
    fn new(url: &str, max_size: usize, connect_timeout: Duration) -> Result<Self, Box<dyn Error>> {
        Self::with(url, &PoolSettings { max_size, connect_timeout, ..PoolSettings::default() })
    }

    fn with(url: &str, settings: &PoolSettings) -> Result<Self, Box<dyn Error>> {
        let config = Config::builder().server("primary", Role::Primary, url).build()?;
        let alias = &config.aliases()[0];
        let AliasKind::Server(declared) = &alias.kind else { unreachable!("one server is declared") };
        let server = Server::new(alias.name.clone(), declared.target.address(), Arc::new(Notify::new()));
        let server = Arc::new(server);
        let dial = Dial::new(&declared.target)?;
        let connector = Connector::new(Arc::clone(&server), dial, settings, Handle::current());
        let spec = PoolSpec::new(alias.name.clone(), connector, settings);
        Ok(Self { pool: Arc::new(B::from_spec(spec)?), server })
    }

    fn over(cluster: &Cluster, max_size: usize) -> Result<Self, Box<dyn Error>> {
        Self::new(&cluster.primary().url(), max_size, SOON)
    }

    async fn acquire(&self) -> Result<B::Connection, Box<dyn Error>> {
        Ok(timeout(SOON, lend(&*self.pool)).await??)
    }

    async fn acquire_all(&self, count: usize) -> Result<Vec<B::Connection>, Box<dyn Error>> {
        let mut lent = Vec::new();
        for _ in 0..count {
            lent.push(self.acquire().await?);
        }
        Ok(lent)
    }

    async fn refusal(&self) -> Result<AcquireError, Box<dyn Error>> {
        match timeout(SOON, lend(&*self.pool)).await? {
            Ok(_) => Err("a connection was lent".into()),
            Err(error) => Ok(error),
        }
    }

    /// Waits until so many sessions of the pool are left on the server.
    async fn sessions(&self, cluster: &Cluster, count: i64) -> Tested {
        let observer = cluster.primary().connect().await?;
        let sql = "SELECT count(*) FROM pg_stat_activity
                   WHERE backend_type = 'client backend' AND pid <> pg_backend_pid()";
        let reached = async {
            while observer.query_one(sql, &[]).await?.get::<_, i64>(0) != count {}
            Ok::<_, tokio_postgres::Error>(())
        };
        timeout(SOON, reached).await.map_err(|_| format!("never {count} sessions"))??;
        Ok(())
    }

    /// Waits until the pool says so.
    async fn until(&self, what: impl Fn(&B) -> bool) -> Tested {
        let reached = async {
            while !what(&self.pool) {
                tokio::task::yield_now().await;
            }
        };
        Ok(timeout(SOON, reached).await.map_err(|_| format!("still {:?}", self.pool.status()))?)
    }
}

/// The first column of the first row, if there is one.
async fn ask<B: Subject>(connection: &B::Connection, sql: &str) -> Result<String, String> {
    let row = B::execute(connection, sql).await.map_err(|error| error.to_string())?;
    Ok(row.into_iter().flatten().next().unwrap_or_default())
}

async fn pid<B: Subject>(connection: &B::Connection) -> Result<String, String> {
    ask::<B>(connection, "SELECT pg_backend_pid()").await
}

/// Waits for the end of a connection that was told to end.
async fn ended<B: Subject>(connection: &B::Connection) -> Tested {
    let end = async {
        while !B::is_closed(connection) {
            tokio::task::yield_now().await;
        }
    };
    Ok(timeout(SOON, end).await?)
}

fn poll_once<F: Future>(future: F) -> Poll<F::Output> {
    pin!(future).poll(&mut Context::from_waker(Waker::noop()))
}

/// The address of a port where nobody listens.
async fn nobody() -> io::Result<String> {
    let address = TcpListener::bind("127.0.0.1:0").await?.local_addr()?;
    Ok(format!("postgres://app@{address}/app"))
}

async fn lend<B: Backend>(pool: &B) -> Result<B::Connection, AcquireError> {
    pool.acquire().await.map_err(Into::into)
}

async fn lends_what_it_took_back<B: Subject>() -> Tested {
    let cluster = Cluster::start(0).await?;
    let bench = Bench::<B>::over(&cluster, 4)?;
    let first = bench.acquire().await?;
    let known = pid::<B>(&first).await?;
    drop(first);
    assert_eq!((bench.pool.status().size, bench.pool.status().idle), (1, 1));
    let Poll::Ready(again) = poll_once(lend(&*bench.pool)) else {
        return Err("an idle connection is lent at the first poll".into());
    };
    assert_eq!(pid::<B>(&again?).await?, known);
    Ok(())
}

async fn never_holds_more_than_its_size<B: Subject>() -> Tested {
    let cluster = Cluster::start(0).await?;
    let bench = Bench::<B>::over(&cluster, 3)?;
    let mut tasks = JoinSet::new();
    for _ in 0..40 {
        let pool = Arc::clone(&bench.pool);
        tasks.spawn(async move {
            let connection = lend(&*pool).await?;
            let pid = pid::<B>(&connection).await?;
            assert!(pool.status().size <= 3, "{:?}", pool.status());
            Ok::<_, Box<dyn Error + Send + Sync>>(pid)
        });
    }
    let pids = timeout(SOON, tasks.join_all()).await?.into_iter().collect::<Result<Vec<_>, _>>();
    let mut pids = pids.map_err(|error| error.to_string())?;
    pids.sort_unstable();
    pids.dedup();
    assert!(pids.len() <= 3, "{pids:?}");
    Ok(())
}

async fn waits_when_exhausted_for_what_comes_back<B: Subject>() -> Tested {
    let cluster = Cluster::start(0).await?;
    let bench = Bench::<B>::over(&cluster, 1)?;
    let held = bench.acquire().await?;
    let known = pid::<B>(&held).await?;
    let mut waiting = Box::pin(lend(&*bench.pool));
    assert!(poll_once(waiting.as_mut()).is_pending());
    drop(held);
    assert_eq!(pid::<B>(&timeout(SOON, waiting).await??).await?, known);
    Ok(())
}

async fn a_dropped_acquire_loses_nothing<B: Subject>() -> Tested {
    let cluster = Cluster::start(0).await?;
    let bench = Bench::<B>::over(&cluster, 2)?;
    for _ in 0..20 {
        assert!(poll_once(lend(&*bench.pool)).is_pending(), "it connects");
    }
    let held = bench.acquire_all(2).await?;
    let mut waiting: Vec<_> = (0..20).map(|_| Box::pin(lend(&*bench.pool))).collect();
    assert!(waiting.iter_mut().all(|acquire| poll_once(acquire.as_mut()).is_pending()));
    drop(held);
    // Those that were woken by what came back are dropped without taking it.
    drop(waiting);
    drop(bench.acquire_all(2).await?);
    bench.sessions(&cluster, 2).await
}

async fn a_refused_connect_is_reported_at_once_with_its_cause<B: Subject>() -> Tested {
    let bench = Bench::<B>::new(&nobody().await?, 2, SOON)?;
    // More than there is room for: those whose turn to connect has not come are told too.
    let mut waiting: Vec<_> = (0..5).map(|_| Box::pin(lend(&*bench.pool))).collect();
    for acquire in &mut waiting {
        let _ = poll_once(acquire.as_mut());
    }
    for _ in 0..3 {
        waiting.push(Box::pin(lend(&*bench.pool)));
    }
    for acquire in waiting {
        let Err(error) = timeout(Duration::from_millis(500), acquire).await? else { unreachable!("nobody listens") };
        assert_eq!(error.kind(), AcquireErrorKind::Connect);
        assert_eq!(Fault::of(&error), Fault::Connect(Network::Refused));
    }
    Ok(())
}

async fn a_hung_connect_ends_at_its_timeout<B: Subject>() -> Tested {
    let hung = TcpListener::bind("127.0.0.1:0").await?;
    let url = format!("postgres://app@{}/app", hung.local_addr()?);
    let bench = Bench::<B>::new(&url, 2, Duration::from_millis(200))?;
    let started = timeout(Duration::from_millis(150), lend(&*bench.pool));
    assert!(started.await.is_err(), "it waits for its timeout");
    let Err(error) = timeout(Duration::from_secs(2), lend(&*bench.pool)).await? else { unreachable!("it hangs") };
    assert_eq!(error.kind(), AcquireErrorKind::Connect);
    assert_eq!(Fault::of(&error), Fault::Late);
    Ok(())
}

async fn a_refused_login_is_reported_with_its_code<B: Subject>() -> Tested {
    let cluster = Cluster::start(0).await?;
    let url = format!("postgres://nobody_here@127.0.0.1:{}/nowhere", cluster.primary().port());
    let error = Bench::<B>::new(&url, 2, SOON)?.refusal().await?;
    let Fault::Reported { sqlstate, .. } = Fault::of(&error) else { return Err(format!("{error:?}").into()) };
    assert_eq!(sqlstate.as_str(), "28000");
    Ok(())
}

async fn verify_fails_on_a_dead_connection_which_is_then_closed<B: Subject>() -> Tested {
    let cluster = Cluster::start(0).await?;
    let bench = Bench::<B>::over(&cluster, 1)?;
    let connection = bench.acquire().await?;
    B::verify(&connection).await?;
    assert!(!B::is_closed(&connection));
    cluster.primary().terminate_backends().await?;
    let dead = async { while B::verify(&connection).await.is_ok() {} };
    timeout(SOON, dead).await?;
    ended::<B>(&connection).await?;
    B::discard(connection);
    B::verify(&bench.acquire().await?).await?;
    Ok(())
}

async fn dead_idle_connections_are_not_lent<B: Subject>() -> Tested {
    let cluster = Cluster::start(0).await?;
    let bench = Bench::<B>::over(&cluster, 3)?;
    drop(bench.acquire_all(3).await?);
    cluster.primary().terminate_backends().await?;
    bench.sessions(&cluster, 0).await?;
    bench.until(|_| bench.server.sessions() == 0).await?;
    for connection in bench.acquire_all(3).await? {
        pid::<B>(&connection).await?;
    }
    assert_eq!(bench.pool.status().size, 3);
    Ok(())
}

async fn discard_makes_room_and_closes<B: Subject>() -> Tested {
    let cluster = Cluster::start(0).await?;
    let bench = Bench::<B>::over(&cluster, 1)?;
    let connection = bench.acquire().await?;
    let known = pid::<B>(&connection).await?;
    B::discard(connection);
    bench.sessions(&cluster, 0).await?;
    assert_ne!(pid::<B>(&bench.acquire().await?).await?, known);
    Ok(())
}

async fn evict_closes_idle_connections_and_leaves_lent_ones<B: Subject>() -> Tested {
    let cluster = Cluster::start(0).await?;
    let bench = Bench::<B>::over(&cluster, 4)?;
    let mut lent = bench.acquire_all(4).await?;
    let held = lent.pop().ok_or("four were lent")?;
    drop(lent);
    bench.sessions(&cluster, 4).await?;
    // Whoever evicts need not be on the runtime.
    std::thread::scope(|scope| scope.spawn(|| bench.pool.evict()).join()).map_err(|_| "evict panicked")?;
    bench.sessions(&cluster, 1).await?;
    assert_eq!((bench.pool.status().size, bench.pool.status().idle), (1, 0));
    pid::<B>(&held).await?;
    Ok(())
}

async fn an_idle_connection_that_is_too_old_is_closed_where_it_waits_and_a_young_one_stays<B: Subject>() -> Tested {
    let cluster = Cluster::start(0).await?;
    let aging = PoolSettings { max_lifetime: Some(Duration::from_secs(1)), ..PoolSettings::default() };
    let bench = Bench::<B>::with(&cluster.primary().url(), &aging)?;
    let old = bench.acquire_all(2).await?;
    for connection in &old {
        let spent = async {
            while B::condition(connection) != Condition::Dirty {
                tokio::task::yield_now().await;
            }
        };
        timeout(SOON, spent).await?;
    }
    let young = bench.acquire().await?;
    let pid_of_the_young = pid::<B>(&young).await?;
    bench.pool.evict_spent();
    assert_eq!(bench.pool.status().size, 3, "what is lent is left alone");
    drop((old, young));
    // Whoever looks need not be on the runtime.
    std::thread::scope(|scope| scope.spawn(|| bench.pool.evict_spent()).join()).map_err(|_| "it panicked")?;
    bench.sessions(&cluster, 1).await?;
    assert_eq!((bench.pool.status().size, bench.pool.status().idle), (1, 1));
    assert_eq!(pid::<B>(&bench.acquire().await?).await?, pid_of_the_young);
    Ok(())
}

async fn a_closed_pool_lends_nothing_more<B: Subject>() -> Tested {
    let cluster = Cluster::start(0).await?;
    let bench = Bench::<B>::over(&cluster, 2)?;
    let held = bench.acquire_all(2).await?;
    let mut waiting = Box::pin(lend(&*bench.pool));
    assert!(poll_once(waiting.as_mut()).is_pending());
    bench.pool.close();
    let Err(error) = timeout(SOON, waiting).await? else { return Err("a waiting acquire got a connection".into()) };
    assert_eq!(error.kind(), AcquireErrorKind::Closed);
    assert_eq!(bench.refusal().await?.kind(), AcquireErrorKind::Closed);
    pid::<B>(&held[0]).await?;
    drop(held);
    bench.sessions(&cluster, 0).await
}

async fn a_cut_ends_lent_and_idle_connections<B: Subject>() -> Tested {
    let cluster = Cluster::start(0).await?;
    let bench = Bench::<B>::over(&cluster, 2)?;
    let mut lent = bench.acquire_all(2).await?;
    let held = lent.pop().ok_or("two were lent")?;
    drop(lent);
    let next = bench.server.cell.belief().generation().next();
    bench.server.publish(Belief::new(State::Up, next));
    ended::<B>(&held).await?;
    drop(held);
    bench.sessions(&cluster, 0).await?;
    pid::<B>(&bench.acquire().await?).await?;
    Ok(())
}

async fn no_connect_is_tried_while_the_server_is_down<B: Subject>() -> Tested {
    let hung = TcpListener::bind("127.0.0.1:0").await?;
    let bench = Bench::<B>::new(&format!("postgres://app@{}/app", hung.local_addr()?), 2, SOON)?;
    let mut under_way = Box::pin(lend(&*bench.pool));
    assert!(poll_once(under_way.as_mut()).is_pending());
    // The connect has begun once its session is counted.
    bench.until(|_| bench.server.sessions() > 0).await?;
    let next = bench.server.cell.belief().generation().next();
    bench.server.publish(Belief::new(State::Down, next));
    let Err(error) = timeout(SOON, under_way).await? else { unreachable!("it hangs") };
    assert_eq!(Fault::of(&error), Fault::NotAdmitted);
    assert_eq!(Fault::of(&bench.refusal().await?), Fault::NotAdmitted);
    Ok(())
}

async fn an_open_transaction_is_seen_when_a_connection_comes_back<B: Subject>() -> Tested {
    let cluster = Cluster::start(0).await?;
    let bench = Bench::<B>::over(&cluster, 2)?;
    let connection = bench.acquire().await?;
    assert_eq!(timeout(SOON, B::settled(&connection)).await?, Condition::Clean);
    ask::<B>(&connection, "BEGIN").await?;
    assert_eq!(timeout(SOON, B::settled(&connection)).await?, Condition::Dirty);
    ask::<B>(&connection, "ROLLBACK").await?;
    assert_eq!(timeout(SOON, B::settled(&connection)).await?, Condition::Clean);
    // Another connection, and the first one lent again, each have a condition of their own.
    let other = bench.acquire().await?;
    ask::<B>(&other, "BEGIN").await?;
    drop(connection);
    let again = bench.acquire().await?;
    assert_eq!(timeout(SOON, B::settled(&again)).await?, Condition::Clean);
    assert_eq!(timeout(SOON, B::settled(&other)).await?, Condition::Dirty);
    Ok(())
}

async fn warming_opens_connections_and_keeps_none<B: Subject>() -> Tested {
    let cluster = Cluster::start(0).await?;
    let bench = Bench::<B>::over(&cluster, 4)?;
    timeout(SOON, bench.pool.warm(3)).await??;
    bench.until(|pool| pool.status().idle == 3).await?;
    timeout(SOON, bench.pool.warm(2)).await??;
    assert_eq!(bench.pool.status().size, 3);
    // While it connects, what was idle can be lent.
    let held = bench.acquire().await?;
    let mut warming = Box::pin(bench.pool.warm(9));
    assert!(poll_once(warming.as_mut()).is_pending());
    drop((bench.acquire().await?, bench.acquire().await?));
    timeout(SOON, warming).await??;
    bench.until(|pool| pool.status().idle == 3).await?;
    assert_eq!(bench.pool.status().size, 4);
    drop(held);
    Ok(())
}

async fn warming_tells_why_it_failed<B: Subject>() -> Tested {
    let bench = Bench::<B>::new(&nobody().await?, 4, SOON)?;
    let Err(error) = timeout(SOON, bench.pool.warm(3)).await? else { return Err("nobody listens".into()) };
    assert_eq!(Fault::of(&error), Fault::Connect(Network::Refused));
    Ok(())
}

/// How a transaction is left open over sqlx.
#[derive(Debug, Clone, Copy)]
enum Left {
    Begun,
    Text,
    Several,
    Failed,
    Driver,
    Forgotten,
}

async fn leave(session: &mut SqlxSession, how: Left) -> Result<(), sqlx::Error> {
    match how {
        Left::Begun => sqlx::query("BEGIN").execute(session).await.map(drop),
        Left::Text => session.execute("start transaction").await.map(drop),
        Left::Several => sqlx::raw_sql("SELECT 1; BEGIN; SELECT 2").execute(session).await.map(drop),
        Left::Failed => {
            session.execute("BEGIN").await?;
            session.execute("SELECT 1 / 0").await.expect_err("it divides by nought");
            Ok(())
        }
        Left::Driver => session.connection().execute("BEGIN").await.map(drop),
        Left::Forgotten => {
            std::mem::forget(session.connection().begin().await?);
            Ok(())
        }
    }
}

#[tokio::test]
async fn over_sqlx_a_transaction_that_was_left_open_is_seen_and_rolled_back() -> Tested {
    let cluster = Cluster::start(0).await?;
    let bench = Bench::<Sqlx>::over(&cluster, 1)?;
    let observer = cluster.primary().connect().await?;
    let open = "SELECT count(*) FROM pg_stat_activity WHERE state LIKE 'idle in transaction%'";
    for how in [Left::Begun, Left::Text, Left::Several, Left::Failed, Left::Driver, Left::Forgotten] {
        let mut lent = bench.acquire().await?;
        let known = pid::<Sqlx>(&lent).await?;
        leave(&mut lent, how).await?;
        assert_eq!(observer.query_one(open, &[]).await?.get::<_, i64>(0), 1, "{how:?}");
        assert_eq!(Sqlx::condition(&lent), Condition::Busy, "{how:?}");
        assert_eq!(timeout(SOON, Sqlx::settled(&lent)).await?, Condition::Unknown, "{how:?}");
        assert_eq!(observer.query_one(open, &[]).await?.get::<_, i64>(0), 0, "{how:?}");
        assert_eq!(pid::<Sqlx>(&lent).await?, known);
        assert_eq!(Sqlx::condition(&lent), Condition::Unknown, "{how:?}");
    }
    Ok(())
}

macro_rules! conformance {
    ($($claim:ident,)*; with a tap: $($tapped:ident,)*) => {
        mod over_sqlx {
            $(#[tokio::test]
            async fn $claim() -> super::Tested {
                super::$claim::<super::Sqlx>().await
            })*
        }

        mod deadpool {
            $(#[tokio::test]
            async fn $tapped() -> super::Tested {
                super::$tapped::<super::DeadpoolPostgres>().await
            })*

            $(#[tokio::test]
            async fn $claim() -> super::Tested {
                super::$claim::<super::DeadpoolPostgres>().await
            })*
        }

        mod bb8 {
            $(#[tokio::test]
            async fn $tapped() -> super::Tested {
                super::$tapped::<super::Bb8Postgres>().await
            })*

            $(#[tokio::test]
            async fn $claim() -> super::Tested {
                super::$claim::<super::Bb8Postgres>().await
            })*
        }
    };
}

conformance![
    lends_what_it_took_back,
    never_holds_more_than_its_size,
    waits_when_exhausted_for_what_comes_back,
    a_dropped_acquire_loses_nothing,
    a_refused_connect_is_reported_at_once_with_its_cause,
    a_hung_connect_ends_at_its_timeout,
    a_refused_login_is_reported_with_its_code,
    verify_fails_on_a_dead_connection_which_is_then_closed,
    discard_makes_room_and_closes,
    evict_closes_idle_connections_and_leaves_lent_ones,
    an_idle_connection_that_is_too_old_is_closed_where_it_waits_and_a_young_one_stays,
    a_closed_pool_lends_nothing_more,
    no_connect_is_tried_while_the_server_is_down,
    warming_opens_connections_and_keeps_none,
    warming_tells_why_it_failed,
    ; with a tap:
    a_cut_ends_lent_and_idle_connections,
    dead_idle_connections_are_not_lent,
    an_open_transaction_is_seen_when_a_connection_comes_back,
];
