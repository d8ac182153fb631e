//! What the endpoints share: the router they tell of, who may see it, and the documents that programs read.

use std::{future::Future, pin::Pin, sync::Arc};

use axum::{
    extract::State,
    http::{HeaderMap, HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
};
use serde::Serialize;

use super::{
    actions::{Action, Intruders},
    answer::{Refusal, json},
    feed::Feed,
    options::{Details, HttpOptions},
    page::Page,
    ready::Ready,
};
use crate::{
    observe::{Chronicle, Events, OutageRecord, SpanRecord, status::Status},
    pool::Backend,
    router::{ActionError, Router},
};

/// A router, whatever its pools are.
pub(super) trait Subject: Send + Sync + 'static {
    /// What it could do now: no lock, no wait.
    fn ready(&self) -> Ready;

    /// All that is known.
    fn status(&self) -> Status;

    /// What happened lately.
    fn timeline(&self) -> Chronicle;

    /// Its events from now on.
    fn events(&self) -> Events;

    /// Does what somebody with the token asks for.
    fn act<'a>(&'a self, action: Action, alias: &'a str, by: &'a str) -> Doing<'a>;
}

/// Something that is being done: whether it has changed anything.
pub(super) type Doing<'a> = Pin<Box<dyn Future<Output = Result<bool, ActionError>> + Send + 'a>>;

impl<B: Backend> Subject for Router<B> {
    fn ready(&self) -> Ready {
        Ready::of(self.mode(), &self.table())
    }

    fn status(&self) -> Status {
        self.status()
    }

    fn timeline(&self) -> Chronicle {
        self.timeline()
    }

    fn events(&self) -> Events {
        self.events()
    }

    fn act<'a>(&'a self, action: Action, alias: &'a str, by: &'a str) -> Doing<'a> {
        Box::pin(async move {
            match action {
                Action::Drain(lasting) => self.drain(alias, lasting, by).await.map(|()| true),
                Action::Undrain => self.undrain(alias, by).await,
                Action::Ping => self.ping_now(alias, by).await.map(|()| true),
                Action::EndHold => self.end_hold(alias, by).await,
            }
        })
    }
}

/// All that the endpoints know.
pub(super) struct Site {
    pub(super) subject: Arc<dyn Subject>,
    pub(super) options: HttpOptions,
    pub(super) feed: Arc<Feed>,
    pub(super) page: Page,
    pub(super) intruders: Intruders,
}

impl Site {
    pub(super) fn new(subject: Arc<dyn Subject>, options: HttpOptions, page: Page) -> Self {
        let feed = Arc::new(Feed::new(Arc::clone(&subject), &options));
        Self { subject, options, feed, page, intruders: Intruders::default() }
    }

    /// Whether who asks may see details.
    pub(super) fn may_see(&self, headers: &HeaderMap) -> Result<(), Refusal> {
        match self.options.details {
            Details::Public => Ok(()),
            Details::Token => self.bears_token(headers),
        }
    }

    /// Whether who asks bears the token.
    pub(super) fn bears_token(&self, headers: &HeaderMap) -> Result<(), Refusal> {
        match &self.options.token {
            None => Err(Refusal::Closed),
            Some(token) if token.is_borne_by(headers) => Ok(()),
            Some(_) => Err(Refusal::Unauthorized),
        }
    }
}

/// What the page is told: the status and, in the same object, what happened lately.
#[derive(Serialize)]
struct Scene {
    #[serde(flatten)]
    status: Status,
    outages: Vec<OutageRecord>,
    spans: Vec<SpanRecord>,
    /// The number of the last event in `/timeline`: whether there are new ones. 0 before the first.
    last_event: u64,
    /// Whether there are actions, for whom has the token.
    actions: bool,
}

/// The page's document, in one line.
pub(super) fn scene(subject: &dyn Subject, actions: bool) -> String {
    let Chronicle { events, outages, spans, .. } = subject.timeline();
    let last_event = events.last().map_or(0, |event| event.number);
    written(&Scene { status: subject.status(), outages, spans, last_event, actions })
}

/// All that is known.
pub(super) async fn status(State(site): State<Arc<Site>>, headers: HeaderMap) -> Result<Response, Refusal> {
    site.may_see(&headers)?;
    Ok(json(StatusCode::OK, written(&site.subject.status())))
}

/// What happened lately.
pub(super) async fn timeline(State(site): State<Arc<Site>>, headers: HeaderMap) -> Result<Response, Refusal> {
    site.may_see(&headers)?;
    Ok(json(StatusCode::OK, written(&site.subject.timeline())))
}

fn written(value: &impl Serialize) -> String {
    // Plain values with names for keys: there is nothing in them that JSON cannot write.
    serde_json::to_string(value).unwrap_or_default()
}

/// The metrics, where somebody counts them.
pub(super) async fn metrics(State(site): State<Arc<Site>>, headers: HeaderMap) -> Result<Response, Refusal> {
    let metrics = site.options.metrics.as_ref().ok_or(Refusal::NotFound)?;
    site.may_see(&headers)?;
    let kind = HeaderValue::from_static("text/plain; version=0.0.4; charset=utf-8");
    Ok(([(header::CONTENT_TYPE, kind)], metrics()).into_response())
}
