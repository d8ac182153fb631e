//! The back end over `deadpool`: any manager of theirs, and deadpool-postgres over connections of our own.

use std::{error::Error, fmt, future::Future, marker::PhantomData, pin::Pin};

use ::deadpool::managed::{Hook, HookError, Manager, Object, Pool, PoolError, TimeoutType};
use deadpool_postgres::{ClientWrapper, Connect, ManagerConfig, RecyclingMethod};
use tokio::task::JoinHandle;

use super::{AcquireError, AcquireErrorKind, Backend, Connector, Driver, FromSpec, PoolSpec, PoolStatus, Probe};

/// A `deadpool` pool as a back end; `P` tells about its connections.
pub struct Deadpool<M: Manager, P = Driver> {
    pool: Pool<M>,
    probe: PhantomData<fn() -> P>,
}

/// The default back end: leases dereference to `deadpool_postgres::Client`'s own methods.
pub type DeadpoolPostgres = Deadpool<deadpool_postgres::Manager>;

impl<M: Manager, P> Deadpool<M, P> {
    /// Puts a pool of your own behind the router. It needs no timeouts: the router bounds every wait, but it cannot bound
    /// one connect of a manager that is not ours, so let the manager do that.
    #[must_use]
    pub fn new(pool: Pool<M>) -> Self {
        Self { pool, probe: PhantomData }
    }

    /// The pool itself.
    #[must_use]
    pub fn pool(&self) -> &Pool<M> {
        &self.pool
    }
}

impl<M, P> Backend for Deadpool<M, P>
where
    M: Manager + 'static,
    M::Type: 'static,
    M::Error: Into<Box<dyn Error + Send + Sync>>,
    P: Probe<M::Type>,
{
    type Connection = Object<M>;

    // Cancel safety: deadpool's `get` gives its slot and its half-made connection up when it is dropped.
    async fn acquire(&self) -> Result<Self::Connection, AcquireError> {
        self.pool.get().await.map_err(acquire_error)
    }

    fn verify(connection: &Self::Connection) -> impl Future<Output = Result<(), AcquireError>> + Send {
        let answer = P::probe(connection);
        async move { answer.await.map_err(|error| AcquireError::new(AcquireErrorKind::Connect, error)) }
    }

    fn is_closed(connection: &Self::Connection) -> bool {
        P::is_closed(connection)
    }

    fn discard(connection: Self::Connection) {
        drop(Object::take(connection));
    }

    fn evict(&self) {
        // What is removed is dropped here, after the pool's lock was given back.
        drop(self.pool.retain(|_, _| false));
    }

    fn status(&self) -> PoolStatus {
        let status = self.pool.status();
        PoolStatus { max_size: status.max_size, size: status.size, idle: status.available }
    }

    fn close(&self) {
        self.pool.close();
    }
}

impl FromSpec for DeadpoolPostgres {
    fn from_spec(spec: PoolSpec) -> Result<Self, AcquireError> {
        let settings = ManagerConfig { recycling_method: RecyclingMethod::Fast };
        // The connector has the real configuration; deadpool only shows this one.
        let shown = tokio_postgres::Config::new();
        let connections = deadpool_postgres::Manager::from_connect(shown, Own(spec.connector), settings);
        // A dead idle connection is dropped here without a word; deadpool's own check would log each one at WARN.
        let skip_closed =
            Hook::sync_fn(
                |client: &mut ClientWrapper, _| {
                    if client.is_closed() { Err(HookError::message("closed while idle")) } else { Ok(()) }
                },
            );
        let pool = Pool::builder(connections)
            .max_size(spec.max_size)
            .pre_recycle(skip_closed)
            .build()
            .map_err(|error| AcquireError::new(AcquireErrorKind::Closed, error))?;
        Ok(Self::new(pool))
    }
}

impl<M: Manager, P> fmt::Debug for Deadpool<M, P> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Deadpool").field("status", &self.pool.status()).finish_non_exhaustive()
    }
}

impl Probe<ClientWrapper> for Driver {
    fn is_closed(client: &ClientWrapper) -> bool {
        client.is_closed()
    }

    async fn probe(client: &ClientWrapper) -> Result<(), Box<dyn Error + Send + Sync>> {
        Ok(client.check_connection().await?)
    }
}

/// Makes deadpool-postgres connect the way we do.
struct Own(Connector);

type Connected = Result<(tokio_postgres::Client, JoinHandle<()>), tokio_postgres::Error>;

impl Connect for Own {
    fn connect(&self, _: &tokio_postgres::Config) -> Pin<Box<dyn Future<Output = Connected> + Send + '_>> {
        Box::pin(self.0.connect())
    }
}

fn acquire_error<E: Into<Box<dyn Error + Send + Sync>>>(error: PoolError<E>) -> AcquireError {
    match error {
        PoolError::Backend(cause) | PoolError::PostCreateHook(HookError::Backend(cause)) => {
            AcquireError::new(AcquireErrorKind::Connect, cause)
        }
        PoolError::PostCreateHook(HookError::Message(why)) => AcquireError::new(AcquireErrorKind::Connect, why),
        PoolError::Timeout(TimeoutType::Wait) => {
            AcquireError::new(AcquireErrorKind::Exhausted, "no connection came back within the pool's own timeout")
        }
        PoolError::Timeout(TimeoutType::Create | TimeoutType::Recycle) => {
            AcquireError::new(AcquireErrorKind::Connect, "no connection was made within the pool's own timeout")
        }
        PoolError::Closed => AcquireError::new(AcquireErrorKind::Closed, "the pool lends nothing more"),
        PoolError::NoRuntimeSpecified => {
            AcquireError::new(AcquireErrorKind::Closed, "the pool has timeouts but no runtime to time them")
        }
    }
}
