//! What a client is told while a part of the application is closed.

use std::time::Duration;

use http::{
    HeaderValue, Response, StatusCode,
    header::{CACHE_CONTROL, CONTENT_TYPE, RETRY_AFTER},
};

use crate::{config::AliasName, plan::Mode};

/// Why a request is not handled now. It names no server: what it says may be shown to anybody.
#[derive(Debug, Clone)]
pub struct Outage {
    alias: Option<AliasName>,
    mode: Mode,
    retry_after: Duration,
}

impl Outage {
    /// `next`: until the next ping of what is out, which may find it back.
    pub(super) fn new(alias: Option<AliasName>, mode: Mode, next: Duration) -> Self {
        // Whole seconds, as HTTP has them, and not too early.
        let seconds = (next.as_secs() + u64::from(next.subsec_nanos() > 0)).max(1);
        Self { alias, mode, retry_after: Duration::from_secs(seconds) }
    }

    /// The alias or the service that is out; `None` where the mode decided.
    #[must_use]
    pub fn alias(&self) -> Option<&AliasName> {
        self.alias.as_ref()
    }

    /// The mode of the router.
    #[must_use]
    pub fn mode(&self) -> Mode {
        self.mode
    }

    /// When to come back: once what is out has been pinged next, in whole seconds, one at least.
    #[must_use]
    pub fn retry_after(&self) -> Duration {
        self.retry_after
    }

    /// 503 with `Retry-After`, and a line of text.
    #[must_use]
    pub fn response<A: From<String>>(&self) -> Response<A> {
        let text = format!("This is closed for the moment. Come back in {} s.\n", self.retry_after.as_secs());
        self.with(text, "text/plain; charset=utf-8")
    }

    /// 503 with `Retry-After`, and a problem as RFC 9457 has it: `application/problem+json`.
    #[must_use]
    pub fn problem<A: From<String>>(&self) -> Response<A> {
        let seconds = self.retry_after.as_secs();
        let problem = format!(
            r#"{{"type":"about:blank","title":"Service Unavailable","status":503,"detail":"This is closed for the moment.","retry_after":{seconds}}}"#
        );
        self.with(problem, "application/problem+json")
    }

    fn with<A: From<String>>(&self, body: String, kind: &'static str) -> Response<A> {
        let mut response = Response::new(A::from(body));
        *response.status_mut() = StatusCode::SERVICE_UNAVAILABLE;
        let headers = response.headers_mut();
        headers.insert(RETRY_AFTER, HeaderValue::from(self.retry_after.as_secs()));
        headers.insert(CONTENT_TYPE, HeaderValue::from_static(kind));
        headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
        response
    }
}
