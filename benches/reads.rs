//! What becomes of `Alias::read` in a fault? Real servers are killed, stopped, frozen and cut off under a load of 200 reads a second,
//! none of which its caller tries again.
//!
//! `cargo bench --bench reads --all-features -- hedge 5` runs one part, so many times over.

mod support;

use std::time::{Duration, Instant};

use pgdetour::{
    Alias, Config, Lease, Router, Transaction,
    config::{CallSettings, Hedge, Pings, PoolSettings, Role},
    pool::DeadpoolPostgres,
    testkit::{Cluster, Direction, Fault, Proxy, Stop},
};
use tokio::{
    task::JoinSet,
    time::{interval, sleep},
};

use support::{
    Fallible, Row, Spread, Unit, Wanted,
    lines::Lines,
    now, progress,
    reads::{Read, Reads},
};

const SECOND: Duration = Duration::from_secs(1);
const MS: Duration = Duration::from_millis(1);

/// A primary, and a replica behind a proxy, with a router over them.
struct Pair {
    cluster: Cluster,
    proxy: Proxy,
    router: Router,
    replica: Alias<DeadpoolPostgres>,
}

impl Pair {
    async fn start(pings: Pings, calls: CallSettings) -> Fallible<Self> {
        let cluster = Cluster::start(1).await?;
        let server = cluster.replica(0);
        let proxy = Proxy::start((server.host(), server.port())).await?;
        let builder = Config::builder().pings(pings).calls(calls).pool(PoolSettings::of_size(16));
        let builder = builder.server("primary", Role::Primary, cluster.primary().url());
        let way = server.url_at("127.0.0.1", proxy.addr().port());
        let router = Router::start(builder.server("replica", Role::Replica, way).build()?).await?;
        let replica = router.alias("replica")?;
        Ok(Self { cluster, proxy, router, replica })
    }

    async fn strike(&self, fault: Trouble) -> Fallible<()> {
        let server = self.cluster.replica(0);
        match fault {
            Trouble::Kill => server.kill().await?,
            Trouble::Stop(how) => server.stop(how).await?,
            Trouble::Freeze => server.freeze().await?,
            Trouble::BlackHole => self.proxy.set(Fault::BlackHole { direction: Direction::Both }).await?,
            Trouble::Terminate => drop(server.terminate_backends().await?),
        }
        Ok(())
    }

    async fn heal(&self, fault: Trouble) -> Fallible<()> {
        let server = self.cluster.replica(0);
        match fault {
            Trouble::Kill | Trouble::Stop(_) => server.start().await?,
            Trouble::Freeze => server.thaw().await?,
            Trouble::BlackHole => self.proxy.set(Fault::None).await?,
            Trouble::Terminate => {}
        }
        Ok(())
    }
}

#[derive(Clone, Copy, PartialEq)]
enum Trouble {
    Kill,
    Stop(Stop),
    Freeze,
    BlackHole,
    Terminate,
}

/// Pings a second apart in an outage, and a verdict on silence after half a second.
fn pings() -> Pings {
    Pings { outage_ping_frequency: SECOND, ping_timeout: SECOND / 2, slow_after: 200 * MS, ..Pings::default() }
}

/// Reads before, during and after a fault that lasts so long; when it began and when it ended.
async fn in_trouble(pair: &Pair, trouble: Trouble, lasting: Duration) -> Fallible<(Vec<Read>, Instant, Instant)> {
    let reads = Reads::calling(pair.replica.clone());
    sleep(SECOND).await;
    let begun = now();
    pair.strike(trouble).await?;
    while begun.elapsed() < lasting {
        sleep(SECOND.min(lasting - begun.elapsed())).await;
        if trouble == Trouble::Terminate {
            pair.strike(trouble).await?;
        }
    }
    pair.heal(trouble).await?;
    let healed = now();
    sleep(3 * SECOND).await;
    Ok((reads.stop().await?, begun, healed))
}

