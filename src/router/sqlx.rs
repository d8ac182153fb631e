//! An alias where a `PgPool` was: statements over it, and transactions.

use std::{
    fmt, io,
    ops::{Deref, DerefMut},
    pin::Pin,
    task::{Context, Poll},
};

use ::sqlx::{
    Describe, Either, Error, Execute, Executor, Postgres, SqlStr,
    postgres::{PgQueryResult, PgRow, PgStatement, PgTypeInfo},
};
use futures_core::{Stream, future::BoxFuture, stream::BoxStream};
use tokio::sync::mpsc;

use super::{Alias, lease::Lease, transaction::Transaction};
use crate::pool::{Backend, Sqlx, SqlxSession};

type Step = Either<PgQueryResult, PgRow>;

/// As with `&pool`, each statement has a connection of its own.
///
/// Where none is given, the error is sqlx's `Io`, and the router's own is inside of it: [`lease_error`].
impl<'p> Executor<'p> for &'p Alias<Sqlx> {
    type Database = Postgres;

    fn fetch_many<'e, 'q: 'e, E>(self, query: E) -> BoxStream<'e, Result<Step, Error>>
    where
        'p: 'e,
        E: 'q + Execute<'q, Postgres>,
    {
        let (steps, received) = mpsc::channel(1);
        let work = async move {
            let mut lease = self.get().await.map_err(unserved)?;
            let mut found = lease.fetch_many(query);
            while let Some(step) = std::future::poll_fn(|cx| found.as_mut().poll_next(cx)).await {
                // Nobody listens where the stream is dropped, and then so is this.
                let _ = steps.send(step?).await;
            }
            Ok(())
        };
        Box::pin(Steps { work: Some(Box::pin(work)), received })
    }

    fn fetch_optional<'e, 'q: 'e, E>(self, query: E) -> BoxFuture<'e, Result<Option<PgRow>, Error>>
    where
        'p: 'e,
        E: 'q + Execute<'q, Postgres>,
    {
        Box::pin(async move { self.get().await.map_err(unserved)?.fetch_optional(query).await })
    }

    fn prepare_with<'e>(self, sql: SqlStr, parameters: &'e [PgTypeInfo]) -> BoxFuture<'e, Result<PgStatement, Error>>
    where
        'p: 'e,
    {
        Box::pin(async move { self.get().await.map_err(unserved)?.prepare_with(sql, parameters).await })
    }

    fn describe<'e>(self, sql: SqlStr) -> BoxFuture<'e, Result<Describe<Postgres>, Error>>
    where
        'p: 'e,
    {
        Box::pin(async move { self.get().await.map_err(unserved)?.describe(sql).await })
    }
}

macro_rules! executes {
    ($lent:ident) => {
        /// Over the connection that it holds.
        impl<'c> Executor<'c> for &'c mut $lent<Sqlx> {
            type Database = Postgres;

            fn fetch_many<'e, 'q: 'e, E>(self, query: E) -> BoxStream<'e, Result<Step, Error>>
            where
                'c: 'e,
                E: 'q + Execute<'q, Postgres>,
            {
                session(self).fetch_many(query)
            }

            fn fetch_optional<'e, 'q: 'e, E>(self, query: E) -> BoxFuture<'e, Result<Option<PgRow>, Error>>
            where
                'c: 'e,
                E: 'q + Execute<'q, Postgres>,
            {
                session(self).fetch_optional(query)
            }

            fn prepare_with<'e>(self, sql: SqlStr, of: &'e [PgTypeInfo]) -> BoxFuture<'e, Result<PgStatement, Error>>
            where
                'c: 'e,
            {
                session(self).prepare_with(sql, of)
            }

            fn describe<'e>(self, sql: SqlStr) -> BoxFuture<'e, Result<Describe<Postgres>, Error>>
            where
                'c: 'e,
            {
                session(self).describe(sql)
            }
        }
    };
}

executes!(Lease);
executes!(Transaction);

/// The session in what the pool lends.
fn session<L: DerefMut<Target = <Sqlx as Backend>::Connection>>(lent: &mut L) -> &mut SqlxSession {
    lent
}

impl Alias<Sqlx> {
    /// Begins a transaction, as `pool.begin()` does: statements run over `&mut *transaction`.
    ///
    /// [`Alias::write`](Alias::write) is what knows when to make one again, and what became of a lost `COMMIT`.
    ///
    /// # Errors
    ///
    /// Where no connection is given: [`lease_error`]; and where the server refuses.
    ///
    /// # Cancel safety
    ///
    /// Cancel safe: what was begun is rolled back.
    pub async fn begin(&self) -> Result<SqlxTransaction, Error> {
        let lease = self.get().await.map_err(unserved)?;
        lease.run("BEGIN").await?;
        Ok(SqlxTransaction { lease })
    }
}

/// A transaction over a lease. Dropping it rolls back.
pub struct SqlxTransaction {
    lease: Lease<Sqlx>,
}

impl SqlxTransaction {
    /// Commits.
    ///
    /// # Errors
    ///
    /// sqlx's. Where the connection was lost, nobody knows whether it has happened.
    ///
    /// # Cancel safety
    ///
    /// None: it may have been committed.
    pub async fn commit(self) -> Result<(), Error> {
        self.lease.run("COMMIT").await.map(drop)
    }

    /// Rolls back, and waits for it.
    ///
    /// # Errors
    ///
    /// sqlx's; what was done is gone all the same.
    ///
    /// # Cancel safety
    ///
    /// Cancel safe: it is rolled back all the same.
    pub async fn rollback(self) -> Result<(), Error> {
        self.lease.run("ROLLBACK").await.map(drop)
    }
}

impl Deref for SqlxTransaction {
    type Target = SqlxSession;

    fn deref(&self) -> &SqlxSession {
        &self.lease
    }
}

impl DerefMut for SqlxTransaction {
    fn deref_mut(&mut self) -> &mut SqlxSession {
        &mut self.lease
    }
}

impl fmt::Debug for SqlxTransaction {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SqlxTransaction").field("lease", &self.lease).finish()
    }
}

/// The router's error in one of sqlx's, where an alias gave no connection.
#[must_use]
pub fn lease_error(error: &Error) -> Option<&super::Error> {
    match error {
        Error::Io(error) => error.get_ref()?.downcast_ref(),
        _ => None,
    }
}

fn unserved(error: super::Error) -> Error {
    Error::Io(io::Error::other(error))
}

/// The steps of an answer, on a connection that comes with the first and goes with the last.
struct Steps<'e> {
    work: Option<BoxFuture<'e, Result<(), Error>>>,
    received: mpsc::Receiver<Step>,
}

impl Stream for Steps<'_> {
    type Item = Result<Step, Error>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let mut failed = None;
        if let Some(work) = &mut self.work
            && let Poll::Ready(done) = work.as_mut().poll(cx)
        {
            self.work = None;
            failed = done.err();
        }
        if let Poll::Ready(Some(step)) = self.received.poll_recv(cx) {
            if let Some(error) = failed {
                // After what came before it.
                self.work = Some(Box::pin(async { Err(error) }));
            }
            return Poll::Ready(Some(Ok(step)));
        }
        match failed {
            Some(error) => Poll::Ready(Some(Err(error))),
            None if self.work.is_none() => Poll::Ready(None),
            None => Poll::Pending,
        }
    }
}
