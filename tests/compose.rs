//! Does the pair of docker-compose.yml keep its promises, with pgdetour and without? Runs wherever a Docker engine answers.
//!
//! One test for all claims that need it: they share one pair, which takes longer to start than most of them to check.

#[path = "compose/pair.rs"]
mod pair;
#[path = "compose/reads.rs"]
mod reads;

use std::time::Duration;

use pgdetour::{
    Router,
    config::Config,
    observe::{EventKind, Events},
    plan::Reason,
};
use tokio::time::timeout;

use self::{
    pair::{Pair, until},
    reads::Reads,
};

const EXAMPLE: &str = include_str!("../examples/compose.toml");

#[test]
fn the_example_is_a_valid_configuration_for_the_ports_and_password_of_the_compose_file() {
    let compose = include_str!("../docker-compose.yml");
    let config = Config::from_toml(EXAMPLE).expect("examples/compose.toml is valid");
    for (alias, variable) in [("primary", "PRIMARY_PORT"), ("replica", "REPLICA_PORT")] {
        let address = address(&config, alias);
        let port = address.strip_prefix("127.0.0.1:").expect(&address);
        assert!(compose.contains(&format!("127.0.0.1:${{{variable}:-{port}}}:5432")), "{alias} is not at {address}");
    }
    assert!(compose.contains("DEMO_PASSWORD:-public-demo-password}") && EXAMPLE.contains(":public-demo-password@"));
}

#[test]
fn the_environment_moves_the_example_to_other_ports() {
    let config = configuration(1, 2);
    assert_eq!(address(&config, "primary"), "127.0.0.1:1");
    assert_eq!(address(&config, "replica"), "127.0.0.1:2");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_compose_pair_keeps_its_promises() {
    let claims = async {
        let pair = match Pair::start().await {
            Ok(pair) => pair,
            Err(why) => return eprintln!("skipped, no pair can run here: {why}"),
        };
        let router: Router =
            Router::start(configuration(pair.primary_port, pair.replica_port)).await.expect("it starts");
        for fault in [Fault::Killed, Fault::Stopped, Fault::Paused, Fault::Disconnected, Fault::Restarted] {
            reads_go_on_at_the_primary_and_come_back(&pair, &router, fault).await;
        }
        router.shutdown().await;
        a_promoted_replica_copies_the_primary_again_when_it_is_restarted(&pair).await;
        a_replica_copies_the_primary_again_when_that_is_another_system(&pair).await;
    };
    tokio::select! {
        () = claims => {}
        // Whoever is interrupted leaves no containers behind either.
        _ = tokio::signal::ctrl_c() => panic!("interrupted"),
    }
}

/// What becomes of the replica's container.
#[derive(Debug, Clone, Copy)]
enum Fault {
    Killed,
    Stopped,
    Paused,
    Disconnected,
    Restarted,
}

impl Fault {
    async fn inject(self, pair: &Pair) {
        match self {
            Self::Killed => pair.compose(&["kill", "replica"]).await,
            Self::Stopped => pair.compose(&["stop", "replica"]).await,
            Self::Paused => pair.compose(&["pause", "replica"]).await,
            Self::Disconnected => pair.disconnect_replica().await,
            Self::Restarted => pair.compose(&["restart", "replica"]).await,
        }
    }

    async fn heal(self, pair: &Pair) {
        match self {
            Self::Killed | Self::Stopped => pair.compose(&["start", "replica"]).await,
            Self::Paused => pair.compose(&["unpause", "replica"]).await,
            Self::Disconnected => pair.connect_replica().await,
            Self::Restarted => {}
        }
    }
}

async fn reads_go_on_at_the_primary_and_come_back(pair: &Pair, router: &Router, fault: Fault) {
    let mut events = router.events();
    let mut reads = Reads::through(router.alias("replica").expect("the example has it"));
    reads.on_the_replica().await;
    let before = reads.seen().detoured;

    fault.inject(pair).await;
    reads.detoured_since(before, 20).await;
    if !matches!(fault, Fault::Restarted) {
        until("the router explains the detour", || async { explains_the_detour(router) }).await;
    }
    fault.heal(pair).await;
    reads.on_the_replica().await;

    assert_eq!(reads.seen().failed, Vec::<String>::new(), "reads that failed twice while the replica was {fault:?}");
    assert_eq!(outage(&mut events).await, ["outage_opened", "outage_closed"], "of a replica that was {fault:?}");
}

/// Whether reads go to the primary because the replica is known to be down.
fn explains_the_detour(router: &Router) -> bool {
    let plan = router.explain("replica").expect("the example has it");
    let [replica, primary] = plan.steps.as_slice() else { panic!("a replica and its failover: {plan}") };
    matches!(replica.reason, Reason::Down { .. }) && !replica.detour && primary.reason.is_usable() && primary.detour
}

/// What was told of the replica's one outage, from its opening to its closing.
async fn outage(events: &mut Events) -> Vec<&'static str> {
    let mut told = Vec::new();
    while told.last() != Some(&"outage_closed") {
        let event =
            timeout(Duration::from_secs(10), events.next()).await.expect("the outage closes").expect("the router runs");
        if event.is_about("replica") && !matches!(event.kind, EventKind::OutageOngoing { .. }) {
            told.push(event.kind.name());
        }
    }
    told
}

async fn a_promoted_replica_copies_the_primary_again_when_it_is_restarted(pair: &Pair) {
    pair.in_replica("SELECT pg_promote()").await;
    until("the replica is promoted", || async { Pair::is_replica(pair.replica_port).await == Some(false) }).await;
    pair.compose(&["restart", "replica"]).await;
    until("the replica is one again", || async { Pair::is_replica(pair.replica_port).await == Some(true) }).await;
}

async fn a_replica_copies_the_primary_again_when_that_is_another_system(pair: &Pair) {
    let before = system(pair.primary_port).await;
    pair.compose(&["rm", "--stop", "--force", "primary"]).await;
    pair.remove_primary_data().await;
    pair.compose(&["up", "-d", "--no-deps", "primary"]).await;
    until("the primary is another system", || async { ![None, before].contains(&system(pair.primary_port).await) })
        .await;
    let now = system(pair.primary_port).await;
    until("the replica is a copy of that", || async { system(pair.replica_port).await == now }).await;
}

/// The system identifier of the server at this port, if it answers.
async fn system(port: u16) -> Option<i64> {
    let client = Pair::session(port).await.ok()?;
    let row = client.query_one("SELECT system_identifier FROM pg_control_system()", &[]).await.ok()?;
    Some(row.get(0))
}

/// The example, moved to other ports in the way that it tells.
fn configuration(primary_port: u16, replica_port: u16) -> Config {
    let url = |port| format!("postgres://app:public-demo-password@127.0.0.1:{port}/app");
    let moved =
        [("PGDETOUR_ALIAS__PRIMARY__URL", url(primary_port)), ("PGDETOUR_ALIAS__REPLICA__URL", url(replica_port))];
    Config::from_toml_with(EXAMPLE, moved).expect("the example is valid on other ports")
}

fn address(config: &Config, alias: &str) -> String {
    match &config.alias(alias).expect("the example has it").kind {
        pgdetour::config::AliasKind::Server(server) => server.target.address(),
        group => panic!("{alias} is a server, not {group:?}"),
    }
}
