//! What of the calls that were made outlives a reload? In virtual time, as the reads.

use std::time::Duration;

use super::{
    super::{Router, fake::FakePool, line::Line},
    reads::{MS, config, router},
};
use crate::{
    config::{CallSettings, Config, ConfigBuilder, Hedge, Role},
    health::Need,
    policy::Fault,
};

const SECOND: Duration = Duration::from_secs(1);

impl Router<FakePool> {
    /// The line of the replica's alias, as it is now.
    fn replica(&self) -> std::sync::Arc<Line<FakePool>> {
        self.inner.line("replica").unwrap()
    }

    fn fail_calls(&self, count: usize) {
        let line = self.replica();
        (0..count).for_each(|_| line.route.own()[0].server.record_call(Some(Fault::Closed), SECOND));
    }

    /// Whether requests turn from the replica, once that has been looked at again.
    async fn is_behind_soon(&self) -> bool {
        tokio::time::sleep(SECOND * 11 / 10).await;
        self.is_behind()
    }

    fn is_behind(&self) -> bool {
        self.replica().route.own()[0].server.cell.belief().is_behind(Need::Reads)
    }

    async fn reload_to(&self, config: ConfigBuilder) {
        self.reload(config.build().unwrap()).await.unwrap();
    }
}

#[tokio::test(start_paused = true)]
async fn an_open_breaker_stays_open_across_a_reload_and_that_of_a_server_at_another_address_is_forgotten() {
    let router = router(CallSettings::default()).await;
    assert!(!router.is_behind_soon().await);
    router.fail_calls(30);
    assert!(router.is_behind_soon().await);
    router.reload_to(config(CallSettings::default())).await;
    assert!(router.is_behind(), "no read goes there first");
    let url = |host: &str| format!("postgres://app@{host}/app?sslmode=disable");
    let moved = Config::builder().server("primary", Role::Primary, url("db1"));
    router.reload_to(moved.server("replica", Role::Replica, url("db3"))).await;
    assert!(!router.is_behind_soon().await);
}

#[tokio::test(start_paused = true)]
async fn calls_on_either_side_of_a_reload_open_a_breaker_together() {
    let router = router(CallSettings::default()).await;
    assert!(!router.is_behind_soon().await);
    let before = router.replica();
    router.fail_calls(10);
    assert!(!router.is_behind_soon().await);
    router.reload_to(config(CallSettings::default())).await;
    router.fail_calls(9);
    assert!(!router.is_behind_soon().await);
    // A call that was made before the reload ends after it.
    before.route.own()[0].server.record_call(Some(Fault::Closed), SECOND);
    assert!(router.is_behind_soon().await);
}

#[tokio::test(start_paused = true)]
async fn an_alias_keeps_what_is_left_of_its_retries_across_a_reload_and_begins_anew_where_their_share_is_changed() {
    let router = router(CallSettings::default()).await;
    let left = |router: &Router<FakePool>| (0..10).filter(|_| router.replica().budget.withdraw()).count();
    assert!(router.replica().budget.withdraw());
    router.reload_to(config(CallSettings::default())).await;
    assert_eq!(left(&router), 3, "of a reserve of four");
    router.reload_to(config(CallSettings { retry_budget: 40, ..CallSettings::default() })).await;
    assert_eq!(left(&router), 4);
}

#[tokio::test(start_paused = true)]
async fn what_was_told_before_a_reload_is_not_told_again_after_it() {
    let router = router(CallSettings::default()).await;
    let mut events = router.events();
    for _ in 0..3 {
        router.reload_to(config(CallSettings::default())).await;
        tokio::time::sleep(SECOND).await;
    }
    router.fail_calls(30);
    assert!(router.is_behind_soon().await);
    router.reload_to(config(CallSettings::default())).await;
    router.shutdown().await;
    let mut told = Vec::new();
    while let Some(event) = events.next().await {
        told.push(event.kind.name());
    }
    assert_eq!(told, ["breaker_opened", "mode_changed"], "that pings say nothing was told at the start");
}

#[tokio::test(start_paused = true)]
async fn how_long_reads_take_is_known_across_a_reload_unless_their_server_is_another() {
    let calls = || CallSettings { hedge_after: Hedge::P95, ..CallSettings::default() };
    let router = router(calls()).await;
    let before = router.replica();
    (0..63).for_each(|_| before.patience.answered(10 * MS));
    assert_eq!(before.patience.lasts(), None);
    router.reload_to(config(calls())).await;
    // A read that began before the reload is answered after it.
    before.patience.answered(10 * MS);
    let known = router.replica().patience.lasts().expect("64 reads are enough");
    assert!((10 * MS..12 * MS).contains(&known), "{known:?}");
    router.reload_to(config(CallSettings { hedge_after: Hedge::After(SECOND), ..calls() })).await;
    assert_eq!(router.replica().patience.lasts(), Some(SECOND));
    router.reload_to(config(calls())).await;
    assert_eq!(router.replica().patience.lasts(), Some(known));
    let url = |host: &str| format!("postgres://app@{host}/app?sslmode=disable");
    let moved = Config::builder().calls(calls()).server("primary", Role::Primary, url("db1"));
    router.reload_to(moved.server("replica", Role::Replica, url("db3"))).await;
    assert_eq!(router.replica().patience.lasts(), None);
}
