//! Everything that one configuration builds: servers, pools, routes, and the monitor over them.

use std::{
    collections::BTreeMap,
    fmt, io,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU8, Ordering},
    },
};

use tokio::{
    sync::{mpsc, oneshot},
    task::AbortHandle,
};

use super::{
    error::Error,
    hedge::Patience,
    line::Line,
    meter::Meter,
    narrow::Strait,
    stop::Stop,
    tend::{tend_detour, tend_own},
};
use crate::{
    config::{AliasConfig, AliasKind, AliasName, Balance, Config, PoolSettings, ServerConfig, Target},
    monitor::{Command, Monitor, Past, Ping, Probe, Shared, Worker},
    observe::{self, Observer},
    plan::{Chain, Mode, Route},
    policy::Budget,
    pool::{AcquireError, Backend, Connector, Dial, PoolSpec, Server, Terms, TlsError},
};

/// How the router makes what it stands on.
pub(super) struct Build<B> {
    pool: Box<dyn Fn(PoolSpec) -> Result<B, AcquireError> + Send + Sync>,
    pub(super) meter: Arc<Meter>,
    /// What takes the place of sockets. Then the monitor is a task among the others, since the time may be virtual.
    #[cfg(feature = "testkit")]
    pub(super) streams: Option<crate::pool::Streams>,
}

impl<B> Build<B> {
    pub(super) fn new(pool: impl Fn(PoolSpec) -> Result<B, AcquireError> + Send + Sync + 'static) -> Self {
        Self {
            pool: Box::new(pool),
            meter: Arc::default(),
            #[cfg(feature = "testkit")]
            streams: None,
        }
    }

    #[cfg(feature = "testkit")]
    pub(super) fn over(self, streams: crate::pool::Streams) -> Self {
        Self { streams: Some(streams), ..self }
    }

    fn dial(&self, target: &Target) -> Result<Dial, TlsError> {
        #[cfg(feature = "testkit")]
        if let Some(streams) = &self.streams {
            return Ok(Dial::over(target, streams.clone()));
        }
        Dial::new(target)
    }

    fn monitor<P: Probe>(
        &self,
        worker: impl FnOnce(mpsc::UnboundedReceiver<Command>) -> Worker<P> + Send + 'static,
    ) -> io::Result<(Monitor, oneshot::Receiver<()>)> {
        #[cfg(feature = "testkit")]
        if self.streams.is_some() {
            return Ok(Monitor::start_here(worker));
        }
        Monitor::start(worker)
    }
}

/// What one configuration builds.
pub(super) struct Topology<B: Backend> {
    pub(super) config: Arc<Config>,
    pub(super) lines: BTreeMap<AliasName, Arc<Line<B>>>,
    pub(super) shared: Shared,
    pub(super) monitor: Monitor,
    pub(super) servers: Vec<Arc<Server>>,
    /// Those of the topologies before, for leases that are still out there.
    older: Mutex<Vec<Arc<Server>>>,
    pools: Vec<Arc<B>>,
    tenders: Vec<AbortHandle>,
    ended: Mutex<Option<oneshot::Receiver<()>>>,
    state: AtomicU8,
}

/// It routes.
const OPEN: u8 = 0;
/// A reload has put another in its place.
const RETIRED: u8 = 1;
/// It is shut down.
const CLOSED: u8 = 2;

/// A server while the routes are being built.
struct Site<'a, B> {
    server: Arc<Server>,
    declared: &'a ServerConfig,
    dial: Dial,
    own: Arc<B>,
}

/// What a pool is for.
#[derive(Clone, Copy)]
enum Purpose {
    /// The requests of the alias that declares the server.
    Own,
    /// Those for which the server stands in.
    Detour,
}

impl<B: Backend> Topology<B> {
    /// Builds pools and routes and starts the monitor. Connects to nobody yet but for the monitor's pings.
    pub(super) fn start(config: Config, observer: Observer, build: &Build<B>) -> Result<Self, Error> {
        Self::start_after(None, config, observer, build)
    }

