//! What a write runs in: a transaction that the router has begun, hands out, and alone commits.

use std::{
    fmt,
    future::{Future, poll_fn},
    ops::{Deref, DerefMut},
    pin::pin,
    task::Poll,
    time::Duration,
};

use tokio::{sync::oneshot, time::timeout_at};

use super::{DefaultBackend, call::BoxError, deadline::Deadline, lease::Lease, recall::Tether};
use crate::{
    clock,
    config::AliasName,
    health::Cause,
    policy::{Fault, Outcome},
    pool::{Backend, Condition, FirstRow, Tap, Transaction as Standing, cause_of},
};

/// The transaction of a [write](crate::Alias::write). It dereferences to what a [`Lease`] does, so it is used as that is.
///
/// The router commits when the work has returned and this is dropped. Do not end the transaction yourself, by `COMMIT` or
/// `ROLLBACK`: the router could no longer say what became of it. To give it up return an error. Savepoints are yours.
pub struct Transaction<B: Backend = DefaultBackend> {
    /// There until `drop`.
    lease: Option<Lease<B>>,
    back: Option<oneshot::Sender<Lease<B>>>,
}

impl<B: Backend> Transaction<B> {
    fn lend(lease: Lease<B>) -> (Self, oneshot::Receiver<Lease<B>>) {
        let (back, returned) = oneshot::channel();
        (Self { lease: Some(lease), back: Some(back) }, returned)
    }

    /// The alias that declares the server it runs on.
    #[must_use]
    pub fn server(&self) -> &AliasName {
        self.lease().server()
    }

    fn lease(&self) -> &Lease<B> {
        self.lease.as_ref().expect("the lease is there until the transaction is dropped")
    }
}

impl<B: Backend> Deref for Transaction<B> {
    type Target = B::Connection;

    fn deref(&self) -> &B::Connection {
        self.lease()
    }
}

impl<B: Backend> DerefMut for Transaction<B> {
    fn deref_mut(&mut self) -> &mut B::Connection {
        self.lease.as_mut().expect("the lease is there until the transaction is dropped")
    }
}

impl<B: Backend> Drop for Transaction<B> {
    fn drop(&mut self) {
        if let (Some(lease), Some(back)) = (self.lease.take(), self.back.take()) {
            // Where nobody waits for it any more the lease is dropped, and with it an open transaction is given up.
            let _ = back.send(lease);
        }
    }
}

impl<B: Backend> fmt::Debug for Transaction<B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Transaction").field("server", self.server()).finish_non_exhaustive()
    }
}

/// How long a rollback may take: it costs a round trip, and without it the connection is closed.
const ROLLBACK: Duration = Duration::from_millis(100);

/// A connection whose transaction is committed.
pub(super) struct Committed<B: Backend> {
    #[cfg_attr(not(feature = "once"), allow(dead_code, reason = "what happens once tidies up over it"))]
    pub(super) lease: Lease<B>,
    /// Whether it is so on the primary alone, though replicas were to be waited for.
    pub(super) unconfirmed: bool,
}

/// What goes ahead of a `COMMIT`, without waiting for the answer. It fails where the transaction has failed: a `COMMIT` there
/// is answered like any other, and rolls back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Question {
    /// The number of the transaction, if it has one, and when the server was started that gave it.
    Number,
    /// Whether it stands.
    Standing,
}

impl Question {
    fn sql(self) -> &'static str {
        match self {
            Self::Number => {
                "SELECT pg_catalog.pg_current_xact_id_if_assigned(), extract(epoch FROM pg_catalog.pg_postmaster_start_time())"
            }
            Self::Standing => "SELECT 1",
        }
    }
}

/// A connection inside a transaction that the router has begun.
pub(super) struct Open<B: Backend> {
    /// Before the lease, so that it is dropped before it. Until a `COMMIT` may have left: to cancel that would end its wait for
    /// the replicas.
    tether: Option<Tether>,
    lease: Lease<B>,
    tap: Option<Tap>,
    /// Statements that had left when it was begun.
    begun: u64,
    deadline: Deadline,
}

