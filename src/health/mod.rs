//! What do we believe about each server? The state machine, its cadences, and the word that everybody reads.

mod ask;
mod belief;
mod bounds;
mod cadence;
mod change;
mod handover;
mod leases;
mod machine;
mod round;
mod signal;
mod slow;
mod status;
mod unwatched;

/// The word that everybody reads stands on these. `tests/shared_belief` puts loom's in their place.
mod atomic {
    pub(super) use std::sync::atomic::{AtomicU64, Ordering};
}

pub use self::{
    belief::{Belief, Generation, Need, State, Tally},
    bounds::Bounds,
    signal::{Cause, Facts, Lsn, SystemId, Timeline},
};
// For this crate's program, tests and benches: no part of the interface.
#[doc(hidden)]
pub use self::{
    belief::Cell,
    change::{Action, Change, Order},
    handover::Told,
    leases::Leases,
    machine::Health,
    signal::{Finding, Over, PingId, Signal},
    slow::SlowWatch,
};
