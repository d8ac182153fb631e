//! How one request gets its connection: down the plan, within one deadline.

use std::{
    future::{Future, poll_fn},
    pin::{Pin, pin},
    sync::{Arc, Mutex},
    task::{Context, Poll},
    time::{Duration, Instant},
};

use arc_swap::{ArcSwap, ArcSwapOption};

use super::{
    Inner,
    beside::Beside,
    deadline::Deadline,
    error::{Error, Refusal},
    fate::Epoch,
    get::Get,
    hedge::Patience,
    lease::Lease,
    meter::{Count, Reason},
    queue::Place,
    settle::{Unanswered, prove},
    stop::Stop,
};
use crate::{
    clock,
    config::{AliasName, CallSettings},
    health::{Belief, Generation, Need},
    plan::{Candidate, Chain, Choice, Plan, Route, Table},
    policy::{Budget, Fault},
    pool::{AcquireError, AcquireErrorKind, Backend, Server},
};

/// One alias, resolved: its route over pools.
#[derive(Debug)]
pub(super) struct Line<B> {
    pub(super) name: AliasName,
    pub(super) chain: Chain,
    pub(super) route: Route<Stop<B>>,
    pub(super) acquire_timeout: Duration,
    /// Requests that may wait in line for each of its pools.
    pub(super) max_waiting: usize,
    /// How its calls are bounded, and how many of them are made again.
    pub(super) calls: CallSettings,
    pub(super) budget: Budget,
    /// Within what its server counts transactions, where somebody has asked.
    pub(super) epoch: ArcSwapOption<Epoch>,
    pub(super) patience: Patience,
    /// When it was told last that a write was not confirmed by replicas.
    pub(super) unconfirmed: Mutex<Option<Instant>>,
    /// Connections that each of its detours keeps open.
    pub(super) min_idle: usize,
    pub(super) table: Arc<ArcSwap<Table>>,
    /// What has become of its requests and calls.
    pub(super) count: Arc<Count>,
}

/// What has given a request nothing, as of which generation, and why.
type Tried<'a, B> = (&'a Stop<B>, Generation, Refusal);

/// A request on its way, of a type that may contain itself.
pub(super) type Getting<'a, B> = Pin<Box<dyn Future<Output = Result<Lease<B>, Error>> + Send + 'a>>;

impl<B: Backend> Line<B> {
    /// Takes a connection along the plan.
    pub(super) fn get<'a>(&'a self, router: &'a Inner<B>) -> impl Future<Output = Result<Lease<B>, Error>> + Send + 'a {
        Get::new(self, router, B::acquire)
    }

    /// When something speaks against the alias's own server, or a reload has put another line in this one's place.
    pub(super) fn get_elsewhere<'a>(&'a self, router: &'a Inner<B>) -> Getting<'a, B> {
        Box::pin(async move {
            match self.is_retired() {
                true => router.line(self.name.as_str())?.get(router).await,
                false => self.get_within(router, None, self.deadline()).await,
            }
        })
    }