impl<B: Backend> Open<B> {
    /// Begins a transaction by `sql`, and gives the first row that came back.
    ///
    /// Not sent along with the work's first statement: a `BEGIN` that fails by itself, by a request to cancel that comes late,
    /// would leave that statement outside of any transaction.
    ///
    /// Cancel safety: cancel safe, the server is asked to cancel what is under way. So it is in [`Self::run`].
    pub(super) async fn begin(
        (lease, tether): (Lease<B>, Option<Tether>),
        sql: &str,
        deadline: Deadline,
    ) -> Result<(Self, FirstRow), Broken> {
        let answer = B::execute(&lease, sql);
        let Ok(answer) = timeout_at(deadline.at().into(), answer).await else {
            return Err(Broken::late(Outcome::NotSent, B::tap(&lease).as_ref()).at("BEGIN"));
        };
        let tap = B::tap(&lease);
        let begun = tap.as_ref().map_or(0, Tap::statements);
        let open = Self { tether, lease, tap, begun, deadline };
        match answer {
            Ok(row) => {
                // Of a COMMIT before this transaction that was not the router's.
                open.unconfirmed();
                Ok((open, row))
            }
            Err(error) => {
                let broken = Broken::by(error, open.tap.as_ref(), |_| Outcome::NotSent).at("BEGIN");
                open.roll_back().await;
                Err(broken)
            }
        }
    }

    /// Runs the work. When this fails nothing of it stays, unless the work has ended the transaction itself.
    pub(super) async fn run<T, E, F>(self, work: impl FnOnce(Transaction<B>) -> F) -> Result<(Self, T), Broken>
    where
        F: Future<Output = Result<T, E>>,
        E: Into<BoxError>,
    {
        let Self { tether, lease, tap, begun, deadline } = self;
        let until = deadline.at().into();
        let (transaction, returned) = Transaction::lend(lease);
        let (mut working, mut returned) = (Box::pin(work(transaction)), returned);
        // After the work, so that it is dropped before it.
        let tether = tether;
        let done = timeout_at(until, working.as_mut()).await;
        let lease = if done.is_ok() {
            // What the work has kept of its transaction goes with it.
            drop(working);
            timeout_at(until, &mut returned).await.ok()
        } else {
            None
        };
        // An error of the channel cannot be: the sender sends when it is dropped.
        let (done, lease) = match (done, lease) {
            (Ok(done), Some(Ok(lease))) => (done, lease),
            _ => return Err(Broken::late(uncommitted(tap.as_ref(), begun), tap.as_ref())),
        };
        let open = Self { tether, lease, tap, begun, deadline };
        match done {
            Ok(value) => Ok((open, value)),
            Err(error) => {
                let outcome = uncommitted(open.tap.as_ref(), begun);
                let broken = Broken::by(error.into(), open.tap.as_ref(), |_| outcome);
                open.roll_back().await;
                Err(broken)
            }
        }
    }

    /// Commits, and tells the transaction's number with a failure of which the server may know more.
    pub(super) async fn commit(mut self, question: Question) -> Result<Committed<B>, (Broken, Option<Xid>)> {
        if let Err(broken) = self.is_ready() {
            return Err((self.give_up(broken).await, None));
        }
        self.tether.take().into_iter().for_each(Tether::cut);
        let sent = self.sent();
        let (asked, committed) =
            both(B::execute(&self.lease, question.sql()), B::execute(&self.lease, "COMMIT"), self.deadline).await;
        let broken = match (committed, asked) {
            (Some(Ok(_)), Some(Ok(_))) => return Ok(self.committed()),
            (Some(Ok(_)), Some(Err(error))) => {
                Broken::by(error, self.tap.as_ref(), |_| Outcome::RolledBack).at("COMMIT")
            }
            (Some(Ok(_)), None) => Broken::because("the server answered out of turn", Outcome::Unknown),
            (Some(Err(error)), asked) => {
                let broken = self.uncertain(error, sent);
                if broken.outcome == Outcome::Unknown {
                    return Err((broken, asked.and_then(Xid::of)));
                }
                broken
            }
            // The driver may still have it in hand.
            (None, _) => Broken::late(Outcome::Unknown, self.tap.as_ref()).at("COMMIT"),
        };
        Err((self.give_up(broken).await, None))
    }

