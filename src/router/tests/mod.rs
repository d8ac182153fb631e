//! What becomes of requests and leases when the configuration changes or the router ends?

mod breaker;
#[cfg(feature = "testkit")]
mod drain;
#[cfg(all(feature = "cache", feature = "testkit"))]
mod fallback;
#[cfg(feature = "testkit")]
mod fates;
#[cfg(feature = "testkit")]
mod hedges;
#[cfg(feature = "testkit")]
mod races;
#[cfg(feature = "testkit")]
mod reads;
#[cfg(feature = "testkit")]
mod reload;
#[cfg(feature = "testkit")]
mod status;
#[cfg(feature = "testkit")]
mod triggers;

use std::time::Duration;

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpListener,
    time::timeout,
};

use super::{Alias, Router, fake::FakePool};
use crate::{
    config::{Balance, Config, ConfigBuilder, PoolSettings, Role},
    health::{Belief, State},
    observe::EventKind,
    plan::Mode,
    policy::Class,
    pool::Backend,
};

/// Long enough for anything that is going to happen at all.
const SOON: Duration = Duration::from_secs(20);

/// A server that is up and has no room for a ping.
async fn full_server() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let words = b"SFATAL\0VFATAL\0C53300\0Mtoo many clients already\0\0";
    let length = u32::try_from(words.len() + 4).unwrap();
    let refusal = [b"E", &length.to_be_bytes()[..], words].concat();
    tokio::spawn(async move {
        while let Ok((mut socket, _)) = listener.accept().await {
            let length = socket.read_u32().await.unwrap();
            socket.read_exact(&mut vec![0; length as usize - 4]).await.unwrap();
            socket.write_all(&refusal).await.unwrap();
        }
    });
    port
}

fn config(port: u16) -> Config {
    settings(port).build().unwrap()
}

fn settings(port: u16) -> ConfigBuilder {
    let pool = PoolSettings { max_size: 1, acquire_timeout: SOON, ..PoolSettings::default() };
    Config::builder().pool(pool).server("primary", Role::Primary, url(port))
}

async fn router() -> (Router<FakePool>, Config) {
    let config = config(full_server().await);
    let router = Router::start_with(config.clone(), |spec| Ok(FakePool::new(spec.max_size))).await.unwrap();
    (router, config)
}

/// A port at which nobody listens.
async fn nobody() -> u16 {
    TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap().port()
}

fn url(port: u16) -> String {
    format!("postgres://app@127.0.0.1:{port}/app?sslmode=disable")
}

/// A primary that is down, and its replica that is up.
fn without_primary(primary: u16, replica: u16) -> ConfigBuilder {
    Config::builder().server("primary", Role::Primary, url(primary)).server("replica", Role::Replica, url(replica))
}

/// A request that waits for a connection.
async fn waiting(alias: Alias<FakePool>) -> tokio::task::JoinHandle<Result<super::Lease<FakePool>, super::Error>> {
    let (line, get) = (alias.line.clone(), tokio::spawn(async move { alias.get().await }));
    let server = &line.route.own()[0].server;
    while server.leases().out < 2 {
        tokio::task::yield_now().await;
    }
    get
}

#[tokio::test]
async fn a_request_looks_again_before_it_takes_what_it_chose_when_it_was_made() {
    let (router, _) = router().await;
    let alias = router.alias("primary").unwrap();
    let request = alias.get();
    let server = alias.line.route.own()[0].server.clone();
    server.publish(Belief::new(State::Down, server.cell.belief().generation().next()));
    assert!(request.await.unwrap_err().is_unavailable());
}

#[tokio::test]
async fn who_waits_for_a_server_is_sent_on_when_it_goes_down() {
    let (router, _) = router().await;
    let alias = router.alias("primary").unwrap();
    let _all = alias.get().await.unwrap();
    let (server, get) = (alias.line.route.own()[0].server.clone(), waiting(alias).await);
    server.publish(Belief::new(State::Down, server.cell.belief().generation().next()));
    assert!(timeout(SOON / 2, get).await.expect("it has nothing to wait for").unwrap().unwrap_err().is_unavailable());
}

#[tokio::test]
async fn who_waits_for_a_server_gives_up_in_time() {
    let pool = PoolSettings { max_size: 1, acquire_timeout: Duration::from_millis(10), ..PoolSettings::default() };
    let config = settings(full_server().await).pool(pool).build().unwrap();
    let router = Router::start_with(config, |spec| Ok(FakePool::new(spec.max_size))).await.unwrap();
    let alias = router.alias("primary").unwrap();
    let _all = alias.get().await.unwrap();
    let late = timeout(SOON, alias.get()).await.expect("it ends by itself");
    assert!(late.unwrap_err().is_overloaded());
}