    /// When the alias's own server gave an error.
    pub(super) fn get_after<'a>(
        &'a self,
        router: &'a Inner<B>,
        (stop, generation): (&'a Stop<B>, Generation),
        error: B::Error,
        deadline: Option<Instant>,
    ) -> Getting<'a, B> {
        let refused = self.refused(stop, generation, error.into());
        Box::pin(async move {
            let deadline = deadline.unwrap_or_else(|| self.deadline());
            match refused {
                Some(refusal) => self.get_within(router, Some((stop, generation, refusal)), deadline).await,
                None => Err(self.overloaded(stop, true)),
            }
        })
    }

    /// When a request has waited for the alias's own server in vain: it has `gone` meanwhile, or went behind the others.
    pub(super) fn get_on<'a>(
        &'a self,
        router: &'a Inner<B>,
        gone: Option<(&'a Stop<B>, Generation)>,
        deadline: Instant,
    ) -> Getting<'a, B> {
        let tried = gone.map(|(stop, generation)| (stop, generation, Refusal::went_down(&stop.server)));
        Box::pin(self.get_within(router, tried, deadline))
    }

    /// When something was seen of the alias's own server while the request waited for a connection, which is there now.
    pub(super) fn get_proven<'a>(
        &'a self,
        router: &'a Inner<B>,
        (stop, generation): (&'a Stop<B>, Generation),
        connection: B::Connection,
        deadline: Instant,
    ) -> Getting<'a, B> {
        Box::pin(async move {
            let first = pin!(std::future::ready(Ok(connection)));
            let found = self.attempt(stop, generation, first, deadline).await;
            match found.and_then(|connection| stop.confirm(self.route.need(), connection).map_err(Miss::Refused)) {
                Ok(connection) => Ok(self.lend(connection, stop, generation, false)),
                Err(Miss::Late) => Err(self.late(stop)),
                Err(Miss::Refused(refusal)) => {
                    self.get_within(router, Some((stop, generation, refusal)), deadline).await
                }
            }
        })
    }

    /// Goes down the plan, and if a reload closes the pools meanwhile, down the plan of the line that has taken this one's place.
    async fn get_within(
        &self,
        router: &Inner<B>,
        tried: Option<Tried<'_, B>>,
        deadline: Instant,
    ) -> Result<Lease<B>, Error> {
        match self.get_past(tried, &Beside::default(), deadline).await {
            Err(error) if error.is_unavailable() && self.is_retired() => self.follow(router, deadline).await,
            result => result,
        }
    }

    pub(super) fn follow<'a>(&'a self, router: &'a Inner<B>, deadline: Instant) -> Getting<'a, B> {
        Box::pin(async move { router.line(self.name.as_str())?.get_within(router, None, deadline).await })
    }

    /// Goes down the plan; what was tried already is not tried again, unless it has gone and come back since: while there is such a
    /// one the plan is not used up. Who waits on a detour goes back when an own server does.
    pub(super) async fn get_past(
        &self,
        tried: Option<Tried<'_, B>>,
        beside: &Beside,
        deadline: Instant,
    ) -> Result<Lease<B>, Error> {
        let mut failed = &*beside.failed;
        let (mut tried, mut refusals) = match tried {
            Some((stop, generation, refusal)) => (vec![(stop.pool_address(), generation)], vec![refusal]),
            None => (Vec::new(), Vec::new()),
        };
        let mut full = false;
        'plan: loop {
            let (turns, patient) = (self.turns(), std::mem::take(&mut full));
            let (mut crowded, mut stays) = (None, false);
            let plan = self.ladder(failed, beside.strictly, &tried);
            // Where a server with an open breaker is left, it is better than to wait for long.
            let spared = |belief: Belief| belief.is_behind(self.route.need());
            let hasty = !patient && plan.iter().any(|choice| spared(choice.belief));
            for Choice { candidate: stop, detour, belief, .. } in plan {
                // Overload sends nobody on a detour.
                if stays && detour {
                    continue;
                }
                let Some(place) = self.join(stop) else {
                    stays |= !detour;
                    crowded.get_or_insert(stop);
                    continue;
                };
                let generation = belief.generation();
                let until = if hasty && !spared(belief) { deadline.min(clock::now() + HASTE) } else { deadline };
                let leaves = (detour && !beside.strictly).then_some(&*turns);
                let Some(found) = self.ask((stop, generation, detour), leaves, until).await else {
                    (tried, failed) = (Vec::new(), &[]);
                    continue 'plan;
                };
                drop(place);
                match found {
                    Ok(connection) => return Ok(self.lend(connection, stop, generation, detour)),
                    Err(Miss::Late) if until < deadline => full = true,
                    Err(Miss::Late) => return Err(self.late(stop)),
                    Err(Miss::Refused(refusal)) => {
                        tried.push((stop.pool_address(), generation));
                        refusals.push(refusal);
                    }
                }
            }
            match crowded {
                // Nothing was better than to wait.
                _ if full => {}
                Some(stop) => return Err(self.overloaded(stop, false)),
                None if self.ladder(failed, beside.strictly, &tried).is_empty() => return Err(self.nowhere(refusals)),
                None => {}
            }
        }
    }

    /// Waits for a connection to one server of the plan, which still serves when it comes. `None` for who `leaves`: an own server
    /// is back since those turns.
    async fn ask(
        &self,
        (stop, generation, detour): (&Stop<B>, Generation, bool),
        leaves: Option<&[(Generation, bool)]>,
        until: Instant,
    ) -> Option<Result<B::Connection, Miss>> {
        let first = pin!(stop.pool.acquire());
        let found = tokio::select! {
            biased;
            found = self.attempt(stop, generation, first, until) => found,
            () = self.back(leaves.unwrap_or_default()), if leaves.is_some() => return None,
        };
        let need = if detour { Need::Reads } else { self.route.need() };
        Some(found.and_then(|connection| stop.confirm(need, connection).map_err(Miss::Refused)))
    }

    fn lend(&self, connection: B::Connection, stop: &Stop<B>, generation: Generation, detour: bool) -> Lease<B> {
        let reason = if detour { self.reason() } else { Reason::Own };
        if detour {
            self.count(|server| server.cell.count_detoured());
        }
        Lease::new(connection, stop.lend(reason), generation, detour)
    }

    /// The plan for a call that has failed on some servers: those come last, or not at all. A detour that is full comes after those
    /// that are not, and is waited for where there is nothing better. What was tried, and has not turned since, is left out.
    fn ladder(&self, failed: &[usize], strictly: bool, tried: &[(usize, Generation)]) -> Vec<Choice<'_, Stop<B>>> {
        let mut plan: Vec<_> = self.route.plan().collect();
        plan.retain(|choice| !tried.contains(&(choice.candidate.pool_address(), choice.belief.generation())));
        let has_failed = |choice: &Choice<'_, Stop<B>>| failed.contains(&choice.candidate.server_address());
        plan.sort_by_cached_key(|choice| (has_failed(choice), choice.detour && choice.candidate.is_full()));
        plan.retain(|choice| !(strictly && has_failed(choice)));
        plan
    }

    /// A place in line for the connections of one pool, unless too many wait there.
    pub(super) fn join<'a>(&self, stop: &'a Stop<B>) -> Option<Place<'a>> {
        stop.queue.join(self.max_waiting, || stop.pool.status())
    }

    /// As of which generation the alias's own servers are, and whether they admit.
    fn turns(&self) -> Vec<(Generation, bool)> {
        let beliefs = self.route.own().iter().map(Candidate::belief);
        beliefs.map(|belief| (belief.generation(), belief.admits())).collect()
    }

    /// Waits until an own server serves, and one has gone or come back since `turns`, or admits again.
    async fn back(&self, turns: &[(Generation, bool)]) {
        let mut before = turns.to_vec();
        loop {
            let mut news: Vec<_> = self.route.own().iter().map(|stop| Box::pin(stop.server.news())).collect();
            let now = self.turns();
            let back =
                |(before, now): (&(Generation, bool), &(Generation, bool))| before.0 != now.0 || now.1 && !before.1;
            if before.iter().zip(&now).any(back) && self.route.is_at_home() {
                return;
            }
            // One that has stopped to admit may begin again. What has turned stays so until it serves.
            before.iter_mut().zip(now).for_each(|(before, now)| before.1 = now.1);
            let mut any = |cx: &mut Context<'_>| news.iter_mut().any(|news| news.as_mut().poll(cx).is_ready());
            poll_fn(|cx| if any(cx) { Poll::Ready(()) } else { Poll::Pending }).await;
        }
    }

    /// Waits for a connection to one server, no longer than until the deadline or until that server turns from `generation`,
    /// as of which it was chosen, and checks it first if the server is in doubt.
    ///
    /// Cancel safety: a connection in hand goes back to its pool or, half made or half checked, is closed.
    async fn attempt<F>(
        &self,
        stop: &Stop<B>,
        generation: Generation,
        mut first: Pin<&mut F>,
        deadline: Instant,
    ) -> Result<B::Connection, Miss>
    where
        F: Future<Output = Result<B::Connection, B::Error>>,
    {
        let _unanswered = Unanswered::waiting_for(&stop.server);
        let work = async {
            let mut connection = first.as_mut().await;
            // At worst every idle connection is dead: each is tried once, and then a new one.
            for _ in 0..=stop.pool.status().max_size {
                let belief = stop.belief();
                match connection {
                    Err(error) => {
                        return Err(self.refused(stop, generation, error.into()).map_or(Miss::Late, Miss::Refused));
                    }
                    // A server that is down is not doubted any more.
                    Ok(connection) if belief.generation() != generation => {
                        B::discard(connection);
                        return Err(Miss::Refused(Refusal::went_down(&stop.server)));
                    }
                    Ok(connection) if B::is_closed(&connection) => B::discard(connection),
                    Ok(connection) if !belief.is_doubted() => return Ok(connection),
                    Ok(connection) => {
                        if let Some(connection) = Box::pin(prove::<B>(connection, &stop.server)).await {
                            return Ok(connection);
                        }
                    }
                }
                // Boxed, as the check is: what is rare must not make every wait large.
                connection = Box::pin(stop.pool.acquire()).await;
            }
            let dead = AcquireError::new(AcquireErrorKind::Connect, "every connection was dead");
            Err(self.refused(stop, generation, dead).map_or(Miss::Late, Miss::Refused))
        };
        tokio::select! {
            biased;
            result = work => result,
            () = stop.server.turned(generation) => Err(Miss::Refused(Refusal::went_down(&stop.server))),
            () = tokio::time::sleep_until(deadline.into()) => Err(Miss::Late),
        }
    }

    /// What a pool's error means: an overload ends the search (`None`), anything else goes on to the next server.
    fn refused(&self, stop: &Stop<B>, generation: Generation, error: AcquireError) -> Option<Refusal> {
        if error.kind() == AcquireErrorKind::Exhausted {
            return None;
        }
        if stop.server.is_accused_by_error(&error) {
            stop.server.doubt(generation);
        }
        Some(Refusal::new(&stop.server, Fault::of(&error).class(), error))
    }

    /// By when a request that has to wait gives up.
    pub(super) fn deadline(&self) -> Instant {
        let own = clock::now() + self.acquire_timeout;
        Deadline::current().map_or(own, |around| own.min(around.at()))
    }

    /// Where a request would go now, and why.
    pub(super) fn explain(&self) -> Plan {
        let mut plan = self.chain.explain(self.name.clone(), &self.table.load(), clock::now());
        for step in plan.steps.iter_mut().filter(|step| step.detour) {
            let stop = self.route.failover().iter().find(|stop| stop.server.name == step.alias);
            step.narrowed = stop.and_then(Stop::narrowed);
        }
        plan
    }

    /// Whether a reload has put another line in this one's place.
    pub(super) fn is_retired(&self) -> bool {
        self.route.own().first().is_some_and(|stop| stop.belief().is_retired())
    }

    /// Counts for those of the alias's own servers that are out.
    pub(super) fn count(&self, count: impl Fn(&Server)) {
        let own = self.route.own();
        let out = own.iter().filter(|stop| own.len() == 1 || !stop.belief().serves(self.route.need()));
        out.for_each(|stop| count(&stop.server));
    }
}