    /// Commits by `sql`, of which the last statement is a `COMMIT` and the one before it fails where the transaction has.
    #[cfg(feature = "once")]
    pub(super) async fn commit_by(mut self, sql: &str) -> Result<Committed<B>, Broken> {
        if let Err(broken) = self.is_ready() {
            return Err(self.give_up(broken).await);
        }
        self.tether.take().into_iter().for_each(Tether::cut);
        let (sent, answer) = (self.sent(), B::execute(&self.lease, sql));
        let broken = match timeout_at(self.deadline.at().into(), answer).await {
            Ok(Ok(_)) => return Ok(self.committed()),
            Ok(Err(error)) => self.uncertain(error, sent),
            Err(_) => Broken::late(Outcome::Unknown, self.tap.as_ref()).at("COMMIT"),
        };
        let broken = Broken { lost: broken.outcome == Outcome::Unknown, ..broken };
        Err(self.give_up(broken).await)
    }

    fn committed(self) -> Committed<B> {
        let unconfirmed = self.unconfirmed();
        Committed { lease: self.lease, unconfirmed }
    }

    /// How a `COMMIT` failed that was handed to the driver when so many statements had left.
    fn uncertain(&self, error: BoxError, sent: u64) -> Broken {
        let unsent = self.tap.as_ref().is_some_and(|tap| tap.has_ended() && tap.statements() == sent);
        let outcome = |fault| if unsent { Outcome::RolledBack } else { Outcome::of_commit(fault) };
        let broken = Broken::by(error, self.tap.as_ref(), outcome).at("COMMIT");
        Broken { unconfirmed: broken.outcome == Outcome::Unknown && self.unconfirmed(), ..broken }
    }

    /// Whether a `COMMIT` since the last call did not wait for the replicas.
    fn unconfirmed(&self) -> bool {
        self.tap.as_ref().is_some_and(Tap::take_unconfirmed)
    }

    fn sent(&self) -> u64 {
        self.tap.as_ref().map_or(0, Tap::statements)
    }

    /// Rolls back what is known not to have been committed.
    async fn give_up(self, broken: Broken) -> Broken {
        if broken.outcome != Outcome::Unknown {
            self.roll_back().await;
        }
        broken
    }

    /// Gives the transaction up, and the connection back if that can be used again.
    pub(super) async fn roll_back(mut self) {
        let closed = self.tap.as_ref().is_some_and(Tap::has_ended) || B::is_closed(&self.lease);
        let outside = self.tap.as_ref().is_some_and(|tap| tap.is_clean());
        if !closed && !outside {
            let until = self.deadline.at().min(clock::now() + ROLLBACK);
            let rolled_back = B::execute(&self.lease, "ROLLBACK");
            // Where it is not done in time, the lease closes the connection.
            if let Ok(Ok(_)) = timeout_at(until.into(), rolled_back).await {
                self.tether.take().into_iter().for_each(Tether::cut);
            }
        }
    }

    /// Whether a `COMMIT` would commit what the work has done, as of the last reply.
    fn is_ready(&self) -> Result<(), Broken> {
        let Some(tap) = &self.tap else { return Ok(()) };
        let open = uncommitted(Some(tap), self.begun);
        match tap.transaction() {
            Standing::None => Err(Broken::because("the work ended the transaction itself", Outcome::Unknown)),
            Standing::Open | Standing::Failed if tap.has_ended() => Err(Broken {
                fault: Some(Fault::Closed),
                ..Broken::because("the session ended before the COMMIT", open)
            }),
            Standing::Failed => {
                Err(Broken::because("a statement failed, and the work returned no error", Outcome::RolledBack))
            }
            Standing::Open => Ok(()),
        }
    }
}

