//! What everybody may know about a server at every moment: one atomic word, and the counters beside it.

use serde::{Deserialize, Serialize};

use super::{
    atomic::{AtomicU64, Ordering},
    leases::{LeaseCount, Leases},
};
use crate::striped::Alone;

/// What we believe about a server.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum State {
    /// It answers.
    Up,
    /// Something was seen that a ping has yet to explain. Reads still go there, over connections that are checked first.
    Suspect,
    /// It does not answer: an outage is open.
    Down,
    /// It has answered again, but not yet often enough: the outage is still open.
    Recovering,
}

/// Grows at each transition of a server into or out of an outage: evidence from before it is stale.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Generation(pub(crate) u32);

impl Generation {
    /// The one after this.
    #[doc(hidden)]
    #[must_use]
    pub const fn next(self) -> Self {
        Self(self.0.wrapping_add(1))
    }

    /// Whether this one is later than `other`, wrapping.
    #[must_use]
    pub const fn is_after(self, other: Self) -> bool {
        self.0.wrapping_sub(other.0).cast_signed() > 0
    }
}

/// A snapshot of one server, in one word.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Belief(u64);

const STATE: u64 = 0b11;
const READS: u64 = 1 << 2;
const WRITES: u64 = 1 << 3;
const ADMITS: u64 = 1 << 4;
const DOUBT: u64 = 1 << 5;
const ASKED: u64 = 1 << 6;
const RETIRED: u64 = 1 << 7;
const BEHIND: u64 = 1 << 8;
const TRIAL: u64 = 1 << 9;
const DRAINED: u64 = 1 << 10;
const GENERATION: u32 = 32;

/// What a route asks of a server.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Need {
    /// It answers reads.
    Reads,
    /// It answers, and is not known to refuse writes.
    Writes,
}

impl Need {
    const fn mask(self) -> u64 {
        match self {
            Self::Reads => READS,
            Self::Writes => READS | WRITES,
        }
    }

    /// What must not be, for a request to go there at once. A write has nowhere else to go.
    const fn blemishes(self) -> u64 {
        match self {
            Self::Reads => DOUBT | RETIRED | BEHIND,
            Self::Writes => DOUBT | RETIRED,
        }
    }
}

impl Belief {
    /// A server nobody has pinged yet: believed up until shown otherwise.
    #[doc(hidden)]
    pub const UNKNOWN: Self = Self(READS | WRITES | ADMITS);

    /// The belief of a server in `state`, serving reads and writes as its state allows.
    #[doc(hidden)]
    #[must_use]
    pub const fn new(state: State, generation: Generation) -> Self {
        let bits = match state {
            State::Up => READS | WRITES | ADMITS,
            State::Suspect => 1 | READS | WRITES | ADMITS | DOUBT,
            State::Down => 2,
            State::Recovering => 3,
        };
        Self(bits | (generation.0 as u64) << GENERATION)
    }

    /// The same, but taking no writes.
    #[doc(hidden)]
    #[must_use]
    pub const fn without_writes(self) -> Self {
        Self(self.0 & !WRITES)
    }

    /// The same, but taking no traffic at all.
    #[doc(hidden)]
    #[must_use]
    pub const fn without_traffic(self) -> Self {
        Self(self.0 & !(READS | WRITES))
    }

    /// The same, but admitting no new connection.
    #[doc(hidden)]
    #[must_use]
    pub const fn without_admission(self) -> Self {
        Self(self.0 & !ADMITS)
    }

    /// The same, but behind all others: its breaker is open.
    #[doc(hidden)]
    #[must_use]
    pub const fn behind(self) -> Self {
        Self(self.0 | BEHIND)
    }

    /// The same, but behind all others: somebody has had it drained. No request goes there on trial.
    #[doc(hidden)]
    #[must_use]
    pub const fn drained(self) -> Self {
        Self(self.0 | BEHIND | DRAINED)
    }

    /// The same, once the trial that it offers is taken.
    #[doc(hidden)]
    #[must_use]
    pub const fn tried(self) -> Self {
        Self(self.0 & !TRIAL)
    }

