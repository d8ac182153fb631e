//! Plays a script against `Health` and the reference model side by side, in simulated time.

use std::time::{Duration, Instant};

use pgdetour::{
    config::{Pings, Role},
    health::{Action, Cause, Change, Facts, Finding, Generation, Health, Order, Over, PingId, Signal, State},
};

use super::model::{Model, Told};

/// What a server does with a ping over one kind of connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Reply {
    Answered,
    Refused,
    Silent,
    Inconclusive,
}

/// What happens next.
#[derive(Debug, Clone)]
pub(super) enum Event {
    /// Time passes, and the machine is asked whenever it wants to be.
    Pass(Duration),
    /// Time passes, and this process does not run: what was due comes late and at once.
    Starve(Duration),
    /// From now on the server replies so, after this long.
    Reply {
        fresh: Reply,
        kept: Reply,
        after: Duration,
    },
    /// Some doubts at one moment.
    Doubts(usize),
    Slow,
    Lost,
    /// Whether a change of its role is waited for.
    AwaitRole(bool),
}

/// One server and all that was seen of it.
pub(super) struct Run {
    pub(super) health: Health,
    pub(super) model: Model,
    pub(super) now: Instant,
    pings: Pings,
    fresh: Reply,
    kept: Reply,
    after: Duration,
    pending: Vec<(Instant, PingId, Finding)>,
    ended: Vec<PingId>,
    pub(super) sent: Vec<(Instant, Order)>,
    pub(super) told: Vec<(Instant, Change)>,
    generation: Generation,
}

impl Run {
    pub(super) fn new(pings: Pings, base: Instant, seed: u64) -> Self {
        Self {
            health: Health::new(pings.clone(), base, seed),
            model: Model::new(pings.clone()),
            now: base,
            pings,
            fresh: Reply::Answered,
            kept: Reply::Answered,
            after: Duration::from_millis(1),
            pending: Vec::new(),
            ended: Vec::new(),
            sent: Vec::new(),
            told: Vec::new(),
            generation: Generation::default(),
        }
    }

    /// From now on replies take this long.
    pub(super) fn reply_after(&mut self, after: Duration) {
        self.after = after;
    }

    pub(super) fn play(&mut self, events: &[Event]) {
        for event in events {
            match event {
                Event::Pass(time) => self.pass(*time),
                Event::Starve(time) => {
                    self.now += *time;
                    self.deliver();
                    self.settle();
                }
                Event::Reply { fresh, kept, after } => (self.fresh, self.kept, self.after) = (*fresh, *kept, *after),
                Event::Doubts(count) => (0..*count).for_each(|_| self.signal(Signal::Doubt)),
                Event::Slow => self.signal(Signal::Slow),
                Event::Lost => self.signal(Signal::Lost),
                Event::AwaitRole(awaited) => {
                    self.model.role_awaited = *awaited;
                    self.health.await_role(*awaited, self.now);
                    self.compare();
                }
            }
        }
    }

    /// Lets time pass, from one moment to the next at which something happens.
    pub(super) fn pass(&mut self, time: Duration) {
        let end = self.now + time;
        loop {
            let wake = self.settle();
            let next = self.pending.iter().map(|(at, ..)| *at).chain(wake).min().filter(|at| *at <= end);
            let Some(next) = next else { break };
            self.now = self.now.max(next);
            self.deliver();
        }
        self.now = end;
        self.settle();
    }

    fn deliver(&mut self) {
        self.pending.sort_by_key(|(at, id, _)| (*at, *id));
        let due = self.pending.iter().take_while(|(at, ..)| *at <= self.now).count();
        let due: Vec<_> = self.pending.drain(..due).collect();
        for (_, id, finding) in due {
            self.signal(Signal::Ping(id, finding));
            self.ended.push(id);
        }
    }

    pub(super) fn signal(&mut self, signal: Signal) {
        let expected = self.model.on(&signal, self.now);
        let changes = self.health.on(signal, self.now);
        let told: Vec<Told> = changes.iter().filter_map(Told::of).collect();
        assert_eq!(told, expected, "what was told");
        self.told.extend(changes.into_iter().map(|change| (self.now, change)));
        self.compare();
    }

