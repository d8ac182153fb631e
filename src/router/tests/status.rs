//! What is told of a router that is at work? In virtual time, as the reads.

use super::reads::{config, router};
use crate::{
    config::CallSettings,
    health::{Belief, Generation, Need, State},
    observe::status::VERSION,
    plan::Mode,
};

#[tokio::test(start_paused = true)]
async fn a_status_tells_where_requests_go_and_what_they_hold() {
    let router = router(CallSettings::default()).await;
    let (primary, replica) = (router.alias("primary").unwrap(), router.alias("replica").unwrap());
    let _lent = (primary.get().await.unwrap(), replica.get().await.unwrap());
    let status = router.status();
    assert_eq!((status.version, status.mode, status.reads, status.writes), (VERSION, Mode::Normal, true, true));
    assert_eq!(status.process.pid, std::process::id());
    let alias = status.alias("replica").unwrap();
    assert_eq!((alias.target.as_deref(), alias.detour, alias.needs), (Some("replica"), false, Need::Reads));
    let route: Vec<_> = alias.route.iter().map(|step| (step.server.as_str(), step.detour, &*step.reason)).collect();
    assert_eq!(route, [("replica", false, "up"), ("primary", true, "up")]);
    assert_eq!(alias.retries_left, Some(4.0));
    let server = status.server("primary").unwrap();
    assert_eq!((server.pool.max, server.pool.size, server.pool.lent), (2, 1, 1));
    assert_eq!((server.detours.len(), &*server.detours[0].of, server.detours[0].usable), (1, "replica", 2));
    assert_eq!((server.state, server.observed, server.ping_ms), (State::Up, None, None), "no ping was answered");
}

#[tokio::test(start_paused = true)]
async fn a_status_is_read_back_as_it_was_written_and_holds_no_password() {
    let router = router(CallSettings::default()).await;
    let secret = "correct horse";
    let url = |host: &str| format!("postgres://app:correct%20horse@{host}/app?sslmode=disable");
    let with = config(CallSettings::default()).server("extra", crate::config::Role::Replica, url("db3"));
    router.reload(with.build().unwrap()).await.unwrap();
    let status = router.status();
    let json = serde_json::to_string(&status).unwrap();
    assert_eq!(serde_json::from_str::<crate::observe::status::Status>(&json).unwrap(), status);
    let timeline = serde_json::to_string(&router.timeline()).unwrap();
    assert!(!json.contains(secret) && !json.contains("correct%20horse") && !timeline.contains(secret), "{json}");
}

#[tokio::test(start_paused = true)]
async fn after_a_shutdown_nothing_is_served() {
    let router = router(CallSettings::default()).await;
    router.shutdown().await;
    let status = router.status();
    assert_eq!((status.mode, status.reads, status.writes), (Mode::Down, false, false));
}

#[tokio::test(start_paused = true)]
async fn the_lag_of_a_replica_is_what_it_has_yet_to_replay_of_its_own_primary() {
    use crate::{
        config::{AliasName, Role},
        health::{Facts, Lsn, SystemId, Tally, Timeline},
        plan::{Judge, Known},
    };
    let config = config(CallSettings::default()).build().unwrap();
    let known = |name: &str, role, position: &str, timeline| Known {
        name: AliasName::new(name).unwrap(),
        address: name.to_owned(),
        declared: role,
        belief: Belief::new(State::Up, Generation::default()),
        facts: Some(Facts {
            role,
            timeline: Some(Timeline(timeline)),
            system: Some(SystemId(1)),
            position: Lsn::parse(position),
        }),
        outage: None,
        breaker: None,
        held_until: None,
        drained: None,
        latency: None,
        base: Tally::default(),
        next_ping: crate::clock::now(),
    };
    let lag = |timeline| {
        let servers = vec![
            known("primary", Role::Primary, "0/3000100", 1),
            known("replica", Role::Replica, "0/3000000", timeline),
        ];
        let table = Judge::new(&config).judge(servers);
        table.entries().iter().map(|entry| table.lag_of(entry)).collect::<Vec<_>>()
    };
    assert_eq!(lag(1), [None, Some(256)]);
    assert_eq!(lag(2), [None, None], "positions of two histories do not compare");
}
