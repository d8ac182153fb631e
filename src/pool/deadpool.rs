//! The back end over `deadpool`: any manager of theirs, and deadpool-postgres over connections of our own.

use std::{
    cell::Cell,
    error::Error,
    fmt,
    future::Future,
    marker::PhantomData,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use ::deadpool::managed::{
    Hook, HookError, HookResult, Manager, Metrics, Object, Pool, PoolError, QueueMode, TimeoutType, Timeouts,
};
use deadpool_postgres::{ClientWrapper, Connect, ManagerConfig, RecyclingMethod};
use pin_project_lite::pin_project;
use tokio::task::JoinHandle;

use super::{
    AcquireError, AcquireErrorKind, Backend, Condition, Connected, Connector, Driver, FirstRow, FromSpec, PoolSpec,
    PoolStatus, Probe, Tap, probe, taps,
};

/// A `deadpool` pool as a back end; `P` tells about its connections.
pub struct Deadpool<M: Manager, P = Driver> {
    pool: Pool<M>,
    at_once: Timeouts,
    in_line: Timeouts,
    probe: PhantomData<fn() -> P>,
}

/// The default back end: leases dereference to `deadpool_postgres::Client`.
pub type DeadpoolPostgres = Deadpool<deadpool_postgres::Manager>;

impl<M: Manager, P> Deadpool<M, P> {
    /// Puts a pool of your own behind the router. It needs no timeouts: the router bounds every wait, but it cannot bound
    /// one connect of a manager that is not ours, so let the manager do that.
    ///
    /// The router did not make these connections, so it can neither cut those that hang on a frozen server nor see whether one
    /// comes back clean, unless `P` can: statements want a timeout of their own.
    ///
    /// ```no_run
    /// use pgdetour::{Config, Router, pool::{AcquireError, AcquireErrorKind, Deadpool}};
    /// # async fn example<M>(config: Config, manage: impl Fn(&str) -> M + Send + Sync + 'static) -> Result<(), pgdetour::Error>
    /// # where
    /// #     M: deadpool::managed::Manager<Type = tokio_postgres::Client> + 'static,
    /// #     M::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
    /// # {
    ///
    /// let router: Router<Deadpool<M>> = Router::start_with(config, move |spec| {
    ///     let manager = manage(spec.server().as_str()); // a manager of yours, for the server of this alias
    ///     let pool = deadpool::managed::Pool::builder(manager).max_size(spec.max_size).build();
    ///     Ok(Deadpool::new(pool.map_err(|error| AcquireError::new(AcquireErrorKind::Closed, error))?))
    /// })
    /// .await?;
    /// # Ok(())
    /// # }
    /// ```
    #[must_use]
    pub fn new(pool: Pool<M>) -> Self {
        let in_line = pool.timeouts();
        Self { pool, at_once: Timeouts { wait: Some(Duration::ZERO), ..in_line }, in_line, probe: PhantomData }
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
    type Error = PoolError<M::Error>;

    // Cancel safety: deadpool's `get` gives its slot and its half-made connection up when it is dropped.
    fn acquire(&self) -> impl Future<Output = Result<Self::Connection, Self::Error>> + Send {
        let ask = |timeouts| self.pool.timeout_get(timeouts);
        Acquire { asked: ask(&self.at_once), wait: Some(move || ask(&self.in_line)) }
    }

    fn verify(connection: &Self::Connection) -> impl Future<Output = Result<(), AcquireError>> + Send {
        let answer = P::probe(connection);
        async move { answer.await.map_err(|error| AcquireError::new(AcquireErrorKind::Connect, error)) }
    }

    fn is_closed(connection: &Self::Connection) -> bool {
        P::is_closed(connection)
    }

    fn condition(connection: &Self::Connection) -> Condition {
        P::condition(connection)
    }

    fn tap(connection: &Self::Connection) -> Option<Tap> {
        P::tap(connection)
    }

    fn settled(connection: &Self::Connection) -> impl Future<Output = Condition> + Send {
        P::settled(connection)
    }

    fn execute(
        connection: &Self::Connection,
        sql: &str,
    ) -> impl Future<Output = Result<FirstRow, Box<dyn Error + Send + Sync>>> + Send {
        P::execute(connection, sql)
    }

    fn discard(connection: Self::Connection) {
        drop(Object::take(connection));
    }

    fn evict(&self) {
        // What is removed is dropped here, after the pool's lock was given back.
        drop(self.pool.retain(|_, _| false));
    }

    fn evict_spent(&self) {
        // As for `evict`. The one that came back last is lent first, so those at the bottom would never come back again.
        drop(self.pool.retain(|connection, _| P::condition(connection) != Condition::Dirty));
    }

    fn status(&self) -> PoolStatus {
        let status = self.pool.status();
        PoolStatus { max_size: status.max_size, size: status.size, idle: status.available }
    }

    fn close(&self) {
        self.pool.close();
    }
}

pin_project! {
    /// Asks for a connection at once, which is cheaper than to be ready to wait, and waits if none is free. Who waits already comes
    /// first. By hand, since a future around a future would move the connection once more.
    struct Acquire<F, W> {
        #[pin]
        asked: F,
        wait: Option<W>,
    }
}

impl<T, E, F, W> Future for Acquire<F, W>
where
    F: Future<Output = Result<T, PoolError<E>>>,
    W: FnOnce() -> F,
{
    type Output = F::Output;

    #[inline]
    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<F::Output> {
        let mut this = self.project();
        loop {
            let found = this.asked.as_mut().poll(cx);
            if !matches!(found, Poll::Ready(Err(PoolError::Timeout(TimeoutType::Wait)))) {
                return found;
            }
            let Some(wait) = this.wait.take() else { return found };
            this.asked.set(wait());
        }
    }
}

impl FromSpec for DeadpoolPostgres {
    fn from_spec(spec: PoolSpec) -> Result<Self, AcquireError> {
        let settings = ManagerConfig { recycling_method: RecyclingMethod::Fast };
        // The connector has the real configuration; deadpool only shows this one.
        let shown = tokio_postgres::Config::new();
        let connections = deadpool_postgres::Manager::from_connect(shown, Own(spec.connector), settings);
        let pool = Pool::builder(connections)
            .max_size(spec.max_size)
            // The connection that came back last: what it needs is still in the caches, here and at the server.
            .queue_mode(QueueMode::Lifo)
            .post_create(Hook::sync_fn(keep_tap))
            .pre_recycle(Hook::sync_fn(drop_closed))
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
    #[inline]
    fn is_closed(client: &ClientWrapper) -> bool {
        client.is_closed()
    }

    async fn probe(client: &ClientWrapper) -> Result<(), Box<dyn Error + Send + Sync>> {
        Ok(client.check_connection().await?)
    }

    #[inline]
    fn condition(client: &ClientWrapper) -> Condition {
        taps::look(key(client), Tap::condition).unwrap_or(Condition::Unknown)
    }

    fn tap(client: &ClientWrapper) -> Option<Tap> {
        taps::look(key(client), Tap::clone)
    }

    async fn execute(client: &ClientWrapper, sql: &str) -> Result<FirstRow, Box<dyn Error + Send + Sync>> {
        probe::execute(client, sql).await
    }
}

/// Keeps the tap of a connection that was just made.
fn keep_tap(client: &mut ClientWrapper, _: &Metrics) -> HookResult<tokio_postgres::Error> {
    taps::keep(key(client), JUST_MADE.take());
    Ok(())
}

/// Drops a connection that died while it was idle without a word; deadpool-postgres's own check would log each one at WARN.
fn drop_closed(client: &mut ClientWrapper, _: &Metrics) -> HookResult<tokio_postgres::Error> {
    if client.is_closed() { Err(HookError::message("closed while idle")) } else { Ok(()) }
}

/// Makes deadpool-postgres connect the way we do.
struct Own(Connector);

type Made = Result<(tokio_postgres::Client, JoinHandle<()>), tokio_postgres::Error>;

impl Connect for Own {
    fn connect(&self, _: &tokio_postgres::Config) -> Pin<Box<dyn Future<Output = Made> + Send + '_>> {
        Box::pin(async {
            let Connected { client, task, tap } = self.0.connect_tapped().await?;
            JUST_MADE.set(Some(tap));
            Ok((client, task))
        })
    }
}

thread_local! {
    /// The tap of the connection this thread has just made, on its way past deadpool-postgres, which has no place for it, to
    /// the `post_create` hook. From the end of the connect to the hook nothing is awaited, so both run on one thread and no
    /// other connection comes in between.
    static JUST_MADE: Cell<Option<Tap>> = const { Cell::new(None) };
}

/// By what a connection is known: the address of its statement cache, which stays where it is while the connection moves.
fn key(client: &ClientWrapper) -> usize {
    Arc::as_ptr(&client.statement_cache).addr()
}

impl<E: Into<Box<dyn Error + Send + Sync>>> From<PoolError<E>> for AcquireError {
    fn from(error: PoolError<E>) -> Self {
        match error {
            PoolError::Backend(cause) | PoolError::PostCreateHook(HookError::Backend(cause)) => {
                Self::new(AcquireErrorKind::Connect, cause)
            }
            PoolError::PostCreateHook(HookError::Message(why)) => Self::new(AcquireErrorKind::Connect, why),
            PoolError::Timeout(TimeoutType::Wait) => {
                Self::new(AcquireErrorKind::Exhausted, "no connection came back within the pool's own timeout")
            }
            PoolError::Timeout(TimeoutType::Create | TimeoutType::Recycle) => {
                Self::new(AcquireErrorKind::Connect, "no connection was made within the pool's own timeout")
            }
            PoolError::Closed => Self::new(AcquireErrorKind::Closed, "the pool lends nothing more"),
            PoolError::NoRuntimeSpecified => {
                Self::new(AcquireErrorKind::Closed, "the pool has timeouts but no runtime to time them")
            }
        }
    }
}
