//! What has the monitor look now: a call that is about to be made, and an error that was seen.

use std::{error::Error as StdError, future::Future, io, iter::successors};

use tokio_postgres::error::DbError;

use super::{Alias, Inner, Router, error::Error};
use crate::{
    policy::Fault,
    pool::{AcquireError, Backend, LINKS, Server},
};

/// Tells a router about an error; `None` once that is gone.
#[cfg(feature = "tracing-layer")]
pub(crate) type Reporter = Box<dyn Fn(Option<&(dyn StdError + 'static)>) -> Option<bool> + Send + Sync>;

impl<B: Backend> Router<B> {
    /// Sends the pings that are due, of services too, and waits for those that are under way.
    ///
    /// With `monitoring = "on-demand"` this is what sends pings; [`monitored`](Self::monitored) puts it before a call. With
    /// background monitoring they go out by themselves, and this waits for them.
    ///
    /// # Cancel safety
    ///
    /// Pings that have begun go on.
    pub async fn monitor(&self) {
        let servers = async {
            if self.inner.due.is_busy() {
                let topology = self.inner.topology.load_full();
                topology.monitor.run().await;
            }
        };
        tokio::join!(servers, self.inner.services.run());
    }

    /// Runs `future` after the pings that are due: with `monitoring = "on-demand"`, the trigger to put around a request or a job.
    /// All that come while a ping is under way wait for the same one. A server that answers takes a round trip; one that is silent
    /// its `ping_timeout` (default 3 s), once.
    ///
    /// With nothing due it costs two atomic loads: the monitor looks at the clock, not the caller. With background monitoring it never
    /// waits, since pings go out by themselves.
    ///
    /// ```no_run
    /// # #[cfg(feature = "deadpool")]
    /// # async fn example(router: pgdetour::Router, replica: pgdetour::Alias) -> Result<(), pgdetour::Error> {
    /// let client = router.monitored(replica.get()).await?;
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Cancel safety
    ///
    /// As the future's own. Pings that have begun go on.
    pub async fn monitored<F: Future>(&self, future: F) -> F::Output {
        if self.inner.is_due() {
            Box::pin(self.monitor()).await;
        }
        future.await
    }

    /// The same, of servers that are out alone: a call waits for none that is believed to be well, and still learns that one is back.
    ///
    /// # Cancel safety
    ///
    /// As the future's own. Pings that have begun go on.
    pub async fn recover_from_outages<F: Future>(&self, future: F) -> F::Output {
        if self.inner.due.is_recovery_due() || self.inner.services.dues().is_recovery_due() {
            Box::pin(self.recover()).await;
        }
        future.await
    }

    async fn recover(&self) {
        let servers = async {
            if self.inner.due.is_recovery_due() {
                let topology = self.inner.topology.load_full();
                topology.monitor.recover().await;
            }
        };
        tokio::join!(servers, self.inner.services.recover());
    }

    /// Tells the router about any error of the application's. If it, or a source of it, speaks against a server, that server is pinged
    /// soon, also with `monitoring = "on-demand"`, and without anybody who waits; that is all it can do. True if it asked.
    ///
    /// An [`Error`] of this crate says which server it speaks against. Any other does not: what the driver reports of the server's class, an
    /// [`io::Error`] and what [`classify_errors`](crate::config::ConfigBuilder::classify_errors) and `[outage_errors]` name speak
    /// against every server of the router. Each is pinged no more often than its `error_ping_frequency`, however many are told, and until that ping connections
    /// to it are checked before they are lent. So where the alias or the lease is known, [`Alias::report`] and
    /// [`Lease::report`](crate::Lease::report) are better.
    pub fn report(&self, error: &(dyn StdError + 'static)) -> bool {
        self.inner.report(error)
    }

    /// A future whose error [reports](Self::report) itself. For errors that are no [`std::error::Error`], such as those of `anyhow`,
    /// there is [`reporting_as`](Self::reporting_as).
    ///
    /// # Errors
    ///
    /// As the future.
    ///
    /// # Cancel safety
    ///
    /// As the future's own.
    pub async fn reporting<T, E, F>(&self, future: F) -> Result<T, E>
    where
        E: StdError + 'static,
        F: Future<Output = Result<T, E>>,
    {
        self.reporting_as(future, |error| error).await
    }

    /// The same, for an error that `view` sees as one.
    ///
    /// ```
    /// # #[cfg(feature = "deadpool")]
    /// # async fn example(router: pgdetour::Router) -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
    /// let job = async { std::fs::read("/etc/hostname").map_err(Into::into) };
    /// let name = router.reporting_as(job, |error: &Box<dyn std::error::Error + Send + Sync>| &**error).await?;
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    ///
    /// As the future.
    ///
    /// # Cancel safety
    ///
    /// As the future's own.
    pub async fn reporting_as<T, E, F>(&self, future: F, view: impl Fn(&E) -> &(dyn StdError + 'static)) -> Result<T, E>
    where
        F: Future<Output = Result<T, E>>,
    {
        let result = future.await;
        if let Err(error) = &result {
            self.report(view(error));
        }
        result
    }
}

#[cfg(any(feature = "tower", feature = "tracing-layer"))]
impl<B: Backend> Router<B> {
    /// Whether a ping is due that nobody sends unless he is asked to.
    #[cfg(feature = "tower")]
    #[inline]
    pub(crate) fn is_due(&self) -> bool {
        self.inner.is_due()
    }

    /// What reports to this router as long as it is there, and does not keep it running.
    #[cfg(feature = "tracing-layer")]
    pub(crate) fn reporter(&self) -> Reporter {
        let inner = std::sync::Arc::downgrade(&self.inner);
        Box::new(move |error| inner.upgrade().map(|inner| error.is_some_and(|error| inner.report(error))))
    }
}

impl<B: Backend> Alias<B> {
    /// A future whose error [reports](Self::report) itself: to the server to which requests of this alias go then.
    ///
    /// # Errors
    ///
    /// As the future.
    ///
    /// # Cancel safety
    ///
    /// As the future's own.
    pub async fn reporting<T, E, F>(&self, future: F) -> Result<T, E>
    where
        E: StdError + 'static,
        F: Future<Output = Result<T, E>>,
    {
        let result = future.await;
        if let Err(error) = &result {
            self.report(error);
        }
        result
    }
}

impl<B: Backend> Inner<B> {
    /// Whether a ping is due, of a server or a service, that nobody sends unless he is asked to.
    #[inline]
    fn is_due(&self) -> bool {
        self.due.is_due() || self.services.dues().is_due()
    }

    pub(super) fn report(&self, error: &(dyn StdError + 'static)) -> bool {
        let topology = self.topology.load();
        let servers = &topology.servers;
        // All servers of a router judge errors alike.
        let Some(any) = servers.first() else { return false };
        let mut asked = false;
        let mut ask = |server: &Server| {
            server.doubt(server.cell.belief().generation());
            asked = true;
        };
        match chain(error).find_map(|link| link.downcast_ref::<Error>()) {
            Some(own) => {
                let accused = own.accused(&|error| any.is_accused_by_error(error));
                servers.iter().filter(|server| accused.contains(&&server.name)).for_each(|server| ask(server));
            }
            None if accuses(error, any) => servers.iter().for_each(|server| ask(server)),
            None => {}
        }
        if asked {
            self.urge();
        }
        asked
    }

    /// Has pinged what was put in doubt, also where nobody else asks for pings.
    pub(super) fn urge(&self) {
        // After the doubt: once the monitor looks for the one it finds the other.
        if self.due.urge() {
            self.topology.load().shared.bell.notify_one();
        }
    }
}

/// Whether an error that names no server speaks against servers: by what the application says of any of its links, or by the table.
fn accuses(error: &(dyn StdError + 'static), server: &Server) -> bool {
    let known = |link: &&(dyn StdError + 'static)| {
        link.is::<tokio_postgres::Error>() || link.is::<DbError>() || link.is::<AcquireError>()
    };
    let said = chain(error).find_map(|link| server.is_accused_by_application(link));
    // What wraps an error of the driver in one of a socket hides it from its chain of sources.
    said.unwrap_or_else(|| server.is_accused_by(Fault::of(chain(error).find(known).unwrap_or(error))))
}

/// An error and its sources. What an [`io::Error`] was made of is one.
fn chain<'a>(error: &'a (dyn StdError + 'static)) -> impl Iterator<Item = &'a (dyn StdError + 'static)> {
    successors(Some(error), |error| source(*error)).take(LINKS)
}

fn source<'a>(error: &'a (dyn StdError + 'static)) -> Option<&'a (dyn StdError + 'static)> {
    match error.downcast_ref::<io::Error>().and_then(io::Error::get_ref) {
        Some(within) => Some(within),
        None => error.source(),
    }
}
