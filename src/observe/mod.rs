//! What is the outside told? Each transition is one event; the log and the stream of events observe it.

mod event;
mod log;
mod stamp;
pub mod status;

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::broadcast;

pub(crate) use self::log::warn;
pub use self::{
    event::{Event, EventKind},
    stamp::Stamp,
};
use crate::plan::Mode;

/// Events kept for a receiver that is slow.
const BACKLOG: usize = 256;

/// Where events go.
#[derive(Debug, Clone, Default)]
pub(crate) struct Observer {
    told: Arc<Mutex<Told>>,
}

/// What the outside was told so far, and the way there.
#[derive(Debug)]
struct Told {
    /// None: the router has ended.
    stream: Option<broadcast::Sender<Event>>,
    mode: Mode,
}

impl Default for Told {
    fn default() -> Self {
        Self { stream: Some(broadcast::Sender::new(BACKLOG)), mode: Mode::default() }
    }
}

impl Told {
    fn send(&self, event: Event) {
        // An error says that nobody listens.
        self.stream.iter().for_each(|stream| drop(stream.send(event.clone())));
    }
}

impl Observer {
    /// Logs an event and hands it to every receiver. Never waits: a receiver that is slow misses the oldest.
    pub(crate) fn emit(&self, event: Event) {
        log::record(&event);
        self.lock().send(event);
    }

    /// Emits an event if the mode is another than was told last. `current` is asked for it alone, so that of two who tell at
    /// the same time the later one knows the latest; `None` if there is nothing to tell.
    pub(crate) fn tell_mode(&self, current: impl FnOnce() -> Option<Mode>) {
        let mut told = self.lock();
        let Some(to) = current().filter(|mode| *mode != told.mode) else { return };
        let from = std::mem::replace(&mut told.mode, to);
        let event = Event { alias: None, address: None, kind: EventKind::ModeChanged { from, to } };
        told.send(event.clone());
        drop(told);
        log::record(&event);
    }

    /// The events from now on.
    pub(crate) fn events(&self) -> Events {
        let stream = self.lock().stream.as_ref().map(broadcast::Sender::subscribe);
        Events { stream: stream.unwrap_or_else(|| broadcast::channel(1).1), missed: 0 }
    }

    /// Tells nothing more: receivers get what they have not taken yet, and then the end.
    pub(crate) fn close(&self) {
        self.lock().stream = None;
    }

    fn lock(&self) -> MutexGuard<'_, Told> {
        self.told.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The events of a router, from the moment this was asked for.
#[derive(Debug)]
pub struct Events {
    stream: broadcast::Receiver<Event>,
    missed: u64,
}

impl Events {
    /// The next event. `None` when the router has been shut down or its last handle dropped. A receiver more than 256 events behind misses the oldest:
    /// [`Self::missed`] counts them.
    ///
    /// # Cancel safety
    ///
    /// A dropped future loses no event.
    pub async fn next(&mut self) -> Option<Event> {
        loop {
            match self.stream.recv().await {
                Ok(event) => return Some(event),
                Err(broadcast::error::RecvError::Lagged(count)) => self.missed += count,
                Err(broadcast::error::RecvError::Closed) => return None,
            }
        }
    }

    /// How many events this receiver was too slow for so far.
    #[must_use]
    pub fn missed(&self) -> u64 {
        self.missed
    }
}
