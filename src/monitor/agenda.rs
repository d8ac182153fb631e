//! Which server is to be turned to when: what happens to one of a thousand costs the others nothing.

use std::{collections::BTreeSet, time::Instant};

/// A moment for each server.
#[derive(Debug)]
pub(super) struct Agenda {
    /// By server.
    moments: Vec<Instant>,
    /// The same by time.
    order: BTreeSet<(Instant, usize)>,
}

impl Agenda {
    /// All of so many servers at this moment.
    pub(super) fn all_at(moment: Instant, servers: usize) -> Self {
        Self { moments: vec![moment; servers], order: (0..servers).map(|server| (moment, server)).collect() }
    }

    /// Turns to this server at this moment, and not when it was to be before.
    pub(super) fn set(&mut self, server: usize, moment: Instant) {
        let before = std::mem::replace(&mut self.moments[server], moment);
        if before != moment {
            self.order.remove(&(before, server));
            self.order.insert((moment, server));
        }
    }

    /// At this moment at the latest.
    pub(super) fn hasten(&mut self, server: usize, moment: Instant) {
        self.set(server, moment.min(self.moments[server]));
    }

    /// Those whose moment has come.
    pub(super) fn due(&self, now: Instant) -> Vec<usize> {
        self.order.iter().take_while(|(moment, _)| *moment <= now).map(|(_, server)| *server).collect()
    }

    /// When the next one's comes.
    pub(super) fn next(&self) -> Option<Instant> {
        self.order.first().map(|(moment, _)| *moment)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn whatever_is_set_the_servers_that_are_due_are_those_whose_last_moment_has_come() {
        let (start, mut chance) = (crate::clock::now(), fastrand::Rng::with_seed(7));
        let (mut agenda, mut model) = (Agenda::all_at(start, 9), [start; 9]);
        for _ in 0..2_000 {
            let (server, moment) = (chance.usize(..9), start + Duration::from_millis(chance.u64(..50)));
            if chance.bool() {
                agenda.set(server, moment);
                model[server] = moment;
            } else {
                agenda.hasten(server, moment);
                model[server] = model[server].min(moment);
            }
            let now = start + Duration::from_millis(chance.u64(..50));
            let mut due = agenda.due(now);
            due.sort_unstable();
            assert_eq!(due, (0..9).filter(|server| model[*server] <= now).collect::<Vec<_>>());
            assert_eq!(agenda.next(), model.iter().min().copied());
        }
    }
}