/// How long a request waits for a connection elsewhere before it takes a server whose breaker is open: for a connect, and no longer.
const HASTE: Duration = Duration::from_millis(100);

/// Why one server of the plan gave nothing.
enum Miss {
    /// The deadline has passed.
    Late,
    /// It refused, or went down while the request waited.
    Refused(Refusal),
}

#[cfg(test)]
mod tests {
    use tokio::sync::Notify;

    use super::*;
    use crate::{
        config::{Config, Role},
        health::State,
        router::{fake::FakePool, settle::HOLD},
    };

    const SOON: Duration = Duration::from_secs(1);

    /// The line of a replica that the primary stands in for, with room for one request each.
    fn line() -> Arc<Line<FakePool>> {
        line_past(&[], 1000)
    }

    /// The same with other stand-ins before the primary, and so many that may wait.
    fn line_past(others: &[&str], max_waiting: usize) -> Arc<Line<FakePool>> {
        line_of("replica", others, max_waiting)
    }

    fn line_of(alias: &str, others: &[&str], max_waiting: usize) -> Arc<Line<FakePool>> {
        let url = "postgres://app@db/app";
        let mut config = Config::builder().server("primary", Role::Primary, url).server("replica", Role::Replica, url);
        for other in others {
            config = config.server(other, Role::Replica, url).failover(other, [""; 0]);
        }
        let failover = others.iter().copied().chain(["primary"]);
        let config = config.failover("replica", failover).build().unwrap();
        let alias = config.alias(alias).unwrap();
        let chain = Chain::of(&config, alias);
        let stop = |name: &AliasName| {
            let server = Server::new(name.clone(), name.to_string(), Arc::new(Notify::new()));
            Stop::new(&Arc::new(server), &Arc::new(FakePool::new(1)))
        };
        let (own, failover) = (chain.own.iter().map(stop).collect(), chain.failover.iter().map(stop).collect());
        Arc::new(Line {
            count: Arc::default(),
            name: alias.name.clone(),
            route: Route::new(chain.need, own, failover, crate::config::Balance::default()),
            chain,
            acquire_timeout: 60 * SOON,
            calls: alias.calls.clone(),
            budget: Budget::new(alias.calls.retry_budget, 0),
            epoch: ArcSwapOption::empty(),
            patience: Patience::new(alias.calls.hedge_after),
            max_waiting,
            unconfirmed: Mutex::default(),
            min_idle: 0,
            table: Arc::default(),
        })
    }

