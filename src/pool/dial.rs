//! How is one server reached? Target in, connection out, with every byte passing the tap and one deadline around all of it.

use std::{convert::Infallible, fmt, future::Future, io, pin::Pin, sync::Arc, time::Duration};
#[cfg(unix)]
use std::{
    future::{Ready, ready},
    path::PathBuf,
};

#[cfg(unix)]
use tokio::net::UnixStream;
use tokio::time::timeout;
#[cfg(unix)]
use tokio_postgres::config::TargetSessionAttrs;
use tokio_postgres::{
    Client, Error, Socket,
    config::{Host, SslMode, SslNegotiation},
    tls::{MakeTlsConnect, TlsConnect},
};

#[cfg(feature = "testkit")]
use super::streams::{Stream, Streams};
use super::{
    connect::ConnectFailure,
    tap::{Tap, Tapped},
    tls::{Secured, Security, TlsError},
    wire::Wire,
};
use crate::config::{Target, Tls};

/// How to reach one server, certificates read and settings checked. Cloning is cheap.
#[derive(Clone)]
pub struct Dial {
    inner: Arc<Inner>,
}

struct Inner {
    /// As it was asked for.
    #[cfg(feature = "sqlx")]
    target: Target,
    postgres: tokio_postgres::Config,
    security: Security,
    #[cfg(unix)]
    local: Option<Local>,
    #[cfg(feature = "testkit")]
    streams: Option<Streams>,
    address: String,
}

/// A connection that was just made; `wire` has to be driven for anything to happen.
pub(crate) struct Dialed {
    pub(crate) client: Client,
    pub(crate) wire: Wire,
    pub(crate) tap: Tap,
}

impl Dial {
    /// Prepares to reach `target`. Trusted certificates are read here, once.
    ///
    /// # Errors
    ///
    /// When TLS is asked for and cannot be had: certificates that cannot be read, a build without TLS, or a list of hosts of
    /// which some are Unix sockets.
    pub fn new(target: &Target) -> Result<Self, TlsError> {
        let mut postgres = target.postgres.clone();
        name_bare_addresses(&mut postgres);
        let local = postgres.get_hosts().iter().filter(|host| is_local(host)).count();
        let security = match target.tls {
            // Unix sockets have no TLS: sslmode is ignored for them, as it is by libpq.
            _ if local > 0 && local == postgres.get_hosts().len() => Security::Plain,
            Tls::Disable => Security::Plain,
            _ if local > 0 => return Err(TlsError::new("some hosts are Unix sockets, which have no TLS")),
            ref tls => Security::new(tls, postgres.get_ssl_negotiation() == SslNegotiation::Direct)?,
        };
        if local > 0 {
            // The driver does no "TLS" without a host name, and so shows us no stream: over what it opens, the tap stays dry.
            postgres.ssl_mode(SslMode::Disable);
        } else if security.is_plain() {
            through_the_tap(&mut postgres);
        } else {
            // Never `prefer`: it goes on in plain text when the server says no.
            postgres.ssl_mode(SslMode::Require);
        }
        #[cfg(unix)]
        let local = Local::of(&postgres);
        Ok(Self {
            inner: Arc::new(Inner {
                #[cfg(feature = "sqlx")]
                target: target.clone(),
                postgres,
                security,
                #[cfg(unix)]
                local,
                #[cfg(feature = "testkit")]
                streams: None,
                address: target.address(),
            }),
        })
    }

    /// The same over streams that are no sockets: no name is looked up, and of `target` only address and login count.
    #[cfg(feature = "testkit")]
    pub(crate) fn over(target: &Target, streams: Streams) -> Self {
        let mut postgres = target.postgres.clone();
        through_the_tap(&mut postgres);
        let (security, streams, address) = (Security::Plain, Some(streams), target.address());
        let inner = Inner {
            #[cfg(feature = "sqlx")]
            target: target.clone(),
            postgres,
            security,
            #[cfg(unix)]
            local: None,
            streams,
            address,
        };
        Self { inner: Arc::new(inner) }
    }

