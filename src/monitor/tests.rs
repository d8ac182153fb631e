//! The worker over servers that are not there, on a clock that runs as fast as nothing happens: hours in milliseconds.

use std::{
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use tokio::{
    sync::{Notify, mpsc, oneshot, watch},
    time::{sleep, timeout},
};

use super::{Command, Probe, Shared, Worker};
use crate::{
    clock,
    config::{Config, ConfigBuilder, Monitoring, Role},
    health::{Belief, Cause, Facts, Finding, Over, State},
    observe::{EventKind, Events, Observer},
    plan::Table,
    pool::Server,
};

const SECOND: Duration = Duration::from_secs(1);
const HOUR: Duration = Duration::from_secs(3600);

/// What a fake server does with a ping.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Manner {
    Answers(Duration),
    /// New connections are refused; sessions that live are answered.
    Refuses,
    Hangs,
    /// It says that it has no room.
    IsFull,
}

/// A server of which each test says how it behaves, and which remembers its pings.
#[derive(Debug, Clone)]
struct Fake {
    role: Role,
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    manner: watch::Sender<Manner>,
    /// Sessions of an earlier epoch have ended.
    epoch: watch::Sender<u64>,
    pings: Mutex<Vec<(Instant, Over)>>,
    in_flight: AtomicUsize,
    most_in_flight: AtomicUsize,
}

#[derive(Debug, Clone)]
struct Session {
    epoch: u64,
    asked: Arc<AtomicBool>,
    now: watch::Receiver<u64>,
}

impl Fake {
    fn new(role: Role) -> Self {
        let inner = Inner {
            manner: watch::Sender::new(Manner::Answers(Duration::ZERO)),
            epoch: watch::Sender::new(0),
            pings: Mutex::default(),
            in_flight: AtomicUsize::new(0),
            most_in_flight: AtomicUsize::new(0),
        };
        Self { role, inner: Arc::new(inner) }
    }

    fn behaves(&self, manner: Manner) {
        self.inner.manner.send_replace(manner);
    }

    /// Ends every session and refuses new ones, as a server does that is killed.
    fn dies(&self) {
        self.behaves(Manner::Refuses);
        self.inner.epoch.send_modify(|epoch| *epoch += 1);
    }

    fn pings(&self) -> Vec<(Instant, Over)> {
        self.inner.pings.lock().unwrap().clone()
    }

    /// How long each ping came after the one before.
    fn gaps(&self) -> Vec<Duration> {
        self.pings().windows(2).map(|pair| pair[1].0 - pair[0].0).collect()
    }

    fn forget(&self) {
        self.inner.pings.lock().unwrap().clear();
    }

    fn answer(&self) -> Finding {
        Finding::Answered(Facts { role: self.role, timeline: None, system: None, position: None })
    }

    /// One ping, as the server sees it.
    async fn ping(&self, over: Over) -> Finding {
        self.inner.pings.lock().unwrap().push((clock::now(), over));
        let flight = Flight::begin(&self.inner);
        let manner = *self.inner.manner.borrow();
        let finding = match manner {
            Manner::Answers(after) => {
                sleep(after).await;
                self.answer()
            }
            Manner::Refuses if over == Over::Kept => self.answer(),
            Manner::Refuses => Finding::Failed(Cause::new("refused")),
            Manner::IsFull => Finding::Inconclusive(Cause::new("too many clients")),
            Manner::Hangs => std::future::pending().await,
        };
        drop(flight);
        finding
    }
}

/// Counts a ping that is under way, also when it is given up.
struct Flight<'a>(&'a Inner);

impl<'a> Flight<'a> {
    fn begin(inner: &'a Inner) -> Self {
        let now = inner.in_flight.fetch_add(1, Ordering::Relaxed) + 1;
        inner.most_in_flight.fetch_max(now, Ordering::Relaxed);
        Self(inner)
    }
}

