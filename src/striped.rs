//! What many threads write at once: each has a stripe of its own, so that none waits for the cache line of another.

use std::sync::atomic::{AtomicUsize, Ordering};

/// As many threads write without meeting another.
const STRIPES: usize = 8;

/// One of something for each stripe.
#[derive(Debug, Clone)]
pub(crate) struct Striped<T>([T; STRIPES]);

/// A cache line of its own: what is written must not slow what lies beside it. Two lines, since processors fetch them in pairs.
#[derive(Debug, Default)]
#[repr(align(128))]
pub(crate) struct Alone<T>(pub(crate) T);

impl<T> Striped<T> {
    pub(crate) fn new(mut make: impl FnMut() -> T) -> Self {
        Self(std::array::from_fn(|_| make()))
    }

    /// That of the calling thread.
    #[inline]
    pub(crate) fn mine(&self) -> &T {
        &self.0[STRIPE.with(|stripe| *stripe)]
    }

    pub(crate) fn all(&self) -> &[T] {
        &self.0
    }
}

static THREADS: AtomicUsize = AtomicUsize::new(0);

thread_local! {
    static STRIPE: usize = THREADS.fetch_add(1, Ordering::Relaxed) % STRIPES;
}
