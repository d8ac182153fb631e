//! The back end for sqlx: its connections, made when the router says so, in a pool of deadpool's. See `docs/adopt/sqlx.md` for what it lacks.

mod executor;
mod options;
mod session;
mod text;

use std::{error::Error, fmt, io, time::Duration};

use ::deadpool::managed::{Manager, Metrics, Pool, QueueMode, RecycleError, RecycleResult};
use ::sqlx::{Connection, postgres::PgConnectOptions};
use tokio::time::timeout;

pub use self::session::SqlxSession;
use super::{
    AcquireError, AcquireErrorKind, Condition, Connector, Deadpool, Driver, FirstRow, FromSpec, PoolSpec, Probe,
};

/// The back end for sqlx: leases are used as `&mut *lease`, and an [`Alias`](crate::Alias) as `&alias` where `&pool` was.
///
/// sqlx drives its own sockets, so there is no tap, and this back end knows less than the others:
///
/// - Of a statement that failed with its connection, [`Error::outcome`](crate::Error::outcome) is `Unknown`, or `RolledBack` inside of a
///   [`write`](crate::Alias::write) that was not committed; never `NotSent`. A lost `COMMIT` is asked for, as over the other back ends.
/// - Whether a transaction is open is known of those that sqlx began. After SQL that may begin or end one, and after
///   [`SqlxSession::connection`], the server is asked before the connection is lent again. A `COMMIT` of the work's own inside of a `write` is not seen.
/// - A statement that waits for a server that goes down is ended here too, unless it runs over [`SqlxSession::connection`]. It is not cancelled at
///   the server.
/// - A connection that is lent and has no statement under way when its server goes down, or the router is shut down, is closed when it comes back.
/// - A connection that ends while it is idle is found out when it is lent, and only if it has been idle for a second.
pub type Sqlx = Deadpool<ManageSqlx>;

/// After so long without use a connection is asked before it is lent: nobody watches it meanwhile.
const IDLE: Duration = Duration::from_secs(1);

/// How long it may take to answer then.
const ANSWER: Duration = Duration::from_secs(1);

/// Makes deadpool connect by sqlx, the way we do.
pub struct ManageSqlx {
    connector: Connector,
    options: PgConnectOptions,
}

impl ManageSqlx {
    /// Over what knows the server: [`PoolSpec::connector`].
    ///
    /// # Errors
    ///
    /// Where the URL asks for what sqlx cannot do.
    pub fn new(connector: Connector) -> Result<Self, AcquireError> {
        let options = options::of(connector.target());
        let options = options.map_err(|why| AcquireError::new(AcquireErrorKind::Closed, why))?;
        Ok(Self { connector, options })
    }
}

impl fmt::Debug for ManageSqlx {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // sqlx's options would print the password.
        f.debug_struct("ManageSqlx").field("connector", &self.connector).finish_non_exhaustive()
    }
}

impl Manager for ManageSqlx {
    type Type = SqlxSession;
    type Error = Box<dyn Error + Send + Sync>;

    async fn create(&self) -> Result<SqlxSession, Self::Error> {
        let options = self.options.clone();
        let connect = async move { ::sqlx::PgConnection::connect_with(&options).await };
        let (connection, admitted) = self.connector.connect_by(connect).await?;
        Ok(SqlxSession::new(connection?, admitted))
    }

    async fn recycle(&self, session: &mut SqlxSession, metrics: &Metrics) -> RecycleResult<Self::Error> {
        if session.is_over() {
            return Err(RecycleError::message("closed while idle"));
        }
        if metrics.last_used() < IDLE {
            return Ok(());
        }
        match timeout(ANSWER, Driver::probe(session)).await {
            Ok(answer) => answer.map_err(RecycleError::Backend),
            Err(_) => Err(RecycleError::message("no answer while idle")),
        }
    }
}

impl FromSpec for Sqlx {
    fn from_spec(spec: PoolSpec) -> Result<Self, AcquireError> {
        let pool = Pool::builder(ManageSqlx::new(spec.connector)?)
            .max_size(spec.max_size)
            // As for tokio-postgres: the connection that came back last.
            .queue_mode(QueueMode::Lifo)
            .build()
            .map_err(|error| AcquireError::new(AcquireErrorKind::Closed, error))?;
        Ok(Self::new(pool))
    }
}

impl Probe<SqlxSession> for Driver {
    fn is_closed(session: &SqlxSession) -> bool {
        session.is_over()
    }

    async fn probe(session: &SqlxSession) -> Result<(), Box<dyn Error + Send + Sync>> {
        Ok(session.ping().await?)
    }

    fn condition(session: &SqlxSession) -> Condition {
        session.condition()
    }

    async fn settled(session: &SqlxSession) -> Condition {
        session.settled().await
    }

    async fn execute(session: &SqlxSession, sql: &str) -> Result<FirstRow, Box<dyn Error + Send + Sync>> {
        Ok(session.run(sql).await?)
    }
}

/// Why a statement was ended here: its server is believed down, or the router is shut down.
#[derive(Debug)]
pub(super) struct CutShort;

impl CutShort {
    fn into_error(self) -> ::sqlx::Error {
        ::sqlx::Error::Io(io::Error::new(io::ErrorKind::ConnectionAborted, self))
    }
}

impl fmt::Display for CutShort {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("cut: the server is believed down")
    }
}

impl Error for CutShort {}
