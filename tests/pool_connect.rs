//! Connections of the pools on a real server: they tell their state without a query, end when they are cut, and can be cancelled.

#![cfg(feature = "testkit")]

use std::{
    error::Error,
    future::Future,
    pin::{Pin, pin},
    sync::Arc,
    task::{Context, Waker},
    time::Duration,
};

use pgdetour::{
    config::{AliasKind, AliasName, Config, PoolSettings, Role},
    health::Need,
    pool::{AcquireError, Condition, Connected, Connector, Dial, FromSpec, PoolSpec, Server, Tap},
    testkit::Cluster,
};
use tokio::{runtime::Handle, sync::Notify, time::timeout};
use tokio_postgres::error::SqlState;

type Tested = Result<(), Box<dyn Error>>;

/// Long enough for anything that is going to happen at all.
const SOON: Duration = Duration::from_secs(20);

fn connector(url: &str) -> Result<Connector, Box<dyn Error>> {
    let config = Config::builder().server("primary", Role::Primary, url).build()?;
    let alias = &config.aliases()[0];
    let AliasKind::Server(server) = &alias.kind else { unreachable!("one server is declared") };
    let shared = Server::new(alias.name.clone(), server.target.address(), Arc::new(Notify::new()));
    let pool = PoolSettings { connect_timeout: SOON, ..PoolSettings::default() };
    Ok(Connector::new(Arc::new(shared), Dial::new(&server.target)?, &pool, Handle::current()))
}

async fn connected(server: &pgdetour::testkit::Server) -> Result<(Connector, Connected), Box<dyn Error>> {
    let connector = connector(&server.url())?;
    let made = connector.connect_tapped().await?;
    Ok((connector, made))
}

async fn settled(tap: &Tap) -> Condition {
    timeout(SOON, tap.settled()).await.expect("the connection settles")
}

/// Polls once, as a `select!` does whose other branch wins at once.
fn poll_once(future: Pin<&mut impl Future>) {
    assert!(future.poll(&mut Context::from_waker(Waker::noop())).is_pending());
}

#[tokio::test]
async fn a_connection_is_clean_after_every_kind_of_request() -> Tested {
    let cluster = Cluster::start(0).await?;
    let (connector, Connected { mut client, tap, .. }) = connected(cluster.primary()).await?;
    assert_eq!(client.query_one("SELECT 7", &[]).await?.get::<_, i32>(0), 7);
    assert_eq!(settled(&tap).await, Condition::Clean);
    client.batch_execute("CREATE TABLE t (n int); BEGIN; INSERT INTO t VALUES (1); COMMIT").await?;
    assert_eq!(settled(&tap).await, Condition::Clean);
    client.transaction().await?.commit().await?;
    assert_eq!(settled(&tap).await, Condition::Clean);
    drop(client.copy_out("COPY t TO STDOUT").await?);
    assert_eq!(settled(&tap).await, Condition::Clean);
    client.query_one("SELECT 1 / 0", &[]).await.expect_err("a division by zero fails");
    assert_eq!(settled(&tap).await, Condition::Clean);
    assert!(tap.is_clean());
    assert!(connector.server().cell.belief().is_clear(Need::Reads));
    Ok(())
}

#[tokio::test]
async fn a_copy_that_is_given_up_leaves_the_connection_clean() -> Tested {
    let cluster = Cluster::start(0).await?;
    let (_, Connected { client, tap, .. }) = connected(cluster.primary()).await?;
    client.batch_execute("CREATE TABLE t (n int)").await?;
    let copy = client.copy_in::<_, &'static [u8]>("COPY t FROM STDIN").await?;
    assert_eq!(tap.condition(), Condition::Busy);
    drop(copy);
    assert_eq!(settled(&tap).await, Condition::Clean);
    let copy = client.copy_in::<_, &'static [u8]>("COPY t FROM STDIN").await?;
    assert_eq!(pin!(copy).finish().await?, 0);
    assert_eq!(settled(&tap).await, Condition::Clean);
    assert_eq!(client.query_one("SELECT 1", &[]).await?.get::<_, i32>(0), 1);
    Ok(())
}

