//! What becomes of a connection that does not come back clean? It settles, is reset, or is given up; none of it on a caller's time.

use std::time::Duration;

use tokio::{runtime::Handle, time::timeout};

use crate::{
    health::Generation,
    pool::{Backend, Condition, Loan, Server},
};

/// How long a connection that came back with something under way may take to finish it: a rollback does, a dropped query that
/// runs on does not.
const SETTLE: Duration = Duration::from_millis(100);

/// How long a connection waits at most for the ping that explains why others were just lost: a server that is killed while all
/// cores are busy takes some 15 ms to lose its last session.
pub(super) const HOLD: Duration = Duration::from_millis(50);

/// How long a reset may take.
const RESET: Duration = Duration::from_secs(5);

/// What `DISCARD ALL` does (manual, DISCARD), without its `DEALLOCATE ALL`: the driver and the pool keep statements that they
/// prepared, and would go on using them.
const DISCARD: &str = "CLOSE ALL; SET SESSION AUTHORIZATION DEFAULT; RESET ALL; UNLISTEN *; \
                       SELECT pg_catalog.pg_advisory_unlock_all(); DISCARD TEMP; DISCARD SEQUENCES";

/// How long a session that was given up on a detour keeps its place at most.
const LEAVE: Duration = Duration::from_secs(60);

/// Counts as a lease that is out, and not as one that has come back: whoever waits for a connection. So a server that answers nobody
/// is found silent, however soon its callers give up.
pub(super) struct Unanswered<'a>(&'a Server);

impl<'a> Unanswered<'a> {
    pub(super) fn waiting_for(server: &'a Server) -> Self {
        server.cell.lend();
        Self(server)
    }
}

impl Drop for Unanswered<'_> {
    fn drop(&mut self) {
        self.0.cell.give_up();
    }
}

/// Gives a connection back once it is clean and has forgotten its last user where its pool wants that, or gives it up. It counts as
/// out until then: that it came back before the server had answered is no sign of life.
///
/// Cancel safety: the runtime of whoever dropped the lease may end at any moment; then the connection is closed.
pub(super) fn settle<B: Backend>(connection: B::Connection, detour: bool, loan: Loan, generation: Generation) {
    let Ok(runtime) = Handle::try_current() else { return B::discard(connection) };
    let unproven = Unproven::<B>::new(connection);
    runtime.spawn(async move {
        match unproven.become_clean(&loan).await {
            Ok(mut clean) => {
                if loan.cell.belief().generation() == generation {
                    drop(clean.take());
                }
                loan.come_back();
            }
            Err(unfit) => {
                drop(loan);
                if detour {
                    unfit.leave().await;
                }
            }
        }
    });
}

/// Closes a connection that must not be lent again. Where it `keeps` its place, as on a detour, it does until the server has ended
/// the session too: a server that is slow, or at work on what nobody waits for any more, would else hold more sessions than
/// `detour_size`.
///
/// Cancel safety: as for `settle`.
pub(super) fn give_up<B: Backend>(connection: B::Connection, keeps: bool) {
    match Handle::try_current() {
        Ok(runtime) if keeps => drop(runtime.spawn(Unproven::<B>::new(connection).leave())),
        _ => B::discard(connection),
    }
}

/// Lets a connection out if the server answers over it. A server that is being killed loses one session after the other, and the
/// one that has just answered may be the next: there it has to answer once more when a ping has, or has not for long enough.
pub(super) async fn prove<B: Backend>(connection: B::Connection, server: &Server) -> Option<B::Connection> {
    let connection = Unproven::<B>::new(connection).verify().await?;
    if !server.is_losing() {
        return Some(connection);
    }
    let connection = Unproven::<B>::new(connection);
    // Either way it is asked again.
    let _ = tokio::time::timeout(HOLD, server.explained()).await;
    connection.verify().await
}

/// A connection of which it is being found out whether it may be lent. Whatever ends that early closes it.
pub(super) struct Unproven<B: Backend>(Option<B::Connection>);

impl<B: Backend> Unproven<B> {
    pub(super) fn new(connection: B::Connection) -> Self {
        Self(Some(connection))
    }

    /// Lets the connection out if the server answers over it.
    pub(super) async fn verify(mut self) -> Option<B::Connection> {
        let answer = B::verify(self.get()?).await;
        if answer.is_ok() { self.take() } else { None }
    }

    /// Waits until the connection may be lent again, and resets it first where its pool wants that. `Err` if it may not.
    async fn become_clean(self, server: &Server) -> Result<Self, Self> {
        loop {
            let Some(settled) = self.get().map(B::settled) else { return Err(self) };
            match timeout(SETTLE, settled).await {
                Ok(Condition::Clean | Condition::Unknown) => return Ok(self),
                Ok(Condition::Used) => return self.reset().await,
                Ok(Condition::Busy | Condition::Dirty) => return Err(self),
                // A burst of timeouts must not empty the pools of the server: past the cap what is busy has more time.
                Err(_) if server.may_discard() => return Err(self),
                Err(_) => {}
            }
        }
    }