    /// The same for another configuration, from what is known by this one.
    ///
    /// Cancel safety: it waits before it has begun anything.
    pub(super) async fn replaced_by(&self, config: Config, build: &Build<B>) -> Result<Self, Error> {
        let past = self.monitor.past().await;
        Self::start_after(Some((self, past)), config, self.shared.observer.clone(), build)
    }

    fn start_after(
        before: Option<(&Self, Past)>,
        config: Config,
        observer: Observer,
        build: &Build<B>,
    ) -> Result<Self, Error> {
        observe::warn(config.warnings());
        let config = Arc::new(config);
        let (before, past) = before.unzip();
        let shared = before.map_or_else(|| Shared::new(observer), |before| before.shared.next());
        let sites = sites(&config, &shared, past.as_ref(), build)?;
        let mut lines = BTreeMap::new();
        for alias in config.aliases() {
            let line = line(alias, &config, &sites, &shared, build)?;
            let line = match before.and_then(|before| before.lines.get(&alias.name)) {
                Some(old) => resumed(line, old),
                None => line,
            };
            lines.insert(alias.name.clone(), Arc::new(line));
        }
        let own: Vec<_> = sites.iter().map(|site| Stop::new(&site.server, &site.own)).collect();
        let (monitor, ended) = start_monitor(&config, &shared, sites, past, build)?;
        let detours = || lines.values().flat_map(|line| line.route.failover());
        let pools = own.iter().chain(detours()).map(|stop| Arc::clone(&stop.pool)).collect();
        let servers = own.iter().map(|stop| Arc::clone(&stop.server)).collect();
        // Nothing fails from here on, so no task is left behind.
        let tenders = own.into_iter().map(tend_own).map(|tender| tokio::spawn(tender).abort_handle());
        let tenders = tenders.chain(lines.values().flat_map(|line| tend_detours(line)));
        let straits = config.aliases().iter().flat_map(|alias| straits(alias, &lines, &shared));
        let tenders = tenders.chain(straits.map(|strait| tokio::spawn(strait.tend()).abort_handle())).collect();
        let (ended, older, state) = (Mutex::new(Some(ended)), Mutex::default(), AtomicU8::new(OPEN));
        Ok(Self { config, lines, shared, monitor, servers, older, pools, tenders, ended, state })
    }

    /// From now on requests go by this topology, and so does what the outside is told of the mode.
    pub(super) fn lead(&self) {
        self.shared.lead(self.config.monitoring());
    }

    /// How much of the application's work is possible.
    pub(super) fn mode(&self) -> Mode {
        if self.is_closed() { Mode::Down } else { self.shared.table.load().mode() }
    }

    /// Makes way for the topology that comes after a reload: handles look for that one, leases that are out live on, and what there
    /// is to tell is told by that one, which answers when it is.
    pub(super) fn retire_for(&self, next: &Self) -> oneshot::Receiver<()> {
        self.state.store(RETIRED, Ordering::Release);
        self.stop();
        self.monitor.hand_over_to(&next.monitor)
    }

    /// Takes over what is left of the retired topology before it: what is lent from there ends with this one.
    pub(super) fn succeed(&self, before: &Self) {
        let mut left = before.older();
        // Of those that retired just now a request may yet be at work.
        left.retain(|server| server.sessions() > 0);
        left.extend(before.servers.iter().cloned());
        self.older.lock().unwrap_or_else(PoisonError::into_inner).append(&mut left);
    }

    /// Closes every session, lent or not.
    pub(super) fn close(&self) {
        self.state.store(CLOSED, Ordering::Release);
        self.stop();
        self.monitor.stop();
        self.servers.iter().chain(&self.older()).for_each(|server| server.close());
    }

    /// Whether it routes.
    pub(super) fn is_open(&self) -> bool {
        self.state.load(Ordering::Acquire) == OPEN
    }

    /// Whether it is shut down.
    pub(super) fn is_closed(&self) -> bool {
        self.state.load(Ordering::Acquire) == CLOSED
    }

