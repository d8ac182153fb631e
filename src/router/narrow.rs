//! How is a slow target spared? Where a round trip to it takes too long, places of the detour's pool are held empty-handed, so that
//! fewer requests go there at once. It needs nothing of the pool but to lend, and nothing of a request at all.

use std::{
    future::{Future, poll_fn},
    pin::Pin,
    sync::{Arc, Mutex, PoisonError},
    task::{Context, Poll, Waker},
    time::Duration,
};

use tokio::time::timeout;

use super::{queue::Place, settle::Unproven, stop::Stop};
use crate::{
    clock,
    config::AliasName,
    health::Need,
    observe::{Event, EventKind, Observer},
    plan::{Candidate, Narrowed},
    policy::Squeeze,
    pool::{Backend, Connector, Server},
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

/// One place of the pool that no request gets.
enum Held<'a, B: Backend> {
    Connection(B::Connection),
    /// A request that has none made for it. It stands in line with the others, so that the detour counts as full when they have to
    /// wait.
    Empty {
        request: Request<'a, B>,
        _place: Place<'a>,
    },
}

type Request<'a, B> =
    Pin<Box<dyn Future<Output = Result<<B as Backend>::Connection, <B as Backend>::Error>> + Send + 'a>>;

impl<B: Backend> Held<'_, B> {
    fn is_empty(&self) -> bool {
        matches!(self, Self::Empty { .. })
    }
}

impl<B: Backend> Strait<B> {
    /// Watches over the detour until its task is aborted.
    pub(super) async fn tend(self) {
        let mut squeeze = Squeeze::new(self.size, self.limit);
        let mut held = Vec::new();
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
            self.hold(&mut held, squeeze.held_back());
            // It never ends by itself.
            let _ = timeout(LOOK, gather(&mut held)).await;
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
    async fn look(&self, held: &mut Vec<Held<'_, B>>) -> Option<Duration> {
        let at = held.iter().position(|held| !held.is_empty());
        let mut connection = match at.map(|at| held.swap_remove(at)) {
            Some(Held::Connection(connection)) => connection,
            Some(Held::Empty { .. }) | None => timeout(PATIENCE, self.stop.pool.acquire()).await.ok()?.ok()?,
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
        held.push(Held::Connection(connection));
        Some(shortest)
    }

    /// Holds so many places of the pool, and gives back those beyond: one with a connection, to ask over, then those that have none
    /// yet. For what is held nothing is opened, and what is open is left to the requests, so that they open less.
    fn hold<'a>(&'a self, held: &mut Vec<Held<'a, B>>, count: usize) {
        held.retain(|held| !matches!(held, Held::Connection(connection) if B::is_closed(connection)));
        let status = self.stop.pool.status();
        let empty = count.saturating_sub(1).min(status.max_size.saturating_sub(status.size));
        // A pool lends what is idle before it gives an empty place.
        while held.len() < count || held.iter().filter(|held| held.is_empty()).count() < empty {
            let Some(one) = self.take() else { break };
            held.push(one);
        }
        let first = held.iter().position(|held| !held.is_empty());
        first.into_iter().for_each(|first| held.swap(0, first));
        if let Some((_, others)) = held.split_first_mut() {
            others.sort_by_key(|held| !held.is_empty());
        }
        held.truncate(count);
    }

    /// What the pool has now: a connection that is idle, or else a place.
    fn take(&self) -> Option<Held<'_, B>> {
        let mut request: Request<'_, B> = Box::pin(Connector::barred(self.stop.pool.acquire()));
        match request.as_mut().poll(&mut Context::from_waker(Waker::noop())) {
            Poll::Ready(Ok(connection)) => Some(Held::Connection(connection)),
            Poll::Ready(Err(_)) => None,
            Poll::Pending => {
                let _place = self.stop.queue.hold();
                Some(Held::Empty { request, _place })
            }
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
        self.observer.emit(Event::new(Some((server.name.clone(), server.address.as_str().into())), kind));
    }
}

/// Takes what comes back of the pool's connections for the places that are held without one.
///
/// Cancel safety: cancel safe, they go on waiting.
async fn gather<B: Backend>(held: &mut Vec<Held<'_, B>>) {
    poll_fn(|cx| {
        held.retain_mut(|one| {
            let Held::Empty { request, .. } = one else { return true };
            match request.as_mut().poll(cx) {
                Poll::Ready(Ok(connection)) => *one = Held::Connection(connection),
                Poll::Ready(Err(_)) => return false,
                Poll::Pending => {}
            }
            true
        });
        Poll::Pending
    })
    .await
}

#[cfg(test)]
mod tests {
    use tokio::{sync::Notify, time::sleep};

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

    #[tokio::test(start_paused = true)]
    async fn to_hold_places_back_opens_no_connection_and_what_is_open_is_left_to_the_requests() {
        let bench = Bench::start();
        let open = [bench.pool.acquire().await.unwrap(), bench.pool.acquire().await.unwrap()];
        drop(open);
        bench.pool.answers_after(LIMIT * 2);
        bench.publish(State::Down, 1);
        assert_eq!(bench.usable().await, 1);
        assert_eq!(bench.pool.made(), 2, "the one to ask over, and one for a request");
        let _one = bench.pool.acquire().await.unwrap();
        assert!(bench.stop.is_full(), "who comes now goes elsewhere first");
    }

    #[tokio::test(start_paused = true)]
    async fn a_detour_without_a_connection_is_held_back_over_the_one_that_is_asked() {
        let bench = Bench::start();
        bench.pool.answers_after(LIMIT * 2);
        bench.publish(State::Down, 1);
        sleep(40 * LOOK).await;
        assert_eq!(bench.pool.made(), 1);
        assert_eq!(bench.usable().await, 1);
    }

    #[tokio::test(start_paused = true)]
    async fn places_of_a_pool_that_is_in_full_use_are_held_as_they_come_back() {
        let bench = Bench::start();
        let mut lent = Vec::new();
        for _ in 0..8 {
            lent.push(bench.pool.acquire().await.unwrap());
        }
        bench.pool.answers_after(LIMIT * 2);
        bench.publish(State::Down, 1);
        drop(lent.split_off(4));
        sleep(40 * LOOK).await;
        drop(lent);
        assert_eq!((bench.usable().await, bench.pool.made()), (1, 8));
    }
}
