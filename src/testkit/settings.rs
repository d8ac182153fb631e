//! What the servers of a cluster are told: postgresql.conf, pg_hba.conf, certificates.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::time::Duration;

use secrecy::{ExposeSecret, SecretString};

use super::TestkitError;
use super::account::Account;

/// Small, quick and willing: nothing here survives a power cut, and nothing has to. `full_page_writes` and `wal_log_hints` are what
/// `pg_rewind` wants; without `wal_retrieve_retry_interval` a promotion right after a kill may take 5 s. Shared memory is kept in files of
/// the data directory, so that a killed server leaves none behind.
const BASE: &str = "\
listen_addresses = '127.0.0.1'
fsync = off
full_page_writes = on
wal_log_hints = on
wal_retrieve_retry_interval = 100ms
wal_keep_size = 64MB
min_wal_size = 4MB
max_wal_size = 64MB
shared_buffers = 1MB
dynamic_shared_memory_type = mmap
autovacuum = off
log_line_prefix = '%m [%p] %b '
";

/// What the caller of the builder asked for.
#[derive(Clone, Debug)]
pub(super) struct Settings {
    pub(super) replicas: usize,
    pub(super) max_connections: u32,
    pub(super) all: Vec<(String, String)>,
    pub(super) primary: Vec<(String, String)>,
    pub(super) replica: Vec<(String, String)>,
    pub(super) user: String,
    pub(super) password: Option<SecretString>,
    pub(super) database: String,
    pub(super) hba: Vec<String>,
    pub(super) tls: Option<Tls>,
    pub(super) deadline: Duration,
}

/// A certificate and its key, in PEM.
#[derive(Clone)]
pub(super) struct Tls {
    pub(super) certificate: String,
    pub(super) key: String,
}

impl std::fmt::Debug for Tls {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Tls").field("certificate", &self.certificate).finish_non_exhaustive()
    }
}

/// One data directory to be configured.
#[derive(Debug)]
pub(super) struct Site<'a> {
    pub(super) data: &'a Path,
    pub(super) sockets: &'a Path,
    pub(super) account: Account,
    /// The port of the primary and the name to stream under, for a replica.
    pub(super) follows: Option<(u16, &'a str)>,
}

impl Settings {
    /// Configures a fresh copy of the template. Blocks.
    pub(super) fn write(&self, site: &Site<'_>) -> Result<(), TestkitError> {
        let put = |name: &str, text: &str| {
            let path = site.data.join(name);
            let written =
                fs::write(&path, text).and_then(|()| fs::set_permissions(&path, Permissions::from_mode(0o600)));
            written.map_err(TestkitError::while_(format!("writing {}", path.display())))?;
            site.account.own(&path)
        };
        put("postgresql.conf", &self.conf(site))?;
        put("pg_hba.conf", &self.hba())?;
        if site.follows.is_some() {
            put("standby.signal", "")?;
        }
        if let Some(tls) = &self.tls {
            put("server.crt", &tls.certificate)?;
            put("server.key", &tls.key)?;
        }
        Ok(())
    }

    fn conf(&self, site: &Site<'_>) -> String {
        // Some senders more than replicas: for those that come back before the old one's end is noticed, and for `pg_basebackup`.
        let (connections, senders) = (self.max_connections, self.replicas + 8);
        let mut conf = format!("{BASE}max_connections = {connections}\nmax_wal_senders = {senders}\n");
        let mut set = |name: &str, value: &str| conf.push_str(&format!("{name} = {}\n", quoted(value)));
        let sockets = site.sockets.display().to_string();
        set("unix_socket_directories", &sockets);
        if self.tls.is_some() {
            set("ssl", "on");
        }
        let role = match site.follows {
            None => &self.primary,
            Some((port, name)) => {
                let conninfo = format!("host={sockets} port={port} user=postgres application_name={name}");
                set("primary_conninfo", &conninfo);
                &self.replica
            }
        };
        for (name, value) in self.all.iter().chain(role) {
            set(name, value);
        }
        conf
    }

    /// The test kit and the replicas come by the socket, which only the servers' user can reach; everybody else by TCP.
    fn hba(&self) -> String {
        let method = if self.password.is_some() { "scram-sha-256" } else { "trust" };
        let own: String = self.hba.iter().map(|line| format!("{line}\n")).collect();
        format!("local all postgres trust\nlocal replication postgres trust\n{own}host all all 127.0.0.1/32 {method}\n")
    }

    /// The statements that make the user and the database.
    pub(super) fn statements(&self) -> Vec<String> {
        let (user, database) = (identifier(&self.user), identifier(&self.database));
        let mut statements = Vec::new();
        if self.user != "postgres" {
            statements.push(format!("CREATE ROLE {user} LOGIN"));
        }
        if let Some(password) = &self.password {
            // Only its verifier: the driver logs statements.
            let verifier = postgres_protocol::password::scram_sha_256(password.expose_secret().as_bytes());
            statements.push(format!("ALTER ROLE {user} PASSWORD '{verifier}'"));
        }
        if self.database != "postgres" {
            statements.push(format!("CREATE DATABASE {database} OWNER {user}"));
        }
        statements
    }
}

/// A value as postgresql.conf takes any: in quotes, quotes doubled.
fn quoted(value: &str) -> String {
    format!("'{}'", value.replace('\'', "''"))
}

fn identifier(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}
