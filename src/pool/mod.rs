//! Where do connections come from? The `Backend` trait, its implementations for deadpool and bb8, and the connector they share.

#[cfg(feature = "bb8")]
mod bb8;
#[cfg(feature = "bb8")]
mod bb8_postgres;
mod condition;
mod connect;
#[cfg(feature = "deadpool")]
mod deadpool;
mod dial;
#[cfg(all(feature = "diesel", any(feature = "bb8", feature = "deadpool")))]
mod diesel;
mod fault;
mod frames;
mod gate;
#[cfg(not(any(feature = "bb8", feature = "deadpool")))]
mod none;
mod posted;
mod probe;
mod server;
mod session;
#[cfg(feature = "sqlx")]
mod sqlx;
#[cfg(feature = "testkit")]
mod streams;
mod tap;
#[cfg(feature = "deadpool")]
mod taps;
mod tls;
mod warm;
mod wire;
mod word;

/// The word that tells whether a connection is clean stands on these. `tests/tap` puts loom's in their place.
mod atomic {
    pub(super) use std::sync::atomic::{AtomicBool, AtomicU64, Ordering, fence};
}

use std::{error::Error, fmt, future::Future, sync::Arc, time::Duration};

#[cfg(feature = "bb8")]
pub use self::bb8::{Bb8, Marked, Marking};
#[cfg(feature = "bb8")]
pub use self::bb8_postgres::{Bb8Postgres, ManagePostgres, Session};
#[cfg(feature = "deadpool")]
pub use self::deadpool::{Deadpool, DeadpoolPostgres};
#[cfg(all(feature = "diesel", feature = "bb8"))]
pub use self::diesel::Bb8Diesel;
#[cfg(all(feature = "diesel", feature = "deadpool"))]
pub use self::diesel::DeadpoolDiesel;
#[cfg(all(feature = "diesel", any(feature = "bb8", feature = "deadpool")))]
pub use self::diesel::{DieselSession, ManageDiesel};
#[cfg(not(any(feature = "bb8", feature = "deadpool")))]
pub use self::none::NoBackend;
#[cfg(feature = "sqlx")]
pub use self::sqlx::{ManageSqlx, Sqlx, SqlxSession};
pub use self::{
    condition::{Condition, Ending, Transaction},
    connect::{ConnectFailure, Connected, Connector},
    dial::CancelToken,
    probe::{Driver, Probe},
    tap::Tap,
    tls::TlsError,
};
pub(crate) use self::{
    connect::Terms,
    dial::Dialed,
    fault::{LINKS, cause_of, is_own_shortage},
    server::{Loan, Loans, Share, Times},
    tls::{Duplex, Protection},
};
// For this crate's program, tests and benches: no part of the interface.
#[cfg(feature = "testkit")]
#[doc(hidden)]
pub use self::streams::{Opening, Stream, Streams};
#[doc(hidden)]
pub use self::{
    dial::Dial,
    posted::Reader,
    server::{Cut, Server},
};
use crate::config::{AliasName, PoolSettings};

