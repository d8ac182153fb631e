//! One server as the parts that do things share it: its record, the bell of the monitor, the cut for its sessions.

use std::{
    error::Error,
    fmt,
    ops::Deref,
    sync::{
        Arc, Mutex, OnceLock, PoisonError, Weak,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use tokio::sync::{Notify, Semaphore, futures::Notified};

use super::{
    gate::Gate,
    posted::{Posted, Reader},
};
use crate::{
    clock,
    config::{AliasName, OutageErrors},
    health::{Belief, Cell, Generation, Leases, Need},
    policy::{Bucket, Calls, Fault},
    striped::{Alone, Striped},
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
    outage_errors: OutageErrors,
    /// What became of the calls on it.
    pub(crate) calls: Calls,
    bell: Arc<Notify>,
    /// Sessions of an older generation than this end at once.
    oldest: Posted<Cut>,
    /// For requests that wait for a connection: they look again what is believed.
    news: Notify,
    /// What every connect has to pass.
    pub(super) gate: Gate,
    /// How many busy connections may still be closed.
    discards: Mutex<Bucket>,
    born: Instant,
    /// So many requests to cancel go there at once.
    pub(crate) cancels: Semaphore,
    /// When a session was lost last, in milliseconds since `born` and one more. 0: never.
    lost: AtomicU64,
    loans: Mutex<Weak<Loans>>,
    /// Who wants to know how long its pings take.
    pings: OnceLock<Times>,
}

/// Who takes durations.
pub(crate) struct Times(pub(crate) Box<dyn Fn(Duration) + Send + Sync>);

impl fmt::Debug for Times {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Times")
    }
}

/// A share in a server, for what comes and goes all the time: it is counted with those of the same thread alone.
#[derive(Debug, Clone)]
pub(crate) struct Share(Arc<Alone<Arc<Server>>>);

/// What a lease holds of its server: as long as it is there, a lease is out. So it is counted by being held.
#[derive(Debug, Clone)]
pub(crate) struct Loan(Arc<Alone<Share>>);

/// Of what the leases of one server are made, on each thread another.
#[derive(Debug)]
pub(crate) struct Loans(Striped<Loan>);

impl Share {
    pub(crate) fn new(server: &Arc<Server>) -> Self {
        Self(Arc::new(Alone(Arc::clone(server))))
    }
}

impl Loans {
    /// For one lease.
    #[inline]
    pub(crate) fn lend(&self) -> Loan {
        self.0.mine().clone()
    }

    /// How many leases are out.
    pub(crate) fn out(&self) -> u32 {
        // Each stripe's first is here.
        let out: usize = self.0.all().iter().map(|first| Arc::strong_count(&first.0) - 1).sum();
        u32::try_from(out).unwrap_or(u32::MAX)
    }
}

impl Loan {
    /// Takes note that a lease comes back, before this is dropped. A drop alone says that nobody waits for an answer any more.
    #[inline]
    pub(crate) fn come_back(&self) {
        self.cell.note_return();
    }
}

impl Deref for Loan {
    type Target = Share;

    #[inline]
    fn deref(&self) -> &Share {
        &self.0.0
    }
}

impl Deref for Share {
    type Target = Server;

    #[inline]
    fn deref(&self) -> &Server {
        &self.0.0
    }
}

/// For how long after one lost session others may follow: a server that is killed loses them one after the other.
const ENDING: Duration = Duration::from_millis(20);

/// Busy connections to one server that are closed: eight at once, and eight a second after that. Each costs the server a login.
const DISCARDS: (Duration, u32) = (Duration::from_millis(125), 8);

/// Each takes a connect; a statement that runs on harms less than a server that does nothing else.
const CANCELS: usize = 8;

/// A call that takes as long is slow, unless the configuration says otherwise.
const SLOW_CALL: Duration = Duration::from_secs(1);

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
        self.closed || self.before.is_after(generation)
    }
}

impl Server {
    /// A server nobody has pinged yet; `bell` wakes the monitor.
    #[must_use]
    pub fn new(name: AliasName, address: String, bell: Arc<Notify>) -> Self {
        Self {
            name,
            address,
            cell: Cell::default(),
            outage_errors: OutageErrors::default(),
            calls: Calls::new(SLOW_CALL),
            bell,
            oldest: Posted::new(Cut { before: Generation::default(), closed: false }),
            news: Notify::new(),
            gate: Gate::new(),
            discards: Mutex::new(Bucket::new(DISCARDS.0, DISCARDS.1)),
            born: clock::now(),
            cancels: Semaphore::new(CANCELS),
            lost: AtomicU64::new(0),
            loans: Mutex::default(),
            pings: OnceLock::new(),
        }
    }

