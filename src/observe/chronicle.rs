//! What happened lately? The last events, outages and states, within bounds, so that the page, the metrics and the history tell the
//! same outage with the same times.

use std::collections::{HashMap, VecDeque};

use serde::{Deserialize, Serialize};

use super::{
    event::{Event, EventKind},
    record::{EventRecord, OutageRecord, SpanRecord, SpanState},
    stamp::{Stamp, ms},
    status::Process,
};
use crate::config::AliasName;

/// Events that are kept.
const EVENTS: usize = 512;

/// Outages that are kept beside those that are open.
const OUTAGES: usize = 100;

/// Spans of one server that are kept: of one that is well there is one.
const SPANS: usize = 128;

/// What happened to a router lately, as plain values.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Chronicle {
    /// [`VERSION`](super::status::VERSION).
    pub version: u32,
    /// As of this moment.
    pub at: Stamp,
    /// Whose router it is.
    pub process: Process,
    /// The last events, 512 at most, the oldest first.
    pub events: Vec<EventRecord>,
    /// The last outages, 100 at most and all that are open, in the order in which they opened.
    pub outages: Vec<OutageRecord>,
    /// Which states each server was in, 128 spans at most, the oldest first.
    pub spans: Vec<SpanRecord>,
}

/// What is kept of what happened.
#[derive(Debug)]
pub(super) struct Chronicler {
    events: VecDeque<Event>,
    outages: VecDeque<OutageRecord>,
    spans: HashMap<AliasName, VecDeque<SpanRecord>>,
    /// What tells the outages of this router from those of others.
    suffix: String,
}

impl Chronicler {
    /// An empty one of a router whose outages end in this.
    pub(super) fn new(suffix: String) -> Self {
        Self { events: VecDeque::new(), outages: VecDeque::new(), spans: HashMap::new(), suffix }
    }

    /// Takes in what happened.
    pub(super) fn add(&mut self, event: &Event) {
        if self.events.len() == EVENTS {
            self.events.pop_front();
        }
        self.events.push_back(event.clone());
        let Some(name) = &event.alias else { return };
        match &event.kind {
            EventKind::OutageOpened { .. } => self.open(name, event),
            EventKind::OutageOngoing { tally, cause, duration, .. } => {
                if let Some(outage) = self.outage_mut(event) {
                    outage.tell(ms(*duration), *tally);
                    outage.last_cause = cause.to_string();
                }
            }
            EventKind::OutageClosed { duration, tally } => {
                if let Some(outage) = self.outage_mut(event) {
                    outage.tell(ms(*duration), *tally);
                    outage.closed = Some(event.at);
                }
                self.began(name, SpanState::is_out, false, event.at);
            }
            _ => {}
        }
    }

    fn open(&mut self, name: &AliasName, event: &Event) {
        let EventKind::OutageOpened { cause, detour, detected_in } = &event.kind else { return };
        if self.outages.len() >= OUTAGES
            && let Some(oldest) = self.outages.iter().position(|outage| outage.closed.is_some())
        {
            self.outages.remove(oldest);
        }
        self.outages.push_back(OutageRecord {
            id: format!("{}/{name}/{}", event.at, self.suffix),
            name: name.to_string(),
            address: event.address.as_deref().unwrap_or_default().to_owned(),
            opened: event.at,
            detected_ms: ms(*detected_in),
            closed: None,
            lasted_ms: 0,
            cause: cause.to_string(),
            last_cause: cause.to_string(),
            detour: detour.as_ref().map(ToString::to_string),
            detoured: 0,
            refused: 0,
            failed: 0,
        });
        self.began(name, SpanState::is_out, true, event.at);
    }