    /// The line of a group of two replicas that the primary stands in for.
    fn line_of_group(max_waiting: usize) -> Arc<Line<FakePool>> {
        let mut line = line_past(&["spare"], max_waiting);
        let group = Arc::get_mut(&mut line).unwrap();
        let [spare, primary] = group.route.failover() else { panic!("two stand in") };
        let own = vec![group.route.own()[0].clone(), spare.clone()];
        group.route = Route::new(group.route.need(), own, vec![primary.clone()], crate::config::Balance::default());
        line
    }

    impl Line<FakePool> {
        async fn get_from(
            &self,
            tried: Option<Tried<'_, FakePool>>,
            deadline: Instant,
        ) -> Result<Lease<FakePool>, Error> {
            self.get_past(tried, &Beside::default(), deadline).await
        }
    }

    fn publish(line: &Line<FakePool>, state: State, generation: u32) {
        line.route.own()[0].server.publish(Belief::new(state, Generation(generation)));
    }

    /// Lets everything run that can.
    async fn quiet() {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }

    #[tokio::test(start_paused = true)]
    async fn who_waits_on_a_full_detour_goes_back_when_its_own_server_does() {
        let line = line();
        publish(&line, State::Down, 1);
        let on_detour = line.get_from(None, clock::now() + 60 * SOON).await.unwrap();
        assert!(on_detour.is_detour());
        let waiting = tokio::spawn({
            let line = Arc::clone(&line);
            async move { line.get_from(None, clock::now() + 60 * SOON).await }
        });
        quiet().await;
        publish(&line, State::Recovering, 1);
        quiet().await;
        assert!(!waiting.is_finished());
        publish(&line, State::Up, 2);
        let lease = tokio::time::timeout(SOON, waiting).await.expect("it has nothing to wait for").unwrap().unwrap();
        assert!(!lease.is_detour());
    }

