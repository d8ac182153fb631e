//! The loop of one service: it sends pings, takes in what they find, and tells what changes.

use std::{
    sync::{Arc, atomic::Ordering},
    time::{Duration, Instant},
};

use tokio::{
    sync::{mpsc, oneshot},
    time::timeout,
};

use super::{
    dues::DueService,
    service::{Known, Message, Watched},
};
use crate::{
    clock,
    config::{Monitoring, Pings, Role},
    health::{Action, Cause, Change, Facts, Finding, Health, Order, PingId, Signal, Tally},
    observe::{EventKind, Hook, Observer},
};

/// How long the loop sleeps when nothing is due: any bound does.
const IDLE: Duration = Duration::from_secs(3600);

/// What a service tells of itself when it answers: that it did.
const WELL: Facts = Facts { role: Role::Primary, timeline: None, system: None, position: None };

/// What a ping has found. It is sent on drop, since the loop waits for each ping, also for one that panics.
struct Report {
    watched: Arc<Watched>,
    id: PingId,
    begun: Instant,
    found: Option<Finding>,
}

impl Drop for Report {
    fn drop(&mut self) {
        let panicked = || Finding::Inconclusive(Cause::new("the ping has panicked"));
        let (finding, took) = (self.found.take().unwrap_or_else(panicked), clock::now() - self.begun);
        self.watched.tell(Message::Pinged(self.id, finding, took));
    }
}

/// Keeps the belief in one service up to date.
pub(super) struct Watch {
    pub(super) watched: Arc<Watched>,
    pub(super) inbox: mpsc::UnboundedReceiver<Message>,
    pub(super) hooks: mpsc::UnboundedSender<Hook>,
    pub(super) observer: Observer,
    pub(super) due: DueService,
    pub(super) monitoring: Monitoring,
    pub(super) pings: Pings,
    pub(super) health: Health,
    pub(super) inconclusive: Option<Cause>,
    pub(super) ping_took: Option<Duration>,
    pub(super) settling: Vec<oneshot::Sender<()>>,
    pub(super) runs: Vec<oneshot::Sender<()>>,
}

/// The health of something that is pinged like this.
pub(super) fn health(pings: &Pings, now: Instant) -> Health {
    Health::new(pings.clone(), now, fastrand::u64(..)).unwatched()
}

impl Watch {
    /// Works until it is told to stop.
    pub(super) async fn run(mut self) {
        loop {
            let wake = self.turn();
            tokio::select! {
                biased;
                message = self.inbox.recv() => match message {
                    None | Some(Message::Stop) => return,
                    Some(message) => self.receive(message),
                },
                () = tokio::time::sleep_until(wake.into()) => {}
            }
        }
    }

    /// Does what its health asks for; when it wants to be asked again.
    fn turn(&mut self) -> Instant {
        let now = clock::now();
        let mut wake = now + IDLE;
        while self.is_active() {
            match self.health.poll(now) {
                Action::Ping(order) => self.ping(order),
                Action::Tell(change) => self.tell(vec![change]),
                Action::Wait(until) => {
                    wake = wake.min(until.unwrap_or(wake));
                    break;
                }
            }
        }
        self.publish();
        // Where nobody pings by himself, those who might are told when it is due.
        let on_demand = self.monitoring == Monitoring::OnDemand;
        let (busy, due) = (self.health.is_busy(now), self.health.next_ping());
        if on_demand && due > now {
            wake = wake.min(due);
        }
        self.due.tell(on_demand && busy, on_demand && busy && self.health.outage().is_some());
        if self.health.is_settled() {
            answer_all(&mut self.settling);
        }
        if !busy {
            answer_all(&mut self.runs);
        }
        wake
    }

    /// Without background monitoring pings go out only while somebody has asked for them, and at the start.
    fn is_active(&self) -> bool {
        self.monitoring == Monitoring::Background || !self.runs.is_empty() || !self.settling.is_empty()
    }

    fn receive(&mut self, message: Message) {
        let now = clock::now();
        // A doubt raised before this news is older than it, and is taken in first.
        if self.watched.doubted.swap(false, Ordering::AcqRel) {
            // It asks for a ping: there is nothing to tell yet.
            let _ = self.health.on(Signal::Doubt, now);
        }
        match message {
            Message::Pinged(id, finding, took) => {
                if let Finding::Answered(_) = finding {
                    self.ping_took = Some(took);
                }
                self.inconclusive = match &finding {
                    Finding::Inconclusive(cause) => Some(cause.clone()),
                    Finding::Answered(_) | Finding::Failed(_) | Finding::Silent => None,
                };
                let changes = self.health.on(Signal::Ping(id, finding), now);
                self.tell(changes);
            }
            Message::Settle(done) => self.settling.push(done),
            Message::Run(done) => self.runs.push(done),
            Message::Pace(pings, monitoring) => self.pace(pings, monitoring, now),
            Message::Doubt | Message::Stop => {}
        }
    }

    /// Goes over to other frequencies; an open outage stays open, and is told no second time.
    fn pace(&mut self, pings: Pings, monitoring: Monitoring, now: Instant) {
        self.monitoring = monitoring;
        if self.pings == pings {
            return;
        }
        let mut changed = health(&pings, now);
        self.pings = pings;
        changed.resume(&self.health.told());
        self.health = changed;
    }

    /// Sends a ping: a task of its own, ended by its timeout.
    fn ping(&self, Order { id, timeout: within, .. }: Order) {
        let watched = Arc::clone(&self.watched);
        tokio::spawn(async move {
            let mut report = Report { watched: Arc::clone(&watched), id, begun: clock::now(), found: None };
            let answer = timeout(within, async { watched.service.ping(within).await }).await;
            report.found = Some(match answer {
                Err(_) => Finding::Silent,
                Ok(Ok(())) => Finding::Answered(WELL),
                Ok(Err(error)) => error.into_finding(),
            });
        });
    }

    /// The belief first, then words: when an outage is told, switches have flipped already. Then what the service does about it.
    fn tell(&mut self, changes: Vec<Change>) {
        for change in changes {
            self.publish();
            let (kind, hook) = match change {
                Change::OutageOpened { cause, detected_in } => {
                    (EventKind::OutageOpened { cause, detour: None, detected_in }, Some(Hook::Failover))
                }
                Change::OutageOngoing { duration, cause, next_ping } => {
                    (EventKind::OutageOngoing { duration, tally: Tally::default(), cause, next_ping }, None)
                }
                Change::OutageClosed { duration } => {
                    (EventKind::OutageClosed { duration, tally: Tally::default() }, Some(Hook::Recover))
                }
                Change::PingInconclusive { cause } => (EventKind::PingInconclusive { cause }, None),
                // Those are of servers.
                Change::AdmissionStopped { .. } | Change::AdmissionResumed | Change::FactsChanged { .. } => continue,
            };
            self.observer.emit(self.watched.event(kind));
            // An error says that the hooks have ended, and the router with them.
            if let Some(hook) = hook {
                let _ = self.hooks.send(hook);
            }
        }
    }

    fn publish(&self) {
        let outage = self.health.outage().map(|(since, cause)| (since, cause.clone()));
        let known = Known {
            outage,
            inconclusive: self.inconclusive.clone(),
            ping_took: self.ping_took,
            next_ping: self.health.next_ping(),
        };
        *self.watched.known() = known;
        let state = self.health.state() as u8;
        self.watched.state.store(state, Ordering::Release);
    }
}

fn answer_all(waiting: &mut Vec<oneshot::Sender<()>>) {
    for done in waiting.drain(..) {
        // An error says that whoever asked has gone.
        let _ = done.send(());
    }
}
