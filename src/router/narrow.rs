//! How is a slow target spared? Where a round trip to it takes too long, places of the detour's pool are held empty-handed, so that
//! fewer requests go there at once. It needs nothing of the pool but to lend, and nothing of a request at all.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use tokio::time::{sleep, timeout};

use super::{settle::Unproven, stop::Stop};
use crate::{
    clock,
    config::AliasName,
    health::Need,
    observe::{Event, EventKind, Observer},
    plan::{Candidate, Narrowed},
    policy::Squeeze,
    pool::{Backend, Server},
};

/// Between two looks at the target.
const LOOK: Duration = Duration::from_millis(250);

/// How long a round trip, or a place in the pool, is waited for at most.
const PATIENCE: Duration = Duration::from_secs(5);

/// Round trips of one look. The shortest counts: the others may have waited for this process.
const TRIPS: usize = 3;

/// How narrow one detour is now; `None` where all of it is usable.
pub(super) type Width = Mutex<Option<Narrowed>>;

/// One detour that is narrowed while its target is slow.
pub(super) struct Strait<B: Backend> {
    pub(super) alias: AliasName,
    pub(super) stop: Stop<B>,
    pub(super) size: usize,
    pub(super) limit: Duration,
    /// The servers it stands in for.
    pub(super) relieved: Vec<Arc<Server>>,
    pub(super) observer: Observer,
}

impl<B: Backend> Strait<B> {
    /// Watches over the detour until its task is aborted.
    pub(super) async fn tend(self) {
        let mut squeeze = Squeeze::new(self.size, self.limit);
        let mut held: Vec<B::Connection> = Vec::new();
        loop {
            if self.is_needed() {
                if let Some(latency) = self.look(&mut held).await {
                    let usable = squeeze.on(latency);
                    self.tell((usable < self.size).then_some(Narrowed { usable, size: self.size, latency }));
                }
            } else {
                squeeze.release();
                self.tell(None);
            }
            self.hold(&mut held, squeeze.held_back()).await;
            sleep(LOOK).await;
        }
    }

    /// Whether reads go this way now.
    fn is_needed(&self) -> bool {
        let own = self.relieved.iter().all(|server| server.cell.belief().is_clear(Need::Reads));
        !own && self.stop.belief().serves(Need::Reads)
    }

    /// How long a round trip to the target takes, over a connection that is held or one of the pool's.
    ///
    /// Cancel safety: a connection that is being asked is closed.
    async fn look(&self, held: &mut Vec<B::Connection>) -> Option<Duration> {
        let mut connection = match held.pop() {
            Some(connection) => connection,
            None => timeout(PATIENCE, self.stop.pool.acquire()).await.ok()?.ok()?,
        };
        let mut shortest = PATIENCE;
        for _ in 0..TRIPS {
            let begun = clock::now();
            match timeout(PATIENCE, Unproven::<B>::new(connection).verify()).await {
                Ok(answered) => connection = answered?,
                Err(_) => return Some(PATIENCE),
            }
            shortest = shortest.min(clock::now().saturating_duration_since(begun));
        }
        held.push(connection);
        Some(shortest)
    }

    /// Holds so many places of the pool, and gives back those beyond. A place comes when a request gives one back.
    async fn hold(&self, held: &mut Vec<B::Connection>, count: usize) {
        held.retain(|connection| !B::is_closed(connection));
        held.truncate(count);
        while held.len() < count {
            let Ok(Ok(connection)) = timeout(LOOK, self.stop.pool.acquire()).await else { return };
            held.push(connection);
        }
    }

    /// Tells the outside where the detour has begun to be narrow or ceased to be.
    fn tell(&self, now: Option<Narrowed>) {
        let before = std::mem::replace(&mut *self.stop.width.lock().unwrap_or_else(PoisonError::into_inner), now);
        let of = self.alias.clone();
        let kind = match (before, now) {
            (None, Some(Narrowed { usable, size, latency })) => EventKind::DetourNarrowed { of, usable, size, latency },
            (Some(_), None) => EventKind::DetourWidened { of },
            (None, None) | (Some(_), Some(_)) => return,
        };
        let server = &self.stop.server;
        let (alias, address) = (Some(server.name.clone()), Some(server.address.as_str().into()));
        self.observer.emit(Event { alias, address, kind });
    }
}

#[cfg(test)]
mod tests {
    use tokio::sync::Notify;

    use super::*;
    use crate::{
        health::{Belief, Generation, State},
        observe::Events,
        router::fake::FakePool,
    };

    const LIMIT: Duration = Duration::from_millis(20);

    /// A detour of eight places for a replica, watched over by a task.
    struct Bench {
        pool: Arc<FakePool>,
        replica: Arc<Server>,
        stop: Stop<FakePool>,
        events: Events,
    }

    impl Bench {
        fn start() -> Self {
            let server = |name| Arc::new(Server::new(name, "db".to_owned(), Arc::new(Notify::new())));
            let name = |name| AliasName::new(name).unwrap();
            let (primary, replica, pool) = (server(name("primary")), server(name("replica")), FakePool::new(8));
            let (pool, observer) = (Arc::new(pool), Observer::default());
            let (stop, events) = (Stop::new(&primary, &pool), observer.events());
            let relieved = vec![Arc::clone(&replica)];
            let (alias, limit) = (name("replica"), LIMIT);
            tokio::spawn(Strait { alias, stop: stop.clone(), size: 8, limit, relieved, observer }.tend());
            Self { pool, replica, stop, events }
        }

        /// How many requests the detour takes at once, after a while.
        async fn usable(&self) -> usize {
            sleep(40 * LOOK).await;
            let mut lent = Vec::new();
            while let Ok(Ok(connection)) = timeout(LOOK / 100, self.pool.acquire()).await {
                lent.push(connection);
            }
            lent.len()
        }

        fn publish(&self, state: State, generation: u32) {
            self.replica.publish(Belief::new(state, Generation(generation)));
        }

        async fn told(&mut self) -> EventKind {
            timeout(PATIENCE, self.events.next()).await.expect("it is told").unwrap().kind
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_detour_narrows_to_one_while_its_target_is_slow_and_widens_when_that_is_calm() {
        let mut bench = Bench::start();
        bench.pool.answers_after(LIMIT * 2);
        assert_eq!(bench.usable().await, 8, "nobody is on a detour");
        bench.publish(State::Down, 1);
        assert_eq!(bench.usable().await, 1);
        let narrowed = bench.told().await;
        assert!(matches!(narrowed, EventKind::DetourNarrowed { usable: 4, size: 8, .. }), "{narrowed:?}");
        assert_eq!(bench.stop.width.lock().unwrap().unwrap().usable, 1);
        bench.pool.answers_after(LIMIT / 2);
        assert_eq!(bench.usable().await, 8);
        assert!(matches!(bench.told().await, EventKind::DetourWidened { .. }));
        assert!(timeout(PATIENCE, bench.events.next()).await.is_err(), "each is told once");
    }

    #[tokio::test(start_paused = true)]
    async fn when_the_detour_ends_nothing_is_held_any_more() {
        let mut bench = Bench::start();
        bench.pool.answers_after(LIMIT * 2);
        bench.publish(State::Down, 1);
        assert_eq!(bench.usable().await, 1);
        bench.publish(State::Up, 2);
        assert_eq!(bench.usable().await, 8);
        assert!(matches!(bench.told().await, EventKind::DetourNarrowed { .. }));
        assert!(matches!(bench.told().await, EventKind::DetourWidened { .. }));
    }
}
