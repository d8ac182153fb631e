//! The simulation's time: virtual, so waiting costs nothing.

use std::{future::pending, time::Duration};

use tokio::time::{Instant, timeout_at};

pub(crate) const MS: Duration = Duration::from_millis(1);

/// The present moment of this runtime.
pub(crate) fn now() -> Instant {
    #[expect(clippy::disallowed_methods, reason = "a test has its own clock: the virtual one of its runtime")]
    Instant::now()
}

/// Lets virtual time pass until `at`.
pub(crate) async fn until(at: Instant) {
    let _ = timeout_at(at, pending::<()>()).await;
}

/// Lets virtual time pass.
pub(crate) async fn pass(time: Duration) {
    until(now() + time).await;
}