    /// Whether nothing but an open breaker speaks against it.
    #[must_use]
    pub const fn is_clear_but_behind(self, need: Need) -> bool {
        self.is_behind(need) && Self(self.0 & !BEHIND).is_clear(need)
    }

    /// The state.
    #[must_use]
    pub const fn state(self) -> State {
        match self.0 & STATE {
            0 if self.0 & DOUBT == 0 => State::Up,
            0 | 1 => State::Suspect,
            2 => State::Down,
            _ => State::Recovering,
        }
    }

    /// The generation.
    #[must_use]
    pub const fn generation(self) -> Generation {
        Generation((self.0 >> GENERATION) as u32)
    }

    /// Whether a route with this need may use the server.
    #[must_use]
    pub const fn serves(self, need: Need) -> bool {
        self.0 & need.mask() == need.mask()
    }

    /// Whether it may be used and nothing speaks against it: the common case, decided by one comparison.
    #[must_use]
    pub const fn is_clear(self, need: Need) -> bool {
        self.0 & (need.mask() | need.blemishes()) == need.mask()
    }

    /// Whether a route with this need goes to others first, where there are any.
    #[must_use]
    pub const fn is_behind(self, need: Need) -> bool {
        self.0 & BEHIND & need.blemishes() != 0
    }

    /// Whether one request is to go there all the same.
    #[must_use]
    pub const fn offers_trial(self) -> bool {
        self.0 & TRIAL != 0
    }

    /// Whether somebody has had it drained.
    #[must_use]
    pub const fn is_drained(self) -> bool {
        self.0 & DRAINED != 0
    }

    /// Whether new connections may be made.
    #[must_use]
    pub const fn admits(self) -> bool {
        self.0 & ADMITS != 0
    }

    /// Whether a connection has to be checked before it is lent.
    #[must_use]
    pub const fn is_doubted(self) -> bool {
        self.0 & DOUBT != 0
    }

    /// Whether the server has been doubted, or has gone or come back, since it was chosen in `generation` with nothing against it.
    #[doc(hidden)]
    #[must_use]
    pub const fn is_news_to(self, generation: Generation) -> bool {
        self.generation().0 != generation.0 || self.is_doubted()
    }

    /// Whether sessions made in `generation` may have to end.
    #[must_use]
    pub const fn outdates(self, generation: Generation) -> bool {
        self.generation().0 != generation.0 || self.is_retired()
    }

    /// Whether a reload has replaced this server.
    #[doc(hidden)]
    #[must_use]
    pub const fn is_retired(self) -> bool {
        self.0 & RETIRED != 0
    }
}

impl std::fmt::Debug for Belief {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Belief")
            .field("state", &self.state())
            .field("generation", &self.generation().0)
            .field("bits", &format_args!("{:#b}", self.0 & 0x7ff))
            .finish()
    }
}

/// What happened to requests for a server's own alias since its outage opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Tally {
    /// Reads another server took.
    pub detoured: u64,
    /// Requests that no server could take, or that came when the detour was full.
    pub refused: u64,
    /// Leases whose connection was lost while they were out.
    pub failed: u64,
}

/// The shared record of one server: the monitor writes beliefs, everybody reads them and may raise a doubt.
#[derive(Debug)]
pub struct Cell {
    // What every request reads: what is written beside it must not slow that.
    belief: Alone<AtomicU64>,
    leases: LeaseCount,
    detoured: AtomicU64,
    refused: AtomicU64,
    failed: AtomicU64,
}

impl Default for Cell {
    fn default() -> Self {
        Self {
            belief: Alone(AtomicU64::new(Belief::UNKNOWN.0)),
            leases: LeaseCount::default(),
            detoured: AtomicU64::new(0),
            refused: AtomicU64::new(0),
            failed: AtomicU64::new(0),
        }
    }
}

impl Cell {
    /// The current belief: one atomic load.
    #[must_use]
    #[inline]
    pub fn belief(&self) -> Belief {
        Belief(self.belief.0.load(Ordering::Acquire))
    }

