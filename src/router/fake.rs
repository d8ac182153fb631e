//! A pool without a network, for the tests of what the router does with one.

use std::{
    collections::VecDeque,
    error::Error,
    future::pending,
    io,
    sync::{
        Arc, Mutex,
        atomic::{AtomicU32, Ordering},
    },
    time::Duration,
};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::pool::{AcquireError, AcquireErrorKind, Backend, Condition, Connector, FirstRow, PoolStatus};

/// A pool whose connects succeed at once.
#[derive(Debug, Clone)]
pub(super) struct FakePool {
    max_size: usize,
    places: Arc<Semaphore>,
    shelf: Arc<Shelf>,
}

#[derive(Debug, Default)]
struct Shelf {
    idle: Mutex<VecDeque<u32>>,
    made: AtomicU32,
    /// Those of them that are lent.
    lent: AtomicU32,
    /// Those made before this one are too old.
    spent: AtomicU32,
    /// How long it takes to answer, in milliseconds.
    latency: AtomicU32,
    /// What its connects fail with.
    refuses: Mutex<Option<io::ErrorKind>>,
    /// What it answers to SQL next; after that nothing.
    answers: Mutex<VecDeque<FirstRow>>,
}

/// A connection of it, with the number under which it was made.
#[derive(Debug)]
pub(super) struct FakeConnection {
    pub(super) number: u32,
    /// How it stands when it comes back. A busy one is never done.
    pub(super) condition: Condition,
    /// Whether it runs SQL.
    pub(super) resets: bool,
    shelf: Option<Arc<Shelf>>,
    _lent: Lent,
    _place: OwnedSemaphorePermit,
}

/// Counts one that is lent.
#[derive(Debug)]
struct Lent(Arc<Shelf>);

impl Lent {
    fn new(shelf: &Arc<Shelf>) -> Self {
        shelf.lent.fetch_add(1, Ordering::Relaxed);
        Self(Arc::clone(shelf))
    }
}

impl Drop for Lent {
    fn drop(&mut self) {
        self.0.lent.fetch_sub(1, Ordering::Relaxed);
    }
}

impl FakePool {
    pub(super) fn new(max_size: usize) -> Self {
        Self { max_size, places: Arc::new(Semaphore::new(max_size)), shelf: Arc::default() }
    }
}

impl FakePool {
    /// All connections made so far are too old from now on.
    pub(super) fn age(&self) {
        self.shelf.spent.store(self.shelf.made.load(Ordering::Relaxed), Ordering::Relaxed);
    }

    /// What it answers to SQL next.
    pub(super) fn answers(&self, rows: &[&[&str]]) {
        let row = |row: &&[&str]| row.iter().map(|column| Some((*column).to_owned())).collect();
        self.shelf.answers.lock().unwrap().extend(rows.iter().map(row));
    }

    /// From now on its connects fail so.
    pub(super) fn refuses(&self, kind: io::ErrorKind) {
        *self.shelf.refuses.lock().unwrap() = Some(kind);
    }

    /// How many connections it has made.
    pub(super) fn made(&self) -> u32 {
        self.shelf.made.load(Ordering::Relaxed)
    }

    /// From now on each answer takes so long.
    pub(super) fn answers_after(&self, latency: Duration) {
        self.shelf.latency.store(u32::try_from(latency.as_millis()).unwrap(), Ordering::Relaxed);
    }
}

impl Drop for FakeConnection {
    fn drop(&mut self) {
        if let Some(shelf) = self.shelf.take() {
            shelf.idle.lock().unwrap().push_back(self.number);
        }
    }
}

impl Backend for FakePool {
    type Connection = FakeConnection;
    type Error = AcquireError;

    async fn acquire(&self) -> Result<FakeConnection, AcquireError> {
        let place = Arc::clone(&self.places).acquire_owned().await;
        let place = place.map_err(|closed| AcquireError::new(AcquireErrorKind::Closed, closed))?;
        let idle = self.shelf.idle.lock().unwrap().pop_front();
        let number = match idle {
            Some(number) => number,
            None => {
                Connector::unless_barred().await;
                if let Some(kind) = *self.shelf.refuses.lock().unwrap() {
                    return Err(AcquireError::new(AcquireErrorKind::Connect, io::Error::from(kind)));
                }
                self.shelf.made.fetch_add(1, Ordering::Relaxed)
            }
        };
        let lent = Lent::new(&self.shelf);
        let (condition, shelf) = (Condition::Clean, Some(Arc::clone(&self.shelf)));
        Ok(FakeConnection { number, condition, resets: true, shelf, _lent: lent, _place: place })
    }

    async fn verify(connection: &FakeConnection) -> Result<(), AcquireError> {
        // A round trip takes a moment, in which things happen.
        tokio::task::yield_now().await;
        let latency = connection.shelf.as_ref().map_or(0, |shelf| shelf.latency.load(Ordering::Relaxed));
        if latency > 0 {
            tokio::time::sleep(Duration::from_millis(latency.into())).await;
        }
        Ok(())
    }

    fn is_closed(_: &FakeConnection) -> bool {
        false
    }

    fn condition(connection: &FakeConnection) -> Condition {
        connection.condition
    }

    async fn settled(connection: &FakeConnection) -> Condition {
        if connection.condition == Condition::Busy { pending().await } else { connection.condition }
    }

    async fn leave(connection: &FakeConnection) {
        Self::settled(connection).await;
    }

    async fn execute(connection: &FakeConnection, _: &str) -> Result<FirstRow, Box<dyn Error + Send + Sync>> {
        // As in `verify`.
        tokio::task::yield_now().await;
        match connection.resets {
            true => {
                let answer = connection.shelf.as_ref().and_then(|shelf| shelf.answers.lock().unwrap().pop_front());
                Ok(answer.unwrap_or_default())
            }
            false => Err("no reset today".into()),
        }
    }

    fn discard(mut connection: FakeConnection) {
        connection.shelf = None;
    }

    fn evict(&self) {
        self.shelf.idle.lock().unwrap().clear();
    }

    fn evict_spent(&self) {
        let spent = self.shelf.spent.load(Ordering::Relaxed);
        self.shelf.idle.lock().unwrap().retain(|number| *number >= spent);
    }

    fn status(&self) -> PoolStatus {
        let idle = self.shelf.idle.lock().unwrap().len();
        let lent = self.shelf.lent.load(Ordering::Relaxed) as usize;
        PoolStatus { max_size: self.max_size, size: idle + lent, idle }
    }

    fn close(&self) {
        self.places.close();
        self.evict();
    }
}
