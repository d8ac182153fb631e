//! What do many clients do to one server? A hundred routers find it back, and ten times the reads come to a primary whose replica is
//! out.
//!
//! `cargo bench --bench load --all-features -- return 5` runs one part, so many times over.

mod support;

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use pgdetour::{
    Alias, Config, Router,
    config::{Pings, PoolSettings, Role},
    pool::DeadpoolPostgres,
    testkit::{Cluster, Stop},
};
use tokio::{
    task::JoinSet,
    time::{interval, sleep},
};

use support::{Fallible, Judged, Row, Spread, Unit, lines::Lines, now, progress};

const MS: Duration = Duration::from_millis(1);
const SECOND: Duration = Duration::from_secs(1);

/// As many processes as share a server: here each is a router of its own, with a monitor of its own.
const ROUTERS: usize = 100;

/// A hundred routers lose their primary, and each takes a connection as soon as it can again.
async fn come_back(repeats: Option<usize>) -> Fallible<Vec<Row>> {
    let mut rows = Vec::new();
    for (frequency, repeats, said) in [
        (SECOND, repeats.unwrap_or(5), "`outage_ping_frequency` 1 s"),
        (Pings::default().outage_ping_frequency, 1, "`outage_ping_frequency` 30 s, the default"),
    ] {
        let mut crowding = Spread::default();
        for number in 1..=repeats {
            let mut firsts = first_connects(frequency).await?;
            firsts.sort();
            let within = |from: &Instant| firsts.iter().filter(|at| (*from..*from + 100 * MS).contains(*at)).count();
            let most = firsts.iter().map(within).max().unwrap_or(0);
            let all = firsts[firsts.len() - 1] - firsts[0];
            progress(format_args!(
                "  {number}/{repeats}: {most} of {} within 100 ms, all within {all:.1?}",
                firsts.len()
            ));
            crowding.add(most as f64 / firsts.len() as f64);
        }
        rows.push(Row {
            measure: format!("{ROUTERS} routers, primary restarted, {said}: share of first connects in any 100 ms"),
            unit: Unit::Ratio,
            judged: Judged::WorstAtMost,
            must: 0.25,
            aim: 0.15,
            spread: crowding,
        });
    }
    Ok(rows)
}

/// When each router had its first connection after the restart.
async fn first_connects(outage_ping_frequency: Duration) -> Fallible<Vec<Instant>> {
    let cluster = Cluster::builder().max_connections(ROUTERS as u32 * 3).start().await?;
    let (server, mut routers, mut clients) = (cluster.primary(), Vec::new(), JoinSet::new());
    let pings = Pings { outage_ping_frequency, ..Pings::default() };
    for _ in 0..ROUTERS {
        let config = Config::builder().pings(pings.clone()).pool(PoolSettings::of_size(4));
        let router: Router = Router::start(config.server("primary", Role::Primary, server.url()).build()?).await?;
        let primary = router.alias("primary")?;
        // In use when it happens.
        drop(primary.get().await?);
        routers.push((router, primary));
    }
    server.stop(Stop::Fast).await?;
    let start = server.start();
    for (_, primary) in &routers {
        let primary = primary.clone();
        clients.spawn(async move {
            loop {
                match primary.get().await {
                    Ok(client) if client.simple_query("SELECT 1").await.is_ok() => return now(),
                    Ok(_) | Err(_) => sleep(5 * MS).await,
                }
            }
        });
    }
    start.await?;
    let firsts = clients.join_all().await;
    for (router, _) in routers {
        router.shutdown().await;
    }
    Ok(firsts)
}

/// Reads in a second while the replica serves them; ten times as many come while it is out.
const READS: u32 = 50;

