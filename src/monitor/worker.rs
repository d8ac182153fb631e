//! The one owner of what is believed: it sends pings, takes in signals, and publishes the table.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use tokio::sync::{mpsc, oneshot};

use super::{
    act::Request,
    agenda::Agenda,
    due::Appointments,
    handover::Past,
    press::Press,
    probe::Probe,
    shared::Shared,
    watched::{Outbox, Watched},
};
use crate::{
    clock,
    config::{AliasKind, AliasName, Config, Monitoring},
    health::{Action, Cause, Change, Finding, Order, Signal, Tally},
    observe::EventKind,
    plan::{Chain, Judge},
    policy::Shift,
    pool::Server,
};

/// How long the worker sleeps when nothing is due: any bound does.
const IDLE: Duration = Duration::from_secs(3600);

/// What others ask of the worker.
#[derive(Debug)]
pub(crate) enum Command {
    /// Answer when every server has been pinged once.
    Settle(oneshot::Sender<()>),
    /// Send the pings that are due, and answer when they have ended.
    Run(oneshot::Sender<()>),
    /// The same for servers that are out alone.
    Recover(oneshot::Sender<()>),
    /// Say what is known.
    Hand(oneshot::Sender<Past>),
    /// Say what is known, and end.
    HandOver(oneshot::Sender<Past>),
    /// Tell from now on what there is to tell, after what the worker before has told. Answer when that is done.
    Lead(oneshot::Receiver<Past>, oneshot::Sender<()>),
    /// Do what somebody has asked for.
    Act(Request),
    /// End.
    Stop,
}

/// How a ping ended.
pub(super) struct Pinged {
    pub(super) order: Order,
    pub(super) finding: Finding,
    pub(super) took: Duration,
    /// The number of the kept connection that it went over.
    pub(super) asked: Option<u64>,
}

/// What comes back from tasks of the worker's own.
pub(super) enum Message<S> {
    /// A ping ended; a fresh connection that answered is kept.
    Pinged { server: usize, pinged: Pinged, fresh: Option<S> },
    /// The connection kept under this number ended.
    Ended { server: usize, kept: u64 },
}

/// Keeps beliefs up to date, for servers that are asked by `P`.
pub(crate) struct Worker<P: Probe> {
    config: Arc<Config>,
    judge: Judge,
    press: Press,
    pub(super) shared: Shared,
    /// What the worker knew that tells the outside what there is to tell. `None`: this one does.
    before: Option<Past>,
    pub(super) servers: Vec<Watched<P>>,
    pub(super) agenda: Agenda,
    inbox: mpsc::UnboundedReceiver<Message<P::Session>>,
    commands: mpsc::UnboundedReceiver<Command>,
    settling: Vec<oneshot::Sender<()>>,
    pub(super) runs: Vec<oneshot::Sender<()>>,
    recoveries: Vec<oneshot::Sender<()>>,
}

impl<P: Probe> Worker<P> {
    /// A worker for the servers of `config`, given in the order of declaration.
    pub(crate) fn new(
        config: Arc<Config>,
        shared: Shared,
        servers: Vec<(Arc<Server>, P)>,
        commands: mpsc::UnboundedReceiver<Command>,
    ) -> Self {
        let (outbox, inbox) = mpsc::unbounded_channel();
        let now = clock::now();
        let servers = servers.into_iter().enumerate();
        let servers = servers.filter_map(|(index, (server, probe))| {
            let AliasKind::Server(declared) = &config.alias(server.name.as_str())?.kind else { return None };
            Some(Watched::new(server, declared, probe, Outbox { server: index, sender: outbox.clone() }, now))
        });
        let servers: Vec<_> = servers.collect();
        let (judge, press, agenda) = (Judge::new(&config), Press::default(), Agenda::all_at(now, servers.len()));
        let (before, settling, runs, recoveries) = (None, Vec::new(), Vec::new(), Vec::new());
        Self { config, judge, press, shared, before, servers, agenda, inbox, commands, settling, runs, recoveries }
    }

    /// Begins where the one before stands, and tells nothing until that one has ended.
    pub(crate) fn resume(mut self, before: Past) -> Self {
        for watched in &mut self.servers {
            if let Some(handed) = before.of(watched.server()) {
                watched.resume(handed);
            }
        }
        Self { before: Some(before), ..self }
    }

    /// Works until the last sender of commands is gone.
    pub(crate) async fn run(mut self) {
        self.begin();
        loop {
            let wake = self.turn();
            tokio::select! {
                biased;
                command = self.commands.recv() => match command {
                    Some(Command::Settle(done)) => self.turn_to_all(|worker| worker.settling.push(done)),
                    Some(Command::Run(done)) => self.turn_to_all(|worker| worker.runs.push(done)),
                    Some(Command::Recover(done)) => self.turn_to_all(|worker| worker.recoveries.push(done)),
                    // An error says that whoever asked has gone.
                    Some(Command::Hand(done)) => drop(done.send(self.past())),
                    Some(Command::HandOver(done)) => return drop(done.send(self.past())),
                    Some(Command::Lead(told, done)) => {
                        // The other one is about to end. If it has panicked, what it knew at first has to do.
                        self.lead(told.await.ok());
                        let _ = done.send(());
                    }
                    Some(Command::Act(request)) => self.act_on(request),
                    Some(Command::Stop) | None => return,
                },
                message = self.inbox.recv() => if let Some(message) = message { self.receive(message) },
                () = self.shared.bell.notified() => self.take_in_doubts(),
                () = tokio::time::sleep_until(wake.into()) => {}
            }
        }
    }

