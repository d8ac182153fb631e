//! How a connection is made: one deadline around all of it, and a task of our own that drives it and keeps what it reports.

use std::{
    error, fmt,
    future::{Future, pending},
    io,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    runtime::Handle,
    task::JoinHandle,
    time::timeout,
};
use tokio_postgres::{Client, Error, NoTls};

use super::{
    Cut, Server,
    dial::{CancelToken, Dial, Dialed},
    gate::Climb,
    posted::Reader,
    session::Session,
    tap::Tap,
};
use crate::{
    clock,
    config::{PoolSettings, SessionReset},
    health::Generation,
};

/// Makes connections to one server, for a pool. Cloning is cheap.
#[derive(Debug, Clone)]
pub struct Connector {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    server: Arc<Server>,
    dial: Dial,
    connect_timeout: Duration,
    runtime: Handle,
    terms: Terms,
}

/// On what terms a pool takes connections.
#[derive(Debug, Default)]
pub(crate) struct Terms {
    climb: Option<Climb>,
    max_lifetime: Option<Duration>,
    pub(super) reset: SessionReset,
}

impl Terms {
    /// Those of an alias for the pool of its own server.
    pub(crate) fn of(pool: &PoolSettings) -> Self {
        Self { climb: None, max_lifetime: pool.max_lifetime, reset: pool.session_reset }
    }

    /// The same for a pool that stands empty most of the time and is then wanted all at once: it grows slowly.
    pub(crate) fn for_detour(self) -> Self {
        Self { climb: Some(Climb::of_bursts()), ..self }
    }

    /// How old one connection may grow: a tenth more or less, by `chance` from 0 to 1, so that those made together do not end
    /// together.
    pub(super) fn lifetime(&self, chance: f64) -> Option<Duration> {
        self.max_lifetime.map(|lifetime| lifetime.mul_f64(chance.mul_add(0.2, 0.9)))
    }
}

tokio::task_local! {
    /// Whoever asks a pool for a connection now is not to have one made.
    static BARRED: ();
}

/// A connection that was just made.
#[derive(Debug)]
pub struct Connected {
    /// The driver's client.
    pub client: Client,
    /// The task that drives it; aborting it closes the socket.
    pub task: JoinHandle<()>,
    /// What is known about its state.
    pub tap: Tap,
}

/// Why no connection was made, where the driver has no word for it. It is found under a driver's error: its
/// `source()` is an [`io::Error`] around this.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum ConnectFailure {
    /// The deadline for DNS, TCP, TLS and login together has passed.
    TimedOut {
        /// The deadline.
        after: Duration,
    },
    /// Other connects to the same server took all of the time: two are made at once, and fewer after it has come back.
    Crowded {
        /// The deadline.
        after: Duration,
    },
    /// The server is believed down, gets back on its feet, or has stopped to take new connections: none is made now.
    NotAdmitted,
    /// The router is shut down, or the runtime it was started in.
    Closed,
}

impl Connector {
    /// A connector over `dial` on the terms of `pool`, whose sessions are driven on `runtime`.
    #[doc(hidden)]
    #[must_use]
    pub fn new(server: Arc<Server>, dial: Dial, pool: &PoolSettings, runtime: Handle) -> Self {
        let (connect_timeout, terms) = (pool.connect_timeout, Terms::of(pool));
        Self { inner: Arc::new(Inner { server, dial, connect_timeout, runtime, terms }) }
    }

    /// The same on terms.
    pub(crate) fn on_terms(server: Arc<Server>, dial: Dial, connect_timeout: Duration, terms: Terms) -> Self {
        Self { inner: Arc::new(Inner { server, dial, connect_timeout, runtime: Handle::current(), terms }) }
    }

    /// The server it connects to.
    #[doc(hidden)]
    #[must_use]
    pub fn server(&self) -> &Arc<Server> {
        &self.inner.server
    }

    #[cfg(test)]
    pub(super) fn dial(&self) -> Dial {
        self.inner.dial.clone()
    }

    /// Connects, within `connect_timeout` for DNS, TCP, TLS and login together, and for the wait until it is this connect's turn:
    /// two go to one server at a time, and after it has come back they begin slowly.
    ///
    /// # Errors
    ///
    /// The driver's error; a missed deadline and a server that admits no new connections are errors of this type too,
    /// with a cause that says so: [`ConnectFailure`].
    ///
    /// # Cancel safety
    ///
    /// Dropping the future closes the socket.
    pub async fn connect(&self) -> Result<(Client, JoinHandle<()>), Error> {
        self.connect_tapped().await.map(|Connected { client, task, .. }| (client, task))
    }

