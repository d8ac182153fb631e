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

use support::{Fallible, Judged, Row, Spread, Unit, Wanted, lines::Lines, now, progress};

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

/// Ten times the 200 reads a second of the other benches. They take 5 ms each, so that the detour's eight connections are too few.
const STORM: u32 = 2000;

/// The primary's own writes without any read, and beside ten times the reads of a replica that is out, in turns. The replica is out
/// all the time: it would share the cores with the primary.
async fn storm(lines: &mut Lines, repeats: Option<usize>) -> Fallible<Vec<Row>> {
    let cluster = Cluster::start(1).await?;
    // Who finds no room is told so within 50 ms.
    let pool = PoolSettings { acquire_timeout: 50 * MS, ..PoolSettings::default() };
    let builder = Config::builder().pool(pool).server("primary", Role::Primary, cluster.primary().url());
    let config = builder.server("replica", Role::Replica, cluster.replica(0).url()).build()?;
    let router: Router = Router::start(config).await?;
    let (primary, replica) = (router.alias("primary")?, router.alias("replica")?);
    cluster.primary().execute("CREATE TABLE counts AS SELECT n, 0 AS count FROM generate_series(1, 100) AS n").await?;
    cluster.replica(0).kill().await?;
    lines.next("outage_opened").await?;
    let mut kept = Spread::default();
    let repeats = repeats.unwrap_or(10);
    for number in 1..=repeats {
        let (alone, _) = writes(&primary, &replica, 0).await?;
        let (beside, read) = writes(&primary, &replica, STORM).await?;
        progress(format_args!("  {number}/{repeats}: {alone:.0} writes/s, and {beside:.0} beside {read:.0} reads/s"));
        kept.add(beside / alone);
    }
    router.shutdown().await;
    Ok(vec![Row {
        measure: "all replicas out, 2000 reads/s of 5 ms: the primary's own writes of 1 ms over those without any read"
            .to_owned(),
        unit: Unit::Ratio,
        judged: Judged::MedianAtLeast,
        must: 0.9,
        aim: 0.97,
        spread: kept,
    }])
}

/// How many writes a second four writers make beside so many reads, and how many of those are answered.
async fn writes(
    primary: &Alias<DeadpoolPostgres>,
    replica: &Alias<DeadpoolPostgres>,
    reads: u32,
) -> Fallible<(f64, f64)> {
    let (written, read) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicU64::new(0)));
    let (stop, begun) = (Arc::new(AtomicBool::new(false)), now());
    let mut tasks = JoinSet::new();
    for writer in 1..=4 {
        let (primary, written, stop) = (primary.clone(), Arc::clone(&written), Arc::clone(&stop));
        tasks.spawn(async move {
            // The sleep is the disk, which the test kit's servers do not wait for: without any wait two cores measure who gets them.
            let update = format!("UPDATE counts SET count = count + 1 WHERE n = {writer}; SELECT pg_sleep(0.001)");
            while !stop.load(Ordering::Relaxed) {
                let done = async { primary.get().await.ok()?.simple_query(&update).await.ok() }.await;
                written.fetch_add(u64::from(done.is_some()), Ordering::Relaxed);
            }
        });
    }
    let mut ticks = interval(5 * MS);
    while begun.elapsed() < 2 * SECOND {
        ticks.tick().await;
        for _ in 0..reads / 200 {
            let (replica, read) = (replica.clone(), Arc::clone(&read));
            tasks.spawn(async move {
                let done = async { replica.get().await.ok()?.simple_query("SELECT pg_sleep(0.005)").await.ok() }.await;
                read.fetch_add(u64::from(done.is_some()), Ordering::Relaxed);
            });
        }
    }
    let (counted, took) = ([written, read].map(|count| count.load(Ordering::Relaxed)), begun.elapsed());
    stop.store(true, Ordering::Relaxed);
    tasks.join_all().await;
    let [written, read] = counted.map(|count| count as f64 / took.as_secs_f64());
    Ok((written, read))
}

async fn measure(wanted: Wanted) -> Fallible<Vec<Row>> {
    let (mut lines, mut rows) = (Lines::listen(), Vec::new());
    if wanted.has("return") {
        rows.extend(come_back(wanted.repeats).await?);
    }
    if wanted.has("storm") {
        lines.drain();
        rows.extend(storm(&mut lines, wanted.repeats).await?);
    }
    Ok(rows)
}

fn main() -> Fallible<()> {
    support::run(measure)
}
