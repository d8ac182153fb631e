//! A small reference model of one server's health, written from the design: what may be asked when, and what has to follow.

use std::{
    collections::HashMap,
    time::{Duration, Instant},
};

use pgdetour::{
    config::Pings,
    health::{Change, Finding, Order, Over, PingId, Signal, State},
};

/// Between the good pings that close an outage.
const RECOVERY_SPACING: Duration = Duration::from_millis(50);

/// What must have been told, causes and facts aside.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Told {
    Opened,
    Closed(Duration),
    AdmissionStopped,
    AdmissionResumed,
}

impl Told {
    /// A change as the model knows it; facts and inconclusive pings are no transitions.
    pub(super) fn of(change: &Change) -> Option<Self> {
        match change {
            Change::OutageOpened { .. } => Some(Self::Opened),
            Change::OutageClosed { duration } => Some(Self::Closed(*duration)),
            Change::AdmissionStopped { .. } => Some(Self::AdmissionStopped),
            Change::AdmissionResumed => Some(Self::AdmissionResumed),
            Change::OutageOngoing { .. } | Change::PingInconclusive { .. } | Change::FactsChanged { .. } => None,
        }
    }
}

#[derive(Debug)]
struct Round {
    started: Instant,
    flights: HashMap<PingId, (Over, Instant)>,
    sent: u32,
    failures: u32,
    fresh_asked: bool,
    kept_asked: bool,
    kept_answered: bool,
}

/// How a round ended, which says when the next may begin.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum End {
    Decided,
    /// A timer fired late: it is repeated at once.
    Late,
    Inconclusive,
}

#[derive(Debug)]
pub(super) struct Model {
    pings: Pings,
    pub(super) state: State,
    pub(super) transitions: u32,
    pub(super) admits: bool,
    opened: Option<Instant>,
    successes: u32,
    doubted: Option<Instant>,
    kept: bool,
    pub(super) role_awaited: bool,
    round: Option<Round>,
    last_start: Option<Instant>,
    last_loss: Option<Instant>,
    /// The end of a watched connection that may be answered at once.
    loss_to_answer: bool,
    last_end: Option<(Instant, End)>,
    /// Rounds so far.
    pub(super) rounds: u32,
}

impl Model {
    pub(super) fn new(pings: Pings) -> Self {
        Self {
            pings,
            state: State::Up,
            transitions: 0,
            admits: true,
            opened: None,
            successes: 0,
            doubted: None,
            kept: false,
            role_awaited: false,
            round: None,
            last_start: None,
            last_loss: None,
            loss_to_answer: false,
            last_end: None,
            rounds: 0,
        }
    }

    pub(super) fn is_out(&self) -> bool {
        matches!(self.state, State::Down | State::Recovering)
    }

    fn timeout(&self) -> Duration {
        if self.is_out() { self.pings.outage_ping_timeout } else { self.pings.ping_timeout }
    }

    /// Judges a ping that goes out.
    pub(super) fn on_order(&mut self, order: &Order, now: Instant) {
        assert!(order.over == Over::Fresh || self.kept, "a ping over a watched connection that is not there");
        assert!(order.over == Over::Fresh || !self.is_out(), "while down all pings are fresh");
        if self.round.is_none() {
            self.may_begin(now);
            self.rounds += 1;
            assert_eq!(order.timeout, self.timeout(), "the first ping of a round has the whole timeout");
            (self.last_start, self.loss_to_answer) = (Some(now), false);
            self.round = Some(Round {
                started: now,
                flights: HashMap::new(),
                sent: 0,
                failures: 0,
                fresh_asked: false,
                kept_asked: false,
                kept_answered: false,
            });
        } else {
            assert!(!self.is_out(), "during an outage nothing is confirmed: one ping at a time");
            assert_eq!(order.timeout, self.timeout() / 2, "a confirming ping has half the timeout");
        }
        let half = self.timeout() / 2;
        let threshold = self.pings.failure_threshold;
        let Some(round) = &mut self.round else { return };
        let confirms = round.sent > 0;
        assert!(!confirms || round.failures > 0 || now >= round.started + half, "a ping confirms silence too early");
        assert!(order.over == Over::Fresh || !round.kept_asked, "a round asks the watched connection once");
        // All that confirm, the watched connection beside them, and one over a fresh connection in any case.
        assert!(round.sent < threshold.max(1) + 2, "a round of {} pings at threshold {threshold}", round.sent + 1);
        round.sent += 1;
        round.fresh_asked |= order.over == Over::Fresh;
        round.kept_asked |= order.over == Over::Kept;
        round.flights.insert(order.id, (order.over, now + order.timeout));
    }

    /// Two rounds are never closer than the error frequency, except for the reasons given here.
    fn may_begin(&self, now: Instant) {
        let Some(last) = self.last_start else { return };
        let apart = now - last;
        let since_end = |wanted| self.last_end.is_some_and(|(at, _)| now >= at + wanted);
        let planned = since_end(self.pings.outage_ping_frequency.mul_f64(0.9));
        let at_once = match self.last_end {
            Some((_, End::Late)) => true,
            Some((_, End::Decided)) if self.state == State::Recovering => since_end(self.recovery_spacing()),
            // So that processes that saw the same outage open do not go on in step.
            Some((at, End::Decided)) if self.opened == Some(at) => {
                since_end(self.pings.outage_ping_frequency.mul_f64(0.05))
            }
            _ => self.loss_to_answer,
        };
        let spaced = apart >= self.pings.error_ping_frequency && self.state != State::Down;
        assert!(
            planned || at_once || spaced,
            "a round begins {apart:?} after the last: {:?} {:?}",
            self.state,
            self.last_end
        );
    }

