//! The state machine of one server. It holds no clock, no socket and no task: signals and `now` go in, pings to send and
//! changes to tell come out.

use std::time::{Duration, Instant};

use super::{
    belief::{Belief, Generation, State},
    cadence::Cadence,
    change::{Action, Change, Order},
    round::{Round, Verdict},
    signal::{Cause, Facts, Finding, Over, PingId, Signal},
    status::{Outage, Status},
};
use crate::config::Pings;

/// What is believed about one server, and when to ask it next.
///
/// ```text
///                 doubt, lost, failed ping               failure_threshold failed pings
///      ┌────┐ ──────────────────────────────▶ ┌─────────┐ ──────────────────▶ ┌──────┐ ◀─┐ failed ping
///      │ Up │                                 │ Suspect │                     │ Down │ ──┘
///      └────┘ ◀────────────────────────────── └─────────┘                     └──────┘
///         ▲            good ping                                     good ping │    ▲
///         │                                                                    ▼    │ failed ping
///         │               success_threshold good pings                ┌────────────┐│
///         └────────────────────────────────────────────────────────── │ Recovering │┘
///                                                                     └────────────┘
/// ```
///
/// From `Down` to `Up` is one outage; the generation grows at either end of it.
#[derive(Debug)]
pub struct Health {
    pings: Pings,
    cadence: Cadence,
    pub(super) status: Status,
    pub(super) generation: Generation,
    round: Option<Round>,
    /// When the next round begins, unless one is on.
    pub(super) due: Instant,
    /// The latest evidence that no ping has explained yet.
    pub(super) doubted: Option<Instant>,
    /// The first evidence since the server was last seen up: from then on an outage might have been known.
    pub(super) suspected: Option<Instant>,
    /// Whether there is a watched connection to ping over.
    kept: bool,
    /// Whether there can be one.
    pub(super) keeps: bool,
    /// Why new connections are not admitted, as far as known.
    pub(super) refusal: Option<Cause>,
    pub(super) next_over: Over,
    next_id: u64,
    pub(super) facts: Option<Facts>,
    /// What another monitor has told of it, until it answers this one.
    pub(super) facts_told: Option<Facts>,
    settled: bool,
    /// When and why it was told that pings say nothing.
    pub(super) inconclusive: Option<(Instant, Cause)>,
}

impl Health {
    /// A server believed up until its first ping, which is due now. `seed` decides the jitter.
    #[must_use]
    pub fn new(pings: Pings, now: Instant, seed: u64) -> Self {
        Self {
            cadence: Cadence::new(&pings, seed),
            pings,
            status: Status::Up,
            generation: Generation::default(),
            round: None,
            due: now,
            doubted: None,
            suspected: None,
            kept: false,
            keeps: true,
            refusal: None,
            next_over: Over::Fresh,
            next_id: 0,
            facts: None,
            facts_told: None,
            settled: false,
            inconclusive: None,
        }
    }

    /// Takes in one piece of evidence and says what the outside has to be told.
    #[must_use]
    pub fn on(&mut self, signal: Signal, now: Instant) -> Vec<Change> {
        match signal {
            Signal::Doubt => self.doubt(now),
            Signal::Slow => self.ask(now),
            Signal::Lost => self.lose_kept(now),
            Signal::Ping(id, finding) => return self.on_finding(id, finding, now),
        }
        Vec::new()
    }

    /// Notes whether a change of the server's role is waited for. While it is, a server that is up is pinged as often as one that is
    /// down: nothing else tells of a promotion.
    pub fn await_role(&mut self, awaited: bool, now: Instant) {
        let due = self.cadence.await_role(awaited, now);
        if matches!(self.status, Status::Up) {
            self.due = due.map_or(self.due, |due| self.due.min(due));
        }
    }

    /// What to do at `now`. Call again until it says to wait.
    #[must_use]
    pub fn poll(&mut self, now: Instant) -> Action {
        let next_ping = self.due.saturating_duration_since(now);
        let told = |outage: &mut Outage| outage.tell_again(self.pings.outage_log_frequency, next_ping, now);
        if let Some(change) = self.status.outage_mut().and_then(told) {
            return Action::Tell(change);
        }
        let next = match &self.round {
            None if self.due <= now => return self.begin(now),
            None => Some(self.due),
            Some(round) => match round.confirm_at {
                Some(at) if at <= now => return self.confirm(now),
                at => at,
            },
        };
        let tell_at = self.status.outage().map(|outage| outage.told + self.pings.outage_log_frequency);
        Action::Wait([next, tell_at].into_iter().flatten().min())
    }

    /// The state.
    #[must_use]
    pub fn state(&self) -> State {
        self.status.state()
    }

    /// State, generation and admission as everybody may see them; role and identity are for the table to judge.
    #[must_use]
    pub fn belief(&self) -> Belief {
        let belief = Belief::new(self.state(), self.generation);
        if self.refusal.is_none() { belief } else { belief.without_admission() }
    }

