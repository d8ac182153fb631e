//! Reads under load: so many a second, each a `get()` and a query that its caller tries once more, or an `Alias::read`.

use std::{
    error::Error,
    time::{Duration, Instant},
};

use pgdetour::{Alias, Lease};
use tokio::{
    sync::{oneshot, watch},
    task::JoinHandle,
    time::MissedTickBehavior,
};

use super::{SOON, Subject, now, soon};

/// What became of the reads.
#[derive(Clone, Debug, Default)]
pub(crate) struct Report {
    pub(crate) reads: usize,
    /// Failed in the end.
    pub(crate) failed: usize,
    /// Failed once.
    pub(crate) retried: usize,
    /// Answered by another server than the alias's own.
    pub(crate) detoured: usize,
    /// Answered in a row, up to the last one, by the alias's own.
    pub(crate) at_home: usize,
    pub(crate) longest_gap: Duration,
    /// How long the one took that took longest.
    pub(crate) slowest: Duration,
    pub(crate) errors: Vec<String>,
}

/// Reads that go on until they are told to end.
pub(crate) struct Load {
    reports: watch::Receiver<Report>,
    stop: oneshot::Sender<()>,
    task: JoinHandle<()>,
}

impl Load {
    /// A read every 5 ms, side by side: one that hangs holds up no other. Each is tried twice by its caller.
    pub(crate) fn start<B: Subject>(alias: &Alias<B>) -> Self {
        Self::of(alias, twice)
    }

    /// The same, each an `Alias::read` that its caller does not try again.
    pub(crate) fn reading<B: Subject>(alias: &Alias<B>) -> Self {
        Self::of(alias, once)
    }

    fn of<B: Subject, F>(alias: &Alias<B>, read: fn(Alias<B>) -> F) -> Self
    where
        F: Future<Output = Read> + Send + 'static,
    {
        let (sender, reports) = watch::channel(Report::default());
        let (stop, mut stopped) = oneshot::channel();
        let alias = alias.clone();
        let task = tokio::spawn(async move {
            let (mut reads, mut last) = (tokio::task::JoinSet::new(), now());
            let mut ticks = tokio::time::interval(Duration::from_millis(5));
            ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
            let mut going = true;
            while going || !reads.is_empty() {
                tokio::select! {
                    _ = &mut stopped, if going => going = false,
                    _ = ticks.tick(), if going => drop(reads.spawn(timed(read(alias.clone())))),
                    Some(read) = reads.join_next() => {
                        let (read, took) = read.expect("a read does not panic");
                        sender.send_modify(|report| {
                            report.count(read, &mut last);
                            report.slowest = report.slowest.max(took);
                        });
                    }
                }
            }
        });
        Self { reports, stop, task }
    }

    /// Waits until the reads so far are such.
    pub(crate) async fn until(
        &mut self,
        what: &str,
        reached: impl FnMut(&Report) -> bool,
    ) -> Result<(), Box<dyn Error>> {
        let waited = tokio::time::timeout(SOON, self.reports.wait_for(reached)).await.map(|report| report.map(drop));
        match waited {
            Ok(reached) => Ok(reached?),
            Err(_) => Err(format!("never came: {what}; {:?}", *self.reports.borrow()).into()),
        }
    }

    /// Waits until there were so many more reads: a measure of time, at 200 a second.
    pub(crate) async fn until_more(&mut self, count: usize) -> Result<(), Box<dyn Error>> {
        let before = self.reports.borrow().reads;
        self.until("more reads", |report| report.reads >= before + count).await
    }

    /// Waits until so many reads in a row were answered by the alias's own server.
    pub(crate) async fn until_at_home(&mut self, count: usize) -> Result<(), Box<dyn Error>> {
        let before = self.reports.borrow().reads;
        self.until("reads at home", |report| report.at_home >= count && report.reads >= before + count).await
    }

    /// Ends the reads once they are all back at the alias's own server. None has failed.
    pub(crate) async fn end_at_home(mut self) -> Result<Report, Box<dyn Error>> {
        self.until_at_home(20).await?;
        let report = self.end().await?;
        assert_eq!(report.failed, 0, "{report:?}");
        Ok(report)
    }

    /// Ends the reads; those under way are finished.
    pub(crate) async fn end(self) -> Result<Report, Box<dyn Error>> {
        let _ = self.stop.send(());
        soon("the last reads", self.task).await??;
        Ok(self.reports.borrow().clone())
    }
}

impl Report {
    fn count(&mut self, read: Read, last: &mut Instant) {
        self.reads += 1;
        self.retried += usize::from(read.errors.len() == 1 && read.detour.is_some());
        self.errors.extend(read.errors);
        match read.detour {
            None => self.failed += 1,
            Some(detour) => {
                self.detoured += usize::from(detour);
                self.at_home = if detour { 0 } else { self.at_home + 1 };
                self.longest_gap = self.longest_gap.max(last.elapsed());
                *last = now();
            }
        }
    }
}

/// One read: by whom it was answered, and what went wrong before.
struct Read {
    detour: Option<bool>,
    errors: Vec<String>,
}

async fn timed<T>(work: impl Future<Output = T>) -> (T, Duration) {
    let since = now();
    (work.await, since.elapsed())
}

async fn once<B: Subject>(alias: Alias<B>) -> Read {
    let read = alias.read(query);
    match read.await {
        Ok(detour) => Read { detour: Some(detour), errors: Vec::new() },
        Err(error) => Read { detour: None, errors: vec![error.to_string()] },
    }
}

async fn query<B: Subject>(lease: Lease<B>) -> Result<bool, tokio_postgres::Error> {
    let replica: bool = B::client(&lease).query_one("SELECT pg_is_in_recovery()", &[]).await?.get(0);
    assert_eq!(replica, !lease.is_detour(), "a lease says where it goes");
    Ok(lease.is_detour())
}

async fn twice<B: Subject>(alias: Alias<B>) -> Read {
    let mut errors = Vec::new();
    for _ in 0..2 {
        match attempt(&alias).await {
            Ok(detour) => return Read { detour: Some(detour), errors },
            Err(error) => errors.push(error),
        }
    }
    Read { detour: None, errors }
}

async fn attempt<B: Subject>(alias: &Alias<B>) -> Result<bool, String> {
    let lease = alias.get().await.map_err(|error| error.to_string())?;
    query(lease).await.map_err(|error| format!("{error:?}"))
}
