//! In-process failover routing for PostgreSQL connections.

mod clock;
pub mod config;
pub mod health;
mod monitor;
pub mod observe;
pub mod plan;
pub mod policy;
pub mod pool;
pub mod router;
#[cfg(feature = "testkit")]
pub mod testkit;

pub use self::{
    config::Config,
    observe::{Event, EventKind},
    router::{Alias, Error, Lease, Router},
};

/// The README's examples are tests.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
