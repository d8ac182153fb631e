//! Serves the endpoints on a port of their own: connections are counted, and one on which nothing moves is closed.

use std::{
    future::Future,
    io,
    net::SocketAddr,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
    time::Duration,
};

use axum::{
    extract::connect_info::Connected,
    serve::{IncomingStream, Listener},
};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::{TcpListener, TcpStream},
    sync::{OwnedSemaphorePermit, Semaphore},
    time::{Sleep, sleep},
};

use crate::clock;

/// Connections at a time; more wait in the kernel's queue.
const MOST: usize = 512;

/// A connection on which nothing moves for this long is closed: a peer that went away, or one that holds it to no purpose.
const STILL: Duration = Duration::from_secs(60);

/// The names of the loopback: what a server there is asked for by.
#[must_use]
pub fn loopback_names() -> [&'static str; 3] {
    ["localhost", "127.0.0.1", "[::1]"]
}

/// A port on which connections are counted and the still ones closed.
#[derive(Debug)]
pub struct Listening {
    listener: TcpListener,
    places: Arc<Semaphore>,
}

impl Listening {
    /// Listens on this address.
    ///
    /// # Errors
    ///
    /// When the address is not free, or not this machine's.
    ///
    /// # Cancel safety
    ///
    /// A dropped call leaves nothing behind.
    pub async fn bind(address: SocketAddr) -> io::Result<Self> {
        Ok(Self { listener: TcpListener::bind(address).await?, places: Arc::new(Semaphore::new(MOST)) })
    }

    /// Where it listens: with the port that was given, where 0 was asked for.
    ///
    /// # Errors
    ///
    /// When the system does not say.
    pub fn address(&self) -> io::Result<SocketAddr> {
        self.listener.local_addr()
    }
}

/// Serves these endpoints until `end`, and gives the answers that are under way then a moment.
///
/// # Errors
///
/// None at present: a connection that fails ends by itself.
///
/// # Cancel safety
///
/// A dropped call listens no more; connections that are open go on.
pub async fn serve(
    listening: Listening,
    endpoints: axum::Router,
    end: impl Future<Output = ()> + Send + 'static,
) -> io::Result<()> {
    let service = endpoints.into_make_service_with_connect_info::<Peer>();
    tokio::select! {
        served = axum::serve(listening, service).into_future() => served,
        () = end => Ok(()),
    }
}

impl Listener for Listening {
    type Io = Watched;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (Watched, SocketAddr) {
        // It is never closed, so there is a permit in the end.
        let place = Arc::clone(&self.places).acquire_owned().await.ok();
        let (stream, peer) = Listener::accept(&mut self.listener).await;
        // An answer is one write: there is nothing to collect. Where it cannot be set it only takes longer.
        let _ = stream.set_nodelay(true);
        (Watched { stream, still: Box::pin(sleep(STILL)), _place: place }, peer)
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.address()
    }
}

/// Who is at the other end.
#[derive(Debug, Clone, Copy)]
pub(super) struct Peer(pub(super) SocketAddr);

impl Connected<IncomingStream<'_, Listening>> for Peer {
    fn connect_info(stream: IncomingStream<'_, Listening>) -> Self {
        Self(*stream.remote_addr())
    }
}

/// A connection that ends when nothing has moved on it for a while.
#[derive(Debug)]
pub struct Watched {
    stream: TcpStream,
    still: Pin<Box<Sleep>>,
    _place: Option<OwnedSemaphorePermit>,
}

impl Watched {
    /// What the stream says, or the end of patience with it.
    fn unless_still<T>(&mut self, cx: &mut Context<'_>, moved: Poll<io::Result<T>>) -> Poll<io::Result<T>> {
        match moved {
            Poll::Ready(moved) => {
                self.still.as_mut().reset((clock::now() + STILL).into());
                Poll::Ready(moved)
            }
            Poll::Pending => {
                ready!(self.still.as_mut().poll(cx));
                Poll::Ready(Err(io::ErrorKind::TimedOut.into()))
            }
        }
    }
}

impl AsyncRead for Watched {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let moved = Pin::new(&mut self.stream).poll_read(cx, buffer);
        self.unless_still(cx, moved)
    }
}

impl AsyncWrite for Watched {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let moved = Pin::new(&mut self.stream).poll_write(cx, bytes);
        self.unless_still(cx, moved)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let moved = Pin::new(&mut self.stream).poll_write_vectored(cx, bytes);
        self.unless_still(cx, moved)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}
