//! How many calls may be made a second time: a share of all calls, so that retries never multiply an outage.

use std::sync::Arc;

use super::atomic::{AtomicU64, Ordering};

/// One retry, in the unit of the account.
const RETRY: u64 = 100;

/// An account of retries. Each call pays in `percent` hundredths of a retry, each retry and each hedge takes out a whole one.
/// Whatever the threads that share it do, the retries are never more than `percent` of the calls and `reserve`.
///
/// It begins with `reserve` and never saves up more, however long all was well: an outage after a good week meets the
/// same budget as one after a minute. The reserve has to cover a burst, which is the calls that one server's end fails at once.
#[derive(Debug)]
pub struct Budget {
    left: Arc<AtomicU64>,
    deposit: u64,
    most: u64,
}

impl Budget {
    /// An account of `reserve` retries, to which each call adds `percent` hundredths of one.
    #[must_use]
    pub fn new(percent: u32, reserve: u32) -> Self {
        let (deposit, reserve) = (u64::from(percent), u64::from(reserve) * RETRY);
        // Without a reserve too, enough calls come to a retry.
        Self { left: Arc::new(AtomicU64::new(reserve)), deposit, most: reserve.max(deposit).max(RETRY) }
    }

    /// The account of `before` where the terms are the same: after a reload, which is no reason to begin with a full reserve.
    #[must_use]
    pub fn resumed(self, before: &Self) -> Self {
        let same = (self.deposit, self.most) == (before.deposit, before.most);
        if same { Self { left: Arc::clone(&before.left), ..self } } else { self }
    }

    /// How many retries are left now. `None`: there are never any.
    #[must_use]
    pub fn left(&self) -> Option<f64> {
        let left = self.left.load(Ordering::Relaxed);
        // Hundredths of a retry: no more than a few thousand of them.
        (self.deposit > 0 || left > 0).then(|| f64::from(u32::try_from(left).unwrap_or(u32::MAX)) / 100.0)
    }

    /// Pays in for a call: once for each, however often it is tried. While the account is full this is one load.
    pub fn deposit(&self) {
        let add = |left| (left < self.most).then(|| self.most.min(left + self.deposit));
        // An error says that it is full.
        let _ = self.left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, add);
    }

    /// Takes out one retry. False when there is none: then the call ends with the error it has.
    #[must_use]
    pub fn withdraw(&self) -> bool {
        let take = |left: u64| left.checked_sub(RETRY);
        self.left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, take).is_ok()
    }
}
