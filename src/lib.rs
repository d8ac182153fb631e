//! In-process failover routing for PostgreSQL connections.

mod clock;
pub mod config;
pub mod health;
pub mod observe;
pub mod plan;
pub mod policy;
pub mod pool;
#[cfg(feature = "testkit")]
pub mod testkit;
