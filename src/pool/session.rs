//! What does a connection report while it lives? The task that drives it, ends it on a cut, and tells evidence from noise.

use std::{
    error::Error as _,
    future::{Future, poll_fn},
    pin::pin,
    sync::Arc,
    task::{Context, Poll},
};

use tokio::sync::watch;
use tokio_postgres::{AsyncMessage, Error, error::DbError};

use super::{
    Cut, Server,
    dial::Wire,
    tap::{Ending, Gauge, Tap},
};
use crate::health::Generation;

/// The driving side of one pooled connection.
pub(super) struct Session {
    server: Arc<Server>,
    generation: Generation,
    wire: Wire,
    gauge: Gauge,
    /// What the server last said without being asked: an immediate shutdown and a crash announce themselves this way.
    notice: Option<DbError>,
    in_recovery: Option<bool>,
    parameters: u8,
}

impl Session {
    pub(super) fn new(server: Arc<Server>, generation: Generation, wire: Wire, tap: &Tap) -> Self {
        let gauge = tap.gauge();
        let (in_recovery, parameters) = (in_recovery(&wire), gauge.parameters());
        Self { server, generation, wire, gauge, notice: None, in_recovery, parameters }
    }

    /// Drives the connection until its client is gone, the server ends it, or it is cut.
    pub(super) async fn run(mut self, mut cuts: watch::Receiver<Cut>) {
        let generation = self.generation;
        let mut cut = pin!(cuts.wait_for(|cut| cut.ends(generation)));
        let end = poll_fn(|cx| {
            if cut.as_mut().poll(cx).is_ready() {
                return Poll::Ready(Err(None));
            }
            self.turn(cx).map_err(Some)
        })
        .await;
        let ending = match end {
            Ok(()) => Ending::new("closed by its owner"),
            Err(None) => Ending::new("cut: the server is believed down"),
            Err(Some(error)) => {
                if self.accuses_server(&error) {
                    self.server.doubt(generation);
                }
                self.last_words(&error)
            }
        };
        let Self { wire, gauge, server, .. } = self;
        // First the word, so that nobody who sees a query fail still reads "clean".
        tracing::debug!(alias = %server.name, cause = %ending.cause, "session ended");
        gauge.end(ending);
        drop(wire);
    }

    /// One turn of the driver: everything it can do now.
    fn turn(&mut self, cx: &Context<'_>) -> Poll<Result<(), Error>> {
        let (wire, notice) = (&mut self.wire, &mut self.notice);
        let end = self.gauge.turn(cx, |cx| {
            loop {
                match wire.poll_message(cx) {
                    Poll::Ready(Some(Ok(AsyncMessage::Notice(said)))) => *notice = Some(said),
                    Poll::Ready(Some(Ok(_))) => {}
                    Poll::Ready(Some(Err(error))) => return Poll::Ready(Err(error)),
                    Poll::Ready(None) => return Poll::Ready(Ok(())),
                    Poll::Pending => return Poll::Pending,
                }
            }
        });
        self.watch_role();
        end
    }

    /// A promotion reaches every session with its next reply, as a changed parameter (PostgreSQL 14 and later).
    fn watch_role(&mut self) {
        if self.gauge.parameters() == self.parameters {
            return;
        }
        self.parameters = self.gauge.parameters();
        let now = in_recovery(&self.wire);
        if now != self.in_recovery {
            self.in_recovery = now;
            self.server.doubt(self.generation);
        }
    }

    /// Whether this end says something about the server, and not about this session alone.
    fn accuses_server(&self, error: &Error) -> bool {
        match error.code() {
            // idle_session_timeout, database dropped, idle_in_transaction_session_timeout, recovery conflict.
            Some(state) => !matches!(state.code(), "57P05" | "57P04" | "25P03" | "40001"),
            None => true,
        }
    }

    fn last_words(&self, error: &Error) -> Ending {
        let words = error.as_db_error().or(self.notice.as_ref());
        let mut cause = error.to_string();
        match words {
            Some(words) => cause = format!("{}: {} ({})", words.severity(), words.message(), words.code().code()),
            None => {
                let mut source = error.source();
                while let Some(next) = source {
                    cause = format!("{cause}: {next}");
                    source = next.source();
                }
            }
        }
        Ending { sqlstate: words.map(|words| words.code().code().to_owned()), cause }
    }
}

impl Ending {
    fn new(cause: &str) -> Self {
        Self { sqlstate: None, cause: cause.to_owned() }
    }
}

fn in_recovery(wire: &Wire) -> Option<bool> {
    wire.parameter("in_hot_standby").map(|value| value == "on")
}
