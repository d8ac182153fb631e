//! Services that are not there, on a clock that runs as fast as nothing happens.

use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

use tokio::{sync::watch, time::timeout};

use super::{HOUR, SECOND};
use crate::{
    clock,
    config::{AliasName, Config, ConfigBuilder, Monitoring, Pings},
    health::{Cause, State},
    monitor::{Services, WatchedService},
    observe::{EventKind, Events, Hook, Observer},
    service::{Service, ServiceError},
};

const MS: Duration = Duration::from_millis(1);

/// What a fake service does when it is pinged, or called at an outage.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Manner {
    Answers,
    Refuses,
    Hangs,
    Panics,
    RefusesLogin,
}

#[derive(Clone)]
struct Fake {
    manner: watch::Sender<Manner>,
    hooks: watch::Sender<Manner>,
    /// What it was asked, and when.
    asked: Arc<Mutex<Vec<(&'static str, Duration)>>>,
    begun: std::time::Instant,
}

async fn behave(manner: Manner) -> Result<(), ServiceError> {
    match manner {
        Manner::Answers => Ok(()),
        Manner::Refuses => Err(std::io::Error::from(std::io::ErrorKind::ConnectionRefused).into()),
        Manner::Hangs => std::future::pending().await,
        Manner::Panics => panic!("as the test wants it"),
        Manner::RefusesLogin => Err(ServiceError::inconclusive("wrong password")),
    }
}

impl Fake {
    fn new() -> Self {
        let (manner, hooks) = (watch::Sender::new(Manner::Answers), watch::Sender::new(Manner::Answers));
        Self { manner, hooks, asked: Arc::default(), begun: clock::now() }
    }

    fn note(&self, what: &'static str) {
        self.asked.lock().unwrap().push((what, clock::now() - self.begun));
    }

    fn count(&self, what: &str) -> usize {
        self.asked.lock().unwrap().iter().filter(|(asked, _)| *asked == what).count()
    }

    /// The hooks that were called, in their order.
    fn called(&self) -> Vec<&'static str> {
        self.asked.lock().unwrap().iter().map(|(what, _)| *what).filter(|what| *what != "ping").collect()
    }
}

impl Service for Fake {
    fn name(&self) -> &str {
        "cache"
    }

    fn address(&self) -> String {
        "10.0.0.1:11211\u{1b}[31m".to_owned()
    }

    async fn ping(&self, _: Duration) -> Result<(), ServiceError> {
        self.note("ping");
        let manner = *self.manner.borrow();
        behave(manner).await
    }

    async fn failover(&self) -> Result<(), ServiceError> {
        self.note("failover");
        let manner = *self.hooks.borrow();
        behave(manner).await
    }

    async fn recover(&self) -> Result<(), ServiceError> {
        self.note("recover");
        let manner = *self.hooks.borrow();
        behave(manner).await
    }
}

/// A service under watch in this runtime.
struct Bench {
    fake: Fake,
    services: Services,
    watched: Arc<WatchedService>,
    events: Events,
}

fn config(change: impl FnOnce(ConfigBuilder) -> ConfigBuilder) -> Config {
    change(super::pair()).build().unwrap()
}

impl Bench {
    async fn start(manner: Manner) -> Self {
        Self::start_as(Monitoring::Background, manner).await
    }

    async fn start_as(monitoring: Monitoring, manner: Manner) -> Self {
        let (observer, fake) = (Observer::default(), Fake::new());
        let events = observer.events();
        fake.manner.send_replace(manner);
        let services = Services::new(observer, true);
        let name = AliasName::new("cache").unwrap();
        let registered = services.register(name, Arc::new(fake.clone()), &Pings::default(), monitoring);
        let watched = registered.unwrap().unwrap();
        timeout(HOUR, watched.settled()).await.unwrap();
        Self { fake, services, watched, events }
    }

    async fn told(&mut self) -> EventKind {
        let event = timeout(10 * HOUR, self.events.next()).await.expect("something is told").unwrap();
        assert!(event.is_about("cache"), "{event:?}");
        event.kind
    }

    async fn silence(&mut self, lasting: Duration) {
        let told = timeout(lasting, self.events.next()).await;
        assert!(told.is_err(), "told: {told:?}");
    }

    async fn until_called(&self, hooks: &[&str]) {
        let called = async {
            while self.fake.called() != hooks {
                tokio::time::sleep(MS).await;
            }
        };
        timeout(HOUR, called).await.unwrap_or_else(|_| panic!("called: {:?}", self.fake.called()));
    }
}

