//! A connection on loan.

use std::{
    fmt,
    ops::{Deref, DerefMut},
    sync::Arc,
};

use crate::{
    config::AliasName,
    health::Generation,
    pool::{Backend, Server},
};

/// A connection on loan from the router. It dereferences to what the pool lends, so it is used as that is.
///
/// Dropping it gives the connection back, unless it is closed or dirty, its server has been down in between, or the thread is
/// panicking: then the connection is closed.
pub struct Lease<B: Backend> {
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
        let Some(connection) = self.connection.take() else { return };
        let cell = &self.server.cell;
        cell.take_back();
        let lost = B::is_closed(&connection);
        if lost {
            cell.count_failed();
            self.server.doubt(self.generation);
        }
        let stale = cell.belief().generation() != self.generation;
        if lost || stale || std::thread::panicking() || !B::is_clean(&connection) {
            B::discard(connection);
        }
    }
}

impl<B: Backend> fmt::Debug for Lease<B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Lease").field("server", &self.server.name).field("detour", &self.detour).finish_non_exhaustive()
    }
}
