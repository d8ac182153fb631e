//! One server under watch: its health, its kept connection, and the tasks that ping it.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use tokio::{sync::mpsc, task::AbortHandle};

use super::{
    handover::Handed,
    probe::Probe,
    worker::{Message, Pinged},
};
use crate::{
    clock,
    config::{AliasName, Role, ServerConfig},
    health::{Belief, Cause, Change, Finding, Health, Order, Over, Signal, SlowWatch, State, Tally},
    observe::{Event, EventKind},
    plan::{Drain, Entry, Known, Standing},
    policy::{Breaker, Shift},
    pool::Server,
};

/// One server under watch.
pub(super) struct Watched<P: Probe> {
    server: Arc<Server>,
    address: Arc<str>,
    declared: Role,
    probe: P,
    pub(super) health: Health,
    slow: SlowWatch,
    next_look: Instant,
    breaker: Breaker,
    next_weighing: Instant,
    /// Whether the hold of its breaker is another than was published.
    held_anew: bool,
    /// Whether an error asks for a ping that nobody waits for, and whether the one under way is that.
    urged: bool,
    answering: bool,
    kept: Option<Kept<P::Session>>,
    kept_count: u64,
    /// What somebody has asked for.
    pub(super) drained: Option<Drain>,
    /// How long the last good ping took.
    latency: Option<Duration>,
    /// The counts when the server was last seen up: an outage is told what came after.
    base: Tally,
    standing_told: Standing,
    outbox: Outbox<P::Session>,
}

/// Where the tasks of one server send what they find.
pub(super) struct Outbox<S> {
    pub(super) server: usize,
    pub(super) sender: mpsc::UnboundedSender<Message<S>>,
}

impl<S> Outbox<S> {
    /// The worker is gone when the router is: then nobody wants to know.
    fn send(&self, message: impl FnOnce(usize) -> Message<S>) {
        let _ = self.sender.send(message(self.server));
    }
}

impl<S> Clone for Outbox<S> {
    fn clone(&self) -> Self {
        Self { server: self.server, sender: self.sender.clone() }
    }
}

/// What a ping has found. It is sent on drop, since the worker waits for each ping, also for one that panics.
struct Report<S> {
    outbox: Outbox<S>,
    order: Order,
    asked: Option<u64>,
    took: Duration,
    found: Option<(Finding, Option<S>)>,
}

impl<S> Drop for Report<S> {
    fn drop(&mut self) {
        let panicked = || (Finding::Inconclusive(Cause::new("the ping has panicked")), None);
        let (finding, fresh) = self.found.take().unwrap_or_else(panicked);
        let pinged = Pinged { order: self.order, finding, took: self.took, asked: self.asked };
        self.outbox.send(|server| Message::Pinged { server, pinged, fresh });
    }
}

/// The watched connection; its watcher ends with it.
struct Kept<S> {
    number: u64,
    session: S,
    watcher: AbortHandle,
}

impl<S> Drop for Kept<S> {
    fn drop(&mut self) {
        self.watcher.abort();
    }
}

impl<P: Probe> Watched<P> {
    pub(super) fn new(
        server: Arc<Server>,
        declared: &ServerConfig,
        probe: P,
        outbox: Outbox<P::Session>,
        now: Instant,
    ) -> Self {
        // Each process jitters differently, each server too.
        let seed = fastrand::u64(..);
        Self {
            address: server.address.as_str().into(),
            server,
            declared: declared.role,
            probe,
            health: Health::new(declared.pings.clone(), now, seed),
            slow: SlowWatch::new(declared.pings.slow_after),
            next_look: now,
            breaker: Breaker::new(declared.breaker.clone(), &declared.pings),
            next_weighing: now,
            held_anew: false,
            urged: false,
            answering: false,
            kept: None,
            kept_count: 0,
            drained: None,
            latency: None,
            base: Tally::default(),
            standing_told: Standing::Sound,
            outbox,
        }
    }

    pub(super) fn name(&self) -> &AliasName {
        &self.server.name
    }

    /// Takes over what is known of the same server, at the beginning of a reload.
    pub(super) fn resume(&mut self, before: &Handed) {
        self.health.resume(&before.told);
        self.breaker.resume(before.breaker.clone());
        self.drained = before.drained.clone();
    }

    /// Goes on telling where the worker before has stopped, at the end of a reload: what it did not tell.
    pub(super) fn take_over(&mut self, begun: Option<&Handed>, handed: Option<&Handed>, now: Instant) -> Vec<Change> {
        if let Some(handed) = handed {
            self.breaker.resume(handed.breaker.clone());
            self.standing_told = handed.standing.clone();
            self.drained = handed.drained.clone();
            self.base = self.server.cell.tally() - handed.tally;
        }
        let told = |handed: Option<&Handed>| handed.map(|handed| handed.told.clone()).unwrap_or_default();
        self.health.take_over(&told(begun), told(handed), now)
    }