    /// Replaces the belief. A doubt raised since the monitor last looked survives, unless the generation changes.
    /// Only the monitor calls this.
    pub fn publish(&self, belief: Belief) {
        let merge = |old: u64| {
            let stale = Belief(old).generation() != belief.generation();
            let doubts = if stale || old & ASKED == 0 || belief.0 & READS == 0 { 0 } else { DOUBT | ASKED };
            let trial = if belief.0 & (BEHIND | DRAINED) == BEHIND { old & TRIAL } else { 0 };
            Some(belief.0 | doubts | trial | old & RETIRED)
        };
        // The closure never returns None, so the update cannot fail.
        let _ = self.belief.0.fetch_update(Ordering::AcqRel, Ordering::Acquire, merge);
    }

    /// Raises a doubt with evidence from `generation`; older evidence changes nothing. True when somebody has to wake
    /// the monitor, which is once until it has looked.
    pub fn doubt(&self, generation: Generation) -> bool {
        let raise = |old: u64| {
            let current = Belief(old).generation() == generation && old & READS != 0;
            (current && old & ASKED == 0).then_some(old | DOUBT | ASKED)
        };
        self.belief.0.fetch_update(Ordering::AcqRel, Ordering::Acquire, raise).is_ok()
    }

    /// Whether a doubt was raised since the last call. Only the monitor calls this.
    pub fn take_doubt(&self) -> bool {
        self.belief.0.load(Ordering::Acquire) & ASKED != 0
            && self.belief.0.fetch_and(!ASKED, Ordering::AcqRel) & ASKED != 0
    }

    /// Lets one request through to a server that is behind the others. Only the monitor calls this.
    pub fn offer_trial(&self) {
        let offer = |old: u64| (old & (BEHIND | DRAINED) == BEHIND).then_some(old | TRIAL);
        // An error says that its breaker has closed, or that it is drained.
        let _ = self.belief.0.fetch_update(Ordering::AcqRel, Ordering::Acquire, offer);
    }

    /// Takes that request's place. True for one of all who try.
    pub fn take_trial(&self) -> bool {
        self.belief.0.load(Ordering::Acquire) & TRIAL != 0
            && self.belief.0.fetch_and(!TRIAL, Ordering::AcqRel) & TRIAL != 0
    }

    /// Marks the server as replaced by a reload.
    pub fn retire(&self) {
        self.belief.0.fetch_or(RETIRED, Ordering::AcqRel);
    }

    /// Counts a lease going out, or somebody who waits for one.
    pub fn lend(&self) {
        self.leases.lend();
    }

    /// Counts a lease that is out no more without an answer from the server: that its caller gave up waiting is no sign of life.
    pub fn give_up(&self) {
        self.leases.give_up();
    }

    /// Takes note that a lease comes back, wherever it was counted when it went out.
    #[inline]
    pub fn note_return(&self) {
        self.leases.note_return();
    }

    /// How many leases that are counted here are out, and whether some have come back.
    #[must_use]
    pub fn leases(&self) -> Leases {
        self.leases.now()
    }

    /// Counts a read that another server took.
    pub fn count_detoured(&self) {
        self.detoured.fetch_add(1, Ordering::Relaxed);
    }

    /// Counts a request that no server could take.
    pub fn count_refused(&self) {
        self.refused.fetch_add(1, Ordering::Relaxed);
    }

    /// Counts a lease whose connection was lost.
    pub fn count_failed(&self) {
        self.failed.fetch_add(1, Ordering::Relaxed);
    }

    /// The counts since the start.
    #[must_use]
    pub fn tally(&self) -> Tally {
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        Tally { detoured: read(&self.detoured), refused: read(&self.refused), failed: read(&self.failed) }
    }
}

impl std::ops::Sub for Tally {
    type Output = Self;

    fn sub(self, earlier: Self) -> Self {
        Self {
            detoured: self.detoured.wrapping_sub(earlier.detoured),
            refused: self.refused.wrapping_sub(earlier.refused),
            failed: self.failed.wrapping_sub(earlier.failed),
        }
    }
}
