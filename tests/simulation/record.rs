//! What happened in a run: every fault, every statement that a server got, what was executed, what callers were told, and what
//! of all this must not have been.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex, MutexGuard},
    time::Duration,
};

use pgdetour::policy::Outcome;
use tokio::time::Instant;

use crate::{
    faults::{Fault, Gravity},
    time::{self, lock},
};

/// The record of one run. Cloning is cheap.
#[derive(Clone)]
pub(crate) struct Record(Arc<(Instant, Mutex<Book>)>);

#[derive(Default)]
pub(crate) struct Book {
    /// Line by line, for whoever replays a seed.
    pub(crate) story: Vec<String>,
    /// What must not have been.
    pub(crate) violations: Vec<String>,
    pub(crate) leases: Vec<Loan>,
    pub(crate) troubles: Vec<Trouble>,
    /// When an outage of a server opened or closed.
    pub(crate) turns: Vec<Turn>,
    /// When a server was said to take no new connections.
    pub(crate) closings: Vec<Turn>,
    pub(crate) ledger: BTreeMap<u64, Write>,
    /// The writes that went over a connection without the router's knowledge.
    pub(crate) plain: BTreeSet<u64>,
    /// The writes that callers were told have happened.
    pub(crate) acknowledged: BTreeSet<u64>,
    /// What callers were told of writes that failed: id, and what became of it.
    pub(crate) told: Vec<(u64, Outcome)>,
    /// The leases of attempts of which callers were told that nothing had left.
    pub(crate) unsent: Vec<u64>,
    /// When each ping reached which server.
    pub(crate) pings: Vec<(usize, Duration)>,
    pub(crate) counts: BTreeMap<&'static str, u64>,
    /// Tasks of the simulation that live.
    pub(crate) tasks: usize,
}

/// A connection on loan.
#[derive(Debug, Clone)]
pub(crate) struct Loan {
    pub(crate) server: usize,
    pub(crate) detour: bool,
    pub(crate) lent: Duration,
    pub(crate) back: Option<Duration>,
    /// How many of its statements a server began to execute.
    pub(crate) received: u32,
    /// Whether it comes in a transaction that the router has begun.
    pub(crate) begun: bool,
    /// Whether its holder has panicked.
    pub(crate) panicked: bool,
}

/// A time in which something was wrong with a server, or with the way there.
#[derive(Debug, Clone)]
pub(crate) struct Trouble {
    pub(crate) server: usize,
    pub(crate) fault: Fault,
    /// How long it is meant to last.
    pub(crate) length: Duration,
    pub(crate) from: Duration,
    pub(crate) to: Option<Duration>,
}

/// An outage opened, or closed.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Turn {
    pub(crate) server: usize,
    pub(crate) at: Duration,
    pub(crate) opened: bool,
}

/// One line of the ledger.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Write {
    /// How often a server began to execute it.
    pub(crate) received: u32,
    /// How often it was committed.
    pub(crate) committed: u32,
    /// Since when it can be read on the primary.
    pub(crate) at: Duration,
}

impl Record {
    pub(crate) fn new() -> Self {
        Self(Arc::new((time::now(), Mutex::default())))
    }

    /// How long the run takes so far.
    pub(crate) fn at(&self) -> Duration {
        time::now() - self.0.0
    }

    pub(crate) fn book(&self) -> MutexGuard<'_, Book> {
        lock(&self.0.1)
    }

    pub(crate) fn tell(&self, what: impl AsRef<str>) {
        let line = format!("{:>9.3} {}", self.at().as_secs_f64(), what.as_ref());
        self.book().story.push(line);
    }

    /// Something that must not be.
    pub(crate) fn violation(&self, what: impl AsRef<str>) {
        self.tell(format!("VIOLATION {}", what.as_ref()));
        let line = format!("at {:.3} s: {}", self.at().as_secs_f64(), what.as_ref());
        self.book().violations.push(line);
    }

    pub(crate) fn check(&self, holds: bool, what: impl FnOnce() -> String) {
        if !holds {
            self.violation(what());
        }
    }

    pub(crate) fn count(&self, what: &'static str) {
        *self.book().counts.entry(what).or_default() += 1;
    }

    pub(crate) fn lend(&self, server: usize, detour: bool) -> u64 {
        let lent = self.at();
        let mut book = self.book();
        book.leases.push(Loan { server, detour, lent, back: None, received: 0, begun: false, panicked: false });
        book.leases.len() as u64 - 1
    }

    /// A lease that comes in a transaction.
    pub(crate) fn lend_begun(&self, server: usize) -> u64 {
        let number = self.lend(server, false);
        self.book().leases[number as usize].begun = true;
        number
    }

    pub(crate) fn take_back(&self, lease: u64) {
        let at = self.at();
        self.book().leases[lease as usize].back = Some(at);
    }

    /// Something goes wrong with a server; the number is for [`Self::heal`].
    pub(crate) fn trouble(&self, server: usize, fault: Fault, length: Duration) -> usize {
        let from = self.at();
        self.count("faults");
        let mut book = self.book();
        book.troubles.push(Trouble { server, fault, length, from, to: None });
        book.troubles.len() - 1
    }

    pub(crate) fn heal(&self, trouble: usize) {
        let at = self.at();
        self.book().troubles[trouble].to = Some(at);
    }
}

impl Trouble {
    /// Whether it was there at any moment of these.
    pub(crate) fn overlaps(&self, from: Duration, to: Duration) -> bool {
        self.from <= to && self.to.is_none_or(|end| end >= from)
    }
}

impl Book {
    /// The troubles of a server in this time that are at least so grave.
    pub(crate) fn troubles_of(
        &self,
        server: usize,
        gravity: Gravity,
        from: Duration,
        to: Duration,
    ) -> impl Iterator<Item = &Trouble> {
        let of = move |trouble: &&Trouble| trouble.server == server && trouble.fault.gravity() >= gravity;
        self.troubles.iter().filter(of).filter(move |trouble| trouble.overlaps(from, to))
    }

    /// Whether some session hung then that is not the server's fault.
    pub(crate) fn is_one_hung(&self, from: Duration) -> bool {
        self.troubles.iter().any(|it| it.fault == Fault::OneHung && it.overlaps(from, Duration::MAX))
    }

    /// When the last outage of a server opened or closed before `at`.
    pub(crate) fn last_turn(&self, server: usize, at: Duration) -> Option<Turn> {
        self.turns.iter().rev().find(|turn| turn.server == server && turn.at < at).copied()
    }

    /// How many detours to a server are out.
    pub(crate) fn detours_on(&self, server: usize) -> usize {
        self.leases.iter().filter(|loan| loan.detour && loan.back.is_none() && loan.server == server).count()
    }
}
