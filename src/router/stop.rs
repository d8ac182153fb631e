//! One place on a route.

use std::{
    sync::{Arc, PoisonError},
    time::Duration,
};

use super::{
    error::Refusal,
    meter::{Meter, Reason, Toll},
    narrow::Width,
    queue::{Full, Queue},
};
use crate::{
    config::AliasName,
    health::{Belief, Need},
    plan::{Candidate, Narrowed},
    pool::{Backend, Loan, Loans, Server},
};

/// One place on a route: a server, and the pool that this route uses there.
#[derive(Debug)]
pub(super) struct Stop<B> {
    pub(super) server: Arc<Server>,
    loans: Arc<Loans>,
    pub(super) pool: Arc<B>,
    /// Who waits for it.
    pub(super) queue: Arc<Queue>,
    /// How much of it may be used.
    pub(super) width: Arc<Width>,
    /// What is counted of the requests that come here.
    pub(super) toll: Arc<Toll>,
}

impl<B> Stop<B> {
    pub(super) fn new(server: &Arc<Server>, pool: &Arc<B>) -> Self {
        Self {
            server: Arc::clone(server),
            loans: server.loans(),
            pool: Arc::clone(pool),
            queue: Arc::default(),
            width: Arc::default(),
            toll: Arc::default(),
        }
    }

    /// The same, as one place on this alias's route: counted so.
    pub(super) fn metered(self, meter: &Meter, alias: &AliasName) -> Self {
        Self { toll: meter.toll_of(alias, &self.server.name), ..self }
    }

    /// For a lease of its server, which goes there for this reason.
    #[inline]
    pub(super) fn lend(&self, reason: Reason) -> Loan {
        self.toll.routed(reason);
        self.loans.lend()
    }

    /// By what one call tells servers apart.
    pub(super) fn server_address(&self) -> usize {
        self.server.identity()
    }

    /// By what one request tells pools apart.
    pub(super) fn pool_address(&self) -> usize {
        Arc::as_ptr(&self.pool).addr()
    }

    /// A connection that was waited for, if the server still serves what it was chosen for: that it is no primary any more is no
    /// turn. Else the connection goes back.
    pub(super) fn confirm<C>(&self, need: Need, connection: C) -> Result<C, Refusal> {
        match self.server.cell.belief().serves(need) {
            true => Ok(connection),
            false => Err(Refusal::takes_no_writes(&self.server)),
        }
    }
}

impl<B> Clone for Stop<B> {
    fn clone(&self) -> Self {
        let (queue, width) = (Arc::clone(&self.queue), Arc::clone(&self.width));
        let (server, pool) = (Arc::clone(&self.server), Arc::clone(&self.pool));
        Self { server, loans: Arc::clone(&self.loans), pool, queue, width, toll: Arc::clone(&self.toll) }
    }
}

impl<B: Backend> Stop<B> {
    /// Whether a request would have to wait until a connection comes back.
    pub(super) fn is_full(&self) -> bool {
        self.queue.is_past(self.pool.status())
    }

    /// How narrow the way there is now.
    pub(super) fn narrowed(&self) -> Option<Narrowed> {
        *self.width.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn full(&self, longest: Duration, waited: bool) -> Full {
        Full { status: self.pool.status(), waiting: self.queue.waiting(), longest, waited }
    }
}

impl<B: Send + Sync> Candidate for Stop<B> {
    fn belief(&self) -> Belief {
        self.server.cell.belief()
    }

    fn load(&self) -> u32 {
        self.server.cell.leases().out + self.loans.out()
    }

    fn take_trial(&self) -> bool {
        self.server.cell.take_trial()
    }
}
