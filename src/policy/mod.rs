//! Whose fault is it, and what now? What went wrong (`Fault`), whom it speaks against (`Class`), and what became of the statement (`Outcome`).

mod classify;
mod outcome;

pub use self::classify::{Class, Fault, Network, Severity, Sqlstate};
pub use self::outcome::Outcome;
