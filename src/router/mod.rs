//! The front door: the router, its aliases, and the connections they lend.

mod action;
mod alias;
mod beside;
mod call;
mod deadline;
mod error;
#[cfg(test)]
mod fake;
#[cfg(feature = "cache")]
mod fallback;
mod fate;
mod get;
mod hedge;
#[cfg(feature = "history")]
mod history;
#[cfg(feature = "cache")]
mod last_good;
mod lease;
mod line;
pub(crate) mod meter;
#[cfg(feature = "metrics")]
mod metered;
mod narrow;
#[cfg(feature = "once")]
mod once;
mod queue;
mod read;
mod recall;
mod refusal;
mod services;
mod settle;
#[cfg(feature = "sqlx")]
mod sqlx;
mod status;
mod stop;
mod switch;
mod tend;
#[cfg(test)]
mod tests;
mod topology;
mod trail;
mod transaction;
mod trigger;
mod whereabouts;
mod write;

/// What a lease and its call meet at stands on these. `tests/recall.rs` puts loom's in their place.
mod atomic {
    pub(super) use std::sync::atomic::{AtomicU64, Ordering};
}

use std::{path::Path, sync::Arc};

use arc_swap::ArcSwap;

#[cfg(feature = "cache")]
pub use self::fallback::{Fallback, Served};
#[cfg(feature = "cache")]
use self::last_good::LastGood;
#[cfg(feature = "sqlx")]
pub use self::sqlx::{SqlxTransaction, lease_error};
#[cfg(feature = "tracing-layer")]
pub(crate) use self::trigger::Reporter;
pub use self::{
    action::{ActionError, DRAIN_DEFAULT, DRAIN_LONGEST},
    alias::Alias,
    call::Attempt,
    deadline::Deadline,
    error::Error,
    lease::Lease,
    services::ServiceHandle,
    switch::Switch,
    transaction::Transaction,
};
use self::{
    line::Line,
    meter::Meter,
    topology::{Build, Topology},
};
use crate::{
    config::Config,
    monitor::{Due, Services},
    observe::{Events, Observer},
    plan::{Mode, Plan, Table},
    pool::{AcquireError, Backend, FromSpec, PoolSpec},
};

/// The back end a router has unless another is named.
#[cfg(feature = "deadpool")]
pub type DefaultBackend = crate::pool::DeadpoolPostgres;
/// The back end a router has unless another is named.
#[cfg(all(feature = "bb8", not(feature = "deadpool")))]
pub type DefaultBackend = crate::pool::Bb8Postgres;
/// No back end is built in: name yours.
#[cfg(not(any(feature = "bb8", feature = "deadpool")))]
pub type DefaultBackend = crate::pool::NoBackend;

/// Stands where a pool stood: knows which servers answer, and sends each request to one that does.
///
/// Cloning is cheap. When the last clone of the router and of its aliases is dropped, every task ends and every session is
/// closed, those on loan too.
pub struct Router<B: Backend = DefaultBackend> {
    inner: Arc<Inner<B>>,
}

struct Inner<B: Backend> {
    topology: ArcSwap<Topology<B>>,
    observer: Observer,
    /// What there is to ping.
    due: Due,
    services: Services,
    #[cfg(feature = "cache")]
    last_good: ArcSwap<LastGood>,
    #[cfg(feature = "history")]
    historian: history::Historian,
    build: Build<B>,
    #[cfg_attr(not(feature = "metrics"), allow(dead_code, reason = "nobody else asks"))]
    meter: Arc<Meter>,
    /// One reload at a time.
    reloading: tokio::sync::Mutex<()>,
}

impl<B: FromSpec> Router<B> {
    /// Starts a router from a TOML file, over which `PGDETOUR_…` environment variables go.
    ///
    /// # Errors
    ///
    /// Every mistake of the configuration at once, or a TLS setting that cannot be met. A server or service that is down is no error.
    ///
    /// # Cancel safety
    ///
    /// A dropped call leaves nothing behind.
    pub async fn from_file(path: impl AsRef<Path>) -> Result<Self, Error> {
        Self::start(Config::from_file(path)?).await
    }

    /// Starts a router. It returns when each server and each service has answered its first ping or failed to, within `ping_timeout`
    /// (default 3 s) at most; servers that are down are no error.
    ///
    /// Connections are driven on the Tokio runtime this is called in.
    ///
    /// # Errors
    ///
    /// A TLS setting that cannot be met, or a thread that cannot be started.
    ///
    /// # Cancel safety
    ///
    /// A dropped call leaves nothing behind.
    pub async fn start(config: Config) -> Result<Self, Error> {
        Self::start_with(config, B::from_spec).await
    }
}

impl<B: Backend> Router<B> {
    /// Starts a router over pools that `build` makes: one for each alias that is a server, and one for each detour. It is called
    /// again at each reload.
    ///
    /// # Errors
    ///
    /// As [`Router::start`], and what `build` returns.
    ///
    /// # Cancel safety
    ///
    /// A dropped call leaves nothing behind.
    pub async fn start_with(
        config: Config,
        build: impl Fn(PoolSpec) -> Result<B, AcquireError> + Send + Sync + 'static,
    ) -> Result<Self, Error> {
        Self::start_built(config, Build::new(build)).await
    }

    /// The same over streams that are no sockets, with the monitor in this runtime: a simulation in virtual time.
    #[cfg(feature = "testkit")]
    #[doc(hidden)]
    pub async fn start_over(
        streams: crate::pool::Streams,
        config: Config,
        build: impl Fn(PoolSpec) -> Result<B, AcquireError> + Send + Sync + 'static,
    ) -> Result<Self, Error> {
        Self::start_built(config, Build::new(build).over(streams)).await
    }

