//! What an operator may do: only with the token, never for another origin's page, and never without a line in the log.

use std::{
    net::SocketAddr,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use axum::{
    extract::{ConnectInfo, Path, Request, State},
    http::StatusCode,
    response::Response,
};

use super::{
    answer::{Refusal, json},
    guard::is_cross_site,
    listen::Peer,
    site::Site,
};
use crate::{
    clock,
    router::{ActionError, DRAIN_DEFAULT, DRAIN_LONGEST},
};

/// Between two lines of the log about requests without the token.
const SELDOM: Duration = Duration::from_secs(10);

/// One thing to do with an alias.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Action {
    /// Requests go elsewhere where another server takes them, for this long.
    Drain(Duration),
    /// They may come back.
    Undrain,
    /// Its server is pinged now, whatever is due.
    Ping,
    /// Its breaker lets a request through on trial now.
    EndHold,
}

impl Action {
    /// From the address: `drain` with `for=10m`, `undrain`, `ping` or `end-hold`.
    fn parse(name: &str, query: Option<&str>) -> Result<Self, Refusal> {
        let lasting = query.filter(|query| !query.is_empty()).map(|query| query.strip_prefix("for="));
        match (name, lasting) {
            ("drain", None) => Ok(Self::Drain(DRAIN_DEFAULT)),
            ("drain", Some(text)) => match text.map(humantime::parse_duration) {
                Some(Ok(lasting)) if lasting > Duration::ZERO && lasting <= DRAIN_LONGEST => Ok(Self::Drain(lasting)),
                _ => Err(Refusal::BadRequest("a drain is ?for=10m, and for 24h at most")),
            },
            ("undrain", None) => Ok(Self::Undrain),
            ("ping", None) => Ok(Self::Ping),
            ("end-hold", None) => Ok(Self::EndHold),
            ("undrain" | "ping" | "end-hold", Some(_)) => Err(Refusal::BadRequest("only a drain takes a time")),
            _ => Err(Refusal::NotFound),
        }
    }

    fn name(self) -> &'static str {
        match self {
            Self::Drain(_) => "drain",
            Self::Undrain => "undrain",
            Self::Ping => "ping",
            Self::EndHold => "end-hold",
        }
    }

    fn lasting(self) -> Option<Duration> {
        match self {
            Self::Drain(lasting) => Some(lasting),
            Self::Undrain | Self::Ping | Self::EndHold => None,
        }
    }
}

/// Does it. Its body is not read: there is nothing in it that counts.
pub(super) async fn act(
    State(site): State<Arc<Site>>,
    Path((name, alias)): Path<(String, String)>,
    request: Request,
) -> Result<Response, Refusal> {
    let by = peer(&request);
    permitted(&site, &request, &by)?;
    let action = Action::parse(&name, request.uri().query())?;
    let for_s = action.lasting().map(|lasting| lasting.as_secs_f64());
    let (name, done) = (action.name(), site.subject.act(action, &alias, &by).await);
    match &done {
        Ok(changed) => {
            tracing::info!(target: "pgdetour", event = "action", action = name, alias, by, for_s, changed, "done");
        }
        // Its name is not one of ours: it could be anything.
        Err(why) => tracing::info!(target: "pgdetour", event = "action", action = name, by, for_s, %why, "not done"),
    }
    let changed = done.map_err(refused)?;
    Ok(json(StatusCode::OK, serde_json::json!({ "done": name, "alias": alias, "changed": changed }).to_string()))
}

fn refused(why: ActionError) -> Refusal {
    match why {
        ActionError::UnknownAlias { .. } => Refusal::NotFound,
        ActionError::Primary { .. } => {
            Refusal::Conflict("it is declared a primary: its writes have nowhere else to go, so it is not drained")
        }
        ActionError::Duration { .. } => Refusal::BadRequest("a drain is ?for=10m, and for 24h at most"),
        ActionError::Closed => Refusal::Conflict("the router is shut down"),
    }
}

/// Whether who asks may act at all.
fn permitted(site: &Site, request: &Request, by: &str) -> Result<(), Refusal> {
    if site.options.token.is_none() {
        return Err(Refusal::NotFound);
    }
    if is_cross_site(request.uri(), request.headers()) {
        return Err(Refusal::CrossSite);
    }
    site.bears_token(request.headers()).inspect_err(|_| {
        if let Some(times) = site.intruders.count(clock::now()) {
            tracing::warn!(target: "pgdetour", event = "action_refused", by, times, "an action without the token");
        }
    })
}

/// Who asks, as the connection tells: what a proxy's header says could be anything.
fn peer(request: &Request) -> String {
    let own = request.extensions().get::<ConnectInfo<Peer>>().map(|info| info.0.0);
    let address = own.or_else(|| request.extensions().get::<ConnectInfo<SocketAddr>>().map(|info| info.0));
    address.map_or_else(|| "unknown".to_owned(), |address| address.ip().to_string())
}

/// Requests without the token: each is counted, and told of at most every now and then.
#[derive(Debug, Default)]
pub(super) struct Intruders(Mutex<(u64, Option<Instant>)>);

impl Intruders {
    /// One more. How many there were since it was told last, if it is time to tell.
    fn count(&self, now: Instant) -> Option<u64> {
        let mut counted = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        counted.0 += 1;
        let silent = counted.1.is_some_and(|told| now.saturating_duration_since(told) < SELDOM);
        (!silent).then(|| {
            counted.1 = Some(now);
            std::mem::take(&mut counted.0)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_action_is_read_off_its_address() {
        assert_eq!(Action::parse("drain", None), Ok(Action::Drain(DRAIN_DEFAULT)));
        assert_eq!(Action::parse("drain", Some("for=90m")), Ok(Action::Drain(Duration::from_secs(90 * 60))));
        assert_eq!(Action::parse("ping", None), Ok(Action::Ping));
        for wrong in ["for=25h", "for=0s", "for=-1s", "for=", "for=ever", "until=10m"] {
            assert!(matches!(Action::parse("drain", Some(wrong)), Err(Refusal::BadRequest(_))), "{wrong}");
        }
        assert!(matches!(Action::parse("ping", Some("for=1m")), Err(Refusal::BadRequest(_))));
        assert_eq!(Action::parse("drop", None), Err(Refusal::NotFound));
    }

    #[test]
    fn a_flood_of_intruders_is_a_line_now_and_then() {
        let (intruders, now) = (Intruders::default(), clock::now());
        assert_eq!(intruders.count(now), Some(1));
        assert_eq!((0..999).find_map(|_| intruders.count(now)), None);
        assert_eq!(intruders.count(now + SELDOM), Some(1000));
    }
}