    /// The first table.
    fn begin(&mut self) {
        let table = self.judge.judge(self.servers.iter().map(Watched::known).collect());
        self.shared.table.store(Arc::new(table));
        self.publish_all();
        (0..self.servers.len()).for_each(|index| self.await_roles(index));
    }

    fn past(&self) -> Past {
        Past::new(self.servers.iter().map(Watched::hand))
    }

    /// Tells from now on what there is to tell; first what the one before has not told.
    fn lead(&mut self, told: Option<Past>) {
        let Some(begun) = self.before.take() else { return };
        let (told, now) = (told.as_ref().unwrap_or(&begun), clock::now());
        for index in 0..self.servers.len() {
            let watched = &mut self.servers[index];
            let (begun, told) = (begun.of(watched.server()), told.of(watched.server()));
            let changes = watched.take_over(begun, told, now);
            self.tell(index, changes, now);
        }
        self.turn_to_all(Self::publish_all);
        let stays = |server: &Server| self.servers.iter().any(|watched| watched.is(server));
        told.farewells(stays).into_iter().for_each(|event| self.shared.observer.emit(event));
        self.shared.lead(self.config.monitoring());
    }

    pub(super) fn is_leading(&self) -> bool {
        self.before.is_none()
    }

    /// One turn at each server whose time has come; when the next one's comes.
    fn turn(&mut self) -> Instant {
        let now = clock::now();
        if self.shared.due.take_urge() {
            // Whoever asks has raised his doubt before.
            self.take_in_doubts();
            self.turn_to_all(|worker| worker.servers.iter_mut().for_each(|server| server.urge(true)));
        }
        for index in self.agenda.due(now) {
            self.turn_to(index, now);
        }
        self.shared.tell_mode();
        let due = self.appointments(now);
        self.answer(due);
        self.shared.due.tell(due);
        self.agenda.next().unwrap_or(now + IDLE)
    }

    fn turn_to(&mut self, index: usize, now: Instant) {
        // Before it acts, which may come to a moment for it that is earlier.
        self.agenda.set(index, now + IDLE);
        let mut wake = self.servers[index].look(now).min(self.weigh(index, now));
        self.servers[index].urge(false);
        wake = wake.min(self.expire(index, now).unwrap_or(wake));
        // Where nobody asks for it, it is told when it is due.
        let next = if self.sends_to(index) { self.act(index, now) } else { self.servers[index].due_after(now) };
        self.agenda.hasten(index, wake.min(next.unwrap_or(wake)));
    }

    /// Has every server turned to, after this.
    fn turn_to_all(&mut self, first: impl FnOnce(&mut Self)) {
        first(self);
        self.agenda = Agenda::all_at(clock::now(), self.servers.len());
    }

    /// Somebody has raised a doubt, of whom it is not said.
    fn take_in_doubts(&mut self) {
        let now = clock::now();
        for index in 0..self.servers.len() {
            if self.servers[index].notice(now) {
                self.publish(index);
                self.agenda.set(index, now);
            }
        }
    }

    /// Looks at what became of the calls on a server; when the next look is due. Routes first, then words.
    fn weigh(&mut self, index: usize, now: Instant) -> Instant {
        if !self.is_leading() {
            // The other one counts the same calls.
            return now + IDLE;
        }
        let (shift, next) = self.servers[index].weigh(now);
        let kind = match shift {
            Some(Shift::Opened(trip)) => {
                self.publish(index);
                EventKind::BreakerOpened { cause: Cause::new(trip.to_string()), detour: self.detour_of(index, now) }
            }
            Some(Shift::Closed(duration)) => {
                self.publish(index);
                EventKind::BreakerClosed { duration }
            }
            Some(Shift::OfferTrial) | None => return next,
        };
        self.shared.observer.emit(self.servers[index].event(kind));
        next
    }

    /// Does what the server's health asks for; when it wants to be asked again.
    fn act(&mut self, index: usize, now: Instant) -> Option<Instant> {
        loop {
            match self.servers[index].health.poll(now) {
                Action::Ping(order) => self.servers[index].ping(order),
                Action::Tell(change) => self.tell(index, vec![change], now),
                Action::Wait(until) => return until,
            }
        }
    }

    /// Without background monitoring pings go out only while somebody has asked for them, and at the start.
    fn is_active(&self) -> bool {
        self.config.monitoring() == Monitoring::Background || !self.runs.is_empty() || !self.settling.is_empty()
    }

    /// Whether pings go to this server now. One that is out may be asked for by itself.
    fn sends_to(&self, index: usize) -> bool {
        let server = &self.servers[index];
        self.is_active() || server.is_urged() || (!self.recoveries.is_empty() && server.health.outage().is_some())
    }

