//! tokio-postgres over connections of our own, for bb8.

use std::{
    error::Error,
    ops::{Deref, DerefMut},
};

use ::bb8::ManageConnection;
use tokio::task::JoinHandle;

use super::{
    AcquireError, Bb8, Condition, Connected, Connector, Driver, FirstRow, FromSpec, PoolSpec, Probe, Tap, probe,
};

/// The back end over `bb8` that makes its connections itself: leases dereference to `tokio_postgres::Client`.
pub type Bb8Postgres = Bb8<ManagePostgres>;

impl FromSpec for Bb8Postgres {
    fn from_spec(spec: PoolSpec) -> Result<Self, AcquireError> {
        Self::with(spec, ManagePostgres)
    }
}

/// Makes bb8 connect the way we do.
#[derive(Debug)]
pub struct ManagePostgres(Connector);

/// A tokio-postgres client, to which it dereferences, with the task that drives it. Dropping it closes the session.
#[derive(Debug)]
pub struct Session {
    /// In a box, since bb8 moves what it lends a dozen times, and a client is some 200 bytes.
    client: Box<tokio_postgres::Client>,
    task: JoinHandle<()>,
    tap: Tap,
}

impl ManageConnection for ManagePostgres {
    type Connection = Session;
    type Error = tokio_postgres::Error;

    async fn connect(&self) -> Result<Session, tokio_postgres::Error> {
        let Connected { client, task, tap } = self.0.connect_tapped().await?;
        Ok(Session { client: Box::new(client), task, tap })
    }

    async fn is_valid(&self, session: &mut Session) -> Result<(), tokio_postgres::Error> {
        session.check_connection().await
    }

    fn has_broken(&self, session: &mut Session) -> bool {
        session.is_closed()
    }
}

impl Deref for Session {
    type Target = tokio_postgres::Client;

    fn deref(&self) -> &tokio_postgres::Client {
        &self.client
    }
}

impl DerefMut for Session {
    fn deref_mut(&mut self) -> &mut tokio_postgres::Client {
        &mut self.client
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        // Not left to end by itself: on a frozen server it would wait for the answer of a statement in flight.
        self.task.abort();
    }
}

impl Probe<Session> for Driver {
    fn is_closed(session: &Session) -> bool {
        session.client.is_closed()
    }

    async fn probe(session: &Session) -> Result<(), Box<dyn Error + Send + Sync>> {
        Ok(session.client.check_connection().await?)
    }

    fn condition(session: &Session) -> Condition {
        session.tap.condition()
    }

    fn tap(session: &Session) -> Option<Tap> {
        Some(session.tap.clone())
    }

    async fn execute(session: &Session, sql: &str) -> Result<FirstRow, Box<dyn Error + Send + Sync>> {
        probe::execute(&session.client, sql).await
    }
}