    #[tokio::test(start_paused = true)]
    async fn who_waits_on_a_full_detour_goes_back_when_its_own_server_merely_admits_again() {
        let line = line();
        let own = &line.route.own()[0];
        own.server.publish(Belief::new(State::Up, Generation(0)).without_admission());
        // It has no connection, and makes none.
        let refused = || Some((own, Generation(0), Refusal::went_down(&own.server)));
        let on_detour = line.get_from(refused(), clock::now() + 60 * SOON).await.unwrap();
        assert!(on_detour.is_detour());
        let begun = clock::now();
        let waiting = line.get_from(refused(), begun + 60 * SOON);
        let (lease, ()) = tokio::join!(waiting, async {
            quiet().await;
            publish(&line, State::Up, 0);
        });
        assert!(!lease.unwrap().is_detour() && clock::now() - begun < SOON);
    }

    #[tokio::test(start_paused = true)]
    async fn a_request_that_waits_ends_by_the_deadline_around_it_and_an_idle_connection_is_lent_even_after() {
        let line = line();
        let held = line.get_from(None, line.deadline()).await.unwrap();
        let begun = clock::now();
        let late = async {
            let error = line.get_from(None, line.deadline()).await.unwrap_err();
            drop(held);
            (error, line.get_from(None, line.deadline()).await.is_ok())
        };
        let (error, lent) = Deadline::after(SOON).scope(late).await;
        assert!(error.is_late() && !error.is_overloaded() && error.attempts().is_empty(), "{error}");
        assert!(lent && clock::now() - begun < SOON + 20 * Duration::from_millis(1));
    }