    /// What it was told as, and what is counted of it.
    pub(super) fn hand(&self) -> Handed {
        Handed {
            server: Arc::clone(&self.server),
            told: self.health.told(),
            breaker: self.breaker.clone(),
            standing: self.standing_told.clone(),
            drained: self.drained.clone(),
            tally: self.tally(),
        }
    }

    pub(super) fn server(&self) -> &Server {
        &self.server
    }

    /// Whether it watches the same PostgreSQL.
    pub(super) fn is(&self, server: &Server) -> bool {
        self.server.is_same_as(server)
    }

    /// Sends a ping: a task of its own, ended by its timeout.
    pub(super) fn ping(&mut self, order: Order) {
        self.answering |= std::mem::take(&mut self.urged);
        let (outbox, probe) = (self.outbox.clone(), self.probe.clone());
        let kept = self.kept.as_ref().filter(|_| order.over == Over::Kept);
        let (session, asked) = (kept.map(|kept| kept.session.clone()), kept.map(|kept| kept.number));
        tokio::spawn(async move {
            let begun = clock::now();
            let mut report = Report { outbox, order, asked, took: Duration::ZERO, found: None };
            let ended = tokio::time::timeout(order.timeout, ask(&probe, order.over, session)).await;
            report.took = clock::now().saturating_duration_since(begun);
            report.found = Some(ended.unwrap_or((Finding::Silent, None)));
        });
    }

    /// Takes in a doubt that somebody raised since the last time. True if there was one, or something else that is to be published.
    pub(super) fn notice(&mut self, now: Instant) -> bool {
        let held = std::mem::take(&mut self.held_anew);
        let doubted = self.server.cell.take_doubt();
        if doubted {
            // A doubt asks for a ping: there is nothing to tell yet.
            let _ = self.health.on(Signal::Doubt, now);
        }
        doubted || held
    }

    /// Takes in whether errors were told that ask for a ping of whatever they have put in doubt: it goes out without anybody who
    /// waits for it.
    pub(super) fn urge(&mut self, urged: bool) {
        let doubted = self.health.state() == State::Suspect;
        self.urged = (self.urged || urged) && doubted;
        self.answering &= doubted;
    }

    pub(super) fn is_urged(&self) -> bool {
        self.urged || self.answering
    }

    /// When its next ping is due, if that is to come.
    pub(super) fn due_after(&self, now: Instant) -> Option<Instant> {
        Some(self.health.next_ping()).filter(|due| *due > now)
    }

    /// Looks, when it is time to, whether leases come back. When the next look is due.
    pub(super) fn look(&mut self, now: Instant) -> Instant {
        if self.next_look <= now {
            self.rebase();
            if self.slow.look(self.server.leases(), now) {
                let _ = self.health.on(Signal::Slow, now);
            }
            self.next_look = now + self.slow.interval();
        }
        self.next_look
    }

    /// Looks, when it is time to, at what became of the calls, and lets one through if that is due. What there is to tell, and when
    /// the next look is due.
    pub(super) fn weigh(&mut self, now: Instant) -> (Option<Shift>, Instant) {
        let followed = self.breaker.follow(self.health.outage().is_some(), now);
        if followed.is_some() || now < self.next_weighing {
            return (followed, self.next_weighing);
        }
        self.next_weighing = now + self.breaker.interval();
        let held = self.breaker.held_until();
        let shift = self.breaker.look(self.server.calls.counts(), now);
        self.held_anew |= held != self.breaker.held_until();
        if shift == Some(Shift::OfferTrial) {
            self.server.cell.offer_trial();
        }
        (shift, self.next_weighing)
    }

    /// Ends the hold of its open breaker; false where there is none.
    pub(super) fn end_hold(&mut self, now: Instant) -> bool {
        let ended = self.breaker.end_hold(now);
        if ended {
            (self.next_weighing, self.held_anew) = (now, true);
        }
        ended
    }

    /// Keeps a fresh connection that answered, in place of the one before; lets go of the kept one that was `asked` and did not.
    /// Meanwhile another may have taken its place: that one stays.
    pub(super) fn keep(&mut self, pinged: &Pinged, fresh: Option<P::Session>) {
        // It tells nothing, and was the ping that an error has asked for.
        self.answering &= !matches!(pinged.finding, Finding::Inconclusive(_));
        if let Finding::Answered(_) = pinged.finding {
            self.latency = Some(pinged.took);
            self.server.tell_ping(pinged.took);
        }
        match (&pinged.finding, fresh, pinged.asked) {
            (Finding::Answered(_), Some(session), _) => self.watch(session),
            (Finding::Failed(_) | Finding::Silent, None, Some(number)) => {
                self.let_go(number);
            }
            _ => {}
        }
    }

    fn watch(&mut self, session: P::Session) {
        self.kept_count += 1;
        let (number, outbox, watching) = (self.kept_count, self.outbox.clone(), session.clone());
        let watcher = tokio::spawn(async move {
            P::ended(&watching).await;
            outbox.send(|server| Message::Ended { server, kept: number });
        });
        self.kept = Some(Kept { number, session, watcher: watcher.abort_handle() });
    }

