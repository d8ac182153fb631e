//! The log as somebody who waits for a line of it sees it.

use std::time::{Duration, Instant};

use tokio::sync::mpsc;
use tracing::{Event, Subscriber, field::Field};
use tracing_subscriber::{Layer, layer::Context, prelude::*};

use super::{Fallible, now};

/// The router's lines of the log, each with the moment in which it was written.
#[derive(Debug)]
pub(crate) struct Lines(mpsc::UnboundedReceiver<(Instant, String)>);

/// Longer than anything that is waited for takes.
const LATE: Duration = Duration::from_secs(30);

impl Lines {
    /// Listens to all that is logged from now on, once for the whole program.
    pub(crate) fn listen() -> Self {
        let (sender, lines) = mpsc::unbounded_channel();
        tracing_subscriber::registry().with(Listener(sender)).init();
        Self(lines)
    }

    /// Waits for the next line with this `event`: when it was written.
    pub(crate) async fn next(&mut self, event: &str) -> Fallible<Instant> {
        let found = async {
            while let Some((at, name)) = self.0.recv().await {
                if name == event {
                    return Ok(at);
                }
            }
            Err("nobody logs any more".into())
        };
        tokio::time::timeout(LATE, found).await.map_err(|_| format!("no line {event:?} within {LATE:?}"))?
    }

    /// The events of all lines written since the last call, without waiting.
    pub(crate) fn drain(&mut self) -> Vec<String> {
        std::iter::from_fn(|| self.0.try_recv().ok()).map(|(_, name)| name).collect()
    }
}

struct Listener(mpsc::UnboundedSender<(Instant, String)>);

impl<S: Subscriber> Layer<S> for Listener {
    fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
        if event.metadata().target() != "pgdetour" {
            return;
        }
        let at = now();
        let mut name = String::new();
        event.record(&mut |field: &Field, value: &dyn std::fmt::Debug| {
            if field.name() == "event" {
                name = format!("{value:?}").trim_matches('"').to_owned();
            }
        });
        // An error says that the bench is over.
        let _ = self.0.send((at, name));
    }
}
