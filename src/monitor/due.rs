//! Is anything to be pinged? One atomic word that the monitor writes, and that whoever triggers it reads.

use std::sync::{
    Arc,
    atomic::{AtomicU32, Ordering},
};

use crate::striped::Alone;

/// What the monitor says of its next pings. It looks at the clock when they are due, so that nobody else has to: to ask costs one
/// atomic load.
///
/// Every topology of a router shares the word, and only the one that leads writes it: what the monitor before a reload still says
/// is not heard.
#[derive(Debug, Clone)]
pub(crate) struct Due {
    // Every request reads it.
    word: Arc<Alone<AtomicU32>>,
    owner: u32,
}

/// Pings are due or under way.
const BUSY: u32 = 1;
/// Of a server that is out.
const OUT: u32 = 1 << 1;
/// An error was told that asks for a ping.
const URGED: u32 = 1 << 2;
/// Pings are sent for those alone who ask: above all other flags, so that one comparison tells that there is another.
const ON_DEMAND: u32 = 1 << 7;
const FLAGS: u32 = 0xff;
/// Above this: who writes.
const OWNER: u32 = 8;

/// What is due or under way.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Appointments {
    /// Any ping.
    pub(super) any: bool,
    /// One of a server that is out.
    pub(super) out: bool,
}

impl Default for Due {
    fn default() -> Self {
        Self { word: Arc::new(Alone(AtomicU32::new(0))), owner: 0 }
    }
}

impl Due {
    /// For the monitor that comes after this one.
    #[must_use]
    pub(super) fn next(&self) -> Self {
        Self { word: Arc::clone(&self.word), owner: self.owner.wrapping_add(1) & (u32::MAX >> OWNER) }
    }

    /// From now on the monitor of this one writes. Until it does, whoever asks goes to it.
    pub(crate) fn lead(&self, on_demand: bool) {
        let demand = if on_demand { ON_DEMAND } else { 0 };
        self.word.0.store(self.owner << OWNER | demand | BUSY, Ordering::Release);
    }

    /// Nothing is pinged any more.
    pub(crate) fn stop(&self) {
        self.update(|_| Some(0));
    }

    /// Whether a ping is due that nobody sends unless he is asked to.
    #[inline]
    pub(crate) fn is_due(&self) -> bool {
        self.load() & FLAGS > ON_DEMAND
    }

    /// The same, of a server that is out.
    #[inline]
    pub(crate) fn is_recovery_due(&self) -> bool {
        self.load() & (ON_DEMAND | OUT) == ON_DEMAND | OUT
    }

    /// Whether pings are due or under way, whoever sends them, or asked for.
    pub(crate) fn is_busy(&self) -> bool {
        self.load() & (BUSY | URGED) != 0
    }

    /// Takes note that an error asks for a ping. True if nobody had, since the monitor last looked.
    pub(crate) fn urge(&self) -> bool {
        self.load() & URGED == 0 && self.word.0.fetch_or(URGED, Ordering::AcqRel) & URGED == 0
    }

    /// Whether an error has asked since the last call. Until the monitor says what is due, something is. Only the monitor calls this.
    pub(super) fn take_urge(&self) -> bool {
        self.load() & URGED != 0 && self.update(|flags| (flags & URGED != 0).then_some(flags & !URGED | BUSY))
    }

    /// Says what is due. Only the monitor calls this.
    pub(super) fn tell(&self, due: Appointments) {
        let told = if due.any { BUSY } else { 0 } | if due.out { OUT } else { 0 };
        self.update(|flags| Some(flags & (ON_DEMAND | URGED) | told).filter(|new| *new != flags));
    }

    fn load(&self) -> u32 {
        self.word.0.load(Ordering::Acquire)
    }

    /// Changes the flags, if they are this one's.
    fn update(&self, change: impl Fn(u32) -> Option<u32>) -> bool {
        let change = |word: u32| {
            let mine = word >> OWNER == self.owner;
            let flags = mine.then(|| change(word & FLAGS)).flatten()?;
            Some(self.owner << OWNER | flags)
        };
        self.word.0.fetch_update(Ordering::AcqRel, Ordering::Acquire, change).is_ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SOME: Appointments = Appointments { any: true, out: true };

    #[test]
    fn what_the_monitor_before_a_reload_still_says_is_not_heard() {
        let old = Due::default();
        old.lead(true);
        let new = old.next();
        new.lead(true);
        new.tell(Appointments::default());
        old.tell(SOME);
        old.stop();
        assert!(!new.is_due() && !new.is_busy() && !old.is_due());
        new.tell(SOME);
        assert!(old.is_due() && old.is_recovery_due(), "handles of before the reload hear the new one");
    }

    #[test]
    fn an_error_that_is_told_while_the_monitor_looks_is_not_lost() {
        let due = Due::default();
        due.lead(true);
        assert!(due.urge() && !due.urge());
        assert!(due.take_urge() && due.is_due(), "until it has looked something is due");
        assert!(due.urge());
        due.tell(Appointments::default());
        assert!(due.is_due() && due.take_urge() && !due.take_urge());
    }

    #[test]
    fn with_background_monitoring_nothing_is_due_for_anybody_who_asks() {
        let due = Due::default();
        due.lead(false);
        due.tell(SOME);
        assert!(due.is_busy() && !due.is_due() && !due.is_recovery_due());
    }
}
