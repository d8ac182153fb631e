//! A server that is not there: each test says how it behaves, and it remembers its pings.

use std::{
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use tokio::{sync::watch, time::sleep};

use crate::{
    clock,
    config::Role,
    health::{Cause, Facts, Finding, Over},
    monitor::Probe,
};

/// What a fake server does with a ping.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Manner {
    Answers(Duration),
    /// New connections are refused; sessions that live are answered.
    Refuses,
    Hangs,
    /// It says that it has no room.
    IsFull,
}

/// A server of which each test says how it behaves, and which remembers its pings.
#[derive(Debug, Clone)]
pub(super) struct Fake {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    manner: watch::Sender<Manner>,
    role: watch::Sender<Role>,
    /// Sessions of an earlier epoch have ended.
    epoch: watch::Sender<u64>,
    pings: Mutex<Vec<(Instant, Over)>>,
    in_flight: AtomicUsize,
    most_in_flight: AtomicUsize,
}

#[derive(Debug, Clone)]
pub(super) struct Session {
    epoch: u64,
    asked: Arc<AtomicBool>,
    now: watch::Receiver<u64>,
}

impl Fake {
    pub(super) fn new(role: Role) -> Self {
        let inner = Inner {
            manner: watch::Sender::new(Manner::Answers(Duration::ZERO)),
            role: watch::Sender::new(role),
            epoch: watch::Sender::new(0),
            pings: Mutex::default(),
            in_flight: AtomicUsize::new(0),
            most_in_flight: AtomicUsize::new(0),
        };
        Self { inner: Arc::new(inner) }
    }

    pub(super) fn behaves(&self, manner: Manner) {
        self.inner.manner.send_replace(manner);
    }

    /// Is promoted or demoted, and its sessions do not see it.
    pub(super) fn becomes(&self, role: Role) {
        self.inner.role.send_replace(role);
    }

    /// Ends every session and refuses new ones, as a server does that is killed.
    pub(super) fn dies(&self) {
        self.behaves(Manner::Refuses);
        self.inner.epoch.send_modify(|epoch| *epoch += 1);
    }

    pub(super) fn pings(&self) -> Vec<(Instant, Over)> {
        self.inner.pings.lock().unwrap().clone()
    }

    /// The most pings that were ever under way at once.
    pub(super) fn most_in_flight(&self) -> usize {
        self.inner.most_in_flight.load(Ordering::Relaxed)
    }

    /// How long each ping came after the one before.
    pub(super) fn gaps(&self) -> Vec<Duration> {
        self.pings().windows(2).map(|pair| pair[1].0 - pair[0].0).collect()
    }

    pub(super) fn forget(&self) {
        self.inner.pings.lock().unwrap().clear();
    }

    fn answer(&self) -> Finding {
        let role = *self.inner.role.borrow();
        Finding::Answered(Facts { role, timeline: None, system: None, position: None })
    }

    /// One ping, as the server sees it.
    async fn ping(&self, over: Over) -> Finding {
        self.inner.pings.lock().unwrap().push((clock::now(), over));
        let flight = Flight::begin(&self.inner);
        let manner = *self.inner.manner.borrow();
        let finding = match manner {
            Manner::Answers(after) => {
                sleep(after).await;
                self.answer()
            }
            Manner::Refuses if over == Over::Kept => self.answer(),
            Manner::Refuses => Finding::Failed(Cause::new("refused")),
            Manner::IsFull => Finding::Inconclusive(Cause::new("too many clients")),
            Manner::Hangs => std::future::pending().await,
        };
        drop(flight);
        finding
    }
}

/// Counts a ping that is under way, also when it is given up.
struct Flight<'a>(&'a Inner);

impl<'a> Flight<'a> {
    fn begin(inner: &'a Inner) -> Self {
        let now = inner.in_flight.fetch_add(1, Ordering::Relaxed) + 1;
        inner.most_in_flight.fetch_max(now, Ordering::Relaxed);
        Self(inner)
    }
}

impl Drop for Flight<'_> {
    fn drop(&mut self) {
        self.0.in_flight.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Probe for Fake {
    type Session = Session;

    async fn connect(&self) -> Result<Session, Finding> {
        match self.ping(Over::Fresh).await {
            Finding::Answered(_) => {
                let now = self.inner.epoch.subscribe();
                let epoch = *now.borrow();
                Ok(Session { epoch, asked: Arc::default(), now })
            }
            other => Err(other),
        }
    }

    async fn ask(&self, session: &Session) -> Finding {
        if *session.now.borrow() != session.epoch {
            return Finding::Failed(Cause::new("connection closed"));
        }
        if session.asked.swap(true, Ordering::Relaxed) { self.ping(Over::Kept).await } else { self.answer() }
    }

    async fn ended(session: &Session) {
        let _ = session.now.clone().wait_for(|epoch| *epoch != session.epoch).await;
    }
}
