//! A transaction that the router commits: made again by itself where that is safe, and never reported as less than it may be.

use std::{
    error::Error as StdError,
    future::Future,
    sync::{Arc, PoisonError},
    time::Duration,
};

use tokio::time::{sleep, timeout_at};

use super::{
    Alias, Inner,
    call::{Attempt, BACKOFF, BoxError, End, Failure, Repeat},
    deadline::Deadline,
    error::Error,
    fate::Fate,
    lease::Lease,
    line::Line,
    meter::Call,
    recall::{Recall, Tether, statement_timeout},
    transaction::{Broken, Open, Transaction},
};
use crate::{
    clock,
    config::Role,
    health::Need,
    observe::{Event, EventKind},
    plan::Candidate,
    policy::{Effort, Fault, Outcome, Verdict, verdict},
    pool::Backend,
};

/// Writes whose replicas did not confirm them are told of so often at most.
const TELL_AGAIN: Duration = Duration::from_secs(60);

impl<B: Backend> Alias<B> {
    /// Runs `work` in a transaction and commits it: on the alias's own server, which has to be a primary, never on a detour.
    ///
    /// The router sends `BEGIN` before the work and `COMMIT` after it has returned and dropped its [`Transaction`]; if it returns
    /// an error, `ROLLBACK`. After a serialization failure or a deadlock the whole work is run again, and so it is where the
    /// connection was lost before any statement of the work could leave: within `call_timeout` (default 30 s) or the
    /// [deadline](crate::Router::with_deadline) around it, and within the alias's `retry_budget`. So let the work do nothing
    /// outside of the transaction that may not be done twice.
    ///
    /// ```no_run
    /// # #[cfg(feature = "deadpool")]
    /// # async fn example(primary: pgdetour::Alias, id: i64) -> Result<(), pgdetour::Error> {
    /// primary
    ///     .write(|transaction| async move {
    ///         transaction.execute("UPDATE accounts SET balance = balance - 1 WHERE id = $1", &[&id]).await?;
    ///         transaction.execute("INSERT INTO payments (account) VALUES ($1)", &[&id]).await
    ///     })
    ///     .await?;
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// It costs a round trip before the work and one after it. With `COMMIT` goes a question for the transaction's number: where
    /// the connection is lost before `COMMIT` is answered and the server is well, it is asked what became of the
    /// transaction, and believed unless it has been promoted or restarted, or has crashed, since.
    ///
    /// Under synchronous replication, a `COMMIT` whose wait for the replica was cancelled has happened on the primary: it is a
    /// success here. So is one whose session was terminated in that wait, if the server can be asked. Since a failover may lose it,
    /// the log has a WARN, at most one a minute.
    ///
    /// # Errors
    ///
    /// [`Error::outcome`] says what became of it. [`Unknown`](Outcome::Unknown) is the one after which it may have happened:
    /// `COMMIT` may have left, and no answer came. Otherwise nothing of it stays. A write with a key, `write_once`, finds out by
    /// itself. The error of the work is the source. An alias that is not a primary's is refused, and so is a write while its
    /// server takes none; [`Error::is_read_only`].
    ///
    /// # Cancel safety
    ///
    /// A dropped call is rolled back, and what runs of it at the server is cancelled, unless its `COMMIT` was under way.
    pub async fn write<T, E, F>(&self, mut work: impl FnMut(Transaction<B>) -> F + Send) -> Result<T, Error>
    where
        F: Future<Output = Result<T, E>> + Send,
        E: Into<Box<dyn StdError + Send + Sync>>,
    {
        let line = self.current()?;
        let mut course = Course::begin(line, &self.router);
        loop {
            let lease = course.lease().await?;
            match course.attempt(lease, &mut work).await {
                Ok(value) => {
                    course.answered();
                    return Ok(value);
                }
                Err(broken) => course.again(broken, false).await?,
            }
        }
    }
}

impl<B: Backend> Alias<B> {
    /// The line of this alias, of the newest configuration.
    pub(super) fn current(&self) -> Result<Arc<Line<B>>, Error> {
        if self.line.is_retired() { self.router.line(self.line.name.as_str()) } else { Ok(Arc::clone(&self.line)) }
    }
}

