//! A primary and its replicas.

use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use super::TestkitError;
use super::builder::ClusterBuilder;
use super::ground::{Plot, make_dir};
use super::port::Port;
use super::server::{Host, Server};
use super::settings::{Settings, Site};

/// How often a server is moved to another port when somebody was quicker.
const PORTS_TO_TRY: usize = 5;

/// A primary and its streaming replicas on free ports of 127.0.0.1, all of it in a temporary directory.
///
/// When it is dropped, the servers end and the directory is removed: in any state, frozen ones too, also while a test panics. When the whole
/// process ends without dropping it, a guard process of the test kit does the same.
#[derive(Debug)]
pub struct Cluster {
    // In this order: the servers end before their directory goes.
    primary: Server,
    replicas: Vec<Server>,
    host: Arc<Host>,
}

impl Cluster {
    /// A cluster to be configured; without more, a primary alone.
    #[must_use]
    pub fn builder() -> ClusterBuilder {
        ClusterBuilder::new()
    }

    /// A primary and that many streaming replicas.
    ///
    /// # Errors
    ///
    /// Those of [`ClusterBuilder::start`].
    ///
    /// # Cancel safety
    ///
    /// As that of [`ClusterBuilder::start`].
    pub async fn start(replicas: usize) -> Result<Self, TestkitError> {
        Self::builder().replicas(replicas).start().await
    }

    /// The server that was started as the primary.
    #[must_use]
    pub fn primary(&self) -> &Server {
        &self.primary
    }

    /// The replica of that number, counted from 0.
    ///
    /// # Panics
    ///
    /// When there are not that many.
    #[must_use]
    pub fn replica(&self, number: usize) -> &Server {
        &self.replicas[number]
    }

    /// All replicas, in order.
    #[must_use]
    pub fn replicas(&self) -> &[Server] {
        &self.replicas
    }

    /// Waits until each replica that runs and still is one has replayed all that the primary has written up to now.
    ///
    /// # Errors
    ///
    /// When the primary does not answer, or when a replica has not caught up within the cluster's deadline.
    ///
    /// # Cancel safety
    ///
    /// Cancel safe: it only asks.
    pub async fn wait_for_replay(&self) -> Result<(), TestkitError> {
        let written = self.primary.query_one("SELECT pg_current_wal_insert_lsn()").await?;
        for replica in self.replicas.iter().filter(|replica| replica.is_running()) {
            replica.wait_for_replay(&written).await?;
        }
        Ok(())
    }

    async fn wait_for_streaming(&self) -> Result<(), TestkitError> {
        let sql = "SELECT count(*) FROM pg_stat_replication WHERE state = 'streaming'";
        let all = self.replicas.len().to_string();
        let streaming = async {
            while self.primary.query_one(sql).await? != all {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
            Ok(())
        };
        self.host.bounded("waiting for the replicas to stream", streaming).await
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        // All at once; each then waits for its own end when its turn to be dropped comes.
        for server in self.replicas.iter().chain([&self.primary]) {
            server.ask_to_end();
        }
    }
}

/// Starts what the builder describes.
pub(super) async fn start(settings: Settings) -> Result<Cluster, TestkitError> {
    let replicas = settings.replicas;
    let host = blocking(move || Host::new(Plot::claim()?, settings)).await?;
    let primary = launch(&host, "primary".to_owned(), None).await?;
    let mut cluster = Cluster { primary, replicas: Vec::new(), host };
    for statement in cluster.host.settings.statements() {
        cluster.primary.prepare(&statement).await?;
    }
    let port = cluster.primary.port();
    let starting: Vec<_> = (0..replicas)
        .map(|number| {
            let host = Arc::clone(&cluster.host);
            tokio::spawn(async move { launch(&host, format!("replica{number}"), Some(port)).await })
        })
        .collect();
    for replica in starting {
        let replica = replica.await.map_err(TestkitError::while_("starting a replica"))??;
        cluster.replicas.push(replica);
    }
    cluster.wait_for_streaming().await?;
    cluster.wait_for_replay().await?;
    Ok(cluster)
}

/// Makes one server from the template and starts it.
async fn launch(host: &Arc<Host>, name: String, primary: Option<u16>) -> Result<Server, TestkitError> {
    let mut tries = PORTS_TO_TRY;
    let (owned_host, owned_name) = (Arc::clone(host), name.clone());
    let data = blocking(move || make_data(&owned_host, &owned_name, primary)).await?;
    loop {
        let server = Server::new(Arc::clone(host), name.clone(), data.clone(), Port::reserve()?);
        tries -= 1;
        match server.start().await {
            Ok(()) => return Ok(server),
            Err(_) if tries > 0 && server.lost_its_port() => {}
            Err(error) => return Err(error),
        }
    }
}

/// Copies the template and configures the copy. Blocks.
fn make_data(host: &Host, name: &str, primary: Option<u16>) -> Result<PathBuf, TestkitError> {
    let home = host.plot.dir.join(name);
    make_dir(&home, 0o711)?;
    let data = home.join("data");
    let copied = Command::new("cp").arg("-Rp").arg(&host.plot.template).arg(&data).stdin(Stdio::null()).output();
    let copied = copied.map_err(TestkitError::while_("copying the template"))?;
    if !copied.status.success() {
        let said = String::from_utf8_lossy(&copied.stderr).into_owned();
        return Err(TestkitError::caused("copying the template failed", said));
    }
    let follows = primary.map(|port| (port, name));
    host.settings.write(&Site { data: &data, sockets: &host.sockets, account: host.plot.account, follows })?;
    Ok(data)
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, TestkitError> + Send + 'static,
) -> Result<T, TestkitError> {
    tokio::task::spawn_blocking(work).await.map_err(TestkitError::while_("preparing a server"))?
}
