//! The services of a router: registered here or declared in its configuration, and watched beside its servers.

use std::{error::Error as StdError, sync::Arc};

use arc_swap::ArcSwap;

use super::{Error, Inner, Router, topology::Build};
use crate::{
    config::{AliasName, Config, OutageErrors},
    monitor::{Draft, Misfit, ServiceState, WatchedService},
    pool::Backend,
    service::{AnyService, Service},
};

/// A handle to one service that is watched. Cloning is cheap. It keeps neither the router running nor the service registered.
#[derive(Debug, Clone)]
pub struct ServiceHandle {
    watched: Arc<WatchedService>,
    errors: Arc<ArcSwap<OutageErrors>>,
}

impl ServiceHandle {
    /// Its name.
    #[must_use]
    pub fn name(&self) -> &AliasName {
        self.watched.name()
    }

    /// Whether an outage is open, or it is watched no more: an atomic load, no lock, no clock.
    #[must_use]
    pub fn is_out(&self) -> bool {
        self.watched.is_out()
    }

    /// What is known of it now, and why. When it is watched no more: as it was last.
    #[must_use]
    pub fn explain(&self) -> ServiceState {
        self.watched.state()
    }

    /// Tells the router about an error that the application saw of this service. It asks for a ping, which all reports share: at most
    /// one per `error_ping_frequency`. That is all it can do. What `classify_errors` holds harmless asks for none. True if it asked.
    pub fn report(&self, error: &(dyn StdError + 'static)) -> bool {
        let asks = self.errors.load().of_error(error).unwrap_or(true);
        if asks {
            self.watched.doubt();
        }
        asks
    }
}

impl<B: Backend> Router<B> {
    /// Has a service watched: its pings begin at once, its outages are events and log records like those of servers. Returns when it has
    /// been pinged once, within its `ping_timeout`; that it is out is no error. It stays over reloads, with an outage that is open,
    /// until [`Self::deregister`].
    ///
    /// An outage that is open at a reload goes on: nothing is called twice. Where an outage is open at the end of the router, `recover` is
    /// not called, since nothing has recovered; what was told before is followed by its hook, for which [`Self::shutdown`] waits.
    ///
    /// ```no_run
    /// # async fn example(router: pgdetour::Router) -> Result<(), Box<dyn std::error::Error>> {
    /// use pgdetour::service::Memcached;
    ///
    /// let cache = router.register(Memcached::new("cache", ["10.0.0.1", "10.0.0.2"])?).await?;
    /// let ttl = router.switch_on_service("cache", 60, 0)?;
    /// println!("{}; entries live for {} s", cache.explain(), ttl.get());
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    ///
    /// A name that is none or is taken by an alias or a service, frequencies that make no sense, a router that is shut down, or a
    /// thread that cannot be started.
    ///
    /// # Cancel safety
    ///
    /// A dropped call may have registered it.
    pub async fn register(&self, service: impl Service) -> Result<ServiceHandle, Error> {
        let service: Arc<dyn AnyService> = Arc::new(service);
        let watched = {
            let _one = self.inner.reloading.lock().await;
            let topology = self.inner.topology.load();
            if topology.is_closed() {
                return Err(Error::closed());
            }
            let pings = service.pings(topology.config.pings());
            let name = topology.config.admit(service.name(), &pings)?;
            let monitoring = topology.config.monitoring();
            let registered = self.inner.services.register(name.clone(), service, &pings, monitoring);
            registered.map_err(Error::thread)?.ok_or_else(|| Config::already_registered(&name))?
        };
        watched.settled().await;
        Ok(self.inner.handle(watched))
    }

    /// Has a service that was registered watched no more. Its `recover` is not called, and nothing is told of its outage. False if it is
    /// not there, or comes from the configuration.
    pub fn deregister(&self, name: &str) -> bool {
        self.inner.services.deregister(name)
    }

    /// A handle to the service of this name, registered or declared.
    ///
    /// # Errors
    ///
    /// When there is none; the error names the nearest.
    pub fn service(&self, name: &str) -> Result<ServiceHandle, Error> {
        let found = self.inner.services.get(name);
        let known = || self.services().into_iter().map(|state| state.name).collect();
        found.map(|watched| self.inner.handle(watched)).ok_or_else(|| Error::unknown("service", name, known()))
    }

    /// What is known of every service now, in the order in which they came. After a shutdown: as it was last.
    #[must_use]
    pub fn services(&self) -> Vec<ServiceState> {
        self.inner.services.states()
    }

    /// Tells the router about an error of a service: [`ServiceHandle::report`] by name. False too if there is no such service.
    pub fn report_service(&self, name: &str, error: &(dyn StdError + 'static)) -> bool {
        self.inner.services.get(name).is_some_and(|watched| self.inner.handle(watched).report(error))
    }
}

impl<B: Backend> Inner<B> {
    fn handle(&self, watched: Arc<WatchedService>) -> ServiceHandle {
        ServiceHandle { watched, errors: Arc::clone(self.services.errors()) }
    }

    /// Whether a service is out, however often it was declared anew meanwhile.
    pub(super) fn is_out(&self, service: &WatchedService) -> bool {
        match service.is_gone() {
            true => self.services.get(service.name().as_str()).is_none_or(|watched| watched.is_out()),
            false => service.is_out(),
        }
    }
}

impl ServiceHandle {
    pub(super) fn watched(&self) -> &Arc<WatchedService> {
        &self.watched
    }
}

impl<B> Build<B> {
    /// Whether the monitor is a task among the others.
    pub(super) fn is_here(&self) -> bool {
        #[cfg(feature = "testkit")]
        if self.streams.is_some() {
            return true;
        }
        false
    }
}

/// What a configuration makes of the services.
pub(super) fn draft(services: &crate::monitor::Services, config: &Config) -> Result<Draft, Error> {
    services.draft(config).map_err(|misfit| match misfit {
        Misfit::Config(error) => error.into(),
        Misfit::Tls(name, error) => Error::service(name.as_str(), error),
    })
}