#[tokio::test(start_paused = true)]
async fn a_service_that_is_out_is_told_once_and_its_failover_and_recovery_are_called_once_each() {
    let mut bench = Bench::start(Manner::Answers).await;
    assert_eq!(bench.watched.state().state, State::Up);
    bench.fake.manner.send_replace(Manner::Refuses);
    let EventKind::OutageOpened { cause, detour, .. } = bench.told().await else { panic!() };
    assert_eq!((cause.to_string().as_str(), detour), ("connection refused", None));
    let state = bench.watched.state();
    assert!(state.is_out() && bench.watched.is_out() && state.outage.is_some(), "{state:?}");
    bench.until_called(&["failover"]).await;
    assert!(bench.watched.state().failed_over);
    let told = bench.watched.state().to_string();
    assert!(told.starts_with("cache (service at 10.0.0.1:11211 [31m): down for "), "{told}");
    let EventKind::OutageOngoing { .. } = bench.told().await else { panic!() };
    bench.fake.manner.send_replace(Manner::Answers);
    let EventKind::OutageClosed { duration, .. } = bench.told().await else { panic!() };
    assert!(duration > 3600 * SECOND && duration < 3700 * SECOND, "{duration:?}");
    bench.until_called(&["failover", "recover"]).await;
    assert!(!bench.watched.is_out() && !bench.watched.state().failed_over);
    bench.silence(HOUR).await;
    assert_eq!(bench.fake.called(), ["failover", "recover"]);
}

#[tokio::test(start_paused = true)]
async fn a_service_is_pinged_at_the_monitoring_frequency_and_one_ping_at_a_time() {
    let bench = Bench::start(Manner::Answers).await;
    tokio::time::sleep(HOUR).await;
    let pings = bench.fake.count("ping");
    assert!((27..=34).contains(&pings), "{pings} in an hour of two minutes each");
}

#[tokio::test(start_paused = true)]
async fn however_many_errors_are_reported_they_share_one_ping_per_error_frequency() {
    let bench = Bench::start(Manner::Answers).await;
    let before = bench.fake.count("ping");
    for _ in 0..600 {
        (0..100).for_each(|_| bench.watched.doubt());
        tokio::time::sleep(100 * MS).await;
    }
    let pings = bench.fake.count("ping") - before;
    assert!((10..=13).contains(&pings), "{pings} in a minute of five seconds each");
}

#[tokio::test(start_paused = true)]
async fn a_hanging_ping_is_a_silence_within_its_timeout() {
    let mut bench = Bench::start(Manner::Answers).await;
    bench.fake.manner.send_replace(Manner::Hangs);
    bench.watched.doubt();
    let begun = clock::now();
    let EventKind::OutageOpened { cause, .. } = bench.told().await else { panic!() };
    assert_eq!(cause.to_string(), "no answer within 3s");
    assert!(clock::now() - begun <= 9 * SECOND, "{:?}", clock::now() - begun);
}

#[tokio::test(start_paused = true)]
async fn a_ping_that_panics_is_told_and_opens_no_outage() {
    let mut bench = Bench::start(Manner::Answers).await;
    bench.fake.manner.send_replace(Manner::Panics);
    let EventKind::PingInconclusive { cause } = bench.told().await else { panic!() };
    assert_eq!(cause.to_string(), "the ping has panicked");
    bench.silence(HOUR / 2).await;
    let state = bench.watched.state();
    assert!(!state.is_out() && state.inconclusive == Some(Cause::new("the ping has panicked")), "{state:?}");
    bench.fake.manner.send_replace(Manner::Refuses);
    assert!(matches!(bench.told().await, EventKind::OutageOpened { .. }), "it is still watched");
}

#[tokio::test(start_paused = true)]
async fn a_refused_login_opens_no_outage_and_closes_none() {
    let mut bench = Bench::start(Manner::RefusesLogin).await;
    assert!(matches!(bench.told().await, EventKind::PingInconclusive { .. }));
    assert!(!bench.watched.is_out());
    bench.fake.manner.send_replace(Manner::Refuses);
    assert!(matches!(bench.told().await, EventKind::OutageOpened { .. }));
    bench.fake.manner.send_replace(Manner::RefusesLogin);
    bench.silence(HOUR / 2).await;
    assert!(bench.watched.is_out());
}

