//! How one request gets its connection: down the plan, within one deadline.

use std::{
    future::{Future, poll_fn},
    pin::{Pin, pin},
    sync::Arc,
    task::Poll,
    time::{Duration, Instant},
};

use arc_swap::ArcSwap;

use super::{
    Inner,
    error::{Error, Refusal},
    lease::{Lease, Unanswered, Unproven},
};
use crate::{
    clock,
    config::AliasName,
    health::{Belief, Generation},
    plan::{Candidate, Chain, Choice, Plan, Route, Table},
    policy::Fault,
    pool::{AcquireError, AcquireErrorKind, Backend, Server},
};

/// One alias, resolved: its route over pools.
#[derive(Debug)]
pub(super) struct Line<B> {
    pub(super) name: AliasName,
    pub(super) chain: Chain,
    pub(super) route: Route<Stop<B>>,
    pub(super) acquire_timeout: Duration,
    /// Connections that each of its detours keeps open.
    pub(super) min_idle: usize,
    pub(super) table: Arc<ArcSwap<Table>>,
}

/// One place on a route: a server, and the pool that this route uses there.
#[derive(Debug)]
pub(super) struct Stop<B> {
    pub(super) server: Arc<Server>,
    pub(super) pool: Arc<B>,
}

impl<B> Stop<B> {
    pub(super) fn new(server: &Arc<Server>, pool: &Arc<B>) -> Self {
        Self { server: Arc::clone(server), pool: Arc::clone(pool) }
    }
}

impl<B> Clone for Stop<B> {
    fn clone(&self) -> Self {
        Self::new(&self.server, &self.pool)
    }
}

impl<B: Send + Sync> Candidate for Stop<B> {
    fn belief(&self) -> Belief {
        self.server.cell.belief()
    }

    fn load(&self) -> u32 {
        self.server.cell.leases().out
    }
}

impl<B: Backend> Line<B> {
    /// Takes a connection along the plan.
    ///
    /// The common case reads one atomic word, polls the pool once, and reads no clock. All others are boxed, so that its
    /// future stays small.
    pub(super) async fn get(&self, router: &Inner<B>) -> Result<Lease<B>, Error> {
        let Some(Choice { candidate: stop, detour: false, clear: true }) = self.route.choose() else {
            return self.get_elsewhere(router).await;
        };
        let generation = stop.belief().generation();
        let mut acquire = pin!(stop.pool.acquire());
        match poll_fn(|cx| Poll::Ready(acquire.as_mut().poll(cx))).await {
            Poll::Ready(Ok(connection)) if !B::is_closed(&connection) => {
                Ok(Lease::new(connection, &stop.server, generation, false))
            }
            Poll::Ready(Ok(connection)) => {
                B::discard(connection);
                Box::pin(self.get_along(None)).await
            }
            Poll::Ready(Err(error)) => match self.refused(stop, generation, error) {
                Some(refusal) => Box::pin(self.get_along(Some((stop, refusal)))).await,
                None => Err(self.overloaded(stop)),
            },
            Poll::Pending => {
                let deadline = clock::now() + self.acquire_timeout;
                match Box::pin(self.attempt(stop, acquire, deadline)).await {
                    Ok((connection, generation)) => Ok(Lease::new(connection, &stop.server, generation, false)),
                    Err(Miss::Late) => Err(self.overloaded(stop)),
                    Err(Miss::Refused(refusal)) => Box::pin(self.get_from(Some((stop, refusal)), deadline)).await,
                }
            }
        }
    }

