//! A TCP proxy that is the faulty network between a client and a server.

mod connection;
mod fault;

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use tokio::net::{TcpListener, TcpSocket, TcpStream, lookup_host};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::{JoinHandle, JoinSet};

use super::TestkitError;
use super::port::Port;
pub use fault::{Direction, Fault};

/// A proxy on a free port of 127.0.0.1 whose traffic suffers the [`Fault`] that was set last.
///
/// It runs as tasks of the runtime that started it, and ends, with its connections, when it is dropped.
#[derive(Debug)]
pub struct Proxy {
    port: Port,
    orders: mpsc::Sender<Order>,
    counts: Arc<Counts>,
    task: JoinHandle<()>,
}

/// A fault and which setting of one it is, so that the same fault set twice counts its bytes anew.
#[derive(Clone, Copy, Debug, Default)]
struct Setting {
    fault: Fault,
    number: u64,
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
    pub async fn start(upstream: impl tokio::net::ToSocketAddrs) -> Result<Self, TestkitError> {
        let mut addresses = lookup_host(upstream).await.map_err(TestkitError::while_("resolving the upstream"))?;
        let upstream = addresses.next().ok_or_else(|| TestkitError::new("the upstream has no address"))?;
        let (port, listener) = listen_anywhere()?;
        let (orders, received) = mpsc::channel(1);
        let counts = Arc::<Counts>::default();
        let (faults, _) = watch::channel(Setting::default());
        let door = Door {
            addr: loopback(&port),
            upstream,
            listener: Some(listener),
            faults,
            counts: Arc::clone(&counts),
            connections: JoinSet::new(),
        };
        let task = tokio::spawn(door.run(received));
        Ok(Self { port, orders, counts, task })
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
    /// When the port cannot be opened again after [`Fault::Refuse`], or the runtime that the proxy runs on has ended.
    pub async fn set(&self, fault: Fault) -> Result<(), TestkitError> {
        let (done, told) = oneshot::channel();
        let ended = || TestkitError::new("the runtime that the proxy ran on has ended");
        self.orders.send((fault, done)).await.map_err(|_| ended())?;
        told.await.map_err(|_| ended())?
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Where connections come in; the one task that changes the fault.
struct Door {
    addr: SocketAddr,
    upstream: SocketAddr,
    /// None while connections are refused.
    listener: Option<TcpListener>,
    faults: watch::Sender<Setting>,
    counts: Arc<Counts>,
    connections: JoinSet<()>,
}

impl Door {
    async fn run(mut self, mut orders: mpsc::Receiver<Order>) {
        loop {
            tokio::select! {
                order = orders.recv() => match order {
                    // Whoever gave the order may have stopped waiting for it.
                    Some((fault, done)) => drop(done.send(self.set(fault))),
                    None => return,
                },
                stream = accept(self.listener.as_ref()) => self.enter(stream),
                Some(_) = self.connections.join_next() => {}
            }
        }
    }

    fn set(&mut self, fault: Fault) -> Result<(), TestkitError> {
        if fault == Fault::Refuse {
            self.listener = None;
        } else if self.listener.is_none() {
            self.listener = Some(listen(self.addr).map_err(TestkitError::while_("opening the proxy's port again"))?);
        }
        self.faults.send_modify(|now| *now = Setting { fault, number: now.number + 1 });
        Ok(())
    }

    fn enter(&mut self, stream: TcpStream) {
        self.counts.accepted.fetch_add(1, Ordering::Relaxed);
        let open = Open::count(&self.counts);
        let (upstream, faults) = (self.upstream, self.faults.subscribe());
        self.connections.spawn(async move {
            connection::serve(stream, upstream, faults).await;
            drop(open);
        });
    }
}

/// Counts a connection for as long as it lives.
struct Open(Arc<Counts>);

impl Open {
    fn count(counts: &Arc<Counts>) -> Self {
        counts.open.fetch_add(1, Ordering::Relaxed);
        Self(Arc::clone(counts))
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        self.0.open.fetch_sub(1, Ordering::Relaxed);
    }
}

/// The next connection; none for ever while the port is closed.
async fn accept(listener: Option<&TcpListener>) -> TcpStream {
    let Some(listener) = listener else { return std::future::pending().await };
    loop {
        match listener.accept().await {
            Ok((stream, _)) => return stream,
            // It was reset before it could be accepted, or files have run out: others may still come.
            Err(_) => tokio::time::sleep(Duration::from_millis(10)).await,
        }
    }
}

fn loopback(port: &Port) -> SocketAddr {
    (Ipv4Addr::LOCALHOST, port.number()).into()
}

fn listen(addr: SocketAddr) -> std::io::Result<TcpListener> {
    let socket = TcpSocket::new_v4()?;
    socket.set_reuseaddr(true)?;
    socket.bind(addr)?;
    socket.listen(1024)
}

fn listen_anywhere() -> Result<(Port, TcpListener), TestkitError> {
    let mut tries = 5;
    loop {
        let port = Port::reserve()?;
        tries -= 1;
        match listen(loopback(&port)) {
            Ok(listener) => return Ok((port, listener)),
            Err(_) if tries > 0 => {}
            Err(error) => return Err(TestkitError::caused("opening a port for the proxy", error)),
        }
    }
}