/// Every fault in turn.
async fn faults(lines: &mut Lines, repeats: usize) -> Fallible<Vec<Row>> {
    let troubles = [
        ("killed", Trouble::Kill, SECOND),
        ("stopped fast", Trouble::Stop(Stop::Fast), SECOND),
        ("stopped at once", Trouble::Stop(Stop::Immediate), SECOND),
        ("frozen for 5 s", Trouble::Freeze, 5 * SECOND),
        ("in a black hole for 10 s", Trouble::BlackHole, 10 * SECOND),
        ("terminated every second for 5 s", Trouble::Terminate, 5 * SECOND),
    ];
    let (mut rows, mut back) = (Vec::new(), Spread::default());
    for (what, trouble, lasting) in troubles {
        let mut failed = Spread::default();
        for number in 1..=repeats {
            let pair = Pair::start(pings(), CallSettings::default()).await?;
            lines.drain();
            let (reads, begun, healed) = in_trouble(&pair, trouble, lasting).await?;
            failed.add(complain(&reads) as f64);
            let last = reads.iter().filter(|read| read.detour).map(|read| read.ended).max().unwrap_or(begun);
            if trouble == Trouble::BlackHole {
                let closed = lines.next("outage_closed").await?;
                back.add_seconds(last.saturating_duration_since(closed));
            }
            let longest = reads.iter().map(|read| read.ended - read.begun).max().unwrap_or_default();
            let home = last.saturating_duration_since(healed);
            progress(format_args!(
                "  {what} {number}/{repeats}: {} reads, longest {longest:.1?}, home after {home:.1?}",
                reads.len()
            ));
            pair.router.shutdown().await;
        }
        let measure = format!("`Alias::read` at 200/s, replica {what}: failed reads");
        rows.push(Row::worst(&measure, Unit::Count, 0.0, 0.0, failed));
    }
    let measure = "black hole healed: from the outage's end to the last read that another server answered";
    rows.push(Row::worst(measure, Unit::Seconds, 2.0, 0.5, back));
    Ok(rows)
}

/// A freeze, with hedges for whoever needs one.
async fn hedge(repeats: usize) -> Fallible<Vec<Row>> {
    let mut slow = Spread::default();
    for number in 1..=repeats {
        let calls = CallSettings { hedge_after: Hedge::After(50 * MS), retry_budget: 100, ..CallSettings::default() };
        let pair = Pair::start(pings(), calls).await?;
        let (reads, begun, healed) = in_trouble(&pair, Trouble::Freeze, 5 * SECOND).await?;
        complain(&reads);
        let meanwhile = reads.iter().filter(|read| (begun..healed).contains(&read.begun));
        let mut took: Vec<Duration> = meanwhile.map(|read| read.ended - read.begun).collect();
        took.sort_unstable();
        let p99 = took[(took.len() * 99).div_ceil(100) - 1];
        progress(format_args!(
            "  {number}/{repeats}: {} reads, p50 {:.1?}, p99 {p99:.1?}",
            took.len(),
            took[took.len() / 2]
        ));
        slow.add_seconds(p99);
        pair.router.shutdown().await;
    }
    let measure = "replica frozen for 5 s, `hedge_after` 50 ms, `retry_budget` 100: p99 of reads during the fault";
    Ok(vec![Row::worst(measure, Unit::Seconds, 0.12, 0.07, slow)])
}

/// A second in which all is well, and half a minute in which no call is answered: what is asked of the servers for each.
async fn outage(repeats: usize) -> Fallible<Vec<Row>> {
    let mut rows = Vec::new();
    for (what, dead) in [("no server", true), ("servers that fail each call", false)] {
        let mut asked = Spread::default();
        for number in 1..=repeats {
            let pair = Pair::start(pings(), CallSettings::default()).await?;
            let (mut ticks, mut calls, begun) = (interval(5 * MS), JoinSet::new(), now());
            let strike = async {
                sleep(SECOND).await;
                match dead {
                    true => tokio::try_join!(pair.cluster.primary().kill(), pair.cluster.replica(0).kill()).map(drop),
                    false => Ok(()),
                }
            };
            let load = async {
                while begun.elapsed() < 31 * SECOND {
                    ticks.tick().await;
                    // A second in which all is well has paid for the reserve.
                    calls.spawn(attempts_of_one_call(pair.replica.clone(), begun.elapsed() > SECOND));
                }
            };
            let (struck, ()) = tokio::join!(strike, load);
            struck?;
            let attempts = calls.join_all().await;
            let (sum, most) = (attempts.iter().sum::<usize>(), attempts.iter().max().copied().unwrap_or(0));
            progress(format_args!("  {number}/{repeats}: {} calls, {sum} attempts, {most} at most", attempts.len()));
            asked.add(sum as f64 / attempts.len() as f64);
            pair.router.shutdown().await;
        }
        let measure =
            format!("200 `read`s/s, a second well and 30 s with {what}, `retry_budget` 20: attempts per call");
        rows.push(Row::worst(&measure, Unit::Ratio, 1.2, 1.2, asked));
    }
    Ok(rows)
}

