//! Servers that answer their pings and serve badly: reads turn from them and no outage is opened (F09, F24).

use pgdetour::{
    EventKind, Router,
    config::{BreakerSettings, CallSettings, Hedge, Pings},
    health::State,
    pool::DeadpoolPostgres,
    testkit::{Fault, Proxy},
};

use crate::{
    harness::{Load, MS, Pair, Story, Tested, belief, pid, quick, soon},
    session::signal,
};

#[tokio::test(flavor = "multi_thread")]
async fn reads_turn_from_a_server_half_a_second_away_without_an_outage_and_come_back_when_it_is_near() -> Tested {
    let pair = Pair::start().await?;
    let proxy = Proxy::start((pair.replica().host(), pair.replica().port())).await?;
    let way = pair.replica().url_at("127.0.0.1", proxy.addr().port());
    let breaker = BreakerSettings {
        breaker_slow_rate: 80,
        breaker_slow_after: 400 * MS,
        breaker_window: 1_000 * MS,
        breaker_min_calls: 4,
        ..BreakerSettings::default()
    };
    let pings = Pings { ping_timeout: 10_000 * MS, monitoring_ping_frequency: 10_000 * MS, ..quick() };
    let config = pair.config_to(&way).pings(pings).breaker_of("replica", breaker).build()?;
    let router = Router::<DeadpoolPostgres>::start(config).await?;
    let (replica, mut story) = (router.alias("replica")?, Story::of(&router));
    let mut load = Load::reading(&replica);
    load.until_at_home(20).await?;
    // Each way.
    proxy.set(Fault::Delay(250 * MS)).await?;
    let opened = story.until("replica", "breaker_opened").await?;
    let EventKind::BreakerOpened { cause, detour } = opened else { return Err("it is no other event".into()) };
    assert!(cause.to_string().contains("calls took 400ms or longer"), "{cause}");
    assert_eq!(detour.as_ref().map(|target| target.as_str()), Some("primary"));
    let plan = replica.explain().to_string();
    assert!(plan.contains("replica -> primary (detour)") && plan.contains("up, and behind all others"), "{plan}");
    load.until("reads elsewhere", |report| report.at_home == 0 && report.detoured > 100).await?;
    proxy.set(Fault::None).await?;
    story.until("replica", "breaker_closed").await?;
    load.end_at_home().await?;
    let told = story.so_far("replica").await;
    assert!(told.iter().all(|name| name.starts_with("breaker_")), "{told:?}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn reads_turn_from_a_server_that_loses_all_of_them_to_their_hedges() -> Tested {
    let pair = Pair::start().await?;
    // What loses is cut short long before it is slow by this.
    let breaker = BreakerSettings { breaker_slow_rate: 80, breaker_min_calls: 4, ..BreakerSettings::default() };
    let calls = CallSettings { hedge_after: Hedge::After(30 * MS), retry_budget: 100, ..CallSettings::default() };
    let router = Router::<DeadpoolPostgres>::start(pair.config().calls(calls).breaker(breaker).build()?).await?;
    let (replica, mut story) = (router.alias("replica")?, Story::of(&router));
    let sql = "SELECT pg_sleep(CASE WHEN pg_is_in_recovery() THEN 0.5 ELSE 0 END)::text";
    let reads = async {
        loop {
            if let Err(error) = replica.read(|lease| async move { lease.query_one(sql, &[]).await }).await {
                return error;
            }
        }
    };
    tokio::select! {
        error = reads => return Err(error.into()),
        opened = story.until("replica", "breaker_opened") => drop(opened?),
    }
    assert!(replica.get().await?.is_detour());
    soon("the end", router.shutdown()).await
}

#[tokio::test(flavor = "multi_thread")]
async fn one_backend_that_hangs_costs_its_callers_their_deadline_and_opens_no_outage() -> Tested {
    let pair = Pair::start().await?;
    let calls = CallSettings { call_timeout: 500 * MS, ..CallSettings::default() };
    let router = Router::<DeadpoolPostgres>::start(pair.config().calls(calls).build()?).await?;
    let (replica, mut story) = (router.alias("replica")?, Story::of(&router));
    let (lease, mut load) = (replica.get().await?, Load::reading(&replica));
    let hung = pid(&lease).await?;
    signal("STOP", hung);
    drop(lease);
    // Whoever gets that connection waits for its deadline, and the connection is given up.
    load.until("a read that hangs", |report| report.failed == 1).await?;
    load.until_more(400).await?;
    let report = load.end().await?;
    signal("CONT", hung);
    assert_eq!((report.failed, report.detoured), (1, 0), "{report:?}");
    assert_eq!(story.so_far("replica").await, [""; 0]);
    assert_eq!(belief(&router, "replica").state(), State::Up);
    soon("the end", router.shutdown()).await
}
