//! How long to wait before the same server is tried again.

use std::time::Duration;

/// Waits that double up to a cap, each of a random length below that: calls that failed together come back apart ("full jitter",
/// <https://aws.amazon.com/blogs/architecture/exponential-backoff-and-jitter/>).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Backoff {
    /// What the first wait is shorter than.
    pub base: Duration,
    /// What every wait is shorter than.
    pub cap: Duration,
}

impl Backoff {
    /// The wait before retry number `attempt`, counted from 0: evenly spread from nothing to `base` doubled `attempt` times, or to
    /// `cap`. `random` is any number; all of them are equally likely.
    #[must_use]
    pub fn delay(&self, attempt: u32, random: u64) -> Duration {
        let doubled = 1_u32.checked_shl(attempt).map_or(Duration::MAX, |factor| self.base.saturating_mul(factor));
        let ceiling = if self.base.is_zero() { Duration::ZERO } else { doubled.min(self.cap) };
        // More than five hundred years are never waited.
        let ceiling = u64::try_from(ceiling.as_nanos()).unwrap_or(u64::MAX);
        let share = (u128::from(ceiling) * u128::from(random)) >> u64::BITS;
        Duration::from_nanos(u64::try_from(share).unwrap_or(ceiling))
    }
}