    fn recovery_spacing(&self) -> Duration {
        RECOVERY_SPACING.min(self.pings.outage_ping_frequency)
    }

    /// The bound on the next wake-up: no state is forgotten.
    pub(super) fn may_wait(&self, until: Option<Instant>, now: Instant) {
        assert!(until.is_none_or(|until| until > now), "a wait that is over");
        if self.round.as_ref().is_some_and(|round| !round.flights.is_empty()) {
            return; // What is in flight ends by its deadline.
        }
        let until = until.expect("something comes next");
        let most = match (&self.round, self.state) {
            (Some(_), _) => panic!("a round with nothing in flight waits"),
            (None, State::Up) if self.admits && !self.role_awaited => self.pings.monitoring_ping_frequency.mul_f64(1.1),
            (None, State::Up | State::Down) => self.pings.outage_ping_frequency.mul_f64(1.1),
            (None, State::Suspect) => self.pings.error_ping_frequency.mul_f64(1.1),
            (None, State::Recovering) => match self.last_end {
                Some((_, End::Inconclusive)) => self.pings.error_ping_frequency.mul_f64(1.1),
                _ => self.recovery_spacing(),
            },
        };
        assert!(until - now <= most + Duration::from_nanos(2), "{:?} waits for {:?}", self.state, until - now);
    }

    /// Takes in a signal; what has to be told of it.
    pub(super) fn on(&mut self, signal: &Signal, now: Instant) -> Vec<Told> {
        match signal {
            Signal::Slow => Vec::new(),
            Signal::Doubt => {
                self.doubt(now);
                Vec::new()
            }
            Signal::Lost => {
                self.kept = false;
                self.doubt(now);
                if let Some(round) = &mut self.round {
                    round.kept_answered = false;
                }
                if !self.is_out() && self.last_loss.is_none_or(|last| now >= last + self.pings.error_ping_frequency) {
                    (self.last_loss, self.loss_to_answer) = (Some(now), self.round.is_none());
                }
                Vec::new()
            }
            Signal::Ping(id, finding) => self.on_finding(*id, finding, now),
        }
    }

    fn doubt(&mut self, now: Instant) {
        if !self.is_out() {
            (self.state, self.doubted) = (State::Suspect, Some(now));
        }
    }

    fn on_finding(&mut self, id: PingId, finding: &Finding, now: Instant) -> Vec<Told> {
        let Some((over, deadline)) = self.round.as_mut().and_then(|round| round.flights.remove(&id)) else {
            return Vec::new();
        };
        if over == Over::Kept && !matches!(finding, Finding::Answered(_)) {
            self.kept = false;
        }
        match finding {
            Finding::Answered(_) if over == Over::Fresh => self.succeed(over, now),
            Finding::Answered(_) => {
                let Some(round) = &mut self.round else { return Vec::new() };
                round.kept_answered = true;
                let alone = round.failures == 0 && round.flights.is_empty();
                if alone { self.succeed(over, now) } else { self.weigh(now) }
            }
            Finding::Inconclusive(_) => {
                self.end(End::Inconclusive, now);
                Vec::new()
            }
            Finding::Silent if now > deadline + self.timeout() / 2 => {
                self.end(End::Late, now);
                Vec::new()
            }
            Finding::Silent | Finding::Failed(_) if self.is_out() => {
                self.end(End::Decided, now);
                self.state = State::Down;
                self.successes = 0;
                Vec::new()
            }
            Finding::Silent | Finding::Failed(_) => {
                self.state = State::Suspect;
                let Some(round) = &mut self.round else { return Vec::new() };
                self.doubted.get_or_insert(round.started);
                round.failures += 1;
                self.weigh(now)
            }
        }
    }

    fn weigh(&mut self, now: Instant) -> Vec<Told> {
        let Some(round) = &self.round else { return Vec::new() };
        let enough = round.failures >= self.pings.failure_threshold && round.fresh_asked;
        if !round.flights.is_empty() || !enough {
            return Vec::new();
        }
        let (answered, started) = (round.kept_answered, round.started);
        self.end(End::Decided, now);
        if answered {
            self.explain_doubts(started);
            let told = !std::mem::replace(&mut self.admits, false);
            return if told { Vec::new() } else { vec![Told::AdmissionStopped] };
        }
        (self.state, self.opened) = (State::Down, Some(now));
        self.transitions += 1;
        self.successes = 0;
        vec![Told::Opened]
    }

    fn succeed(&mut self, over: Over, now: Instant) -> Vec<Told> {
        let Some(started) = self.round.as_ref().map(|round| round.started) else { return Vec::new() };
        self.end(End::Decided, now);
        self.kept = true;
        if !self.is_out() {
            self.explain_doubts(started);
            let resumes = over == Over::Fresh && !self.admits;
            self.admits |= resumes;
            return if resumes { vec![Told::AdmissionResumed] } else { Vec::new() };
        }
        self.successes += 1;
        self.state = State::Recovering;
        let Some(opened) = self.opened.filter(|_| self.successes >= self.pings.success_threshold) else {
            return Vec::new();
        };
        (self.state, self.opened, self.doubted, self.admits) = (State::Up, None, None, true);
        self.transitions += 1;
        vec![Told::Closed(now - opened)]
    }

    fn explain_doubts(&mut self, started: Instant) {
        self.doubted = self.doubted.filter(|at| *at > started);
        self.state = if self.doubted.is_some() { State::Suspect } else { State::Up };
    }

    fn end(&mut self, end: End, now: Instant) {
        self.round = None;
        self.last_end = Some((now, end));
    }
}
