//! What holds for hedged reads whatever their attempts do: many reads at once, random latencies, failures and budgets, in virtual time.

use std::{
    collections::HashSet,
    error::Error,
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use proptest::{collection::vec, prelude::*, test_runner::TestCaseResult};
use tokio::{
    runtime::Builder,
    task::JoinSet,
    time::{sleep, sleep_until},
};

use super::{
    super::{Alias, Lease, Router, fake::FakePool},
    reads::{MS, config, leases_out, lost, streams},
};
use crate::{
    clock,
    config::{Balance, CallSettings, Hedge, PoolSettings, Role},
    pool::Backend,
};

/// What the reads of an alias are given.
#[derive(Debug, Clone, Copy)]
struct Terms {
    retry_budget: u32,
    max_size: usize,
    hedge_after: Duration,
    call_timeout: Duration,
}

/// When a read begins, and what its attempts do, in turn.
#[derive(Debug, Clone)]
struct Read {
    begins: Duration,
    attempts: Vec<Script>,
}

/// What an attempt does.
#[derive(Debug, Clone, Copy)]
struct Script {
    takes: Duration,
    /// Whether it keeps its lease to the end, and not only for the first half.
    holds: bool,
    end: End,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum End {
    Answered,
    LostItsServer,
    OwnError,
}

/// A server, and the number of a connection to it.
type Connection = (String, u32);

/// What happened to an attempt, or to a read after its last one.
#[derive(Debug, Clone)]
enum Event {
    Began(Connection),
    Ended(End),
    /// It was dropped, with the connection that it still held, and would have ended at this time.
    Dropped(Option<Connection>, Instant),
    /// The attempt that answered it.
    Returned(Option<usize>),
}

#[derive(Debug, Clone)]
struct Entry {
    read: usize,
    attempt: usize,
    at: Instant,
    event: Event,
}

/// All that happened, in its order.
#[derive(Default)]
struct Log(Mutex<Vec<Entry>>);

impl Log {
    fn note(&self, (read, attempt): (usize, usize), event: Event) {
        self.0.lock().unwrap().push(Entry { read, attempt, at: clock::now(), event });
    }
}

/// An attempt at work.
struct Attempt {
    log: Arc<Log>,
    name: (usize, usize),
    script: Script,
    due: Instant,
    lease: Option<Lease<FakePool>>,
    ended: bool,
}

impl Attempt {
    fn begin(log: &Arc<Log>, name: (usize, usize), script: Script, lease: Lease<FakePool>) -> Self {
        log.note(name, Event::Began(connection(&lease)));
        let due = clock::now() + script.takes;
        Self { log: Arc::clone(log), name, script, due, lease: Some(lease), ended: false }
    }

    /// Which attempt it was, once it is due and has an answer.
    async fn play(mut self) -> Result<usize, Box<dyn Error + Send + Sync>> {
        sleep(self.script.takes / 2).await;
        if !self.script.holds {
            self.lease = None;
        }
        sleep_until(self.due.into()).await;
        self.ended = true;
        self.log.note(self.name, Event::Ended(self.script.end));
        match self.script.end {
            End::Answered => Ok(self.name.1),
            End::LostItsServer => Err(lost().into()),
            End::OwnError => Err("no such order".into()),
        }
    }
}

impl Drop for Attempt {
    fn drop(&mut self) {
        if !self.ended {
            self.log.note(self.name, Event::Dropped(self.lease.as_ref().map(connection), self.due));
        }
    }
}

fn connection(lease: &Lease<FakePool>) -> Connection {
    (lease.server().to_string(), lease.number)
}

/// Two replicas whose reads may go to the primary too.
async fn replicas(terms: Terms) -> Alias<FakePool> {
    let Terms { retry_budget, max_size, hedge_after, call_timeout } = terms;
    let hedge_after = Hedge::After(hedge_after);
    let calls = CallSettings { retry_budget, hedge_after, call_timeout, ..CallSettings::default() };
    let pool = PoolSettings { max_size, detour_size: max_size, min_idle: 0, ..PoolSettings::default() };
    let other = "postgres://app@db3/app?sslmode=disable";
    let config = config(calls).pool(pool).server("other", Role::Replica, other);
    let config = config.group("replicas", ["replica", "other"], Balance::RoundRobin).build().unwrap();
    let router = Router::start_over(streams(), config, |spec| Ok(FakePool::new(spec.max_size))).await.unwrap();
    router.alias("replicas").unwrap()
}

async fn play(log: Arc<Log>, alias: Alias<FakePool>, number: usize, read: Read) {
    sleep(read.begins).await;
    let mut attempts = 0;
    let answer = alias.read(|lease| {
        let script = read.attempts[attempts % read.attempts.len()];
        let attempt = Attempt::begin(&log, (number, attempts), script, lease);
        attempts += 1;
        attempt.play()
    });
    let answer = answer.await.ok();
    log.note((number, attempts), Event::Returned(answer));
}

/// Makes these reads, and checks everything.
async fn check(terms: Terms, reads: Vec<Read>) -> TestCaseResult {
    let (alias, log, mut all) = (replicas(terms).await, Arc::<Log>::default(), JoinSet::new());
    for (number, read) in reads.iter().enumerate() {
        all.spawn(play(Arc::clone(&log), alias.clone(), number, read.clone()));
    }
    all.join_all().await;
    // What was given up leaves in its own time.
    sleep(1000 * MS).await;
    let log = log.0.lock().unwrap().clone();
    for number in 0..reads.len() {
        let of_one: Vec<_> = log.iter().filter(|entry| entry.read == number).collect();
        two_at_once_at_most_each_on_a_server_of_its_own(&of_one)?;
        the_first_answer_wins(&of_one)?;
    }
    within_budget(terms, reads.len(), &log)?;
    what_was_dropped_is_closed(&alias, &log)
}

fn two_at_once_at_most_each_on_a_server_of_its_own(entries: &[&Entry]) -> TestCaseResult {
    let mut running: Vec<(usize, &str)> = Vec::new();
    for entry in entries {
        match &entry.event {
            Event::Began((server, _)) => running.push((entry.attempt, server)),
            Event::Ended(_) | Event::Dropped(..) => running.retain(|(attempt, _)| *attempt != entry.attempt),
            Event::Returned(_) => prop_assert!(running.is_empty(), "{entries:?}"),
        }
        let servers: HashSet<_> = running.iter().map(|(_, server)| server).collect();
        prop_assert!(running.len() <= 2 && servers.len() == running.len(), "{entries:?}");
    }
    Ok(())
}

fn the_first_answer_wins(entries: &[&Entry]) -> TestCaseResult {
    let mut answers = entries.iter().filter(|entry| matches!(entry.event, Event::Ended(End::Answered)));
    let first = answers.next().map(|entry| (entry.at, entry.attempt));
    prop_assert!(answers.next().is_none(), "{entries:?}");
    for entry in entries {
        match entry.event {
            Event::Returned(answer) => prop_assert_eq!(answer.map(|attempt| (entry.at, attempt)), first),
            Event::Dropped(_, due) => prop_assert!(entry.at <= due, "it had an answer by then: {entries:?}"),
            Event::Began(_) | Event::Ended(_) => {}
        }
    }
    Ok(())
}

fn within_budget(terms: Terms, reads: usize, log: &[Entry]) -> TestCaseResult {
    let reserve = if terms.retry_budget == 0 { 0 } else { 2 * terms.max_size };
    let more = log.iter().filter(|entry| entry.attempt > 0 && matches!(entry.event, Event::Began(_))).count();
    let most = (reads * terms.retry_budget as usize) / 100 + reserve;
    prop_assert!(more <= most, "{more} attempts more, of {most}");
    Ok(())
}

fn what_was_dropped_is_closed(alias: &Alias<FakePool>, log: &[Entry]) -> TestCaseResult {
    let mut closed = HashSet::new();
    for entry in log {
        match &entry.event {
            Event::Began(connection) => prop_assert!(!closed.contains(connection), "lent again: {connection:?}"),
            Event::Dropped(Some(connection), _) => drop(closed.insert(connection.clone())),
            Event::Dropped(None, _) | Event::Ended(_) | Event::Returned(_) => {}
        }
    }
    for stop in alias.line.route.own().iter().chain(alias.line.route.failover()) {
        let (status, name) = (stop.pool.status(), stop.server.name.as_str());
        let closed = closed.iter().filter(|(server, _)| server == name).count();
        prop_assert!(status.idle + closed <= stop.pool.made() as usize, "{status:?}, {closed} closed");
        prop_assert_eq!(status.size, status.idle);
    }
    prop_assert_eq!(leases_out(alias), 0);
    Ok(())
}

fn terms() -> impl Strategy<Value = Terms> {
    let retry_budget = prop_oneof![1 => Just(0), 4 => 1_u32..=100];
    (retry_budget, 1_usize..=4, 5_u32..60, 100_u32..500).prop_map(|(retry_budget, max_size, after, timeout)| Terms {
        retry_budget,
        max_size,
        hedge_after: after * MS,
        call_timeout: timeout * MS,
    })
}

fn read() -> impl Strategy<Value = Read> {
    let end = prop_oneof![3 => Just(End::Answered), 2 => Just(End::LostItsServer), 1 => Just(End::OwnError)];
    let takes = prop_oneof![6 => 0_u32..150, 1 => Just(10_000)];
    let script = (takes, any::<bool>(), end).prop_map(|(takes, holds, end)| Script { takes: takes * MS, holds, end });
    (0_u32..300, vec(script, 1..5)).prop_map(|(begins, attempts)| Read { begins: begins * MS, attempts })
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn whatever_the_attempts_of_hedged_reads_do_they_keep_to_their_terms(terms in terms(), reads in vec(read(), 1..20)) {
        let runtime = Builder::new_current_thread().enable_all().start_paused(true).build().unwrap();
        runtime.block_on(check(terms, reads))?;
    }
}
