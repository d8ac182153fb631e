//! A connection on loan.

use std::{
    fmt,
    ops::{Deref, DerefMut},
    sync::Arc,
};

use super::{
    DefaultBackend,
    recall::Recall,
    settle::{give_up, settle},
};
use crate::{
    config::AliasName,
    health::Generation,
    pool::{Backend, CancelToken, Condition, Loan, Share},
};

/// A connection on loan from the router. It dereferences to what the pool lends, so it is used as that is.
/// Where an argument is generic, like `&impl GenericClient`, nothing dereferences by itself: with the default back end pass
/// `&**lease`.
///
/// Dropping it gives the connection back, unless it is closed or dirty, its server has been down in between, or the thread is
/// panicking: then the connection is closed. What a session keeps (`SET`, advisory locks, temporary tables) is not reset, unless
/// the alias's `session_reset` says so.
///
/// It does not keep the router running: with the last [`Router`](crate::Router) and [`Alias`](crate::Alias) its session ends.
pub struct Lease<B: Backend = DefaultBackend> {
    /// There until `drop`.
    connection: Option<B::Connection>,
    server: Loan,
    generation: Generation,
    detour: bool,
    /// Of a call that has handed it to its work.
    recall: Option<Arc<Recall>>,
}

impl<B: Backend> Lease<B> {
    #[inline(always)]
    pub(super) fn new(connection: B::Connection, server: Loan, generation: Generation, detour: bool) -> Self {
        Self { connection: Some(connection), server, generation, detour, recall: None }
    }

    /// Lets a call know when it comes back, and take it back before.
    pub(super) fn tie(&mut self, recall: &Arc<Recall>) {
        self.recall = Some(Arc::clone(recall));
    }

    /// The server, its generation when this was lent, and whether it is a detour.
    pub(super) fn goes_to(&self) -> (&Share, Generation, bool) {
        (&self.server, self.generation, self.detour)
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
                // Whoever gave it up had no answer: it does not count as one that has come back. As in `settle`: past the cap the server ends the session first, or a burst would empty its pools.
                let keeps = self.detour || !self.server.may_discard();
                self.connection.take().into_iter().for_each(|lost| give_up::<B>(lost, keeps));
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
        if matches!(condition, Condition::Busy | Condition::Used) {
            if let Some(used) = self.connection.take() {
                settle::<B>(used, self.detour, self.server.clone(), self.generation);
            }
            return;
        }
        self.server.come_back();
        // A clean one is left where it is, to be dropped without being moved.
        if condition == Condition::Dirty {
            self.connection.take().into_iter().for_each(|dirty| give_up::<B>(dirty, self.detour));
        }
    }
}

impl<B: Backend> fmt::Debug for Lease<B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Lease").field("server", &self.server.name).field("detour", &self.detour).finish_non_exhaustive()
    }
}
