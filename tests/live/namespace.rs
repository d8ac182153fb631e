//! What the kernel itself does to packets, in a network of the test's own: dropped, rejected, without a route; and no ports left
//! (F14, F16-F19, F60). Where namespaces are forbidden these tests say so and show nothing.

use std::{env, io, process::Command};

use pgdetour::{
    Router,
    config::{Pings, PoolSettings},
    pool::DeadpoolPostgres,
};

use crate::harness::{Load, MS, Pair, Story, Tested, pinged, quick, soon};

/// Set in the process that has a network of its own.
const INSIDE: &str = "PGDETOUR_TEST_INSIDE";

/// From which ports it may connect.
const PORTS: &str = "/proc/sys/net/ipv4/ip_local_port_range";

/// Where the replica is reached, as a host of its own.
const REPLICA: &str = "127.0.0.5";

/// A command that is first told to bring up loopback, in a network of its own and as a user that may change it.
fn in_a_network_of_its_own(script: &str) -> Command {
    let mut command = Command::new("unshare");
    command.args(["-U", "--map-user=nobody", "--map-group=65534", "--keep-caps", "-n", "-m", "sh", "-c"]);
    command.arg(format!("ip link set lo up && nft add table ip faults && {script}")).stdin(std::process::Stdio::null());
    command
}

/// Starts the test of this name in such a network, if this is not that process already; whether this is.
async fn is_inside(test: &'static str) -> Result<bool, Box<dyn std::error::Error>> {
    if env::var_os(INSIDE).is_some() {
        return Ok(true);
    }
    let run = |mut command: Command| tokio::task::spawn_blocking(move || command.output());
    let possible = run(in_a_network_of_its_own(&format!("[ -w {PORTS} ]"))).await?;
    if !possible.is_ok_and(|output| output.status.success()) {
        eprintln!("skipped: no network of its own, or no `ip` and `nft`, for {test}");
        return Ok(false);
    }
    let mut command = in_a_network_of_its_own(r#"exec "$0" "$@""#);
    command.arg(env::current_exe()?).args(["--exact", test, "--nocapture"]).env(INSIDE, "");
    let output = run(command).await??;
    let said = String::from_utf8_lossy(&output.stdout) + String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && said.contains("1 passed"), "{said}");
    Ok(false)
}

fn shell(script: &str) -> io::Result<()> {
    let output = Command::new("sh").args(["-ec", script]).output()?;
    match output.status.success() {
        true => Ok(()),
        false => Err(io::Error::other(format!("{script}: {}", String::from_utf8_lossy(&output.stderr)))),
    }
}

async fn no_read_fails_while(broken: &str, healed: &str) -> Tested {
    let pair = Pair::with(|cluster| cluster.replica_setting("listen_addresses", "*")).await?;
    let port = pair.replica().port();
    let pings = Pings { ping_timeout: 500 * MS, outage_ping_timeout: 300 * MS, ..quick() };
    let config = pair.config_to(&pair.replica().url_at(REPLICA, port)).pings(pings);
    let router: Router<DeadpoolPostgres> = Router::start(config.build()?).await?;
    let (replica, mut story) = (router.alias("replica")?, Story::of(&router));
    let mut load = Load::reading(&replica);
    load.until_at_home(20).await?;
    shell(&broken.replace("PORT", &port.to_string()))?;
    story.until("replica", "outage_opened").await?;
    load.until_more(400).await?;
    shell(healed)?;
    story.until("replica", "outage_closed").await?;
    load.until_at_home(20).await?;
    let report = load.end().await?;
    assert_eq!(report.failed, 0, "{broken}: {report:?}");
    assert!(report.slowest < 6000 * MS, "{broken}: {report:?}");
    assert_eq!(story.so_far("replica").await, ["outage_opened", "outage_closed"], "{broken}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn no_read_fails_while_there_is_no_route() -> Tested {
    if is_inside("namespace::no_read_fails_while_there_is_no_route").await? {
        for kind in ["prohibit", "unreachable", "blackhole"] {
            let route = |verb: &str| format!("ip route {verb} {kind} {REPLICA} table local");
            no_read_fails_while(&route("add"), &route("del")).await?;
        }
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn no_read_fails_while_packets_are_dropped_or_rejected() -> Tested {
    if is_inside("namespace::no_read_fails_while_packets_are_dropped_or_rejected").await? {
        shell("nft 'add chain ip faults way { type filter hook output priority 0; }'")?;
        for fate in ["tcp dport PORT drop", "tcp sport PORT drop", "tcp dport PORT reject with tcp reset"] {
            let rule = format!("nft add rule ip faults way {fate}");
            no_read_fails_while(&rule, "nft flush chain ip faults way").await?;
        }
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_process_without_ports_opens_no_outage_and_recovers_with_them() -> Tested {
    if !is_inside("namespace::a_process_without_ports_opens_no_outage_and_recovers_with_them").await? {
        return Ok(());
    }
    let pair = Pair::start().await?;
    let pool = PoolSettings { max_size: 8, ..PoolSettings::default() };
    let router: Router<DeadpoolPostgres> = Router::start(pair.config().pool(pool).build()?).await?;
    let (primary, mut story) = (router.alias("primary")?, Story::of(&router));
    let held = primary.get().await?;
    // So few that those which this process has are in the way.
    shell(&format!("echo '40000 40001' > {PORTS}"))?;
    let mut ports = Vec::new();
    while let Ok(port) = tokio::net::TcpStream::connect((pair.primary().host(), pair.primary().port())).await {
        ports.push(port);
    }
    let refused = soon("a refusal", primary.get()).await?.expect_err("it takes a port");
    assert!(refused.is_unavailable() && refused.to_string().contains("os error 99"), "{refused}");
    assert!(primary.report(&io::Error::from(io::ErrorKind::ConnectionRefused)));
    story.until("primary", "ping_inconclusive").await?;
    held.simple_query("SELECT 1").await?;
    shell(&format!("echo '40000 50000' > {PORTS}"))?;
    drop(ports);
    pinged(&router, &primary).await?;
    soon("a connection", primary.get()).await??.simple_query("SELECT 1").await?;
    assert_eq!(story.so_far("primary").await, ["ping_inconclusive"]);
    Ok(())
}
