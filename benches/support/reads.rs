//! An application that reads 200 times a second, whatever happens, and keeps a record of each read.

use std::time::{Duration, Instant};

use pgdetour::{Alias, pool::DeadpoolPostgres};
use tokio::{
    sync::oneshot,
    task::{JoinHandle, JoinSet},
    time::interval,
};

use super::{Fallible, now};

/// The time between two reads.
pub(crate) const PACE: Duration = Duration::from_millis(5);

/// One read, as its caller saw it.
#[derive(Debug)]
pub(crate) struct Read {
    pub(crate) begun: Instant,
    pub(crate) ended: Instant,
    pub(crate) detour: bool,
    /// What each of its attempts failed with; two of them make a failed read.
    pub(crate) errors: Vec<String>,
}

/// How often a read is tried before its caller gives up.
pub(crate) const ATTEMPTS: usize = 2;

impl Read {
    pub(crate) fn is_failed(&self) -> bool {
        self.errors.len() == ATTEMPTS
    }
}

/// The reads that go on in the background. None waits for the one before it.
#[derive(Debug)]
pub(crate) struct Reads {
    stop: oneshot::Sender<()>,
    task: JoinHandle<Vec<Read>>,
}

impl Reads {
    /// Each tried twice by its caller.
    pub(crate) fn start(alias: Alias<DeadpoolPostgres>) -> Self {
        Self::of(alias, read)
    }

    /// Each an `Alias::read` that its caller does not try again.
    pub(crate) fn calling(alias: Alias<DeadpoolPostgres>) -> Self {
        Self::of(alias, call)
    }

    fn of<F>(alias: Alias<DeadpoolPostgres>, read: fn(Alias<DeadpoolPostgres>) -> F) -> Self
    where
        F: Future<Output = Read> + Send + 'static,
    {
        let (stop, mut stopped) = oneshot::channel();
        let task = tokio::spawn(async move {
            let (mut ticks, mut running, mut reads) = (interval(PACE), JoinSet::new(), Vec::new());
            loop {
                tokio::select! {
                    _ = ticks.tick() => { running.spawn(read(alias.clone())); }
                    Some(Ok(read)) = running.join_next() => reads.push(read),
                    _ = &mut stopped => break,
                }
            }
            reads.extend(running.join_all().await);
            reads.sort_by_key(|read| read.ended);
            reads
        });
        Self { stop, task }
    }

    /// Ends them; all of them in the order in which they ended.
    pub(crate) async fn stop(self) -> Fallible<Vec<Read>> {
        // An error says that they have ended by themselves: by a panic, which the task then tells.
        let _ = self.stop.send(());
        Ok(self.task.await?)
    }
}

/// One read with one retry.
pub(crate) async fn read(alias: Alias<DeadpoolPostgres>) -> Read {
    let begun = now();
    let (mut errors, mut detour) = (Vec::new(), false);
    while errors.len() < ATTEMPTS {
        match once(&alias).await {
            Ok(detoured) => {
                detour = detoured;
                break;
            }
            Err(error) => errors.push(format!("after {:?}: {error}", begun.elapsed())),
        }
    }
    Read { begun, ended: now(), detour, errors }
}

/// One read by the router's own means.
async fn call(alias: Alias<DeadpoolPostgres>) -> Read {
    let begun = now();
    let answer = alias.read(|client| async move {
        client.query_one("SELECT 1", &[]).await?;
        Ok::<_, tokio_postgres::Error>(client.is_detour())
    });
    let (detour, errors) = match answer.await {
        Ok(detour) => (detour, Vec::new()),
        Err(error) => (false, vec![format!("after {:?}: {error}", begun.elapsed())]),
    };
    Read { begun, ended: now(), detour, errors }
}

async fn once(alias: &Alias<DeadpoolPostgres>) -> Fallible<bool> {
    let client = alias.get().await?;
    let answer = client.query_one("SELECT 1", &[]).await;
    answer.map_err(|error| format!("{error} (at {})", client.server()))?;
    Ok(client.is_detour())
}

/// The longest time from one success to the next, beyond the pace, between two moments; and when it began.
pub(crate) fn longest_gap(reads: &[Read], from: Instant, until: Instant) -> (Duration, Instant) {
    let good = reads.iter().filter(|read| !read.is_failed()).map(|read| read.ended);
    let mut last = good.clone().filter(|at| *at < from).max().unwrap_or(from);
    let within = good.filter(|at| (from..until).contains(at));
    let gaps = within.map(|at| (at, std::mem::replace(&mut last, at)));
    let longest = gaps.map(|(at, since)| (at - since, since)).max();
    let (gap, since) = longest.unwrap_or((until - from, from));
    (gap.saturating_sub(PACE), since)
}