    /// Connects, within `within` for DNS, TCP, TLS and login together.
    ///
    /// # Errors
    ///
    /// The driver's; a missed deadline is one with [`ConnectFailure::TimedOut`] as its cause.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future closes the socket.
    pub(crate) async fn connect(&self, within: Duration) -> Result<Dialed, Error> {
        match timeout(within, self.inner.connect()).await {
            Ok(connected) => connected,
            Err(_) => Err(ConnectFailure::TimedOut { after: within }.into_driver_error().await),
        }
    }

    /// What it was built from.
    #[cfg(feature = "sqlx")]
    pub(super) fn target(&self) -> &Target {
        &self.inner.target
    }

    /// What cancels the statement that runs on a connection made by this dial.
    pub(crate) fn cancel_token(&self, client: &Client, within: Duration) -> CancelToken {
        CancelToken { token: client.cancel_token(), dial: self.clone(), within }
    }
}

impl Inner {
    async fn connect(&self) -> Result<Dialed, Error> {
        let tap = Tap::default();
        #[cfg(feature = "testkit")]
        if let Some(streams) = &self.streams {
            let stream = streams.open(&self.address).await;
            let (client, connection) = self.postgres.connect_raw(stream, WrapGiven(tap.clone())).await?;
            return Ok(Dialed { client, wire: Wire::Given(connection), tap });
        }
        #[cfg(unix)]
        if let Some(local) = &self.local
            && let Ok(socket) = local.open().await
        {
            let (client, connection) = local.postgres.connect_raw(socket, WrapLocal(tap.clone())).await?;
            return Ok(Dialed { client, wire: Wire::Local(connection), tap });
        }
        // Where our own attempt at a Unix socket has failed, the driver says why.
        let wrap = Wrap { security: self.security.clone(), tap: tap.clone() };
        let (client, connection) = self.postgres.connect(wrap).await?;
        Ok(Dialed { client, wire: Wire::Driver(connection), tap })
    }

    async fn cancel(&self, token: &tokio_postgres::CancelToken) -> Result<(), Error> {
        #[cfg(feature = "testkit")]
        if let Some(streams) = &self.streams {
            return token.cancel_query_raw(streams.open(&self.address).await, WrapGiven(Tap::default())).await;
        }
        #[cfg(unix)]
        if let Some(local) = &self.local
            && let Ok(socket) = local.open().await
        {
            return token.cancel_query_raw(socket, WrapLocal(Tap::default())).await;
        }
        token.cancel_query(Wrap { security: self.security.clone(), tap: Tap::default() }).await
    }
}

impl fmt::Debug for Dial {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Inner { address, security, .. } = &*self.inner;
        f.debug_struct("Dial").field("address", address).field("security", security).finish_non_exhaustive()
    }
}

/// Asks the server to cancel the statement that runs on one connection. Unlike the driver's own token it needs no TLS
/// connector and ends within a deadline.
#[derive(Clone)]
pub struct CancelToken {
    token: tokio_postgres::CancelToken,
    dial: Dial,
    within: Duration,
}

impl CancelToken {
    /// Sends the request, protected as the connection itself is. The server does not say whether there was anything to
    /// cancel, and the request may overtake the statement or come after it: do not lend the connection again.
    ///
    /// # Errors
    ///
    /// When the server could not be reached within the connector's `connect_timeout` (default 2 s).
    ///
    /// # Cancel safety
    ///
    /// Dropping the future closes the socket; the request may have been sent.
    pub async fn cancel_query(&self) -> Result<(), Error> {
        match timeout(self.within, self.dial.inner.cancel(&self.token)).await {
            Ok(sent) => sent,
            Err(_) => Err(ConnectFailure::TimedOut { after: self.within }.into_driver_error().await),
        }
    }
}

impl fmt::Debug for CancelToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CancelToken").field("dial", &self.dial).finish_non_exhaustive()
    }
}