/// One write, and what has become of it so far.
pub(super) struct Course<'a, B: Backend> {
    /// The newest, as of the last look.
    line: Arc<Line<B>>,
    router: &'a Inner<B>,
    pub(super) deadline: Deadline,
    /// The connection of the attempt that is made now.
    at: Option<Arc<Recall>>,
    attempts: Vec<Attempt>,
    source: Option<BoxError>,
    again: u32,
    /// When the write may be made again by its caller.
    pub(super) repeat: Repeat,
}

impl<'a, B: Backend> Course<'a, B> {
    pub(super) fn begin(line: Arc<Line<B>>, router: &'a Inner<B>) -> Self {
        line.budget.deposit();
        let deadline = Deadline::after(line.calls.call_timeout).or_earlier(Deadline::current());
        let repeat = Repeat::IfUndone;
        Self { line, router, deadline, at: None, attempts: Vec::new(), source: None, again: 0, repeat }
    }

    /// A connection to the alias's own server, if that takes writes.
    async fn lease(&mut self) -> Result<Lease<B>, Error> {
        self.try_lease().await.map_err(|end| self.end(end))
    }

    /// The same, where the call may go on without one.
    pub(super) async fn try_lease(&mut self) -> Result<Lease<B>, End> {
        let since = clock::now();
        let mut lease = loop {
            if self.line.is_retired() {
                self.line = self.router.line(self.line.name.as_str()).map_err(End::Unserved)?;
            }
            self.is_served()?;
            let lease = match timeout_at(self.deadline.at().into(), self.line.get(self.router)).await {
                Ok(lease) => lease.map_err(End::Unserved)?,
                Err(_) => return Err(End::Late(self.deadline.within())),
            };
            // Of a retired line nothing is learned any more, and whose connection this is it cannot say.
            if !self.line.is_retired() {
                break lease;
            }
        };
        // It may have waited for long.
        self.is_served()?;
        let known = self.line.table.load().get(lease.server()).and_then(|entry| entry.known.facts);
        if lease.is_detour() || known.is_none_or(|facts| facts.role != Role::Primary) {
            return Err(End::Unserved(self.line.refuse_write(Vec::new())));
        }
        self.at = Some(Recall::tie(&mut lease, (since, clock::now()), None));
        Ok(lease)
    }

    /// Whether the alias's own server takes writes, as far as is known now.
    fn is_served(&self) -> Result<(), End> {
        let serves = self.line.route.own()[0].belief().serves(Need::Writes);
        if self.line.route.need() == Need::Writes && serves {
            return Ok(());
        }
        Err(End::Unserved(self.line.refuse_write(Vec::new())))
    }

    /// What begins its transaction, and tells the server of the deadline where it is to know: until the transaction ends.
    ///
    /// `COMMIT` is not cut by it: PostgreSQL stops the timer before it commits. What it cuts before that is rolled back.
    pub(super) fn opening(&self) -> String {
        match self.line.calls.pass_deadline {
            true => format!("BEGIN; SET LOCAL {}", statement_timeout(self.deadline.left(clock::now()))),
            false => "BEGIN".to_owned(),
        }
    }

    /// What cancels the attempt that is made now when it is dropped.
    pub(super) fn tether(&self) -> Option<Tether> {
        self.at.as_ref().map(Tether::new)
    }

    /// Runs the work in a transaction, once.
    async fn attempt<T, E, F>(&mut self, lease: Lease<B>, work: impl FnOnce(Transaction<B>) -> F) -> Result<T, Broken>
    where
        F: Future<Output = Result<T, E>>,
        E: Into<BoxError>,
    {
        let (until, tether) = (self.deadline.at().into(), self.tether());
        let fate = timeout_at(until, Fate::before(&lease, &self.line)).await;
        let fate = fate.map_err(|_| Broken::late(Outcome::NotSent, B::tap(&lease).as_ref()).at("BEGIN"))?;
        let (open, _) = Open::begin((lease, tether), &self.opening(), self.deadline).await?;
        let (open, value) = open.run(work).await?;
        let (broken, xid) = match open.commit(fate.question()).await {
            Ok(committed) => {
                self.committed(committed.unconfirmed);
                return Ok(value);
            }
            Err(failed) => failed,
        };
        let Some(xid) = xid else { return Err(broken) };
        match timeout_at(until, fate.is_committed(xid, &self.line, self.router)).await {
            Ok(Some(true)) => {
                self.committed(broken.unconfirmed);
                Ok(value)
            }
            Ok(Some(false)) => Err(Broken { outcome: Outcome::RolledBack, ..broken }),
            Ok(None) | Err(_) => Err(broken),
        }
    }

