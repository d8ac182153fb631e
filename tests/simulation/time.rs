//! The simulation's time, which is virtual, so that waiting costs nothing; and its locks, for which nobody waits.

use std::{
    future::pending,
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

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

/// A lock that a panic of the application does no harm.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