    /// Lets go of the watched connection if it is still this one.
    pub(super) fn let_go(&mut self, number: u64) -> bool {
        let current = self.kept.as_ref().is_some_and(|kept| kept.number == number);
        if current {
            self.kept = None;
        }
        current
    }

    pub(super) fn known(&self) -> Known {
        Known {
            name: self.server.name.clone(),
            address: self.server.address.clone(),
            declared: self.declared,
            belief: self.health.belief(),
            facts: self.health.facts().copied(),
            outage: self.health.outage().map(|(since, cause)| (since, cause.clone())),
            breaker: self.breaker.tripped().map(|(since, trip)| (since, Cause::new(trip.to_string()))),
            held_until: self.breaker.held_until(),
            drained: self.drained.clone(),
            latency: self.latency,
            base: self.base,
            next_ping: self.health.next_ping(),
        }
    }

    /// While it is up, what was counted so far is no outage's.
    fn rebase(&mut self) {
        if self.health.state() == State::Up {
            self.base = self.server.cell.tally();
        }
    }

    pub(super) fn publish(&mut self, belief: Belief) {
        self.rebase();
        if self.server.cell.belief() != belief {
            self.server.publish(belief);
        }
    }

    /// That its standing is another than was told last.
    pub(super) fn standing_changed(&mut self, entry: &Entry) -> Option<Event> {
        if self.standing_told == entry.standing {
            return None;
        }
        self.standing_told = entry.standing.clone();
        Some(self.event(EventKind::StandingChanged { standing: entry.standing.clone() }))
    }

    pub(super) fn tally(&self) -> Tally {
        self.server.cell.tally() - self.base
    }

    pub(super) fn event(&self, kind: EventKind) -> Event {
        Event::new(Some((self.server.name.clone(), Arc::clone(&self.address))), kind)
    }
}

async fn ask<P: Probe>(probe: &P, over: Over, kept: Option<P::Session>) -> (Finding, Option<P::Session>) {
    match (over, kept) {
        (Over::Kept, Some(session)) => (probe.ask(&session).await, None),
        // The watched connection ended between the order and now: a new one answers as well.
        (Over::Kept, None) | (Over::Fresh, _) => match probe.connect().await {
            Ok(session) => (probe.ask(&session).await, Some(session)),
            Err(finding) => (finding, None),
        },
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::sync::Notify;

    use super::*;
    use crate::{
        config::{AliasKind, Config},
        health::{Facts, PingId},
    };

    /// A server whose session 1 never answers, session 3 makes its ping panic, and whose others answer.
    #[derive(Clone)]
    struct OneHangs;

    impl Probe for OneHangs {
        type Session = u64;

        async fn connect(&self) -> Result<u64, Finding> {
            Ok(2)
        }

        async fn ask(&self, session: &u64) -> Finding {
            match *session {
                1 => std::future::pending().await,
                3 => panic!("this is not PostgreSQL"),
                _ => {}
            }
            Finding::Answered(Facts { role: Role::Replica, timeline: None, system: None, position: None })
        }

        async fn ended(_: &u64) {
            std::future::pending().await
        }
    }

    fn watched() -> (Watched<OneHangs>, mpsc::UnboundedReceiver<Message<u64>>) {
        let config = Config::builder().server("primary", Role::Primary, "postgres://app@localhost/app").build();
        let config = config.expect("it holds");
        let AliasKind::Server(declared) = &config.aliases()[0].kind else { panic!("it is a server") };
        let server = Arc::new(Server::new(config.aliases()[0].name.clone(), "db".to_owned(), Arc::new(Notify::new())));
        let (sender, inbox) = mpsc::unbounded_channel();
        let outbox = Outbox { server: 0, sender };
        (Watched::new(server, declared, OneHangs, outbox, crate::clock::now()), inbox)
    }

    #[tokio::test(start_paused = true)]
    async fn a_ping_that_ends_with_an_old_session_leaves_the_new_one_watched() {
        let (mut watched, mut inbox) = watched();
        watched.watch(1);
        let order = |id, over| Order { id: PingId(id), over, timeout: Duration::from_secs(id) };
        watched.ping(order(3, Over::Kept));
        watched.ping(order(1, Over::Fresh));
        for expected in [PingId(1), PingId(3)] {
            let Some(Message::Pinged { pinged, fresh, .. }) = inbox.recv().await else { panic!("a ping ends") };
            assert_eq!(pinged.order.id, expected);
            watched.keep(&pinged, fresh);
        }
        assert_eq!(watched.kept.as_ref().map(|kept| kept.session), Some(2));
    }

    #[tokio::test(start_paused = true)]
    async fn a_ping_that_panics_is_told_like_any_other() {
        let (mut watched, mut inbox) = watched();
        watched.watch(3);
        watched.ping(Order { id: PingId(1), over: Over::Kept, timeout: Duration::from_secs(1) });
        let told = tokio::time::timeout(Duration::from_secs(60), inbox.recv()).await;
        let Ok(Some(Message::Pinged { pinged, .. })) = told else { panic!("it is waited for for ever") };
        assert!(matches!(pinged.finding, Finding::Inconclusive(_)));
    }
}