    /// Tells of what a failover may lose, now and then.
    pub(super) fn committed(&self, unconfirmed: bool) {
        if !unconfirmed {
            return;
        }
        let now = clock::now();
        let mut told = self.line.unconfirmed.lock().unwrap_or_else(PoisonError::into_inner);
        if told.is_none_or(|told| now.saturating_duration_since(told) >= TELL_AGAIN) {
            *told = Some(now);
            let server = &self.line.route.own()[0].server;
            let about = (server.name.clone(), server.address.as_str().into());
            self.router.observer.emit(Event::new(Some(about), EventKind::CommitUnconfirmed));
        }
    }

    /// The attempt that is made now has come to an answer.
    pub(super) fn answered(&mut self) {
        self.line.count.called(Call::Write, None);
        if let Some(recall) = self.at.take() {
            self.line.attempted(&recall.server, Call::Write, None);
            recall.server.record_call(None, clock::now().saturating_duration_since(recall.times.1));
        }
    }

    /// Goes on to the next attempt, after a wait, or ends the call. One that has to be made to learn what became of the last
    /// is `owed`: no budget keeps it back.
    pub(super) async fn again(&mut self, broken: Broken, owed: bool) -> Result<(), Error> {
        let (outcome, fault, late) = (broken.outcome, broken.fault, broken.late);
        self.record(broken);
        if late {
            return Err(self.end(End::Late(self.deadline.within())));
        }
        let given_up = fault.is_none_or(|fault| verdict(Effort::Write, fault, outcome) == Verdict::GiveUp);
        if given_up && !(owed && outcome == Outcome::Unknown) {
            return Err(self.end(End::Failed));
        }
        if !owed && !self.line.budget.withdraw() {
            return Err(self.end(End::Spent));
        }
        self.wait().await
    }

    /// Ends the call with this.
    #[cfg(feature = "once")]
    pub(super) fn fail(&mut self, broken: Broken) -> Error {
        self.record(broken);
        self.end(End::Failed)
    }

    fn record(&mut self, Broken { outcome, fault, cause, source, late, lost: _, unconfirmed }: Broken) {
        self.committed(unconfirmed);
        if let Some(recall) = self.at.take() {
            let (server, (since, lent)) = (&recall.server, recall.times);
            if !late && fault.is_some_and(|fault| server.is_accused_by(fault)) {
                server.doubt(recall.generation);
            }
            let (acquire, work) = (lent.saturating_duration_since(since), clock::now().saturating_duration_since(lent));
            match fault {
                Some(_) if late => server.record_late(work),
                None if late => {}
                fault => server.record_call(fault.or(Some(Fault::Unknown)), work),
            }
            self.line.attempted(server, Call::Write, Some(outcome));
            self.attempts.push(Attempt { server: server.name.clone(), detour: false, acquire, work, outcome, cause });
        }
        self.source = source.or(self.source.take());
    }

    /// Takes note that what was unknown has not happened.
    #[cfg(feature = "once")]
    pub(super) fn settle(&mut self) {
        let unknown = self.attempts.iter_mut().filter(|attempt| attempt.outcome == Outcome::Unknown);
        unknown.for_each(|attempt| attempt.outcome = Outcome::RolledBack);
    }

    /// Waits before the same server is tried again.
    pub(super) async fn wait(&mut self) -> Result<(), Error> {
        let delay = BACKOFF.delay(self.again, fastrand::u64(..));
        self.again += 1;
        if timeout_at(self.deadline.at().into(), sleep(delay)).await.is_err() {
            return Err(self.end(End::Late(self.deadline.within())));
        }
        Ok(())
    }

    pub(super) fn end(&mut self, end: End) -> Error {
        match end {
            End::Unserved(error) if self.attempts.is_empty() => error,
            end => {
                let (alias, attempts) = (self.line.name.clone(), std::mem::take(&mut self.attempts));
                let failure = Failure { alias, repeat: self.repeat, end, attempts, source: self.source.take() };
                self.line.count.called(Call::Write, Some(failure.outcome()));
                Error::call(failure)
            }
        }
    }
}
