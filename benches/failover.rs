//! What does an application notice of an outage? Real servers are killed and frozen under a load of 200 reads a second.
//!
//! `cargo bench --bench failover --all-features -- kill 100` runs one part, so many times over.

mod support;

use std::{
    io,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use pgdetour::{
    Alias, Config, Router,
    config::{Pings, PoolSettings, Role},
    pool::DeadpoolPostgres,
    testkit::Cluster,
};
use tokio::{task::JoinSet, time::sleep};

use support::{
    Fallible, Row, Spread, Unit, Wanted,
    lines::Lines,
    now, progress,
    reads::{Read, Reads, longest_gap, read},
};

const SIZE: usize = 16;
const SECOND: Duration = Duration::from_secs(1);

/// A primary and a replica, with a router over them.
struct Pair {
    cluster: Cluster,
    router: Router,
    replica: Alias<DeadpoolPostgres>,
}

impl Pair {
    async fn start(pings: Pings, pool: PoolSettings) -> Fallible<Self> {
        let cluster = Cluster::start(1).await?;
        let router = Router::start(config(&cluster, pings, pool)?).await?;
        let replica = router.alias("replica")?;
        Ok(Self { cluster, router, replica })
    }

    /// Opens all connections of the replica's pool, as a busy service has them.
    async fn fill(&self) -> Fallible<()> {
        let leases: JoinSet<_> = (0..SIZE).map(|_| lend(self.replica.clone())).collect();
        leases.join_all().await.into_iter().collect::<Result<Vec<_>, _>>()?;
        Ok(())
    }
}

async fn lend(alias: Alias<DeadpoolPostgres>) -> Result<pgdetour::Lease<DeadpoolPostgres>, pgdetour::Error> {
    alias.get().await
}

fn config(cluster: &Cluster, pings: Pings, pool: PoolSettings) -> Fallible<Config> {
    let builder = Config::builder().pings(pings).pool(pool);
    let builder = builder.server("primary", Role::Primary, cluster.primary().url());
    Ok(builder.server("replica", Role::Replica, cluster.replica(0).url()).build()?)
}

/// The defaults, but for a ping a second during an outage.
fn pings() -> Pings {
    Pings { outage_ping_frequency: SECOND, ..Pings::default() }
}

fn pool() -> PoolSettings {
    PoolSettings { max_size: SIZE, ..PoolSettings::default() }
}

/// What a number of outages under load came to.
#[derive(Default)]
struct Outages {
    failed: Spread,
    gap: Spread,
    told: Spread,
    back: Spread,
}

#[derive(Clone, Copy, PartialEq)]
enum Injury {
    Kill,
    Freeze,
}

/// Injures the replica under load and heals it again, `repeats` times.
async fn outages(lines: &mut Lines, injury: Injury, pings: Pings, repeats: usize) -> Fallible<Outages> {
    let pair = Pair::start(pings, pool()).await?;
    let server = pair.cluster.replica(0);
    let mut outages = Outages::default();
    for number in 1..=repeats {
        pair.fill().await?;
        lines.drain();
        let reads = Reads::start(pair.replica.clone());
        // Not in step with anything the router does, and after what it has asked because so many were held at once.
        sleep(2 * SECOND + Duration::from_millis(fastrand::u64(0..300))).await;
        let injured = now();
        match injury {
            Injury::Kill => server.kill().await?,
            Injury::Freeze => server.freeze().await?,
        }
        let told = lines.next("outage_opened").await? - injured;
        sleep(SECOND / 2 + Duration::from_millis(fastrand::u64(0..1000))).await;
        match injury {
            Injury::Kill => server.start().await?,
            Injury::Freeze => server.thaw().await?,
        }
        let answers = now();
        lines.next("outage_closed").await?;
        sleep(SECOND / 4).await;
        let reads = reads.stop().await?;
        let failed = complain(&reads);
        let last = reads.iter().filter(|read| read.detour).map(|read| read.begun).max().unwrap_or(answers);
        let ((gap, since), back) = (longest_gap(&reads, injured, now()), last.saturating_duration_since(answers));
        let retried = reads.iter().filter(|read| !read.errors.is_empty()).count();
        progress(format_args!(
            "  {number}/{repeats}: {} reads, {retried} retried, {failed} failed, gap {gap:.1?} {} the server's return, told after {told:.1?}, back after {back:.1?}",
            reads.len(),
            if since < answers { "before" } else { "after" },
        ));
        outages.failed.add(failed as f64);
        outages.gap.add_seconds(gap);
        outages.told.add_seconds(told);
        outages.back.add_seconds(back);
    }
    pair.router.shutdown().await;
    Ok(outages)
}

/// Shows each failed read; how many there were.
fn complain(reads: &[Read]) -> usize {
    let failed = reads.iter().filter(|read| read.is_failed());
    failed.inspect(|read| progress(format_args!("  a read failed: {:#?}", read.errors))).count()
}

async fn kill(lines: &mut Lines, repeats: Option<usize>) -> Fallible<Vec<Row>> {
    let found = outages(lines, Injury::Kill, pings(), repeats.unwrap_or(20)).await?;
    Ok(vec![
        Row::worst(
            "replica killed under 200 reads/s, one retry by the caller: failed reads",
            Unit::Count,
            0.0,
            0.0,
            found.failed,
        ),
        Row::worst(
            "same: longest gap without a successful read, beyond the 5 ms between two",
            Unit::Seconds,
            0.05,
            0.005,
            found.gap,
        ),
        Row::worst("same: from the kill to the outage line", Unit::Seconds, 0.05, 0.005, found.told),
        Row::worst(
            "server answers again → all reads back on it, `outage_ping_frequency` 1 s",
            Unit::Seconds,
            2.5,
            1.1,
            found.back,
        ),
    ])
}

async fn freeze(lines: &mut Lines, repeats: Option<usize>) -> Fallible<Vec<Row>> {
    let ms = Duration::from_millis;
    let pings = Pings { slow_after: ms(100), ping_timeout: ms(200), ..pings() };
    let found = outages(lines, Injury::Freeze, pings, repeats.unwrap_or(10)).await?;
    Ok(vec![
        Row::worst(
            "replica frozen, `slow_after` 100 ms, `ping_timeout` 200 ms: failed reads",
            Unit::Count,
            0.0,
            0.0,
            found.failed,
        ),
        Row::worst(
            "same: longest gap without a successful read, beyond the 5 ms between two",
            Unit::Seconds,
            0.5,
            0.32,
            found.gap,
        ),
    ])
}

/// Kills a replica that nobody reads from.
async fn idle(lines: &mut Lines, repeats: Option<usize>) -> Fallible<Vec<Row>> {
    let pair = Pair::start(pings(), pool()).await?;
    let (server, mut told) = (pair.cluster.replica(0), Spread::default());
    for _ in 0..repeats.unwrap_or(10) {
        lines.drain();
        sleep(SECOND + Duration::from_millis(fastrand::u64(0..300))).await;
        let injured = now();
        server.kill().await?;
        told.add_seconds(lines.next("outage_opened").await? - injured);
        server.start().await?;
        lines.next("outage_closed").await?;
    }
    pair.router.shutdown().await;
    Ok(vec![Row::worst(
        "replica killed without any traffic: from the kill to the outage line",
        Unit::Seconds,
        0.05,
        0.005,
        told,
    )])
}

/// 10,000 tasks report errors for ten seconds.
async fn storm(repeats: Option<usize>) -> Fallible<Vec<Row>> {
    let mut sent = Spread::default();
    for _ in 0..repeats.unwrap_or(1) {
        let cluster = Cluster::builder().setting("log_statement", "all").start().await?;
        let server = cluster.primary();
        let pings = Pings { error_ping_frequency: SECOND, ..Pings::default() };
        let builder = Config::builder().pings(pings).server("primary", Role::Primary, server.url());
        let router: Router = Router::start(builder.build()?).await?;
        let alias = router.alias("primary")?;
        let pinged = || server.log().matches(" AS recovering").count();
        let (before, end) = (pinged(), now() + 10 * SECOND);
        let reported = Arc::new(AtomicU64::new(0));
        let tasks: JoinSet<()> = (0..10_000)
            .map(|_| {
                let (alias, reported) = (alias.clone(), Arc::clone(&reported));
                async move {
                    while now() < end {
                        alias.report(&io::Error::from(io::ErrorKind::ConnectionReset));
                        reported.fetch_add(1, Ordering::Relaxed);
                        sleep(Duration::from_millis(10)).await;
                    }
                }
            })
            .collect();
        tasks.join_all().await;
        let pings = pinged() - before;
        progress(format_args!("  {} reports, {pings} pings", reported.load(Ordering::Relaxed)));
        sent.add(pings as f64);
        router.shutdown().await;
    }
    let measure = "pings sent while 10,000 tasks report errors for 10 s, `error_ping_frequency` 1 s";
    Ok(vec![Row::worst(measure, Unit::Count, 12.0, 10.0, sent)])
}

/// 500 tasks read without a pause, and their replica is killed.
async fn detour(lines: &mut Lines, repeats: Option<usize>) -> Fallible<Vec<Row>> {
    let (mut most, mut failures) = (Spread::default(), Spread::default());
    for _ in 0..repeats.unwrap_or(1) {
        let pair = Pair::start(pings(), PoolSettings { detour_size: 8, ..pool() }).await?;
        let (stop, reading) = (Arc::new(AtomicBool::new(false)), pair.replica.clone());
        let tasks: JoinSet<usize> = (0..500)
            .map(|_| {
                let (stop, alias) = (Arc::clone(&stop), reading.clone());
                async move {
                    let mut failed = 0;
                    while !stop.load(Ordering::Relaxed) {
                        failed += complain(&[read(alias.clone()).await]);
                    }
                    failed
                }
            })
            .collect();
        sleep(SECOND).await;
        let counting = pair.cluster.primary().connect().await?;
        pair.cluster.replica(0).kill().await?;
        lines.next("outage_opened").await?;
        let mut top = 0;
        for _ in 0..200 {
            // All that is there but this session and the monitor's.
            let sql = "SELECT state || ': ' || query FROM pg_stat_activity WHERE backend_type = 'client backend' \
                       AND pid <> pg_backend_pid() AND query NOT LIKE '%AS recovering%'";
            let sessions = counting.query(sql, &[]).await?;
            if sessions.len() > 8 {
                let all: Vec<Option<&str>> = sessions.iter().map(|row| row.get(0)).collect();
                progress(format_args!("  {} sessions: {all:?}", all.len()));
            }
            top = top.max(sessions.len());
            sleep(Duration::from_millis(10)).await;
        }
        stop.store(true, Ordering::Relaxed);
        failures.add(tasks.join_all().await.into_iter().sum::<usize>() as f64);
        most.add(top as f64);
        pair.router.shutdown().await;
    }
    Ok(vec![
        Row::worst("detoured connections on the primary, 500 tasks, `detour_size` 8", Unit::Count, 8.0, 8.0, most),
        Row::worst("same: failed reads", Unit::Count, 0.0, 0.0, failures),
    ])
}

/// All workers of the application's runtime compute for five seconds without a pause, connections in hand.
async fn busy(lines: &mut Lines, repeats: Option<usize>) -> Fallible<Vec<Row>> {
    let cluster = Cluster::start(1).await?;
    let mut transitions = Spread::default();
    for _ in 0..repeats.unwrap_or(1) {
        let ms = Duration::from_millis;
        let pings = Pings {
            ping_timeout: ms(300),
            monitoring_ping_frequency: ms(500),
            outage_ping_frequency: ms(500),
            ..Pings::brisk()
        };
        let config = config(&cluster, pings, pool())?;
        lines.drain();
        tokio::task::spawn_blocking(move || compute(config)).await??;
        let found = lines.drain();
        if !found.is_empty() {
            progress(format_args!("  a busy application logs {found:?}"));
        }
        transitions.add(found.len() as f64);
    }
    let measure = "transitions while all runtime workers are blocked for 5 s, `ping_timeout` 300 ms";
    Ok(vec![Row::worst(measure, Unit::Count, 0.0, 0.0, transitions)])
}

fn compute(config: Config) -> Fallible<()> {
    const WORKERS: usize = 2;
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(WORKERS).enable_all().build()?;
    runtime.block_on(async {
        let router: Router = Router::start(config).await?;
        let replica = router.alias("replica")?;
        let busy: JoinSet<Fallible<()>> = (0..WORKERS)
            .map(|_| {
                let replica = replica.clone();
                async move {
                    let client = replica.get().await?;
                    let end = now() + 5 * SECOND;
                    while now() < end {
                        std::hint::spin_loop();
                    }
                    client.query_one("SELECT 1", &[]).await?;
                    Ok(())
                }
            })
            .collect();
        busy.join_all().await.into_iter().collect::<Fallible<()>>()?;
        router.shutdown().await;
        Ok(())
    })
}

async fn measure(wanted: Wanted) -> Fallible<Vec<Row>> {
    let (repeats, mut lines, mut rows) = (wanted.repeats, Lines::listen(), Vec::new());
    for part in ["kill", "idle", "freeze", "storm", "detour", "busy"].into_iter().filter(|part| wanted.has(part)) {
        rows.extend(match part {
            "kill" => kill(&mut lines, repeats).await?,
            "idle" => idle(&mut lines, repeats).await?,
            "freeze" => freeze(&mut lines, repeats).await?,
            "storm" => storm(repeats).await?,
            "detour" => detour(&mut lines, repeats).await?,
            _ => busy(&mut lines, repeats).await?,
        });
    }
    Ok(rows)
}

fn main() -> Fallible<()> {
    support::run(measure)
}
