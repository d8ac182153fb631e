//! Whose fault is it, and what now? What went wrong (`Fault`), whom it speaks against (`Class`), what became of the statement
//! (`Outcome`), whether the call is made again (`verdict`), how often (`Budget`) and how soon (`Backoff`), how long calls take
//! (`Latencies`), and when requests turn from a server that answers its pings all the same (`Breaker`). Which errors an old value is better
//! than (`excuses`).

mod ask;
mod backoff;
mod breaker;
mod bucket;
mod budget;
mod calls;
mod classify;
mod fallback;
mod latency;
mod outcome;
mod ramp;
mod retry;
mod squeeze;

/// What is shared without a lock stands on these. `tests/policy` puts loom's in their place.
mod atomic {
    pub(super) use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
}

pub use self::{
    backoff::Backoff,
    breaker::{Breaker, Shift, Trip},
    budget::Budget,
    calls::{Calls, Counts},
    classify::{Class, Fault, Network, Severity, Sqlstate},
    fallback::excuses,
    latency::Latencies,
    outcome::Outcome,
    retry::{Effort, Verdict, verdict},
};
pub(crate) use self::{bucket::Bucket, ramp::Ramp, squeeze::Squeeze};
