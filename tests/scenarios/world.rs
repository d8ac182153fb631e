//! Servers that answer as a scenario says, their health, and the routes over them, in simulated time.

use std::{
    collections::BTreeMap,
    sync::Arc,
    time::{Duration, Instant},
};

use pgdetour::{
    config::{AliasConfig, AliasKind, AliasName, Balance, Config, Role},
    health::{
        Action, Belief, Cause, Cell, Change, Facts, Finding, Generation, Health, Order, Over, PingId, Signal, SystemId,
        Tally, Timeline,
    },
    plan::{Candidate, Chain, Judge, Known, Mode, Plan, Route, Table},
    policy::{Breaker, Counts, Shift},
};
use serde::Deserialize;

/// How long a server of these scenarios takes to answer or to refuse.
const LATENCY: Duration = Duration::from_millis(1);

/// More actions than one moment can ask for.
const TOO_MANY: usize = 10;

/// What a server does with a ping.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Reply {
    Answered,
    Refused,
    Silent,
    Inconclusive,
}

/// One server, played.
#[derive(Debug)]
pub(super) struct Server {
    pub(super) name: AliasName,
    address: String,
    declared: Role,
    pub(super) health: Health,
    breaker: Breaker,
    counts: Counts,
    pub(super) cell: Arc<Cell>,
    pub(super) fresh: Reply,
    pub(super) kept: Reply,
    pub(super) facts: Facts,
    /// By how much timers fire late.
    pub(super) late: Duration,
    pub(super) pings: Vec<Over>,
    pub(super) next: Option<Instant>,
    pending: Vec<(Instant, PingId, Finding)>,
}

/// A place in a route.
#[derive(Debug)]
pub(super) struct Place {
    name: AliasName,
    cell: Arc<Cell>,
}

impl Candidate for Place {
    fn belief(&self) -> Belief {
        self.cell.belief()
    }

    fn load(&self) -> u32 {
        self.cell.leases().out
    }

    fn take_trial(&self) -> bool {
        self.cell.take_trial()
    }
}

/// Everything of one scenario.
#[derive(Debug)]
pub(super) struct World {
    config: Config,
    base: Instant,
    pub(super) now: Instant,
    pub(super) servers: Vec<Server>,
    routes: BTreeMap<AliasName, Route<Place>>,
    judge: Judge,
    table: Table,
    /// What the outside was told since somebody asked.
    pub(super) told: Vec<String>,
}

impl World {
    pub(super) fn new(config: &Config, base: Instant) -> Self {
        let servers: Vec<Server> =
            config.aliases().iter().filter_map(|alias| server(config, &alias.name, base)).collect();
        let routes = config.aliases().iter().map(|alias| (alias.name.clone(), route(config, alias, &servers)));
        let routes = routes.collect();
        let (judge, table) = (Judge::new(config), Table::default());
        Self { config: config.clone(), base, now: base, servers, routes, judge, table, told: Vec::new() }
    }

    /// How long ago the scenario began.
    pub(super) fn elapsed(&self) -> Duration {
        self.now - self.base
    }

    /// Lets time pass up to this moment after the start, or until something has come about. True if it has.
    pub(super) fn advance_to(&mut self, at: Duration, has_come: impl Fn(&Self) -> bool) -> bool {
        let until = self.base + at;
        assert!(until >= self.now, "the steps of a scenario are in order: {at:?}");
        loop {
            self.settle();
            if has_come(self) {
                return true;
            }
            let pending = self.servers.iter().flat_map(|server| server.pending.iter().map(|(at, ..)| *at));
            let wakes = self.servers.iter().filter_map(|server| server.next);
            let Some(next) = pending.chain(wakes).min().filter(|next| *next <= until) else { break };
            self.now = self.now.max(next);
            self.deliver();
        }
        self.now = until;
        self.settle();
        has_come(self)
    }

    /// Hands over the findings that are due now.
    fn deliver(&mut self) {
        let now = self.now;
        for server in &mut self.servers {
            let (due, pending) = std::mem::take(&mut server.pending).into_iter().partition(|(at, ..)| *at <= now);
            server.pending = pending;
            let due: Vec<_> = due;
            for (_, id, finding) in due {
                let changes = server.health.on(Signal::Ping(id, finding), now);
                self.told.extend(changes.iter().filter_map(|change| line(&server.name, change)));
            }
        }
    }

    pub(super) fn signal(&mut self, index: usize, signal: Signal) {
        let server = &mut self.servers[index];
        let changes = server.health.on(signal, self.now);
        self.told.extend(changes.iter().filter_map(|change| line(&server.name, change)));
        self.settle();
    }

    /// What became of calls on a server, as its monitor sees it at its next look, which is now.
    pub(super) fn weigh(&mut self, index: usize, calls: Counts) {
        let server = &mut self.servers[index];
        let Counts { made, failed, slow } = server.counts;
        server.counts = Counts { made: made + calls.made, failed: failed + calls.failed, slow: slow + calls.slow };
        let followed = server.breaker.follow(server.health.outage().is_some(), self.now);
        let shift = followed.or_else(|| server.breaker.look(server.counts, self.now));
        self.told.extend(shift.and_then(|shift| match shift {
            Shift::Opened(trip) => Some(format!("{} breaker opened: {trip}", server.name)),
            Shift::Closed(after) => Some(format!("{} breaker closed after {}s", server.name, after.as_secs())),
            Shift::OfferTrial => {
                server.cell.offer_trial();
                None
            }
        }));
        self.settle();
    }

    /// Errors that a lease of this generation saw, as they reach the monitor.
    pub(super) fn doubt(&mut self, index: usize, generation: Generation) {
        self.servers[index].cell.doubt(generation);
        if self.servers[index].cell.take_doubt() {
            self.signal(index, Signal::Doubt);
        }
    }

