//! Where is a lease that was handed to some work? One atomic word: its drop and the call that wants it back meet there.

use super::atomic::{AtomicU64, Ordering};

/// The lease is out until it comes back or is called back: whichever is first has decided.
#[derive(Debug)]
pub(super) struct Whereabouts(AtomicU64);

const OUT: u64 = 0;
const CALLED_BACK: u64 = 1;
/// It came back.
const RETURNED: u64 = 2;
/// When it came back, nothing that was queued could still leave.
const QUIET: u64 = 4;
/// Above this: the statements that had left.
const COUNT: u32 = 3;

impl Whereabouts {
    pub(super) fn out() -> Self {
        Self(AtomicU64::new(OUT))
    }

    /// It comes back after so many statements, where it is known that no other can follow. False if it was called back before.
    pub(super) fn come_back(&self, sent: Option<u64>) -> bool {
        self.end(sent.map_or(RETURNED, |sent| RETURNED | QUIET | sent << COUNT))
    }

    /// It is called back. False if it came back before.
    pub(super) fn call_back(&self) -> bool {
        self.end(CALLED_BACK)
    }

    pub(super) fn is_called_back(&self) -> bool {
        self.0.load(Ordering::Acquire) == CALLED_BACK
    }

    /// After how many statements it came back, if no other could follow then.
    pub(super) fn sent(&self) -> Option<u64> {
        let state = self.0.load(Ordering::Acquire);
        (state & QUIET != 0).then_some(state >> COUNT)
    }

    fn end(&self, state: u64) -> bool {
        self.0.compare_exchange(OUT, state, Ordering::AcqRel, Ordering::Acquire).is_ok()
    }
}
