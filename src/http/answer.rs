//! Answers: texts and JSON that nobody keeps, and refusals that tell a stranger no more than a machine has to know.

use axum::{
    body::{Body, Bytes},
    http::{HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
};

const JSON: HeaderValue = HeaderValue::from_static("application/json");

/// An answer in JSON.
pub(super) fn json(status: StatusCode, body: impl Into<Bytes>) -> Response {
    let mut response = Response::new(Body::from(body.into()));
    *response.status_mut() = status;
    response.headers_mut().insert(header::CONTENT_TYPE, JSON);
    response
}

/// Why a request is not answered. Nothing of the request is repeated in it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Refusal {
    /// It bears no token, or a wrong one.
    Unauthorized,
    /// There is no token that it could bear.
    Closed,
    /// A browser sends it for a page of somebody else's.
    CrossSite,
    /// It asks for another host.
    Misdirected,
    /// There is nothing of that name.
    NotFound,
    /// It says something that is not understood.
    BadRequest(&'static str),
    /// It cannot be done now.
    Conflict(&'static str),
    /// As many as may follow the events do.
    Full,
}

impl Refusal {
    fn tells(self) -> (StatusCode, &'static str) {
        match self {
            Self::Unauthorized => (StatusCode::UNAUTHORIZED, "this needs the bearer token"),
            Self::Closed => (StatusCode::FORBIDDEN, "no token is configured, so nobody may"),
            Self::CrossSite => (StatusCode::FORBIDDEN, "a page of another origin may not"),
            Self::Misdirected => (StatusCode::MISDIRECTED_REQUEST, "nothing is served under this host name"),
            Self::NotFound => (StatusCode::NOT_FOUND, "not found"),
            Self::BadRequest(why) => (StatusCode::BAD_REQUEST, why),
            Self::Conflict(why) => (StatusCode::CONFLICT, why),
            Self::Full => (StatusCode::SERVICE_UNAVAILABLE, "as many follow the events as may"),
        }
    }
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        let (status, why) = self.tells();
        let mut response = json(status, serde_json::json!({ "error": why }).to_string());
        match self {
            Self::Unauthorized => {
                response.headers_mut().insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
            }
            Self::Full => {
                response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from_static("5"));
            }
            _ => {}
        }
        response
    }
}
