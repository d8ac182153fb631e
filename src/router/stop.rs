//! One place on a route.

use std::sync::Arc;

use crate::{health::Belief, plan::Candidate, pool::Server};

/// One place on a route: a server, and the pool that this route uses there.
#[derive(Debug)]
pub(super) struct Stop<B> {
    pub(super) server: Arc<Server>,
    pub(super) pool: Arc<B>,
}

impl<B> Stop<B> {
    pub(super) fn new(server: &Arc<Server>, pool: &Arc<B>) -> Self {
        Self { server: Arc::clone(server), pool: Arc::clone(pool) }
    }

    /// By what one call tells servers apart.
    pub(super) fn server_address(&self) -> usize {
        Arc::as_ptr(&self.server).addr()
    }
}

impl<B> Clone for Stop<B> {
    fn clone(&self) -> Self {
        Self::new(&self.server, &self.pool)
    }
}

impl<B: Send + Sync> Candidate for Stop<B> {
    fn belief(&self) -> Belief {
        self.server.cell.belief()
    }

    fn load(&self) -> u32 {
        self.server.cell.leases().out
    }

    fn take_trial(&self) -> bool {
        self.server.cell.take_trial()
    }
}