    fn appointments(&self, now: Instant) -> Appointments {
        let busy = || self.servers.iter().filter(|server| server.health.is_busy(now));
        Appointments { any: busy().next().is_some(), out: busy().any(|server| server.health.outage().is_some()) }
    }

    fn receive(&mut self, message: Message<P::Session>) {
        let now = clock::now();
        let (index, signal) = match message {
            Message::Pinged { server, pinged, fresh } => {
                self.servers[server].keep(&pinged, fresh);
                (server, Signal::Ping(pinged.order.id, pinged.finding))
            }
            Message::Ended { server, kept } if self.servers[server].let_go(kept) => (server, Signal::Lost),
            Message::Ended { .. } => return,
        };
        // A doubt raised before this news is older than it, and is taken in first.
        self.servers[index].notice(now);
        let changes = self.servers[index].health.on(signal, now);
        self.tell(index, changes, now);
        self.publish(index);
        self.agenda.set(index, now);
    }

    /// Answers whoever waits for what has come to pass.
    fn answer(&mut self, due: Appointments) {
        if !self.settling.is_empty() && self.servers.iter().all(|server| server.health.is_settled()) {
            answer_all(&mut self.settling);
        }
        if !due.any {
            answer_all(&mut self.runs);
        }
        if !due.out {
            answer_all(&mut self.recoveries);
        }
    }

    fn publish_all(&mut self) {
        (0..self.servers.len()).for_each(|index| self.publish(index));
    }

    /// Publishes what is believed of this server now, and of those that are weighed against it; tells whose standing changed.
    pub(super) fn publish(&mut self, index: usize) {
        let mut draft = self.press.draft(&self.shared.table);
        let changed = self.judge.amend(&mut draft, index, self.servers[index].known());
        let (mut news, leads) = (Vec::new(), self.is_leading());
        for &line in &changed.lines {
            let entry = &draft.entries()[line];
            self.servers[line].publish(entry.belief());
            news.extend(leads.then(|| self.servers[line].standing_changed(entry)).flatten());
        }
        self.press.publish(&self.shared.table, draft, changed.lines);
        if changed.beliefs {
            self.shared.note();
            self.await_roles(index);
        }
        news.into_iter().for_each(|event| self.shared.observer.emit(event));
    }

    /// Has the roles waited for that have to change before anybody takes writes in this server's cluster. The next pings that come of
    /// it are published too.
    fn await_roles(&mut self, index: usize) {
        let (table, now) = (self.shared.table.load_full(), clock::now());
        let cluster = self.judge.related(&table.entries()[index]).to_vec();
        for (line, awaited) in cluster.iter().copied().zip(table.awaits_roles(&cluster)) {
            let health = &mut self.servers[line].health;
            let before = health.next_ping();
            health.await_role(awaited, now);
            if health.next_ping() != before {
                self.agenda.hasten(line, health.next_ping());
                self.publish(line);
            }
        }
    }

    /// Routes first, then words: when an outage is told, reads are on their detour already.
    fn tell(&mut self, index: usize, changes: Vec<Change>, now: Instant) {
        if changes.is_empty() {
            return;
        }
        let tally = self.servers[index].tally();
        self.publish(index);
        if !self.is_leading() {
            return;
        }
        for change in changes {
            if let Some(kind) = self.event_of(index, change, tally, now) {
                self.shared.observer.emit(self.servers[index].event(kind));
            }
        }
    }

    fn event_of(&self, index: usize, change: Change, tally: Tally, now: Instant) -> Option<EventKind> {
        Some(match change {
            Change::OutageOpened { cause, detected_in } => {
                EventKind::OutageOpened { cause, detour: self.detour_of(index, now), detected_in }
            }
            Change::OutageOngoing { duration, cause, next_ping } => {
                EventKind::OutageOngoing { duration, tally, cause, next_ping }
            }
            Change::OutageClosed { duration } => EventKind::OutageClosed { duration, tally },
            Change::AdmissionStopped { cause } => EventKind::AdmissionStopped { cause },
            Change::AdmissionResumed => EventKind::AdmissionResumed,
            Change::PingInconclusive { cause } => EventKind::PingInconclusive { cause },
            Change::FactsChanged { before, now } => {
                let from = before?.role;
                (from != now.role).then_some(EventKind::RoleChanged { from, to: now.role, timeline: now.timeline })?
            }
        })
    }

    /// Where the reads of this server's own alias go now.
    pub(super) fn detour_of(&self, index: usize, now: Instant) -> Option<AliasName> {
        let alias = self.config.alias(self.servers[index].name().as_str())?;
        let plan = Chain::of(&self.config, alias).explain(alias.name.clone(), &self.shared.table.load(), now);
        plan.target().filter(|step| step.detour).map(|step| step.alias.clone())
    }
}

fn answer_all(waiting: &mut Vec<oneshot::Sender<()>>) {
    for done in waiting.drain(..) {
        // An error says that whoever asked has gone.
        let _ = done.send(());
    }
}