    /// The same server, with what is configured about errors.
    #[must_use]
    pub(crate) fn with_outage_errors(self, outage_errors: OutageErrors) -> Self {
        Self { outage_errors, ..self }
    }

    /// The same server, taking calls of this length and more for slow.
    #[must_use]
    pub(crate) fn with_slow_calls(self, slow_after: Duration) -> Self {
        Self { calls: Calls::new(slow_after), ..self }
    }

    /// Whether both are the same PostgreSQL under the same alias, before and after a reload.
    pub(crate) fn is_same_as(&self, other: &Self) -> bool {
        self.name == other.name && self.address == other.address
    }

    /// Of what its leases are made: the same for all who lend its connections.
    pub(crate) fn loans(self: &Arc<Self>) -> Arc<Loans> {
        let mut loans = self.loans.lock().unwrap_or_else(PoisonError::into_inner);
        loans.upgrade().unwrap_or_else(|| {
            let made = Arc::new(Loans(Striped::new(|| Loan(Arc::new(Alone(Share::new(self)))))));
            *loans = Arc::downgrade(&made);
            made
        })
    }

    /// How many leases are out or waited for, and whether some have come back.
    pub(crate) fn leases(&self) -> Leases {
        let loans = self.loans.lock().unwrap_or_else(PoisonError::into_inner).upgrade();
        let Leases { out, returned } = self.cell.leases();
        Leases { out: out + loans.map_or(0, |loans| loans.out()), returned }
    }

    /// By what the calls of one process tell servers apart.
    pub(crate) fn identity(&self) -> usize {
        std::ptr::from_ref(self).addr()
    }

    /// Counts a call that was made on this server, so that a server which fails many or is slow to answer is found out: how it ended
    /// (`None`: well) and how long it took there, without the wait for a connection. Two relaxed atomic additions at most.
    pub fn record_call(&self, fault: Option<Fault>, took: Duration) {
        self.calls.record(fault, took);
    }

    /// Counts a call that was given up after so long while this server was still at it.
    pub(crate) fn record_late(&self, took: Duration) {
        self.calls.record_late(took);
    }

    /// A good ping took so long.
    pub(crate) fn tell_ping(&self, took: Duration) {
        self.pings.get().into_iter().for_each(|times| times.0(took));
    }

    /// Has somebody told how long good pings take from now on, if nobody is yet.
    #[cfg(feature = "metrics")]
    pub(crate) fn tell_pings_to(&self, times: impl FnOnce() -> Times) {
        self.pings.get_or_init(times);
    }

    /// Whether this fault asks for a ping of this server.
    pub(crate) fn is_accused_by(&self, fault: Fault) -> bool {
        self.outage_errors.ask_for_ping(fault)
    }

