//! The back end over `bb8`: any manager of theirs.
//!
//! bb8 keeps three things to itself that a router has to have: why a connect failed, a way to take a connection out of the
//! pool, and a way to close it. So a waiting `acquire` listens to bb8's error sink, and each connection carries a mark that
//! makes bb8 drop it when it comes back.

use std::{
    error::Error,
    fmt,
    future::Future,
    marker::PhantomData,
    ops::{Deref, DerefMut},
    pin::pin,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    task::{Context, Poll, Waker},
    time::Duration,
};

use ::bb8::{Builder, ErrorSink, ManageConnection, Pool, PooledConnection, RunError, State};
use tokio::{
    runtime::{Handle, TryCurrentError},
    sync::watch,
};

use super::{
    AcquireError, AcquireErrorKind, Backend, Condition, Connector, Driver, FirstRow, PoolSpec, PoolStatus, Probe, Tap,
};

/// Between two looks at a pool that tells nobody.
const LOOK: Duration = Duration::from_millis(10);

/// A `bb8` pool as a back end; `P` tells about its connections.
pub struct Bb8<M: ManageConnection, P = Driver> {
    pool: Pool<Marking<M>>,
    news: Arc<News>,
    /// bb8 spawns and times on the runtime it is called in; `evict` and `close` may be called outside of any.
    runtime: Handle,
    probe: PhantomData<fn() -> P>,
}

impl<M, P> Bb8<M, P>
where
    M: ManageConnection,
    M::Error: Into<Box<dyn Error + Send + Sync>>,
{
    /// Puts a pool of your own behind the router. The builder's `retry_connection`, `test_on_check_out` and `error_sink` are
    /// set here: each would hide from the router that a server is gone. Its `min_idle` is not kept: bb8 would connect to servers
    /// that are down, after the end of the router too, and panic where a lease is dropped outside of a runtime.
    ///
    /// The router did not make these connections, so it can neither cut those that hang on a frozen server nor see whether one
    /// comes back clean, unless `P` can: statements want a timeout of their own.
    ///
    /// # Errors
    ///
    /// When called outside of a Tokio runtime.
    pub fn new(builder: Builder<Marking<M>>, manage: M) -> Result<Self, TryCurrentError> {
        let runtime = Handle::try_current()?;
        let news = Arc::new(News::default());
        let pool = builder
            .retry_connection(false)
            .test_on_check_out(false)
            .min_idle(None)
            .error_sink(Box::new(Sink(Arc::clone(&news))))
            .build_unchecked(Marking { manage, news: Arc::clone(&news) });
        Ok(Self { pool, news, runtime, probe: PhantomData })
    }

    /// A pool whose connections are made over a connector of ours.
    pub(super) fn with(spec: PoolSpec, manage: impl FnOnce(Connector) -> M) -> Result<Self, AcquireError> {
        let max_size = u32::try_from(spec.max_size).unwrap_or(u32::MAX);
        if max_size == 0 {
            return Err(AcquireError::new(AcquireErrorKind::Closed, "a pool of no connections"));
        }
        let builder = Builder::new()
            .max_size(max_size)
            .max_lifetime(None)
            .idle_timeout(None)
            // Longer than either alone: who knows the cause speaks first.
            .connection_timeout(spec.acquire_timeout.saturating_add(spec.connect_timeout));
        Self::new(builder, manage(spec.connector)).map_err(|error| AcquireError::new(AcquireErrorKind::Closed, error))
    }
}

