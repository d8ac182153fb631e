//! What does it cost to watch a thousand servers? The processor time of the monitor's thread, and memory.
//!
//! The servers are a process of their own, which answers the driver's start-up and the monitor's question and knows nothing else: a
//! thousand databases would be a measurement of those. `cargo bench --bench scale --all-features -- 2` measures so many times.

mod support;

use std::{
    env, fs,
    io::{BufRead, BufReader},
    process::{Child, Command, Stdio},
    time::Duration,
};

use pgdetour::{
    Config, Router,
    config::{Pings, PoolSettings, Role},
    plan::Mode,
};
use rustix::process::{Resource, getrlimit, setrlimit};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    runtime,
    time::sleep,
};

use support::{Fallible, Judged, Row, Spread, Unit, now, progress};

/// One primary, and replicas that it stands in for: all of one cluster, where each is weighed against the others.
const SERVERS: usize = 1_000;

/// Each server is asked so often; a measurement sees each asked three times.
const EVERY: Duration = Duration::from_secs(10);
const LASTING: Duration = Duration::from_secs(30);

/// What the program is called with that is to be the servers.
const SERVE: &str = "serve";

/// The servers, until this is dropped.
struct Servers {
    process: Child,
    port: u16,
}

impl Servers {
    fn start() -> Fallible<Self> {
        let mut process = Command::new(env::current_exe()?).arg(SERVE).stdout(Stdio::piped()).spawn()?;
        let mut port = String::new();
        BufReader::new(process.stdout.take().ok_or("it has an output")?).read_line(&mut port)?;
        Ok(Self { process, port: port.trim().parse()? })
    }
}

impl Drop for Servers {
    fn drop(&mut self) {
        // Errors say that it has ended by itself.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// Answers as servers do that are well, for ever.
async fn serve() -> Fallible<()> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    println!("{}", listener.local_addr()?.port());
    loop {
        let (socket, _) = listener.accept().await?;
        // An error says that the client has gone.
        tokio::spawn(async move { drop(converse(socket).await) });
    }
}

async fn converse(mut socket: TcpStream) -> Fallible<()> {
    socket.set_nodelay(true)?;
    let length = socket.read_u32().await?;
    let mut parameters = vec![0; length as usize - 4];
    socket.read_exact(&mut parameters).await?;
    let recovering =
        if parameters.windows(8).any(|part| part == b"/primary" || part == b"\0primary") { "f" } else { "t" };
    let started = [frame(b'R', &[&0_u32.to_be_bytes()]), frame(b'K', &[&[0; 8]]), frame(b'Z', &[b"I"])].concat();
    socket.write_all(&started).await?;
    let answer = answer(&[recovering, "1", "7000000000000000007", "0/3000060"]);
    loop {
        let kind = socket.read_u8().await?;
        let length = socket.read_u32().await?;
        socket.read_exact(&mut vec![0; length as usize - 4]).await?;
        match kind {
            b'Q' => socket.write_all(&answer).await?,
            _ => return Ok(()),
        }
    }
}

/// One row of text.
fn answer(columns: &[&str]) -> Vec<u8> {
    let count = (columns.len() as u16).to_be_bytes();
    let (mut names, mut values) = (count.to_vec(), count.to_vec());
    for column in columns {
        // A name, no table, no column, the type text.
        names.extend([b"c\0".as_slice(), &[0; 6], &25_u32.to_be_bytes(), &[0xff; 2], &[0xff; 4], &[0; 2]].concat());
        values.extend([&(column.len() as u32).to_be_bytes(), column.as_bytes()].concat());
    }
    [frame(b'T', &[&names]), frame(b'D', &[&values]), frame(b'C', &[b"SELECT 1\0"]), frame(b'Z', &[b"I"])].concat()
}

fn frame(kind: u8, parts: &[&[u8]]) -> Vec<u8> {
    let body = parts.concat();
    [&[kind], (body.len() as u32 + 4).to_be_bytes().as_slice(), &body].concat()
}

fn config(port: u16) -> Fallible<Config> {
    let pings = Pings { monitoring_ping_frequency: EVERY, outage_ping_frequency: EVERY, ..Pings::default() };
    let pool = PoolSettings { min_idle: 0, ..PoolSettings::default() };
    let mut config = Config::builder().pings(pings).pool(pool);
    let url = |name: &str| format!("postgres://app@127.0.0.1:{port}/{name}?sslmode=disable");
    config = config.server("primary", Role::Primary, url("primary"));
    for number in 1..SERVERS {
        let name = format!("replica-{number}");
        config = config.server(&name, Role::Replica, url(&name)).failover(&name, ["primary"]);
    }
    Ok(config.build()?)
}

/// How long the monitor's thread has been on a processor.
fn monitor_time() -> Fallible<Duration> {
    for task in fs::read_dir("/proc/self/task")? {
        let task = task?.path();
        // The system keeps 15 characters of a name.
        if fs::read_to_string(task.join("comm"))?.trim() == "pgdetour-monito" {
            let times = fs::read_to_string(task.join("schedstat"))?;
            let on_processor = times.split_whitespace().next().ok_or("the first number is the time on a processor")?;
            return Ok(Duration::from_nanos(on_processor.parse()?));
        }
    }
    Err("no thread is the monitor's".into())
}

/// Memory that is resident, in KiB.
fn resident() -> Fallible<f64> {
    let status = fs::read_to_string("/proc/self/status")?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).ok_or("there is such a line")?;
    Ok(line.trim().trim_end_matches(" kB").parse()?)
}

