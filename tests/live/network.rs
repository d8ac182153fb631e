//! Ports that are closed, silent or rude, and routers that start while everything is down (F20-F22, F39).

use std::{error::Error, net::TcpListener};

use pgdetour::{
    Config, Router,
    config::Role,
    health::State,
    pool::DeadpoolPostgres,
    testkit::{Fault, Proxy},
};

use crate::harness::{MS, Pair, Story, Tested, quick, soon, until};

/// A router whose way to the replica has this fault from the start.
async fn behind(pair: &Pair, fault: Fault) -> Result<(Proxy, Router), Box<dyn Error>> {
    let proxy = Proxy::start((pair.replica().host(), pair.replica().port())).await?;
    proxy.set(fault).await?;
    let way = pair.replica().url_at("127.0.0.1", proxy.addr().port());
    let pings = pgdetour::config::Pings { ping_timeout: 300 * MS, outage_ping_timeout: 300 * MS, ..quick() };
    let router = Router::<DeadpoolPostgres>::start(pair.config_to(&way).pings(pings).build()?).await?;
    Ok((proxy, router))
}

/// The router starts all the same, reads go to the primary, the plan says why, and when the fault ends they come back.
async fn is_an_outage_from_the_start(fault: Fault, words: &[&str]) -> Tested {
    let pair = Pair::start().await?;
    let (proxy, router) = soon("the start", behind(&pair, fault)).await??;
    let (replica, mut story) = (router.alias("replica")?, Story::of(&router));
    let plan = replica.explain().to_string();
    assert!(plan.contains("replica -> primary (detour)"), "{plan}");
    assert!(words.iter().any(|word| plan.contains(word)), "{plan}");
    assert!(soon("a connection", replica.get()).await??.is_detour());
    proxy.set(Fault::None).await?;
    story.until("replica", "outage_closed").await?;
    let lease = soon("a connection", replica.get()).await??;
    assert!(!lease.is_detour());
    assert!(lease.query_one("SELECT pg_is_in_recovery()", &[]).await?.get::<_, bool>(0));
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_closed_port_is_an_outage_until_it_opens() -> Tested {
    is_an_outage_from_the_start(Fault::Refuse, &["Connection refused"]).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_port_that_accepts_and_never_answers_is_an_outage_until_it_does() -> Tested {
    is_an_outage_from_the_start(Fault::Hang, &["no answer within"]).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_port_that_accepts_and_closes_is_an_outage_until_it_serves() -> Tested {
    is_an_outage_from_the_start(Fault::AcceptClose, &["connection closed", "Connection reset"]).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_port_that_closes_under_living_sessions_stops_admission_and_is_no_outage() -> Tested {
    let pair = Pair::start().await?;
    let (proxy, router) = behind(&pair, Fault::None).await?;
    let (replica, mut story) = (router.alias("replica")?, Story::of(&router));
    let held = replica.get().await?;
    proxy.set(Fault::Refuse).await?;
    story.until("replica", "admission_stopped").await?;
    held.query_one("SELECT 1", &[]).await?;
    proxy.set(Fault::None).await?;
    story.until("replica", "admission_resumed").await?;
    assert_eq!(story.so_far("replica").await, ["admission_stopped", "admission_resumed"]);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_port_that_closes_with_its_sessions_is_an_outage() -> Tested {
    let pair = Pair::start().await?;
    let (proxy, router) = behind(&pair, Fault::None).await?;
    let (replica, mut story) = (router.alias("replica")?, Story::of(&router));
    let held = replica.get().await?;
    proxy.set(Fault::Reset).await?;
    story.until("replica", "outage_opened").await?;
    assert!(held.query_one("SELECT 1", &[]).await.is_err());
    assert!(soon("a connection", replica.get()).await??.is_detour());
    proxy.set(Fault::None).await?;
    story.until("replica", "outage_closed").await?;
    assert!(!soon("a connection", replica.get()).await??.is_detour());
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_router_starts_while_every_server_is_down_and_recovers_without_a_restart() -> Tested {
    let pair = Pair::start().await?;
    pair.primary().kill().await?;
    pair.replica().kill().await?;
    let router = soon("the start", pair.router::<DeadpoolPostgres>()).await??;
    let mut story = Story::of(&router);
    for alias in ["primary", "replica"] {
        let error = soon("a refusal", router.alias(alias)?.get()).await?.unwrap_err();
        assert!(error.is_unavailable() && error.plan().is_some_and(|plan| plan.target().is_none()));
        let told = error.to_string();
        let line = |name: &str| told.lines().any(|line| line.contains(name) && line.contains("Connection refused"));
        assert!(line("primary (") && (alias == "primary" || line("replica (")), "{told}");
    }
    pair.primary().start().await?;
    story.until("primary", "outage_closed").await?;
    assert!(soon("a connection", router.alias("replica")?.get()).await??.is_detour());
    pair.replica().start().await?;
    story.until("replica", "outage_closed").await?;
    assert!(!soon("a connection", router.alias("replica")?.get()).await??.is_detour());
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_group_goes_on_with_the_member_that_is_left() -> Tested {
    let pair = Pair::start().await?;
    let nobody = TcpListener::bind("127.0.0.1:0")?.local_addr()?.port();
    let config = Config::builder()
        .pings(quick())
        .server("primary", Role::Primary, pair.primary().url())
        .server("near", Role::Replica, pair.replica().url())
        .server("far", Role::Replica, pair.replica().url_at("127.0.0.1", nobody))
        .group("reads", ["near", "far"], pgdetour::config::Balance::RoundRobin);
    let router: Router = Router::start(config.build()?).await?;
    until(&router, "far", State::Down).await?;
    for _ in 0..6 {
        let lease = soon("a connection", router.alias("reads")?.get()).await??;
        assert_eq!((lease.server().as_str(), lease.is_detour()), ("near", false));
    }
    Ok(())
}
