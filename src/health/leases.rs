//! How many leases are out, and whether any comes back: written by every request, read now and then.

use super::atomic::{AtomicU64, Ordering};
use crate::striped::{Alone, Striped};

/// The leases of a server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Leases {
    /// Out now.
    pub out: u32,
    /// Another number whenever some have come back.
    pub returned: u32,
}

/// Counts them, on each thread for itself. Those that hold their server are counted by that, and only say here that they come back.
#[derive(Debug)]
pub(super) struct LeaseCount(Striped<Alone<Stripe>>);

/// A lease may go out on one thread and come back on another: only the sums mean something.
#[derive(Debug)]
struct Stripe {
    lent: AtomicU64,
    given_up: AtomicU64,
    returned: AtomicU64,
}

impl Default for LeaseCount {
    fn default() -> Self {
        let zero = || AtomicU64::new(0);
        Self(Striped::new(|| Alone(Stripe { lent: zero(), given_up: zero(), returned: zero() })))
    }
}

impl LeaseCount {
    /// Counts a lease going out.
    pub(super) fn lend(&self) {
        self.0.mine().0.lent.fetch_add(1, Ordering::Relaxed);
    }

    /// Counts a lease that is out no more: that its caller gave up waiting is no sign of life.
    pub(super) fn give_up(&self) {
        // Whoever counts this one finds that it had been lent.
        self.0.mine().0.given_up.fetch_add(1, Ordering::Release);
    }

    /// Takes note that a lease comes back. Where two threads do so at once one note may be lost, and the other says the same: so
    /// it costs no atomic addition.
    #[inline]
    pub(super) fn note_return(&self) {
        let returned = &self.0.mine().0.returned;
        returned.store(returned.load(Ordering::Relaxed).wrapping_add(1), Ordering::Relaxed);
    }

    /// How many leases are out, and whether some have come back. One that goes out or is given up meanwhile may count as out.
    #[must_use]
    pub(super) fn now(&self) -> Leases {
        let sum = |count: fn(&Stripe) -> &AtomicU64| {
            let counts = self.0.all().iter().map(|stripe| count(&stripe.0).load(Ordering::Acquire) as u32);
            counts.fold(0, u32::wrapping_add)
        };
        // In this order: what has ended had begun.
        let given_up = sum(|stripe| &stripe.given_up);
        let lent = sum(|stripe| &stripe.lent);
        Leases { out: lent.wrapping_sub(given_up), returned: sum(|stripe| &stripe.returned) }
    }
}