/// How often the servers were asked for one call, which `fails` by a server's fault whatever they do.
async fn attempts_of_one_call(alias: Alias<DeadpoolPostgres>, fails: bool) -> usize {
    let lost = || std::io::Error::from(std::io::ErrorKind::ConnectionReset);
    let read = alias.read(|client: Lease| async move {
        drop(client);
        if fails { Err(lost()) } else { Ok(()) }
    });
    // What no server was asked for counts as asked once: it must not hide what others ask for.
    read.await.map_or_else(|error| error.attempts().len().max(1), |()| 1)
}

/// Both servers freeze under calls that have 300 ms each: how much later than that their callers hear of it.
async fn late(repeats: usize) -> Fallible<Vec<Row>> {
    const WITHIN: Duration = Duration::from_millis(300);
    let mut beyond = [Spread::default(), Spread::default()];
    for number in 1..=repeats {
        let pair = Pair::start(pings(), CallSettings::default()).await?;
        let primary = pair.router.alias("primary")?;
        tokio::try_join!(pair.cluster.primary().freeze(), pair.cluster.replica(0).freeze())?;
        let mut calls = JoinSet::new();
        for _ in 0..100 {
            let (router, replica, primary) = (pair.router.clone(), pair.replica.clone(), primary.clone());
            calls.spawn(async move {
                let begun = now();
                let read = replica.read(|client: Lease| async move { client.query_one("SELECT 1", &[]).await });
                let read = router.with_deadline(WITHIN, read).await.map(drop);
                let took = begun.elapsed();
                let begun = now();
                let write = primary.write(|client: Transaction| async move { client.execute("SELECT 1", &[]).await });
                let write = router.with_deadline(WITHIN, write).await.map(drop);
                [(read, took), (write, begun.elapsed())]
            });
        }
        for ends in calls.join_all().await {
            for ((end, took), beyond) in ends.into_iter().zip(&mut beyond) {
                assert!(end.is_err(), "a frozen server answered");
                beyond.add_seconds(took.saturating_sub(WITHIN));
            }
        }
        progress(format_args!("  {number}/{repeats}: 100 reads, 100 writes"));
        pair.router.shutdown().await;
    }
    let row = |(what, beyond)| {
        let measure = format!("all servers frozen, `{what}`s that have 300 ms: heard of beyond that");
        Row::worst(&measure, Unit::Seconds, 0.02, 0.005, beyond)
    };
    Ok(["read", "write"].into_iter().zip(beyond).map(row).collect())
}

/// Shows each failed read; how many there were.
fn complain(reads: &[Read]) -> usize {
    let failed = reads.iter().filter(|read| !read.errors.is_empty());
    failed.inspect(|read| progress(format_args!("  a read failed: {:#?}", read.errors))).count()
}

async fn measure(wanted: Wanted) -> Fallible<Vec<Row>> {
    let (mut lines, mut rows) = (Lines::listen(), Vec::new());
    if wanted.has("faults") {
        rows.extend(faults(&mut lines, wanted.repeats.unwrap_or(3)).await?);
    }
    if wanted.has("hedge") {
        rows.extend(hedge(wanted.repeats.unwrap_or(5)).await?);
    }
    if wanted.has("outage") {
        rows.extend(outage(wanted.repeats.unwrap_or(1)).await?);
    }
    if wanted.has("late") {
        rows.extend(late(wanted.repeats.unwrap_or(3)).await?);
    }
    Ok(rows)
}

fn main() -> Fallible<()> {
    support::run(measure)
}
