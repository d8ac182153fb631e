//! The back end for sqlx on real servers: what hangs is cut, what was begun is ended, writes are what the router says of them.

use std::{error::Error, time::Duration};

use pgdetour::{
    Alias, Config, Router,
    config::{Pings, PoolSettings, Role},
    pool::Sqlx,
    router::lease_error,
    testkit::Cluster,
};
use sqlx::{Acquire, Executor, query, query_scalar};
use tokio::{sync::oneshot, time::timeout};

type Tested<T = ()> = Result<T, Box<dyn Error>>;

/// Long enough for anything that is going to happen at all.
const SOON: Duration = Duration::from_secs(20);

const TABLE: &str = "CREATE TABLE orders (id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, item text NOT NULL)";
const PLACE: &str = "INSERT INTO orders (item) VALUES ($1)";

struct Shop {
    cluster: Cluster,
    _router: Router<Sqlx>,
    primary: Alias<Sqlx>,
    replica: Alias<Sqlx>,
}

impl Shop {
    async fn open(replicas: usize, max_size: usize) -> Tested<Self> {
        let cluster = Cluster::start(replicas).await?;
        cluster.primary().execute(TABLE).await?;
        let ms = Duration::from_millis;
        let pings = Pings {
            outage_ping_frequency: ms(200),
            error_ping_frequency: ms(50),
            slow_after: ms(200),
            ping_timeout: ms(300),
            ..Pings::default()
        };
        let url = if replicas == 0 { cluster.primary().url() } else { cluster.replica(0).url() };
        let config = Config::builder()
            .pings(pings)
            .pool(PoolSettings::of_size(max_size))
            .server("primary", Role::Primary, cluster.primary().url())
            .server("replica", Role::Replica, url)
            .build()?;
        let router = Router::<Sqlx>::start(config).await?;
        let (primary, replica) = (router.alias("primary")?, router.alias("replica")?);
        Ok(Self { cluster, _router: router, primary, replica })
    }

    async fn items(&self) -> Tested<Vec<String>> {
        Ok(timeout(SOON, query_scalar("SELECT item FROM orders ORDER BY id").fetch_all(&self.primary)).await??)
    }

    /// Waits until the server says so.
    async fn until(&self, condition: &str) -> Tested {
        let observer = self.cluster.primary().connect().await?;
        let sql = format!("SELECT {condition}");
        let reached = async {
            while !observer.query_one(&sql, &[]).await?.get::<_, bool>(0) {}
            Ok::<_, tokio_postgres::Error>(())
        };
        Ok(timeout(SOON, reached).await.map_err(|_| format!("never {condition}"))??)
    }
}

const NONE_OPEN: &str = "NOT EXISTS (SELECT FROM pg_stat_activity WHERE state LIKE 'idle in transaction%')";

#[tokio::test]
async fn a_statement_on_a_server_that_freezes_is_cut_and_the_next_goes_elsewhere() -> Tested {
    let shop = Shop::open(1, 4).await?;
    let (replica, (lent, is_lent)) = (shop.replica.clone(), oneshot::channel());
    let hung = tokio::spawn(async move {
        let mut lease = replica.get().await.expect("it is up");
        lent.send(()).expect("somebody waits");
        query("SELECT pg_sleep(60)").execute(&mut lease).await.map(drop)
    });
    is_lent.await?;
    shop.cluster.replica(0).freeze().await?;
    let error = timeout(SOON, hung).await??.expect_err("it is frozen");
    assert!(error.to_string().contains("believed down"), "{error}");
    let one: i32 = timeout(SOON, query_scalar("SELECT 1").fetch_one(&shop.replica)).await??;
    assert_eq!((one, shop.replica.get().await?.is_detour()), (1, true));
    shop.cluster.replica(0).thaw().await?;
    Ok(())
}

#[tokio::test]
async fn a_transaction_that_is_dropped_is_rolled_back_and_one_that_is_committed_stays() -> Tested {
    let shop = Shop::open(0, 1).await?;
    let mut transaction = shop.primary.begin().await?;
    query(PLACE).bind("a pear").execute(&mut *transaction).await?;
    transaction.commit().await?;
    let mut transaction = shop.primary.begin().await?;
    query(PLACE).bind("a lost pear").execute(&mut *transaction).await?;
    drop(transaction);
    shop.until(NONE_OPEN).await?;
    assert_eq!(shop.items().await?, ["a pear"]);
    // A statement that is dropped half-way leaves nothing to whoever has the only connection next.
    let dropped = timeout(Duration::from_millis(50), query("SELECT pg_sleep(60)").execute(&shop.primary));
    assert!(dropped.await.is_err());
    assert_eq!(shop.items().await?, ["a pear"]);
    Ok(())
}

#[tokio::test]
async fn a_write_commits_all_or_nothing_and_a_begin_inside_of_it_is_a_savepoint() -> Tested {
    let shop = Shop::open(0, 1).await?;
    let write = shop.primary.write(|mut tx| async move {
        query(PLACE).bind("an apple").execute(&mut tx).await?;
        let mut inner = tx.connection().begin().await?;
        query(PLACE).bind("a lost apple").execute(&mut *inner).await?;
        inner.rollback().await?;
        let mut inner = tx.connection().begin().await?;
        query(PLACE).bind("a plum").execute(&mut *inner).await?;
        inner.commit().await
    });
    timeout(SOON, write).await??;
    assert_eq!(shop.items().await?, ["an apple", "a plum"]);

    let write = shop.primary.write(|mut tx| async move {
        query(PLACE).bind("a lost plum").execute(&mut tx).await?;
        let mut inner = tx.connection().begin().await?;
        query(PLACE).bind("another").execute(&mut *inner).await?;
        inner.commit().await?;
        tx.execute("INSERT INTO orders (item) VALUES (NULL)").await.map(drop)
    });
    let error = timeout(SOON, write).await?.expect_err("an item is never null");
    assert_eq!(error.outcome(), pgdetour::policy::Outcome::RolledBack);
    // Nor is a write committed whose work is silent about a statement that failed.
    let write = shop.primary.write(|mut tx| async move {
        query(PLACE).bind("a lost fig").execute(&mut tx).await?;
        let _ = tx.execute("SELECT 1 / 0").await;
        Ok::<_, sqlx::Error>(())
    });
    assert!(timeout(SOON, write).await?.is_err());
    // One that is dropped between two statements is rolled back.
    let write = shop.primary.write(|mut tx| async move {
        query(PLACE).bind("a lost date").execute(&mut tx).await?;
        std::future::pending::<Result<(), sqlx::Error>>().await
    });
    assert!(timeout(Duration::from_millis(300), write).await.is_err());
    shop.until(NONE_OPEN).await?;
    assert_eq!(shop.items().await?, ["an apple", "a plum"]);
    Ok(())
}

#[tokio::test]
async fn where_an_alias_gives_no_connection_the_routers_error_is_found_in_that_of_sqlx() -> Tested {
    let shop = Shop::open(0, 1).await?;
    let held = shop.primary.get().await?;
    shop.cluster.primary().kill().await?;
    let down = async {
        loop {
            if let Err(error) = query("SELECT 1").execute(&shop.primary).await
                && lease_error(&error).is_some_and(pgdetour::Error::is_unavailable)
            {
                return;
            }
        }
    };
    drop(held);
    Ok(timeout(SOON, down).await?)
}
