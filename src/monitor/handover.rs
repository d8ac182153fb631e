//! What one worker hands to the next at a reload: twice. At its beginning, so that the new one begins where the old one stands; and at
//! its end, so that the new one tells what the old one did not.

use std::sync::Arc;

use crate::{
    health::{Tally, Told},
    observe::{Event, EventKind},
    plan::{Drain, Standing},
    policy::Breaker,
    pool::Server,
};

/// What is known of one server, and what of it was told.
#[derive(Debug)]
pub(crate) struct Handed {
    pub(crate) server: Arc<Server>,
    pub(super) told: Told,
    pub(super) breaker: Breaker,
    pub(super) standing: Standing,
    pub(super) drained: Option<Drain>,
    pub(super) tally: Tally,
}

/// What a worker hands over.
#[derive(Debug, Default)]
pub(crate) struct Past {
    servers: Vec<Handed>,
}

impl Handed {
    /// The end of what was told as open, of a server that is watched no more.
    fn farewell(&self) -> impl Iterator<Item = Event> {
        let now = crate::clock::now();
        let outage = self.told.outage().map(|opened| {
            let duration = now.saturating_duration_since(opened);
            EventKind::OutageClosed { duration, tally: self.tally }
        });
        let breaker = self.breaker.told().map(|(since, _)| {
            let duration = now.saturating_duration_since(since);
            EventKind::BreakerClosed { duration }
        });
        let drained = self.drained.as_ref().map(|drain| {
            let duration = now.saturating_duration_since(drain.since);
            EventKind::Undrained { duration, by: None }
        });
        let event = |kind| Event::new(Some((self.server.name.clone(), self.server.address.as_str().into())), kind);
        outage.into_iter().chain(breaker).chain(drained).map(event)
    }
}

impl Past {
    pub(super) fn new(servers: impl Iterator<Item = Handed>) -> Self {
        Self { servers: servers.collect() }
    }

    /// What is known of the same PostgreSQL.
    pub(crate) fn of(&self, server: &Server) -> Option<&Handed> {
        self.servers.iter().find(|handed| handed.server.is_same_as(server))
    }

    /// The ends of what was told as open of all others than these.
    pub(super) fn farewells(&self, stay: impl Fn(&Server) -> bool) -> Vec<Event> {
        self.servers.iter().filter(|handed| !stay(&handed.server)).flat_map(Handed::farewell).collect()
    }
}