#[tokio::test]
async fn an_open_transaction_is_dirty_and_a_dropped_one_settles() -> Tested {
    let cluster = Cluster::start(0).await?;
    let (_, Connected { mut client, tap, .. }) = connected(cluster.primary()).await?;
    let transaction = client.transaction().await?;
    assert_eq!(settled(&tap).await, Condition::Dirty);
    drop(transaction);
    assert_eq!(tap.condition(), Condition::Busy);
    assert_eq!(settled(&tap).await, Condition::Clean);
    client.batch_execute("BEGIN").await?;
    client.batch_execute("nonsense").await.expect_err("nonsense fails");
    assert_eq!(settled(&tap).await, Condition::Dirty);
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_statement_that_was_only_queued_is_seen_and_can_be_cancelled() -> Tested {
    let cluster = Cluster::start(0).await?;
    let (connector, Connected { client, tap, .. }) = connected(cluster.primary()).await?;
    let cancel = connector.cancel_token(&client);
    for _ in 0..50 {
        // On a busy machine the last request to cancel may come so late that it hits this one.
        while let Err(error) = client.simple_query("SELECT 1").await {
            assert_eq!(error.code(), Some(&SqlState::QUERY_CANCELED), "{error}");
        }
        assert_eq!(settled(&tap).await, Condition::Clean);
        poll_once(pin!(client.simple_query("SELECT pg_sleep(600)")));
        assert!(!tap.is_clean());
        let settled = async {
            // A request that overtakes the statement finds nothing to cancel.
            while timeout(Duration::from_millis(100), tap.settled()).await.is_err() {
                cancel.cancel_query().await?;
            }
            Ok::<_, tokio_postgres::Error>(())
        };
        cancel.cancel_query().await?;
        timeout(SOON, settled).await??;
        assert!(tap.is_clean());
    }
    Ok(())
}

#[tokio::test]
async fn a_connection_that_was_only_just_made_shows_a_queued_statement_too() -> Tested {
    let cluster = Cluster::start(0).await?;
    let (_, Connected { client, tap, .. }) = connected(cluster.primary()).await?;
    poll_once(pin!(client.simple_query("SELECT 1")));
    assert_eq!(tap.condition(), Condition::Busy);
    assert_eq!(settled(&tap).await, Condition::Clean);
    Ok(())
}

#[tokio::test]
async fn a_frozen_server_holds_no_query_past_the_cut() -> Tested {
    let cluster = Cluster::start(0).await?;
    let (connector, Connected { client, task, tap }) = connected(cluster.primary()).await?;
    cluster.primary().freeze().await?;
    let query = tokio::spawn(async move { client.simple_query("SELECT 1").await });
    connector.server().close();
    assert!(timeout(SOON, query).await??.is_err());
    timeout(SOON, task).await??;
    assert_eq!(tap.condition(), Condition::Dirty);
    assert_eq!(connector.server().sessions(), 0);
    cluster.primary().thaw().await?;
    Ok(())
}

#[tokio::test]
async fn a_promotion_is_noticed_with_the_next_reply() -> Tested {
    let cluster = Cluster::start(1).await?;
    let (connector, Connected { client, tap, .. }) = connected(cluster.replica(0)).await?;
    cluster.replica(0).promote().await?;
    client.simple_query("SELECT 1").await?;
    settled(&tap).await;
    assert!(connector.server().cell.belief().is_doubted());
    Ok(())
}

#[tokio::test]
async fn an_unread_result_keeps_the_connection_busy() -> Tested {
    let cluster = Cluster::start(0).await?;
    let (_, Connected { client, tap, .. }) = connected(cluster.primary()).await?;
    let sql = "SELECT repeat('x', 100000) FROM generate_series(1, 100)";
    let rows = client.simple_query_raw(sql).await?;
    assert_eq!(tap.condition(), Condition::Busy);
    drop(rows);
    assert_eq!(settled(&tap).await, Condition::Clean);
    Ok(())
}

/// Connections made at the same time each have a tap of their own, and it is found again after they were idle.
async fn stand_for_themselves<B: FromSpec>(client: fn(&B::Connection) -> &tokio_postgres::Client) -> Tested {
    let cluster = Cluster::start(0).await?;
    let connector = connector(&cluster.primary().url())?;
    let pool = B::from_spec(PoolSpec::new(AliasName::new("primary")?, connector, &PoolSettings::default()))?;
    for _ in 0..2 {
        let (one, two, three) =
            tokio::try_join!(pool.acquire(), pool.acquire(), pool.acquire()).map_err(Into::<AcquireError>::into)?;
        for lent in [&one, &two, &three] {
            client(lent).simple_query("SELECT 1").await?;
            assert_eq!(timeout(SOON, B::settled(lent)).await?, Condition::Clean);
        }
        client(&two).batch_execute("BEGIN").await?;
        assert_eq!(timeout(SOON, B::settled(&two)).await?, Condition::Dirty);
        assert_eq!((B::condition(&one), B::condition(&three)), (Condition::Clean, Condition::Clean));
        client(&two).batch_execute("ROLLBACK").await?;
        poll_once(pin!(client(&three).simple_query("SELECT pg_sleep(600)")));
        assert_eq!((B::condition(&one), B::condition(&three)), (Condition::Clean, Condition::Busy));
        let cancel = B::cancel_token(&three).expect("a connection of ours can be cancelled");
        // A request that overtakes the statement finds nothing to cancel.
        while timeout(Duration::from_millis(100), B::settled(&three)).await.is_err() {
            cancel.cancel_query().await?;
        }
    }
    Ok(())
}

#[cfg(feature = "deadpool")]
#[tokio::test]
async fn connections_of_deadpool_stand_for_themselves() -> Tested {
    stand_for_themselves::<pgdetour::pool::DeadpoolPostgres>(|lent| lent).await
}

#[cfg(feature = "bb8")]
#[tokio::test]
async fn connections_of_bb8_stand_for_themselves() -> Tested {
    stand_for_themselves::<pgdetour::pool::Bb8Postgres>(|lent| lent).await
}

#[tokio::test]
async fn a_unix_socket_is_tapped_and_cancelled_like_any_other() -> Tested {
    let cluster = Cluster::start(0).await?;
    let primary = cluster.primary();
    let host = primary.socket_dir().display().to_string().replace('/', "%2F");
    let connector = connector(&format!("postgres://postgres@{host}:{}/postgres", primary.port()))?;
    let Connected { client, tap, .. } = connector.connect_tapped().await?;
    client.batch_execute("BEGIN").await?;
    assert_eq!(settled(&tap).await, Condition::Dirty);
    client.batch_execute("ROLLBACK").await?;
    assert_eq!(settled(&tap).await, Condition::Clean);
    poll_once(pin!(client.simple_query("SELECT pg_sleep(600)")));
    // A request that overtakes the statement finds nothing to cancel.
    let cancelled = async {
        while timeout(Duration::from_millis(100), tap.settled()).await.is_err() {
            connector.cancel_token(&client).cancel_query().await?;
        }
        Ok::<_, tokio_postgres::Error>(())
    };
    timeout(SOON, cancelled).await??;
    Ok(())
}
