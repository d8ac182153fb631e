//! A connection on loan.

use std::{
    fmt,
    ops::{Deref, DerefMut},
    sync::Arc,
    time::Duration,
};

use tokio::runtime::Handle;

use super::{DefaultBackend, recall::Recall};
use crate::{
    config::AliasName,
    health::Generation,
    pool::{Backend, CancelToken, Condition, Server},
};

/// A connection on loan from the router. It dereferences to what the pool lends, so it is used as that is.
/// Where an argument is generic, like `&impl GenericClient`, nothing dereferences by itself: with the default back end pass
/// `&**lease`.
///
/// Dropping it gives the connection back, unless it is closed or dirty, its server has been down in between, or the thread is
/// panicking: then the connection is closed. What a session keeps (`SET`, advisory locks, temporary tables) is not reset.
///
/// It does not keep the router running: with the last [`Router`](crate::Router) and [`Alias`](crate::Alias) its session ends.
pub struct Lease<B: Backend = DefaultBackend> {
    /// There until `drop`.
    connection: Option<B::Connection>,
    server: Arc<Server>,
    generation: Generation,
    detour: bool,
    /// Of a call that has handed it to its work.
    recall: Option<Arc<Recall>>,
}

impl<B: Backend> Lease<B> {
    pub(super) fn new(connection: B::Connection, server: &Arc<Server>, generation: Generation, detour: bool) -> Self {
        server.cell.lend();
        Self { connection: Some(connection), server: Arc::clone(server), generation, detour, recall: None }
    }

    /// Lets a call know when it comes back, and take it back before.
    pub(super) fn tie(&mut self, recall: &Arc<Recall>) {
        self.recall = Some(Arc::clone(recall));
    }

    /// The server, its generation when this was lent, and whether it is a detour.
    pub(super) fn goes_to(&self) -> (Arc<Server>, Generation, bool) {
        (Arc::clone(&self.server), self.generation, self.detour)
    }

    /// The alias that declares the server this connection goes to.
    #[must_use]
    pub fn server(&self) -> &AliasName {
        &self.server.name
    }

    /// Whether that server stands in for the one the alias names.
    #[must_use]
    pub fn is_detour(&self) -> bool {
        self.detour
    }

    /// Tells the router about an error seen on this connection. If it speaks against the server it asks for a ping, which all
    /// reports share; that is all it can do. True if it did. Connections that are lost report themselves.
    pub fn report(&self, error: &(dyn std::error::Error + 'static)) -> bool {
        let asks = self.server.is_accused_by_error(error);
        if asks {
            self.server.doubt(self.generation);
        }
        asks
    }

    /// What cancels the statement that runs on this connection, from another task: use it in place of the driver's own
    /// `cancel_token()`, which does not know how this connection was made. None for a pool of your own that cannot tell.
    #[must_use]
    pub fn cancel_token(&self) -> Option<CancelToken> {
        B::cancel_token(self)
    }
}

impl<B: Backend> Deref for Lease<B> {
    type Target = B::Connection;

