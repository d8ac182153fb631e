//! The routing decision: a few atomic loads, no clock, no lock, no allocation.

use std::sync::atomic::{AtomicUsize, Ordering};

use crate::{
    config::Balance,
    health::{Belief, Need},
};

/// One place a request may be sent to.
pub trait Candidate {
    /// What is believed about its server.
    fn belief(&self) -> Belief;

    /// Leases out on its server.
    fn load(&self) -> u32;
}

/// Where the requests of one alias go: its own servers, and in their outage the failover chain.
#[derive(Debug)]
pub struct Route<C> {
    need: Need,
    own: Box<[C]>,
    failover: Box<[C]>,
    balance: Balance,
    turn: AtomicUsize,
}

/// A candidate that was chosen.
#[derive(Debug)]
pub struct Choice<'a, C> {
    /// The candidate.
    pub candidate: &'a C,
    /// Whether it stands in for the alias's own servers.
    pub detour: bool,
    /// Whether nothing speaks against its server.
    pub clear: bool,
    /// What was believed about it when it was chosen.
    pub belief: Belief,
}

impl<C: Candidate> Route<C> {
    /// A route over its own servers, one or, for a group, several, and the chain that stands in for them.
    #[must_use]
    pub fn new(need: Need, own: Vec<C>, failover: Vec<C>, balance: Balance) -> Self {
        Self { need, own: own.into(), failover: failover.into(), balance, turn: AtomicUsize::new(0) }
    }

    /// Where a request goes now, or `None` if no server is usable.
    #[must_use]
    pub fn choose(&self) -> Option<Choice<'_, C>> {
        // A server alone has no turns to take: nothing is divided.
        if let [only] = &*self.own {
            return usable(only, self.need, false).or_else(|| self.failover().iter().find_map(stand_in));
        }
        self.plan().next()
    }

    /// All usable places for one request, best first; `choose` gives the first of them.
    pub fn plan(&self) -> impl Iterator<Item = Choice<'_, C>> {
        self.choices()
    }

    /// Whether any of the alias's own servers is usable.
    #[must_use]
    pub fn is_at_home(&self) -> bool {
        self.own.iter().any(|candidate| candidate.belief().serves(self.need))
    }

    /// The alias's own servers, usable or not.
    #[must_use]
    pub fn own(&self) -> &[C] {
        &self.own
    }

    /// The chain that stands in for them, usable or not.
    #[must_use]
    pub fn failover(&self) -> &[C] {
        &self.failover
    }

    /// What the alias's own servers have to serve.
    #[must_use]
    pub fn need(&self) -> Need {
        self.need
    }

    fn choices(&self) -> impl Iterator<Item = Choice<'_, C>> {
        let start = self.start();
        let count = self.own.len();
        let own = (0..count).map(move |offset| &self.own[(start + offset) % count]);
        let own = own.filter_map(|candidate| usable(candidate, self.need, false));
        let failover = self.failover.iter().filter_map(stand_in);
        own.chain(failover)
    }

    /// The member of a group that is asked first.
    fn start(&self) -> usize {
        if self.own.len() < 2 {
            return 0;
        }
        let turn = self.turn.fetch_add(1, Ordering::Relaxed);
        match self.balance {
            Balance::RoundRobin => self.nth_usable(turn),
            Balance::Random => self.nth_usable(scatter(turn)),
            Balance::LeastLoaded => self.least_loaded(turn),
        }
    }

    /// Counts usable members only: the share of one that is out goes to all others, not to its neighbour.
    fn nth_usable(&self, turn: usize) -> usize {
        let usable = || (0..self.own.len()).filter(|&index| self.own[index].belief().serves(self.need));
        let count = usable().count().max(1);
        // A member may have gone out between the two looks.
        usable().nth(turn % count).unwrap_or(0)
    }

    /// The usable member with the fewest leases out; on a tie they take turns.
    fn least_loaded(&self, turn: usize) -> usize {
        let count = self.own.len();
        let members = (0..count).map(|offset| (turn + offset) % count);
        members
            .filter(|&index| self.own[index].belief().serves(self.need))
            .min_by_key(|&index| self.own[index].load())
            .unwrap_or(turn % count)
    }
}

fn usable<C: Candidate>(candidate: &C, need: Need, detour: bool) -> Option<Choice<'_, C>> {
    let belief = candidate.belief();
    belief.serves(need).then(|| Choice { candidate, detour, clear: belief.is_clear(need), belief })
}

fn stand_in<C: Candidate>(candidate: &C) -> Option<Choice<'_, C>> {
    usable(candidate, Need::Reads, true)
}

/// Spreads a counter evenly and without pattern (the finalizer of SplitMix64), so that chance costs no lock.
fn scatter(turn: usize) -> usize {
    let mut z = (turn as u64).wrapping_add(1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    (z ^ (z >> 31)) as usize
}