    /// The same, with the tap of the connection.
    ///
    /// # Errors
    ///
    /// As [`Self::connect`].
    ///
    /// # Cancel safety
    ///
    /// Dropping the future closes the socket.
    pub async fn connect_tapped(&self) -> Result<Connected, Error> {
        Self::unless_barred().await;
        let Inner { server, runtime, .. } = &*self.inner;
        let belief = server.cell.belief();
        let cuts = server.cuts();
        if cuts.value().closed {
            return Err(ConnectFailure::Closed.into_driver_error().await);
        }
        if !belief.admits() {
            return Err(ConnectFailure::NotAdmitted.into_driver_error().await);
        }
        let attempt = Arc::clone(&self.inner).attempt(belief.generation(), cuts);
        // Not in the caller's task: a socket belongs to the runtime it was opened in, and a caller that has stopped polling
        // must not hold up a shutdown.
        let mut attempt = Attempt(runtime.spawn(attempt));
        match (&mut attempt.0).await {
            Ok(connected) => connected,
            Err(ended) => match ended.try_into_panic() {
                Ok(panic) => std::panic::resume_unwind(panic),
                Err(_) => Err(ConnectFailure::Closed.into_driver_error().await),
            },
        }
    }

    /// Asks a pool for a connection that is not to be made for this: where the pool connects in the task of who asks, the request
    /// keeps an empty place from all others until it is dropped.
    pub(crate) fn barred<F: Future>(request: F) -> impl Future<Output = F::Output> {
        BARRED.scope((), request)
    }

    /// Whether such a request is at work in this task.
    pub(crate) fn is_barred() -> bool {
        BARRED.try_with(|()| ()).is_ok()
    }

    /// Never goes on in such a request.
    pub(crate) async fn unless_barred() {
        if Self::is_barred() {
            pending().await
        }
    }

    /// Where it connects to, for a driver that dials by itself.
    #[cfg(feature = "sqlx")]
    pub(super) fn target(&self) -> &crate::config::Target {
        self.inner.dial.target()
    }

    /// Has another driver connect by `dial`, on the terms of [`Self::connect`].
    ///
    /// Cancel safety: dropping the future drops `dial`.
    #[cfg(feature = "sqlx")]
    pub(super) async fn connect_by<T: Send + 'static>(
        &self,
        dial: impl Future<Output = T> + Send + 'static,
    ) -> Result<(T, Admitted), ConnectFailure> {
        Self::unless_barred().await;
        let (inner, server) = (Arc::clone(&self.inner), Arc::clone(&self.inner.server));
        let (belief, cuts) = (server.cell.belief(), server.cuts());
        if cuts.value().closed {
            return Err(ConnectFailure::Closed);
        }
        if !belief.admits() {
            return Err(ConnectFailure::NotAdmitted);
        }
        let generation = belief.generation();
        let mut attempt = Attempt(self.inner.runtime.spawn(async move {
            let made = tokio::select! {
                biased;
                made = inner.in_turn(dial) => made?,
                cut = cuts.wait_for(|cut| cut.ends(generation)) => {
                    return Err(if cut.closed { ConnectFailure::Closed } else { ConnectFailure::NotAdmitted });
                }
            };
            let (lifetime, reset) = (inner.terms.lifetime(fastrand::f64()), inner.terms.reset);
            Ok((made, Admitted { server, generation, cuts, lifetime, reset }))
        }));
        match (&mut attempt.0).await {
            Ok(made) => made,
            Err(ended) => match ended.try_into_panic() {
                Ok(panic) => std::panic::resume_unwind(panic),
                Err(_) => Err(ConnectFailure::Closed),
            },
        }
    }

    /// What cancels the statement that runs on `client`, which this connector has made.
    #[must_use]
    pub fn cancel_token(&self, client: &Client) -> CancelToken {
        self.inner.dial.cancel_token(client, self.inner.connect_timeout)
    }
}

impl Inner {
    async fn attempt(self: Arc<Self>, generation: Generation, cuts: Reader<Cut>) -> Result<Connected, Error> {
        let Self { server, dial, connect_timeout, runtime, .. } = &*self;
        let dialed = tokio::select! {
            biased;
            dialed = self.dial_in_turn() => dialed?,
            // A frozen server would hold the attempt for all of its timeout.
            cut = cuts.wait_for(|cut| cut.ends(generation)) => {
                Err(if cut.closed { ConnectFailure::Closed } else { ConnectFailure::NotAdmitted })
            }
        };
        match dialed {
            Ok(Dialed { client, wire, tap }) => {
                tap.keep_cancel_token(dial.cancel_token(&client, *connect_timeout));
                let session = Session::new(Arc::clone(server), generation, wire, &tap, &self.terms);
                let task = runtime.spawn(session.run(cuts));
                Ok(Connected { client, task, tap })
            }
            Err(failure) => Err(failure.into_driver_error().await),
        }
    }