/// One pool of connections to one server. Implement this to put the router over a pool of your own.
///
/// The router bounds every wait itself, so an implementation needs no timeout of its own but the one for a connect.
///
/// This one pools nothing and connects for each lease, as an application behind PgBouncer may want to (a pool has to keep to
/// `spec.max_size`):
///
/// ```
/// use pgdetour::pool::{AcquireError, AcquireErrorKind, Backend, Condition, Connected, Connector, FromSpec};
/// use pgdetour::pool::{PoolSpec, PoolStatus, Tap};
///
/// struct Direct(Connector);
///
/// fn failed(error: tokio_postgres::Error) -> AcquireError {
///     AcquireError::new(AcquireErrorKind::Connect, error)
/// }
///
/// impl Backend for Direct {
///     type Connection = Connected;
///     type Error = AcquireError;
///
///     async fn acquire(&self) -> Result<Connected, AcquireError> {
///         self.0.connect_tapped().await.map_err(failed)
///     }
///
///     async fn verify(connection: &Connected) -> Result<(), AcquireError> {
///         connection.client.check_connection().await.map_err(failed)
///     }
///
///     fn is_closed(connection: &Connected) -> bool {
///         connection.client.is_closed()
///     }
///
///     fn condition(connection: &Connected) -> Condition {
///         connection.tap.condition()
///     }
///
///     fn tap(connection: &Connected) -> Option<Tap> {
///         Some(connection.tap.clone())
///     }
///
///     fn discard(connection: Connected) {
///         connection.task.abort(); // the socket closes even in the middle of a statement
///     }
///
///     fn evict(&self) {}
///
///     fn status(&self) -> PoolStatus {
///         PoolStatus::default() // nothing is kept, so nothing is opened ahead
///     }
///
///     fn close(&self) {}
/// }
///
/// impl FromSpec for Direct {
///     fn from_spec(spec: PoolSpec) -> Result<Self, AcquireError> {
///         Ok(Self(spec.connector))
///     }
/// }
/// ```
///
/// Then `Router::<Direct>::start(config)`. A pool that is built otherwise goes in with
/// [`Router::start_with`](crate::Router::start_with).
pub trait Backend: Send + Sync + Sized + 'static {
    /// What a lease dereferences to; dropping it gives the connection back.
    type Connection: Send + 'static;

    /// Why the pool gave no connection, in its own words: a connection that has to be moved into another type costs time on
    /// each loan. Where that does not matter, [`AcquireError`] does.
    type Error: Into<AcquireError> + Send;

    /// Takes a connection from the pool, making one if there is room. One that [`Self::is_closed`] is passed over.
    ///
    /// # Errors
    ///
    /// [`AcquireErrorKind::Connect`] sends the request on to the next server of its plan, `Exhausted` ends it as overloaded. The
    /// source decides whether it speaks against the server: hand on the driver's own error.
    ///
    /// # Cancel safety
    ///
    /// Must be cancel safe: the router drops this future when a better server is found or a deadline passes.
    fn acquire(&self) -> impl Future<Output = Result<Self::Connection, Self::Error>> + Send;

    /// Asks the server over this connection whether it still answers: one round trip.
    ///
    /// # Errors
    ///
    /// Whichever it is, the router closes the connection and asks for another one.
    ///
    /// # Cancel safety
    ///
    /// Must be cancel safe: the router bounds it, and closes the connection of one that it drops.
    fn verify(connection: &Self::Connection) -> impl Future<Output = Result<(), AcquireError>> + Send;

    /// Whether this connection is known to be closed. Asks nobody.
    fn is_closed(connection: &Self::Connection) -> bool;

    /// The condition in which a connection comes back: only a clean one is lent again. Asks nobody.
    ///
    /// The default says that it is not known, and then it is lent again.
    fn condition(_connection: &Self::Connection) -> Condition {
        Condition::Unknown
    }

    /// The tap of this connection, which tells what has left for the server and what it said last. The default has none; then
    /// the router has to take a write that failed for one that may have happened.
    fn tap(_connection: &Self::Connection) -> Option<Tap> {
        None
    }

    /// Runs SQL as one simple query and gives the first row that any of its statements returned: what the router begins and
    /// commits the transaction of a [write](crate::Alias::write) with. The default cannot, and writes are refused.
    ///
    /// Of two such calls the one that is polled first is sent first, and the server gets both without waiting for an answer in
    /// between.
    ///
    /// # Errors
    ///
    /// The driver's own, so that its fault can be told; a statement that failed ends the query.
    ///
    /// # Cancel safety
    ///
    /// None: what was begun goes on.
    fn execute(
        _connection: &Self::Connection,
        _sql: &str,
    ) -> impl Future<Output = Result<FirstRow, Box<dyn Error + Send + Sync>>> + Send {
        async { Err(probe::CannotExecute.into()) }
    }

    /// Waits until nothing is under way on a busy connection any more, and tells its condition then. The default asks the tap.
    ///
    /// # Cancel safety
    ///
    /// Must be cancel safe: the router bounds it.
    fn settled(connection: &Self::Connection) -> impl Future<Output = Condition> + Send {
        let (tap, condition) = (Self::tap(connection), Self::condition(connection));
        async move {
            match tap {
                Some(tap) => tap.settled().await,
                None => condition,
            }
        }
    }

    /// Ends the session of a connection that is about to be discarded, and waits until the server has ended it too, so that
    /// it does not hold more sessions than the pool has places. The default has its tap do so; without one it does not wait.
    ///
    /// # Cancel safety
    ///
    /// Must be cancel safe: the router bounds it.
    fn leave(connection: &Self::Connection) -> impl Future<Output = ()> + Send {
        let tap = Self::tap(connection);
        async move {
            if let Some(tap) = tap {
                tap.leave().await;
            }
        }
    }

    /// What cancels the statement that runs on this connection, where that is known. The default asks the tap.
    fn cancel_token(connection: &Self::Connection) -> Option<CancelToken> {
        Self::tap(connection)?.cancel_token()
    }

    /// Takes a connection out of its pool for good and closes it.
    fn discard(connection: Self::Connection);

    /// Closes all idle connections.
    fn evict(&self);

    /// Closes idle connections that are older than `max_lifetime`: [`Condition::Dirty`]. The default closes none: then each goes
    /// when it comes back the next time.
    fn evict_spent(&self) {}

    /// How full the pool is. The router tries at most `max_size` idle connections that turn out to be dead, and then one more.
    fn status(&self) -> PoolStatus;

    /// Lends nothing more and closes idle connections.
    fn close(&self);

    /// Opens connections until `idle` of them wait to be lent, as far as there is room, and lends none of them for longer
    /// than it takes to ask for the others.
    ///
    /// # Errors
    ///
    /// The first connect that failed; the others are given up.
    ///
    /// # Cancel safety
    ///
    /// As that of [`Self::acquire`]: connects under way are given up.
    fn warm(&self, idle: usize) -> impl Future<Output = Result<(), AcquireError>> + Send {
        warm::warm(self, idle)
    }
}

