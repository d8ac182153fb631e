//! A pair of the drill's own: servers of the test kit, and a proxy before each for faults of the network.

use std::time::Duration;

use pgdetour::{
    Config,
    config::{ConfigError, Pings, Role},
    migrate,
    testkit::{Cluster, Direction, Fault as NetworkFault, Proxy, Server, Stop, TestkitError},
};

use super::{Trouble, kind::Kind};

/// A primary and a replica.
#[derive(Debug)]
pub(super) struct Kit {
    // In this order: who is in between ends before the servers do.
    proxies: [Proxy; 2],
    cluster: Cluster,
}

impl Kit {
    /// Starts everything, and makes the table of `write_once`.
    pub(super) async fn start() -> Result<Self, Trouble> {
        // A role without rights needs no password for these seconds; the superuser does not come in by TCP.
        let only_by_socket = "host all postgres 127.0.0.1/32 reject";
        let cluster = Cluster::builder().replicas(1).user("drill").database("drill").hba(only_by_socket);
        let cluster = cluster.start().await?;
        let proxy = |server: &Server| Proxy::start((server.host().to_owned(), server.port()));
        let proxies = [proxy(cluster.primary()).await?, proxy(cluster.replica(0)).await?];
        let migrated = migrate(&cluster.primary().connect().await?).await;
        migrated.map_err(|error| Trouble::Environment(error.to_string()))?;
        cluster.wait_for_replay().await?;
        Ok(Self { proxies, cluster })
    }

    /// The configuration of a router over them. Faults of the network need proxies in between; all others are seen without.
    pub(super) fn config(&self, network: bool) -> Result<Config, ConfigError> {
        let url = |server: &Server, proxy: &Proxy| match network {
            true => server.url_at("127.0.0.1", proxy.addr().port()),
            false => server.url(),
        };
        let [primary, replica] = &self.proxies;
        Config::builder()
            .pings(pings())
            .server("primary", Role::Primary, url(self.cluster.primary(), primary))
            .server("replica", Role::Replica, url(self.cluster.replica(0), replica))
            .build()
    }

    /// Breaks one of them.
    pub(super) async fn inject(&self, kind: Kind, alias: &str) -> Result<(), TestkitError> {
        let (server, proxy) = self.of(alias);
        match kind {
            Kind::Kill => server.kill_postmaster().await,
            Kind::Crash => server.kill().await,
            Kind::Stop => server.stop(Stop::Fast).await,
            Kind::Immediate => server.stop(Stop::Immediate).await,
            Kind::Freeze => server.freeze().await,
            Kind::Terminate => server.terminate_backends().await.map(drop),
            Kind::BlackHole => proxy.set(NetworkFault::BlackHole { direction: Direction::Both }).await,
            Kind::Reset => proxy.set(NetworkFault::Reset).await,
        }
    }

    /// Repairs it. Back when the server answers.
    pub(super) async fn repair(&self, kind: Kind, alias: &str) -> Result<(), TestkitError> {
        let (server, proxy) = self.of(alias);
        match kind {
            Kind::Kill | Kind::Crash | Kind::Stop | Kind::Immediate => server.start().await,
            Kind::Freeze => server.thaw().await,
            Kind::Terminate => Ok(()),
            Kind::BlackHole | Kind::Reset => proxy.set(NetworkFault::None).await,
        }
    }

    fn of(&self, alias: &str) -> (&Server, &Proxy) {
        let [primary, replica] = &self.proxies;
        match alias {
            "primary" => (self.cluster.primary(), primary),
            _ => (self.cluster.replica(0), replica),
        }
    }
}

/// Brisk, and silence is told from slowness within a second: by time alone.
pub(crate) fn pings() -> Pings {
    let (slow_after, ping_timeout) = (Duration::from_millis(200), Duration::from_millis(500));
    Pings { slow_after, ping_timeout, outage_ping_timeout: ping_timeout, ..Pings::brisk() }
}
