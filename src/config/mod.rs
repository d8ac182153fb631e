//! What does the user ask for? Aliases, frequencies, pools and secrets, checked as a whole before anything starts.

mod builder;
mod chain;
mod check;
mod endpoint;
mod error;
mod history;
mod load;
mod name;
mod numbers;
mod outage;
mod raw;
mod read;
mod read_service;
mod schema;
mod secret;
mod service;
mod settings;
mod source;
mod url;

use std::fmt;

use serde::{Deserialize, Serialize};

pub use self::{
    builder::ConfigBuilder,
    endpoint::Endpoint,
    error::{ConfigError, Mistake},
    history::HistorySettings,
    name::{AliasName, InvalidName},
    outage::{CodePrefix, OutageErrors},
    service::{ServiceConfig, ServiceKind},
    settings::{BreakerSettings, CallSettings, Hedge, Pings, PoolSettings, SessionReset},
};
// For this crate's program, tests and benches: no part of the interface.
#[doc(hidden)]
pub use self::schema::{KEYS, Key, Kind, Level};

/// A configuration that holds: every alias exists, every chain ends at a server, every secret could be read.
#[derive(Debug, Clone)]
pub struct Config {
    pub(crate) aliases: Vec<AliasConfig>,
    pub(crate) services: Vec<ServiceConfig>,
    pub(crate) pings: Pings,
    pub(crate) monitoring: Monitoring,
    pub(crate) cache_size: usize,
    pub(crate) history: Option<HistorySettings>,
    pub(crate) outage_errors: OutageErrors,
    pub(crate) warnings: Vec<Mistake>,
}

/// One declared alias.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct AliasConfig {
    /// What the application asks for.
    pub name: AliasName,
    /// One server, or a group of aliases that are servers.
    pub kind: AliasKind,
    /// The aliases that take its reads during an outage, in order. Resolved: a replica's default, the primary, stands here.
    pub failover: Vec<AliasName>,
    /// How its connections are pooled.
    pub pool: PoolSettings,
    /// How long its calls may take, and how often they are made again.
    pub calls: CallSettings,
}

/// What an alias names.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub enum AliasKind {
    /// One PostgreSQL server.
    Server(Box<ServerConfig>),
    /// Several aliases among which reads are spread.
    Group {
        /// The aliases, each a server.
        members: Vec<AliasName>,
        /// How reads are spread among those that are up.
        balance: Balance,
    },
}

/// One PostgreSQL server, as one alias declares it.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct ServerConfig {
    /// What the server is meant to be.
    pub role: Role,
    /// Where it is and how to log in.
    pub target: Target,
    /// How it is pinged.
    pub pings: Pings,
    /// When requests turn from it though it answers pings.
    pub breaker: BreakerSettings,
}

/// Where a server is and how to log in: everything of a connection URL, libpq's keys included. Its `Debug` shows no password.
#[derive(Clone, PartialEq)]
#[non_exhaustive]
pub struct Target {
    /// Host, port, user, password, database and options, with nothing left in it that weakens TLS: what decides is `tls`.
    pub postgres: tokio_postgres::Config,
    /// How the connection is protected.
    pub tls: Tls,
}

/// How a connection is protected. There is no mode that falls back to plain text.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Tls {
    /// Plain text: the default for loopback addresses and Unix sockets only.
    Disable,
    /// Encrypted, and the server's certificate is not looked at.
    Require,
    /// Encrypted, and the certificate comes from a trusted authority.
    VerifyCa(Roots),
    /// Encrypted, the certificate comes from a trusted authority, and names the host: the default elsewhere.
    VerifyFull(Roots),
}

/// Whose certificates are trusted.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Roots {
    /// The operating system's authorities.
    System,
    /// The authorities in this PEM file.
    File(std::path::PathBuf),
}

/// `Primary` takes writes, `Replica` replays them. Configured here; observed by pings elsewhere.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Role {
    /// Takes writes.
    Primary,
    /// In recovery: replays another server's writes and answers reads.
    Replica,
}

/// How a group spreads its reads.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum Balance {
    /// One after the other.
    #[default]
    RoundRobin,
    /// By chance.
    Random,
    /// The member with the fewest leases out.
    LeastLoaded,
}

/// Who starts pings.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum Monitoring {
    /// The router, on a thread of its own.
    #[default]
    Background,
    /// The application, by `Router::monitor()`.
    OnDemand,
}

impl Config {
    /// Every alias, in the order of declaration.
    #[must_use]
    pub fn aliases(&self) -> &[AliasConfig] {
        &self.aliases
    }

    /// Who starts pings.
    #[must_use]
    pub fn monitoring(&self) -> Monitoring {
        self.monitoring
    }

    /// The last good values that `read_or` keeps at most, of all aliases together. Default 1000.
    #[must_use]
    pub fn cache_size(&self) -> usize {
        self.cache_size
    }

    /// Where outages are kept for good. Default nowhere. It takes the feature `history`.
    #[must_use]
    pub fn history(&self) -> Option<&HistorySettings> {
        self.history.as_ref()
    }

    /// Which errors ask for a ping, where that is not what the table of faults says.
    #[must_use]
    pub fn outage_errors(&self) -> &OutageErrors {
        &self.outage_errors
    }

    /// What holds but is probably not meant: two aliases for one server, a password file that everybody can read.
    #[must_use]
    pub fn warnings(&self) -> &[Mistake] {
        &self.warnings
    }

    /// One server without the others, pinged on demand: what `pgdetour check --connect` asks.
    #[doc(hidden)]
    #[must_use]
    pub fn alone(&self, name: &AliasName) -> Self {
        let alias = self.alias(name.as_str()).cloned();
        let aliases = alias.into_iter().map(|alias| AliasConfig { failover: Vec::new(), ..alias }).collect();
        Self {
            aliases,
            services: Vec::new(),
            pings: self.pings.clone(),
            monitoring: Monitoring::OnDemand,
            cache_size: self.cache_size,
            history: None,
            outage_errors: self.outage_errors.clone(),
            warnings: Vec::new(),
        }
    }

    /// The alias of this name.
    #[must_use]
    pub fn alias(&self, name: &str) -> Option<&AliasConfig> {
        self.aliases.iter().find(|alias| alias.name.as_str() == name)
    }
}

impl Target {
    /// `host:port/database`, for logs: no password and no user, hence no database either where that has the user's name.
    #[must_use]
    pub fn address(&self) -> String {
        use tokio_postgres::config::Host;
        let host = match self.postgres.get_hosts().first() {
            Some(Host::Tcp(host)) if host.contains(':') => format!("[{host}]"),
            Some(Host::Tcp(host)) => host.clone(),
            #[cfg(unix)]
            Some(Host::Unix(path)) => path.display().to_string(),
            None => "localhost".to_owned(),
        };
        let port = self.postgres.get_ports().first().copied().unwrap_or(5432);
        match self.postgres.get_dbname().filter(|database| Some(*database) != self.postgres.get_user()) {
            Some(database) => format!("{host}:{port}/{database}"),
            None => format!("{host}:{port}"),
        }
    }
}

impl fmt::Debug for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Target").field("address", &self.address()).field("tls", &self.tls).finish_non_exhaustive()
    }
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Primary => "primary",
            Self::Replica => "replica",
        })
    }
}
