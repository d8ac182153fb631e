//! Ports that are closed, silent or rude, ways that lead nowhere, and routers that start while everything is down (F18-F23, F39).

use std::{
    error::Error,
    net::TcpListener,
    sync::atomic::{AtomicUsize, Ordering},
};

use pgdetour::{
    Config, Router,
    config::{Pings, Role},
    health::State,
    policy::Outcome,
    pool::DeadpoolPostgres,
    testkit::{Fault, Proxy},
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt, copy_bidirectional},
    net::TcpStream,
    sync::watch,
};

use crate::harness::{MS, Pair, Story, Tested, belief, quick, soon, until};

/// A router whose way to the replica has this fault from the start.
async fn behind(pair: &Pair, fault: Fault) -> Result<(Proxy, Router), Box<dyn Error>> {
    let proxy = Proxy::start((pair.replica().host(), pair.replica().port())).await?;
    proxy.set(fault).await?;
    let way = pair.replica().url_at("127.0.0.1", proxy.addr().port());
    let router = Router::<DeadpoolPostgres>::start(pair.config_to(&way).pings(impatient()).build()?).await?;
    Ok((proxy, router))
}

fn impatient() -> Pings {
    Pings { ping_timeout: 300 * MS, outage_ping_timeout: 300 * MS, ..quick() }
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
async fn a_way_on_which_connects_vanish_is_an_outage_until_they_arrive() -> Tested {
    is_an_outage_from_the_start(Fault::Ignore, &["no answer within"]).await
}

/// Sessions go on, new ones go to the primary, and it is no outage.
async fn stops_admission(fault: Fault) -> Tested {
    let pair = Pair::start().await?;
    let (proxy, router) = behind(&pair, Fault::None).await?;
    let (replica, mut story) = (router.alias("replica")?, Story::of(&router));
    let held = replica.get().await?;
    proxy.set(fault).await?;
    story.until("replica", "admission_stopped").await?;
    held.query_one("SELECT 1", &[]).await?;
    assert!(soon("a connection", replica.get()).await??.is_detour(), "none is idle and none can be made");
    proxy.set(Fault::None).await?;
    story.until("replica", "admission_resumed").await?;
    assert!(!soon("a connection", replica.get()).await??.is_detour());
    assert_eq!(story.so_far("replica").await, ["admission_stopped", "admission_resumed"]);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_port_that_closes_under_living_sessions_stops_admission_and_is_no_outage() -> Tested {
    stops_admission(Fault::Refuse).await
}

#[tokio::test(flavor = "multi_thread")]
async fn connects_that_vanish_beside_living_sessions_stop_admission_and_are_no_outage() -> Tested {
    stops_admission(Fault::Ignore).await
}

/// A port where somebody else answers, until it is told to be the replica.
struct Impostor {
    port: u16,
    ends: watch::Sender<bool>,
}

impl Impostor {
    async fn instead_of(pair: &Pair, says: &'static [u8]) -> Result<Self, Box<dyn Error>> {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await?;
        let (port, (ends, ended), replica) =
            (listener.local_addr()?.port(), watch::channel(false), pair.replica().port());
        tokio::spawn(async move {
            while let Ok((mut client, _)) = listener.accept().await {
                let ended = *ended.borrow();
                tokio::spawn(async move {
                    if ended {
                        let mut server = TcpStream::connect(("127.0.0.1", replica)).await?;
                        return copy_bidirectional(&mut client, &mut server).await.map(drop);
                    }
                    let _login = client.read(&mut [0; 1024]).await?;
                    client.write_all(says).await
                });
            }
        });
        Ok(Self { port, ends })
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_port_where_something_else_answers_is_an_outage_until_postgresql_does() -> Tested {
    let pair = Pair::start().await?;
    // A web server, a server that is ready before anybody has logged in, and lengths that are too short, negative or 2 GiB.
    let answers: [(&[u8], &str); 5] = [
        (b"HTTP/1.1 400 Bad Request\r\nConnection: close\r\n\r\n", "bytes remaining on stream"),
        (b"Z\0\0\0\x05I", "unexpected message from server"),
        (b"R\0\0\0\x01\0\0\0\0", "invalid message length"),
        (b"R\xff\xff\xff\xff\0\0\0\0", "invalid message length"),
        (b"R\x7f\xff\xff\xff\0\0\0\0", "bytes remaining on stream"),
    ];
    for (says, cause) in answers {
        let impostor = Impostor::instead_of(&pair, says).await?;
        let way = pair.replica().url_at("127.0.0.1", impostor.port);
        let router: Router = Router::start(pair.config_to(&way).pings(impatient()).build()?).await?;
        let (replica, mut story) = (router.alias("replica")?, Story::of(&router));
        assert_eq!(belief(&router, "replica").state(), State::Down);
        let plan = replica.explain().to_string();
        assert!(plan.contains("replica -> primary (detour)") && plan.contains(cause), "{plan}");
        assert!(soon("a connection", replica.get()).await??.is_detour());
        impostor.ends.send_replace(true);
        story.until("replica", "outage_closed").await?;
        assert!(!soon("a connection", replica.get()).await??.is_detour());
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn an_address_without_a_route_is_an_outage_that_costs_no_read_any_time() -> Tested {
    let pair = Pair::start().await?;
    // TCP has no route to a group of hosts (RFC 5771), whatever network this machine is in.
    let config = pair.config_to(&pair.replica().url_at("224.0.0.1", 5432));
    let router: Router = soon("the start", Router::start(config.build()?)).await??;
    let replica = router.alias("replica")?;
    let plan = replica.explain().to_string();
    assert!(plan.contains("replica -> primary (detour)") && plan.contains("unreachable"), "{plan}");
    let read = replica.read(|lease| async move {
        lease.query_one("SELECT 1", &[]).await?;
        Ok::<_, tokio_postgres::Error>(lease.is_detour())
    });
    assert!(tokio::time::timeout(1000 * MS, read).await??);
    Ok(())
}

/// Whatever keeps a write from its server, its work is never begun and the error says that nothing was sent.
#[tokio::test(flavor = "multi_thread")]
async fn a_write_to_a_server_that_no_way_leads_to_is_not_sent() -> Tested {
    let pair = Pair::start().await?;
    let proxy = Proxy::start((pair.primary().host(), pair.primary().port())).await?;
    let (to_proxy, nowhere) =
        (pair.primary().url_at("127.0.0.1", proxy.addr().port()), pair.primary().url_at("224.0.0.1", 5432));
    let ways = [
        (Fault::Refuse, &to_proxy),
        (Fault::Ignore, &to_proxy),
        (Fault::Hang, &to_proxy),
        (Fault::AcceptClose, &to_proxy),
        (Fault::Reset, &to_proxy),
        (Fault::Garble, &to_proxy),
        (Fault::None, &nowhere),
    ];
    for (fault, way) in ways {
        proxy.set(fault).await?;
        let config = Config::builder().pings(impatient()).server("primary", Role::Primary, way);
        let router: Router = soon("the start", Router::start(config.build()?)).await??;
        let (primary, runs) = (router.alias("primary")?, AtomicUsize::new(0));
        let write = primary.write(|transaction| {
            runs.fetch_add(1, Ordering::Relaxed);
            async move { transaction.batch_execute("CREATE TABLE written ()").await }
        });
        let error = soon("a refusal", write).await?.expect_err("nobody is there");
        assert_eq!((error.outcome(), runs.into_inner()), (Outcome::NotSent, 0), "{fault:?}: {error}");
        assert!(error.is_unavailable() && error.is_safe_to_retry(), "{fault:?}: {error}");
    }
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
