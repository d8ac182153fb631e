//! A handle to one alias: it stands where a pool stood.

use std::{fmt, future::Future, sync::Arc};

use super::{DefaultBackend, Inner, error::Error, lease::Lease, line::Line};
use crate::{config::AliasName, plan::Plan, pool::Backend};

/// A handle to one alias of a router. Resolved once; cloning is cheap, and each clone keeps the router running.
pub struct Alias<B: Backend = DefaultBackend> {
    pub(super) line: Arc<Line<B>>,
    pub(super) router: Arc<Inner<B>>,
}

impl<B: Backend> Alias<B> {
    /// Takes a connection: from the alias's own server, or, while that is out, from the first usable one of its failover chain.
    ///
    /// Where a connect is refused before anything was sent, the same call goes on to the next server of the plan.
    ///
    /// # Errors
    ///
    /// [`Error::is_overloaded`] when no connection came free within `acquire_timeout` (default 5 s);
    /// [`Error::is_unavailable`], at once, when no server of the plan is usable; [`Error::retry_after`] says of both when to come back;
    /// [`Error::is_late`] when it had to wait and a [deadline](crate::Router::with_deadline) around it passed.
    ///
    /// # Cancel safety
    ///
    /// Cancel safe: a dropped call takes no connection.
    pub fn get(&self) -> impl Future<Output = Result<Lease<B>, Error>> + Send {
        // Not a future around a future: each would move the connection once more.
        self.line.get(&self.router)
    }

    /// The alias that declares the server to which a request would go now; `None` when there is no usable one.
    ///
    /// This is the routing decision alone: a few atomic loads.
    #[must_use]
    pub fn target(&self) -> Option<AliasName> {
        let of = |line: &Line<B>| line.route.plan().next().map(|choice| choice.candidate.server.name.clone());
        if self.line.is_retired() {
            return self.router.line(self.line.name.as_str()).ok().and_then(|line| of(&line));
        }
        of(&self.line)
    }

    /// Where a request would go now, and why. After a shutdown: as it was last.
    #[must_use]
    pub fn explain(&self) -> Plan {
        self.router.line(self.line.name.as_str()).map_or_else(|_| self.line.explain(), |line| line.explain())
    }

    /// Tells the router about an error the application saw, for the server to which requests go now. If it speaks against the
    /// server it asks for a ping, which all reports share and which goes out without anybody who waits, also with on-demand
    /// monitoring; that is all it can do. True if it did.
    ///
    /// [`Lease::report`] is more exact where the lease is at hand. Connections that are lost report themselves.
    pub fn report(&self, error: &(dyn std::error::Error + 'static)) -> bool {
        let Ok(line) = self.router.line(self.line.name.as_str()) else { return false };
        // All servers of a router judge errors alike; one that is out asks for no ping.
        let chosen = line.route.plan().next().map(|choice| choice.candidate);
        let Some(server) = chosen.or_else(|| line.route.own().first()).map(|stop| &stop.server) else { return false };
        let asks = server.is_accused_by_error(error);
        if asks {
            server.doubt(server.cell.belief().generation());
            self.router.urge();
        }
        asks
    }

    /// The name.
    #[must_use]
    pub fn name(&self) -> &AliasName {
        &self.line.name
    }
}

impl<B: Backend> Clone for Alias<B> {
    fn clone(&self) -> Self {
        Self { line: Arc::clone(&self.line), router: Arc::clone(&self.router) }
    }
}

impl<B: Backend> fmt::Debug for Alias<B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Alias").field("name", &self.line.name).finish_non_exhaustive()
    }
}
