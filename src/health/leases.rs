//! How many leases are out, and how many have come back: counted by every request, read now and then.

use super::atomic::{AtomicU64, Ordering};
use crate::striped::{Alone, Striped};

/// The leases of a server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Leases {
    /// Out now.
    pub out: u32,
    /// Came back since the start, wrapping.
    pub returned: u32,
}

/// Counts them, on each thread for itself.
#[derive(Debug)]
pub(super) struct LeaseCount(Striped<Alone<Stripe>>);

/// A lease may go out on one thread and come back on another: only the sums mean something.
#[derive(Debug)]
struct Stripe {
    lent: AtomicU64,
    returned: AtomicU64,
    given_up: AtomicU64,
}

impl Default for LeaseCount {
    fn default() -> Self {
        let zero = || AtomicU64::new(0);
        Self(Striped::new(|| Alone(Stripe { lent: zero(), returned: zero(), given_up: zero() })))
    }
}

impl LeaseCount {
    /// Counts a lease going out.
    #[inline]
    pub(super) fn lend(&self) {
        self.0.mine().0.lent.fetch_add(1, Ordering::Relaxed);
    }

    /// Counts a lease coming back.
    #[inline]
    pub(super) fn take_back(&self) {
        // Whoever counts this one finds that it had been lent.
        self.0.mine().0.returned.fetch_add(1, Ordering::Release);
    }

    /// Counts a lease that is out no more without an answer from the server: that its caller gave up waiting is no sign of life.
    pub(super) fn give_up(&self) {
        self.0.mine().0.given_up.fetch_add(1, Ordering::Release);
    }

    /// How many leases are out and have come back. One that goes out or comes back meanwhile may count as out.
    #[must_use]
    pub(super) fn now(&self) -> Leases {
        let sum = |count: fn(&Stripe) -> &AtomicU64| {
            let counts = self.0.all().iter().map(|stripe| count(&stripe.0).load(Ordering::Acquire) as u32);
            counts.fold(0, u32::wrapping_add)
        };
        // In this order: what has ended had begun.
        let (returned, given_up) = (sum(|stripe| &stripe.returned), sum(|stripe| &stripe.given_up));
        let lent = sum(|stripe| &stripe.lent);
        Leases { out: lent.wrapping_sub(returned).wrapping_sub(given_up), returned }
    }
}
