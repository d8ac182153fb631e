//! Where do requests go while the breaker of their own server is open?

use super::*;

/// The alias of a replica whose breaker is open, with room for one request there and one elsewhere.
async fn replica_behind() -> Alias<FakePool> {
    let replica = url(full_server().await);
    let pool = PoolSettings { max_size: 1, detour_size: 1, acquire_timeout: SOON, ..PoolSettings::default() };
    let config = settings(full_server().await).server("replica", Role::Replica, replica).pool_of("replica", pool);
    let config = config.build().unwrap();
    let router = Router::start_with(config, |spec| Ok(FakePool::new(spec.max_size))).await.unwrap();
    let alias = router.alias("replica").unwrap();
    let server = &alias.line.route.own()[0].server;
    server.publish(server.cell.belief().behind());
    alias
}

#[tokio::test]
async fn the_one_request_that_is_let_through_on_trial_goes_to_the_server_and_all_others_elsewhere() {
    let alias = replica_behind().await;
    assert!(alias.get().await.unwrap().is_detour());
    alias.line.route.own()[0].server.cell.offer_trial();
    assert_eq!(alias.target().unwrap().as_str(), "primary", "to ask is no trial");
    let (one, other) = (alias.get().await.unwrap(), alias.get().await.unwrap());
    assert_eq!((one.is_detour(), other.is_detour()), (false, true));
}

#[tokio::test]
async fn with_no_connection_elsewhere_a_request_goes_to_a_server_whose_breaker_is_open() {
    let alias = replica_behind().await;
    let elsewhere = alias.get().await.unwrap();
    let spared = timeout(SOON / 2, alias.get()).await.expect("it does not wait for long").unwrap();
    assert_eq!((elsewhere.is_detour(), spared.is_detour()), (true, false));
    let full = timeout(SOON / 100, alias.get()).await;
    assert!(full.is_err(), "now it waits: {full:?}");
}

#[tokio::test]
async fn who_waits_in_line_at_a_server_that_goes_behind_the_others_is_served_elsewhere() {
    let alias = replica_behind().await;
    let server = &alias.line.route.own()[0].server;
    let closed = Belief::new(State::Up, server.cell.belief().generation());
    server.publish(closed);
    let _only = alias.get().await.unwrap();
    let waiting = waiting(alias.clone()).await;
    server.publish(closed.behind());
    let lease = timeout(SOON / 2, waiting).await.expect("there is room elsewhere").unwrap().unwrap();
    assert!(lease.is_detour());
}