    #[tokio::test(start_paused = true)]
    async fn a_request_that_chose_a_server_before_it_went_down_does_not_wait_for_it() {
        let line = line();
        let _all = line.get_from(None, clock::now() + 60 * SOON).await.unwrap();
        let choice = line.route.choose().unwrap();
        publish(&line, State::Down, 1);
        let (stop, generation) = (choice.candidate, choice.belief.generation());
        let first = pin!(stop.pool.acquire());
        let attempt = line.attempt(stop, generation, first, clock::now() + 60 * SOON);
        let miss = tokio::time::timeout(SOON, attempt).await.expect("it has nothing to wait for");
        assert!(matches!(miss, Err(Miss::Refused(_))));
    }

    #[tokio::test(start_paused = true)]
    async fn a_server_found_down_after_it_was_doubted_lends_nothing() {
        let line = line();
        line.route.own()[0].server.lose(Generation::default());
        let choice = line.route.choose().unwrap();
        publish(&line, State::Down, 1);
        let (stop, generation) = (choice.candidate, choice.belief.generation());
        let miss = line.attempt(stop, generation, pin!(stop.pool.acquire()), clock::now() + 60 * SOON).await;
        assert!(matches!(miss, Err(Miss::Refused(_))));
    }

    #[tokio::test(start_paused = true)]
    async fn a_primary_found_to_be_none_while_a_request_waits_is_lent_to_no_write() {
        let line = line_of("primary", &[], 1000);
        let server = Arc::clone(&line.route.own()[0].server);
        server.doubt(Generation::default());
        let get = line.get_from(None, clock::now() + 60 * SOON);
        // While its connection is asked whether it answers.
        let demote = async { server.publish(Belief::new(State::Up, Generation(0)).without_writes()) };
        let (lease, ()) = tokio::join!(get, demote);
        assert!(lease.unwrap_err().is_unavailable());
        assert_eq!(line.route.own()[0].pool.status().idle, 1, "there is nothing wrong with the connection");
    }

    #[tokio::test(start_paused = true)]
    async fn who_holds_a_connection_goes_on_as_soon_as_a_ping_has_answered() {
        let line = line();
        let begun = clock::now();
        line.route.own()[0].server.lose(Generation::default());
        let get = line.get_from(None, begun + 60 * SOON);
        let answer = async {
            tokio::time::sleep(HOLD / 5).await;
            // As the monitor does: it looks, and then it knows.
            line.route.own()[0].server.cell.take_doubt();
            publish(&line, State::Up, 0);
        };
        let (lease, ()) = tokio::join!(get, answer);
        assert!(!lease.unwrap().is_detour() && clock::now() - begun < HOLD / 2);
    }

