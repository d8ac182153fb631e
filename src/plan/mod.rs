//! Which servers, in which order? The table of all servers, the routing decision, and its reasons.

mod chain;
mod explain;
mod mode;
mod route;
mod table;

pub use self::{
    explain::{Narrowed, Plan, Reason, Step},
    mode::Mode,
    table::{Drain, Entry, Known, Standing, Table},
};
// For this crate's program, tests and benches: no part of the interface.
#[doc(hidden)]
pub use self::{
    chain::Chain,
    route::{Candidate, Choice, Places, Route},
    table::Judge,
};
