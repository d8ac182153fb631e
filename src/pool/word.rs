//! One atomic word that tells whether a connection is clean: its bits, who writes which of them, and in what order.

use super::{
    atomic::{AtomicBool, AtomicU64, Ordering, fence},
    condition::Condition,
};

// The whole of it:
//
// 63 ......... 32 | 31 .... 24 | 23 . 15 | 14 ... 8 | 7 .......... 0
//  replies owed   | parameters |         | session  | conversation

/// The login is over: the server has said for the first time that it is ready.
pub(super) const STARTED: u64 = 1;
/// The last `ReadyForQuery` said: inside a transaction, or inside a failed one.
pub(super) const IN_TRANSACTION: u64 = 1 << 1;
/// A frame is half written, a COPY is under way, or messages wait for their `Sync`.
pub(super) const UNFINISHED: u64 = 1 << 2;
/// What passes is not the protocol, or the conversation was terminated: nothing can be said any more.
pub(super) const LOST: u64 = 1 << 3;
/// The server has reported a FATAL or PANIC: the session is over, though its end may take a moment to arrive.
pub(super) const FATAL: u64 = 1 << 4;
/// The last `ReadyForQuery` said: inside a failed transaction, in which nothing more is done.
pub(super) const FAILED: u64 = 1 << 5;
/// Where the count of `ParameterStatus` frames begins.
pub(super) const PARAMETERS: u32 = 24;
/// Where the count of replies begins that are still to come.
pub(super) const OWED: u32 = 32;

/// The driver was given something to do and has not looked at it yet.
const STIRRED: u64 = 1 << 8;
/// The driver is at work on another thread.
const WORKING: u64 = 1 << 9;
/// What the server sent has not all been handed out: somebody does not read their rows.
pub(super) const UNREAD: u64 = 1 << 10;
/// The socket did not take all that was to be sent.
pub(super) const UNSENT: u64 = 1 << 11;
/// There is no session any more.
const ENDED: u64 = 1 << 12;
/// The session is older than its pool wants it to be.
const SPENT: u64 = 1 << 13;
/// The session has to be reset before it is lent again, always.
pub(super) const KEEPS: u64 = 1 << 14;
const UNDER_WAY: u64 = STIRRED | WORKING | UNREAD | UNSENT | UNFINISHED | u64::MAX << OWED;

/// What everybody reads. Only the session writes it, by its [`Writer`], except `STIRRED`, which everybody may raise, and
/// `SPENT`, which a timer does.
#[derive(Debug, Default)]
pub(super) struct Word {
    bits: AtomicU64,
    /// Somebody may be waiting for it to be busy no more.
    watched: AtomicBool,
}

impl Word {
    /// What it says: one atomic load.
    #[inline]
    pub(super) fn condition(&self) -> Condition {
        let word = self.bits.load(Ordering::Acquire);
        if word & (UNDER_WAY | LOST | FATAL | IN_TRANSACTION | SPENT | KEEPS | STARTED) == STARTED {
            Condition::Clean
        } else if word & (LOST | FATAL) != 0 {
            Condition::Dirty
        } else if word & UNDER_WAY != 0 {
            Condition::Busy
        } else if word & STARTED == 0 {
            Condition::Unknown
        } else if word & (IN_TRANSACTION | SPENT) == 0 {
            Condition::Used
        } else {
            Condition::Dirty
        }
    }

    /// What it says to somebody who will wait if that is `Busy`, and who from now on can be told: the turn that ends it will.
    pub(super) fn watch(&self) -> Condition {
        self.watched.store(true, Ordering::SeqCst);
        fence(Ordering::SeqCst);
        self.condition()
    }

    /// The driver is given something to do.
    #[inline]
    pub(super) fn stir(&self) {
        self.bits.fetch_or(STIRRED, Ordering::SeqCst);
    }

    /// The session has grown too old.
    pub(super) fn spend(&self) {
        self.bits.fetch_or(SPENT, Ordering::SeqCst);
    }

    /// There is no session any more.
    pub(super) fn end(&self) {
        self.bits.fetch_or(LOST | ENDED, Ordering::SeqCst);
    }

    pub(super) fn has_ended(&self) -> bool {
        self.bits.load(Ordering::SeqCst) & ENDED != 0
    }
}

/// The session's side of the word.
///
/// A statement that the driver has queued but not written has passed no tap. But whoever queues it wakes the session, so the
/// waker raises `STIRRED` on the thread and before the moment in which the query's future first returns; the session lowers it
/// when it begins its turn, and by the end of the turn the statement has passed the tap or raised `UNSENT`.
#[derive(Debug)]
pub(super) struct Writer {
    /// The bits of the word that only the session writes, as last written.
    known: u64,
    /// Those of them that stay once they are there.
    lasting: u64,
}

impl Writer {
    /// Until its first turn the word is busy.
    pub(super) fn new(word: &Word, seen: u64, lasting: u64) -> Self {
        let known = seen | lasting;
        word.bits.store(known | STIRRED, Ordering::SeqCst);
        Self { known, lasting }
    }

    /// Begins a turn.
    #[inline]
    pub(super) fn begin(&mut self, word: &Word) {
        // Lowers STIRRED. The fence keeps the driver's queue from being looked at before WORKING can be seen.
        let before = word.bits.swap(self.known | WORKING, Ordering::SeqCst);
        self.lasting |= before & SPENT;
        fence(Ordering::SeqCst);
    }

    /// Ends a turn with all that has been `seen`. Whether those who watch are to be told: it is busy no more.
    #[inline]
    #[must_use]
    pub(super) fn finish(&mut self, word: &Word, seen: u64) -> bool {
        let known = seen | self.lasting;
        word.bits.fetch_xor((self.known | WORKING) ^ known, Ordering::SeqCst);
        self.known = known;
        let settled = word.watched.load(Ordering::SeqCst) && word.condition() != Condition::Busy;
        if settled {
            word.watched.store(false, Ordering::SeqCst);
        }
        settled
    }

    /// What had been seen by the end of the last turn.
    pub(super) fn known(&self) -> u64 {
        self.known
    }
}
