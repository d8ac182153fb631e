//! What else does an application depend on, and does it answer? The [`Service`] trait, and those that come ready made.
//!
//! A service is watched as a server is: the same states, the same three frequencies, one record when an outage opens and one when it
//! closes. What requests do meanwhile is the application's: a [`Switch`](crate::Switch), or [`Service::failover`].

mod amqp;
mod error;
mod http;
mod memcached;
mod redis;
mod tcp;
mod wire;

use std::{future::Future, pin::Pin, sync::Arc, time::Duration};

pub use self::{amqp::Amqp, error::ServiceError, http::Http, memcached::Memcached, redis::Redis, tcp::Tcp};
use crate::{
    config::{Pings, ServiceConfig, ServiceKind},
    pool::TlsError,
};

/// Something an application depends on: a cache, a queue, another team's API.
///
/// [`Router::register`](crate::Router::register) has it watched. Pings are sent from a thread of the router's own, so that a busy
/// application's late timers never look like an outage; no method may block it (`tokio::task::spawn_blocking` is for that). One that
/// panics or hangs hurts nobody: it is ended by its timeout, and told.
///
/// ```
/// use pgdetour::service::{Service, ServiceError};
///
/// /// Renders invoices.
/// struct Renderer;
///
/// impl Service for Renderer {
///     fn name(&self) -> &str {
///         "renderer"
///     }
///
///     // Without a `ping` of its own it has to take a connection here.
///     fn address(&self) -> String {
///         "10.0.0.7:9000".to_owned()
///     }
///
///     async fn failover(&self) -> Result<(), ServiceError> {
///         println!("invoices are rendered tonight");
///         Ok(())
///     }
/// }
/// ```
pub trait Service: Send + Sync + 'static {
    /// What it is called in events, in the log and by [`Router::switch_on_service`](crate::Router::switch_on_service): as an alias
    /// is, `[a-z][a-z0-9_-]{0,31}`, and no alias may have the same name. Asked for once.
    fn name(&self) -> &str;

    /// `host:port`: the log's field `server`, so no place for a password, and where the default ping connects to. For the former it is asked once.
    fn address(&self) -> String;

    /// What it is, in one word. Default `service`.
    fn kind(&self) -> &str {
        "service"
    }

    /// Asks it whether it is well. It may be asked again while it has not answered. After `within` it is taken for silent, and the
    /// future is dropped. Default: it takes a TCP connection at its [`address`](Self::address).
    ///
    /// # Errors
    ///
    /// Whatever implements [`std::error::Error`] speaks against it; [`ServiceError::inconclusive`] does not, which is for a login
    /// that is refused or a lack of room.
    ///
    /// # Cancel safety
    ///
    /// Must be cancel safe.
    fn ping(&self, within: Duration) -> impl Future<Output = Result<(), ServiceError>> + Send {
        // It is cut after that anyway.
        let _ = within;
        async { wire::connect(&self.address()).await.map(drop) }
    }

    /// Called once when its outage opens, after the [`Switch`](crate::Switch)es on it have flipped and the event was told. Default: does nothing.
    ///
    /// # Errors
    ///
    /// They are told as [`HookFailed`](crate::EventKind::HookFailed), and it is not called again for this outage.
    ///
    /// # Cancel safety
    ///
    /// It is dropped only when it takes longer than [`hook_timeout`](Self::hook_timeout).
    fn failover(&self) -> impl Future<Output = Result<(), ServiceError>> + Send {
        async { Ok(()) }
    }

    /// Called once when that outage closes, whatever became of [`failover`](Self::failover), and not before that has ended. Default:
    /// does nothing.
    ///
    /// # Errors
    ///
    /// As those of `failover`.
    ///
    /// # Cancel safety
    ///
    /// As `failover`.
    fn recover(&self) -> impl Future<Output = Result<(), ServiceError>> + Send {
        async { Ok(()) }
    }

    /// How it is pinged; `router` is what stands at the top of the configuration. Asked for when it is registered and at each reload.
    /// Default: as that.
    fn pings(&self, router: &Pings) -> Pings {
        router.clone()
    }

    /// How long `failover` and `recover` may take, each. Default 10 s.
    fn hook_timeout(&self) -> Duration {
        Duration::from_secs(10)
    }
}

/// A future of a service's, whichever it is.
type Boxed<'a> = Pin<Box<dyn Future<Output = Result<(), ServiceError>> + Send + 'a>>;

/// [`Service`] for many of different types.
pub(crate) trait AnyService: Send + Sync {
    fn name(&self) -> &str;
    fn address(&self) -> String;
    fn kind(&self) -> &str;
    fn ping(&self, within: Duration) -> Boxed<'_>;
    fn failover(&self) -> Boxed<'_>;
    fn recover(&self) -> Boxed<'_>;
    fn pings(&self, router: &Pings) -> Pings;
    fn hook_timeout(&self) -> Duration;
}

impl<S: Service> AnyService for S {
    fn name(&self) -> &str {
        Service::name(self)
    }

    fn address(&self) -> String {
        Service::address(self)
    }

    fn kind(&self) -> &str {
        Service::kind(self)
    }

    fn ping(&self, within: Duration) -> Boxed<'_> {
        Box::pin(Service::ping(self, within))
    }

    fn failover(&self) -> Boxed<'_> {
        Box::pin(Service::failover(self))
    }

    fn recover(&self) -> Boxed<'_> {
        Box::pin(Service::recover(self))
    }

    fn pings(&self, router: &Pings) -> Pings {
        Service::pings(self, router)
    }

    fn hook_timeout(&self) -> Duration {
        Service::hook_timeout(self)
    }
}

/// The service that a configuration declares.
///
/// # Errors
///
/// When it cannot be protected as it asks for.
pub(crate) fn ready_made(declared: &ServiceConfig) -> Result<Arc<dyn AnyService>, TlsError> {
    let name = declared.name.to_string();
    Ok(match &declared.kind {
        ServiceKind::Tcp(endpoint) => Arc::new(Tcp::at(name, endpoint.clone())),
        ServiceKind::Memcached(nodes) => Arc::new(Memcached::at(name, nodes.clone())),
        ServiceKind::Redis(endpoint) => Arc::new(Redis::at(name, endpoint.clone())?),
        ServiceKind::Amqp(endpoint) => Arc::new(Amqp::at(name, endpoint.clone())?),
        ServiceKind::Http { endpoint, status } => Arc::new(Http::at(name, endpoint.clone(), *status)?),
    })
}
