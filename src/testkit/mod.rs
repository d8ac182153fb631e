//! Real servers and a faulty network, for failover tests: yours as well as this crate's.
//!
//! A [`Cluster`] is a primary with streaming replicas on free ports of 127.0.0.1, in a temporary directory; its servers can be killed, stopped, frozen,
//! promoted and restarted. It needs PostgreSQL 14 or newer on the machine ([`bindir`] tells where it looks) and works as root too. A [`Proxy`] stands
//! between a client and any TCP server and refuses, resets, swallows, delays, garbles or cuts what goes through. Both run on Unix.
//!
//! ```no_run
//! use pgdetour::testkit::{Cluster, Direction, Fault, Proxy};
//!
//! # async fn example() -> Result<(), pgdetour::testkit::TestkitError> {
//! let cluster = Cluster::start(1).await?;
//! cluster.primary().execute("CREATE TABLE orders AS SELECT 1 AS id").await?;
//! cluster.wait_for_replay().await?;
//!
//! cluster.replica(0).kill().await?;
//! // Here goes what your service has to survive; it connects to `cluster.replica(0).url()`.
//! cluster.replica(0).start().await?;
//!
//! let proxy = Proxy::start((cluster.primary().host(), cluster.primary().port())).await?;
//! let url = cluster.primary().url_at("127.0.0.1", proxy.addr().port());
//! proxy.set(Fault::BlackHole { direction: Direction::Both }).await?;
//! # Ok(())
//! # }
//! ```

mod account;
mod builder;
mod cluster;
mod error;
mod find;
mod ground;
mod port;
mod process;
mod proxy;
mod server;
mod settings;

pub use builder::ClusterBuilder;
pub use cluster::Cluster;
pub use error::TestkitError;
pub use find::bindir;
pub use proxy::{Direction, Fault, Proxy};
pub use server::{Server, Stop};
