//! What became of requests and calls: counted where each of them ends, and not before somebody wants to know.
//!
//! The common case of a request pays for a look at a flag, and while that is set for one addition to a cell of its thread's own.

use std::{
    collections::BTreeMap,
    fmt,
    sync::{
        Arc, Mutex, MutexGuard, OnceLock, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Instant,
};

use super::line::Line;
use crate::{
    clock,
    config::AliasName,
    health::{Belief, State},
    plan::Candidate,
    policy::Outcome,
    pool::{Backend, Server, Times},
    striped::{Alone, Striped},
};

/// All that is counted of one router. Reloads do not interrupt it.
#[derive(Debug, Default)]
pub(crate) struct Meter {
    lines: Mutex<Lines>,
}

#[derive(Debug, Default)]
struct Lines {
    on: bool,
    of: BTreeMap<AliasName, Arc<Count>>,
    to: BTreeMap<(AliasName, AliasName), Arc<Toll>>,
}

/// What is counted of one alias.
#[derive(Default)]
pub(crate) struct Count {
    refused: [AtomicU64; Refused::ALL.len()],
    calls: [[AtomicU64; ENDS.len()]; CALLS.len()],
    /// How long requests took that had to wait. Set: somebody wants to know.
    waits: OnceLock<Times>,
}

/// What is counted of one alias's way to one server.
#[derive(Debug)]
pub(crate) struct Toll {
    on: AtomicBool,
    routes: Striped<Alone<[AtomicU64; Reason::ALL.len()]>>,
    attempts: [[AtomicU64; ENDS.len()]; CALLS.len()],
}

/// Why a request got its connection there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Reason {
    /// It is the alias's own server.
    Own,
    /// That one is down.
    Down,
    /// It answers pings again, not often enough yet.
    Recovering,
    /// Somebody has had it drained.
    Drained,
    /// Its breaker is open.
    Behind,
    /// It had no connection to give, or has just failed the same call.
    Refused,
}

/// Why a request got no connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Refused {
    /// Its own pool had none in time, or too many waited.
    Overloaded,
    /// No server of its plan was usable.
    Unavailable,
    /// A deadline around it passed.
    Late,
}

/// What a call does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Call {
    Read,
    Write,
}

const CALLS: [&str; 2] = ["read", "write"];
const ENDS: [&str; 4] = ["answered", "not-sent", "rolled-back", "unknown"];

/// One number of a [`Meter`].
#[derive(Debug, Clone, PartialEq, Eq)]
#[cfg_attr(not(feature = "metrics"), allow(dead_code, reason = "nobody else asks"))]
pub(crate) struct Reading {
    pub(crate) alias: AliasName,
    /// None: it is about the alias as a whole.
    pub(crate) server: Option<AliasName>,
    pub(crate) what: What,
    pub(crate) count: u64,
}

/// What a [`Reading`] counts, each with its stable words.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[cfg_attr(not(feature = "metrics"), allow(dead_code, reason = "nobody else asks"))]
pub(crate) enum What {
    Routed { reason: &'static str },
    Refused { reason: &'static str },
    Called { call: &'static str, outcome: &'static str },
    Attempted { call: &'static str, outcome: &'static str },
}

impl Reason {
    const ALL: [Self; 6] = [Self::Own, Self::Down, Self::Recovering, Self::Drained, Self::Behind, Self::Refused];

    /// Why a request took a detour past an own server of which this is believed.
    pub(crate) fn past(belief: Belief) -> Self {
        match belief.state() {
            State::Down => Self::Down,
            State::Recovering => Self::Recovering,
            State::Up | State::Suspect if belief.is_drained() => Self::Drained,
            State::Up | State::Suspect if belief.is_behind(crate::health::Need::Reads) => Self::Behind,
            State::Up | State::Suspect => Self::Refused,
        }
    }

    #[cfg(feature = "metrics")]
    fn word(self) -> &'static str {
        match self {
            Self::Own => "own",
            Self::Down => "down",
            Self::Recovering => "recovering",
            Self::Drained => "drained",
            Self::Behind => "behind",
            Self::Refused => "refused",
        }
    }
}

impl Refused {
    const ALL: [Self; 3] = [Self::Overloaded, Self::Unavailable, Self::Late];

    #[cfg(feature = "metrics")]
    fn word(self) -> &'static str {
        match self {
            Self::Overloaded => "overloaded",
            Self::Unavailable => "unavailable",
            Self::Late => "late",
        }
    }
}

impl Meter {
    /// The counts of this alias.
    pub(super) fn count_of(&self, alias: &AliasName) -> Arc<Count> {
        Arc::clone(self.lock().of.entry(alias.clone()).or_default())
    }

    /// The counts of this alias's way to this server.
    pub(super) fn toll_of(&self, alias: &AliasName, server: &AliasName) -> Arc<Toll> {
        let mut lines = self.lock();
        let on = lines.on;
        let of = (alias.clone(), server.clone());
        Arc::clone(lines.to.entry(of).or_insert_with(|| Arc::new(Toll::new(on))))
    }

    fn lock(&self) -> MutexGuard<'_, Lines> {
        self.lines.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(feature = "metrics")]
