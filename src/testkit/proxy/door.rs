//! Where connections come in to the proxy, or do not.

use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

use super::super::TestkitError;
use super::super::port::Port;
use super::connection::Connection;
use super::fault::Fault;
use super::setting::Setting;
use super::{Counts, Order};

/// How many wait to be accepted, at most.
const BACKLOG: u32 = 1024;

/// A connect over loopback that takes longer has no answer.
const UNANSWERED: Duration = Duration::from_millis(200);

/// The one task that changes the fault.
pub(super) struct Door {
    addr: SocketAddr,
    upstream: SocketAddr,
    port: Entrance,
    settings: watch::Sender<Setting>,
    counts: Arc<Counts>,
    connections: JoinSet<()>,
}

/// What whoever connects finds.
enum Entrance {
    Open(TcpListener),
    Closed,
    /// Nobody accepts, and the queue of those who wait for it is full: the kernel drops what comes.
    Full(#[expect(dead_code, reason = "it is there as long as the queue is")] (TcpListener, Vec<TcpStream>)),
}

impl Door {
    pub(super) fn new(
        (addr, listener): (SocketAddr, TcpListener),
        upstream: SocketAddr,
        settings: watch::Sender<Setting>,
        counts: Arc<Counts>,
    ) -> Self {
        Self { addr, upstream, port: Entrance::Open(listener), settings, counts, connections: JoinSet::new() }
    }

    pub(super) async fn run(mut self, mut orders: mpsc::Receiver<Order>) {
        loop {
            tokio::select! {
                order = orders.recv() => match order {
                    // Whoever gave the order may have stopped waiting for it.
                    Some((fault, done)) => drop(done.send(self.set(fault).await)),
                    None => return,
                },
                stream = self.port.accept() => self.enter(stream),
                Some(_) = self.connections.join_next() => {}
            }
        }
    }

    async fn set(&mut self, fault: Fault) -> Result<(), TestkitError> {
        let closed = matches!(fault, Fault::Refuse | Fault::Ignore);
        if closed || !matches!(self.port, Entrance::Open(_)) {
            // Nobody else may have the port while it is taken again.
            self.port = Entrance::Closed;
            self.port = self.entrance(fault).await.map_err(TestkitError::while_("opening the proxy's port again"))?;
        }
        self.settings.send_modify(|now| *now = Setting { fault, number: now.number + 1, cut: false });
        Ok(())
    }

    async fn entrance(&self, fault: Fault) -> io::Result<Entrance> {
        match fault {
            Fault::Refuse => Ok(Entrance::Closed),
            Fault::Ignore => Entrance::full(self.addr).await,
            _ => Ok(Entrance::Open(listen(self.addr, BACKLOG)?)),
        }
    }

    fn enter(&mut self, stream: TcpStream) {
        self.counts.accepted.fetch_add(1, Ordering::Relaxed);
        let open = Open::count(&self.counts);
        let connection = Connection::new(self.settings.clone(), self.upstream);
        self.connections.spawn(async move {
            connection.serve(stream).await;
            drop(open);
        });
    }
}

impl Entrance {
    /// Fills the queue until connecting is not answered any more.
    async fn full(addr: SocketAddr) -> io::Result<Self> {
        let listener = listen(addr, 0)?;
        let mut queue = Vec::new();
        while let Ok(stream) = timeout(UNANSWERED, TcpStream::connect(addr)).await {
            queue.push(stream?);
        }
        Ok(Self::Full((listener, queue)))
    }

    /// The next connection; none for ever while the port is not open.
    async fn accept(&self) -> TcpStream {
        let Self::Open(listener) = self else { return std::future::pending().await };
        loop {
            match listener.accept().await {
                Ok((stream, _)) => return stream,
                // It was reset before it could be accepted, or files have run out: others may still come.
                Err(_) => sleep(Duration::from_millis(10)).await,
            }
        }
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

pub(super) fn loopback(port: &Port) -> SocketAddr {
    (Ipv4Addr::LOCALHOST, port.number()).into()
}

fn listen(addr: SocketAddr, backlog: u32) -> io::Result<TcpListener> {
    let socket = TcpSocket::new_v4()?;
    socket.set_reuseaddr(true)?;
    socket.bind(addr)?;
    socket.listen(backlog)
}

pub(super) fn listen_anywhere() -> Result<(Port, TcpListener), TestkitError> {
    let mut tries = 5;
    loop {
        let port = Port::reserve()?;
        tries -= 1;
        match listen(loopback(&port), BACKLOG) {
            Ok(listener) => return Ok((port, listener)),
            Err(_) if tries > 0 => {}
            Err(error) => return Err(TestkitError::caused("opening a port for the proxy", error)),
        }
    }
}