    /// What the application says of this error, itself and not its sources; `None` if nothing.
    pub(crate) fn is_accused_by_application(&self, error: &(dyn Error + 'static)) -> Option<bool> {
        self.outage_errors.of_error(error)
    }

    /// Whether this error does: what the application says of it comes first.
    pub(crate) fn is_accused_by_error(&self, error: &(dyn Error + 'static)) -> bool {
        self.is_accused_by_application(error).unwrap_or_else(|| self.is_accused_by(Fault::of(error)))
    }

    /// Reports evidence against the server, seen by a session or lease of `generation`. Costs an atomic
    /// operation; the monitor is woken once, however many report.
    pub fn doubt(&self, generation: Generation) {
        if self.cell.doubt(generation) {
            self.bell.notify_one();
        }
    }

    /// The same, where the evidence is the end of a session.
    pub(crate) fn lose(&self, generation: Generation) {
        self.lost.store(self.age() + 1, Ordering::Release);
        self.doubt(generation);
    }

    /// Whether a session was lost so lately that others may follow.
    pub(crate) fn is_losing(&self) -> bool {
        let lost = self.lost.load(Ordering::Acquire);
        lost > 0 && u128::from((self.age() + 1).saturating_sub(lost)) <= ENDING.as_millis()
    }

    /// Whether one more busy connection may be closed now, and counts it.
    pub(crate) fn may_discard(&self) -> bool {
        self.discards.lock().unwrap_or_else(PoisonError::into_inner).take(clock::now())
    }

    fn age(&self) -> u64 {
        u64::try_from(clock::now().saturating_duration_since(self.born).as_millis()).unwrap_or(u64::MAX - 1)
    }

    /// Publishes a belief and wakes whoever waits for this server. Only the monitor calls this.
    pub fn publish(&self, belief: Belief) {
        let previous = self.cell.belief();
        let admits_again = !previous.admits() && belief.admits();
        if admits_again {
            // Before anybody can know that it is back.
            self.gate.slow_start();
        }
        self.cell.publish(belief);
        if previous.generation() != belief.generation() {
            self.oldest.change(|cut| cut.before = belief.generation());
        }
        let goes_behind = belief.is_behind(Need::Reads) && !previous.is_behind(Need::Reads)
            || belief.is_drained() != previous.is_drained();
        let turns = previous.generation() != belief.generation();
        if previous.is_doubted() || turns || admits_again || goes_behind {
            self.news.notify_waiters();
        }
    }

    /// Rings when the server goes down, comes back, admits again, goes behind the others, or a doubt about it is explained. What rings after this is called is not missed.
    pub(crate) fn news(&self) -> Notified<'_> {
        self.news.notified()
    }

    /// Waits until the server goes down or comes back, if that has not happened since `generation`.
    pub(crate) async fn turned(&self, generation: Generation) {
        self.shows(|belief| belief.generation().is_after(generation)).await;
    }

    /// Waits until nothing that was seen lacks an explanation: the server answers, or is down.
    pub(crate) async fn explained(&self) {
        self.shows(|belief| !belief.is_doubted()).await;
    }

    /// Waits until somebody has had it drained, or has ended that.
    pub(crate) async fn drains(&self, drained: bool) {
        self.shows(|belief| belief.is_drained() == drained).await;
    }

    async fn shows(&self, what: impl Fn(Belief) -> bool) {
        loop {
            // Before the look: a change after it is not missed.
            let news = self.news();
            if what(self.cell.belief()) {
                return;
            }
            news.await;
        }
    }

    /// Ends every session and refuses new ones.
    pub fn close(&self) {
        // First the word: a session that is woken by the cut looks there.
        self.cell.retire();
        self.oldest.change(|cut| cut.closed = true);
    }

    /// Tells when sessions have to end. A session holds one of these and ends when `before` is past its own generation.
    #[must_use]
    pub fn cuts(&self) -> Reader<Cut> {
        self.oldest.reader()
    }

    /// Waits until no session is alive.
    pub(crate) async fn drained(&self) {
        self.oldest.left().await;
    }

    /// How many sessions (pooled connections) are alive.
    #[must_use]
    pub fn sessions(&self) -> usize {
        self.oldest.readers()
    }
}

#[cfg(test)]
mod tests {
    use std::{
        future::{Future, poll_fn},
        pin::{Pin, pin},
        task::Poll,
    };

    use super::*;
    use crate::health::State;

    async fn is_over(wait: Pin<&mut impl Future<Output = ()>>) -> bool {
        let mut wait = wait;
        poll_fn(|cx| Poll::Ready(wait.as_mut().poll(cx).is_ready())).await
    }

    #[tokio::test]
    async fn who_waits_for_the_next_turn_is_not_woken_by_this_one() {
        let server = Server::new(AliasName::new("db").unwrap(), "db".to_owned(), Arc::new(Notify::new()));
        // As a request sees it that comes between the two steps of a publication.
        server.cell.publish(Belief::new(State::Up, Generation(1)));
        let mut turned = pin!(server.turned(server.cell.belief().generation()));
        assert!(!is_over(turned.as_mut()).await);
        server.news.notify_waiters();
        assert!(!is_over(turned.as_mut()).await);
        server.publish(Belief::new(State::Down, Generation(2)));
        assert!(is_over(turned).await);
    }

    #[test]
    fn a_lease_is_out_as_long_as_it_is_held_on_whichever_thread_and_whoever_else_shares_the_server() {
        let server = Arc::new(Server::new(AliasName::new("db").unwrap(), "db".to_owned(), Arc::new(Notify::new())));
        let (loans, others) = (server.loans(), server.loans());
        let lent: Vec<Loan> = std::thread::scope(|scope| {
            let threads: Vec<_> = (0..10).map(|_| scope.spawn(|| [loans.lend(), others.lend()])).collect();
            threads.into_iter().flat_map(|thread| thread.join().unwrap()).collect()
        });
        let _share = Share::clone(&lent[0]);
        assert_eq!((server.leases(), loans.out()), (Leases { out: 20, returned: 0 }, 20));
        lent.first().unwrap().come_back();
        drop(lent);
        assert_eq!(server.leases(), Leases { out: 0, returned: 1 });
    }

    #[test]
    fn generations_outlive_their_number() {
        let last = Generation(u32::MAX);
        assert!(last.next().is_after(last) && !last.is_after(last.next()) && !last.is_after(last));
        assert!(Cut { before: last.next(), closed: false }.ends(last));
    }
}
