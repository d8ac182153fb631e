//! Connections of diesel-async over connections of our own, for the back ends over deadpool and bb8.

use std::{
    error::Error,
    fmt,
    ops::{Deref, DerefMut},
};

#[cfg(feature = "deadpool")]
use ::deadpool::managed::{Manager, Metrics, Pool, QueueMode, RecycleError, RecycleResult};
use diesel_async::{AsyncPgConnection, SimpleAsyncConnection};
use tokio::task::JoinHandle;

#[cfg(feature = "bb8")]
use super::Bb8;
#[cfg(any(feature = "deadpool", feature = "bb8"))]
use super::{AcquireError, FromSpec, PoolSpec};
#[cfg(feature = "deadpool")]
use super::{AcquireErrorKind, Deadpool};
use super::{Condition, Connected, Connector, Driver, Probe, Tap};

/// The back end over `deadpool` for diesel-async: a lease is passed to a query as a pool's object is, `&mut lease`.
///
/// The router makes the connections, so it cuts them when a frozen server goes down, and sees in what condition one comes back.
/// [`Alias::write`](crate::Alias::write) is refused: use diesel's own `transaction`.
#[cfg(feature = "deadpool")]
pub type DeadpoolDiesel = Deadpool<ManageDiesel>;

/// The same over `bb8`.
#[cfg(feature = "bb8")]
pub type Bb8Diesel = Bb8<ManageDiesel>;

/// Makes deadpool and bb8 connect the way we do.
#[derive(Debug)]
pub struct ManageDiesel(Connector);

/// A connection of diesel's, to which it dereferences, with the task that drives it. Dropping it closes the session.
pub struct DieselSession {
    connection: AsyncPgConnection,
    task: JoinHandle<()>,
    tap: Tap,
}

impl ManageDiesel {
    /// Over what makes the router's connections: [`PoolSpec::connector`](super::PoolSpec).
    #[must_use]
    pub fn new(connector: Connector) -> Self {
        Self(connector)
    }

    async fn open(&self) -> Result<DieselSession, Box<dyn Error + Send + Sync>> {
        let Connected { client, task, tap } = self.0.connect_tapped().await?;
        // Aborted where diesel's first statements fail: the client is gone then, and the task with it.
        let connection = AsyncPgConnection::try_from(client).await?;
        Ok(DieselSession { connection, task, tap })
    }
}

#[cfg(feature = "deadpool")]
impl Manager for ManageDiesel {
    type Type = DieselSession;
    type Error = Box<dyn Error + Send + Sync>;

    async fn create(&self) -> Result<DieselSession, Self::Error> {
        self.open().await
    }

    async fn recycle(&self, session: &mut DieselSession, _: &Metrics) -> RecycleResult<Self::Error> {
        if session.tap.has_ended() { Err(RecycleError::message("closed while idle")) } else { Ok(()) }
    }
}

#[cfg(feature = "deadpool")]
impl FromSpec for DeadpoolDiesel {
    fn from_spec(spec: PoolSpec) -> Result<Self, AcquireError> {
        let pool = Pool::builder(ManageDiesel::new(spec.connector))
            .max_size(spec.max_size)
            // As for tokio-postgres: the connection that came back last.
            .queue_mode(QueueMode::Lifo)
            .build()
            .map_err(|error| AcquireError::new(AcquireErrorKind::Closed, error))?;
        Ok(Self::new(pool))
    }
}

#[cfg(feature = "bb8")]
impl FromSpec for Bb8Diesel {
    fn from_spec(spec: PoolSpec) -> Result<Self, AcquireError> {
        Self::with(spec, ManageDiesel::new)
    }
}

#[cfg(feature = "bb8")]
impl ::bb8::ManageConnection for ManageDiesel {
    type Connection = DieselSession;
    type Error = Box<dyn Error + Send + Sync>;

    async fn connect(&self) -> Result<DieselSession, Self::Error> {
        self.open().await
    }

    async fn is_valid(&self, session: &mut DieselSession) -> Result<(), Self::Error> {
        Driver::probe(session).await
    }

    fn has_broken(&self, session: &mut DieselSession) -> bool {
        session.tap.has_ended()
    }
}

impl Probe<DieselSession> for Driver {
    fn is_closed(session: &DieselSession) -> bool {
        session.tap.has_ended()
    }

    async fn probe(session: &DieselSession) -> Result<(), Box<dyn Error + Send + Sync>> {
        Ok((&session.connection).batch_execute("").await?)
    }

    fn condition(session: &DieselSession) -> Condition {
        session.tap.condition()
    }

    fn tap(session: &DieselSession) -> Option<Tap> {
        Some(session.tap.clone())
    }
}

impl Deref for DieselSession {
    type Target = AsyncPgConnection;

    fn deref(&self) -> &AsyncPgConnection {
        &self.connection
    }
}

impl DerefMut for DieselSession {
    fn deref_mut(&mut self) -> &mut AsyncPgConnection {
        &mut self.connection
    }
}

impl Drop for DieselSession {
    fn drop(&mut self) {
        // Not left to end by itself: on a frozen server it would wait for the answer of a statement in flight.
        self.task.abort();
    }
}

impl fmt::Debug for DieselSession {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DieselSession").finish_non_exhaustive()
    }
}
