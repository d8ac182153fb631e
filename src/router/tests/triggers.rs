//! What do calls and errors trigger, where nobody pings in the background? In virtual time, over a network that counts.

use std::{
    error::Error as StdError,
    fmt, io,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use tokio::time::sleep;

use super::{
    super::{Error, Router, fake::FakePool},
    reads::{config, full, lost},
};
use crate::{
    config::{CallSettings, Config, ConfigBuilder, Monitoring},
    health::State,
    policy::Class,
    pool::{Stream, Streams},
};

const SECOND: Duration = Duration::from_secs(1);

/// The connects that a router's monitor has made, by their address, and whether anybody answers.
#[derive(Debug, Default)]
struct Network {
    asked: Mutex<Vec<String>>,
    dead: AtomicBool,
}

impl Network {
    fn streams(self: &Arc<Self>) -> Streams {
        let network = Arc::clone(self);
        Streams::new(move |address| {
            let (network, address) = (Arc::clone(&network), address.to_owned());
            Box::pin(async move {
                network.asked.lock().unwrap().push(address.clone());
                match network.dead.load(Ordering::Relaxed) {
                    true => Stream::new(tokio::io::duplex(1).0),
                    false => full().await,
                }
            })
        })
    }

    /// Who has been asked since the last look, in order.
    fn asked(&self) -> Vec<String> {
        let mut asked: Vec<_> = self.asked.lock().unwrap().drain(..).collect();
        asked.iter_mut().for_each(|address| address.truncate(3));
        asked.sort();
        asked
    }
}

async fn over(network: &Arc<Network>, config: ConfigBuilder) -> Router<FakePool> {
    let config: Config = config.monitoring(Monitoring::OnDemand).build().unwrap();
    let streams = network.streams();
    let router = Router::start_over(streams, config, |spec| Ok(FakePool::new(spec.max_size))).await.unwrap();
    // Whoever is first finds that nothing is due.
    router.monitor().await;
    sleep(20 * SECOND).await;
    network.asked();
    router
}

async fn settled() -> (Router<FakePool>, Arc<Network>) {
    let network = Arc::default();
    (over(&network, config(CallSettings::default())).await, network)
}

#[tokio::test(start_paused = true)]
async fn a_call_is_made_after_the_pings_that_are_due_and_at_once_where_none_is() {
    let (router, network) = settled().await;
    let call = async || router.monitored(async { network.asked().len() }).await;
    assert_eq!(call().await, 0);
    sleep(120 * SECOND).await;
    assert_eq!(network.asked().len(), 0, "nobody has asked");
    assert_eq!(call().await, 2);
    assert_eq!(call().await, 0);
}

#[tokio::test(start_paused = true)]
async fn on_demand_a_ping_that_is_asked_for_by_hand_goes_out_though_none_is_due() {
    let (router, network) = settled().await;
    router.ping_now("replica", "a test").await.unwrap();
    assert_eq!(network.asked(), ["db2"]);
}

#[tokio::test(start_paused = true)]
async fn a_call_that_recovers_from_outages_pings_nobody_who_is_well() {
    let (router, network) = settled().await;
    sleep(300 * SECOND).await;
    let call = async || router.recover_from_outages(async { network.asked() }).await;
    assert_eq!(call().await, [""; 0]);
    network.dead.store(true, Ordering::Relaxed);
    router.monitor().await;
    network.asked();
    assert!(router.table().entries().iter().all(|entry| entry.belief().state() == State::Down));
    assert_eq!(call().await, [""; 0], "it is too soon");
    sleep(40 * SECOND).await;
    assert_eq!(call().await, ["db1", "db2"]);
}

#[tokio::test(start_paused = true)]
async fn after_a_shutdown_a_call_waits_for_no_ping() {
    let (router, _) = settled().await;
    router.shutdown().await;
    assert_eq!(router.monitored(async { 1 }).await + router.recover_from_outages(async { 2 }).await, 3);
    assert!(!router.report(&Error::closed()));
}

#[tokio::test(start_paused = true)]
async fn after_a_reload_calls_and_errors_trigger_the_pings_of_the_new_configuration() {
    let (router, network) = settled().await;
    let url = "postgres://app@db3/app?sslmode=disable";
    let config = config(CallSettings::default()).server("third", crate::config::Role::Replica, url);
    router.reload(config.monitoring(Monitoring::OnDemand).build().unwrap()).await.unwrap();
    sleep(20 * SECOND).await;
    network.asked();
    assert!(router.report(&lost()));
    sleep(SECOND).await;
    assert_eq!(network.asked(), ["db1", "db2", "db3"]);
    sleep(130 * SECOND).await;
    router.monitored(async {}).await;
    assert_eq!(network.asked(), ["db1", "db2", "db3"]);
}

/// An error of the application's, over another one.
#[derive(Debug)]
struct Wrapped<E>(E);

impl<E> fmt::Display for Wrapped<E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the page cannot be shown")
    }
}

