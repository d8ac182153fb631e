//! One server as the parts that do things share it: its record, the bell of the monitor, the cut for its sessions.

use std::sync::Arc;

use tokio::sync::{Notify, watch};

use crate::{
    config::AliasName,
    health::{Belief, Cell, Generation},
};

/// One server, shared by its pools, its sessions, the monitor and the router.
#[derive(Debug)]
pub struct Server {
    /// The alias that declares it.
    pub name: AliasName,
    /// `host:port/database`, for people.
    pub address: String,
    /// What is believed about it.
    pub cell: Cell,
    bell: Arc<Notify>,
    /// Sessions of an older generation than this end at once.
    oldest: watch::Sender<Cut>,
    /// The generation, for requests that wait for a connection: they stop waiting when it changes.
    turns: watch::Sender<Generation>,
}

/// Which sessions of a server may live.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Cut {
    /// Sessions made before this generation end.
    pub before: Generation,
    /// All sessions end and no new one is made: the router is shut down.
    pub closed: bool,
}

impl Cut {
    /// Whether a session made in `generation` has to end.
    #[must_use]
    pub fn ends(&self, generation: Generation) -> bool {
        self.closed || self.before > generation
    }
}

impl Server {
    /// A server nobody has pinged yet; `bell` wakes the monitor.
    #[must_use]
    pub fn new(name: AliasName, address: String, bell: Arc<Notify>) -> Self {
        let (oldest, _) = watch::channel(Cut { before: Generation::default(), closed: false });
        let (turns, _) = watch::channel(Generation::default());
        Self { name, address, cell: Cell::default(), bell, oldest, turns }
    }

    /// Reports evidence against the server, seen by a session or lease of `generation`. Costs an atomic
    /// operation; the monitor is woken once, however many report.
    pub fn doubt(&self, generation: Generation) {
        if self.cell.doubt(generation) {
            self.bell.notify_one();
        }
    }

    /// Publishes a belief and wakes whoever waits for this server. Only the monitor calls this.
    pub fn publish(&self, belief: Belief) {
        let previous = self.cell.belief();
        self.cell.publish(belief);
        if previous.generation() != belief.generation() {
            self.oldest.send_modify(|cut| cut.before = belief.generation());
            self.turns.send_replace(belief.generation());
        }
    }

    /// Waits until the server goes down or comes back, if that has not happened since `generation`.
    pub(crate) async fn turned(&self, generation: Generation) {
        // The sender lives as long as `self`, so the wait ends with a change alone.
        let _ = self.turns.subscribe().wait_for(|now| *now != generation).await;
    }

    /// Ends every session and refuses new ones.
    pub fn close(&self) {
        self.oldest.send_modify(|cut| cut.closed = true);
    }

    /// Tells when sessions have to end. A session holds one of these and ends when `before` is past its own generation.
    #[must_use]
    pub fn cuts(&self) -> watch::Receiver<Cut> {
        self.oldest.subscribe()
    }

    /// Waits until no session is alive.
    pub(crate) async fn drained(&self) {
        self.oldest.closed().await;
    }

    /// How many sessions (pooled connections) are alive.
    #[must_use]
    pub fn sessions(&self) -> usize {
        self.oldest.receiver_count()
    }
}
