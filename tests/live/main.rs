//! The router on real PostgreSQL pairs: what every fault does to reads, beliefs and events. Each test is a claim.

#![cfg(all(feature = "deadpool", feature = "bb8", feature = "testkit", feature = "once"))]

mod admission;
mod breaker;
mod conflicts;
mod connection;
mod drain;
mod dropped;
mod fate;
mod harness;
mod lifecycle;
mod mode;
mod namespace;
mod network;
mod outage;
mod overload;
mod reads;
mod resources;
mod session;
mod statement_timeout;
mod triggers;
mod write;
