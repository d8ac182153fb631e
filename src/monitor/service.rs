//! One service under watch: what everybody may know of it at every moment, and the way to its loop.

use std::{
    fmt,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicU8, Ordering},
    },
    time::{Duration, Instant},
};

use tokio::sync::{mpsc, oneshot};

use super::state::ServiceState;
use crate::{
    clock,
    config::{AliasName, Monitoring, Pings, ServiceConfig},
    health::{Cause, Finding, PingId, State},
    observe::{Event, EventKind},
    service::AnyService,
};

/// What the loop of one service is told.
#[derive(Debug)]
pub(super) enum Message {
    /// A ping ended, after this long.
    Pinged(PingId, Finding, Duration),
    /// Somebody saw an error.
    Doubt,
    /// Answer when it has been pinged once.
    Settle(oneshot::Sender<()>),
    /// Ping if that is due, and answer when it has ended.
    Run(oneshot::Sender<()>),
    /// From now on it is pinged like this.
    Pace(Pings, Monitoring),
    /// End.
    Stop,
}

/// What everybody may know of a service, and the way to its loop.
pub(crate) struct Watched {
    pub(super) name: AliasName,
    kind: Arc<str>,
    address: Arc<str>,
    pub(super) service: Arc<dyn AnyService>,
    /// As the configuration declares it; none: it was registered in code.
    pub(super) declared: Option<ServiceConfig>,
    pub(super) state: AtomicU8,
    pub(super) doubted: AtomicBool,
    pub(super) failed_over: AtomicBool,
    /// Whether it is watched no more.
    gone: AtomicBool,
    known: Mutex<Known>,
    outbox: mpsc::UnboundedSender<Message>,
}

/// What explains the state.
#[derive(Debug, Clone)]
pub(super) struct Known {
    pub(super) outage: Option<(Instant, Cause)>,
    pub(super) inconclusive: Option<Cause>,
    pub(super) ping_took: Option<Duration>,
    pub(super) next_ping: Instant,
}

impl Watched {
    pub(super) fn new(
        name: AliasName,
        service: Arc<dyn AnyService>,
        declared: Option<ServiceConfig>,
    ) -> (Arc<Self>, mpsc::UnboundedReceiver<Message>) {
        let (outbox, inbox) = mpsc::unbounded_channel();
        let watched = Self {
            name,
            kind: Cause::new(service.kind()).to_string().into(),
            address: Cause::new(service.address()).to_string().into(),
            service,
            declared,
            state: AtomicU8::new(State::Up as u8),
            doubted: AtomicBool::new(false),
            failed_over: AtomicBool::new(false),
            gone: AtomicBool::new(false),
            known: Mutex::new(Known { outage: None, inconclusive: None, ping_took: None, next_ping: clock::now() }),
            outbox,
        };
        (Arc::new(watched), inbox)
    }

    pub(crate) fn name(&self) -> &AliasName {
        &self.name
    }

    /// Whether nobody watches it any more.
    pub(crate) fn is_gone(&self) -> bool {
        self.gone.load(Ordering::Acquire)
    }

    /// Whether an outage is open. Of what nobody watches nothing good is known.
    pub(crate) fn is_out(&self) -> bool {
        self.state.load(Ordering::Acquire) >= State::Down as u8 || self.is_gone()
    }

    /// Asks for a ping, which all who ask share.
    pub(crate) fn doubt(&self) {
        if !self.is_out() && !self.doubted.swap(true, Ordering::AcqRel) {
            self.tell(Message::Doubt);
        }
    }

    /// Waits until it has been pinged once.
    pub(crate) async fn settled(&self) {
        self.ask(Message::Settle).await;
    }

    /// What is known of it now.
    pub(crate) fn state(&self) -> ServiceState {
        let Known { outage, inconclusive, ping_took, next_ping } = self.known().clone();
        let state = match self.state.load(Ordering::Acquire) {
            0 => State::Up,
            1 => State::Suspect,
            3 => State::Recovering,
            _ => State::Down,
        };
        ServiceState {
            name: self.name.clone(),
            kind: Arc::clone(&self.kind),
            address: Arc::clone(&self.address),
            state,
            outage,
            inconclusive,
            ping_took,
            next_ping,
            failed_over: self.failed_over.load(Ordering::Acquire),
            at: clock::now(),
        }
    }

    pub(super) fn event(&self, kind: EventKind) -> Event {
        Event::new(Some((self.name.clone(), Arc::clone(&self.address))), kind)
    }

    /// Whether a ping is due.
    pub(super) fn is_due(&self, now: Instant) -> bool {
        self.known().next_ping <= now
    }

    /// A loop that has ended takes in nothing.
    pub(super) fn tell(&self, message: Message) {
        let _ = self.outbox.send(message);
    }

    /// Asks the loop something, and waits; one that has ended answers nothing.
    pub(super) async fn ask(&self, message: fn(oneshot::Sender<()>) -> Message) {
        let (done, answer) = oneshot::channel();
        self.tell(message(done));
        let _ = answer.await;
    }

    /// Ends its loop.
    pub(super) fn stop(&self) {
        self.gone.store(true, Ordering::Release);
        self.tell(Message::Stop);
    }

    pub(super) fn known(&self) -> MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for Watched {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Watched").field("name", &self.name).field("address", &self.address).finish_non_exhaustive()
    }
}
