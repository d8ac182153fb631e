//! What is so now, for whoever shows it: the table, the pools and the record of outages, put together.

use std::time::Instant;

use super::{Inner, Router, line::Line, stop::Stop, topology::Topology};
use crate::{
    clock,
    config::AliasKind,
    health::Need,
    monitor::ServiceState,
    observe::{
        Chronicle, OutageRecord, Stamp, ms,
        status::{
            self, AliasStatus, BreakerStatus, DetourUse, DrainStatus, OutageStatus, PoolUse, ServerStatus,
            ServiceStatus, StandingStatus, Status, StepStatus,
        },
    },
    plan::{Drain, Entry, Known, Step, Table},
    pool::Backend,
};

impl<B: Backend> Router<B> {
    /// Everything the outside may know of this router now, as plain values. It takes no connection, sends nothing and waits for nobody.
    ///
    /// `docs/status.md` has an example.
    #[must_use]
    pub fn status(&self) -> Status {
        let topology = self.inner.topology.load_full();
        let table = topology.shared.table.load_full();
        let moment = Moment { now: clock::now(), at: Stamp::now() };
        let outages = self.inner.outages(&topology, &table, moment);
        let aliases: Vec<_> = topology.config.aliases().iter().map(|alias| &alias.name).collect();
        let lines = aliases.into_iter().filter_map(|name| topology.lines.get(name));
        let aliases: Vec<_> = lines.map(|line| alias_status(line, &topology, &table, moment)).collect();
        let open = topology.is_open();
        let servers = table.entries().iter().map(|entry| {
            let open = |outage: &&OutageRecord| is_of(outage, &entry.known);
            let outage = outages.iter().rev().find(open).filter(|_| entry.known.outage.is_some());
            server_status(entry, outage, (&topology, &table), moment)
        });
        Status {
            version: status::VERSION,
            at: moment.at,
            process: self.inner.observer.process(),
            mode: topology.mode(),
            reads: open && aliases.iter().any(|alias| alias.target.is_some()),
            writes: open && aliases.iter().any(|alias| alias.needs == Need::Writes && alias.target.is_some()),
            servers: servers.collect(),
            aliases,
            services: self.services().iter().map(|service| service_status(service, &outages, moment)).collect(),
        }
    }

    /// The timeline of the last hours: the last 512 events, the last 100 outages, and which states each server was in. Reloads do not
    /// interrupt it; it begins anew with the process.
    #[must_use]
    pub fn timeline(&self) -> Chronicle {
        Chronicle { outages: self.outages(), ..self.inner.observer.chronicle() }
    }

    /// The last outages, 100 at most and all that are open, in the order in which they opened; of those that are open the counts are
    /// those of now.
    #[must_use]
    pub fn outages(&self) -> Vec<OutageRecord> {
        let topology = self.inner.topology.load_full();
        let moment = Moment { now: clock::now(), at: Stamp::now() };
        self.inner.outages(&topology, &topology.shared.table.load(), moment)
    }
}

/// The same moment by both clocks.
#[derive(Clone, Copy)]
struct Moment {
    now: Instant,
    at: Stamp,
}

impl Moment {
    /// How long ago that was, and when by the wall clock.
    fn since(self, then: Instant) -> (u64, Stamp) {
        let lasting = self.now.saturating_duration_since(then);
        (ms(lasting), self.at.before(lasting))
    }

    fn until(self, then: Instant) -> u64 {
        ms(then.saturating_duration_since(self.now))
    }
}

impl<B: Backend> Inner<B> {
    /// What is recorded of outages, with the counts of now for those that are open.
    fn outages(&self, topology: &Topology<B>, table: &Table, moment: Moment) -> Vec<OutageRecord> {
        let mut outages = self.observer.outages();
        for entry in table.entries() {
            let known = &entry.known;
            let open = |outage: &&mut OutageRecord| is_of(outage, known);
            let (Some((since, cause)), Some(outage)) = (&known.outage, outages.iter_mut().rev().find(open)) else {
                continue;
            };
            let server = topology.servers.iter().find(|server| server.name == known.name);
            let tally = server.map(|server| server.cell.tally() - known.base).unwrap_or_default();
            outage.tell(moment.since(*since).0, tally);
            outage.last_cause = cause.to_string();
        }
        outages
    }
}

/// Whether it is the open outage of this server.
fn is_of(outage: &OutageRecord, known: &Known) -> bool {
    outage.closed.is_none() && outage.name == known.name.as_str() && outage.address == known.address
}

fn alias_status<B: Backend>(line: &Line<B>, topology: &Topology<B>, table: &Table, moment: Moment) -> AliasStatus {
    let plan = line.chain.explain(line.name.clone(), table, moment.now);
    let group = match topology.config.alias(line.name.as_str()).map(|alias| &alias.kind) {
        Some(AliasKind::Group { members, .. }) => members.iter().map(ToString::to_string).collect(),
        Some(AliasKind::Server(_)) | None => Vec::new(),
    };
    let stops = line.route.own().iter().chain(line.route.failover());
    AliasStatus {
        name: line.name.to_string(),
        needs: line.route.need(),
        group,
        target: plan.target().map(|step| step.alias.to_string()),
        detour: plan.is_detour(),
        waiting: stops.map(|stop| stop.queue.waiting() as u64).sum(),
        retries_left: line.budget.left(),
        drained: drained_alias(line, table, moment),
        route: plan.steps.iter().map(step_status).collect(),
    }
}

