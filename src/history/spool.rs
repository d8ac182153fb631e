//! Which outages has the database yet to be told of? Bounded, so that a primary that stays away costs no memory.

use std::collections::VecDeque;

use crate::observe::OutageRecord;

/// Outages that wait at most.
const SIZE: usize = 1000;

/// Outages that stored records are remembered of: more than the router keeps itself.
const REMEMBERED: usize = 2 * SIZE;

/// What is to be stored, the oldest first.
#[derive(Debug, Default)]
pub(crate) struct Spool {
    waiting: VecDeque<OutageRecord>,
    /// What the database has, to know what is news.
    stored: VecDeque<OutageRecord>,
    lost: u64,
}

impl Spool {
    /// Takes in what the router knows of its outages. What the database has as it is, does not wait.
    pub(crate) fn note(&mut self, outages: impl IntoIterator<Item = OutageRecord>) {
        for outage in outages {
            if self.stored.contains(&outage) {
                continue;
            }
            match self.waiting.iter_mut().find(|waiting| waiting.id == outage.id) {
                Some(waiting) => *waiting = outage,
                None => self.waiting.push_back(outage),
            }
        }
        while self.waiting.len() > SIZE {
            self.waiting.pop_front();
            self.lost += 1;
        }
    }

    /// At most so many of those that wait.
    pub(crate) fn batch(&self, size: usize) -> Vec<OutageRecord> {
        self.waiting.iter().take(size).cloned().collect()
    }

    /// The database has these now. One that has gone on meanwhile goes on waiting.
    pub(crate) fn confirm(&mut self, batch: Vec<OutageRecord>) {
        self.waiting.retain(|waiting| !batch.contains(waiting));
        for outage in batch {
            self.stored.retain(|stored| stored.id != outage.id);
            self.stored.push_back(outage);
        }
        let beyond = self.stored.len().saturating_sub(REMEMBERED);
        self.stored.drain(..beyond);
    }

    /// All that wait.
    pub(crate) fn waiting(&self) -> impl Iterator<Item = &OutageRecord> {
        self.waiting.iter()
    }

    /// How many were given up since this was asked last, since too many waited.
    pub(crate) fn take_lost(&mut self) -> u64 {
        std::mem::take(&mut self.lost)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::history::table::tests::outage;

    fn ids(spool: &Spool) -> Vec<String> {
        spool.waiting().map(|outage| outage.id.clone()).collect()
    }

    #[test]
    fn an_outage_waits_until_it_is_stored_and_again_when_it_has_gone_on() {
        let (open, closed) = (outage("a", 10, None), outage("a", 10, Some(20)));
        let mut spool = Spool::default();
        spool.note([open.clone()]);
        let batch = spool.batch(10);
        spool.note([closed.clone()]);
        spool.confirm(batch);
        assert_eq!(spool.batch(10), std::slice::from_ref(&closed), "what was sent was the opening");
        spool.confirm(vec![closed.clone()]);
        spool.note([closed]);
        assert_eq!(spool.batch(10), []);
    }

    #[test]
    fn of_too_many_the_oldest_are_given_up_and_counted() {
        let mut spool = Spool::default();
        spool.note((0..1003).map(|at| outage(&format!("{at:04}"), at, Some(at + 1))));
        assert_eq!(
            (ids(&spool).len(), ids(&spool)[0].as_str(), spool.take_lost(), spool.take_lost()),
            (1000, "0003", 3, 0)
        );
    }

    #[test]
    fn what_is_remembered_is_bounded() {
        let mut spool = Spool::default();
        for at in 0..3000 {
            spool.note([outage(&at.to_string(), at, Some(at + 1))]);
            let batch = spool.batch(10);
            spool.confirm(batch);
        }
        assert_eq!((spool.waiting.len(), spool.stored.len()), (0, REMEMBERED));
    }
}
