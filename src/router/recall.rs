//! A lease in the hands of a call's work: what has left over it, and how it is called back.

use std::{
    error::Error,
    fmt,
    future::Future,
    pin::pin,
    sync::Arc,
    task::{Context, Poll, Waker},
    time::{Duration, Instant},
};

use tokio::runtime::Handle;

use super::{lease::Lease, whereabouts::Whereabouts};
use crate::{
    clock,
    health::Generation,
    policy::{Fault, Outcome},
    pool::{Backend, CancelToken, Condition, Share, Tap},
};

/// What a call keeps of a lease that it has handed to its work. The work may drop the lease at any moment, and the connection is
/// somebody else's then: whoever comes first, the lease's drop or the call that wants it back, has decided.
pub(super) struct Recall {
    pub(super) server: Share,
    pub(super) generation: Generation,
    pub(super) detour: bool,
    /// When the attempt began, and when it had its lease.
    pub(super) times: (Instant, Instant),
    limited: bool,
    tap: Option<Tap>,
    /// Where there is no tap to ask for it later.
    token: Option<CancelToken>,
    before: u64,
    whereabouts: Whereabouts,
}

/// So long does a request to cancel wait for others to the same server.
const PATIENCE: Duration = Duration::from_secs(5);

impl Recall {
    /// For a lease that is about to be handed to some work, of which nothing has been sent over it. The attempt began and had
    /// its lease at these `times`; `limit` is what the server shall give each of the work's statements.
    pub(super) fn tie<B: Backend>(
        lease: &mut Lease<B>,
        times: (Instant, Instant),
        limit: Option<Duration>,
    ) -> Arc<Self> {
        let tap = B::tap(lease);
        let token = if tap.is_some() { None } else { B::cancel_token(lease) };
        let mut before = tap.as_ref().map_or(0, Tap::statements);
        let limited = limit.is_some_and(|limit| queue::<B>(lease, &format!("SET {}", statement_timeout(limit))));
        // The limit is a statement too, and leaves before all others.
        before += u64::from(limited);
        let (server, generation, detour) = lease.goes_to();
        let server = server.clone();
        let whereabouts = Whereabouts::out();
        let recall = Arc::new(Self { server, generation, detour, times, limited, tap, token, before, whereabouts });
        lease.tie(&recall);
        recall
    }

    /// Takes the limit of a session back, on the way back to its pool.
    pub(super) fn unlimit<B: Backend>(&self, connection: &B::Connection) {
        if self.limited {
            queue::<B>(connection, "RESET statement_timeout");
        }
    }

    /// The lease is being dropped. True if it was called back: then the connection is of no more use.
    pub(super) fn come_back(&self) -> bool {
        let quiet = self.tap.as_ref().filter(|tap| tap.condition() != Condition::Busy);
        !self.whereabouts.come_back(quiet.map(|tap| self.sent(tap)))
    }

    /// If the lease is out and something may be under way over it, cancels that and lets nobody use the connection again.
    fn call_back(&self) {
        let condition = self.tap.as_ref().map_or(Condition::Unknown, Tap::condition);
        let under_way = match condition {
            Condition::Busy | Condition::Unknown => true,
            // Its drop gives it back or closes it, as any other's.
            Condition::Clean | Condition::Used | Condition::Dirty => false,
        };
        if under_way && self.whereabouts.call_back() {
            let token = self.tap.as_ref().and_then(Tap::cancel_token).or_else(|| self.token.clone());
            token.into_iter().for_each(|token| cancel(self.server.clone(), token));
        }
    }

    /// Where it was called back from a server that was still at it, has that counted. A caller that was slow itself says nothing
    /// of the server, and without a tap nobody knows.
    pub(super) fn count_late(&self) {
        if let Some(took) = self.cut_short_after() {
            self.server.record_late(took);
        }
    }

    /// The same where it was called back because another attempt has answered, in a call that waits so long for one server alone:
    /// overtaken where the other one had its connection that much later. Half of it will do, since this one's may have had to be
    /// made first.
    pub(super) fn count_lost_to(&self, winner: &Self, patience: Duration) {
        if let Some(took) = self.cut_short_after() {
            let lead = winner.times.1.saturating_duration_since(self.times.1);
            self.server.calls.record_lost(took, lead >= patience / 2);
        }
    }

    fn cut_short_after(&self) -> Option<Duration> {
        let cut_short = self.tap.is_some() && self.whereabouts.is_called_back();
        cut_short.then(|| clock::now().saturating_duration_since(self.times.1))
    }

    /// What became of the work's statements. That the last has failed says nothing of those before it, and nothing of which session
    /// the error came from: only what never left was certainly not executed.
    pub(super) fn outcome(&self) -> Outcome {
        let Some(tap) = &self.tap else { return Outcome::Unknown };
        let sent = self.whereabouts.sent();
        // Before the count: once this is so, nothing follows.
        let over = sent.is_some() || tap.has_ended();
        // The count as it is now may include the next lease's: it errs towards what promises less.
        let sent = sent.unwrap_or_else(|| self.sent(tap));
        if over && sent == 0 { Outcome::NotSent } else { Outcome::Unknown }
    }

    /// What went wrong. An error may hide what the driver said, as those of an ORM do, but not that the session is over.
    pub(super) fn fault_of(&self, error: &(dyn Error + 'static)) -> Fault {
        match Fault::of(error) {
            Fault::Unknown if self.tap.as_ref().is_some_and(Tap::is_over) => Fault::Closed,
            fault => fault,
        }
    }

    /// Why the session ended, in the server's words or the socket's.
    pub(super) fn ending(&self) -> Option<&str> {
        Some(self.tap.as_ref()?.ending()?.cause.as_str())
    }

    fn sent(&self, tap: &Tap) -> u64 {
        tap.statements().saturating_sub(self.before)
    }
}

impl fmt::Debug for Recall {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Recall").field("server", &self.server.name).finish_non_exhaustive()
    }
}

