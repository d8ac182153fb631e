//! What do we believe about each server? The state machine, its cadences, and the word that everybody reads.

mod belief;
mod bounds;
mod cadence;
mod change;
mod machine;
mod round;
mod signal;
mod slow;
mod status;

pub use self::{
    belief::{Belief, Cell, Generation, Leases, Need, State, Tally},
    bounds::Bounds,
    change::{Action, Change, Order},
    machine::Health,
    signal::{Cause, Facts, Finding, Lsn, Over, PingId, Signal, SystemId, Timeline},
    slow::SlowWatch,
};