#[tokio::test]
async fn a_crowded_member_of_a_group_fails_no_request_that_another_has_room_for() {
    let pool = PoolSettings { max_size: 1, max_waiting: 0, acquire_timeout: SOON, ..PoolSettings::default() };
    let replica = |config: ConfigBuilder, name, port| config.server(name, Role::Replica, url(port));
    let config = replica(settings(full_server().await).pool(pool), "one", full_server().await);
    let config = replica(config, "two", full_server().await).group("both", ["one", "two"], Balance::RoundRobin);
    let config = config.build().unwrap();
    let router = Router::<FakePool>::start_with(config, |spec| Ok(FakePool::new(spec.max_size))).await.unwrap();
    let alias = router.alias("both").unwrap();
    let _one = alias.line.route.own()[0].pool.acquire().await.unwrap();
    for _ in 0..4 {
        assert_eq!(alias.get().await.unwrap().server().as_str(), "two");
    }
}

#[tokio::test]
async fn a_request_that_waits_in_a_full_pool_is_served_across_a_reload() {
    let (router, config) = router().await;
    let alias = router.alias("primary").unwrap();
    let _all = alias.get().await.unwrap();
    let waiting = waiting(alias).await;
    router.reload(config).await.unwrap();
    timeout(SOON / 2, waiting).await.unwrap().unwrap().expect("the server is up, before and after");
}

#[tokio::test]
async fn a_request_that_waits_while_the_router_ends_learns_that() {
    let (router, _) = router().await;
    let alias = router.alias("primary").unwrap();
    let _all = alias.get().await.unwrap();
    let waiting = waiting(alias).await;
    router.shutdown().await;
    assert!(timeout(SOON / 2, waiting).await.unwrap().unwrap().unwrap_err().is_closed());
}

#[tokio::test]
async fn what_was_lent_before_a_reload_ends_with_the_router() {
    let (router, config) = router().await;
    // As a session of it would.
    let cuts = router.alias("primary").unwrap().line.route.own()[0].server.cuts();
    router.reload(config.clone()).await.unwrap();
    router.reload(config).await.unwrap();
    let ended = tokio::spawn(async move { router.shutdown().await });
    let cut = timeout(SOON / 2, cuts.wait_for(|cut| cut.closed)).await.map(|cut| cut.closed);
    assert_eq!(cut, Ok(true), "its session would live on");
    assert!(!ended.is_finished());
    drop(cuts);
    timeout(SOON / 2, ended).await.unwrap().unwrap();
}

#[tokio::test]
async fn without_its_primary_a_router_refuses_writes_says_when_to_come_back_and_lends_for_reads() {
    let config = without_primary(nobody().await, full_server().await).build().unwrap();
    let router = Router::start_with(config, |spec| Ok(FakePool::new(spec.max_size))).await.unwrap();
    assert_eq!(router.mode(), Mode::ReadOnly);
    let [primary, replica] = ["primary", "replica"].map(|name| router.alias(name).unwrap());
    for error in [primary.get().await.unwrap_err(), primary.line.refuse_write(Vec::new())] {
        assert!(error.is_read_only() && error.is_unavailable() && !error.is_overloaded(), "{error}");
        let after = error.retry_after().expect("the next ping is planned");
        assert!(!after.is_zero() && after <= Duration::from_secs(33), "{after:?}");
        assert!(error.to_string().starts_with("primary: no server takes writes now, reads go on; "), "{error}");
    }
    assert!(!replica.get().await.unwrap().is_detour());
    let misplaced = replica.line.refuse_write(Vec::new());
    assert!(!misplaced.is_read_only() && misplaced.retry_after().is_none(), "{misplaced}");
    assert!(misplaced.to_string().contains("a replica: takes no writes"), "{misplaced}");
    router.shutdown().await;
    assert_eq!(router.mode(), Mode::Down);
}

#[tokio::test]
async fn with_a_failover_for_its_reads_an_alias_lends_a_replica_and_still_refuses_writes() {
    let config = without_primary(nobody().await, full_server().await).failover("primary", ["replica"]).build().unwrap();
    let router = Router::start_with(config, |spec| Ok(FakePool::new(spec.max_size))).await.unwrap();
    let primary = router.alias("primary").unwrap();
    assert!(primary.get().await.unwrap().is_detour());
    assert!(primary.line.refuse_write(Vec::new()).is_read_only());
}

