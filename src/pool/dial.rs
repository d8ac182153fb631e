//! How is one server reached? Target in, connection out, with every byte passing the tap and one deadline around all of it.

use std::{convert::Infallible, fmt, future::Future, io, pin::Pin, sync::Arc, time::Duration};

use tokio::time::timeout;
use tokio_postgres::{
    CancelToken, Client, Connection, Error, Socket,
    config::{Host, SslMode, SslNegotiation},
    tls::{MakeTlsConnect, TlsConnect},
};

use super::{
    connect::ConnectFailure,
    tap::{Tap, Tapped},
    tls::{Secured, Security, TlsError},
};
use crate::config::{Target, Tls};

/// How to reach one server, certificates read and settings checked. Cloning is cheap.
#[derive(Clone)]
pub struct Dial {
    inner: Arc<Inner>,
}

struct Inner {
    postgres: tokio_postgres::Config,
    security: Security,
    address: String,
}

/// The driver's connection as we drive it.
pub(crate) type Wire = Connection<Socket, Tapped<Secured>>;

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
        let local = postgres.get_hosts().iter().filter(|host| matches!(host, Host::Unix(_))).count();
        let security = match target.tls {
            // Unix sockets have no TLS: sslmode is ignored for them, as it is by libpq.
            _ if local > 0 && local == postgres.get_hosts().len() => Security::Plain,
            Tls::Disable => Security::Plain,
            _ if local > 0 => return Err(TlsError::new("some hosts are Unix sockets, which have no TLS")),
            ref tls => Security::new(tls, postgres.get_ssl_negotiation() == SslNegotiation::Direct)?,
        };
        if local > 0 {
            // The driver does no "TLS" without a host name, and so shows us no stream: the tap stays dry.
            postgres.ssl_mode(SslMode::Disable);
        } else {
            // Never `prefer`: it goes on in plain text when the server says no.
            postgres.ssl_mode(SslMode::Require);
            if security.is_plain() {
                // "Direct" TLS sends nothing before the handshake, and ours is none: a way into the driver's stream that
                // leaves it the address, which `connect_raw` loses and a cancel request needs.
                postgres.ssl_negotiation(SslNegotiation::Direct);
            }
        }
        Ok(Self { inner: Arc::new(Inner { postgres, security, address: target.address() }) })
    }

    /// Connects, within `within` for DNS, TCP, TLS and login together.
    ///
    /// # Errors
    ///
    /// The driver's; a missed deadline is one with [`ConnectFailure::TimedOut`] as its cause.
    pub(crate) async fn connect(&self, within: Duration) -> Result<Dialed, Error> {
        let tap = Tap::default();
        let wrap = Wrap { security: self.inner.security.clone(), tap: tap.clone() };
        match timeout(within, self.inner.postgres.connect(wrap)).await {
            Ok(connected) => connected.map(|(client, wire)| Dialed { client, wire, tap }),
            Err(_) => Err(ConnectFailure::TimedOut { after: within }.into_driver_error().await),
        }
    }

    /// What cancels the statement that runs on a connection made by this dial.
    pub(crate) fn cancel(&self, client: &Client, within: Duration) -> Cancel {
        Cancel { token: client.cancel_token(), dial: self.clone(), within }
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
pub struct Cancel {
    token: CancelToken,
    dial: Dial,
    within: Duration,
}

impl Cancel {
    /// Sends the request, protected as the connection itself is. The server does not say whether there was anything to
    /// cancel, and the request may overtake the statement or come after it: do not lend the connection again.
    ///
    /// # Errors
    ///
    /// When the server could not be reached within the connector's `connect_timeout`.
    pub async fn cancel(&self) -> Result<(), Error> {
        let wrap = Wrap { security: self.dial.inner.security.clone(), tap: Tap::default() };
        match timeout(self.within, self.token.cancel_query(wrap)).await {
            Ok(sent) => sent,
            Err(_) => Err(ConnectFailure::TimedOut { after: self.within }.into_driver_error().await),
        }
    }
}

impl fmt::Debug for Cancel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Cancel").field("dial", &self.dial).finish_non_exhaustive()
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
