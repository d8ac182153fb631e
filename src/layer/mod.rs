//! What stands around an application's calls? Layers for tower and for tracing, which trigger the monitor or answer in its stead.

#[cfg(feature = "tracing-layer")]
mod errors;
#[cfg(feature = "tower")]
mod monitored;
#[cfg(feature = "tower")]
mod outage;
#[cfg(feature = "tower")]
mod rules;

#[cfg(feature = "tracing-layer")]
pub use self::errors::ErrorTrigger;
#[cfg(feature = "tower")]
pub use self::{
    monitored::{Monitored, MonitoredFuture, MonitoredLayer},
    outage::Outage,
    rules::{Closing, ClosingFuture, OutageLayer},
};
