//! Who waits in line for a connection of one pool? Each alias counts its own requests, and only those that have to wait.

use std::{
    fmt,
    sync::atomic::{AtomicUsize, Ordering},
    time::Duration,
};

use crate::pool::PoolStatus;

/// The requests of one alias that wait for one pool.
#[derive(Debug, Default)]
pub(super) struct Queue {
    waiting: AtomicUsize,
    /// Places that are held so that nobody uses them.
    held: AtomicUsize,
}

/// A place in line, or one that is held; dropping it leaves it.
#[derive(Debug)]
pub(super) struct Place<'a>(&'a AtomicUsize);

impl Queue {
    /// Takes a place, unless more than `limit` wait already beyond those whom the pool has room for.
    pub(super) fn join(&self, limit: usize, status: impl FnOnce() -> PoolStatus) -> Option<Place<'_>> {
        let place = Place(&self.waiting);
        let waiting = self.waiting.fetch_add(1, Ordering::Relaxed) + 1;
        // Most often that is all there is to know: the pool is not asked.
        (waiting <= limit || waiting - limit <= self.room(status())).then_some(place)
    }

    /// Holds a place of the pool: there is room for one less.
    pub(super) fn hold(&self) -> Place<'_> {
        self.held.fetch_add(1, Ordering::Relaxed);
        Place(&self.held)
    }

    /// How many wait.
    pub(super) fn waiting(&self) -> usize {
        self.waiting.load(Ordering::Relaxed)
    }

    /// Whether one more would have to wait for a connection that is lent: neither is one idle nor can one be made that nobody waits
    /// for yet. A pool that does not say how large it is has room.
    pub(super) fn is_past(&self, status: PoolStatus) -> bool {
        status.max_size > 0 && self.waiting() >= self.room(status)
    }

    /// How many connections the pool can give without one coming back.
    fn room(&self, status: PoolStatus) -> usize {
        let room = status.max_size.saturating_sub(status.size) + status.idle;
        room.saturating_sub(self.held.load(Ordering::Relaxed))
    }
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// A pool that had no room for a request.
#[derive(Debug)]
pub(super) struct Full {
    pub(super) status: PoolStatus,
    /// How many others wait for it.
    pub(super) waiting: usize,
    /// How long a request waits in line at most: by then all who stand there now have been served or have left.
    pub(super) longest: Duration,
    /// Whether the request has waited so long. Too many did already, if not.
    pub(super) waited: bool,
}

impl Full {
    /// What is wrong with the pool to this server.
    pub(super) fn tell(&self, server: &impl fmt::Display, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.waited {
            true => {
                write!(f, "no connection to {server} came free within {}", humantime::format_duration(self.longest))?;
            }
            false => write!(f, "too many wait for a connection to {server} already")?,
        }
        let PoolStatus { max_size, size, idle } = self.status;
        write!(f, " ({} of {max_size} in use, {} waiting)", size.saturating_sub(idle), self.waiting)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FULL: PoolStatus = PoolStatus { max_size: 4, size: 4, idle: 0 };

    #[test]
    fn no_more_wait_than_the_limit_beyond_those_for_whom_there_is_room() {
        for (status, limit, fit) in [
            (FULL, 0, 0),
            (FULL, 3, 3),
            (PoolStatus { size: 1, ..FULL }, 0, 3),
            (PoolStatus { size: 1, idle: 1, ..FULL }, 2, 6),
        ] {
            let queue = Queue::default();
            let places: Vec<_> = std::iter::from_fn(|| queue.join(limit, || status)).take(100).collect();
            assert_eq!((places.len(), queue.waiting()), (fit, fit), "{status:?} {limit}");
            drop(places);
            assert_eq!(queue.waiting(), 0);
        }
    }

    #[test]
    fn who_holds_places_so_that_nobody_uses_them_does_not_wait() {
        let queue = Queue::default();
        let held = [queue.hold(), queue.hold()];
        assert_eq!(queue.waiting(), 0);
        assert!(queue.join(1, || FULL).is_some(), "nobody else waits");
        let two_more = PoolStatus { size: 2, ..FULL };
        assert!(queue.is_past(two_more) && queue.join(0, || two_more).is_none());
        drop(held);
        assert!(!queue.is_past(two_more));
    }

    #[test]
    fn a_pool_is_past_its_room_when_those_who_wait_will_take_it() {
        let (queue, two_more) = (Queue::default(), PoolStatus { size: 2, ..FULL });
        assert!(queue.is_past(FULL) && !queue.is_past(two_more) && !queue.is_past(PoolStatus::default()));
        let _waiting = [queue.join(9, || two_more), queue.join(9, || two_more)];
        assert!(queue.is_past(two_more));
    }
}