impl Drop for Flight<'_> {
    fn drop(&mut self) {
        self.0.in_flight.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Probe for Fake {
    type Session = Session;

    async fn connect(&self) -> Result<Session, Finding> {
        match self.ping(Over::Fresh).await {
            Finding::Answered(_) => {
                let now = self.inner.epoch.subscribe();
                let epoch = *now.borrow();
                Ok(Session { epoch, asked: Arc::default(), now })
            }
            other => Err(other),
        }
    }

    async fn ask(&self, session: &Session) -> Finding {
        if *session.now.borrow() != session.epoch {
            return Finding::Failed(Cause::new("connection closed"));
        }
        if session.asked.swap(true, Ordering::Relaxed) { self.ping(Over::Kept).await } else { self.answer() }
    }

    async fn ended(session: &Session) {
        let _ = session.now.clone().wait_for(|epoch| *epoch != session.epoch).await;
    }
}

/// A worker at work over fake servers.
struct Bench {
    config: Arc<Config>,
    fakes: Vec<Fake>,
    servers: Vec<Arc<Server>>,
    shared: Shared,
    commands: mpsc::UnboundedSender<Command>,
    events: Events,
    start: Instant,
}

/// A primary and a replica, with every frequency at its default.
fn pair() -> ConfigBuilder {
    Config::builder().server("primary", Role::Primary, "postgres://app@127.0.0.1:1/app").server(
        "replica",
        Role::Replica,
        "postgres://app@127.0.0.1:2/app",
    )
}

impl Bench {
    /// Starts a worker over the servers of `config`; `prepare` says how each behaves from the start.
    fn start(config: ConfigBuilder, prepare: impl Fn(&str, &Fake)) -> Self {
        Self::after(config, prepare, &Table::default())
    }

    /// The same, after a reload.
    fn after(config: ConfigBuilder, prepare: impl Fn(&str, &Fake), before: &Table) -> Self {
        let config = Arc::new(config.build().unwrap());
        let bell = Arc::new(Notify::new());
        let shared = Shared { table: Arc::default(), bell: Arc::clone(&bell), observer: Observer::default() };
        let (mut fakes, mut servers) = (Vec::new(), Vec::new());
        for alias in &config.aliases {
            let fake = Fake::new(if alias.name.as_str() == "primary" { Role::Primary } else { Role::Replica });
            prepare(alias.name.as_str(), &fake);
            servers.push(Arc::new(Server::new(
                alias.name.clone(),
                format!("{}:5432/app", alias.name),
                Arc::clone(&bell),
            )));
            fakes.push(fake);
        }
        let (commands, orders) = mpsc::unbounded_channel();
        let asked = servers.iter().cloned().zip(fakes.iter().cloned()).collect();
        let worker = Worker::new(Arc::clone(&config), shared.clone(), asked, orders).resume(before);
        let events = shared.observer.events();
        tokio::spawn(worker.run());
        Self { config, fakes, servers, shared, commands, events, start: clock::now() }
    }

    /// One that has had its first pings, which are forgotten.
    async fn settled(config: ConfigBuilder) -> Self {
        let bench = Self::start(config, |_, _| {});
        bench.ask(Command::Settle).await;
        bench.fakes.iter().for_each(Fake::forget);
        bench
    }

    async fn ask(&self, command: fn(oneshot::Sender<()>) -> Command) {
        let (done, answer) = oneshot::channel();
        self.commands.send(command(done)).unwrap();
        timeout(HOUR, answer).await.expect("the worker answers").unwrap();
    }

    fn index(&self, name: &str) -> usize {
        self.servers.iter().position(|server| server.name.as_str() == name).unwrap()
    }

    fn fake(&self, name: &str) -> &Fake {
        &self.fakes[self.index(name)]
    }

    fn server(&self, name: &str) -> &Server {
        &self.servers[self.index(name)]
    }

    fn belief(&self, name: &str) -> Belief {
        self.server(name).cell.belief()
    }

    /// An application sees an error that speaks against the server.
    fn doubt(&self, name: &str) {
        self.server(name).doubt(self.belief(name).generation());
    }

    /// What is told next, about whom, and how long after the start.
    async fn told(&mut self) -> (String, EventKind, Duration) {
        let event = timeout(10 * HOUR, self.events.next()).await.expect("something is told").unwrap();
        (event.alias.as_str().to_owned(), event.kind, clock::now() - self.start)
    }

    /// That nothing is told for so long.
    async fn silence(&mut self, lasting: Duration) {
        let told = timeout(lasting, self.events.next()).await;
        assert!(told.is_err(), "told: {told:?}");
    }
}

/// Whether all lie within a tenth of `frequency`, up to the millisecond to which timers are good.
#[track_caller]
fn all_about(gaps: &[Duration], frequency: Duration) {
    let (least, most) = (frequency * 9 / 10, frequency * 11 / 10 + Duration::from_millis(2));
    assert!(!gaps.is_empty() && gaps.iter().all(|gap| (least..=most).contains(gap)), "{gaps:?}");
}

#[tokio::test(start_paused = true)]
async fn a_server_that_is_up_is_pinged_at_the_monitoring_frequency_over_both_kinds_of_connections() {
    let mut bench = Bench::start(pair(), |_, _| {});
    bench.silence(2 * HOUR).await;
    for fake in &bench.fakes {
        all_about(&fake.gaps(), 120 * SECOND);
        let over: Vec<Over> = fake.pings().iter().map(|ping| ping.1).collect();
        assert!(over.chunks_exact(2).all(|two| two == [Over::Fresh, Over::Kept]), "{over:?}");
        assert_eq!(fake.inner.most_in_flight.load(Ordering::Relaxed), 1);
    }
    assert_ne!(bench.fakes[0].gaps(), bench.fakes[1].gaps(), "servers are not pinged in step");
}

#[tokio::test(start_paused = true)]
async fn a_server_that_is_down_is_pinged_at_the_outage_frequency_over_fresh_connections() {
    let mut bench = Bench::settled(pair()).await;
    bench.fake("replica").dies();
    assert_eq!(bench.told().await.1.name(), "outage_opened");
    bench.fake("replica").forget();
    sleep(HOUR - SECOND).await;
    let replica = bench.fake("replica");
    all_about(&replica.gaps(), 30 * SECOND);
    assert!(replica.pings().iter().all(|ping| ping.1 == Over::Fresh));
}

#[tokio::test(start_paused = true)]
async fn an_error_triggers_a_ping_at_once_and_opens_nothing_if_that_is_answered() {
    let mut bench = Bench::settled(pair()).await;
    sleep(20 * SECOND).await;
    bench.doubt("replica");
    assert_eq!(bench.belief("replica").state(), State::Suspect);
    sleep(SECOND).await;
    assert_eq!(bench.fake("replica").pings().len(), 1);
    assert_eq!(bench.belief("replica").state(), State::Up);
    assert!(bench.fake("primary").pings().is_empty(), "the other server has nothing to do with it");
    bench.silence(10 * SECOND).await;
}

#[tokio::test(start_paused = true)]
async fn an_error_finds_a_dead_server_in_no_time_although_nobody_had_watched_it() {
    let mut bench = Bench::settled(pair()).await;
    sleep(20 * SECOND).await;
    bench.fake("replica").behaves(Manner::Refuses);
    // Its sessions linger, so the watched connection answers: admission has stopped, which is no outage.
    bench.doubt("replica");
    let (alias, kind, _) = bench.told().await;
    assert_eq!((alias.as_str(), kind.name()), ("replica", "admission_stopped"));
    let before = clock::now();
    bench.fake("replica").dies();
    let (alias, kind, _) = bench.told().await;
    assert_eq!((alias.as_str(), kind.name()), ("replica", "outage_opened"));
    assert_eq!(clock::now() - before, Duration::ZERO);
}

#[tokio::test(start_paused = true)]
async fn a_storm_of_errors_causes_one_ping_per_error_frequency_and_one_at_a_time() {
    let mut bench = Bench::settled(pair()).await;
    bench.fake("replica").behaves(Manner::Answers(SECOND / 2));
    for _ in 0..60_000 {
        bench.doubt("replica");
        sleep(Duration::from_millis(1)).await;
    }
    let replica = bench.fake("replica");
    assert!(replica.gaps().iter().all(|&gap| gap >= 5 * SECOND), "{:?}", replica.gaps());
    assert!((10..=13).contains(&replica.pings().len()), "{}", replica.pings().len());
    assert_eq!(replica.inner.most_in_flight.load(Ordering::Relaxed), 1);
    bench.silence(SECOND).await;
}

#[tokio::test(start_paused = true)]
async fn an_outage_is_told_once_again_at_each_log_frequency_and_once_when_it_ends() {
    let mut bench = Bench::settled(pair()).await;
    sleep(60 * SECOND).await;
    bench.fake("replica").dies();
    let (alias, kind, opened) = bench.told().await;
    let EventKind::OutageOpened { cause, detour } = kind else { panic!("{kind:?}") };
    assert_eq!((alias.as_str(), cause.to_string().as_str()), ("replica", "refused"));
    assert_eq!(detour.unwrap().as_str(), "primary");
    for hours in 1..=3 {
        let (_, kind, at) = bench.told().await;
        let EventKind::OutageOngoing { duration, cause, next_ping, .. } = kind else { panic!("{kind:?}") };
        assert!(at - opened - hours * HOUR < SECOND, "{:?}", at - opened);
        assert!(duration - hours * HOUR < SECOND);
        assert_eq!(cause.to_string(), "refused");
        assert!(next_ping <= 33 * SECOND, "{next_ping:?}");
    }
    bench.fake("replica").behaves(Manner::Answers(Duration::ZERO));
    let (_, kind, at) = bench.told().await;
    let EventKind::OutageClosed { duration, .. } = kind else { panic!("{kind:?}") };
    assert!(at - opened - duration < SECOND && at - opened < 3 * HOUR + 34 * SECOND);
    bench.silence(3 * HOUR).await;
}

#[tokio::test(start_paused = true)]
async fn the_end_of_the_watched_connection_is_seen_at_once_without_any_traffic() {
    let mut bench = Bench::settled(pair()).await;
    sleep(50 * SECOND).await;
    let died = clock::now();
    bench.fake("replica").dies();
    assert_eq!(bench.told().await.1.name(), "outage_opened");
    assert_eq!(clock::now() - died, Duration::ZERO);
    assert_eq!(bench.fake("replica").pings().len(), 2, "one ping and one that confirms it");
}

#[tokio::test(start_paused = true)]
async fn a_server_that_ends_our_session_and_answers_is_up() {
    let mut bench = Bench::settled(pair()).await;
    sleep(50 * SECOND).await;
    bench.fake("replica").dies();
    bench.fake("replica").behaves(Manner::Answers(Duration::ZERO));
    bench.silence(10 * SECOND).await;
    assert_eq!(bench.belief("replica").state(), State::Up);
    assert_eq!(bench.fake("replica").pings().len(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_server_that_falls_silent_under_leases_is_down_after_slow_after_and_one_ping_timeout() {
    let mut bench = Bench::settled(pair()).await;
    sleep(50 * SECOND).await;
    bench.server("replica").cell.lend();
    bench.fake("replica").behaves(Manner::Hangs);
    let silent = clock::now();
    let (_, kind, _) = bench.told().await;
    let EventKind::OutageOpened { cause, .. } = kind else { panic!("{kind:?}") };
    assert_eq!(cause.to_string(), "no answer within 3s");
    let took = clock::now() - silent;
    // At a look: the first finds the lease, a later one that it has been out for a second.
    assert!((4 * SECOND..=4 * SECOND + SECOND / 2).contains(&took), "{took:?}");
}

#[tokio::test(start_paused = true)]
async fn leases_that_come_back_cause_no_ping_and_one_that_does_not_causes_some_at_the_error_frequency() {
    let mut bench = Bench::settled(pair()).await;
    let cell = &bench.server("replica").cell;
    for _ in 0..600 {
        cell.lend();
        sleep(SECOND / 10).await;
        cell.take_back();
    }
    assert!(bench.fake("replica").pings().is_empty());
    cell.lend();
    sleep(30 * SECOND).await;
    assert!((4..=6).contains(&bench.fake("replica").pings().len()), "{:?}", bench.fake("replica").gaps());
    bench.silence(SECOND).await;
}

#[tokio::test(start_paused = true)]
async fn on_demand_nothing_is_pinged_unless_asked_and_then_only_what_is_due() {
    let mut bench = Bench::settled(pair().monitoring(Monitoring::OnDemand)).await;
    sleep(HOUR).await;
    assert!(bench.fakes.iter().all(|fake| fake.pings().is_empty()));
    bench.ask(Command::Run).await;
    bench.ask(Command::Run).await;
    assert!(bench.fakes.iter().all(|fake| fake.pings().len() == 1));
    bench.fake("replica").behaves(Manner::Refuses);
    bench.fake("replica").dies();
    sleep(HOUR).await;
    assert_eq!(bench.fake("replica").pings().len(), 1);
    bench.ask(Command::Run).await;
    assert_eq!(bench.told().await.1.name(), "outage_opened");
    assert_eq!(bench.belief("replica").state(), State::Down);
}

#[tokio::test(start_paused = true)]
async fn a_start_settles_within_one_ping_timeout_whatever_the_servers_do() {
    let manners = [Manner::Answers(SECOND / 10), Manner::Refuses, Manner::Hangs, Manner::IsFull];
    for manner in manners {
        let bench = Bench::start(pair(), |name, fake| {
            if name == "replica" {
                fake.behaves(manner);
            }
        });
        bench.ask(Command::Settle).await;
        let took = clock::now() - bench.start;
        assert!(took <= 3 * SECOND + SECOND / 100, "{manner:?}: {took:?}");
        let down = matches!(manner, Manner::Refuses | Manner::Hangs);
        assert_eq!(bench.belief("replica").state() == State::Down, down, "{manner:?}");
        assert_eq!(bench.belief("primary").state(), State::Up);
    }
}

#[tokio::test(start_paused = true)]
async fn a_server_that_hangs_holds_up_no_other() {
    let mut bench = Bench::settled(pair()).await;
    bench.fake("replica").behaves(Manner::Hangs);
    sleep(2 * HOUR).await;
    all_about(&bench.fake("primary").gaps(), 120 * SECOND);
    let mut told = Vec::new();
    while let Ok(Some(event)) = timeout(SECOND, bench.events.next()).await {
        told.push((event.alias.as_str().to_owned(), event.kind.name()));
    }
    assert!(told.iter().all(|(alias, _)| alias == "replica"), "{told:?}");
    assert_eq!(bench.belief("primary").state(), State::Up);
}

#[tokio::test(start_paused = true)]
async fn a_failover_target_that_is_down_itself_is_passed_over_and_without_any_the_outage_says_so() {
    let chain = pair()
        .server("standby", Role::Replica, "postgres://app@127.0.0.1:3/app")
        .failover("replica", ["standby", "primary"]);
    let mut bench = Bench::settled(chain).await;
    let mut detours = Vec::new();
    for dying in ["standby", "replica", "primary"] {
        sleep(SECOND * 10).await;
        bench.fake(dying).dies();
        let (alias, kind, _) = bench.told().await;
        let EventKind::OutageOpened { detour, .. } = kind else { panic!("{kind:?}") };
        detours.push((alias, detour.map(|alias| alias.as_str().to_owned())));
    }
    let (primary, none) = (Some("primary".to_owned()), None);
    let expected = [("standby", primary.clone()), ("replica", primary), ("primary", none)];
    assert_eq!(detours, expected.map(|(alias, detour)| (alias.to_owned(), detour)));
    let plan = bench.shared.table.load();
    assert!(plan.entries().iter().all(|entry| entry.known.outage.is_some()));

    for fake in &bench.fakes {
        fake.behaves(Manner::Answers(Duration::ZERO));
    }
    for _ in 0..3 {
        assert_eq!(bench.told().await.1.name(), "outage_closed");
    }
}

#[tokio::test(start_paused = true)]
async fn an_outage_closes_after_two_good_pings_and_not_after_one() {
    let mut bench = Bench::settled(pair()).await;
    bench.fake("replica").dies();
    assert_eq!(bench.told().await.1.name(), "outage_opened");
    let replica = bench.fake("replica").clone();
    // One answer may be luck: refuse again as soon as there was one.
    replica.behaves(Manner::Answers(Duration::ZERO));
    let lucky = replica.pings().len() + 1;
    while replica.pings().len() < lucky {
        sleep(Duration::from_millis(1)).await;
    }
    replica.dies();
    bench.silence(HOUR / 2).await;
    assert_eq!(bench.belief("replica").state(), State::Down);
    replica.forget();
    replica.behaves(Manner::Answers(Duration::ZERO));
    assert_eq!(bench.told().await.1.name(), "outage_closed");
    assert_eq!(replica.pings().len(), 2);
    assert!(replica.gaps()[0] < SECOND / 10, "{:?}", replica.gaps());
}

#[tokio::test(start_paused = true)]
async fn a_server_without_room_is_told_of_once_and_is_no_outage() {
    let mut bench = Bench::settled(pair()).await;
    bench.fake("replica").behaves(Manner::IsFull);
    sleep(20 * SECOND).await;
    bench.doubt("replica");
    assert_eq!(bench.told().await.1.name(), "ping_inconclusive");
    bench.silence(HOUR - 30 * SECOND).await;
    bench.fake("replica").behaves(Manner::Answers(Duration::ZERO));
    bench.silence(3 * HOUR).await;
    assert_eq!(bench.belief("replica").state(), State::Up);
}

#[tokio::test(start_paused = true)]
async fn an_outage_that_is_open_at_a_reload_is_not_told_twice_and_its_end_is() {
    let mut bench = Bench::settled(pair()).await;
    bench.fake("replica").dies();
    assert_eq!(bench.told().await.1.name(), "outage_opened");
    let before = bench.shared.table.load_full();
    bench.commands.send(Command::Stop).unwrap();
    let mut after = Bench::after(
        pair(),
        |name, fake| {
            if name == "replica" {
                fake.behaves(Manner::Refuses)
            }
        },
        &before,
    );
    after.ask(Command::Settle).await;
    after.silence(HOUR / 2).await;
    assert_eq!(after.belief("replica").state(), State::Down);
    after.fake("replica").behaves(Manner::Answers(Duration::ZERO));
    let (alias, kind, _) = after.told().await;
    let EventKind::OutageClosed { duration, .. } = kind else { panic!("{kind:?}") };
    assert!(alias == "replica" && duration >= HOUR / 2, "{alias} {duration:?}");
    assert_eq!(after.config.aliases.len(), 2);
}
