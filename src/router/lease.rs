//! A connection on loan.

use std::{
    fmt,
    ops::{Deref, DerefMut},
    sync::Arc,
    time::Duration,
};

use tokio::runtime::Handle;

use super::DefaultBackend;
use crate::{
    config::AliasName,
    health::Generation,
    policy::Fault,
    pool::{Backend, CancelToken, Condition, Server},
};

/// A connection on loan from the router. It dereferences to what the pool lends, so it is used as that is.
/// Where an argument is generic, like `&impl GenericClient`, nothing dereferences by itself: with the default back end pass
/// `&**lease`.
///
/// Dropping it gives the connection back, unless it is closed or dirty, its server has been down in between, or the thread is
/// panicking: then the connection is closed. What a session keeps (`SET`, advisory locks, temporary tables) is not reset.
///
/// It does not keep the router running: with the last [`Router`](crate::Router) and [`Alias`](crate::Alias) its session ends too.
pub struct Lease<B: Backend = DefaultBackend> {
    /// There until `drop`.
    connection: Option<B::Connection>,
    server: Arc<Server>,
    generation: Generation,
    detour: bool,
}

impl<B: Backend> Lease<B> {
    pub(super) fn new(connection: B::Connection, server: &Arc<Server>, generation: Generation, detour: bool) -> Self {
        server.cell.lend();
        Self { connection: Some(connection), server: Arc::clone(server), generation, detour }
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
        let asks = Fault::of(error).class().asks_for_ping();
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
        let cell = &self.server.cell;
        let lost = B::is_closed(connection);
        if lost {
            cell.count_failed();
            self.server.doubt(self.generation);
        }
        let stale = cell.belief().generation() != self.generation;
        let unfit = lost || stale || std::thread::panicking();
        let condition = if unfit { Condition::Dirty } else { B::condition(connection) };
        if condition == Condition::Busy {
            let unanswered = Unanswered(Arc::clone(&self.server));
            if let Some(busy) = self.connection.take() {
                settle::<B>(busy, unanswered);
            }
            return;
        }
        cell.take_back();
        // A clean one is left where it is, to be dropped without being moved.
        if condition == Condition::Dirty {
            self.connection.take().into_iter().for_each(B::discard);
        }
    }
}

/// How long a connection that came back with something under way may take to finish it: a rollback does, a dropped query that
/// runs on does not.
const SETTLE: Duration = Duration::from_millis(100);

/// Counts as a lease that is out, and not as one that has come back: whoever waits for a connection, and a connection that came back
/// before the server had answered. So a server that answers nobody is found silent, however soon its callers give up.
pub(super) struct Unanswered(Arc<Server>);

impl Unanswered {
    pub(super) fn waiting_for(server: &Arc<Server>) -> Self {
        server.cell.lend();
        Self(Arc::clone(server))
    }

    fn answered(self) {
        // One more goes out and comes back; the drop then ends this one.
        self.0.cell.lend();
        self.0.cell.take_back();
    }
}

impl Drop for Unanswered {
    fn drop(&mut self) {
        self.0.cell.give_up();
    }
}

/// Gives a busy connection back once it is clean, or closes it.
fn settle<B: Backend>(connection: B::Connection, lease: Unanswered) {
    let Ok(runtime) = Handle::try_current() else { return B::discard(connection) };
    runtime.spawn(async move {
        match tokio::time::timeout(SETTLE, B::settled(&connection)).await {
            Ok(Condition::Clean | Condition::Unknown) => {
                drop(connection);
                lease.answered();
            }
            Ok(Condition::Busy | Condition::Dirty) | Err(_) => B::discard(connection),
        }
    });
}

impl<B: Backend> fmt::Debug for Lease<B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Lease").field("server", &self.server.name).field("detour", &self.detour).finish_non_exhaustive()
    }
}
