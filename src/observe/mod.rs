//! What is the outside told? Each transition is one event; the log and the stream of events observe it.

mod chronicle;
mod event;
mod log;
mod process;
mod record;
mod stamp;
pub mod status;

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use tokio::sync::broadcast;

pub use self::{
    chronicle::Chronicle,
    event::{Event, EventKind, Hook},
    record::{EventRecord, Level, OutageRecord, SpanRecord, SpanState},
    stamp::Stamp,
};
use self::{chronicle::Chronicler, status::Process};
pub(crate) use self::{log::warn, stamp::ms};
use crate::plan::{Mode, Table};

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
    /// The number of the last event.
    number: u64,
    /// Events that are being logged, and those after them that have been: each is sent after those before it.
    unsent: BTreeMap<u64, Option<Event>>,
    chronicler: Chronicler,
    process: Process,
}

impl Default for Told {
    fn default() -> Self {
        let (process, suffix) = Process::begin(Stamp::now());
        Self {
            stream: Some(broadcast::Sender::new(BACKLOG)),
            mode: Mode::default(),
            number: 0,
            unsent: BTreeMap::new(),
            chronicler: Chronicler::new(suffix),
            process,
        }
    }
}

impl Told {
    /// Gives an event its number and its time, and takes it into the record.
    fn take_in(&mut self, event: Event) -> Event {
        self.number += 1;
        let event = Event { number: self.number, at: Stamp::now(), ..event };
        self.chronicler.add(&event);
        self.unsent.insert(event.number, None);
        event
    }

    /// Sends an event, and those after it that waited for it.
    fn send(&mut self, event: Event) {
        self.unsent.insert(event.number, Some(event));
        while let Some(first) = self.unsent.first_entry().filter(|first| first.get().is_some()) {
            let event = first.remove();
            // An error says that nobody listens.
            self.stream.iter().zip(event).for_each(|(stream, event)| drop(stream.send(event)));
        }
    }
}

/// An event on its way: it is sent when this is dropped, also if whoever keeps the log panics.
struct Underway<'a>(&'a Observer, Option<Event>);

impl Drop for Underway<'_> {
    fn drop(&mut self) {
        self.1.take().into_iter().for_each(|event| self.0.lock().send(event));
    }
}

impl Observer {
    /// Logs an event and hands it to every receiver. Never waits: a receiver that is slow misses the oldest.
    pub(crate) fn emit(&self, event: Event) {
        let event = self.lock().take_in(event);
        self.tell(event);
    }

    /// The log first, since whoever gets the event may look there; without the lock, since whoever keeps the log may ask for something here.
    fn tell(&self, event: Event) {
        let underway = Underway(self, Some(event));
        underway.1.iter().for_each(log::record);
    }

    /// Emits an event if the mode is another than was told last. `current` is asked for it alone, so that of two who tell at
    /// the same time the later one knows the latest; `None` if there is nothing to tell.
    pub(crate) fn tell_mode(&self, current: impl FnOnce() -> Option<Mode>) {
        let mut told = self.lock();
        let Some(to) = current().filter(|mode| *mode != told.mode) else { return };
        let from = std::mem::replace(&mut told.mode, to);
        let event = told.take_in(Event::new(None, EventKind::ModeChanged { from, to }));
        drop(told);
        self.tell(event);
    }

    /// Notes the states of these servers.
    pub(crate) fn note(&self, table: &Table) {
        let states = table.entries().iter().map(|entry| (&entry.known.name, SpanState::of(entry)));
        self.lock().chronicler.note(states, Stamp::now());
    }

    /// Goes over to these servers, after a reload or at the start.
    pub(crate) fn go_over_to(&self, table: &Table) {
        self.lock().chronicler.keep(|name| table.get(name).is_some());
        self.note(table);
    }

    /// What happened lately.
    pub(crate) fn chronicle(&self) -> Chronicle {
        let told = self.lock();
        Chronicle {
            version: status::VERSION,
            at: Stamp::now(),
            process: told.process.clone(),
            events: told.chronicler.events().collect(),
            outages: told.chronicler.outages(),
            spans: told.chronicler.spans(),
        }
    }

    /// The last outages.
    pub(crate) fn outages(&self) -> Vec<OutageRecord> {
        self.lock().chronicler.outages()
    }

    /// Whose router it is.
    pub(crate) fn process(&self) -> Process {
        self.lock().process.clone()
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