    async fn start_built(config: Config, build: Build<B>) -> Result<Self, Error> {
        let observer = Observer::default();
        let services = Services::new(observer.clone(), build.is_here());
        let draft = services::draft(&services, &config)?;
        let topology = Topology::start(config, observer.clone(), &build)?;
        services.go_over(draft).map_err(Error::thread)?;
        tokio::join!(topology.monitor.settled(), services.settled());
        topology.lead();
        #[cfg(feature = "history")]
        let (historian, orders) = history::Historian::new();
        let inner = Arc::new(Inner {
            #[cfg(feature = "cache")]
            last_good: ArcSwap::from_pointee(LastGood::of_size(topology.config.cache_size())),
            due: topology.shared.due.clone(),
            topology: ArcSwap::from_pointee(topology),
            observer,
            #[cfg(feature = "history")]
            historian,
            services,
            meter: Arc::clone(&build.meter),
            build,
            reloading: tokio::sync::Mutex::new(()),
        });
        #[cfg(feature = "history")]
        orders.begin(&inner);
        Ok(Self { inner })
    }

    /// The alias of this name. Resolve it once and keep it.
    ///
    /// # Errors
    ///
    /// When there is none; the error names the nearest.
    pub fn alias(&self, name: &str) -> Result<Alias<B>, Error> {
        Ok(Alias { line: self.inner.line(name)?, router: Arc::clone(&self.inner) })
    }

    /// Where a request for this alias would go now, and why.
    ///
    /// # Errors
    ///
    /// When there is no such alias.
    pub fn explain(&self, alias: &str) -> Result<Plan, Error> {
        Ok(self.inner.line(alias)?.explain())
    }

    /// What is known of every server now.
    #[must_use]
    pub fn table(&self) -> Arc<Table> {
        self.inner.topology.load().shared.table.load_full()
    }

    /// How much of the application's work is possible now. After a shutdown: nothing.
    ///
    /// It is read off the table: no lock, no clock, no wait. When it changes there is an
    /// [`EventKind::ModeChanged`](crate::EventKind::ModeChanged).
    #[must_use]
    pub fn mode(&self) -> Mode {
        self.inner.topology.load().mode()
    }

    /// The configuration it runs: to reload it changed, build another and give that to [`Router::reload`].
    #[must_use]
    pub fn config(&self) -> Arc<Config> {
        Arc::clone(&self.inner.topology.load().config)
    }

    /// The events from now on. A receiver that is slow misses the oldest and slows nobody.
    #[must_use]
    pub fn events(&self) -> Events {
        self.inner.observer.events()
    }

    /// Goes over to another configuration. Handles follow; leases that are out are finished on their old connections. A server that
    /// keeps its alias and address keeps its outage, its breaker and what was counted of its calls; an alias that keeps its
    /// `retry_budget` and `max_size` keeps what is left of its retries, and one whose servers stay what it knows of their latency. Pools are
    /// made anew.
    ///
    /// # Errors
    ///
    /// As [`Router::start`]. Then nothing has changed.
    ///
    /// # Cancel safety
    ///
    /// A dropped call has changed nothing, or all of it.
    pub async fn reload(&self, config: Config) -> Result<(), Error> {
        let _one = self.inner.reloading.lock().await;
        let old = self.inner.topology.load_full();
        if old.is_closed() {
            return Err(Error::closed());
        }
        let services = services::draft(&self.inner.services, &config)?;
        let topology = Arc::new(old.replaced_by(config, &self.inner.build).await?);
        topology.monitor.settled().await;
        self.inner.services.go_over(services).map_err(Error::thread)?;
        self.inner.topology.store(Arc::clone(&topology));
        let led = old.retire_for(&topology);
        topology.succeed(&old);
        #[cfg(feature = "cache")]
        if self.inner.last_good.load().size() != topology.config.cache_size() {
            self.inner.last_good.store(Arc::new(LastGood::of_size(topology.config.cache_size())));
        }
        // An error says that a shutdown was faster.
        let _ = led.await;
        self.inner.services.settled().await;
        Ok(())
    }

    /// Ends: no more requests, and every session is closed at once, those on loan too. Waits until that is so. To end
    /// gracefully, finish your requests first.
    ///
    /// # Cancel safety
    ///
    /// A dropped call goes on ending, unobserved.
    pub async fn shutdown(&self) {
        let _none = self.inner.reloading.lock().await;
        #[cfg(feature = "history")]
        self.inner.historian.flush().await;
        let topology = self.inner.topology.load_full();
        topology.close();
        self.inner.services.close();
        let inner = Arc::clone(&self.inner);
        // A task, so that it comes to its end also when nobody waits: what hooks have to tell is told.
        let told = tokio::spawn(async move {
            inner.services.closed().await;
            inner.observer.close();
        });
        topology.closed().await;
        let _ = told.await;
    }
}

impl<B: Backend> Inner<B> {
    fn line(&self, name: &str) -> Result<Arc<Line<B>>, Error> {
        let topology = self.topology.load();
        if topology.is_closed() {
            return Err(Error::closed());
        }
        let known = || topology.config.aliases().iter().map(|alias| alias.name.clone()).collect();
        topology.lines.get(name).cloned().ok_or_else(|| Error::unknown_alias(name, known()))
    }
}

impl<B: Backend> Clone for Router<B> {
    fn clone(&self) -> Self {
        Self { inner: Arc::clone(&self.inner) }
    }
}

impl<B: Backend> std::fmt::Debug for Router<B> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Router").field("topology", &**self.inner.topology.load()).finish_non_exhaustive()
    }
}
