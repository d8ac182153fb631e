//! A TCP proxy that is the faulty network between a client and a server.

mod connection;
mod door;
mod fault;
mod setting;

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::net::lookup_host;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::JoinHandle;

use super::TestkitError;
use super::port::Port;
use door::{Door, listen_anywhere, loopback};
pub use fault::{Direction, Fault};
use setting::Setting;

/// A proxy on a free port of 127.0.0.1 whose traffic suffers the [`Fault`] that was set last.
///
/// It runs as tasks of the runtime that started it, and ends, with its connections, when it is dropped.
#[derive(Debug)]
pub struct Proxy {
    port: Port,
    orders: mpsc::Sender<Order>,
    setting: watch::Receiver<Setting>,
    counts: Arc<Counts>,
    task: JoinHandle<()>,
}

/// A fault to be set, and where to say that it is.
type Order = (Fault, oneshot::Sender<Result<(), TestkitError>>);

#[derive(Debug, Default)]
struct Counts {
    accepted: AtomicUsize,
    open: AtomicUsize,
}

impl Proxy {
    /// Starts a proxy for a server, such as `"127.0.0.1:5432"`; a name is resolved once, now.
    ///
    /// # Errors
    ///
    /// When the address cannot be resolved, or no port is free.
    ///
    /// # Cancel safety
    ///
    /// Cancel safe: nothing was started then.
    pub async fn start(upstream: impl tokio::net::ToSocketAddrs) -> Result<Self, TestkitError> {
        let mut addresses = lookup_host(upstream).await.map_err(TestkitError::while_("resolving the upstream"))?;
        let upstream = addresses.next().ok_or_else(|| TestkitError::new("the upstream has no address"))?;
        let (port, listener) = listen_anywhere()?;
        let (orders, received) = mpsc::channel(1);
        let counts = Arc::<Counts>::default();
        let (settings, setting) = watch::channel(Setting::default());
        let door = Door::new((loopback(&port), listener), upstream, settings, Arc::clone(&counts));
        let task = tokio::spawn(door.run(received));
        Ok(Self { port, orders, setting, counts, task })
    }

    /// Where it listens, the same for its whole life.
    #[must_use]
    pub fn addr(&self) -> SocketAddr {
        loopback(&self.port)
    }

    /// How many connections it has accepted so far.
    #[must_use]
    pub fn accepted(&self) -> usize {
        self.counts.accepted.load(Ordering::Relaxed)
    }

    /// How many connections are open now.
    #[must_use]
    pub fn open(&self) -> usize {
        self.counts.open.load(Ordering::Relaxed)
    }

    /// Sets the fault, in place of the one before; when this is back, it is in force.
    ///
    /// # Errors
    ///
    /// When the port cannot be opened again after [`Fault::Refuse`] or [`Fault::Ignore`], or the runtime that the proxy runs on has
    /// ended.
    ///
    /// # Cancel safety
    ///
    /// It may be in force all the same.
    pub async fn set(&self, fault: Fault) -> Result<(), TestkitError> {
        let (done, told) = oneshot::channel();
        self.orders.send((fault, done)).await.map_err(|_| ended())?;
        told.await.map_err(|_| ended())?
    }

    /// Waits until the fault in force, a [`Fault::CutAfter`] or a [`Fault::CutAt`], has cut a connection.
    ///
    /// # Errors
    ///
    /// When the runtime that the proxy runs on has ended.
    ///
    /// # Cancel safety
    ///
    /// Cancel safe: it only waits.
    pub async fn until_cut(&self) -> Result<(), TestkitError> {
        self.setting.clone().wait_for(|now| now.cut).await.map(drop).map_err(|_| ended())
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.task.abort();
    }
}

fn ended() -> TestkitError {
    TestkitError::new("the runtime that the proxy ran on has ended")
}