#[tokio::test(start_paused = true)]
async fn a_failover_that_panics_hangs_or_fails_is_told_and_its_recovery_comes_after_it() {
    for (manner, why) in [
        (Manner::Panics, "it has panicked"),
        (Manner::Hangs, "no end within 10s"),
        (Manner::Refuses, "connection refused"),
    ] {
        let mut bench = Bench::start(Manner::Answers).await;
        bench.fake.hooks.send_replace(manner);
        bench.fake.manner.send_replace(Manner::Refuses);
        assert!(matches!(bench.told().await, EventKind::OutageOpened { .. }));
        // It answers again while the failover may still be under way.
        bench.fake.manner.send_replace(Manner::Answers);
        let mut told = [bench.told().await, bench.told().await, bench.told().await];
        told.sort_by_key(EventKind::name);
        let failed = |hook| EventKind::HookFailed { hook, cause: Cause::new(why) };
        assert_eq!(told[..2], [failed(Hook::Failover), failed(Hook::Recover)]);
        assert!(matches!(told[2], EventKind::OutageClosed { .. }), "{told:?}");
        assert_eq!(bench.fake.called(), ["failover", "recover"]);
    }
}

#[tokio::test(start_paused = true)]
async fn over_a_reload_an_open_outage_goes_on_and_nothing_is_called_twice() {
    let mut bench = Bench::start(Manner::Refuses).await;
    assert!(matches!(bench.told().await, EventKind::OutageOpened { .. }));
    bench.until_called(&["failover"]).await;
    let often = Pings { outage_ping_frequency: SECOND, ..Pings::default() };
    let other = config(|builder| builder.pings(often));
    bench.services.go_over(bench.services.draft(&other).unwrap()).unwrap();
    bench.silence(30 * SECOND).await;
    let state = bench.watched.state();
    assert!(state.is_out() && state.lasting().unwrap() >= 30 * SECOND && state.failed_over, "{state}");
    let before = bench.fake.count("ping");
    bench.silence(10 * SECOND).await;
    assert!((8..=12).contains(&(bench.fake.count("ping") - before)), "it is pinged as the new configuration says");
    bench.fake.manner.send_replace(Manner::Answers);
    let EventKind::OutageClosed { duration, .. } = bench.told().await else { panic!() };
    assert!(duration >= 40 * SECOND, "{duration:?}");
    bench.until_called(&["failover", "recover"]).await;
}

#[tokio::test(start_paused = true)]
async fn at_the_end_what_was_told_is_followed_by_its_hook_and_an_open_outage_is_not_recovered() {
    let mut bench = Bench::start(Manner::Refuses).await;
    assert!(matches!(bench.told().await, EventKind::OutageOpened { .. }));
    bench.services.close();
    bench.until_called(&["failover"]).await;
    tokio::time::sleep(HOUR).await;
    assert_eq!(bench.fake.called(), ["failover"]);
    assert!(bench.watched.is_out() && bench.watched.is_gone());
}

#[tokio::test(start_paused = true)]
async fn on_demand_a_service_is_pinged_when_somebody_asks_and_it_is_due() {
    let bench = Bench::start_as(Monitoring::OnDemand, Manner::Answers).await;
    assert_eq!(bench.fake.count("ping"), 1, "at the start");
    tokio::time::sleep(HOUR).await;
    assert_eq!(bench.fake.count("ping"), 1, "nobody has asked");
    let dues = bench.services.dues();
    assert!(dues.is_due() && !dues.is_recovery_due(), "whoever asks is told by one load that a ping is due");
    timeout(HOUR, bench.services.recover()).await.unwrap();
    assert_eq!(bench.fake.count("ping"), 1, "it is not out");
    timeout(HOUR, bench.services.run()).await.unwrap();
    assert_eq!(bench.fake.count("ping"), 2);
    assert!(!dues.is_due());
    timeout(HOUR, bench.services.run()).await.unwrap();
    assert_eq!(bench.fake.count("ping"), 2, "nothing is due");
}

#[tokio::test(start_paused = true)]
async fn a_name_is_given_once_and_a_service_that_was_removed_is_asked_no_more() {
    let bench = Bench::start(Manner::Answers).await;
    let again = || {
        let (name, fake) = (AliasName::new("cache").unwrap(), Arc::new(bench.fake.clone()));
        bench.services.register(name, fake, &Pings::default(), Monitoring::Background).unwrap()
    };
    assert!(again().is_none());
    assert!(bench.services.deregister("cache") && !bench.services.deregister("cache"));
    let before = bench.fake.count("ping");
    tokio::time::sleep(HOUR).await;
    assert_eq!(bench.fake.count("ping"), before);
    assert!(again().is_some());
}