#[tokio::test]
async fn a_reload_that_leaves_nothing_but_what_is_up_brings_the_mode_back_to_normal_and_tells_it_once() {
    let (primary, replica) = (nobody().await, full_server().await);
    let start = |config: ConfigBuilder| config.build().unwrap();
    let config = start(without_primary(primary, replica));
    let router = Router::start_with(config.clone(), |spec| Ok(FakePool::new(spec.max_size))).await.unwrap();
    let mut events = router.events();
    router.reload(config).await.unwrap();
    assert_eq!(router.mode(), Mode::ReadOnly);
    router.reload(start(without_primary(full_server().await, replica))).await.unwrap();
    assert_eq!(router.mode(), Mode::Normal);
    router.shutdown().await;
    let mut told = Vec::new();
    while let Some(event) = events.next().await {
        if let EventKind::ModeChanged { from, to } = event.kind {
            told.push((from, to));
        }
    }
    assert_eq!(told, [(Mode::ReadOnly, Mode::Normal)]);
}

/// An error of an application's own.
#[derive(Debug)]
struct Throttled;

impl std::fmt::Display for Throttled {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("throttled")
    }
}

impl std::error::Error for Throttled {}

#[tokio::test]
async fn an_applications_own_error_asks_for_a_ping_where_the_application_says_so_and_can_do_no_more() {
    let refused = std::io::Error::from(std::io::ErrorKind::ConnectionRefused);
    let plain = config(full_server().await);
    let told = settings(full_server().await).classify_errors(|error| {
        let refused = error.is::<std::io::Error>().then_some(Class::Application);
        refused.or(error.is::<Throttled>().then_some(Class::Hard))
    });
    for (config, own, network) in [(plain, false, true), (told.build().unwrap(), true, false)] {
        let router = Router::start_with(config, |spec| Ok(FakePool::new(spec.max_size))).await.unwrap();
        let alias = router.alias("primary").unwrap();
        let lease = alias.get().await.unwrap();
        let generation = alias.line.route.own()[0].server.cell.belief().generation();
        assert_eq!((alias.report(&Throttled), lease.report(&Throttled)), (own, own));
        assert_eq!((alias.report(&refused), lease.report(&refused)), (network, network));
        let belief = alias.line.route.own()[0].server.cell.belief();
        assert!(belief.is_doubted() && belief.generation() == generation, "{belief:?}");
        router.shutdown().await;
    }
}

#[tokio::test]
async fn a_switch_flips_with_what_is_believed_and_never_lags_behind_it() {
    let (router, _) = router().await;
    let alias = router.alias("primary").unwrap();
    let switch = router.switch_on_alias("primary", 1, 2).unwrap();
    let server = &alias.line.route.own()[0].server;
    assert_eq!(*switch.get(), 1);
    for (state, value) in [(State::Down, 2), (State::Recovering, 2), (State::Up, 1), (State::Suspect, 1)] {
        server.publish(Belief::new(state, server.cell.belief().generation().next()));
        assert_eq!((*switch.get(), switch.is_flipped()), (value, value == 2), "{state:?}");
    }
}

#[tokio::test]
async fn switches_survive_a_reload_and_give_the_other_value_after_a_shutdown() {
    let (primary, replica) = (nobody().await, full_server().await);
    let out = without_primary(primary, replica).build().unwrap();
    let well = without_primary(full_server().await, replica).build().unwrap();
    let router = Router::start_with(well.clone(), |spec| Ok(FakePool::new(spec.max_size))).await.unwrap();
    let on_alias = router.switch_on_alias("primary", "open", "closed").unwrap();
    let on_replica = router.switch_on_alias("replica", "open", "closed").unwrap();
    let on_mode = router.switch_on_mode(Mode::ReadOnly, "open", "closed");
    let values = || (*on_alias.get(), *on_replica.get(), *on_mode.get());
    assert_eq!(values(), ("open", "open", "open"));
    router.reload(out).await.unwrap();
    assert_eq!(values(), ("closed", "open", "closed"));
    router.reload(well).await.unwrap();
    assert_eq!(values(), ("open", "open", "open"));
    router.shutdown().await;
    assert_eq!(values(), ("closed", "closed", "closed"));
    assert!(router.switch_on_alias("primary", 1, 2).is_err());
}

#[tokio::test]
async fn a_switch_on_a_mode_flips_there_and_at_whatever_is_worse() {
    let config = without_primary(nobody().await, full_server().await).build().unwrap();
    let router = Router::start_with(config, |spec| Ok(FakePool::new(spec.max_size))).await.unwrap();
    let flips =
        [Mode::Degraded, Mode::ReadOnly, Mode::Down].map(|from| router.switch_on_mode(from, (), ()).is_flipped());
    assert_eq!((router.mode(), flips), (Mode::ReadOnly, [true, true, false]));
}