    fn deref(&self) -> &B::Connection {
        self.connection.as_ref().expect("the connection is there until the lease is dropped")
    }
}

impl<B: Backend> DerefMut for Lease<B> {
    fn deref_mut(&mut self) -> &mut B::Connection {
        self.connection.as_mut().expect("the connection is there until the lease is dropped")
    }
}

impl<B: Backend> Drop for Lease<B> {
    fn drop(&mut self) {
        let Some(connection) = &self.connection else { return };
        if let Some(recall) = self.recall.take() {
            if recall.come_back() {
                // Whoever gave it up had no answer.
                self.server.cell.give_up();
                self.connection.take().into_iter().for_each(|lost| give_up::<B>(lost, self.detour));
                return;
            }
            recall.unlimit::<B>(connection);
        }
        let cell = &self.server.cell;
        let stale = cell.belief().generation() != self.generation || std::thread::panicking();
        let mut condition = if stale { Condition::Dirty } else { B::condition(connection) };
        // A clean connection is open: its tap would have seen the end.
        if condition != Condition::Clean && B::is_closed(connection) {
            condition = Condition::Dirty;
            cell.count_failed();
            self.server.lose(self.generation);
        }
        if condition == Condition::Busy {
            let unanswered = Unanswered(Arc::clone(&self.server));
            if let Some(busy) = self.connection.take() {
                settle::<B>(busy, self.detour, unanswered, self.generation);
            }
            return;
        }
        cell.take_back();
        // A clean one is left where it is, to be dropped without being moved.
        if condition == Condition::Dirty {
            self.connection.take().into_iter().for_each(|dirty| give_up::<B>(dirty, self.detour));
        }
    }
}

/// How long a connection that came back with something under way may take to finish it: a rollback does, a dropped query that
/// runs on does not.
const SETTLE: Duration = Duration::from_millis(100);

/// How long a session that was given up on a detour keeps its place at most.
const LEAVE: Duration = Duration::from_secs(60);

/// Counts as a lease that is out, and not as one that has come back: whoever waits for a connection, and a connection that came back
/// before the server had answered. So a server that answers nobody is found silent, however soon its callers give up.
pub(super) struct Unanswered<S: Deref<Target = Server>>(S);

impl<S: Deref<Target = Server>> Unanswered<S> {
    pub(super) fn waiting_for(server: S) -> Self {
        server.cell.lend();
        Self(server)
    }

    fn answered(self) {
        // One more goes out and comes back; the drop then ends this one.
        self.0.cell.lend();
        self.0.cell.take_back();
    }
}

impl<S: Deref<Target = Server>> Drop for Unanswered<S> {
    fn drop(&mut self) {
        self.0.cell.give_up();
    }
}

/// Gives a busy connection back once it is clean, or gives it up.
///
/// Cancel safety: the runtime of whoever dropped the lease may end at any moment; then the connection is closed.
fn settle<B: Backend>(connection: B::Connection, detour: bool, lease: Unanswered<Arc<Server>>, generation: Generation) {
    let Ok(runtime) = Handle::try_current() else { return B::discard(connection) };
    let mut unproven = Unproven::<B>::new(connection);
    runtime.spawn(async move {
        let Some(connection) = unproven.get() else { return };
        let settled = tokio::time::timeout(SETTLE, B::settled(connection)).await;
        if !matches!(settled, Ok(Condition::Clean | Condition::Unknown)) {
            drop(lease);
            if detour {
                unproven.leave().await;
            }
            return;
        }
        if lease.0.cell.belief().generation() == generation {
            drop(unproven.take());
        }
        lease.answered();
    });
}

/// Closes a connection that must not be lent again. On a detour it keeps its place until the server has ended the session too: a
/// server that is slow, or at work on what nobody waits for any more, would else hold more sessions than `detour_size`.
///
/// Cancel safety: as for `settle`.
fn give_up<B: Backend>(connection: B::Connection, detour: bool) {
    match Handle::try_current() {
        Ok(runtime) if detour => drop(runtime.spawn(Unproven::<B>::new(connection).leave())),
        _ => B::discard(connection),
    }
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

    /// Closes the connection once the server has ended its session, or has not for long enough.
    async fn leave(self) {
        if let Some(left) = self.get().map(B::leave) {
            // Where it takes longer, the drop ends it at our side alone.
            let _ = tokio::time::timeout(LEAVE, left).await;
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

impl<B: Backend> fmt::Debug for Lease<B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Lease").field("server", &self.server.name).field("detour", &self.detour).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use tokio::{runtime::Builder, sync::Notify};

    use super::*;
    use crate::{
        health::{Belief, State},
        router::fake::FakePool,
    };

    async fn busy_lease(pool: &FakePool, server: &Arc<Server>) -> Lease<FakePool> {
        let mut connection = pool.acquire().await.unwrap();
        connection.condition = Condition::Busy;
        Lease::new(connection, server, server.cell.belief().generation(), false)
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
        server.cell.lend();
        settle::<FakePool>(connection, false, Unanswered(Arc::clone(&server)), Generation(0));
        server.publish(Belief::new(State::Down, Generation(1)));
        tokio::time::sleep(SETTLE).await;
        assert_eq!(pool.status().size, 0);
    }
}
