//! In-process failover routing for PostgreSQL connections.

#[cfg(feature = "testkit")]
pub mod testkit;