    /// When something speaks against the alias's own server, or a reload has put another line in this one's place.
    fn get_elsewhere<'a>(
        &'a self,
        router: &'a Inner<B>,
    ) -> Pin<Box<dyn Future<Output = Result<Lease<B>, Error>> + Send + 'a>> {
        Box::pin(async move {
            match self.is_retired() {
                true => router.line(self.name.as_str())?.get(router).await,
                false => self.get_along(None).await,
            }
        })
    }

    async fn get_along(&self, tried: Option<(&Stop<B>, Refusal)>) -> Result<Lease<B>, Error> {
        self.get_from(tried, clock::now() + self.acquire_timeout).await
    }

    /// Goes down the plan; what was tried already is not tried again.
    async fn get_from(&self, tried: Option<(&Stop<B>, Refusal)>, deadline: Instant) -> Result<Lease<B>, Error> {
        let (tried, mut refusals) = match tried {
            Some((stop, refusal)) => (Some(Arc::as_ptr(&stop.pool).addr()), vec![refusal]),
            None => (None, Vec::new()),
        };
        for Choice { candidate: stop, detour, .. } in self.route.plan() {
            if tried == Some(Arc::as_ptr(&stop.pool).addr()) {
                continue;
            }
            match self.attempt(stop, pin!(stop.pool.acquire()), deadline).await {
                Ok((connection, generation)) => {
                    if detour {
                        self.count(|server| server.cell.count_detoured());
                    }
                    return Ok(Lease::new(connection, &stop.server, generation, detour));
                }
                Err(Miss::Late) => return Err(self.overloaded(stop)),
                Err(Miss::Refused(refusal)) => refusals.push(refusal),
            }
        }
        Err(self.nowhere(refusals))
    }

    /// Waits for a connection to one server, no longer than until the deadline or until that server goes down, and checks it
    /// first if the server is in doubt.
    ///
    /// Cancel safety: a connection in hand goes back to its pool or, half made or half checked, is closed.
    async fn attempt<F>(
        &self,
        stop: &Stop<B>,
        mut first: Pin<&mut F>,
        deadline: Instant,
    ) -> Result<(B::Connection, Generation), Miss>
    where
        F: Future<Output = Result<B::Connection, AcquireError>>,
    {
        let generation = stop.belief().generation();
        let _unanswered = Unanswered::waiting_for(&stop.server);
        let work = async {
            let mut connection = first.as_mut().await;
            // At worst every idle connection is dead: each is tried once, and then a new one.
            for _ in 0..=stop.pool.status().max_size {
                match connection {
                    Err(error) => return Err(error),
                    Ok(connection) if B::is_closed(&connection) => B::discard(connection),
                    Ok(connection) if !stop.belief().is_doubted() => return Ok(connection),
                    Ok(connection) => {
                        let unproven = Unproven::<B>::new(connection);
                        if let Some(connection) = unproven.verify().await {
                            return Ok(connection);
                        }
                    }
                }
                connection = stop.pool.acquire().await;
            }
            Err(AcquireError::new(AcquireErrorKind::Connect, "every connection was dead"))
        };
        tokio::select! {
            biased;
            result = work => match result {
                Ok(connection) => Ok((connection, generation)),
                Err(error) => Err(self.refused(stop, generation, error).map_or(Miss::Late, Miss::Refused)),
            },
            () = stop.server.turned(generation) => Err(Miss::Refused(Refusal::went_down(&stop.server))),
            () = tokio::time::sleep_until(deadline.into()) => Err(Miss::Late),
        }
    }

    /// What a pool's error means: an overload ends the search (`None`), anything else goes on to the next server.
    fn refused(&self, stop: &Stop<B>, generation: Generation, error: AcquireError) -> Option<Refusal> {
        if error.kind() == AcquireErrorKind::Exhausted {
            return None;
        }
        let class = Fault::of(&error).class();
        if class.asks_for_ping() {
            stop.server.doubt(generation);
        }
        Some(Refusal::new(&stop.server, class, error))
    }

    fn overloaded(&self, stop: &Stop<B>) -> Error {
        self.count(|server| server.cell.count_refused());
        Error::overloaded(self.name.clone(), &stop.server, stop.pool.status(), self.acquire_timeout)
    }

    fn nowhere(&self, refusals: Vec<Refusal>) -> Error {
        self.count(|server| server.cell.count_refused());
        Error::unavailable(self.explain(), refusals)
    }

    /// Where a request would go now, and why.
    pub(super) fn explain(&self) -> Plan {
        self.chain.explain(self.name.clone(), &self.table.load(), clock::now())
    }

    /// Whether a reload has put another line in this one's place.
    pub(super) fn is_retired(&self) -> bool {
        self.route.own().first().is_some_and(|stop| stop.belief().is_retired())
    }

    /// Counts for those of the alias's own servers that are out.
    fn count(&self, count: impl Fn(&Server)) {
        let own = self.route.own();
        let out = own.iter().filter(|stop| own.len() == 1 || !stop.belief().serves(self.route.need()));
        out.for_each(|stop| count(&stop.server));
    }
}

/// Why one server of the plan gave nothing.
enum Miss {
    /// The deadline has passed.
    Late,
    /// It refused, or went down while the request waited.
    Refused(Refusal),
}