    /// The same for a connection of another driver.
    #[cfg(feature = "sqlx")]
    async fn in_turn<T>(&self, dial: impl Future<Output = T>) -> Result<T, ConnectFailure> {
        let after = self.connect_timeout;
        let deadline = clock::now() + after;
        let Ok(_turn) = timeout(after, self.server.gate.turn(self.terms.climb.as_ref())).await else {
            return Err(ConnectFailure::Crowded { after });
        };
        let left = deadline.saturating_duration_since(clock::now());
        let late =
            if left < after / 2 { ConnectFailure::Crowded { after } } else { ConnectFailure::TimedOut { after } };
        timeout(left, dial).await.map_err(|_| late)
    }

    /// Dials when it is its turn. Silence that is shorter than half of `connect_timeout` says nothing about the server.
    async fn dial_in_turn(&self) -> Result<Result<Dialed, ConnectFailure>, Error> {
        let after = self.connect_timeout;
        let deadline = clock::now() + after;
        let Ok(_turn) = timeout(after, self.server.gate.turn(self.terms.climb.as_ref())).await else {
            return Ok(Err(ConnectFailure::Crowded { after }));
        };
        let left = deadline.saturating_duration_since(clock::now());
        match self.dial.connect(left).await {
            Ok(dialed) => Ok(Ok(dialed)),
            Err(error) => match ConnectFailure::under(&error) {
                Some(ConnectFailure::TimedOut { .. }) if left < after / 2 => Ok(Err(ConnectFailure::Crowded { after })),
                Some(ConnectFailure::TimedOut { .. }) => Ok(Err(ConnectFailure::TimedOut { after })),
                _ => Err(error),
            },
        }
    }
}

/// What a session knows of the server that admitted it.
#[cfg(feature = "sqlx")]
pub(super) struct Admitted {
    pub(super) server: Arc<Server>,
    pub(super) generation: Generation,
    pub(super) cuts: Reader<Cut>,
    pub(super) lifetime: Option<Duration>,
    pub(super) reset: SessionReset,
}

/// A connect under way; it is given up when nobody waits for it.
struct Attempt<T>(JoinHandle<T>);

impl<T> Drop for Attempt<T> {
    fn drop(&mut self) {
        self.0.abort();
    }
}

impl ConnectFailure {
    /// This failure under a driver's error, if it is one of ours.
    #[must_use]
    pub fn under(error: &Error) -> Option<Self> {
        let cause = error::Error::source(error)?.downcast_ref::<io::Error>()?;
        cause.get_ref()?.downcast_ref::<Self>().copied()
    }

    fn kind(self) -> io::ErrorKind {
        match self {
            Self::TimedOut { .. } | Self::Crowded { .. } => io::ErrorKind::TimedOut,
            Self::NotAdmitted => io::ErrorKind::ConnectionRefused,
            Self::Closed => io::ErrorKind::NotConnected,
        }
    }

    /// The driver lets nobody make its errors, so it is made to fail: a login over a stream that cannot be written to.
    pub(crate) async fn into_driver_error(self) -> Error {
        let mut nobody = tokio_postgres::Config::new();
        nobody.user("").ssl_mode(tokio_postgres::config::SslMode::Disable);
        match nobody.connect_raw(Refusing(self), NoTls).await {
            Err(error) => error,
            Ok(_) => unreachable!("a stream that refuses every byte logs nobody in"),
        }
    }
}

impl fmt::Display for ConnectFailure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::TimedOut { after } => write!(f, "no connection within {after:?}: DNS, TCP, TLS and login together"),
            Self::Crowded { after } => {
                write!(f, "no connection within {after:?}: other connects to the server took that long")
            }
            Self::NotAdmitted => f.write_str("the server is believed to take no new connection now"),
            Self::Closed => f.write_str("the router is shut down"),
        }
    }
}

impl error::Error for ConnectFailure {}

/// A stream that fails, with a reason.
struct Refusing(ConnectFailure);

impl Refusing {
    fn refuse<T>(&self) -> Poll<io::Result<T>> {
        Poll::Ready(Err(io::Error::new(self.0.kind(), self.0)))
    }
}

impl AsyncRead for Refusing {
    fn poll_read(self: Pin<&mut Self>, _: &mut Context<'_>, _: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        self.refuse()
    }
}

impl AsyncWrite for Refusing {
    fn poll_write(self: Pin<&mut Self>, _: &mut Context<'_>, _: &[u8]) -> Poll<io::Result<usize>> {
        self.refuse()
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.refuse()
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.refuse()
    }
}
