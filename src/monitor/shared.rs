//! What the worker shares with the router: the table, the bell, and whether requests go by them.

use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering},
};

use arc_swap::ArcSwap;
use tokio::sync::Notify;

use super::due::Due;
use crate::{config::Monitoring, observe::Observer, plan::Table};

/// What the worker shares with the router.
#[derive(Debug, Clone)]
pub(crate) struct Shared {
    /// The snapshot of all servers.
    pub(crate) table: Arc<ArcSwap<Table>>,
    /// Rung when somebody raised a doubt.
    pub(crate) bell: Arc<Notify>,
    /// Where events go.
    pub(crate) observer: Observer,
    /// Whether requests go by this table: while a reload is under way there are two, and after it one is left over.
    pub(crate) leads: Arc<AtomicBool>,
    /// What there is to ping, for those who trigger it.
    pub(crate) due: Due,
}

impl Shared {
    /// What a worker shares that nobody goes by yet.
    pub(crate) fn new(observer: Observer) -> Self {
        Self { table: Arc::default(), bell: Arc::default(), observer, leads: Arc::default(), due: Due::default() }
    }

    /// The same for the worker that comes after this one's.
    pub(crate) fn next(&self) -> Self {
        Self { due: self.due.next(), ..Self::new(self.observer.clone()) }
    }

    /// From now on requests go by this table.
    pub(crate) fn lead(&self, monitoring: Monitoring) {
        self.leads.store(true, Ordering::Release);
        self.due.lead(monitoring == Monitoring::OnDemand);
        self.observer.go_over_to(&self.table.load());
        self.tell_mode();
    }

    /// No longer.
    pub(crate) fn make_way(&self) {
        self.leads.store(false, Ordering::Release);
        self.due.stop();
    }

    /// Tells the mode, if requests go by this table and it is another than was told last.
    pub(crate) fn tell_mode(&self) {
        self.observer.tell_mode(|| self.leads.load(Ordering::Acquire).then(|| self.table.load().mode()));
    }

    /// Notes the state of every server, if requests go by this table.
    pub(crate) fn note(&self) {
        if self.leads.load(Ordering::Acquire) {
            self.observer.note(&self.table.load());
        }
    }
}
