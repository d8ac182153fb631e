//! What is read, and what events add to it?

use std::{collections::BTreeMap, time::Duration};

use super::{
    names::{self, Metric},
    series::{Series, Target},
};
use crate::{
    config::AliasName,
    health::State,
    observe::{
        Event, EventKind,
        status::{AliasStatus, PoolUse, ServerStatus, Status},
    },
    plan::Mode,
    pool::{Backend, Server, Times},
    router::{
        Router,
        meter::{Reading, What},
    },
};

const MODES: [Mode; 4] = [Mode::Normal, Mode::Degraded, Mode::ReadOnly, Mode::Down];
const STATES: [(State, &str); 4] =
    [(State::Up, "up"), (State::Suspect, "suspect"), (State::Down, "down"), (State::Recovering, "recovering")];
const STANDINGS: [&str; 4] = ["sound", "not-primary", "split-brain", "foreign"];

/// Reads a router, and remembers what it has read.
pub(super) struct Sampler {
    series: Series,
    /// The leases lost so far on each server, and on which one: after a reload it is another, which begins anew.
    lost: BTreeMap<AliasName, (usize, u64)>,
}

impl Sampler {
    pub(super) fn new(target: Target) -> Self {
        Self { series: Series::new(target), lost: BTreeMap::new() }
    }

    /// Reads everything, after an event or without one.
    pub(super) fn look<B: Backend>(&mut self, router: &Router<B>, event: Option<&Event>) {
        if let Some(event) = event {
            self.hear(event);
        }
        let series = &self.series;
        let times = |metric: &Metric, label: &AliasName| {
            let histogram = series.histogram(metric, &[label.as_str()]);
            Times(Box::new(move |took: Duration| histogram.record(took.as_secs_f64())))
        };
        router.meter().turn_on(|alias| times(&names::ACQUIRE, alias));
        let servers = router.servers();
        servers.iter().for_each(|server| server.tell_pings_to(|| times(&names::PING, &server.name)));
        self.series.begin();
        if !servers.is_empty() {
            self.read(&router.status());
            router.meter().read().iter().for_each(|reading| self.count(reading));
            servers.iter().for_each(|server| self.count_lost(server));
        }
        self.series.finish();
    }

    /// The router is gone: no gauge says anything any more.
    pub(super) fn end(&mut self) {
        self.series.begin();
        self.series.finish();
    }

    fn hear(&mut self, event: &Event) {
        self.series.counter(&names::EVENTS, &[event.kind.name()]).increment(1);
        let Some(server) = event.alias.as_ref().map(AliasName::as_str) else { return };
        match &event.kind {
            EventKind::OutageOpened { detected_in, .. } => {
                self.series.counter(&names::OUTAGES, &[server]).increment(1);
                self.series.histogram(&names::DETECT, &[server]).record(detected_in.as_secs_f64());
            }
            EventKind::OutageClosed { duration, .. } => {
                self.series.histogram(&names::RECOVER, &[server]).record(duration.as_secs_f64());
            }
            _ => {}
        }
    }

    fn read(&mut self, status: &Status) {
        self.series.set(&names::INFO, &[&status.process.pgdetour], 1.0);
        for mode in MODES {
            self.series.is(&names::MODE, &[mode.name()], status.mode == mode);
        }
        status.aliases.iter().for_each(|alias| self.read_alias(alias));
        status.servers.iter().for_each(|server| self.read_server(server));
        for service in &status.services {
            for (state, word) in STATES {
                self.series.is(&names::SERVICE_STATE, &[&service.name, word], service.state == state);
            }
        }
    }

    fn read_alias(&mut self, alias: &AliasStatus) {
        let (series, name) = (&mut self.series, [alias.name.as_str()]);
        series.is(&names::ALIAS_SERVED, &name, alias.target.is_some());
        series.is(&names::ALIAS_DETOUR, &name, alias.target.is_some() && alias.detour);
        series.set(&names::ALIAS_WAITING, &name, alias.waiting as f64);
        if let Some(left) = alias.retries_left {
            series.set(&names::RETRIES_LEFT, &name, left);
        }
    }

    fn read_server(&mut self, server: &ServerStatus) {
        let (series, name) = (&mut self.series, server.name.as_str());
        for (state, word) in STATES {
            series.is(&names::SERVER_STATE, &[name, word], server.state == state);
        }
        for word in STANDINGS {
            series.is(&names::SERVER_STANDING, &[name, word], server.standing.word == word);
        }
        series.is(&names::SERVER_ADMITS, &[name], server.admits);
        series.is(&names::BREAKER_OPEN, &[name], server.breaker.is_some());
        series.is(&names::DRAINED, &[name], server.drained.is_some());
        let lasting = server.outage.as_ref().map_or(0, |outage| outage.lasting_ms);
        series.set(&names::OUTAGE_SECONDS, &[name], lasting as f64 / 1e3);
        if let Some(lag) = server.lag_bytes {
            series.set(&names::LAG_BYTES, &[name], lag as f64);
        }
        series.counter(&names::OUTAGES, &[name]).increment(0);
        self.read_pool([name, name], server.pool);
        for detour in &server.detours {
            let at = [detour.of.as_str(), name];
            self.series.set(&names::DETOUR_USABLE, &at, detour.usable as f64);
            self.read_pool(at, detour.pool);
        }
    }

    fn read_pool(&mut self, at: [&str; 2], pool: PoolUse) {
        let PoolUse { max, size, idle, lent, waiting } = pool;
        self.series.set(&names::POOL_MAX, &at, max as f64);
        self.series.set(&names::POOL_SIZE, &at, size as f64);
        self.series.set(&names::POOL_IDLE, &at, idle as f64);
        self.series.set(&names::POOL_LENT, &at, lent as f64);
        self.series.set(&names::POOL_WAITING, &at, waiting as f64);
    }

    fn count(&mut self, reading: &Reading) {
        let (alias, server) = (reading.alias.as_str(), reading.server.as_ref().map_or("", AliasName::as_str));
        let counter = match reading.what {
            What::Routed { reason } => self.series.counter(&names::ROUTES, &[alias, server, reason]),
            What::Refused { reason } => self.series.counter(&names::REFUSED, &[alias, reason]),
            What::Called { call, outcome } => self.series.counter(&names::CALLS, &[alias, call, outcome]),
            What::Attempted { call, outcome } => self.series.counter(&names::ATTEMPTS, &[alias, server, call, outcome]),
        };
        counter.absolute(reading.count);
    }

    fn count_lost(&mut self, server: &Server) {
        let (identity, now) = (server.identity(), server.cell.tally().failed);
        let before = self.lost.insert(server.name.clone(), (identity, now));
        let before = before.filter(|(same, _)| *same == identity).map_or(0, |(_, lost)| lost);
        self.series.counter(&names::LOST, &[server.name.as_str()]).increment(now.saturating_sub(before));
    }
}