impl<E: StdError + 'static> StdError for Wrapped<E> {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        Some(&self.0)
    }
}

/// It is its own source.
#[derive(Debug)]
struct Circle;

impl fmt::Display for Circle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("see there")
    }
}

impl StdError for Circle {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        Some(self)
    }
}

#[tokio::test(start_paused = true)]
async fn an_error_that_names_no_server_speaks_against_all_and_a_storm_of_them_asks_once() {
    let (router, network) = settled().await;
    for _ in 0..10_000 {
        assert!(router.report(&Wrapped(lost())));
    }
    sleep(SECOND).await;
    assert_eq!(network.asked(), ["db1", "db2"], "without anybody who waits");
    router.report(&lost());
    sleep(3 * SECOND).await;
    assert_eq!(network.asked(), [""; 0], "they are paced by the error frequency");
    sleep(3 * SECOND).await;
    assert_eq!(network.asked(), ["db1", "db2"]);
}

#[tokio::test(start_paused = true)]
async fn an_error_of_a_call_speaks_against_the_server_that_failed_it_last() {
    let (router, network) = settled().await;
    let primary = router.alias("primary").unwrap();
    let failed = primary.read(async |_| Err::<(), _>(lost())).await.unwrap_err();
    // What the call saw itself was told already, and waits for somebody who asks.
    sleep(130 * SECOND).await;
    router.monitor().await;
    sleep(20 * SECOND).await;
    network.asked();
    let wrapped = io::Error::other(Wrapped(failed));
    assert!(router.report(&wrapped));
    sleep(SECOND).await;
    assert_eq!(network.asked(), ["db1"]);
}

#[tokio::test(start_paused = true)]
async fn what_is_the_applications_own_affair_asks_for_nothing() {
    let (router, network) = settled().await;
    let unknown = router.alias("replika").unwrap_err();
    let own: [&(dyn StdError + 'static); 3] = [&fmt::Error, &Wrapped(unknown), &Circle];
    assert!(own.iter().all(|error| !router.report(*error)));
    sleep(10 * SECOND).await;
    assert_eq!(network.asked(), [""; 0]);
}

#[tokio::test(start_paused = true)]
async fn the_applications_word_on_an_error_counts_wherever_in_the_chain_it_stands() {
    let network = Arc::default();
    let config = config(CallSettings::default()).classify_errors(|error| {
        let late = error.is::<fmt::Error>().then_some(Class::Soft);
        late.or_else(|| error.is::<Wrapped<io::Error>>().then_some(Class::Application))
    });
    let router = over(&network, config).await;
    assert!(router.report(&Wrapped(Wrapped(fmt::Error))));
    assert!(!router.report(&Wrapped(lost())));
}

#[tokio::test(start_paused = true)]
async fn a_future_that_reports_gives_its_output_and_its_error_asks_by_itself() {
    let (router, network) = settled().await;
    assert_eq!(router.reporting(async { Ok::<_, io::Error>(7) }).await.unwrap(), 7);
    sleep(SECOND).await;
    assert_eq!(network.asked(), [""; 0]);
    assert!(router.alias("replica").unwrap().reporting(async { Err::<(), _>(lost()) }).await.is_err());
    sleep(SECOND).await;
    assert_eq!(network.asked(), ["db2"]);
    sleep(20 * SECOND).await;
    let boxed = async { Err::<(), Box<dyn StdError + Send + Sync>>(Box::new(lost())) };
    assert!(router.reporting_as(boxed, |error| &**error).await.is_err());
    sleep(SECOND).await;
    assert_eq!(network.asked(), ["db1", "db2"]);
}
