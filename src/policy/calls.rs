//! What became of the calls that were made on one server: counters that every call may add to.

use std::{sync::Arc, time::Duration};

use super::{
    atomic::{AtomicU64, Ordering},
    classify::{Class, Fault},
};

/// The calls on one server since the start. A call that failed is not counted as slow too, so that each adds to two at most.
#[derive(Debug)]
pub struct Calls {
    counters: Arc<Counters>,
    slow_after: Duration,
}

#[derive(Debug, Default)]
struct Counters {
    made: AtomicU64,
    failed: AtomicU64,
    slow: AtomicU64,
}

/// How many calls were made, and how many of them failed or were slow.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Counts {
    /// All of them.
    pub made: u64,
    /// Those that the server failed.
    pub failed: u64,
    /// Those that it answered slowly, or that a server which was asked later has answered before it.
    pub slow: u64,
}

/// What one call says of its server.
enum Said {
    Answered,
    Failed,
    Nothing,
}

impl Calls {
    /// Counters that take a call of this length and more for slow.
    #[must_use]
    pub fn new(slow_after: Duration) -> Self {
        Self { counters: Arc::default(), slow_after }
    }

    /// The same counters, to which others may add too, with another opinion of what is slow: after a reload.
    #[must_use]
    pub fn resumed(&self, slow_after: Duration) -> Self {
        Self { counters: Arc::clone(&self.counters), slow_after }
    }

    /// Counts a call that took this long and ended well (`None`) or with a fault. What speaks of neither the server nor the way to it
    /// is not counted: a full pool, a wrong setting, a replica's conflict with replay.
    pub fn record(&self, fault: Option<Fault>, took: Duration) {
        let counter = match fault.map_or(Said::Answered, Said::by) {
            Said::Failed => Some(&self.counters.failed),
            Said::Answered => (took >= self.slow_after).then_some(&self.counters.slow),
            Said::Nothing => return,
        };
        self.counters.made.fetch_add(1, Ordering::Relaxed);
        if let Some(counter) = counter {
            counter.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Counts a call that its caller gave up after this long, the server being still at it. Where that is not even slow it says
    /// nothing: the caller was in a hurry.
    pub fn record_late(&self, took: Duration) {
        if took >= self.slow_after {
            self.record(Some(Fault::Late), took);
        }
    }

    /// Counts a call that was called back after this long because another server has answered it, the server being still at it. It
    /// was slow if it took as long as a slow call does, or if the other one was `overtaking`, having begun so much later. Else it
    /// says nothing: this server may have been as fast.
    pub fn record_lost(&self, took: Duration, overtaking: bool) {
        if overtaking || took >= self.slow_after {
            self.record(None, took.max(self.slow_after));
        }
    }

    /// The counts so far.
    #[must_use]
    pub fn counts(&self) -> Counts {
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        let Counters { made, failed, slow } = &*self.counters;
        Counts { made: read(made), failed: read(failed), slow: read(slow) }
    }
}

impl Said {
    fn by(fault: Fault) -> Self {
        match fault.class() {
            Class::Hard | Class::Soft => Self::Failed,
            // It has understood the statement and said what is wrong with it.
            Class::Application => Self::Answered,
            Class::Overload | Class::Role | Class::Config | Class::Local | Class::Conflict => Self::Nothing,
        }
    }
}

impl Counts {
    /// What was counted since `earlier`.
    #[must_use]
    pub fn since(self, earlier: Self) -> Self {
        Self {
            made: self.made.wrapping_sub(earlier.made),
            failed: self.failed.wrapping_sub(earlier.failed),
            slow: self.slow.wrapping_sub(earlier.slow),
        }
    }
}
