//! The application of the simulation: what it does with its connections, and what it must be able to rely on.

use std::{ops::Deref, panic, sync::Arc, time::Duration};

use fastrand::Rng;
use pgdetour::{Error, Lease, health::Belief, plan::Standing, pool::Server};
use tokio::time::{Instant, timeout};

use crate::{
    faults::{Fault, Gravity},
    record::{Record, Trouble},
    time::{self, MS},
    world::{GRACE, World, index_of, spawn},
};

/// Errors that an application can raise, whatever they mean when a server reports them.
const RAISED: [&str; 13] = [
    "57P01", "57P02", "57P03", "53300", "53100", "57014", "40001", "40P01", "42P01", "25006", "08006", "58030", "XX000",
];

/// One client: what it does is random, when it does it too.
pub(crate) struct Client {
    pub(crate) world: World,
    pub(crate) rng: Rng,
    pub(crate) number: u64,
    written: u64,
}

/// A lease, and its number in the record.
pub(crate) struct Held {
    /// There until the drop.
    lease: Option<Lease>,
    pub(crate) number: u64,
    record: Record,
    server: Arc<Server>,
    /// What was believed of its server when it was lent.
    belief: Belief,
}

impl Deref for Held {
    type Target = Lease;

    fn deref(&self) -> &Lease {
        self.lease.as_ref().expect("it is there until the drop")
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        self.record.take_back(self.number);
        let lease = self.lease.take();
        self.unheard(|| drop(lease));
    }
}

impl Held {
    /// The driver's client, to change its state.
    fn client(&mut self) -> &mut Lease {
        self.lease.as_mut().expect("it is there until the drop")
    }

    /// Tells of an error that was seen on it, again and again.
    fn report(&self, error: &tokio_postgres::Error) {
        self.unheard(|| {
            (0..20).for_each(|_| {
                self.deref().report(error);
            });
        });
    }

    /// What a lease from before an outage says is not heard after it.
    fn unheard(&self, say: impl FnOnce()) {
        let before = self.server.cell.belief();
        say();
        let (after, is_stale) = (self.server.cell.belief(), before.generation() != self.belief.generation());
        self.record.check(!is_stale || before == after, || {
            format!("invariant 7: lease {} of {:?} turned {before:?} into {after:?}", self.number, self.belief)
        });
    }
}

impl Client {
    pub(crate) fn new(world: &World, number: u64, rng: Rng) -> Self {
        Self { world: world.clone(), rng, number, written: 0 }
    }

    /// Works until `end`.
    pub(crate) async fn run(mut self, end: Instant) {
        while time::now() < end {
            let pause = self.rng.u32(..250) * MS;
            time::pass(pause).await;
            match self.rng.u32(..20) {
                0..2 => self.read().await,
                2..5 => self.world.read(self.rng.u64(..20)).await,
                5..7 => self.cancel_by_dropping().await,
                7 => self.cancel_by_request().await,
                8..10 => self.read_in_transaction().await,
                10 => self.leak_a_transaction().await,
                11..13 => self.fail().await,
                13 => self.panic().await,
                14 => self.hold().await,
                15..17 => self.write().await,
                _ => {
                    let id = self.next_id();
                    match self.rng.bool() {
                        true => self.world.write(id).await,
                        false => self.world.write_once(id).await,
                    }
                }
            }
        }
    }

    fn record(&self) -> &Record {
        &self.world.record
    }

    /// Takes a connection for reads.
    async fn lease(&self) -> Option<Held> {
        self.world.get(self.world.layout.reads()).await
    }

    async fn read(&mut self) {
        let Some(held) = self.lease().await else { return };
        for _ in 0..self.rng.u32(1..3) {
            let rows = [0, 1, 3, 100][self.rng.usize(..4)];
            if self
                .world
                .execute(&held, &format!("SELECT rows({rows})"), Duration::ZERO, self.rng.bool())
                .await
                .is_err()
            {
                break;
            }
        }
    }

    /// Gives up in the middle of whatever it is.
    async fn cancel_by_dropping(&mut self) {
        let (within, takes, simple) = (self.rng.u32(..60) * MS, self.rng.u64(..400), self.rng.bool());
        let work = async {
            let Some(held) = self.lease().await else { return };
            let _ = self.world.execute(&held, "SELECT rows(1)", Duration::ZERO, simple).await;
            let _ = self.world.execute(&held, &format!("SELECT wait({takes})"), takes as u32 * MS, simple).await;
        };
        if timeout(within, work).await.is_err() {
            self.record().count("dropped futures");
        }
    }

