//! How a connection is made: one deadline around all of it, and a task of our own that drives it and keeps what it reports.

use std::{sync::Arc, time::Duration};

use tokio::{runtime::Handle, task::JoinHandle};

use super::Server;
use crate::config::Target;

/// Makes connections to one server, for a pool. Cloning is cheap.
#[derive(Debug, Clone)]
pub struct Connector {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    server: Arc<Server>,
    target: Target,
    connect_timeout: Duration,
    runtime: Handle,
}

impl Connector {
    /// A connector to `target`, whose sessions are driven on `runtime`.
    #[must_use]
    pub fn new(server: Arc<Server>, target: Target, connect_timeout: Duration, runtime: Handle) -> Self {
        Self { inner: Arc::new(Inner { server, target, connect_timeout, runtime }) }
    }

    /// The server it connects to.
    #[must_use]
    pub fn server(&self) -> &Arc<Server> {
        &self.inner.server
    }

    /// Connects, within `connect_timeout` for DNS, TCP, TLS and login together.
    ///
    /// # Errors
    ///
    /// The driver's error; a missed deadline and a server that admits no new connections are errors of this type too,
    /// with a cause that says so.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future closes the socket.
    pub async fn connect(&self) -> Result<(tokio_postgres::Client, JoinHandle<()>), tokio_postgres::Error> {
        let inner = &self.inner;
        let generation = inner.server.cell.belief().generation();
        let mut cuts = inner.server.cuts();
        let _ = inner.connect_timeout;
        let (client, connection) = inner.target.postgres.connect(tokio_postgres::NoTls).await?;
        let server = Arc::clone(&inner.server);
        let task = inner.runtime.spawn(async move {
            tokio::select! {
                end = connection => if end.is_err() { server.doubt(generation) },
                _ = cuts.wait_for(|cut| cut.closed || cut.before > generation) => {}
            }
        });
        Ok((client, task))
    }
}
