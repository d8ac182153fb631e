//! How many may follow the events: a seat each, which is taken from who does not read what it is sent.

use std::{
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

/// Who has not taken what was sent for this long has gone, or reads too slowly.
const PATIENCE: Duration = Duration::from_secs(30);

/// All seats.
#[derive(Debug)]
pub(super) struct Seats {
    taken: Mutex<Vec<Arc<Place>>>,
    most: usize,
}

/// One seat, as both sides see it.
#[derive(Debug, Default)]
struct Place {
    lost: AtomicBool,
    /// Since when something is on its way to its follower. `None`: all was taken.
    sending: Mutex<Option<Instant>>,
}

/// A seat that somebody has, until it is dropped.
#[derive(Debug)]
pub(super) struct Seat {
    place: Arc<Place>,
    seats: Arc<Seats>,
}

impl Seats {
    pub(super) fn new(most: usize) -> Arc<Self> {
        Arc::new(Self { taken: Mutex::default(), most })
    }

    /// A seat, unless all are taken by followers who read.
    pub(super) fn take(self: &Arc<Self>, now: Instant) -> Option<Seat> {
        let mut taken = lock(&self.taken);
        if taken.len() >= self.most {
            taken.retain(|place| !place.is_given_up(now));
        }
        (taken.len() < self.most).then(|| {
            let place = Arc::new(Place::default());
            taken.push(Arc::clone(&place));
            Seat { place, seats: Arc::clone(self) }
        })
    }
}

impl Place {
    /// Gives it up if its follower does not read.
    fn is_given_up(&self, now: Instant) -> bool {
        let slow = lock(&self.sending).is_some_and(|since| now.saturating_duration_since(since) > PATIENCE);
        if slow {
            self.lost.store(true, Ordering::Relaxed);
        }
        slow
    }
}

impl Seat {
    /// Something is on its way.
    pub(super) fn send(&self, now: Instant) {
        *lock(&self.place.sending) = Some(now);
    }

    /// All was taken. Says whether the seat is still the follower's, who may have been too slow.
    pub(super) fn taken(&self) -> bool {
        *lock(&self.place.sending) = None;
        !self.place.lost.load(Ordering::Relaxed)
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        lock(&self.seats.taken).retain(|place| !Arc::ptr_eq(place, &self.place));
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_more_sit_than_there_are_seats() {
        let (seats, now) = (Seats::new(2), crate::clock::now());
        let one = seats.take(now);
        let _other = seats.take(now).expect("there are two");
        assert!(one.is_some() && seats.take(now).is_none());
        drop(one);
        assert!(seats.take(now).is_some());
    }

    #[test]
    fn who_does_not_read_loses_the_seat_to_the_next_and_learns_it() {
        let (seats, now) = (Seats::new(1), crate::clock::now());
        let slow = seats.take(now).expect("there is one");
        slow.send(now);
        assert!(seats.take(now + PATIENCE).is_none());
        let next = seats.take(now + PATIENCE * 2).expect("the slow one's");
        assert!(!slow.taken());
        drop(slow);
        assert!(seats.take(now + PATIENCE * 2).is_none(), "what the slow one had is the next one's");
        assert!(next.taken());
    }

    #[test]
    fn who_waits_for_news_keeps_the_seat() {
        let (seats, now) = (Seats::new(1), crate::clock::now());
        let patient = seats.take(now).expect("there is one");
        patient.send(now);
        assert!(patient.taken());
        assert!(seats.take(now + PATIENCE * 100).is_none());
    }
}