    /// What the last good ping read.
    #[must_use]
    pub fn facts(&self) -> Option<&Facts> {
        self.facts.as_ref()
    }

    /// Since when the open outage lasts, and why its last ping failed.
    #[must_use]
    pub fn outage(&self) -> Option<(Instant, &Cause)> {
        self.status.outage().map(|outage| (outage.opened, &outage.cause))
    }

    /// When the next ping is due. In the past: one is under way.
    #[must_use]
    pub fn next_ping(&self) -> Instant {
        self.due
    }

    /// Whether any round of pings has come to an end yet.
    #[must_use]
    pub fn is_settled(&self) -> bool {
        self.settled
    }

    /// Whether pings are in flight or due at `now`.
    #[must_use]
    pub fn is_busy(&self, now: Instant) -> bool {
        self.round.is_some() || self.due <= now
    }

    fn doubt(&mut self, now: Instant) {
        if matches!(self.status, Status::Up | Status::Suspect) {
            self.status = Status::Suspect;
            self.doubted = Some(now);
            self.suspected.get_or_insert(now);
            self.ask(now);
        }
    }

    /// Brings the next ping forward, as far as the error frequency allows, and over a fresh connection, which sees more.
    pub(super) fn ask(&mut self, now: Instant) {
        if matches!(self.status, Status::Up | Status::Suspect) {
            self.next_over = Over::Fresh;
            self.due = self.due.min(self.cadence.after_error(now));
        }
    }

    /// The watched connection is the monitor's own and no application can forge its end, so that is looked into at once;
    /// but not more often than errors are.
    fn lose_kept(&mut self, now: Instant) {
        self.kept = false;
        if let Some(round) = &mut self.round {
            round.lose_kept();
        }
        self.doubt(now);
        if matches!(self.status, Status::Suspect) && self.cadence.may_answer_loss(now) {
            self.due = now;
        }
    }

    fn begin(&mut self, now: Instant) -> Action {
        self.cadence.started(now);
        let down = self.status.outage().is_some();
        let over = if self.kept && !down { self.next_over } else { Over::Fresh };
        self.round = Some(Round::new(now));
        let timeout = self.timeout();
        let action = self.send(over, timeout, now);
        if !down && let Some(round) = &mut self.round {
            round.confirm_again(now, timeout / 2, self.pings.failure_threshold);
        }
        action
    }

    /// The confirming ping goes over a fresh connection and has half the time, so that a verdict on silence takes one
    /// `ping_timeout`. Beside it the watched connection is asked, which may answer where new ones are not admitted.
    fn confirm(&mut self, now: Instant) -> Action {
        let timeout = self.timeout() / 2;
        if self.kept && self.round.as_ref().is_some_and(Round::wants_kept) {
            return self.send(Over::Kept, timeout, now);
        }
        let action = self.send(Over::Fresh, timeout, now);
        if let Some(round) = &mut self.round {
            round.confirm_again(now, timeout, self.pings.failure_threshold);
        }
        action
    }

    fn send(&mut self, over: Over, timeout: Duration, now: Instant) -> Action {
        let id = PingId(self.next_id);
        self.next_id += 1;
        if let Some(round) = &mut self.round {
            round.start(id, over, now + timeout);
        }
        Action::Ping(Order { id, over, timeout })
    }

    fn on_finding(&mut self, id: PingId, finding: Finding, now: Instant) -> Vec<Change> {
        let Some((over, deadline)) = self.round.as_mut().and_then(|round| round.end(id)) else {
            return Vec::new(); // A straggler: its round is decided.
        };
        self.kept &= over == Over::Fresh || matches!(finding, Finding::Answered(_));
        match finding {
            Finding::Answered(facts) => self.on_answer(over, facts, now),
            // A timer that fires late says that this process was starved or stopped. It says nothing about the server.
            Finding::Silent if now > deadline + self.timeout() / 2 => {
                self.round = None;
                self.due = now;
                Vec::new()
            }
            Finding::Silent => {
                let within = humantime::format_duration(self.timeout());
                self.on_failure(over, Cause::new(format!("no answer within {within}")), now)
            }
            Finding::Failed(cause) => self.on_failure(over, cause, now),
            Finding::Inconclusive(cause) => self.on_inconclusive(cause, now),
        }
    }

    fn on_answer(&mut self, over: Over, facts: Facts, now: Instant) -> Vec<Change> {
        self.inconclusive = None;
        let mut changes = Vec::new();
        let before = self.facts.replace(facts).or(self.facts_told.take());
        if before.is_none_or(|before| !before.agrees_with(&facts)) {
            changes.push(Change::FactsChanged { before, now: facts });
        }
        let decides = match over {
            Over::Fresh => true,
            Over::Kept => self.round.as_mut().is_none_or(Round::answer_over_kept),
        };
        if decides {
            self.kept = self.keeps;
            changes.extend(self.succeed(over, now));
        } else {
            changes.extend(self.weigh(now));
        }
        changes
    }