    fn stop(&self) {
        self.shared.make_way();
        self.servers.iter().for_each(|server| server.cell.retire());
        self.tenders.iter().for_each(AbortHandle::abort);
        self.pools.iter().for_each(|pool| pool.close());
    }

    /// Waits until every session is closed and the monitor's thread has ended.
    pub(super) async fn closed(&self) {
        let ended = self.ended.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(ended) = ended {
            // An error says as much as an answer: the thread is gone.
            let _ = ended.await;
        }
        let older = self.older();
        for server in self.servers.iter().chain(&older) {
            server.drained().await;
        }
    }

    fn older(&self) -> Vec<Arc<Server>> {
        self.older.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl<B: Backend> Drop for Topology<B> {
    fn drop(&mut self) {
        if self.state.load(Ordering::Acquire) == OPEN {
            self.close();
        }
    }
}

impl<B: Backend> fmt::Debug for Topology<B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Topology").field("aliases", &self.lines.keys()).finish_non_exhaustive()
    }
}

/// One site for each alias that is a server, in the order of declaration.
fn sites<'a, B: Backend>(
    config: &'a Config,
    shared: &Shared,
    past: Option<&Past>,
    build: &Build<B>,
) -> Result<Vec<Site<'a, B>>, Error> {
    let servers = config.aliases().iter().filter_map(|alias| match &alias.kind {
        AliasKind::Server(declared) => Some((alias, &**declared)),
        AliasKind::Group { .. } => None,
    });
    servers
        .map(|(alias, declared)| {
            let server = Server::new(alias.name.clone(), declared.target.address(), Arc::clone(&shared.bell));
            let server = server.with_outage_errors(config.outage_errors().clone());
            let slow_after = declared.breaker.breaker_slow_after;
            let mut server = server.with_slow_calls(slow_after);
            if let Some(old) = past.and_then(|past| past.of(&server)) {
                server.calls = old.server.calls.resumed(slow_after);
            }
            let server = Arc::new(server);
            let dial = build.dial(&declared.target).map_err(|error| Error::start(&alias.name, error))?;
            let own = pool(alias, &server, &dial, Purpose::Own, build)?;
            Ok(Site { server, declared, dial, own })
        })
        .collect()
}

/// One pool for the requests of `alias` on one server.
fn pool<B: Backend>(
    alias: &AliasConfig,
    server: &Arc<Server>,
    dial: &Dial,
    purpose: Purpose,
    build: &Build<B>,
) -> Result<Arc<B>, Error> {
    let PoolSettings { connect_timeout, acquire_timeout, .. } = alias.pool;
    let terms = Terms::of(&alias.pool);
    let (max_size, terms) = match purpose {
        Purpose::Own => (alias.pool.max_size, terms),
        Purpose::Detour => (alias.pool.detour_size, terms.for_detour()),
    };
    let connector = Connector::on_terms(Arc::clone(server), dial.clone(), connect_timeout, terms);
    let spec = PoolSpec { alias: alias.name.clone(), connector, max_size, connect_timeout, acquire_timeout };
    (build.pool)(spec).map(Arc::new).map_err(|error| Error::start(&alias.name, error))
}