/// Calls the lease back when it is dropped, unless the work has ended by itself: after a deadline, a cancelled call, a lost race,
/// a panic. Has to be dropped before the work is, which holds the lease.
#[derive(Debug)]
pub(super) struct Tether(Option<Arc<Recall>>);

impl Tether {
    pub(super) fn new(recall: &Arc<Recall>) -> Self {
        Self(Some(Arc::clone(recall)))
    }

    pub(super) fn cut(mut self) {
        self.0 = None;
    }
}

impl Drop for Tether {
    fn drop(&mut self) {
        if let Some(recall) = &self.0 {
            recall.call_back();
        }
    }
}

/// The setting by which the server itself cancels each statement that takes longer.
pub(super) fn statement_timeout(limit: Duration) -> String {
    // PostgreSQL takes 0 for no limit at all.
    format!("statement_timeout = {}", limit.as_millis().clamp(1, 2_147_483_647))
}

/// Sends a statement whose answer nobody waits for; what is sent next follows it without a round trip in between. False where the
/// back end cannot.
fn queue<B: Backend>(connection: &B::Connection, sql: &str) -> bool {
    let mut sent = pin!(B::execute(connection, sql));
    // What was sent with the first poll goes on when this is dropped.
    match sent.as_mut().poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Pending => true,
        // Where this thread had to wait for its turn, the answer is there already.
        Poll::Ready(answer) => answer.is_ok(),
    }
}

/// Asks the server to cancel, in a task of its own: nobody waits for that.
fn cancel(server: Share, token: CancelToken) {
    let Ok(runtime) = Handle::try_current() else { return };
    runtime.spawn(async move {
        // A server that answers nobody would else be asked by hundreds at once.
        let turn = tokio::time::timeout(PATIENCE, server.cancels.acquire()).await;
        if let Ok(Ok(_turn)) = turn {
            // Where it cannot be reached there is nobody to cancel either.
            let _ = token.cancel_query().await;
        }
    });
}

#[cfg(test)]
mod tests {
    use tokio::sync::Notify;

    use super::*;
    use crate::{config::AliasName, policy::Counts, pool::Server};

    const MS: Duration = Duration::from_millis(1);

    fn server() -> Arc<Server> {
        let server = Server::new(AliasName::new("replica").unwrap(), String::new(), Arc::new(Notify::new()));
        Arc::new(server.with_slow_calls(100 * MS))
    }

    /// A lease to that server, which is out since now.
    fn lent(server: &Arc<Server>, tap: Option<Tap>) -> Arc<Recall> {
        Arc::new(Recall {
            server: Share::new(server),
            generation: Generation::default(),
            detour: false,
            times: (clock::now(), clock::now()),
            limited: false,
            tap,
            token: None,
            before: 0,
            whereabouts: Whereabouts::out(),
        })
    }

    /// What a server that is slow after 100 ms is said to have done when a lease to it is called back after `took`, or not.
    async fn counted(tap: Option<Tap>, took: Duration, returned: bool) -> Counts {
        let server = server();
        let recall = lent(&server, tap);
        let tether = Tether::new(&recall);
        tokio::time::sleep(took).await;
        if returned {
            recall.come_back();
        }
        drop(tether);
        recall.come_back();
        recall.count_late();
        server.calls.counts()
    }

    #[tokio::test(start_paused = true)]
    async fn a_deadline_speaks_against_a_server_only_where_it_was_long_at_work_by_then() {
        let failed = Counts { made: 1, failed: 1, slow: 0 };
        let tap = || Some(Tap::default());
        assert_eq!(counted(tap(), 200 * MS, false).await, failed);
        assert_eq!(counted(tap(), 50 * MS, false).await, Counts::default(), "its caller was in a hurry");
        assert_eq!(counted(tap(), 200 * MS, true).await, Counts::default(), "its caller was slow");
        assert_eq!(counted(None, 200 * MS, false).await, Counts::default(), "nobody knows");
    }

    /// What a server is said to have done that loses, after `took`, to an attempt whose connection was there `lead` after its own, where
    /// a second server is asked after 50 ms.
    async fn lost(lead: Duration, took: Duration) -> Counts {
        let (server, other) = (server(), server());
        let loser = lent(&server, Some(Tap::default()));
        let tether = Tether::new(&loser);
        tokio::time::sleep(lead).await;
        let winner = lent(&other, Some(Tap::default()));
        tokio::time::sleep(took - lead).await;
        drop(tether);
        loser.count_lost_to(&winner, 50 * MS);
        server.calls.counts()
    }

    #[tokio::test(start_paused = true)]
    async fn a_server_is_slow_when_one_that_was_asked_later_overtakes_it_and_not_when_both_were_asked_at_once() {
        let slow = Counts { made: 1, failed: 0, slow: 1 };
        assert_eq!(lost(50 * MS, 53 * MS).await, slow);
        assert_eq!(lost(42 * MS, 53 * MS).await, slow, "its connection had to be made first");
        assert_eq!(lost(MS, 4 * MS).await, Counts::default(), "it had waited for its connection for as long");
        assert_eq!(lost(MS, 100 * MS).await, slow, "that is slow for any call");
    }
}
