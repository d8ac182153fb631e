//! Where does a call go that some servers have not answered? Elsewhere first.

use super::{
    Inner,
    line::{Getting, Line},
};
use crate::{
    health::Need,
    plan::Candidate,
    pool::{Backend, Server},
};

/// What a call wants a connection beside of.
#[derive(Debug, Default)]
pub(super) struct Beside {
    /// The servers that have not answered it, by their addresses: they come last.
    pub(super) failed: Vec<usize>,
    /// They do not come at all.
    pub(super) strictly: bool,
}

impl<B: Backend> Line<B> {
    /// Takes a connection for a call that these servers, by their addresses, have not answered.
    pub(super) fn get_beside<'a>(&'a self, router: &'a Inner<B>, beside: Beside) -> Getting<'a, B> {
        Box::pin(async move {
            let deadline = self.deadline();
            match self.get_past(None, &beside, deadline).await {
                Err(error) if error.is_unavailable() && self.is_retired() && !beside.strictly => {
                    self.follow(router, deadline).await
                }
                result => result,
            }
        })
    }

    /// Closes the idle connections to one server: what they have prepared fits its tables no more.
    pub(super) fn forget_plans(&self, server: &Server) {
        let stops = self.route.own().iter().chain(self.route.failover());
        stops.filter(|stop| stop.server.identity() == server.identity()).for_each(|stop| stop.pool.evict());
    }

    /// Whether a server of the plan is none of these.
    pub(super) fn has_beside(&self, failed: &[usize]) -> bool {
        self.some_beside(failed).is_some()
    }

    /// A server of the plan that is none of these. To ask takes neither the turn of a group nor anybody's place on trial.
    pub(super) fn some_beside(&self, failed: &[usize]) -> Option<usize> {
        let own = self.route.own().iter().map(|stop| (stop, self.route.need()));
        let all = own.chain(self.route.failover().iter().map(|stop| (stop, Need::Reads)));
        let serving =
            all.filter(|(stop, need)| stop.belief().serves(*need) && !failed.contains(&stop.server_address()));
        // Where nothing is better, one whose breaker is open.
        serving.min_by_key(|(stop, need)| stop.belief().is_behind(*need)).map(|(stop, _)| stop.server_address())
    }
}
