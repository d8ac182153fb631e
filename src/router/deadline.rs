//! By when does a call have to end? An instant that is handed down: to calls inside of calls, and to the requests they make.

use std::{
    future::Future,
    time::{Duration, Instant},
};

use super::Router;
use crate::{clock, pool::Backend};

tokio::task_local! {
    /// Of the calls that this task is in, the one that has to end first.
    static CURRENT: Deadline;
}

/// Where the clock cannot count so far: later than anything that is waited for.
const FAR: Duration = Duration::from_secs(366 * 24 * 3600);

/// A moment by which calls have to end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Deadline {
    at: Instant,
    /// How long was given: what an error says.
    within: Duration,
}

impl Deadline {
    /// So long from now.
    #[must_use]
    pub fn after(within: Duration) -> Self {
        Self::from(clock::now(), within)
    }

    pub(super) fn from(begun: Instant, within: Duration) -> Self {
        let within = if begun.checked_add(within).is_some() { within } else { FAR };
        Self { at: begun + within, within }
    }

    /// The deadline that holds where this is called: of all those around it, the earliest.
    #[must_use]
    pub fn current() -> Option<Self> {
        CURRENT.try_with(|current| *current).ok()
    }

    /// How much is left of it; nothing once it has passed.
    #[must_use]
    pub fn left(&self, now: Instant) -> Duration {
        self.at.saturating_duration_since(now)
    }

    /// Lets this deadline hold for all calls that `future` makes, unless one around it is earlier. A task that is spawned in
    /// `future` is not part of it.
    ///
    /// The future itself is not ended: its calls are, and return an error that [is late](crate::Error::is_late).
    ///
    /// # Cancel safety
    ///
    /// As the future's own.
    pub async fn scope<F: Future>(self, future: F) -> F::Output {
        CURRENT.scope(self.or_earlier(Self::current()), future).await
    }

    pub(super) fn or_earlier(self, other: Option<Self>) -> Self {
        other.filter(|other| other.at < self.at).unwrap_or(self)
    }

    pub(super) fn at(&self) -> Instant {
        self.at
    }

    pub(super) fn within(&self) -> Duration {
        self.within
    }
}

impl<B: Backend> Router<B> {
    /// Gives all calls that `future` makes so long in all, unless a deadline around it is earlier: reads, writes and requests
    /// for a connection end by then, with an error that [is late](crate::Error::is_late). A connection that is idle is lent
    /// even after it.
    ///
    /// What runs over a connection from [`get()`](crate::Alias::get) is not ended, and neither is a task that `future` spawns.
    ///
    /// # Cancel safety
    ///
    /// As the future's own.
    pub fn with_deadline<F: Future>(&self, within: Duration, future: F) -> impl Future<Output = F::Output> {
        Deadline::after(within).scope(future)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[tokio::test(start_paused = true)]
    async fn of_nested_deadlines_the_earlier_holds() {
        assert_eq!(Deadline::current(), None);
        let left = || Deadline::current().map(|deadline| deadline.left(clock::now()));
        let outer = async {
            tokio::time::advance(SECOND).await;
            let later = Deadline::after(5 * SECOND).scope(async { left() }).await;
            let earlier = Deadline::after(SECOND).scope(async { left() }).await;
            (later, earlier, left())
        };
        let seen = Deadline::after(3 * SECOND).scope(outer).await;
        assert_eq!(seen, (Some(2 * SECOND), Some(SECOND), Some(2 * SECOND)));
    }

    #[tokio::test(start_paused = true)]
    async fn nothing_is_left_of_a_deadline_that_has_passed() {
        let deadline = Deadline::after(SECOND);
        tokio::time::advance(2 * SECOND).await;
        assert_eq!(deadline.left(clock::now()), Duration::ZERO);
    }

    #[test]
    fn more_time_than_the_clock_can_count_is_a_year() {
        let now = clock::now();
        assert_eq!(Deadline::from(now, Duration::MAX).left(now), FAR);
    }
}
