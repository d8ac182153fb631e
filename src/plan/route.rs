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

    /// Takes the place of the one request that is let through to a server whose breaker is open. True for one of all who try.
    fn take_trial(&self) -> bool {
        false
    }
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

    /// Where a request goes now, or `None` if no server is usable. It may be the one that tries a server whose breaker is open.
    #[must_use]
    pub fn choose(&self) -> Option<Choice<'_, C>> {
        // A server alone has no turns to take: nothing is divided.
        if let [only] = &*self.own
            && let Some(choice) = usable(only, self.need, false).filter(|choice| !choice.belief.is_behind(self.need))
        {
            return Some(choice);
        }
        self.own.iter().find_map(|candidate| self.trial(candidate)).or_else(|| self.plan().next())
    }

    /// All usable places for one request, best first: its own, those that stand in, and then those whose breaker is open.
    #[must_use]
    pub fn plan(&self) -> Places<'_, C> {
        Places { route: self, start: self.start(), next: 0, behind: 0 }
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

    /// This candidate, if a request is wanted there on trial and nothing but its breaker speaks against it.
    fn trial<'a>(&self, candidate: &'a C) -> Option<Choice<'a, C>> {
        let belief = candidate.belief();
        let wanted = belief.offers_trial() && belief.is_clear_but_behind(self.need);
        let choice = Choice { candidate, detour: false, clear: true, belief: belief.tried() };
        (wanted && candidate.take_trial()).then_some(choice)
    }

    /// Whether a member of a group is usable and no others go before it.
    fn is_foremost(&self, index: usize) -> bool {
        let belief = self.own[index].belief();
        belief.serves(self.need) && !belief.is_behind(self.need)
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
        let usable = || (0..self.own.len()).filter(|&index| self.is_foremost(index));
        let count = usable().count().max(1);
        // A member may have gone out between the two looks.
        usable().nth(turn % count).unwrap_or(0)
    }

    /// The usable member with the fewest leases out; on a tie they take turns.
    fn least_loaded(&self, turn: usize) -> usize {
        let count = self.own.len();
        let members = (0..count).map(|offset| (turn + offset) % count);
        members
            .filter(|&index| self.is_foremost(index))
            .min_by_key(|&index| self.own[index].load())
            .unwrap_or(turn % count)
    }
}

/// The usable places of a route, in order. Each belief is read once, and once more for those that others go before.
#[derive(Debug)]
pub struct Places<'a, C> {
    route: &'a Route<C>,
    start: usize,
    next: usize,
    /// Those that were passed over, by their bits: a server whose breaker opens or closes meanwhile is named once all the same.
    behind: u64,
}

impl<'a, C: Candidate> Places<'a, C> {
    fn at(&self, index: usize) -> Option<Option<Choice<'a, C>>> {
        let Route { own, failover, need, .. } = self.route;
        if index < own.len() {
            return Some(usable(&own[(self.start + index) % own.len()], *need, false));
        }
        Some(usable(failover.get(index - own.len())?, Need::Reads, true))
    }
}

impl<'a, C: Candidate> Iterator for Places<'a, C> {
    type Item = Choice<'a, C>;

    fn next(&mut self) -> Option<Choice<'a, C>> {
        while let Some(found) = self.at(self.next) {
            let index = self.next;
            self.next += 1;
            let Some(choice) = found else { continue };
            let need = if choice.detour { Need::Reads } else { self.route.need };
            // Who is one of more than 64 goes behind nobody.
            match 1_u64.checked_shl(u32::try_from(index).unwrap_or(u32::MAX)) {
                Some(bit) if choice.belief.is_behind(need) => self.behind |= bit,
                Some(_) | None => return Some(choice),
            }
        }
        while self.behind != 0 {
            let index = self.behind.trailing_zeros();
            self.behind &= self.behind - 1;
            if let Some(Some(choice)) = self.at(index as usize) {
                return Some(choice);
            }
        }
        None
    }
}

fn usable<C: Candidate>(candidate: &C, need: Need, detour: bool) -> Option<Choice<'_, C>> {
    let belief = candidate.belief();
    belief.serves(need).then(|| Choice { candidate, detour, clear: belief.is_clear(need), belief })
}

/// Spreads a counter evenly and without pattern (the finalizer of SplitMix64), so that chance costs no lock.
fn scatter(turn: usize) -> usize {
    let mut z = (turn as u64).wrapping_add(1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    (z ^ (z >> 31)) as usize
}