    /// Does what every state machine asks for at this moment, and publishes what is believed.
    pub(super) fn settle(&mut self) {
        let now = self.now;
        for server in &mut self.servers {
            server.next = (0..TOO_MANY)
                .find_map(|_| match server.health.poll(now) {
                    Action::Ping(order) => {
                        server.send(order, now);
                        None
                    }
                    Action::Tell(change) => {
                        self.told.extend(line(&server.name, &change));
                        None
                    }
                    Action::Wait(until) => Some(until),
                })
                .expect("a moment asks for few actions");
        }
        self.table = self.judge.judge(self.servers.iter().map(Server::known).collect());
        for (server, entry) in self.servers.iter().zip(self.table.entries()) {
            server.cell.publish(entry.belief());
        }
    }

    /// Where the next request for an alias goes.
    pub(super) fn goes_to(&self, alias: &str) -> String {
        match self.route(alias).choose() {
            Some(choice) if choice.detour => format!("{} (detour)", choice.candidate.name),
            Some(choice) => choice.candidate.name.to_string(),
            None => "none".to_owned(),
        }
    }

    /// Where requests for an alias go, with the reasons, as text.
    pub(super) fn explain(&self, alias: &str) -> String {
        let declared = self.config.alias(alias).unwrap_or_else(|| panic!("the scenario declares no alias {alias}"));
        Chain::of(&self.config, declared).explain(declared.name.clone(), &self.table, self.now).to_string()
    }

    /// Where a write of an alias would go, with the reasons.
    pub(super) fn plan_to_write(&self, alias: &str) -> Plan {
        let declared = self.config.alias(alias).unwrap_or_else(|| panic!("the scenario declares no alias {alias}"));
        Chain::of(&self.config, declared).for_writes().explain(declared.name.clone(), &self.table, self.now)
    }

    pub(super) fn mode(&self) -> Mode {
        self.table.mode()
    }

    fn route(&self, alias: &str) -> &Route<Place> {
        let name = AliasName::new(alias).expect("it is a name");
        self.routes.get(&name).unwrap_or_else(|| panic!("the scenario declares no alias {alias}"))
    }
}

impl Server {
    fn send(&mut self, order: Order, now: Instant) {
        self.pings.push(order.over);
        let reply = if order.over == Over::Kept { self.kept } else { self.fresh };
        let finding = match reply {
            Reply::Answered => Finding::Answered(self.facts),
            Reply::Refused => Finding::Failed(Cause::new("connection refused")),
            Reply::Silent => Finding::Silent,
            Reply::Inconclusive => Finding::Inconclusive(Cause::new("too many clients already")),
        };
        let after = if reply == Reply::Silent { order.timeout + self.late } else { LATENCY };
        self.pending.push((now + after, order.id, finding));
    }

    fn known(&self) -> Known {
        Known {
            name: self.name.clone(),
            address: self.address.clone(),
            declared: self.declared,
            belief: self.health.belief(),
            facts: self.health.facts().copied(),
            outage: self.health.outage().map(|(since, cause)| (since, cause.clone())),
            breaker: self.breaker.tripped().map(|(since, trip)| (since, Cause::new(trip.to_string()))),
            held_until: self.breaker.held_until(),
            drained: None,
            latency: None,
            base: Tally::default(),
            next_ping: self.health.next_ping(),
        }
    }
}

fn server(config: &Config, name: &AliasName, base: Instant) -> Option<Server> {
    let AliasKind::Server(declared) = &config.alias(name.as_str())?.kind else { return None };
    let facts = Facts { role: declared.role, timeline: Some(Timeline(1)), system: Some(SystemId(1)), position: None };
    Some(Server {
        name: name.clone(),
        address: declared.target.address(),
        declared: declared.role,
        health: Health::new(declared.pings.clone(), base, 7),
        breaker: Breaker::new(declared.breaker.clone(), &declared.pings),
        counts: Counts::default(),
        cell: Arc::default(),
        fresh: Reply::Answered,
        kept: Reply::Answered,
        facts,
        late: Duration::ZERO,
        pings: Vec::new(),
        next: None,
        pending: Vec::new(),
    })
}

fn route(config: &Config, alias: &AliasConfig, servers: &[Server]) -> Route<Place> {
    let place = |name: &AliasName| {
        let server = servers.iter().find(|server| server.name == *name).expect("a place is a server");
        Place { name: name.clone(), cell: Arc::clone(&server.cell) }
    };
    let balance = match &alias.kind {
        AliasKind::Group { balance, .. } => *balance,
        _ => Balance::default(),
    };
    let chain = Chain::of(config, alias);
    let (own, failover) = (chain.own.iter().map(place).collect(), chain.failover.iter().map(place).collect());
    Route::new(chain.need, own, failover, balance)
}

/// How a scenario spells a change. The first facts of a server are no news.
fn line(server: &AliasName, change: &Change) -> Option<String> {
    let what = match change {
        Change::OutageOpened { cause, .. } => format!("outage opened: {cause}"),
        Change::OutageOngoing { duration, .. } => format!("outage ongoing for {}s", duration.as_secs()),
        Change::OutageClosed { duration } => format!("outage closed after {}s", duration.as_secs()),
        Change::AdmissionStopped { cause } => format!("admission stopped: {cause}"),
        Change::AdmissionResumed => "admission resumed".to_owned(),
        Change::PingInconclusive { cause } => format!("ping inconclusive: {cause}"),
        Change::FactsChanged { before: None, .. } => return None,
        Change::FactsChanged { now, .. } => {
            format!("is {} on timeline {}", now.role, now.timeline.map_or(0, |timeline| timeline.0))
        }
    };
    Some(format!("{server} {what}"))
}
