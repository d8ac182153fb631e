//! One connection of sqlx's, and what is known of it without a tap: what was begun over it and has not ended.

use std::{
    fmt,
    pin::{Pin, pin},
    sync::atomic::{AtomicBool, AtomicUsize, Ordering},
    task::{Context, Poll},
    time::Instant,
};

use ::sqlx::{
    Connection, Either, Executor, PgConnection, Row, SqlStr, ValueRef,
    error::Error,
    postgres::{PgDatabaseError, PgRow, PgSeverity, PgTransactionManager},
};
use futures_core::{Stream, future::BoxFuture, stream::BoxStream};
use sqlx_core::transaction::TransactionManager;
use tokio::sync::Mutex;

use super::{
    super::{Condition, FirstRow, connect::Admitted},
    CutShort,
};
use crate::{clock, config::SessionReset};

/// A connection of sqlx's on loan: `&mut *lease` is an [`Executor`], as that of sqlx's own pool is.
///
/// What waits over it for a server that goes down is ended, with an error of the kind `Io`.
pub struct SqlxSession {
    /// Locked by the router alone, and only while the session is not in use.
    connection: Mutex<PgConnection>,
    life: Life,
}

/// What has happened to a session.
pub(super) struct Life {
    admitted: Admitted,
    spent_at: Option<Instant>,
    /// Statements that were begun and have not come to their end.
    under_way: AtomicUsize,
    /// Something may have begun a transaction of which sqlx does not know.
    unproven: AtomicBool,
    over: AtomicBool,
}

impl SqlxSession {
    pub(super) fn new(connection: PgConnection, admitted: Admitted) -> Self {
        let spent_at = admitted.lifetime.and_then(|lifetime| clock::now().checked_add(lifetime));
        let flag = || AtomicBool::new(false);
        let life = Life { admitted, spent_at, under_way: AtomicUsize::new(0), unproven: flag(), over: flag() };
        Self { connection: Mutex::new(connection), life }
    }

    /// sqlx's connection itself, for what takes no executor: `COPY`, `begin` with savepoints. What waits over it is not cut: put a deadline
    /// around it.
    pub fn connection(&mut self) -> &mut PgConnection {
        self.life.doubt();
        self.connection.get_mut()
    }

    pub(super) fn parts(&mut self) -> (&mut PgConnection, &Life) {
        (self.connection.get_mut(), &self.life)
    }

    pub(super) fn is_over(&self) -> bool {
        self.life.over.load(Ordering::Acquire) || self.life.is_cut()
    }

    pub(super) fn condition(&self) -> Condition {
        let spent = self.life.spent_at.is_some_and(|at| clock::now() >= at);
        if self.is_over() || spent {
            return Condition::Dirty;
        }
        let begun = self.life.under_way.load(Ordering::Acquire) > 0 || self.life.unproven.load(Ordering::Acquire);
        // A rollback that sqlx has queued would leave with the next statement.
        let open =
            self.connection.try_lock().map_or(true, |connection| depth(&connection) > 0 || connection.should_flush());
        match (begun || open, self.life.admitted.reset) {
            (true, _) => Condition::Busy,
            (false, SessionReset::None) => Condition::Unknown,
            (false, SessionReset::DiscardAll) => Condition::Used,
        }
    }

    /// Waits for what is under way, and rolls back what nobody will end.
    pub(super) async fn settled(&self) -> Condition {
        match self.life.end_with_cut(async { settle(&mut *self.connection.lock().await).await }).await {
            Ok(()) => {
                self.life.unproven.store(false, Ordering::Release);
                self.life.under_way.store(0, Ordering::Release);
                self.condition()
            }
            Err(_) => Condition::Dirty,
        }
    }

    pub(super) async fn ping(&self) -> Result<(), Error> {
        self.life.end_with_cut(async { self.connection.lock().await.ping().await }).await
    }

    /// Runs SQL of the router's as simple queries and gives the first row, as text. sqlx is told of a transaction that it begins or ends, so
    /// that a `begin` inside of it is a savepoint.
    pub(crate) async fn run(&self, sql: &str) -> Result<FirstRow, Error> {
        self.life.under_way.fetch_add(1, Ordering::AcqRel);
        let run = async {
            let connection = &mut *self.connection.lock().await;
            let mut rest = sql;
            if let Some(after) = sql.strip_prefix("BEGIN") {
                PgTransactionManager::begin(connection, None).await?;
                rest = after;
            }
            let (rest, commits) = rest.strip_suffix("COMMIT").map_or((rest, false), |before| (before, true));
            let rest = rest.trim_matches([';', ' ']);
            let row = match rest {
                "" => FirstRow::default(),
                "ROLLBACK" => roll_back(connection).await.map(|()| FirstRow::default())?,
                sql => first(connection, sql).await?,
            };
            if commits {
                PgTransactionManager::commit(connection).await?;
            }
            Ok(row)
        };
        let answer = self.life.end_with_cut(run).await;
        self.life.under_way.fetch_sub(1, Ordering::AcqRel);
        answer
    }
}

/// Transactions and savepoints that sqlx knows to be open.
fn depth(connection: &PgConnection) -> usize {
    PgTransactionManager::get_transaction_depth(connection)
}

async fn roll_back(connection: &mut PgConnection) -> Result<(), Error> {
    while depth(connection) > 0 {
        PgTransactionManager::rollback(connection).await?;
    }
    Ok(())
}