/// Asks two things at once, the first first, and waits for the second: then the first is answered as well, if it ever will be.
async fn both<F>(first: F, second: F, deadline: Deadline) -> (Option<F::Output>, Option<F::Output>)
where
    F: Future,
{
    let (mut first, mut second, mut answer) = (pin!(first), pin!(second), None);
    let waited = poll_fn(|cx| {
        if answer.is_none()
            && let Poll::Ready(found) = first.as_mut().poll(cx)
        {
            answer = Some(found);
        }
        second.as_mut().poll(cx)
    });
    let second = timeout_at(deadline.at().into(), waited).await.ok();
    (answer, second)
}

/// What became of a transaction that was begun and that nobody has committed. What the driver has still in hand changes nothing
/// of it: a statement that leaves later is rolled back with the others.
fn uncommitted(tap: Option<&Tap>, begun: u64) -> Outcome {
    match tap {
        Some(tap) if tap.transaction() == Standing::None => Outcome::Unknown,
        Some(tap) if tap.has_ended() && tap.statements() == begun => Outcome::NotSent,
        Some(_) | None => Outcome::RolledBack,
    }
}

/// The number of a transaction that has written, as the server gave it that was started then.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Xid {
    pub(super) number: u64,
    pub(super) started: String,
}

impl Xid {
    pub(super) fn of(row: Result<FirstRow, BoxError>) -> Option<Self> {
        let [number, started] = <[_; 2]>::try_from(row.ok()?).ok()?;
        Some(Self { number: number?.parse().ok()?, started: started? })
    }
}

/// An attempt that failed.
#[derive(Debug)]
pub(super) struct Broken {
    pub(super) outcome: Outcome,
    /// What went wrong, if it was not the work's own decision; where the time was over, only if the server was still at it.
    pub(super) fault: Option<Fault>,
    pub(super) cause: Cause,
    pub(super) source: Option<BoxError>,
    /// Whether the time for the call was over.
    pub(super) late: bool,
    /// Whether it is a `COMMIT` of the router's own that was lost, of a transaction that holds a key.
    #[cfg_attr(not(feature = "once"), allow(dead_code, reason = "what happens once looks at it"))]
    pub(super) lost: bool,
    /// Whether the server has said that its `COMMIT` happened there alone, though replicas were to be waited for.
    pub(super) unconfirmed: bool,
}

impl Broken {
    /// By an error, met on the connection of this tap.
    pub(super) fn by(error: BoxError, tap: Option<&Tap>, outcome: impl FnOnce(Fault) -> Outcome) -> Self {
        let fault = Fault::of(&*error);
        let cause = cause_of(&*error, tap.and_then(Tap::ending).map(|ending| ending.cause.as_str()));
        Self { fault: Some(fault), source: Some(error), ..Self::new(cause, outcome(fault)) }
    }

    pub(super) fn because(why: &str, outcome: Outcome) -> Self {
        Self::new(Cause::new(why), outcome)
    }

    fn new(cause: Cause, outcome: Outcome) -> Self {
        Self { outcome, fault: None, cause, source: None, late: false, lost: false, unconfirmed: false }
    }

    pub(super) fn late(outcome: Outcome, tap: Option<&Tap>) -> Self {
        let (fault, why) = match tap.map(Tap::condition) {
            Some(Condition::Busy) => (Some(Fault::Late), "the time for the call was over, and the server still at it"),
            Some(_) => (None, "the time for the call was over, and nothing asked of the server"),
            None => (None, "the time for the call was over"),
        };
        Self { late: true, fault, ..Self::because(why, outcome) }
    }

    /// The same, of the router's own statement.
    pub(super) fn at(self, statement: &str) -> Self {
        Self { cause: Cause::new(format!("{statement}: {}", self.cause)), ..self }
    }
}
