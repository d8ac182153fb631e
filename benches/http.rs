//! How soon `/readyz` answers while every database hangs, under 5,000 requests a second on one core; and what the page weighs.

#[path = "support/mod.rs"]
mod support;

use std::{
    io::{Read, Write},
    net::{SocketAddr, TcpStream},
    sync::{Arc, Barrier},
    thread,
    time::{Duration, Instant},
};

use pgdetour::{
    Config, Router,
    config::{Pings, Role},
    http::{self, Details, HttpOptions, Listening},
    testkit::Cluster,
};

use self::support::{Fallible, Judged, Row, Spread, Unit, Wanted, now, progress, run};

/// Requests a second, of all connections together.
const RATE: u32 = 5_000;
const CONNECTIONS: u32 = 10;
const LASTS: Duration = Duration::from_secs(10);

/// No answer takes longer, whatever is wrong.
const LATE: Duration = Duration::from_secs(5);

fn main() -> Fallible<()> {
    run(|wanted| async move { measure(&wanted).await })
}

async fn measure(wanted: &Wanted) -> Fallible<Vec<Row>> {
    let mut rows = Vec::new();
    if wanted.has("readyz") {
        rows.extend(readyz(wanted.repeats.unwrap_or(5)).await?);
    }
    if wanted.has("page") {
        rows.extend(page().await?);
    }
    Ok(rows)
}

/// A router over these servers, served by a runtime of one thread.
fn serve(cluster: &Cluster) -> Fallible<SocketAddr> {
    let pings = Pings { ping_timeout: Duration::from_millis(300), ..Pings::brisk() };
    let config = Config::builder()
        .pings(pings)
        .server("primary", Role::Primary, cluster.primary().url())
        .server("replica", Role::Replica, cluster.replica(0).url())
        .build()?;
    let (told, address) = std::sync::mpsc::channel();
    thread::spawn(move || -> Fallible<()> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        runtime.block_on(async {
            let router: Router = Router::start(config).await?;
            let listening = Listening::bind(([127, 0, 0, 1], 0).into()).await?;
            told.send(listening.address()?)?;
            let endpoints = http::router(&router, HttpOptions::default().details(Details::Public));
            Ok(http::serve(listening, endpoints, std::future::pending()).await?)
        })
    });
    Ok(address.recv_timeout(Duration::from_secs(30))?)
}

async fn readyz(repeats: usize) -> Fallible<[Row; 2]> {
    let cluster = Cluster::start(1).await?;
    let at = serve(&cluster)?;
    cluster.primary().freeze().await?;
    cluster.replica(0).freeze().await?;
    let (mut late, mut failed) = (Spread::default(), Spread::default());
    for _ in 0..repeats {
        let load = tokio::task::spawn_blocking(move || load(at)).await??;
        progress(format_args!("p50 {:?}, p99 {:?}, worst {:?}", load.at(0.5), load.at(0.99), load.at(1.0)));
        late.add_seconds(load.at(0.99));
        failed.add(load.failed as f64);
    }
    let what = "`/readyz` at 5,000 requests/s on one core while every server is frozen: p99";
    let row = Row { judged: Judged::MedianAtMost, ..Row::worst(what, Unit::Seconds, 10e-3, 2e-3, late) };
    Ok([row, Row::worst("same: requests without an answer", Unit::Count, 0.0, 0.0, failed)])
}

/// What became of one run.
struct Load {
    /// In order: each from the moment in which its request was due, so that one that is late makes those behind it late too.
    latencies: Vec<Duration>,
    failed: usize,
}

impl Load {
    fn at(&self, share: f64) -> Duration {
        let place = (self.latencies.len() as f64 * share) as usize;
        self.latencies.get(place.min(self.latencies.len().saturating_sub(1))).copied().unwrap_or(LATE)
    }
}

/// All connections in step, each a thread that waits for its answers, beginning one after the other.
fn load(at: SocketAddr) -> Fallible<Load> {
    let together = Arc::new(Barrier::new(CONNECTIONS as usize));
    let period = Duration::from_secs(1) * CONNECTIONS / RATE;
    let clients = (0..CONNECTIONS).map(|number| {
        let together = Arc::clone(&together);
        thread::spawn(move || client(at, &together, period, period * number / CONNECTIONS))
    });
    let clients: Vec<_> = clients.collect();
    let (mut latencies, mut failed) = (Vec::new(), 0);
    for client in clients {
        let (mut measured, missed) = client.join().map_err(|_| "a client panicked")??;
        latencies.append(&mut measured);
        failed += missed;
    }
    latencies.sort_unstable();
    Ok(Load { latencies, failed })
}

fn client(at: SocketAddr, together: &Barrier, period: Duration, first: Duration) -> Fallible<(Vec<Duration>, usize)> {
    let mut stream = TcpStream::connect(at)?;
    stream.set_nodelay(true)?;
    stream.set_read_timeout(Some(LATE))?;
    together.wait();
    let start = now() + first;
    let requests = (LASTS.as_secs_f64() / period.as_secs_f64()) as u32;
    let (mut latencies, mut failed) = (Vec::with_capacity(requests as usize), 0);
    for number in 0..requests {
        let due = start + period * number;
        thread::sleep(due.saturating_duration_since(now()));
        match ask(&mut stream, "/readyz") {
            Ok(answer) if is_whole(&answer) => latencies.push(since(due)),
            _ => {
                failed += 1;
                stream = TcpStream::connect(at)?;
            }
        }
    }
    Ok((latencies, failed))
}

fn since(due: Instant) -> Duration {
    now().saturating_duration_since(due)
}

/// One request over a connection that stays open: the answer as it came, its head and what its length says.
fn ask(stream: &mut TcpStream, path: &str) -> Fallible<Vec<u8>> {
    stream.write_all(format!("GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n").as_bytes())?;
    let mut answer = Vec::new();
    let mut some = [0; 65_536];
    while !is_whole(&answer) {
        match stream.read(&mut some)? {
            0 => return Err("closed".into()),
            read => answer.extend_from_slice(&some[..read]),
        }
    }
    Ok(answer)
}

/// Whether the head is there, and as much behind it as it says; of a stream without a length, one event.
fn is_whole(answer: &[u8]) -> bool {
    let Ok(text) = std::str::from_utf8(answer) else { return false };
    let Some((head, body)) = text.split_once("\r\n\r\n") else { return false };
    let length = head.lines().find_map(|line| line.to_ascii_lowercase().strip_prefix("content-length: ")?.parse().ok());
    length.map_or_else(|| body.contains("\n\n"), |length: usize| body.len() >= length)
}

/// What a browser fetches to show the page: the page, and the first status that follows.
async fn page() -> Fallible<[Row; 2]> {
    let cluster = Cluster::start(1).await?;
    let at = serve(&cluster)?;
    let paths = ["/", "/events"];
    let mut bytes = 0;
    for path in paths {
        bytes += ask(&mut TcpStream::connect(at)?, path)?.len();
    }
    let one = |value: usize| Spread::from_iter([value as f64]);
    Ok([
        Row::worst("the status page of two servers, from an empty cache: bytes", Unit::Count, 60e3, 30e3, one(bytes)),
        Row::worst("same: requests", Unit::Count, 3.0, 3.0, one(paths.len())),
    ])
}
