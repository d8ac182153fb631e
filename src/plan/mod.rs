//! Which servers, in which order? The table of all servers, the routing decision, and its reasons.

mod chain;
mod explain;
mod route;
mod table;

pub use self::{
    chain::Chain,
    explain::{Plan, Reason, Step},
    route::{Candidate, Choice, Route},
    table::{Entry, Judge, Known, Standing, Table},
};