/// The primary's own writes with the replica up, and with the replica out and ten times the reads detoured, in turns.
async fn storm(lines: &mut Lines, repeats: Option<usize>) -> Fallible<Vec<Row>> {
    let cluster = Cluster::start(1).await?;
    let builder = Config::builder().pings(Pings { outage_ping_frequency: SECOND / 4, ..Pings::brisk() });
    let builder = builder.server("primary", Role::Primary, cluster.primary().url());
    let config = builder.server("replica", Role::Replica, cluster.replica(0).url()).build()?;
    let router: Router = Router::start(config).await?;
    let (primary, replica) = (router.alias("primary")?, router.alias("replica")?);
    cluster.primary().execute("CREATE TABLE counts AS SELECT n, 0 AS count FROM generate_series(1, 100) AS n").await?;
    let mut kept = Spread::default();
    let repeats = repeats.unwrap_or(10);
    for number in 1..=repeats {
        let before = writes(&primary, &replica, READS).await?;
        cluster.replica(0).kill().await?;
        lines.next("outage_opened").await?;
        let during = writes(&primary, &replica, 10 * READS).await?;
        cluster.replica(0).start().await?;
        lines.next("outage_closed").await?;
        progress(format_args!("  {number}/{repeats}: {before:.0} writes/s, and {during:.0} in the outage"));
        kept.add(during / before);
    }
    router.shutdown().await;
    Ok(vec![Row {
        measure: "all replicas out, 10 × the reads: the primary's own writes over those before".to_owned(),
        unit: Unit::Ratio,
        judged: Judged::MedianAtLeast,
        must: 0.9,
        aim: 0.97,
        spread: kept,
    }])
}

/// How many writes a second four writers make, beside so many reads of 5 ms each.
async fn writes(primary: &Alias<DeadpoolPostgres>, replica: &Alias<DeadpoolPostgres>, reads: u32) -> Fallible<f64> {
    let (done, stop, begun) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicBool::new(false)), now());
    let mut tasks = JoinSet::new();
    for writer in 1..=4 {
        let (primary, done, stop) = (primary.clone(), Arc::clone(&done), Arc::clone(&stop));
        tasks.spawn(async move {
            let update = format!("UPDATE counts SET count = count + 1 WHERE n = {writer}");
            while !stop.load(Ordering::Relaxed) {
                let written = async { primary.get().await.ok()?.simple_query(&update).await.ok() }.await;
                done.fetch_add(u64::from(written.is_some()), Ordering::Relaxed);
            }
        });
    }
    let mut ticks = interval(SECOND / reads);
    while begun.elapsed() < 2 * SECOND {
        ticks.tick().await;
        let replica = replica.clone();
        tasks.spawn(async move {
            if let Ok(client) = replica.get().await {
                // What becomes of the read is its caller's affair.
                let _ = client.simple_query("SELECT pg_sleep(0.005)").await;
            }
        });
    }
    let (written, took) = (done.load(Ordering::Relaxed), begun.elapsed());
    stop.store(true, Ordering::Relaxed);
    tasks.join_all().await;
    Ok(written as f64 / took.as_secs_f64())
}

async fn measure() -> Fallible<Vec<Row>> {
    let arguments: Vec<String> = std::env::args().skip(1).filter(|argument| !argument.starts_with('-')).collect();
    let repeats = arguments.iter().find_map(|argument| argument.parse().ok());
    let named: Vec<&String> = arguments.iter().filter(|argument| argument.parse::<usize>().is_err()).collect();
    let wanted = |part: &str| named.is_empty() || named.iter().any(|name| *name == part);
    let mut lines = Lines::listen();
    let mut rows = Vec::new();
    if wanted("return") {
        progress("return");
        rows.extend(come_back(repeats).await?);
    }
    if wanted("storm") {
        progress("storm");
        lines.drain();
        rows.extend(storm(&mut lines, repeats).await?);
    }
    let cluster = Cluster::start(0).await?;
    support::print(&rows, &support::version(cluster.primary()).await?);
    Ok(rows)
}

fn main() -> Fallible<()> {
    if !support::is_wanted() {
        return Ok(());
    }
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    runtime.block_on(async { tokio::spawn(measure()).await })??;
    Ok(())
}