    /// Does what is asked for at this moment; when the machine wants to be asked again.
    pub(super) fn settle(&mut self) -> Option<Instant> {
        // The pings of one round, and one record.
        for _ in 0..self.pings.failure_threshold + 4 {
            match self.health.poll(self.now) {
                Action::Ping(order) => self.send(order),
                Action::Tell(change) => {
                    assert!(matches!(change, Change::OutageOngoing { .. }), "only an open outage is told again");
                    self.told.push((self.now, change));
                }
                Action::Wait(until) => {
                    self.model.may_wait(until, self.now);
                    return until;
                }
            }
            self.compare();
        }
        panic!("a moment asks for more and more");
    }

    fn send(&mut self, order: Order) {
        self.model.on_order(&order, self.now);
        self.sent.push((self.now, order));
        let reply = if order.over == Over::Kept { self.kept } else { self.fresh };
        let facts = Facts { role: Role::Replica, timeline: None, system: None, position: None };
        let finding = match reply {
            _ if self.after >= order.timeout => Finding::Silent,
            Reply::Answered => Finding::Answered(facts),
            Reply::Refused => Finding::Failed(Cause::new("refused")),
            Reply::Silent => Finding::Silent,
            Reply::Inconclusive => Finding::Inconclusive(Cause::new("no room")),
        };
        let after = if finding == Finding::Silent { order.timeout } else { self.after };
        self.pending.push((self.now + after, order.id, finding));
    }

    /// Machine and model believe the same, and the generation grows with transitions alone.
    fn compare(&mut self) {
        let (belief, model) = (self.health.belief(), &self.model);
        assert_eq!(self.health.state(), model.state, "the state");
        assert_eq!(belief.state(), model.state, "the state as published");
        assert_eq!(belief.admits(), model.admits && !model.is_out(), "admission");
        assert_eq!(self.health.outage().is_some(), model.is_out(), "the outage");
        let transitions = (0..model.transitions).fold(Generation::default(), |generation, _| generation.next());
        assert_eq!(belief.generation(), transitions, "the generation");
        assert!(belief.generation() >= self.generation, "the generation grows");
        self.generation = belief.generation();
    }

    /// What ended before changes nothing when it is heard again.
    pub(super) fn hear_stragglers(&mut self) {
        let before = format!("{:?}", self.health);
        for id in self.ended.clone() {
            for finding in
                [Finding::Silent, Finding::Failed(Cause::new("late")), Finding::Inconclusive(Cause::new("late"))]
            {
                assert_eq!(self.health.on(Signal::Ping(id, finding), self.now), []);
            }
        }
        assert_eq!(format!("{:?}", self.health), before, "a straggler changes nothing");
    }

    /// One opening and one closing per outage, and between them at most one record per `outage_log_frequency`.
    pub(super) fn check_the_record(&self) {
        let mut last: Option<Instant> = None;
        for (at, change) in &self.told {
            match change {
                Change::OutageOpened { .. } => assert!(last.replace(*at).is_none(), "an outage is opened twice"),
                Change::OutageClosed { .. } => assert!(last.take().is_some(), "an outage is closed that was not open"),
                Change::OutageOngoing { .. } => {
                    let before = last.replace(*at).expect("an outage goes on that was not open");
                    assert!(*at - before >= self.pings.outage_log_frequency, "an outage is told too often");
                }
                _ => {}
            }
        }
        assert_eq!(last.is_some(), matches!(self.health.state(), State::Down | State::Recovering));
    }

    pub(super) fn opened_an_outage(&self) -> bool {
        self.told.iter().any(|(_, change)| matches!(change, Change::OutageOpened { .. }))
    }

    /// Everything that came out, as text.
    pub(super) fn trace(&self) -> String {
        format!("{:?} {:?} {:?}", self.sent, self.told, self.health)
    }
}
