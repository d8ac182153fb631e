//! The back end over `deadpool`: any manager of theirs, and deadpool-postgres over connections of our own.

use std::{
    cell::Cell,
    error::Error,
    fmt,
    future::Future,
    marker::PhantomData,
    ops::{Deref, DerefMut},
    pin::Pin,
    sync::{Arc, PoisonError, RwLock},
};

use ::deadpool::managed::{Hook, HookError, HookResult, Manager, Metrics, Object, Pool, PoolError, TimeoutType};
use deadpool_postgres::{ClientWrapper, Connect, ManagerConfig, RecyclingMethod};
use tokio::task::JoinHandle;

use super::{
    AcquireError, AcquireErrorKind, Backend, CancelToken, Condition, Connected, Connector, Driver, FromSpec, PoolSpec,
    PoolStatus, Probe, Tap,
};

/// A `deadpool` pool as a back end; `P` tells about its connections.
pub struct Deadpool<M: Manager, P = Driver> {
    pool: Pool<M>,
    tap_of: TapOf<M::Type>,
    probe: PhantomData<fn() -> P>,
}

type TapOf<C> = Box<dyn Fn(&C) -> Option<Tap> + Send + Sync>;

/// The default back end: leases dereference to `deadpool_postgres::Client`.
pub type DeadpoolPostgres = Deadpool<deadpool_postgres::Manager>;

/// A connection on loan, which dereferences to deadpool's own object. Dropping it gives the connection back.
pub struct Lent<M: Manager> {
    object: Object<M>,
    tap: Option<Tap>,
}

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
        Self { pool, tap_of: Box::new(|_| None), probe: PhantomData }
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
    type Connection = Lent<M>;

    // Cancel safety: deadpool's `get` gives its slot and its half-made connection up when it is dropped.
    async fn acquire(&self) -> Result<Self::Connection, AcquireError> {
        match self.pool.get().await {
            Ok(object) => Ok(Lent { tap: (self.tap_of)(&object), object }),
            Err(error) => Err(acquire_error(error)),
        }
    }

    fn verify(connection: &Self::Connection) -> impl Future<Output = Result<(), AcquireError>> + Send {
        let answer = P::probe(&connection.object);
        async move { answer.await.map_err(|error| AcquireError::new(AcquireErrorKind::Connect, error)) }
    }

    fn is_closed(connection: &Self::Connection) -> bool {
        P::is_closed(&connection.object)
    }

    fn condition(connection: &Self::Connection) -> Condition {
        connection.tap.as_ref().map_or_else(|| P::condition(&connection.object), Tap::condition)
    }

    fn settled(connection: &Self::Connection) -> impl Future<Output = Condition> + Send {
        let tap = connection.tap.clone();
        let theirs = P::settled(&connection.object);
        async move {
            match tap {
                Some(tap) => tap.settled().await,
                None => theirs.await,
            }
        }
    }

    fn leave(connection: &Self::Connection) -> impl Future<Output = ()> + Send {
        let tap = connection.tap.clone();
        let theirs = P::leave(&connection.object);
        async move {
            match tap {
                Some(tap) => tap.leave().await,
                None => theirs.await,
            }
        }
    }

    fn cancel_token(connection: &Self::Connection) -> Option<CancelToken> {
        connection.tap.as_ref().map_or_else(|| P::cancel_token(&connection.object), Tap::cancel_token)
    }

    fn discard(connection: Self::Connection) {
        drop(Object::take(connection.object));
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
        let taps = Arc::new(Taps::default());
        let keep_tap = {
            let taps = Arc::clone(&taps);
            Hook::sync_fn(move |client: &mut ClientWrapper, _| {
                taps.keep(client);
                Ok(())
            })
        };
        let pool = Pool::builder(connections)
            .max_size(spec.max_size)
            .post_create(keep_tap)
            .pre_recycle(Hook::sync_fn(drop_closed))
            .build()
            .map_err(|error| AcquireError::new(AcquireErrorKind::Closed, error))?;
        Ok(Self { pool, tap_of: Box::new(move |client| taps.of(client)), probe: PhantomData })
    }
}

impl<M: Manager, P> fmt::Debug for Deadpool<M, P> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Deadpool").field("status", &self.pool.status()).finish_non_exhaustive()
    }
}

impl<M: Manager> Deref for Lent<M> {
    type Target = Object<M>;

    fn deref(&self) -> &Object<M> {
        &self.object
    }
}

impl<M: Manager> DerefMut for Lent<M> {
    fn deref_mut(&mut self) -> &mut Object<M> {
        &mut self.object
    }
}

impl<M: Manager> fmt::Debug for Lent<M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Lent").field("tap", &self.tap).finish_non_exhaustive()
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

/// The taps of a pool's connections, in the order of their keys. A connection is known by the address of its statement cache,
/// which stays where it is while the connection moves. Each loan looks here once: a read lock and a few comparisons.
#[derive(Default)]
struct Taps(RwLock<Vec<(usize, Tap)>>);

impl Taps {
    fn keep(&self, client: &ClientWrapper) {
        let mut taps = self.0.write().unwrap_or_else(PoisonError::into_inner);
        let key = address(client);
        // An address may be one of a connection that is gone.
        taps.retain(|(known, tap)| *known != key && !tap.is_orphan());
        if let Some(tap) = JUST_MADE.take() {
            let place = taps.partition_point(|(known, _)| *known < key);
            taps.insert(place, (key, tap));
        }
    }

    fn of(&self, client: &ClientWrapper) -> Option<Tap> {
        let taps = self.0.read().unwrap_or_else(PoisonError::into_inner);
        let place = taps.binary_search_by_key(&address(client), |(known, _)| *known).ok()?;
        Some(taps[place].1.clone())
    }
}

fn address(client: &ClientWrapper) -> usize {
    Arc::as_ptr(&client.statement_cache).addr()
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
