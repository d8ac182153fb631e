//! Is any service to be pinged by those who ask? One atomic word that the loops of all services write, and that every request reads.

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};

use crate::striped::Alone;

/// How many services there are whose ping is due and that nobody pings unless he is asked to; above [`OUT`] those of them that are out.
#[derive(Debug, Clone)]
pub(crate) struct Dues(Arc<Alone<AtomicU64>>);

const OUT: u32 = 32;

/// What one service has in it. It takes that back when it is dropped.
pub(super) struct DueService {
    dues: Dues,
    told: u64,
}

impl Default for Dues {
    fn default() -> Self {
        Self(Arc::new(Alone(AtomicU64::new(0))))
    }
}

impl Dues {
    /// One more service, of which nothing is due.
    pub(super) fn add(&self) -> DueService {
        DueService { dues: self.clone(), told: 0 }
    }

    /// Whether any is due.
    #[inline]
    pub(crate) fn is_due(&self) -> bool {
        self.0.0.load(Ordering::Acquire) != 0
    }

    /// Whether any is that is out.
    #[inline]
    pub(crate) fn is_recovery_due(&self) -> bool {
        self.0.0.load(Ordering::Acquire) >> OUT != 0
    }
}

impl DueService {
    /// Says whether its ping is due, and whether it is out besides.
    pub(super) fn tell(&mut self, due: bool, out: bool) {
        let told = u64::from(due) | u64::from(out) << OUT;
        if told != self.told {
            // Both halves count no more than there are services, so none runs over into the other.
            self.dues.0.0.fetch_add(told.wrapping_sub(self.told), Ordering::AcqRel);
            self.told = told;
        }
    }
}

impl Drop for DueService {
    fn drop(&mut self) {
        self.tell(false, false);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_service_has_said_is_taken_back_when_it_is_watched_no_more() {
        let dues = Dues::default();
        let (mut one, mut other) = (dues.add(), dues.add());
        one.tell(true, true);
        other.tell(true, false);
        assert!(dues.is_due() && dues.is_recovery_due());
        drop(one);
        assert!(dues.is_due() && !dues.is_recovery_due());
        other.tell(false, false);
        assert!(!dues.is_due());
    }
}
