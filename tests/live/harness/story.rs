//! What a router has told so far, and the wait for what it tells next.

use std::{error::Error, future::ready};

use pgdetour::{Event, EventKind, Mode, Router, observe::Events, pool::Backend};

use super::soon;

/// The events of one router, in order.
pub(crate) struct Story {
    events: Events,
    told: Vec<Event>,
}

impl Story {
    pub(crate) fn of<B: Backend>(router: &Router<B>) -> Self {
        Self { events: router.events(), told: Vec::new() }
    }

    /// Waits for the next event of this name about the server of this alias.
    pub(crate) async fn until(&mut self, alias: &str, name: &str) -> Result<EventKind, Box<dyn Error>> {
        let wanted = |event: &Event| event.is_about(alias) && event.kind.name() == name;
        self.until_told(&format!("{name} of {alias}"), wanted).await
    }

    /// Waits until the router is told to be in this mode.
    pub(crate) async fn until_mode(&mut self, mode: Mode) -> Result<EventKind, Box<dyn Error>> {
        let wanted = |event: &Event| matches!(event.kind, EventKind::ModeChanged { to, .. } if to == mode);
        self.until_told(&format!("mode {mode}"), wanted).await
    }

    async fn until_told(&mut self, what: &str, wanted: impl Fn(&Event) -> bool) -> Result<EventKind, Box<dyn Error>> {
        let told = async {
            while let Some(event) = self.events.next().await {
                self.told.push(event.clone());
                if wanted(&event) {
                    return Some(event.kind);
                }
            }
            None
        };
        match soon(what, told).await {
            Ok(Some(kind)) => Ok(kind),
            Ok(None) => Err(format!("the router ended before it told {what}: {:?}", self.told).into()),
            Err(late) => Err(format!("{late}; told were {:?}", self.told).into()),
        }
    }

    /// Waits until nothing more will be told.
    pub(crate) async fn ends(&mut self) -> Result<(), Box<dyn Error>> {
        soon("the end of the story", async { while self.events.next().await.is_some() {} }).await
    }

    /// The names of all that was told so far about the server of this alias.
    pub(crate) async fn so_far(&mut self, alias: &str) -> Vec<&'static str> {
        loop {
            tokio::select! {
                biased;
                event = self.events.next() => match event {
                    Some(event) => self.told.push(event),
                    None => break,
                },
                () = ready(()) => break,
            }
        }
        self.told.iter().filter(|event| event.is_about(alias)).map(|event| event.kind.name()).collect()
    }
}
