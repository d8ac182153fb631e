//! The one clock: every reading of time in the crate goes through here.

use std::time::{Instant, SystemTime};

/// The present moment, as the runtime's timers see it: it follows a paused test clock, and wall-clock jumps do not move it.
pub(crate) fn now() -> Instant {
    #[expect(clippy::disallowed_methods, reason = "this is the one place that reads the clock")]
    tokio::time::Instant::now().into_std()
}

/// The present moment by the wall clock, to be told and nothing else: it may jump.
pub(crate) fn wall() -> SystemTime {
    #[expect(clippy::disallowed_methods, reason = "what is told to people has their time; nothing is decided by it")]
    SystemTime::now()
}
