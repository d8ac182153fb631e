//! What the live tests share: a pair of servers, a router over it, and bounds for every wait.

mod load;
mod story;

use std::{
    error::Error,
    time::{Duration, Instant},
};

use pgdetour::{
    Alias, Config, Lease, Router, Transaction,
    config::{ConfigBuilder, Pings, PoolSettings, Role},
    health::{Belief, State},
    pool::{Backend, Bb8Postgres, DeadpoolPostgres, FromSpec},
    testkit::{Cluster, ClusterBuilder, Server},
};
use tokio::sync::{Semaphore, SemaphorePermit};
use tokio_postgres::Client;

pub(crate) use self::{load::Load, story::Story};

pub(crate) type Tested = Result<(), Box<dyn Error>>;

/// Long enough for anything that is going to happen at all, on a busy machine too.
pub(crate) const SOON: Duration = Duration::from_secs(25);

pub(crate) const MS: Duration = Duration::from_millis(1);

/// So many clusters run at once: continuous integration has two cores.
static TURNS: Semaphore = Semaphore::const_new(3);

/// A back end whose leases are tokio-postgres clients.
pub(crate) trait Subject: FromSpec + Backend<Connection: Sync> {
    fn client(lease: &Lease<Self>) -> &Client;

    /// The client of a write.
    fn of(transaction: &Transaction<Self>) -> &Client;
}

impl Subject for DeadpoolPostgres {
    fn client(lease: &Lease<Self>) -> &Client {
        lease
    }

    fn of(transaction: &Transaction<Self>) -> &Client {
        transaction
    }
}

impl Subject for Bb8Postgres {
    fn client(lease: &Lease<Self>) -> &Client {
        lease
    }

    fn of(transaction: &Transaction<Self>) -> &Client {
        transaction
    }
}

/// A primary and a streaming replica.
pub(crate) struct Pair {
    cluster: Cluster,
    _turn: SemaphorePermit<'static>,
}

impl Pair {
    pub(crate) async fn start() -> Result<Self, Box<dyn Error>> {
        Self::with(|cluster| cluster).await
    }

    pub(crate) async fn with(settings: impl FnOnce(ClusterBuilder) -> ClusterBuilder) -> Result<Self, Box<dyn Error>> {
        let turn = TURNS.acquire().await?;
        let cluster = settings(Cluster::builder().replicas(1)).start().await?;
        Ok(Self { cluster, _turn: turn })
    }

    pub(crate) fn primary(&self) -> &Server {
        self.cluster.primary()
    }

    pub(crate) fn replica(&self) -> &Server {
        self.cluster.replica(0)
    }

    /// Waits until the replica has replayed all that the primary has written.
    pub(crate) async fn wait_for_replay(&self) -> Result<(), pgdetour::testkit::TestkitError> {
        self.cluster.wait_for_replay().await
    }

    /// Both servers under their names, pinged quickly.
    pub(crate) fn config(&self) -> ConfigBuilder {
        self.config_to(&self.replica().url())
    }

    /// The same with another way to the replica.
    pub(crate) fn config_to(&self, replica: &str) -> ConfigBuilder {
        Config::builder()
            .pings(quick())
            .pool(PoolSettings { max_size: 4, ..PoolSettings::default() })
            .server("primary", Role::Primary, self.primary().url())
            .server("replica", Role::Replica, replica)
    }

    pub(crate) async fn router<B: Subject>(&self) -> Result<Router<B>, Box<dyn Error>> {
        Ok(Router::start(self.config().build()?).await?)
    }
}

/// Frequencies for a test that waits for what they pace.
pub(crate) fn quick() -> Pings {
    Pings {
        monitoring_ping_frequency: 1000 * MS,
        outage_ping_frequency: 300 * MS,
        error_ping_frequency: 50 * MS,
        // A machine that is busy with other tests must not look like a silent server.
        ping_timeout: 1000 * MS,
        slow_after: 200 * MS,
        ..Pings::default()
    }
}

pub(crate) fn now() -> Instant {
    #[expect(clippy::disallowed_methods, reason = "the crate's own clock is not open to tests")]
    tokio::time::Instant::now().into_std()
}

/// Waits for something, not for ever.
pub(crate) async fn soon<T>(what: &str, work: impl Future<Output = T>) -> Result<T, Box<dyn Error>> {
    tokio::time::timeout(SOON, work).await.map_err(|_| format!("waited in vain: {what}").into())
}

/// What is believed about the server of an alias now, doubts that no ping has answered included.
pub(crate) fn belief<B: Backend>(router: &Router<B>, name: &str) -> Belief {
    let table = router.table();
    let entry = table.entries().iter().find(|entry| entry.known.name.as_str() == name);
    entry.expect("the alias is declared").belief()
}

/// Waits until the table says this of a server. Each look waits for the monitor to have taken in all that came before.
pub(crate) async fn until<B: Backend>(router: &Router<B>, name: &str, state: State) -> Tested {
    let reached = async {
        loop {
            router.monitor().await;
            // With nothing due it does not wait.
            tokio::task::yield_now().await;
            if belief(router, name).state() == state {
                return;
            }
        }
    };
    soon(&format!("{name} to be {state:?}"), reached).await
}

/// Has the alias's server pinged over a fresh connection and waits until that has explained everything seen so far.
pub(crate) async fn pinged<B: Backend>(router: &Router<B>, alias: &Alias<B>) -> Tested {
    let refused = std::io::Error::from(std::io::ErrorKind::ConnectionRefused);
    assert!(alias.report(&refused), "a refused connection asks for a ping");
    until(router, alias.name().as_str(), State::Up).await
}

/// One number from a lease's connection.
pub(crate) async fn number<B: Subject>(lease: &Lease<B>, sql: &str) -> Result<i64, tokio_postgres::Error> {
    Ok(B::client(lease).query_one(sql, &[]).await?.get(0))
}

/// The number of the server process behind a lease.
pub(crate) async fn pid<B: Subject>(lease: &Lease<B>) -> Result<i32, tokio_postgres::Error> {
    Ok(B::client(lease).query_one("SELECT pg_backend_pid()", &[]).await?.get(0))
}