impl Meter {
    /// Begins to count routes, and hands out how long requests wait: `waits` is asked once for each alias.
    pub(crate) fn turn_on(&self, waits: impl Fn(&AliasName) -> Times) {
        let mut lines = self.lock();
        lines.on = true;
        lines.to.values().for_each(|toll| toll.on.store(true, Ordering::Relaxed));
        for (alias, count) in &lines.of {
            count.waits.get_or_init(|| waits(alias));
        }
    }

    /// Everything counted so far of what the configuration has now: what nobody but this holds any more, a reload has taken away.
    pub(crate) fn read(&self) -> Vec<Reading> {
        let mut lines = self.lock();
        lines.of.retain(|_, count| Arc::strong_count(count) > 1);
        lines.to.retain(|_, toll| Arc::strong_count(toll) > 1);
        let of = lines.of.iter().flat_map(|(alias, count)| {
            count.read().into_iter().map(|(what, count)| Reading { alias: alias.clone(), server: None, what, count })
        });
        let to = lines.to.iter().flat_map(|((alias, server), toll)| {
            let reading = |(what, count)| Reading { alias: alias.clone(), server: Some(server.clone()), what, count };
            toll.read().into_iter().map(reading)
        });
        of.chain(to).collect()
    }
}

impl Count {
    /// A request got no connection.
    pub(super) fn refused(&self, why: Refused) {
        self.refused[why as usize].fetch_add(1, Ordering::Relaxed);
    }

    /// A call has ended: answered, or with this outcome.
    pub(super) fn called(&self, call: Call, outcome: Option<Outcome>) {
        self.calls[call as usize][end(outcome)].fetch_add(1, Ordering::Relaxed);
    }

    /// A request that could not be served at once got its connection after so long.
    pub(super) fn waited(&self, since: Option<Instant>) {
        let wanted = self.waits.get().zip(since);
        wanted.into_iter().for_each(|(times, since)| times.0(clock::now().saturating_duration_since(since)));
    }

    /// The moment at which a request could not be served at once, if somebody wants to know.
    pub(super) fn begin(&self) -> Option<Instant> {
        self.waits.get().map(|_| clock::now())
    }

    #[cfg(feature = "metrics")]
    fn read(&self) -> Vec<(What, u64)> {
        let refused = Refused::ALL.iter().zip(&self.refused);
        let refused = refused.map(|(why, cell)| (What::Refused { reason: why.word() }, cell.load(Ordering::Relaxed)));
        refused.chain(ends(&self.calls, |call, outcome| What::Called { call, outcome })).collect()
    }
}

impl Default for Toll {
    fn default() -> Self {
        Self::new(false)
    }
}

impl Toll {
    fn new(on: bool) -> Self {
        Self { on: AtomicBool::new(on), routes: Striped::new(Alone::default), attempts: Default::default() }
    }

    /// A request got a connection there.
    #[inline]
    pub(super) fn routed(&self, reason: Reason) {
        if self.on.load(Ordering::Relaxed) {
            self.routes.mine().0[reason as usize].fetch_add(1, Ordering::Relaxed);
        }
    }

    /// An attempt of a call has ended there: answered, or with this outcome.
    pub(super) fn attempted(&self, call: Call, outcome: Option<Outcome>) {
        self.attempts[call as usize][end(outcome)].fetch_add(1, Ordering::Relaxed);
    }

    #[cfg(feature = "metrics")]
    fn read(&self) -> Vec<(What, u64)> {
        let of = |reason: Reason| -> u64 {
            self.routes.all().iter().map(|stripe| stripe.0[reason as usize].load(Ordering::Relaxed)).sum()
        };
        let routes = Reason::ALL.iter().map(|reason| (What::Routed { reason: reason.word() }, of(*reason)));
        routes.chain(ends(&self.attempts, |call, outcome| What::Attempted { call, outcome })).collect()
    }
}

fn end(outcome: Option<Outcome>) -> usize {
    match outcome {
        None => 0,
        Some(Outcome::NotSent) => 1,
        Some(Outcome::RolledBack) => 2,
        Some(Outcome::Unknown) => 3,
    }
}

#[cfg(feature = "metrics")]
fn ends(
    cells: &[[AtomicU64; ENDS.len()]; CALLS.len()],
    what: impl Fn(&'static str, &'static str) -> What,
) -> Vec<(What, u64)> {
    let calls = CALLS.iter().zip(cells);
    let each = calls.flat_map(|(call, cells)| ENDS.iter().zip(cells).map(move |(end, cell)| (call, end, cell)));
    each.map(|(call, outcome, cell)| (what(call, outcome), cell.load(Ordering::Relaxed))).collect()
}

impl fmt::Debug for Count {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Count").field("refused", &self.refused).field("calls", &self.calls).finish_non_exhaustive()
    }
}
impl<B: Backend> Line<B> {
    /// An attempt of a call has ended on this server: answered, or with this outcome.
    pub(super) fn attempted(&self, server: &Server, call: Call, outcome: Option<Outcome>) {
        let mut stops = self.route.own().iter().chain(self.route.failover());
        let stop = stops.find(|stop| stop.server_address() == server.identity());
        stop.into_iter().for_each(|stop| stop.toll.attempted(call, outcome));
    }

    /// Why a request is on a detour: what is believed of the first own server.
    pub(super) fn reason(&self) -> Reason {
        self.route.own().first().map_or(Reason::Refused, |stop| Reason::past(stop.belief()))
    }
}
