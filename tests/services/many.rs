//! A thousand services: what they cost. Run it where nothing else runs:
//! `cargo test --release --all-features --test services many -- --ignored --nocapture`

use std::time::Duration;

use pgdetour::{
    config::Pings,
    service::{Service, Tcp},
};
use tokio::{net::TcpListener, time::timeout};

use super::harness::{Tested, Watch};

const COUNT: usize = 1000;
const LASTING: Duration = Duration::from_secs(30);

/// One that is pinged every ten seconds.
struct Often(Tcp);

impl Service for Often {
    fn name(&self) -> &str {
        self.0.name()
    }

    fn address(&self) -> String {
        self.0.address()
    }

    fn pings(&self, _: &Pings) -> Pings {
        Pings::brisk()
    }
}

/// The time on a processor of the thread that watches services, in seconds; and the memory of this process, in KiB.
fn cost() -> Tested<(f64, f64)> {
    let mut ticks = 0.0;
    for task in std::fs::read_dir("/proc/self/task")? {
        let stat = std::fs::read_to_string(task?.path().join("stat"))?;
        let (name, rest) = stat.rsplit_once(") ").ok_or("proc(5)")?;
        if name.contains("pgdetour-servic") {
            let fields: Vec<&str> = rest.split(' ').collect();
            ticks += fields[11].parse::<f64>()? + fields[12].parse::<f64>()?;
        }
    }
    let status = std::fs::read_to_string("/proc/self/status")?;
    let memory = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).ok_or("proc(5)")?;
    Ok((ticks / 100.0, memory.trim().trim_end_matches(" kB").parse()?))
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "takes half a minute and a quiet machine"]
async fn many_services_cost_little() -> Tested {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let place = listener.local_addr()?.to_string();
    tokio::spawn(async move { while listener.accept().await.is_ok() {} });
    let mut watch = Watch::start().await?;
    let (_, before) = cost()?;
    for index in 0..COUNT {
        watch.router.register(Often(Tcp::new(format!("service-{index}"), &place)?)).await?;
    }
    let (begun, memory) = cost()?;
    // Nothing happens.
    let told = timeout(LASTING, async {
        loop {
            let event = watch.events.next().await.expect("the router runs");
            assert!(!event.alias.is_some_and(|alias| alias.as_str().starts_with("service")), "no outage");
        }
    });
    let _: Result<(), _> = told.await;
    let (ended, after) = cost()?;
    let share = 100.0 * (ended - begun) / LASTING.as_secs_f64();
    let each = (after.max(memory) - before) / COUNT as f64;
    println!("{COUNT} services at 10 s: {share:.2} % of a core, {each:.1} KiB each");
    assert!(share <= 2.0 && each <= 32.0, "{share} % of a core, {each} KiB each");
    Ok(())
}
