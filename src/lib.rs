//! In-process failover routing for PostgreSQL connections.
//!
//! A [`Router`] stands where an application's pool stood. It holds *aliases*, one for each server or group of servers, and knows
//! at every moment which servers answer. While a replica is out, its reads take a *detour* to the next server of their
//! failover chain; when it has recovered they come back.
//!
//! ```no_run
//! # #[cfg(feature = "deadpool")]
//! # async fn example() -> Result<(), Box<dyn std::error::Error>> {
//! let router: pgdetour::Router = pgdetour::Router::from_file("pgdetour.toml").await?;
//! let replica = router.alias("replica")?; // resolved once; cloning is cheap
//! let client = replica.get().await?;      // used as the pool's own object is
//! client.query("SELECT id FROM orders", &[]).await?;
//! # Ok(())
//! # }
//! ```
//!
//! | to | see |
//! | --- | --- |
//! | configure it | [`Config::from_file`], [`Config::builder`]; the keys and their defaults are in the README |
//! | know why a request went where it did | [`Router::explain`], [`Router::table`] |
//! | tell an overload from an outage | [`Error::is_overloaded`], [`Error::is_unavailable`] |
//! | keep outages for good, and report on them | `history` (feature), [`HistorySettings`](config::HistorySettings) |
//! | know how much is possible now | [`Router::mode`], [`Switch`] |
//! | answer with the last good value where a read fails by no fault of yours | `Alias::read_or` (feature `cache`) |
//! | have a read survive its server | [`Alias::read`], [`Router::with_deadline`] |
//! | change something, and know whether it has happened | [`Alias::write`] |
//! | have it happen once, whatever fails | `Alias::write_once` (feature `once`), and [`migrate`] for its table |
//! | know what became of a call | [`Error::outcome`], [`Error::attempts`] |
//! | have a cache, a queue or an API watched too | [`service`], [`Router::register`], [`Router::services`] |
//! | ping before a call, or after an error | [`Router::monitored`], [`Router::report`], `layer::ErrorTrigger` (feature `tracing-layer`) |
//! | close a part of an application while it is out | `layer::OutageLayer` (feature `tower`) |
//! | hear of outages | [`Router::events`]; the same goes to the log, target `pgdetour` |
//! | count all that, and be alerted | `metrics` (feature) |
//! | use bb8, or a pool of your own | [`pool::Bb8Postgres`](pool), [`pool::Backend`] |
//! | test a failover | `testkit` (feature) |
//!
//! It needs a Tokio runtime with I/O and time enabled. All waits of a request have a deadline. Public items that this
//! documentation does not show are not part of the interface.

mod clock;
pub mod config;
pub mod health;
#[cfg(feature = "history")]
pub mod history;
#[cfg(feature = "http")]
pub mod http;
#[cfg(any(feature = "tower", feature = "tracing-layer"))]
pub mod layer;
#[cfg(feature = "metrics")]
pub mod metrics;
mod migrations;
mod monitor;
pub mod observe;
pub mod plan;
pub mod policy;
pub mod pool;
pub mod router;
pub mod service;
#[cfg(any(feature = "history", feature = "once"))]
mod sql;
mod striped;
#[cfg(feature = "testkit")]
pub mod testkit;

pub use self::{
    config::Config,
    migrations::{MigrateError, Migration, migrate, pending_migrations},
    monitor::ServiceState,
    observe::{Event, EventKind, Events},
    plan::Mode,
    router::{ActionError, Alias, Attempt, Deadline, Error, Lease, Router, ServiceHandle, Switch, Transaction},
};

#[cfg(feature = "cache")]
pub use self::router::{Fallback, Served};

/// The README's examples are tests.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