impl<M, P> Backend for Bb8<M, P>
where
    M: ManageConnection,
    M::Error: Into<Box<dyn Error + Send + Sync>>,
    P: Probe<M::Connection>,
{
    type Connection = PooledConnection<'static, Marking<M>>;
    type Error = AcquireError;

    // Cancel safety: what bb8 has in hand is back in the pool when its `get` is dropped, and the connect it started goes on.
    async fn acquire(&self) -> Result<Self::Connection, AcquireError> {
        let heard = self.news.heard();
        if heard == CLOSED {
            return Err(closed());
        }
        let connects = |state: State| state.idle_connections == 0 && state.connections < self.pool.config().max_size;
        // bb8 connects in tasks of its own, which no bar reaches; an empty place it cannot keep.
        while Connector::is_barred() && connects(self.pool.state()) {
            tokio::time::sleep(LOOK).await;
        }
        // At worst every connection died while it was idle, and one more is made.
        for _ in 0..=self.pool.config().max_size {
            let mut connection = tokio::select! {
                biased;
                lent = self.pool.get_owned() => lent.map_err(run_error)?,
                error = self.news.after(heard) => return Err(error),
            };
            if !P::is_closed(&connection) {
                return Ok(connection);
            }
            connection.used_up = true;
        }
        Err(AcquireError::new(AcquireErrorKind::Connect, "each connection ended as soon as it was made"))
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

    fn discard(mut connection: Self::Connection) {
        connection.used_up = true;
    }

    fn evict(&self) {
        self.close_idle(|_| true);
    }

    fn evict_spent(&self) {
        // To look at one begins its idle time anew, which would never be over.
        if self.pool.config().idle_timeout.is_none() {
            self.close_idle(|connection| P::condition(connection) == Condition::Dirty);
        }
    }

    fn status(&self) -> PoolStatus {
        let (State { connections, idle_connections, .. }, max_size) = (self.pool.state(), self.pool.config().max_size);
        PoolStatus { max_size: max_size as usize, size: connections as usize, idle: idle_connections as usize }
    }

    fn close(&self) {
        self.news.close();
        self.evict();
    }
}

impl<M: ManageConnection, P> Bb8<M, P> {
    /// Closes those of the idle connections, one after the other: bb8 lends the one that has waited longest, unless it was built
    /// otherwise, so each comes by once.
    fn close_idle(&self, goes: impl Fn(&M::Connection) -> bool) {
        let _context = self.runtime.enter();
        // A request that takes the last idle one in between makes this `get` start a connect, which ends up in the pool.
        for _ in 0..self.pool.state().idle_connections {
            match pin!(self.pool.get()).poll(&mut Context::from_waker(Waker::noop())) {
                Poll::Ready(Ok(mut connection)) => connection.used_up = goes(&connection),
                Poll::Ready(Err(_)) | Poll::Pending => break,
            }
        }
    }
}

impl<M: ManageConnection, P> fmt::Debug for Bb8<M, P> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Bb8").field("state", &self.pool.state()).finish_non_exhaustive()
    }
}

/// Manages connections as `M` does, and drops those that are marked.
pub struct Marking<M> {
    manage: M,
    news: Arc<News>,
}

/// A connection of type `C`, to which it dereferences, with a mark that keeps it from being lent again.
#[derive(Debug)]
pub struct Marked<C> {
    connection: C,
    used_up: bool,
}

impl<M: ManageConnection> ManageConnection for Marking<M> {
    type Connection = Marked<M::Connection>;
    type Error = M::Error;

    async fn connect(&self) -> Result<Self::Connection, Self::Error> {
        Ok(Marked { connection: self.manage.connect().await?, used_up: false })
    }

    fn is_valid(&self, marked: &mut Self::Connection) -> impl Future<Output = Result<(), Self::Error>> + Send {
        self.manage.is_valid(&mut marked.connection)
    }

    fn has_broken(&self, marked: &mut Self::Connection) -> bool {
        marked.used_up || self.news.heard() == CLOSED || self.manage.has_broken(&mut marked.connection)
    }
}

impl<M> fmt::Debug for Marking<M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Marking").finish_non_exhaustive()
    }
}

impl<C> Deref for Marked<C> {
    type Target = C;

    fn deref(&self) -> &C {
        &self.connection
    }
}

impl<C> DerefMut for Marked<C> {
    fn deref_mut(&mut self) -> &mut C {
        &mut self.connection
    }
}

