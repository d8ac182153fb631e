//! How long calls take: what "slow" means for those that come next.

use std::time::Duration;

use super::atomic::{AtomicU32, AtomicU64, Ordering};

/// Calls that a histogram remembers at least, and half of what it remembers at most.
const WINDOW: u64 = 1024;

/// Fewer calls than this tell nothing.
const ENOUGH: u64 = 32;

/// Parts of each doubling: a bucket is at most an eighth of its lower end wide.
const PARTS: u64 = 8;

/// Up to 2^27 µs, which is two minutes; what takes longer counts as that.
const BUCKETS: usize = ((27 - 3 + 1) * PARTS) as usize;

/// One segment is written, one is from before that, and one is empty to be written next.
const SEGMENTS: usize = 3;

/// A histogram of the last one to two thousand calls that all threads share, without a lock. It forgets by calls, not by time: it
/// reads no clock, and after a night without traffic it still knows the evening's.
#[derive(Debug)]
pub struct Latencies {
    recorded: AtomicU64,
    counts: Box<[AtomicU32]>,
    window: u64,
}

impl Default for Latencies {
    fn default() -> Self {
        Self::sized(WINDOW, BUCKETS)
    }
}

impl Latencies {
    /// A histogram that knows nothing yet.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// One that turns to the next segment after `window` calls and has this many buckets.
    pub(super) fn sized(window: u64, buckets: usize) -> Self {
        let counts = (0..SEGMENTS * buckets).map(|_| AtomicU32::new(0)).collect();
        Self { recorded: AtomicU64::new(0), counts, window }
    }

    /// Counts a call that took this long: two atomic additions.
    pub fn record(&self, took: Duration) {
        let number = self.recorded.fetch_add(1, Ordering::Relaxed);
        let segment = number / self.window;
        if number.is_multiple_of(self.window) {
            // The one after this, so that it has a whole window's time to be emptied before anybody writes to it.
            self.segment(segment + 1).iter().for_each(|count| count.store(0, Ordering::Relaxed));
        }
        let counts = self.segment(segment);
        counts[bucket(took).min(counts.len() - 1)].fetch_add(1, Ordering::Relaxed);
    }

    /// How long this share of the calls took at most, told by the upper end of its bucket: at most an eighth more than it was.
    /// `None` until enough calls are known: 32, and for a high quantile so many that one of them lies above it.
    #[must_use]
    pub fn quantile(&self, share: f64) -> Option<Duration> {
        let share = share.clamp(0.0, 1.0);
        let buckets = self.counts.len() / SEGMENTS;
        let count = |bucket| (0..SEGMENTS).map(|segment| self.read(segment * buckets + bucket)).sum::<u64>();
        let counts: Vec<u64> = (0..buckets).map(count).collect();
        let total: u64 = counts.iter().sum();
        let above = total as f64 * (1.0 - share);
        if total < ENOUGH || (share < 1.0 && above < 1.0 - 1e-9) {
            return None;
        }
        let rank = ((total as f64 * share).ceil() as u64).max(1);
        let mut below = 0;
        let reached = counts.iter().position(|count| {
            below += count;
            below >= rank
        });
        reached.map(upper_end)
    }

    /// How many calls it remembers.
    #[must_use]
    pub fn known(&self) -> u64 {
        (0..self.counts.len()).map(|index| self.read(index)).sum()
    }

    fn read(&self, index: usize) -> u64 {
        u64::from(self.counts[index].load(Ordering::Relaxed))
    }

    fn segment(&self, number: u64) -> &[AtomicU32] {
        let buckets = self.counts.len() / SEGMENTS;
        let start = (number % SEGMENTS as u64) as usize * buckets;
        &self.counts[start..start + buckets]
    }
}

/// The first `PARTS` buckets are of a microsecond each; each doubling after that has as many.
fn bucket(took: Duration) -> usize {
    let micros = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
    if micros < PARTS {
        return micros as usize;
    }
    let doublings = u64::from(micros.ilog2() - PARTS.ilog2());
    // The highest bit counts as the first of its doubling's parts.
    ((doublings * PARTS) + (micros >> doublings)) as usize
}

/// The shortest duration that is longer than all of this bucket.
fn upper_end(bucket: usize) -> Duration {
    let (doublings, part) = ((bucket as u64 / PARTS).saturating_sub(1), bucket as u64 % PARTS);
    let first = if (bucket as u64) < PARTS { part } else { PARTS + part };
    Duration::from_micros((first + 1) << doublings)
}
