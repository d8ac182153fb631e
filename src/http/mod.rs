//! Over HTTP: probes for a balancer, the status for programs and for people, and the few actions an operator may take.
//!
//! [`router`] makes an axum [`Router`](axum::Router) to nest into an application; `pgdetour serve` serves the same by itself.
//!
//! ```no_run
//! # #[cfg(feature = "deadpool")]
//! # async fn example(app: axum::Router) -> Result<(), Box<dyn std::error::Error>> {
//! use pgdetour::http::{self, HttpOptions, Token};
//!
//! let router: pgdetour::Router = pgdetour::Router::from_file("pgdetour.toml").await?;
//! let options = HttpOptions::default().token(Token::from_file("/run/secrets/pgdetour")?);
//! let app = app.nest("/pgdetour", http::router(&router, options));
//! # drop(app);
//! # Ok(())
//! # }
//! ```
//!
//! | path | answers | who may |
//! | --- | --- | --- |
//! | `GET /livez` | 200 while the process serves; looks at no database | everybody |
//! | `GET /readyz` | 200 or 503, from what is believed already; `?need=writes` asks for a server that takes writes | everybody; the mode is a detail |
//! | `GET /status` | all that is known, as JSON | by [`Details`] |
//! | `GET /timeline` | the last events, outages and states, as JSON | by [`Details`] |
//! | `GET /events` | both as server-sent events, at each change and every few seconds | by [`Details`] |
//! | `GET /metrics` | Prometheus' text, where [`HttpOptions::metrics`] gives it | by [`Details`] |
//! | `GET /` | the status page | everybody; it asks for the token and shows what `/events` gives |
//! | `POST /actions/…` | drain, undrain, ping, end a hold | with the token; without one configured there are none |

mod actions;
mod answer;
mod feed;
mod guard;
mod listen;
mod options;
mod page;
mod ready;
mod seats;
mod site;
mod token;

use std::sync::Arc;

use axum::{
    middleware,
    routing::{get, post},
};

pub use self::{
    listen::{Listening, loopback_names, serve},
    options::{Details, HttpOptions},
    token::{Token, TokenError},
};
use self::{page::Page, site::Site};
use crate::{pool::Backend, router::Router};

/// The endpoints, to nest into an application: relative to wherever that puts them. They hold a handle of the router.
///
/// Nest them where only your own people and programs come; what strangers may see there is for [`HttpOptions::details`] to say.
pub fn router<B: Backend>(router: &Router<B>, options: HttpOptions) -> axum::Router {
    let site = Arc::new(Site::new(Arc::new(router.clone()), options, Page::new()));
    axum::Router::new()
        .route("/", get(page::show))
        .route("/livez", get(ready::live))
        .route("/readyz", get(ready::ready))
        .route("/status", get(site::status))
        .route("/timeline", get(site::timeline))
        .route("/metrics", get(site::metrics))
        .route("/events", get(feed::events))
        .route("/actions/{action}/{alias}", post(actions::act))
        .layer(middleware::from_fn_with_state(Arc::clone(&site), guard::guard))
        .with_state(site)
}