/// That all its own servers are drained, and until when the first of them is.
fn drained_alias<B: Backend>(line: &Line<B>, table: &Table, moment: Moment) -> Option<DrainStatus> {
    let own = line.chain.own.iter().map(|name| table.get(name)?.known.drained.as_ref());
    let drains: Vec<_> = own.collect::<Option<_>>()?;
    drains.into_iter().min_by_key(|drain| drain.until).map(|drain| drain_status(drain, moment))
}

fn drain_status(drain: &Drain, moment: Moment) -> DrainStatus {
    let left_ms = moment.until(drain.until);
    let until = moment.at.after(drain.until.saturating_duration_since(moment.now));
    DrainStatus { since: moment.since(drain.since).1, until, left_ms, by: drain.by.to_string() }
}

fn step_status(step: &Step) -> StepStatus {
    StepStatus {
        server: step.alias.to_string(),
        address: step.address.clone(),
        detour: step.detour,
        usable: step.reason.is_usable(),
        reason: step.reason.word().to_owned(),
        text: step.reason.to_string(),
        next_ping_ms: ms(step.next_ping),
    }
}

fn server_status<B: Backend>(
    entry: &Entry,
    outage: Option<&OutageRecord>,
    (topology, table): (&Topology<B>, &Table),
    moment: Moment,
) -> ServerStatus {
    let known = &entry.known;
    let facts = known.facts.as_ref();
    let breaker = known.breaker.as_ref().map(|(since, cause)| {
        let (lasting_ms, since) = moment.since(*since);
        let hold_ms = known.held_until.map(|until| moment.until(until)).filter(|left| *left > 0);
        BreakerStatus { since, lasting_ms, cause: cause.to_string(), hold_ms }
    });
    let own = topology.lines.get(&known.name).and_then(|line| line.route.own().first());
    ServerStatus {
        name: known.name.to_string(),
        address: known.address.clone(),
        declared: known.declared,
        observed: facts.map(|facts| facts.role),
        state: known.belief.state(),
        admits: known.belief.admits(),
        standing: StandingStatus { word: entry.standing.word().to_owned(), text: entry.standing.to_string() },
        breaker,
        outage: outage.map(outage_status),
        drained: known.drained.as_ref().map(|drain| drain_status(drain, moment)),
        lag_bytes: table.lag_of(entry),
        position: facts.and_then(|facts| facts.position).map(|position| position.to_string()),
        timeline: facts.and_then(|facts| facts.timeline).map(|timeline| timeline.0),
        ping_ms: known.latency.map(|latency| latency.as_secs_f64() * 1e3),
        next_ping_ms: moment.until(known.next_ping),
        pool: own.map(|stop| pool_use(stop, topology)).unwrap_or_default(),
        detours: topology.lines.values().filter_map(|line| detour_use(line, entry, topology)).collect(),
    }
}

fn service_status(service: &ServiceState, outages: &[OutageRecord], moment: Moment) -> ServiceStatus {
    let same = |outage: &&OutageRecord| {
        outage.closed.is_none() && outage.name == service.name.as_str() && *outage.address == *service.address
    };
    let open = service.outage.as_ref().and_then(|open| Some((open, outages.iter().rev().find(same)?)));
    ServiceStatus {
        name: service.name.to_string(),
        kind: service.kind.to_string(),
        address: Some(service.address.to_string()),
        state: service.state,
        outage: open.map(|((since, cause), outage)| OutageStatus {
            lasting_ms: moment.since(*since).0,
            cause: cause.to_string(),
            ..outage_status(outage)
        }),
        ping_ms: service.ping_took.map(|took| took.as_secs_f64() * 1e3),
        next_ping_ms: moment.until(service.next_ping),
    }
}

fn outage_status(outage: &OutageRecord) -> OutageStatus {
    OutageStatus {
        id: outage.id.clone(),
        since: outage.opened,
        lasting_ms: outage.lasted_ms,
        cause: outage.last_cause.clone(),
        detoured: outage.detoured,
        refused: outage.refused,
        failed: outage.failed,
    }
}

/// How much of the pool at this stop is in use. A group waits in line there as well.
fn pool_use<B: Backend>(stop: &Stop<B>, topology: &Topology<B>) -> PoolUse {
    let status = stop.pool.status();
    let stops = topology.lines.values().flat_map(|line| line.route.own().iter().chain(line.route.failover()));
    let same = stops.filter(|other| other.pool_address() == stop.pool_address());
    PoolUse {
        max: status.max_size as u64,
        size: status.size as u64,
        idle: status.idle as u64,
        lent: status.size.saturating_sub(status.idle) as u64,
        waiting: same.map(|stop| stop.queue.waiting() as u64).sum(),
    }
}

/// The detour of this line that leads to this server.
fn detour_use<B: Backend>(line: &Line<B>, entry: &Entry, topology: &Topology<B>) -> Option<DetourUse> {
    let stop = line.route.failover().iter().find(|stop| stop.server.name == entry.known.name)?;
    let pool = pool_use(stop, topology);
    let usable = stop.narrowed().map_or(pool.max, |narrowed| narrowed.usable as u64);
    Some(DetourUse { of: line.name.to_string(), size: pool.max, usable, pool })
}
