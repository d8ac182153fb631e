//! Whose fault is it? What went wrong (`Fault`), and whom it speaks against (`Class`).

mod classify;

pub use self::classify::{Class, Fault, Network, Severity, Sqlstate};
