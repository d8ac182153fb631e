//! Work that may be run again: on the next server, until an answer comes or the time or the budget is spent.

use std::{
    error::Error as StdError,
    future::{Future, poll_fn},
    pin::{Pin, pin},
    task::Poll,
    time::Instant,
};

use tokio::time::Sleep;

use super::{
    Alias,
    error::Error,
    hedge::hedged,
    lease::Lease,
    recall::{Recall, Tether},
    trail::Trail,
};
use crate::{clock, pool::Backend};

impl<B: Backend> Alias<B> {
    /// Runs `work` with a connection, and where that fails by a server's fault, runs it again on the next server of the plan:
    /// within `call_timeout` (default 30 s) or the [deadline](crate::Router::with_deadline) around it, and within the alias's
    /// `retry_budget`. After a conflict that the same server resolves (a deadlock, a serialization failure) it runs again there,
    /// after a moment.
    ///
    /// The work is run as a whole each time, with a lease of its own, so it has to be one that may run twice: reads, also in a
    /// transaction that it begins itself. What it returns is returned once. A panic in it passes through.
    ///
    /// ```no_run
    /// # #[cfg(feature = "deadpool")]
    /// # async fn example(replica: pgdetour::Alias, id: i64) -> Result<(), pgdetour::Error> {
    /// let note: String = replica
    ///     .read(|client| async move {
    ///         let row = client.query_one("SELECT note FROM orders WHERE id = $1", &[&id]).await?;
    ///         row.try_get(0)
    ///     })
    ///     .await?;
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    ///
    /// What [`get()`](Self::get) fails with; else what the work returned last is the error's source, and
    /// [`Error::attempts`] tells each attempt. [`Error::is_late`] when the time was over first.
    ///
    /// # Cancel safety
    ///
    /// Cancel safe: the work is dropped, its statement is cancelled at the server, and its connection is closed.
    pub async fn read<T, E, F>(&self, mut work: impl FnMut(Lease<B>) -> F + Send) -> Result<T, Error>
    where
        F: Future<Output = Result<T, E>> + Send,
        E: Into<Box<dyn StdError + Send + Sync>>,
    {
        let newest;
        let line = match self.line.is_retired() {
            false => &self.line,
            true => {
                newest = self.router.line(self.line.name.as_str())?;
                &newest
            }
        };
        let mut trail = Trail::begin(line, &self.router);
        if let Some(after) = line.patience.lasts() {
            return Box::pin(hedged(trail, work, after)).await;
        }
        let (mut timer, at) = (pin!(None), trail.deadline.at());
        let lent = {
            // In its place at once: moved, it would be copied.
            let mut getting = pin!(line.get(&self.router));
            bound(timer.as_mut(), at, getting.as_mut()).await
        };
        let Some(lent) = lent else { return Err(trail.late()) };
        let mut lease = lent?;
        loop {
            // Where nothing has waited yet, no time has passed.
            let lent = if timer.is_some() { clock::now() } else { trail.since };
            let recall = Recall::tie(&mut lease, (trail.since, lent), trail.limit(lent));
            let failed = {
                let mut working = pin!(work(lease));
                // After the work, so that it is dropped before it.
                let tether = Tether::new(&recall);
                let ended = bound(timer.as_mut(), at, working.as_mut()).await;
                if ended.is_some() {
                    tether.cut();
                }
                match ended {
                    Some(Ok(answer)) => {
                        trail.answered(&recall);
                        return Ok(answer);
                    }
                    Some(Err(error)) => Some(error.into()),
                    None => None,
                }
            };
            lease = Box::pin(trail.next(&recall, failed)).await?;
        }
    }
}

/// Waits for a future no longer than until `at`. All that one call waits for shares the timer, which the first wait sets.
async fn bound<F: Future>(mut timer: Pin<&mut Option<Sleep>>, at: Instant, future: F) -> Option<F::Output> {
    let mut future = pin!(future);
    poll_fn(|cx| {
        if let Poll::Ready(output) = future.as_mut().poll(cx) {
            return Poll::Ready(Some(output));
        }
        if timer.is_none() {
            timer.set(Some(tokio::time::sleep_until(at.into())));
        }
        timer.as_mut().as_pin_mut().map_or(Poll::Pending, |sleep| sleep.poll(cx).map(|()| None))
    })
    .await
}
