//! What do numbers say of it over time? Everything a router knows of itself, for the recorder that the application has for the
//! `metrics` facade.
//!
//! ```no_run
//! # #[cfg(feature = "deadpool")]
//! # async fn example() -> Result<(), Box<dyn std::error::Error>> {
//! // After the application has installed its recorder:
//! let router: pgdetour::Router = pgdetour::Router::from_file("pgdetour.toml").await?;
//! pgdetour::metrics::observe(&router);
//! # Ok(())
//! # }
//! ```
//!
//! Requests pay next to nothing for it: what can be read is read every few seconds and at each event, and routes
//! are counted in cells of each thread's own. Only what had to wait anyway hands a duration to the recorder.
//!
//! Labels are closed sets: the aliases of the configuration, and words listed at each of [`ALL`]. No text of a server becomes one.
//! When a reload takes an alias away its gauges become `NaN`, and nothing of it is touched any more: a recorder that forgets
//! what is idle (the Prometheus exporter's `idle_timeout`) drops them.

mod names;
mod sample;
mod series;

use std::{
    fmt,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use ::metrics::Recorder;

pub use self::names::{ALL, Kind, Metric, SECONDS};
use self::{names::describe, sample::Sampler, series::Target};
use crate::{observe::Event, pool::Backend, router::Router};

/// How often what is read is read, besides at each event.
pub const EVERY: Duration = Duration::from_secs(5);

/// Tells the application's recorder about this router from now on, until the router ends. Once for each router: what is told
/// twice is counted twice.
///
/// It starts a task in the Tokio runtime this is called in, which does not keep the router running. The recorder has to be
/// installed before.
pub fn observe<B: Backend>(router: &Router<B>) -> Observed {
    observe_by(router, Target::Global)
}

/// The same for this recorder, which need not be installed.
pub fn observe_with<B: Backend>(router: &Router<B>, recorder: Arc<dyn Recorder + Send + Sync>) -> Observed {
    observe_by(router, Target::Own(recorder))
}

fn observe_by<B: Backend>(router: &Router<B>, target: Target) -> Observed {
    target.within(describe);
    let weak = router.downgrade();
    let sampler = Mutex::new(Sampler::new(target));
    let look: Look = Box::new(move |event| {
        let mut sampler = sampler.lock().unwrap_or_else(PoisonError::into_inner);
        match weak.upgrade() {
            Some(router) => sampler.look(&router, event),
            None => sampler.end(),
        }
    });
    let observed = Observed { look: Arc::new(look) };
    observed.refresh();
    let (mut events, following) = (router.events(), observed.clone());
    tokio::spawn(async move {
        let mut ticks = tokio::time::interval(EVERY);
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                event = events.next() => match event {
                    Some(event) => (following.look)(Some(&event)),
                    None => break,
                },
                _ = ticks.tick() => following.refresh(),
            }
        }
        following.refresh();
    });
    observed
}

type Look = Box<dyn Fn(Option<&Event>) + Send + Sync>;

/// A router that is observed. Dropping it changes nothing.
#[derive(Clone)]
pub struct Observed {
    look: Arc<Look>,
}

impl Observed {
    /// Reads now what else is read every [`EVERY`]: before each scrape, so that it shows this moment.
    pub fn refresh(&self) {
        (self.look)(None);
    }
}

impl fmt::Debug for Observed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Observed").finish_non_exhaustive()
    }
}