async fn watch(repeats: usize) -> Fallible<Vec<Row>> {
    let servers = Servers::start()?;
    let config = config(servers.port)?;
    let before = resident()?;
    let router: Router = Router::start(config).await?;
    assert_eq!(router.mode(), Mode::Normal, "all of them answer");
    let (mut share, mut memory) = (Spread::default(), Spread::default());
    sleep(EVERY).await;
    for number in 1..=repeats {
        let (begun, used) = (now(), monitor_time()?);
        sleep(LASTING).await;
        let of_a_core = (monitor_time()? - used).as_secs_f64() / (now() - begun).as_secs_f64();
        let each = (resident()? - before) / SERVERS as f64;
        progress(format_args!("  {number}/{repeats}: {:.2} % of a core, {each:.1} KiB each", of_a_core * 100.0));
        share.add(of_a_core);
        memory.add(each);
    }
    assert_eq!(router.mode(), Mode::Normal, "all of them still answer");
    let row = |what: &str, unit, (must, aim), spread| Row {
        measure: format!(
            "{SERVERS} aliases of servers that answer at once, without a password, pinged every 10 s: {what}"
        ),
        unit,
        judged: Judged::MedianAtMost,
        must,
        aim,
        spread,
    };
    Ok(vec![
        row("the monitor's share of a core", Unit::Ratio, (0.02, 0.01), share),
        row("memory of each, its pools empty", Unit::Kibibytes, (32.0, 16.0), memory),
    ])
}

fn main() -> Fallible<()> {
    let limit = getrlimit(Resource::Nofile);
    setrlimit(Resource::Nofile, rustix::process::Rlimit { current: limit.maximum, ..limit })?;
    if env::args().nth(1).as_deref() == Some(SERVE) {
        return runtime::Builder::new_current_thread().enable_all().build()?.block_on(serve());
    }
    if !support::is_wanted() {
        return Ok(());
    }
    let repeats = env::args().find_map(|argument| argument.parse().ok()).unwrap_or(3);
    let runtime = runtime::Builder::new_multi_thread().enable_all().build()?;
    let rows = runtime.block_on(async { tokio::spawn(watch(repeats)).await })??;
    support::print(&rows, "no PostgreSQL");
    Ok(())
}