    async fn cancel_by_request(&mut self) {
        let (after, takes) = (self.rng.u32(..100) * MS, self.rng.u64(50..300));
        let Some(held) = self.lease().await else { return };
        let (sql, token) = (format!("SELECT wait({takes})"), held.cancel_token().expect("there is a tap"));
        let cancel = async {
            time::pass(after).await;
            // It may be too late, and the server may not be there.
            let _ = token.cancel_query().await;
        };
        let _ = tokio::join!(self.world.execute(&held, &sql, takes as u32 * MS, false), cancel);
        self.record().count("cancel requests");
    }

    async fn read_in_transaction(&mut self) {
        let Some(mut held) = self.lease().await else { return };
        let sql = format!("SELECT rows(2) /*L{}*/", held.number);
        let commit = self.rng.bool();
        let outcome = async {
            let transaction = held.client().transaction().await?;
            transaction.query(&sql, &[]).await?;
            // Otherwise it is dropped, and rolls itself back.
            if commit { transaction.commit().await } else { Ok(()) }
        };
        let _: Result<(), tokio_postgres::Error> = outcome.await;
    }

    async fn leak_a_transaction(&mut self) {
        let Some(held) = self.lease().await else { return };
        if self.world.execute(&held, "BEGIN", Duration::ZERO, true).await.is_ok() {
            let _ = self.world.execute(&held, "SELECT rows(1)", Duration::ZERO, false).await;
            self.record().count("leaked transactions");
        }
    }

    /// Raises errors, and reports them more often than anybody should.
    async fn fail(&mut self) {
        let Some(held) = self.lease().await else { return };
        let code = RAISED[self.rng.usize(..RAISED.len())];
        let outcome = self.world.execute(&held, &format!("SELECT fail({code})"), Duration::ZERO, true).await;
        let Err(error) = outcome else { return };
        self.record().count("raised errors");
        held.report(&error);
    }

    async fn panic(&mut self) {
        let (world, begin) = (self.world.clone(), self.rng.bool());
        let task = spawn(self.record(), async move {
            let Some(held) = world.get(world.layout.reads()).await else { return };
            let _ = world.execute(&held, if begin { "BEGIN" } else { "SELECT rows(1)" }, Duration::ZERO, true).await;
            world.record.count("panics");
            world.record.book().leases[held.number as usize].panicked = true;
            panic::resume_unwind(Box::new("a panic of the application"));
        });
        let _ = task.await;
    }

    async fn hold(&mut self) {
        let Some(held) = self.lease().await else { return };
        let longest = [100, 600, 4000][self.rng.usize(..3)];
        time::pass(self.rng.u32(..longest) * MS).await;
        let _ = self.world.execute(&held, "SELECT rows(1)", Duration::ZERO, false).await;
    }

    fn next_id(&mut self) -> u64 {
        self.written += 1;
        self.number * 1_000_000 + self.written
    }

    async fn write(&mut self) {
        let id = self.next_id();
        let Some(mut held) = self.world.get("primary").await else { return };
        self.record().book().plain.insert(id);
        let sql = format!("INSERT INTO ledger VALUES ({id}) /*L{}*/", held.number);
        let outcome = if self.rng.bool() {
            held.execute(&sql, &[]).await.map(|_| ())
        } else {
            async {
                let transaction = held.client().transaction().await?;
                transaction.execute(&sql, &[]).await?;
                transaction.commit().await
            }
            .await
        };
        let acknowledged = outcome.is_ok();
        self.record().count(if acknowledged { "writes" } else { "failed writes" });
        self.record().book().acknowledged.extend(acknowledged.then_some(id));
    }
}

impl World {
    /// Takes a connection, as an application does.
    pub(crate) async fn get(&self, alias: &'static str) -> Option<Held> {
        let handle = self.alias(alias);
        let (begun, out) = (self.record.at(), self.servers_of(alias).all(|server| self.is_out(server)));
        let result = handle.get().await;
        let took = self.record.at() - begun;
        let limit = self.layout.pool.acquire_timeout + GRACE;
        self.record.check(took <= limit, || format!("invariant 16: get() on {alias} took {took:?}"));
        match result {
            Ok(lease) => Some(self.lent(alias, lease, Some(begun))),
            Err(error) => {
                self.refused(alias, &error, begun);
                // It may have waited for one that then went out.
                let at_once = !out || took <= GRACE || self.turned_since(begun);
                self.record.check(at_once, || format!("invariant 12: {alias} was out, and get() took {took:?}"));
                None
            }
        }
    }