    /// Notes the states of all servers there are. A span begins when a state is another than before.
    pub(super) fn note<'a>(&mut self, states: impl Iterator<Item = (&'a AliasName, SpanState)>, at: Stamp) {
        for (name, state) in states {
            if !self.spans.contains_key(name) {
                self.spans.insert(name.clone(), VecDeque::with_capacity(1));
            }
            let Some(spans) = self.spans.get_mut(name) else { continue };
            if spans.back().is_some_and(|last| last.state == state && last.to.is_none()) {
                continue;
            }
            if let Some(last) = spans.back_mut() {
                last.to.get_or_insert(at);
            }
            if spans.len() == SPANS {
                spans.pop_front();
            }
            spans.push_back(SpanRecord { name: name.to_string(), state, from: at, to: None });
        }
    }

    /// Goes over to these servers: of others the states are forgotten.
    pub(super) fn keep(&mut self, is_there: impl Fn(&AliasName) -> bool) {
        self.spans.retain(|name, _| is_there(name));
    }

    /// The open outage that an event is about. At a reload another server may be down already under the same alias.
    fn outage_mut(&mut self, event: &Event) -> Option<&mut OutageRecord> {
        let mut open = self.outages.iter_mut().rev().filter(|outage| outage.closed.is_none());
        open.find(|outage| event.is_about(&outage.name) && event.address.as_deref() == Some(&outage.address))
    }

    /// Has the last spans begin when the outside was told: states are published a moment before.
    fn began(&mut self, name: &AliasName, is: fn(SpanState) -> bool, wanted: bool, at: Stamp) {
        let Some(spans) = self.spans.get_mut(name) else { return };
        let Some(index) = spans.len().checked_sub(1).filter(|&last| is(spans[last].state) == wanted) else { return };
        spans[index].from = at;
        if let Some(before) = index.checked_sub(1) {
            spans[before].to = Some(at);
        }
    }

    /// The outages, in the order in which they opened.
    pub(super) fn outages(&self) -> Vec<OutageRecord> {
        self.outages.iter().cloned().collect()
    }

    /// The events, the oldest first.
    pub(super) fn events(&self) -> impl Iterator<Item = EventRecord> {
        self.events.iter().map(EventRecord::from)
    }

    /// The spans, by server and then the oldest first.
    pub(super) fn spans(&self) -> Vec<SpanRecord> {
        let mut all: Vec<_> = self.spans.values().flatten().cloned().collect();
        all.sort_by(|one, other| (&one.name, one.from).cmp(&(&other.name, other.from)));
        all
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::health::{Cause, Tally};

    fn event(number: u64, name: &AliasName, kind: EventKind) -> Event {
        let at = Stamp::from_unix_ms(number * 10);
        Event { number, at, ..Event::new(Some((name.clone(), "db:5432/app".into())), kind) }
    }

    fn opened() -> EventKind {
        EventKind::OutageOpened { cause: Cause::new("refused"), detour: None, detected_in: Duration::from_millis(7) }
    }

    fn closed() -> EventKind {
        EventKind::OutageClosed { duration: Duration::from_millis(10), tally: Tally::default() }
    }

    #[test]
    fn what_is_kept_is_bounded_and_an_outage_that_is_open_is_not_forgotten() {
        let (flaps, stays) = (AliasName::new("flaps").unwrap(), AliasName::new("stays").unwrap());
        let mut kept = Chronicler::new("host/1".to_owned());
        kept.add(&event(1, &stays, opened()));
        for round in 1..=400 {
            kept.note([(&flaps, SpanState::Down)].into_iter(), Stamp::from_unix_ms(20 * round));
            kept.add(&event(2 * round, &flaps, opened()));
            kept.note([(&flaps, SpanState::Up)].into_iter(), Stamp::from_unix_ms(20 * round + 10));
            kept.add(&event(2 * round + 1, &flaps, closed()));
        }
        assert_eq!(kept.events().count(), EVENTS);
        let outages = kept.outages();
        assert_eq!(outages.len(), OUTAGES);
        assert_eq!((outages[0].name.as_str(), outages[0].closed), ("stays", None));
        assert_eq!(kept.spans().len(), SPANS);
        let mut ids: Vec<_> = outages.iter().map(|outage| &outage.id).collect();
        ids.dedup();
        assert_eq!(ids.len(), OUTAGES, "each has its own");
    }

    #[test]
    fn the_end_of_an_outage_is_that_of_the_same_server_and_not_of_one_that_a_reload_has_put_in_its_place() {
        let name = AliasName::new("moved").unwrap();
        let mut kept = Chronicler::new("host/1".to_owned());
        kept.add(&event(1, &name, opened()));
        kept.add(&Event { address: Some("other:5432/app".into()), ..event(2, &name, opened()) });
        kept.add(&event(3, &name, closed()));
        let closed: Vec<_> = kept.outages().into_iter().map(|outage| outage.closed).collect();
        assert_eq!(closed, [Some(Stamp::from_unix_ms(30)), None]);
    }
}
