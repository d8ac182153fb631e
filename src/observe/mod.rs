//! What is the outside told? Each transition is one event; the log and the stream of events observe it.

mod event;
mod log;

use tokio::sync::broadcast;

pub use self::event::{Event, EventKind};
pub(crate) use self::log::warn;

/// Events kept for a receiver that is slow.
const BACKLOG: usize = 256;

/// Where events go.
#[derive(Debug, Clone)]
pub(crate) struct Observer {
    stream: broadcast::Sender<Event>,
}

impl Default for Observer {
    fn default() -> Self {
        Self { stream: broadcast::Sender::new(BACKLOG) }
    }
}

impl Observer {
    /// Logs an event and hands it to every receiver. Never waits: a receiver that is slow misses the oldest.
    pub(crate) fn emit(&self, event: Event) {
        log::record(&event);
        // An error says that nobody listens.
        let _ = self.stream.send(event);
    }

    /// The events from now on.
    pub(crate) fn events(&self) -> Events {
        Events { stream: self.stream.subscribe(), missed: 0 }
    }
}

/// The events of a router, from the moment this was asked for.
#[derive(Debug)]
pub struct Events {
    stream: broadcast::Receiver<Event>,
    missed: u64,
}

impl Events {
    /// The next event. `None` when the router has ended. A receiver more than 256 events behind misses the oldest:
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