/// What bb8 does not tell those who wait: how many connects have failed so far and why the last one did.
#[derive(Debug, Default)]
struct News {
    /// The number of the latest, for the path that hears nothing: a load.
    number: AtomicU64,
    latest: watch::Sender<Latest>,
}

#[derive(Debug, Default)]
struct Latest {
    number: u64,
    error: Option<AcquireError>,
}

/// The number of the last news there is: the pool is closed.
const CLOSED: u64 = u64::MAX;

impl News {
    fn publish(&self, error: AcquireError) {
        self.latest.send_modify(|latest| {
            if latest.number != CLOSED {
                *latest = Latest { number: latest.number + 1, error: Some(error) };
                self.number.store(latest.number, Ordering::Release);
            }
        });
    }

    fn close(&self) {
        self.latest.send_modify(|latest| {
            *latest = Latest { number: CLOSED, error: None };
            self.number.store(CLOSED, Ordering::Release);
        });
    }

    fn heard(&self) -> u64 {
        self.number.load(Ordering::Acquire)
    }

    /// Waits for news younger than `heard`.
    async fn after(&self, heard: u64) -> AcquireError {
        let mut news = self.latest.subscribe();
        // The sender lives as long as `self`, so the wait ends with news alone.
        let latest = news.wait_for(|latest| latest.number > heard).await;
        latest.ok().and_then(|latest| latest.error.clone()).unwrap_or_else(closed)
    }
}

/// Publishes each failed connect. bb8 calls it after it has given the connection's place up, so who is told may ask again.
#[derive(Debug)]
struct Sink(Arc<News>);

impl<E: Into<Box<dyn Error + Send + Sync>> + 'static> ErrorSink<E> for Sink {
    fn sink(&self, error: E) {
        self.0.publish(AcquireError::new(AcquireErrorKind::Connect, error));
    }

    fn boxed_clone(&self) -> Box<dyn ErrorSink<E>> {
        Box::new(Self(Arc::clone(&self.0)))
    }
}

fn closed() -> AcquireError {
    AcquireError::new(AcquireErrorKind::Closed, "the pool lends nothing more")
}

fn run_error<E: Into<Box<dyn Error + Send + Sync>>>(error: RunError<E>) -> AcquireError {
    match error {
        // A failed connect is told by the sink, so what is left is a full pool.
        RunError::TimedOut => {
            AcquireError::new(AcquireErrorKind::Exhausted, "no connection came back within the pool's own timeout")
        }
        RunError::User(error) => AcquireError::new(AcquireErrorKind::Connect, error),
    }
}

#[cfg(test)]
mod tests {
    use std::io;

    use super::*;

    struct Free;

    impl ManageConnection for Free {
        type Connection = ();
        type Error = io::Error;

        async fn connect(&self) -> io::Result<()> {
            Ok(())
        }

        async fn is_valid(&self, (): &mut ()) -> io::Result<()> {
            Ok(())
        }

        fn has_broken(&self, (): &mut ()) -> bool {
            false
        }
    }

    enum Open {}

    impl Probe<()> for Open {
        fn is_closed((): &()) -> bool {
            false
        }

        async fn probe((): &()) -> Result<(), Box<dyn Error + Send + Sync>> {
            Ok(())
        }
    }

    #[test]
    fn a_connection_may_be_discarded_outside_of_any_runtime_and_none_is_made_after_the_end() {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let pool = runtime.block_on(async { Bb8::<Free, Open>::new(Builder::new().max_size(1).min_idle(1), Free) });
        let pool = pool.unwrap();
        let lent = runtime.block_on(pool.acquire()).unwrap();
        Bb8::<Free, Open>::discard(lent);
        let lent = runtime.block_on(pool.acquire()).unwrap();
        pool.close();
        drop(lent);
        runtime.block_on(tokio::task::yield_now());
        assert_eq!(pool.status().size, 0);
    }
}