/// An address without a name gets itself as its name: the driver does no TLS without one.
fn name_bare_addresses(postgres: &mut tokio_postgres::Config) {
    if postgres.get_hosts().is_empty() {
        for address in postgres.get_hostaddrs().to_vec() {
            postgres.host(address.to_string());
        }
    }
}

fn is_local(host: &Host) -> bool {
    match host {
        Host::Tcp(_) => false,
        #[cfg(unix)]
        Host::Unix(_) => true,
    }
}

/// "Direct" TLS sends nothing before the handshake, and ours is none: a way into the driver's stream that leaves it the
/// address, which `connect_raw` loses and a cancel request needs.
fn through_the_tap(postgres: &mut tokio_postgres::Config) {
    postgres.ssl_mode(SslMode::Require).ssl_negotiation(SslNegotiation::Direct);
}

/// The one Unix socket of a server.
#[cfg(unix)]
struct Local {
    path: PathBuf,
    postgres: tokio_postgres::Config,
}

#[cfg(unix)]
impl Local {
    /// None where the driver has to choose: among several hosts, or by what the server lets its sessions do.
    fn of(postgres: &tokio_postgres::Config) -> Option<Self> {
        let [Host::Unix(directory)] = postgres.get_hosts() else { return None };
        let chosen_by_driver = postgres.get_target_session_attrs() != TargetSessionAttrs::Any;
        if chosen_by_driver || !postgres.get_hostaddrs().is_empty() {
            return None;
        }
        let port = postgres.get_ports().first().copied().unwrap_or(5432);
        let mut postgres = postgres.clone();
        through_the_tap(&mut postgres);
        Some(Self { path: directory.join(format!(".s.PGSQL.{port}")), postgres })
    }

    async fn open(&self) -> io::Result<UnixStream> {
        UnixStream::connect(&self.path).await
    }
}

/// Puts the tap on a Unix socket.
#[cfg(unix)]
struct WrapLocal(Tap);

#[cfg(unix)]
impl TlsConnect<UnixStream> for WrapLocal {
    type Stream = Tapped<Secured>;
    type Error = Infallible;
    type Future = Ready<Result<Tapped<Secured>, Infallible>>;

    fn connect(self, socket: UnixStream) -> Self::Future {
        ready(Ok(self.0.on(Secured::Local(socket))))
    }
}

/// Puts the tap on a stream that is no socket.
#[cfg(feature = "testkit")]
struct WrapGiven(Tap);

#[cfg(feature = "testkit")]
impl TlsConnect<Stream> for WrapGiven {
    type Stream = Tapped<Secured>;
    type Error = Infallible;
    type Future = std::future::Ready<Result<Tapped<Secured>, Infallible>>;

    fn connect(self, stream: Stream) -> Self::Future {
        std::future::ready(Ok(self.0.on(Secured::Given(stream))))
    }
}

/// Puts security and tap on the driver's sockets.
struct Wrap {
    security: Security,
    tap: Tap,
}

/// The same, for one host name.
struct WrapHost {
    security: Security,
    tap: Tap,
    host: String,
}

impl MakeTlsConnect<Socket> for Wrap {
    type Stream = Tapped<Secured>;
    type TlsConnect = WrapHost;
    type Error = Infallible;

    fn make_tls_connect(&mut self, host: &str) -> Result<WrapHost, Infallible> {
        Ok(WrapHost { security: self.security.clone(), tap: self.tap.clone(), host: host.to_owned() })
    }
}

impl TlsConnect<Socket> for WrapHost {
    type Stream = Tapped<Secured>;
    type Error = io::Error;
    type Future = Pin<Box<dyn Future<Output = io::Result<Tapped<Secured>>> + Send>>;

    fn connect(self, socket: Socket) -> Self::Future {
        Box::pin(async move { Ok(self.tap.on(self.security.secure(socket, self.host).await?)) })
    }
}