/// A back end the router can build by itself, over connections that it makes by itself.
pub trait FromSpec: Backend {
    /// Builds an empty pool.
    ///
    /// # Errors
    ///
    /// When the pool refuses its settings.
    fn from_spec(spec: PoolSpec) -> Result<Self, AcquireError>;
}

/// What a pool is to be built from.
#[derive(Debug)]
#[non_exhaustive]
pub struct PoolSpec {
    /// The alias whose requests it serves; the server is [`PoolSpec::server`]'s.
    pub alias: AliasName,
    /// How it makes connections.
    pub connector: Connector,
    /// Connections at most.
    pub max_size: usize,
    /// How long a connect may take: the connector enforces it.
    pub connect_timeout: Duration,
    /// How long the router waits for this pool at most: a bound for pools that insist on one.
    pub acquire_timeout: Duration,
}

impl PoolSpec {
    /// The alias that declares the server it connects to: not `alias` itself if it is for a detour or a group.
    #[must_use]
    pub fn server(&self) -> &AliasName {
        &self.connector.server().name
    }

    /// A pool for `alias` over `connector`, sized and bounded as `settings` say.
    #[doc(hidden)]
    #[must_use]
    pub fn new(alias: AliasName, connector: Connector, settings: &PoolSettings) -> Self {
        let &PoolSettings { max_size, connect_timeout, acquire_timeout, .. } = settings;
        Self { alias, connector, max_size, connect_timeout, acquire_timeout }
    }
}

/// The columns of the first row that a simple query returned, as text; empty where none was returned.
pub type FirstRow = Vec<Option<String>>;

/// How full a pool is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct PoolStatus {
    /// Connections it may hold.
    pub max_size: usize,
    /// Connections it holds, idle and lent.
    pub size: usize,
    /// Connections that wait to be lent.
    pub idle: usize,
}

/// Why a pool gave no connection. Cloning is cheap: all who waited for the same connect share its cause.
#[derive(Debug, Clone)]
pub struct AcquireError {
    kind: AcquireErrorKind,
    source: Arc<dyn Error + Send + Sync>,
}

/// What kind of reason it was.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum AcquireErrorKind {
    /// No connection could be made or kept: nothing has been sent.
    Connect,
    /// The pool is full and nothing came back in time.
    Exhausted,
    /// The pool is closed, or was built wrongly.
    Closed,
}

impl AcquireError {
    /// An error of this kind with its cause.
    pub fn new(kind: AcquireErrorKind, source: impl Into<Box<dyn Error + Send + Sync>>) -> Self {
        Self { kind, source: Arc::from(source.into()) }
    }

    /// What kind of reason it was.
    #[must_use]
    pub fn kind(&self) -> AcquireErrorKind {
        self.kind
    }
}

impl fmt::Display for AcquireError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self.kind {
            AcquireErrorKind::Connect => "no connection could be made",
            AcquireErrorKind::Exhausted => "the pool is full",
            AcquireErrorKind::Closed => "the pool is closed",
        })
    }
}

impl Error for AcquireError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        Some(&*self.source)
    }
}
