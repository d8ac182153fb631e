//! What stands for `src/striped.rs` in the models: to std all of loom's threads are one, and all would have one stripe.

use std::cell::Cell;

/// As many as threads write at once in a model: each further one multiplies the orders that are played.
const STRIPES: usize = 2;

#[derive(Debug)]
pub(crate) struct Striped<T>([T; STRIPES]);

#[derive(Debug, Default)]
pub(crate) struct Alone<T>(pub(crate) T);

impl<T> Striped<T> {
    pub(crate) fn new(mut make: impl FnMut() -> T) -> Self {
        Self(std::array::from_fn(|_| make()))
    }

    pub(crate) fn mine(&self) -> &T {
        &self.0[STRIPE.with(Cell::get)]
    }

    pub(crate) fn all(&self) -> &[T] {
        &self.0
    }
}

loom::thread_local! {
    static STRIPE: Cell<usize> = Cell::new(0);
}

/// From now on the calling thread has the other stripe than the one a thread begins with.
pub(crate) fn take_the_other() {
    STRIPE.with(|stripe| stripe.set(1));
}
