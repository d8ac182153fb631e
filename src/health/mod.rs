//! What do we believe about each server? The state machine, its cadences, and the word that everybody reads.

mod belief;

pub use self::belief::{Belief, Cell, Generation, Leases, Need, State, Tally};
