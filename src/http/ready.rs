//! Probes: is the process alive, and may requests be sent to it? Answered from memory, without a lock and without waiting.

use std::sync::Arc;

use axum::{
    extract::{RawQuery, State},
    http::{HeaderMap, StatusCode},
    response::{IntoResponse, Response},
};

use super::{
    answer::{Refusal, json},
    site::Site,
};
use crate::{
    health::Need,
    plan::{Mode, Table},
};

/// Says that the process serves. It looks at nothing: a database that is out is no reason to restart a process.
pub(super) async fn live() -> Response {
    json(StatusCode::OK, r#"{"live":true}"#)
}

/// What the router could do now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Ready {
    pub(super) mode: Mode,
    reads: bool,
    writes: bool,
}

impl Ready {
    /// By the mode and the table it is told from.
    pub(super) fn of(mode: Mode, table: &Table) -> Self {
        let takes_writes = || table.entries().iter().any(|entry| entry.belief().serves(Need::Writes));
        Self { mode, reads: mode != Mode::Down, writes: mode <= Mode::Degraded && takes_writes() }
    }

    fn serves(self, need: Need) -> bool {
        match need {
            Need::Reads => self.reads,
            Need::Writes => self.writes,
        }
    }

    fn detailed(self, ready: bool) -> String {
        let Self { mode, reads, writes } = self;
        format!(r#"{{"ready":{ready},"mode":"{mode}","reads":{reads},"writes":{writes}}}"#)
    }
}

/// Says whether requests may be sent: 200 also while degraded, since they are answered then.
pub(super) async fn ready(
    State(site): State<Arc<Site>>,
    RawQuery(query): RawQuery,
    headers: HeaderMap,
) -> Result<Response, Refusal> {
    let need = match query.as_deref() {
        None | Some("" | "need=reads") => Need::Reads,
        Some("need=writes") => Need::Writes,
        Some(_) => return Err(Refusal::BadRequest("ask with ?need=reads or ?need=writes")),
    };
    let now = site.subject.ready();
    let ready = now.serves(need);
    let status = if ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    Ok(match (site.may_see(&headers), ready) {
        (Ok(()), _) => json(status, now.detailed(ready)),
        (Err(_), true) => json(status, r#"{"ready":true}"#),
        (Err(_), false) => json(status, r#"{"ready":false}"#),
    }
    .into_response())
}
