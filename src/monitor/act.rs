//! What people ask of the monitor: to have a server drained, pinged, or let out of its breaker's hold. Each is an event that says who.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use tokio::sync::oneshot;

use super::{probe::Probe, worker::Worker};
use crate::{clock, config::AliasName, observe::EventKind, plan::Drain};

/// What somebody asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Act {
    /// No new requests where others serve, for so long.
    Drain(Duration),
    /// Requests as before.
    Undrain,
    /// A ping now.
    Ping,
    /// A trial now, where the breaker is open.
    EndHold,
}

/// What somebody asks for, and of which servers.
#[derive(Debug)]
pub(crate) struct Request {
    pub(crate) servers: Vec<AliasName>,
    pub(crate) act: Act,
    /// Who asks.
    pub(crate) by: Arc<str>,
    /// Whether there was anything to do.
    pub(crate) done: oneshot::Sender<bool>,
}

impl<P: Probe> Worker<P> {
    pub(super) fn act_on(&mut self, request: Request) {
        let Request { servers, act, by, done } = request;
        let now = clock::now();
        let mut any = false;
        for index in 0..self.servers.len() {
            if servers.contains(self.servers[index].name()) {
                any |= self.act_at(index, act, &by, now);
                self.agenda.set(index, now);
            }
        }
        // An error says that whoever asked has gone.
        let _ = done.send(any);
    }

    /// Routes first, then words. Whether there was anything to do.
    fn act_at(&mut self, index: usize, act: Act, by: &Arc<str>, now: Instant) -> bool {
        let watched = &mut self.servers[index];
        let by = Arc::clone(by);
        let kind = match act {
            Act::Drain(lasting) => {
                let since = watched.drained.as_ref().map_or(now, |drain| drain.since);
                watched.drained = Some(Drain { since, until: now + lasting, by: Arc::clone(&by) });
                self.publish(index);
                EventKind::Drained { lasting, by, detour: self.detour_of(index, now) }
            }
            Act::Undrain => return self.undrain(index, Some(by), now),
            Act::Ping => {
                watched.health.ping_now(now);
                EventKind::PingAsked { by }
            }
            Act::EndHold if watched.end_hold(now) => EventKind::HoldEnded { by },
            Act::EndHold => return false,
        };
        self.shared.observer.emit(self.servers[index].event(kind));
        true
    }

    fn undrain(&mut self, index: usize, by: Option<Arc<str>>, now: Instant) -> bool {
        let Some(drain) = self.servers[index].drained.take() else { return false };
        self.publish(index);
        let duration = now.saturating_duration_since(drain.since);
        self.shared.observer.emit(self.servers[index].event(EventKind::Undrained { duration, by }));
        true
    }

    /// Ends what was drained for long enough; when that is due.
    pub(super) fn expire(&mut self, index: usize, now: Instant) -> Option<Instant> {
        let until = self.servers[index].drained.as_ref().filter(|_| self.is_leading())?.until;
        if until > now {
            return Some(until);
        }
        self.undrain(index, None, now);
        None
    }
}