    /// Lets the session forget its last user. `Err` if it did not.
    async fn reset(self) -> Result<Self, Self> {
        let Some(done) = self.get().map(|connection| B::execute(connection, DISCARD)) else { return Err(self) };
        if !matches!(timeout(RESET, done).await, Ok(Ok(_))) {
            return Err(self);
        }
        let Some(settled) = self.get().map(B::settled) else { return Err(self) };
        let settled = timeout(SETTLE, settled).await;
        if matches!(settled, Ok(Condition::Used)) { Ok(self) } else { Err(self) }
    }

    /// Closes the connection once the server has ended its session, or has not for long enough.
    async fn leave(self) {
        if let Some(left) = self.get().map(B::leave) {
            // Where it takes longer, the drop ends it at our side alone.
            let _ = timeout(LEAVE, left).await;
        }
    }

    fn get(&self) -> Option<&B::Connection> {
        self.0.as_ref()
    }

    fn take(&mut self) -> Option<B::Connection> {
        self.0.take()
    }
}

impl<B: Backend> Drop for Unproven<B> {
    fn drop(&mut self) {
        self.0.take().into_iter().for_each(B::discard);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use tokio::{runtime::Builder, sync::Notify};

    use super::*;
    use crate::{
        config::AliasName,
        health::{Belief, State},
        router::{
            fake::FakePool,
            lease::Lease,
            recall::{Recall, Tether},
        },
    };

    async fn busy_lease(pool: &FakePool, server: &Arc<Server>) -> Lease<FakePool> {
        let mut connection = pool.acquire().await.unwrap();
        connection.condition = Condition::Busy;
        Lease::new(connection, server.loans().lend(), server.cell.belief().generation(), false)
    }

    fn server() -> Arc<Server> {
        Arc::new(Server::new(AliasName::new("db").unwrap(), "db".to_owned(), Arc::new(Notify::new())))
    }

    #[test]
    fn a_busy_connection_whose_runtime_ends_is_not_lent_again() {
        let (pool, server) = (FakePool::new(1), server());
        let runtime = Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async { drop(busy_lease(&pool, &server).await) });
        drop(runtime);
        assert_eq!(pool.status().size, 0, "it went back with a statement under way");
    }

    #[tokio::test(start_paused = true)]
    async fn a_connection_that_settles_after_a_transition_is_not_lent_again() {
        let (pool, server) = (FakePool::new(1), server());
        let mut connection = pool.acquire().await.unwrap();
        connection.condition = Condition::Clean;
        settle::<FakePool>(connection, false, server.loans().lend(), Generation(0));
        server.publish(Belief::new(State::Down, Generation(1)));
        tokio::time::sleep(SETTLE).await;
        assert_eq!(pool.status().size, 0);
    }

    /// Drops a lease whose connection comes back in this condition; whether that is lent again.
    async fn is_lent_again(condition: Condition, resets: bool) -> bool {
        let (pool, server) = (FakePool::new(1), server());
        let mut connection = pool.acquire().await.unwrap();
        (connection.condition, connection.resets) = (condition, resets);
        drop(Lease::<FakePool>::new(connection, server.loans().lend(), server.cell.belief().generation(), false));
        pool.acquire().await.unwrap().number == 0
    }

    #[tokio::test(start_paused = true)]
    async fn a_used_session_is_reset_before_it_is_lent_again_and_closed_if_that_fails() {
        assert!(is_lent_again(Condition::Clean, false).await);
        assert!(is_lent_again(Condition::Used, true).await);
        assert!(!is_lent_again(Condition::Used, false).await);
    }

    #[tokio::test(start_paused = true)]
    async fn a_burst_of_calls_that_gave_up_does_not_empty_a_pool() {
        let (pool, server) = (FakePool::new(100), server());
        let mut leases = Vec::new();
        for _ in 0..100 {
            let mut lease = busy_lease(&pool, &server).await;
            let now = crate::clock::now();
            let tether = Tether::new(&Recall::tie(&mut lease, (now, now), None));
            leases.push((tether, lease));
        }
        // Each tether first, as when the call is dropped.
        drop(leases);
        tokio::time::sleep(SETTLE).await;
        let left = pool.status().size;
        assert!((88..=92).contains(&left), "{left} of 100 are left");
        tokio::time::sleep(LEAVE).await;
        assert_eq!(pool.status().size, 0, "none is lent again");
    }

    #[tokio::test(start_paused = true)]
    async fn a_burst_of_timeouts_does_not_empty_a_pool() {
        let (pool, server) = (FakePool::new(100), server());
        let begun = crate::clock::now();
        let mut leases = Vec::new();
        for _ in 0..100 {
            leases.push(busy_lease(&pool, &server).await);
        }
        drop(leases);
        tokio::time::sleep(SETTLE * 2).await;
        let left = pool.status().size;
        assert!((88..=92).contains(&left), "{left} of 100 are left");
        // Those that nobody's statement ever ends on go too, one after the other.
        while pool.status().size > 0 {
            tokio::time::sleep(SETTLE).await;
        }
        let took = crate::clock::now() - begun;
        assert!((Duration::from_secs(11)..Duration::from_secs(13)).contains(&took), "{took:?}");
    }
}
