//! Which servers, in which order? The table of all servers, the routing decision, and its reasons.

mod explain;
mod route;
mod table;

pub use self::{
    explain::{Plan, Reason, Step},
    route::{Candidate, Choice, Route},
    table::{Entry, Judge, Known, Standing, Table},
};
