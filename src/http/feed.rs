//! Server-sent events: the whole status at each change and every few seconds, made once for all who follow.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use axum::{
    body::{Body, Bytes},
    extract::State,
    http::{HeaderMap, HeaderValue, header},
    response::{IntoResponse, Response},
};
use futures_util::stream;
use tokio::{
    sync::watch,
    time::{sleep, timeout},
};

use super::{
    answer::Refusal,
    options::HttpOptions,
    seats::{Seat, Seats},
    site::{Site, Subject, scene},
};
use crate::clock;

/// Between two statuses while nothing happens; what a follower takes for a sign that the way there is open.
const TICK: Duration = Duration::from_secs(3);

/// Between two statuses at least: a storm of events is told in one.
const PAUSE: Duration = Duration::from_millis(200);

/// The latest status, for all who follow. It is made only while somebody does.
pub(super) struct Feed {
    subject: Arc<dyn Subject>,
    seats: Arc<Seats>,
    latest: watch::Sender<Bytes>,
    /// Whether somebody makes it.
    runs: Mutex<bool>,
    /// Whether there are actions.
    actions: bool,
}

impl Feed {
    pub(super) fn new(subject: Arc<dyn Subject>, options: &HttpOptions) -> Self {
        Self {
            subject,
            seats: Seats::new(options.most_streams),
            latest: watch::Sender::new(Bytes::new()),
            runs: Mutex::default(),
            actions: options.token.is_some(),
        }
    }

    /// What one more follower is sent, beginning at once.
    fn follow(self: &Arc<Self>) -> Option<(watch::Receiver<Bytes>, Seat)> {
        let seat = self.seats.take(clock::now())?;
        let mut runs = self.runs.lock().unwrap_or_else(PoisonError::into_inner);
        let mut latest = self.latest.subscribe();
        if std::mem::replace(&mut *runs, true) {
            latest.mark_changed();
        } else {
            tokio::spawn(Arc::clone(self).make());
        }
        Some((latest, seat))
    }

    async fn make(self: Arc<Self>) {
        let mut events = self.subject.events();
        let mut open = true;
        while self.is_followed() {
            self.latest.send_replace(told(&scene(&*self.subject, self.actions)));
            sleep(PAUSE).await;
            tokio::select! {
                event = events.next(), if open => open = event.is_some(),
                () = sleep(TICK - PAUSE) => {}
                () = self.latest.closed() => {}
            }
        }
    }

    /// Whether somebody follows; if not, the next one who does has it made anew.
    fn is_followed(&self) -> bool {
        let mut runs = self.runs.lock().unwrap_or_else(PoisonError::into_inner);
        *runs = self.latest.receiver_count() > 0;
        *runs
    }
}

/// One event of the stream. JSON has no line breaks of its own.
fn told(status: &str) -> Bytes {
    format!("event: status\ndata: {status}\n\n").into()
}

/// Follows the status.
pub(super) async fn events(State(site): State<Arc<Site>>, headers: HeaderMap) -> Result<Response, Refusal> {
    site.may_see(&headers)?;
    let followed = site.feed.follow().ok_or(Refusal::Full)?;
    let body = stream::unfold(followed, |(mut latest, seat)| async move {
        if !seat.taken() {
            return None;
        }
        // The feed outlives its followers, and tells something in each tick.
        timeout(TICK * 4, latest.changed()).await.ok()?.ok()?;
        let status = latest.borrow_and_update().clone();
        seat.send(clock::now());
        Some((Ok::<_, std::convert::Infallible>(status), (latest, seat)))
    });
    let bearer = if site.bears_token(&headers).is_ok() { "yes" } else { "no" };
    let kind = [
        // Whether the page may act: it has no other way to know that its token is right where everybody may see.
        (header::HeaderName::from_static("x-pgdetour-bearer"), HeaderValue::from_static(bearer)),
        (header::CONTENT_TYPE, HeaderValue::from_static("text/event-stream")),
        // nginx would keep the events back until it has a page full of them.
        (header::HeaderName::from_static("x-accel-buffering"), HeaderValue::from_static("no")),
    ];
    Ok((kind, Body::from_stream(body)).into_response())
}