    /// Whether a request goes on a detour when the server is found down a moment after its connection has answered.
    async fn detours_when_down_just_after(doubt: impl Fn(&Server)) -> bool {
        let line = line();
        let server = Arc::clone(&line.route.own()[0].server);
        doubt(&server);
        let deadline = clock::now() + 60 * SOON;
        let mut get = pin!(line.get_from(None, deadline));
        tokio::select! {
            biased;
            lease = &mut get => lease.unwrap().is_detour(),
            () = tokio::time::sleep(HOLD / 2) => {
                server.publish(Belief::new(State::Down, Generation(1)));
                get.await.unwrap().is_detour()
            }
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_connection_holds_for_a_moment_where_others_were_just_lost() {
        assert!(!detours_when_down_just_after(|server| server.doubt(Generation::default())).await);
        assert!(detours_when_down_just_after(|server| server.lose(Generation::default())).await);
    }

    #[tokio::test(start_paused = true)]
    async fn one_lost_session_sends_no_request_elsewhere() {
        let line = line();
        line.route.own()[0].server.lose(Generation::default());
        let lease = line.get_from(None, clock::now() + 60 * SOON).await.unwrap();
        assert!(!lease.is_detour());
    }

    async fn get(line: &Arc<Line<FakePool>>) -> Result<Lease<FakePool>, Error> {
        line.get_from(None, line.deadline()).await
    }

    #[tokio::test(start_paused = true)]
    async fn a_full_detour_gives_way_to_the_next_and_is_waited_for_when_all_are_full() {
        let line = line_past(&["spare", "other"], 1000);
        publish(&line, State::Down, 1);
        let leases = [get(&line).await.unwrap(), get(&line).await.unwrap(), get(&line).await.unwrap()];
        let servers = leases.each_ref().map(|lease| lease.server().to_string());
        assert_eq!(servers, ["spare", "other", "primary"]);
        let waiting = tokio::spawn({
            let line = Arc::clone(&line);
            async move { get(&line).await.map(|lease| lease.server().to_string()) }
        });
        quiet().await;
        assert!(!waiting.is_finished());
        drop(leases);
        assert_eq!(waiting.await.unwrap().unwrap(), "spare");
    }

    #[tokio::test(start_paused = true)]
    async fn a_wait_for_full_detours_ends_in_an_overload_that_tells_how_many_wait() {
        let line = line_past(&["spare"], 1000);
        publish(&line, State::Down, 1);
        let _all = [get(&line).await.unwrap(), get(&line).await.unwrap()];
        let other = tokio::spawn({
            let line = Arc::clone(&line);
            async move { line.get_from(None, clock::now() + 100 * SOON).await.map(drop) }
        });
        quiet().await;
        let begun = clock::now();
        let error = get(&line).await.unwrap_err();
        assert!(error.is_overloaded() && clock::now() - begun >= 60 * SOON);
        assert_eq!(error.retry_after(), Some(line.acquire_timeout));
        let told = "replica: no connection to spare came free within 1m (1 of 1 in use, 1 waiting)";
        assert_eq!(error.to_string(), told);
        other.abort();
    }

    #[tokio::test(start_paused = true)]
    async fn a_full_server_is_waited_for_where_the_one_with_an_open_breaker_refuses() {
        let line = line();
        let held = get(&line).await.unwrap();
        let primary = &line.route.failover()[0];
        primary.server.publish(Belief::new(State::Up, Generation(0)).behind());
        primary.pool.close();
        let (lease, ()) = tokio::join!(get(&line), async {
            tokio::time::sleep(5 * HASTE).await;
            drop(held);
        });
        assert!(!lease.unwrap().is_detour());
        let _held = get(&line).await.unwrap();
        let begun = clock::now();
        assert!(get(&line).await.unwrap_err().is_overloaded() && clock::now() - begun >= line.acquire_timeout);
    }

    #[tokio::test(start_paused = true)]
    async fn a_server_that_went_and_came_back_within_one_request_serves_it() {
        let line = line();
        line.route.failover()[0].pool.close();
        let held = get(&line).await.unwrap();
        let (lease, ()) = tokio::join!(get(&line), async {
            quiet().await;
            publish(&line, State::Down, 1);
            publish(&line, State::Up, 2);
            quiet().await;
            drop(held);
        });
        assert!(!lease.unwrap().is_detour());
    }

    #[tokio::test(start_paused = true)]
    async fn a_crowded_member_of_a_group_gives_way_to_the_others_and_to_no_detour() {
        let line = line_of_group(0);
        let _one = line.route.own()[0].pool.acquire().await.unwrap();
        for _ in 0..4 {
            assert_eq!(get(&line).await.unwrap().server().as_str(), "spare");
        }
        let _other = line.route.own()[1].pool.acquire().await.unwrap();
        let begun = clock::now();
        assert!(get(&line).await.unwrap_err().is_overloaded() && clock::now() == begun);
    }

    #[tokio::test(start_paused = true)]
    async fn where_too_many_wait_a_request_fails_at_once_and_takes_no_detour() {
        for (max_waiting, told) in [(0, "0 waiting"), (1, "1 waiting")] {
            let line = line_past(&[], max_waiting);
            let held = get(&line).await.unwrap();
            let waiting = tokio::spawn({
                let line = Arc::clone(&line);
                async move {
                    match max_waiting {
                        0 => None,
                        _ => Some(get(&line).await.unwrap()),
                    }
                }
            });
            quiet().await;
            let begun = clock::now();
            let error = get(&line).await.unwrap_err();
            assert!(error.is_overloaded() && clock::now() == begun, "{error}");
            assert_eq!(error.retry_after(), Some(line.acquire_timeout), "by then the line is another");
            assert!(error.to_string().contains("too many wait for a connection to replica already"), "{error}");
            assert!(error.to_string().contains(told), "{error}");
            drop(held);
            drop(waiting.await.unwrap());
            assert!(!get(&line).await.unwrap().is_detour(), "there is room again");
        }
    }
}