    fn succeed(&mut self, over: Over, now: Instant) -> Option<Change> {
        let started = self.round.take().map_or(now, |round| round.started);
        self.settled = true;
        self.next_over = if over == Over::Fresh { Over::Kept } else { Over::Fresh };
        let change = match std::mem::replace(&mut self.status, Status::Up) {
            Status::Up | Status::Suspect => {
                self.status = self.answered_since(started);
                self.resume_admission(over)
            }
            Status::Down(outage) => self.recover(outage, 1, now),
            Status::Recovering { outage, successes } => self.recover(outage, successes + 1, now),
        };
        self.due = self.next_due(now);
        change
    }

    /// Up, unless something was seen that a round from this moment is too old to explain.
    fn answered_since(&mut self, started: Instant) -> Status {
        self.doubted = self.doubted.filter(|&at| at > started);
        self.suspected = self.doubted;
        if self.doubted.is_some() { Status::Suspect } else { Status::Up }
    }

    fn resume_admission(&mut self, over: Over) -> Option<Change> {
        let refusal = self.refusal.take_if(|_| over == Over::Fresh);
        refusal.map(|_| Change::AdmissionResumed)
    }

    fn recover(&mut self, outage: Outage, successes: u32, now: Instant) -> Option<Change> {
        if successes < self.pings.success_threshold {
            self.status = Status::Recovering { outage, successes };
            return None;
        }
        self.generation = self.generation.next();
        (self.doubted, self.suspected) = (None, None);
        self.refusal = None;
        Some(Change::OutageClosed { duration: now - outage.opened })
    }

    fn on_failure(&mut self, over: Over, cause: Cause, now: Instant) -> Vec<Change> {
        match &mut self.status {
            Status::Up | Status::Suspect => {
                self.status = Status::Suspect;
                if let Some(round) = &mut self.round {
                    // Dated back: a ping of the same round that answers explains it.
                    self.doubted.get_or_insert(round.started);
                    self.suspected = Some(self.suspected.map_or(round.started, |at| at.min(round.started)));
                    round.fail(over, cause);
                }
                self.weigh(now).into_iter().collect()
            }
            Status::Down(outage) | Status::Recovering { outage, .. } => {
                let outage = Outage { cause, ..outage.clone() };
                self.end_round(Status::Down(outage), now);
                Vec::new()
            }
        }
    }

    /// Draws the conclusion from a round in which something failed, if there is one yet.
    fn weigh(&mut self, now: Instant) -> Option<Change> {
        let round = self.round.as_mut()?;
        let started = round.started;
        match round.verdict(self.pings.failure_threshold) {
            Verdict::Open => None,
            Verdict::Confirm => {
                round.confirm_at = Some(now);
                None
            }
            Verdict::Down(cause) => {
                let detected_in = now - self.suspected.take().unwrap_or(now);
                self.end_round(Status::Down(Outage::new(cause.clone(), detected_in, now)), now);
                self.due = self.cadence.after_opening(now);
                self.generation = self.generation.next();
                Some(Change::OutageOpened { cause, detected_in })
            }
            Verdict::NotAdmitting(cause) => {
                let told = self.refusal.replace(cause.clone()).is_some();
                self.next_over = Over::Fresh;
                let status = self.answered_since(started);
                self.end_round(status, now);
                (!told).then_some(Change::AdmissionStopped { cause })
            }
        }
    }

    fn end_round(&mut self, status: Status, now: Instant) {
        self.round = None;
        self.settled = true;
        self.status = status;
        self.due = self.next_due(now);
    }

    fn on_inconclusive(&mut self, cause: Cause, now: Instant) -> Vec<Change> {
        self.round = None;
        self.settled = true;
        self.due = match self.status {
            Status::Recovering { .. } => self.cadence.after_error(now),
            Status::Up | Status::Suspect | Status::Down(_) => self.next_due(now),
        };
        let lately = |(at, _): &(Instant, Cause)| now < *at + self.pings.outage_log_frequency;
        let told = self.inconclusive.as_ref().is_some_and(lately);
        if told {
            return Vec::new();
        }
        self.inconclusive = Some((now, cause.clone()));
        vec![Change::PingInconclusive { cause }]
    }

    fn next_due(&mut self, now: Instant) -> Instant {
        match self.status {
            Status::Up if self.refusal.is_none() => self.cadence.after_good(now),
            Status::Up | Status::Down(_) => self.cadence.during_outage(now),
            Status::Suspect => self.cadence.after_error(now),
            Status::Recovering { .. } => self.cadence.during_recovery(now),
        }
    }

    fn timeout(&self) -> Duration {
        if self.status.outage().is_some() { self.pings.outage_ping_timeout } else { self.pings.ping_timeout }
    }
}