/// Leaves every transaction, whoever began it.
async fn settle(connection: &mut PgConnection) -> Result<(), Error> {
    roll_back(connection).await?;
    // sqlx tells only here what the server says of it: a transaction is open after the statement, none is, or one has failed.
    match PgTransactionManager::begin(connection, Some(SqlStr::from_static("SELECT 1"))).await {
        Ok(()) => roll_back(connection).await,
        Err(Error::BeginFailed) => Ok(()),
        Err(Error::Database(_)) => first(connection, "ROLLBACK").await.map(drop),
        Err(error) => Err(error),
    }
}

async fn first(connection: &mut PgConnection, sql: &str) -> Result<FirstRow, Error> {
    let mut first = None;
    let mut found = connection.fetch_many(::sqlx::raw_sql(::sqlx::AssertSqlSafe(sql.to_owned())));
    while let Some(step) = next(&mut found).await {
        if let Either::Right(row) = step?
            && first.is_none()
        {
            first = Some(columns(&row)?);
        }
    }
    Ok(first.unwrap_or_default())
}

/// What a simple query returns is text, whatever its type.
fn columns(row: &PgRow) -> Result<FirstRow, Error> {
    let column = |at| {
        let value = row.try_get_raw(at)?;
        match value.is_null() {
            true => Ok(None),
            false => value.as_str().map(|text| Some(text.to_owned())).map_err(Error::Decode),
        }
    };
    (0..row.len()).map(column).collect()
}

pub(super) async fn next<S: Stream + Unpin>(stream: &mut S) -> Option<S::Item> {
    std::future::poll_fn(|cx| Pin::new(&mut *stream).poll_next(cx)).await
}

impl Life {
    /// The session is asked before it is lent again whether a transaction is open.
    pub(super) fn doubt(&self) {
        self.unproven.store(true, Ordering::Release);
    }

    fn is_cut(&self) -> bool {
        self.admitted.cuts.value().ends(self.admitted.generation)
    }

    async fn cut(&self) {
        self.admitted.cuts.wait_for(|cut| cut.ends(self.admitted.generation)).await;
    }

    /// Takes note of an error after which there is no session, and lets the router know.
    fn note(&self, error: &Error) {
        let over = match error {
            Error::Io(_) | Error::Tls(_) | Error::Protocol(_) | Error::WorkerCrashed => true,
            Error::Database(told) => told
                .try_downcast_ref::<PgDatabaseError>()
                .is_some_and(|told| matches!(told.severity(), PgSeverity::Fatal | PgSeverity::Panic)),
            _ => false,
        };
        if over {
            self.end();
            let Admitted { server, generation, .. } = &self.admitted;
            if server.is_accused_by_error(error) {
                server.lose(*generation);
            }
        }
    }

    fn end(&self) {
        self.over.store(true, Ordering::Release);
    }

    async fn end_with_cut<T>(&self, work: impl Future<Output = Result<T, Error>>) -> Result<T, Error> {
        let (mut work, mut cut) = (pin!(work), pin!(self.cut()));
        let ended = std::future::poll_fn(|cx| match work.as_mut().poll(cx) {
            Poll::Pending => cut.as_mut().poll(cx).map(|()| None),
            Poll::Ready(answer) => Poll::Ready(Some(answer)),
        });
        let answer = ended.await.unwrap_or_else(|| {
            self.end();
            Err(CutShort.into_error())
        });
        if let Err(error) = &answer {
            self.note(error);
        }
        answer
    }

    /// The same for one statement of a user's.
    pub(super) fn watch<'e, T: Send + 'e>(
        &'e self,
        work: BoxFuture<'e, Result<T, Error>>,
    ) -> BoxFuture<'e, Result<T, Error>> {
        Box::pin(async move {
            self.under_way.fetch_add(1, Ordering::AcqRel);
            let answer = self.end_with_cut(work).await;
            self.under_way.fetch_sub(1, Ordering::AcqRel);
            answer
        })
    }

    /// The same for one whose answer comes step by step.
    pub(super) fn watch_all<'e, T: 'e>(
        &'e self,
        steps: BoxStream<'e, Result<T, Error>>,
    ) -> BoxStream<'e, Result<T, Error>> {
        self.under_way.fetch_add(1, Ordering::AcqRel);
        Box::pin(Watched { steps, cut: Box::pin(self.cut()), life: self, done: false })
    }
}

/// The answer to a statement, as long as its server is believed to give one.
struct Watched<'e, T> {
    steps: BoxStream<'e, Result<T, Error>>,
    cut: BoxFuture<'e, ()>,
    life: &'e Life,
    done: bool,
}

impl<T> Stream for Watched<'_, T> {
    type Item = Result<T, Error>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        if self.done {
            return Poll::Ready(None);
        }
        let step = match self.steps.as_mut().poll_next(cx) {
            Poll::Ready(step) => step,
            Poll::Pending => {
                std::task::ready!(self.cut.as_mut().poll(cx));
                self.life.end();
                Some(Err(CutShort.into_error()))
            }
        };
        match &step {
            Some(Ok(_)) => return Poll::Ready(step),
            Some(Err(error)) => self.life.note(error),
            None => {}
        }
        self.done = true;
        self.life.under_way.fetch_sub(1, Ordering::AcqRel);
        Poll::Ready(step)
    }
}

impl fmt::Debug for SqlxSession {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SqlxSession").field("is_over", &self.is_over()).finish_non_exhaustive()
    }
}
