//! In-process failover routing for PostgreSQL connections.

mod clock;
pub mod config;
#[cfg(feature = "testkit")]
pub mod testkit;
