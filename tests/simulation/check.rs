//! What is looked at when a run has ended.

use std::time::Duration;

use pgdetour::policy::Outcome;

use crate::{
    faults::Gravity,
    record::{Trouble, Turn},
    time::{self, MS},
    world::{GRACE, NAMES, World},
};

impl World {
    /// Waits until the router can know that all is well, and looks whether it does.
    pub(crate) async fn check_recovery(&self) {
        for node in self.nodes.iter() {
            node.state().trap = None;
            node.sessions().iter().for_each(|session| session.link.spare());
        }
        let bounds = self.layout.bounds();
        time::pass(bounds.silent_idle.max(bounds.recovery) + self.layout.pings.ping_timeout + 500 * MS).await;
        for alias in ["primary", self.layout.reads()] {
            let Some(held) = self.get(alias).await else {
                self.record.violation(format!("invariant 11: {alias} has no connection though all is well"));
                continue;
            };
            let own = !held.is_detour();
            self.record.check(own, || format!("invariant 14: {alias} is still on a detour"));
            let read = self.execute(&held, "SELECT rows(1)", Duration::ZERO, false).await;
            self.record.check(read.is_ok(), || format!("invariant 6: {alias}: {read:?}, though all is well"));
        }
        for entry in self.router.table().entries() {
            let out = &entry.known.outage;
            self.record.check(out.is_none(), || format!("{} is still out: {out:?}", entry.known.name));
        }
    }

    /// What is wrong with the record itself.
    pub(crate) fn check_record(&self) {
        self.check_outages();
        self.check_writes();
        self.check_pings();
    }

    /// Outages open and close in turns; each has a reason, and each reason an outage.
    fn check_outages(&self) {
        let (turns, troubles, closings) = {
            let book = self.record.book();
            (book.turns.clone(), book.troubles.clone(), book.closings.clone())
        };
        for (server, name) in NAMES.into_iter().enumerate().take(self.layout.servers) {
            let of: Vec<&Turn> = turns.iter().filter(|turn| turn.server == server).collect();
            let in_turns = of.iter().enumerate().all(|(index, turn)| turn.opened == (index % 2 == 0));
            self.record.check(in_turns, || format!("invariant 15: outages of {name}: {of:?}"));
            of.iter().filter(|turn| turn.opened).for_each(|turn| self.check_reason(turn));
        }
        closings.iter().for_each(|closing| self.check_reason(closing));
        troubles.iter().for_each(|trouble| self.check_found(trouble));
    }

    /// No outage without a fault of the server's own.
    fn check_reason(&self, turn: &Turn) {
        let pings = &self.layout.pings;
        let round = pings.ping_timeout / 2 * pings.failure_threshold.max(2) + crate::faults::LATEST + 100 * MS;
        let from = turn.at.saturating_sub(round);
        let reason = self.record.book().troubles_of(turn.server, Gravity::Limps, from, turn.at).next().is_some();
        self.record
            .check(reason, || format!("invariant 10: {} was shut out without a reason: {turn:?}", NAMES[turn.server]));
    }

    /// A server that is gone, or says nothing, is found out in time.
    fn check_found(&self, trouble: &Trouble) {
        let bounds = self.layout.bounds();
        let within = match trouble.fault.gravity() {
            Gravity::Gone => bounds.ended + GRACE * 2,
            Gravity::Silent => bounds.silent_idle + GRACE,
            Gravity::None | Gravity::Answers | Gravity::Limps => return,
        };
        let (until, server) = (trouble.from + within, trouble.server);
        if trouble.length <= within {
            return;
        }
        let book = self.record.book();
        // What was before it, or comes on top of it, may hide it.
        let before = trouble.from.saturating_sub(bounds.recovery + bounds.silent_idle);
        let alone = book.troubles_of(server, Gravity::Answers, before, until).count() == 1;
        let out = book.last_turn(server, until + MS).is_some_and(|turn| turn.opened);
        drop(book);
        self.record.check(out || !alone, || format!("{} was not found out: {trouble:?}", NAMES[server]));
    }

    /// What was acknowledged has happened, and nothing has happened twice.
    fn check_writes(&self) {
        let book = self.record.book();
        let (ledger, acknowledged) = (book.ledger.clone(), book.acknowledged.clone());
        let (told, unsent) = (book.told.clone(), book.unsent.clone());
        let plain = book.plain.clone();
        let received: Vec<u64> = unsent.into_iter().filter(|lease| book.leases[*lease as usize].received > 0).collect();
        drop(book);
        for (id, line) in &ledger {
            let once = line.committed <= 1 && (line.received <= 1 || !plain.contains(id));
            self.record.check(once, || format!("invariant 1: write {id} was done twice: {line:?}"));
        }
        for (id, outcome) in told.into_iter().filter(|(_, outcome)| *outcome != Outcome::Unknown) {
            let done = ledger.get(&id).is_some_and(|line| line.committed > 0);
            self.record.check(!done, || format!("invariant 3: write {id} was done, and told to be {outcome:?}"));
        }
        self.record.check(received.is_empty(), || format!("invariant 3: not sent, and received: leases {received:?}"));
        for id in acknowledged {
            let done = ledger.get(&id).is_some_and(|line| line.committed == 1);
            self.record.check(done, || format!("write {id} was acknowledged and has not happened"));
        }
    }

    /// However much goes wrong, pings come no faster than they may.
    fn check_pings(&self) {
        let pings = &self.layout.pings;
        // A round for errors and one for a watched connection that ended, each with those that confirm it, and those that close an
        // outage.
        let most = (2 * (pings.failure_threshold + 1) + pings.success_threshold) as usize;
        let record = self.record.book().pings.clone();
        for (server, name) in NAMES.into_iter().enumerate().take(self.layout.servers) {
            let at: Vec<Duration> = record.iter().filter(|(to, _)| *to == server).map(|(_, at)| *at).collect();
            let crowd = at.windows(most + 1).find(|some| some[most] - some[0] < pings.error_ping_frequency / 2);
            self.record.check(crowd.is_none(), || format!("invariant 8: {name} got too many pings: {crowd:?}"));
        }
    }

    /// With the router all of its tasks end, and all of its sessions.
    pub(crate) async fn check_end(self) {
        let Self { record, nodes, router, layout, servers } = self;
        drop(router);
        time::pass(layout.pings.ping_timeout + layout.pool.connect_timeout + 1000 * MS).await;
        for server in servers.iter() {
            let sessions = server.sessions();
            record.check(sessions == 0, || format!("invariant 19: {sessions} sessions to {} are left", server.name));
        }
        for node in nodes.iter() {
            let open = node.sessions().iter().filter(|session| !session.link.is_left()).count();
            record.check(open == 0, || format!("invariant 19: {open} sessions on {} are left", node.name));
        }
        let (alive, ours) = (tokio::runtime::Handle::current().metrics().num_alive_tasks(), record.book().tasks);
        record.check(alive == ours, || format!("invariant 19: {} tasks are left", alive - ours));
    }
}