    /// Looks at a lease that was asked for at `begun`; if it was not for the first attempt of a call, that does not count.
    pub(crate) fn lent(&self, alias: &'static str, lease: Lease, begun: Option<Duration>) -> Held {
        let (server, detour, at) = (index_of(lease.server().as_str()), lease.is_detour(), self.record.at());
        let number = self.record.lend(server, detour);
        self.record.count(match begun {
            None => "loans of further attempts",
            Some(_) if detour => "detours",
            Some(_) => "loans",
        });
        let table = self.router.table();
        let entry = table.get(lease.server()).expect("it is in the table");
        let wrong = |what: String| format!("lease {number} for {alias} on {}: {what}", lease.server());
        let out = &entry.known.outage;
        self.record.check(out.is_none(), || wrong(format!("invariant 14: it is out: {out:?}")));
        let sound = alias != "primary" || entry.standing == Standing::Sound;
        self.record.check(sound, || wrong(format!("invariant 5: {:?}", entry.standing)));
        if detour {
            let held = self.record.book().detours_on(server);
            let most = self.layout.pool.detour_size;
            self.record.check(held <= most, || wrong(format!("invariant 13: {held} detours of {most}")));
            // Who has begun to wait for a detour may get it when his own server is well again.
            let idle = begun.and_then(|begun| self.own_servers_of(alias).find(|own| self.is_well(*own, begun)));
            self.record.check(idle.is_none_or(|own| !self.is_well(own, at)), || {
                wrong(format!("invariant 14: a detour, and {idle:?} is well"))
            });
        }
        let known = Arc::clone(&self.servers[server]);
        Held { lease: Some(lease), number, record: self.record.clone(), belief: known.cell.belief(), server: known }
    }

    fn refused(&self, alias: &str, error: &Error, begun: Duration) {
        self.record.check(!error.is_closed(), || format!("{alias}: {error}"));
        if error.is_overloaded() {
            return self.record.count("overloaded");
        }
        self.record.count("unavailable");
        let well = self.servers_of(alias).find(|server| self.is_well(*server, begun));
        let well = well.filter(|server| self.is_well(*server, self.record.at()));
        self.record.check(well.is_none(), || format!("invariant 11: {alias}: server {well:?} is well, and: {error}"));
    }

    /// Executes a statement that takes `own` at the server.
    pub(crate) async fn execute(
        &self,
        held: &Held,
        sql: &str,
        own: Duration,
        simple: bool,
    ) -> Result<(), tokio_postgres::Error> {
        let (begun, sql) = (self.record.at(), format!("{sql} /*L{}*/", held.number));
        let outcome = match simple {
            true => held.simple_query(&sql).await.map(|_| ()),
            false => held.query(&sql, &[]).await.map(|_| ()),
        };
        self.record.count(if outcome.is_ok() { "statements" } else { "failed statements" });
        self.ended(held, &sql, begun, own);
        if let Err(error) = &outcome {
            self.record.tell(format!("lease {} on {}: {sql}: {error}", held.number, held.server()));
        }
        outcome
    }

    /// A statement ends, also on a server that says nothing any more.
    fn ended(&self, held: &Held, sql: &str, begun: Duration, own: Duration) {
        let took = self.record.at() - begun;
        let limit = own + self.layout.bounds().silent_busy + self.slowest() + GRACE;
        let hung = self.record.book().is_one_hung(begun);
        self.record.check(took <= limit || hung, || {
            format!("invariant 16: {sql} on {} took {took:?} of {limit:?}", held.server())
        });
    }

    /// How much longer than usual an answer can take where the network is slow.
    fn slowest(&self) -> Duration {
        crate::faults::LATEST * 4
    }

    /// Whether a server has been well for so long that the router knows.
    pub(crate) fn is_well(&self, server: usize, at: Duration) -> bool {
        let bounds = self.layout.bounds();
        let known = |trouble: &Trouble| match trouble.fault {
            // Nothing tells of it but the next ping.
            Fault::Demoted => bounds.silent_idle + 500 * MS,
            _ => bounds.recovery + self.layout.pings.ping_timeout + 500 * MS,
        };
        let book = self.record.book();
        let mut troubles = book.troubles_of(server, Gravity::Answers, Duration::ZERO, at);
        !troubles.any(|trouble| trouble.to.is_none_or(|to| to + known(trouble) >= at))
    }

    fn is_out(&self, server: usize) -> bool {
        self.router.table().entries()[server].known.outage.is_some()
    }

    fn turned_since(&self, begun: Duration) -> bool {
        self.record.book().turns.iter().any(|turn| turn.at >= begun)
    }

    /// The alias's own servers.
    pub(crate) fn own_servers_of(&self, alias: &str) -> impl Iterator<Item = usize> + use<> {
        match alias {
            "primary" => 0..1,
            "replica" => 1..2,
            _ => 1..3,
        }
    }

    /// All servers of its plan.
    pub(crate) fn servers_of(&self, alias: &str) -> impl Iterator<Item = usize> + use<> {
        0..if alias == "primary" { 1 } else { self.layout.servers }
    }
}
