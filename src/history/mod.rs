//! What is kept of outages for good? Which records are still to be stored, how they are written in `pgdetour.outages`, and what a
//! report makes of them. Who stores them is `router/history.rs`.

mod report;
mod spans;
mod spool;
mod table;

pub use self::{
    report::{Incident, NameReport, Report, Scope, Span},
    table::{SELECT, SeenOutage},
};
pub(crate) use self::{
    spool::Spool,
    table::{delete_before, upsert},
};