/// The route of one alias. Each server that may stand in gets a pool of its own for that, so that detoured requests cannot
/// take the connections of those it serves itself.
fn line<B: Backend>(
    alias: &AliasConfig,
    config: &Config,
    sites: &[Site<'_, B>],
    shared: &Shared,
    build: &Build<B>,
) -> Result<Line<B>, Error> {
    let chain = Chain::of(config, alias);
    let named = |names: &[AliasName]| -> Vec<&Site<'_, B>> {
        names.iter().filter_map(|name| sites.iter().find(|site| site.server.name == *name)).collect()
    };
    let own = named(&chain.own).into_iter();
    let own = own.map(|site| Stop::new(&site.server, &site.own).metered(&build.meter, &alias.name));
    let failover = named(&chain.failover).into_iter().map(|site| {
        let pool = pool(alias, &site.server, &site.dial, Purpose::Detour, build)?;
        Ok(Stop::new(&site.server, &pool).metered(&build.meter, &alias.name))
    });
    let balance = match alias.kind {
        AliasKind::Server(_) => Balance::default(),
        AliasKind::Group { balance, .. } => balance,
    };
    Ok(Line {
        name: alias.name.clone(),
        count: build.meter.count_of(&alias.name),
        route: Route::new(chain.need, own.collect(), failover.collect::<Result<_, Error>>()?, balance),
        chain,
        acquire_timeout: alias.pool.acquire_timeout,
        max_waiting: alias.pool.max_waiting,
        budget: budget(alias),
        epoch: arc_swap::ArcSwapOption::empty(),
        unconfirmed: Mutex::default(),
        calls: alias.calls.clone(),
        patience: Patience::new(alias.calls.hedge_after),
        min_idle: alias.pool.min_idle,
        table: Arc::clone(&shared.table),
    })
}

/// A line with what the one of the same name before a reload has left of its retries, and what that has learned of its servers if they
/// are the same.
fn resumed<B: Backend>(line: Line<B>, before: &Line<B>) -> Line<B> {
    let (own, other) = (line.route.own(), before.route.own());
    let stays =
        own.len() == other.len() && own.iter().zip(other).all(|(own, other)| own.server.is_same_as(&other.server));
    let patience = if stays { line.patience.resumed(&before.patience) } else { line.patience };
    Line { budget: line.budget.resumed(&before.budget), patience, ..line }
}

/// The retries of an alias. Its reserve covers what the end of its server fails at once, a call on each connection, and the same
/// again where those go.
fn budget(alias: &AliasConfig) -> Budget {
    let reserve = if alias.calls.retry_budget == 0 { 0 } else { 2 * alias.pool.max_size };
    Budget::new(alias.calls.retry_budget, u32::try_from(reserve).unwrap_or(u32::MAX))
}

/// Starts the upkeep of a line's detours.
fn tend_detours<B: Backend>(line: &Line<B>) -> Vec<AbortHandle> {
    let relieved: Vec<_> = line.route.own().iter().map(|stop| Arc::clone(&stop.server)).collect();
    let tenders = line.route.failover().iter().map(|stop| tend_detour(stop.clone(), line.min_idle, relieved.clone()));
    tenders.map(|tender| tokio::spawn(tender).abort_handle()).collect()
}

/// The detours of one alias that are narrowed while their targets are slow.
fn straits<B: Backend>(
    alias: &AliasConfig,
    lines: &BTreeMap<AliasName, Arc<Line<B>>>,
    shared: &Shared,
) -> Vec<Strait<B>> {
    let (Some(limit), Some(line)) = (alias.pool.detour_latency_limit, lines.get(&alias.name)) else {
        return Vec::new();
    };
    let relieved: Vec<_> = line.route.own().iter().map(|stop| Arc::clone(&stop.server)).collect();
    let strait = |stop: &Stop<B>| Strait {
        alias: alias.name.clone(),
        stop: stop.clone(),
        size: alias.pool.detour_size,
        limit,
        relieved: relieved.clone(),
        observer: shared.observer.clone(),
    };
    line.route.failover().iter().map(strait).collect()
}

fn start_monitor<B>(
    config: &Arc<Config>,
    shared: &Shared,
    sites: Vec<Site<'_, B>>,
    past: Option<Past>,
    build: &Build<B>,
) -> Result<(Monitor, oneshot::Receiver<()>), Error> {
    let servers: Vec<_> =
        sites.into_iter().map(|site| (site.server, Ping::new(site.dial, site.declared.pings.ping_timeout))).collect();
    let (config, shared) = (Arc::clone(config), shared.clone());
    let worker = move |commands| {
        let worker = Worker::new(config, shared, servers, commands);
        match past {
            Some(past) => worker.resume(past),
            None => worker,
        }
    };
    build.monitor(worker).map_err(Error::thread)
}
