//! How a cluster is asked for.

use std::time::Duration;

use secrecy::SecretString;

use super::cluster::Cluster;
use super::settings::{Settings, Tls};
use super::{TestkitError, cluster};

/// A cluster to be started; made by [`Cluster::builder`].
#[derive(Clone, Debug)]
pub struct ClusterBuilder {
    settings: Settings,
}

impl ClusterBuilder {
    pub(super) fn new() -> Self {
        Self {
            settings: Settings {
                replicas: 0,
                max_connections: 100,
                all: Vec::new(),
                primary: Vec::new(),
                replica: Vec::new(),
                user: "postgres".to_owned(),
                password: None,
                database: "postgres".to_owned(),
                hba: Vec::new(),
                tls: None,
                deadline: Duration::from_secs(30),
            },
        }
    }

    /// How many streaming replicas to start besides the primary; default 0.
    #[must_use]
    pub fn replicas(mut self, count: usize) -> Self {
        self.settings.replicas = count;
        self
    }

    /// PostgreSQL's `max_connections` on all servers; default 100.
    #[must_use]
    pub fn max_connections(mut self, count: u32) -> Self {
        self.settings.max_connections = count;
        self
    }

    /// A postgresql.conf setting for all servers; the value needs no quotes.
    #[must_use]
    pub fn setting(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.settings.all.push((name.into(), value.into()));
        self
    }

    /// A postgresql.conf setting for the primary alone.
    #[must_use]
    pub fn primary_setting(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.settings.primary.push((name.into(), value.into()));
        self
    }

    /// A postgresql.conf setting for the replicas alone.
    #[must_use]
    pub fn replica_setting(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.settings.replica.push((name.into(), value.into()));
        self
    }

    /// The user in the URLs, made at the start without special rights; default `postgres`, the superuser.
    #[must_use]
    pub fn user(mut self, name: impl Into<String>) -> Self {
        self.settings.user = name.into();
        self
    }

    /// The user's password: TCP connections must then log in by SCRAM. Default: none, and any local user is trusted.
    #[must_use]
    pub fn password(mut self, password: impl Into<String>) -> Self {
        self.settings.password = Some(SecretString::from(password.into()));
        self
    }

    /// The database in the URLs, made at the start and owned by the user; default `postgres`.
    #[must_use]
    pub fn database(mut self, name: impl Into<String>) -> Self {
        self.settings.database = name.into();
        self
    }

    /// A pg_hba.conf line that goes before the one that lets everybody in, such as `hostnossl all all 127.0.0.1/32 reject`.
    #[must_use]
    pub fn hba(mut self, line: impl Into<String>) -> Self {
        self.settings.hba.push(line.into());
        self
    }

    /// Turns TLS on with this certificate and key, both PEM. The PostgreSQL found has to be built with TLS.
    #[must_use]
    pub fn tls(mut self, certificate: impl Into<String>, key: impl Into<String>) -> Self {
        self.settings.tls = Some(Tls { certificate: certificate.into(), key: key.into() });
        self
    }

    /// How long each operation on a server may take; default 30 s.
    #[must_use]
    pub fn deadline(mut self, deadline: Duration) -> Self {
        self.settings.deadline = deadline;
        self
    }

    /// Starts the servers and waits until all answer and the replicas stream.
    ///
    /// # Errors
    ///
    /// When there is no PostgreSQL, or when a server does not come up; the text ends with what the server logged.
    ///
    /// # Cancel safety
    ///
    /// What was started is ended, and its directory removed; what is on its way as soon as it is there.
    pub async fn start(self) -> Result<Cluster, TestkitError> {
        cluster::start(self.settings).await
    }
}
