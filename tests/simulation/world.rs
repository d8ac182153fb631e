//! A run: servers, the router over them, clients and faults, all from one seed.

use std::{
    collections::BTreeMap,
    future::Future,
    sync::{Arc, Mutex},
    time::Duration,
};

use fastrand::Rng;
use pgdetour::{
    Alias, Config, EventKind, Router,
    config::{Balance, CallSettings, Hedge, Pings, PoolSettings, Role},
    health::Bounds,
    pool::{DeadpoolPostgres, FromSpec, PoolSpec, Server, Streams},
};
use tokio::task::JoinHandle;

use crate::{
    node::Node,
    record::{Record, Turn},
    time::{MS, lock},
};

/// The names of the servers, in the order in which they are declared.
pub(crate) const NAMES: [&str; 3] = ["primary", "replica", "second"];

/// What the router may take beyond a deadline.
pub(crate) const GRACE: Duration = Duration::from_millis(20);

/// Everything that one run has.
#[derive(Clone)]
pub(crate) struct World {
    pub(crate) record: Record,
    pub(crate) nodes: Arc<[Arc<Node>]>,
    pub(crate) router: Router,
    pub(crate) layout: Layout,
    /// What the router believes about each server.
    pub(crate) servers: Arc<[Arc<Server>]>,
}

/// What the router is told.
#[derive(Debug, Clone)]
pub(crate) struct Layout {
    pub(crate) servers: usize,
    /// Whether the reads are spread over a group of all replicas.
    pub(crate) group: bool,
    pub(crate) pings: Pings,
    pub(crate) pool: PoolSettings,
    pub(crate) calls: CallSettings,
    /// How long the clients work.
    pub(crate) length: Duration,
}

impl Layout {
    pub(crate) fn of(rng: &mut Rng) -> Self {
        let servers = if rng.u32(..3) == 0 { 3 } else { 2 };
        let error = rng.u32(50..300) * MS;
        let outage = error + rng.u32(100..600) * MS;
        let pings = Pings {
            monitoring_ping_frequency: outage + rng.u32(300..3000) * MS,
            outage_ping_frequency: outage,
            error_ping_frequency: error,
            outage_log_frequency: 2500 * MS,
            ping_timeout: rng.u32(150..400) * MS,
            outage_ping_timeout: rng.u32(50..150).min(outage.as_millis() as u32) * MS,
            failure_threshold: rng.u32(2..4),
            success_threshold: rng.u32(1..4),
            slow_after: rng.u32(100..300) * MS,
        };
        let max_size = rng.usize(2..6);
        let pool = PoolSettings {
            max_size,
            detour_size: rng.usize(1..=max_size),
            min_idle: rng.usize(..2),
            acquire_timeout: rng.u32(300..1500) * MS,
            connect_timeout: rng.u32(200..500) * MS,
            max_lifetime: rng.bool().then(|| rng.u32(500..4_000) * MS),
            ..PoolSettings::default()
        };
        let call_timeout = rng.u32(800..4000) * MS;
        let hedge_after = if rng.u32(..3) == 0 { Hedge::After(rng.u32(1..60) * MS) } else { Hedge::Off };
        let calls =
            CallSettings { call_timeout, hedge_after, retry_budget: rng.u32(10..100), ..CallSettings::default() };
        Self { servers, group: servers == 3 && rng.bool(), pings, pool, calls, length: rng.u32(4_000..8_000) * MS }
    }

    fn config(&self) -> Config {
        let url = |name: &str| format!("postgres://app@{name}/app?sslmode=disable");
        let mut config = Config::builder().pings(self.pings.clone()).pool(self.pool.clone()).calls(self.calls.clone());
        for (index, name) in NAMES.into_iter().enumerate().take(self.servers) {
            config = config.server(name, if index == 0 { Role::Primary } else { Role::Replica }, url(name));
        }
        if self.servers == 3 {
            config = config.failover("replica", ["second", "primary"]);
        }
        if self.group {
            config = config.group("reads", ["replica", "second"], Balance::RoundRobin);
        }
        config.build().expect("the layout holds")
    }

    /// The alias that reads go to.
    pub(crate) fn reads(&self) -> &'static str {
        if self.group { "reads" } else { "replica" }
    }

    pub(crate) fn bounds(&self) -> Bounds {
        Bounds::of(&self.pings)
    }
}

/// The number of a server.
pub(crate) fn index_of(name: &str) -> usize {
    NAMES.iter().position(|known| *known == name).expect("a server of this run")
}

impl World {
    /// Starts the servers and the router over them.
    pub(crate) async fn start(layout: Layout, rng: &mut Rng) -> Self {
        let record = Record::new();
        record.tell(format!("{layout:?}"));
        let nodes: Arc<[Arc<Node>]> =
            (0..layout.servers).map(|index| Node::new(index, NAMES[index], record.clone(), rng.fork())).collect();
        let reached = Arc::clone(&nodes);
        let streams = Streams::new(move |address| {
            let node = reached.iter().find(|node| address.starts_with(node.name)).expect("a server of this run");
            node.open()
        });
        let known = Arc::new(Mutex::new(BTreeMap::new()));
        let found = Arc::clone(&known);
        let build = move |spec: PoolSpec| {
            lock(&found).insert(index_of(spec.server().as_str()), Arc::clone(spec.connector.server()));
            DeadpoolPostgres::from_spec(spec)
        };
        let router = Router::start_over(streams, layout.config(), build).await.expect("it starts");
        let servers = std::mem::take(&mut *lock(&known)).into_values().collect();
        let world = Self { record, nodes, router, layout, servers };
        world.listen();
        world
    }

    pub(crate) fn alias(&self, name: &str) -> Alias {
        self.router.alias(name).expect("it is declared")
    }

    /// Writes down what the router tells.
    fn listen(&self) {
        let (mut events, record) = (self.router.events(), self.record.clone());
        drop(spawn(&record.clone(), async move {
            while let Some(event) = events.next().await {
                let alias = event.alias.as_ref().map_or("router", |alias| alias.as_str());
                record.tell(format!("{alias} {}", event.kind.name()));
                record.count(event.kind.name());
                let Some(server) = NAMES.iter().position(|name| *name == alias) else { continue };
                let at = record.at();
                let opened = match event.kind {
                    EventKind::OutageOpened { cause, .. } => {
                        record.tell(format!("  since {cause}"));
                        true
                    }
                    EventKind::OutageClosed { .. } => false,
                    EventKind::AdmissionStopped { .. } => {
                        record.book().closings.push(Turn { server, at, opened: true });
                        continue;
                    }
                    _ => continue,
                };
                record.book().turns.push(Turn { server, at, opened });
            }
        }));
    }
}

/// Counts a task of the simulation's own as long as it lives: what is left over when a run ends is the router's.
struct Counted(Record);

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.book().tasks -= 1;
    }
}

/// Starts a task of the simulation's own.
pub(crate) fn spawn<T: Send + 'static>(
    record: &Record,
    work: impl Future<Output = T> + Send + 'static,
) -> JoinHandle<T> {
    record.book().tasks += 1;
    let counted = Counted(record.clone());
    tokio::spawn(async move {
        let _counted = counted;
        work.await
    })
}
