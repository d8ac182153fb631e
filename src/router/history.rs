//! Who stores outages for good? A task that tells `pgdetour.outages` what the router has seen, as soon as the primary takes it.

use std::{
    error::Error as StdError,
    sync::{Arc, Weak},
    time::{Duration, Instant},
};

use tokio::{
    sync::{mpsc, oneshot},
    time::{sleep_until, timeout},
};

use super::{Inner, line::Line};
use crate::{
    clock,
    config::HistorySettings,
    health::Cause,
    history::{Spool, delete_before, upsert},
    observe::{Event, EventKind, Events, Stamp},
    policy::Backoff,
    pool::Backend,
};

/// How long one attempt may take, from asking for a connection to the answer.
const WITHIN: Duration = Duration::from_secs(5);

/// How long a shutdown waits for the last attempt.
const AT_THE_END: Duration = Duration::from_secs(1);

/// Outages in one statement.
const BATCH: usize = 50;

/// Between attempts while the primary takes nothing. Any event tries at once.
const BACKOFF: Backoff = Backoff { base: Duration::from_secs(2), cap: Duration::from_secs(60) };

/// How often what is too old is forgotten.
const TIDY_EVERY: Duration = Duration::from_secs(24 * 3600);

/// The way to the task.
#[derive(Debug)]
pub(super) struct Historian {
    flush: mpsc::UnboundedSender<oneshot::Sender<()>>,
}

/// What the task holds.
struct Keeper<B: Backend> {
    router: Weak<Inner<B>>,
    spool: Spool,
    attempt: u32,
    tidied: Option<Instant>,
    /// What was told last of why nothing is stored.
    stalled: Option<Cause>,
}

impl Historian {
    /// The task begins when [`Orders::begin`] is called.
    pub(super) fn new() -> (Self, Orders) {
        let (flush, flushes) = mpsc::unbounded_channel();
        (Self { flush }, Orders(flushes))
    }

    /// Has what waits stored, as far as that is possible within a second.
    pub(super) async fn flush(&self) {
        let (done, answer) = oneshot::channel();
        // An error says that the task has ended.
        let _ = self.flush.send(done);
        let _ = timeout(AT_THE_END, answer).await;
    }
}

/// What the task is asked for.
pub(super) struct Orders(mpsc::UnboundedReceiver<oneshot::Sender<()>>);

impl Orders {
    /// Starts the task of this router. It ends with it.
    pub(super) fn begin<B: Backend>(self, router: &Arc<Inner<B>>) {
        let events = router.observer.events();
        let keeper =
            Keeper { router: Arc::downgrade(router), spool: Spool::default(), attempt: 0, tidied: None, stalled: None };
        tokio::spawn(keeper.run(events, self.0));
    }
}

impl<B: Backend> Keeper<B> {
    async fn run(mut self, mut events: Events, mut flushes: mpsc::UnboundedReceiver<oneshot::Sender<()>>) {
        // What was found before anybody listened.
        let mut again = Some(clock::now());
        loop {
            let mut asked = None;
            tokio::select! {
                biased;
                event = events.next() => if event.is_none() { return },
                done = flushes.recv() => match done {
                    Some(done) => asked = Some(done),
                    None => return,
                },
                () = wait(again) => {}
            }
            again = self.store().await;
            // Whoever has gone meanwhile does not wait.
            asked.map(|done| done.send(()));
        }
    }

    /// Stores what waits; when to try again, if not all of it was.
    async fn store(&mut self) -> Option<Instant> {
        let router = self.router.upgrade()?;
        let topology = router.topology.load_full();
        let settings = topology.config.history()?;
        self.spool.note(router.observer.outages());
        let lost = self.spool.take_lost();
        if lost > 0 {
            tell(&router, EventKind::HistoryLost { outages: lost });
        }
        self.spool.waiting().next()?;
        let line = topology.lines.get(&settings.alias)?;
        match timeout(WITHIN, self.send(line, settings, &router)).await {
            Ok(Ok(())) => {
                self.attempt = 0;
                if self.stalled.take().is_some() {
                    tell(&router, EventKind::HistoryResumed);
                }
                return None;
            }
            // A primary that is out is told of elsewhere.
            Ok(Err(None)) | Err(_) => {}
            Ok(Err(Some(cause))) if self.stalled.as_ref() == Some(&cause) => {}
            Ok(Err(Some(cause))) => {
                let waiting = self.spool.waiting().count();
                tell(&router, EventKind::HistoryStalled { cause: cause.clone(), waiting });
                self.stalled = Some(cause);
            }
        }
        let delay = BACKOFF.delay(self.attempt, fastrand::u64(..));
        self.attempt = self.attempt.saturating_add(1);
        Some(clock::now() + delay)
    }

    /// Sends all that waits. An error without a cause says that there is no connection to the primary.
    ///
    /// Cancel safety: what was sent and not answered is sent again, and changes nothing then.
    async fn send(
        &mut self,
        line: &Line<B>,
        settings: &HistorySettings,
        router: &Inner<B>,
    ) -> Result<(), Option<Cause>> {
        // A request that is refused would be counted among those of the application.
        if !line.route.is_at_home() {
            return Err(None);
        }
        let lease = line.get(router).await.ok().filter(|lease| !lease.is_detour()).ok_or(None)?;
        let told = |error: Box<dyn StdError + Send + Sync>| Some(Cause::of(&*error));
        loop {
            let batch = self.spool.batch(BATCH);
            if batch.is_empty() {
                break;
            }
            B::execute(&lease, &upsert(&batch, Stamp::now())).await.map_err(told)?;
            self.spool.confirm(batch);
        }
        let now = clock::now();
        if self.tidied.is_none_or(|last| now >= last + TIDY_EVERY) {
            B::execute(&lease, &delete_before(Stamp::now(), settings.keep)).await.map_err(told)?;
            self.tidied = Some(now);
        }
        Ok(())
    }
}

fn tell<B: Backend>(router: &Inner<B>, kind: EventKind) {
    router.observer.emit(Event::new(None, kind));
}

async fn wait(until: Option<Instant>) {
    match until {
        Some(until) => sleep_until(until.into()).await,
        None => std::future::pending().await,
    }
}
