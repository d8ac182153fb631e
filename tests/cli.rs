//! The program keeps its promises: figures, exit codes, nothing left behind, no secret in what it prints.

#![cfg(all(feature = "cli", unix))]

use std::{
    fs,
    net::TcpStream,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::{Output, Stdio},
    time::Duration,
};

use pgdetour::testkit::Cluster;
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use tempfile::TempDir;
use tokio::{
    io::{AsyncBufReadExt, BufReader},
    process::Command,
    time::timeout,
};

/// Long enough for anything that is going to happen at all.
const SOON: Duration = Duration::from_secs(60);

const PASSWORD: &str = "tr0ub4dor-and-3";

fn pgdetour(args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_pgdetour"));
    command.args(args).env_remove("RUST_LOG").stdin(Stdio::null()).kill_on_drop(true);
    command
}

async fn run(args: &[&str]) -> Output {
    timeout(SOON, pgdetour(args).output()).await.expect("it ends").expect("it starts")
}

fn stdout(output: &Output) -> String {
    String::from_utf8(output.stdout.clone()).expect("text")
}

fn json(output: &Output) -> Value {
    serde_json::from_slice(&output.stdout).unwrap_or_else(|error| panic!("{error}: {output:?}"))
}

/// A directory for temporary files that the servers' user may enter.
fn temporary() -> TempDir {
    let dir = tempfile::tempdir().expect("a directory can be made");
    fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o711)).expect("it is ours");
    dir
}

/// Waits until nothing is in it: what a process leaves behind, its guard removes right after its end.
async fn empty(dir: &Path) {
    let emptied = async {
        while fs::read_dir(dir).expect("it is there").next().is_some() {
            tokio::task::yield_now().await;
        }
    };
    timeout(SOON, emptied).await.unwrap_or_else(|_| panic!("{} is not emptied", dir.display()));
}

/// A short demo: no read fails, all come back, and nothing is left behind.
async fn demo(fault: &str, rate: &str) -> Value {
    let dir = temporary();
    let times = ["--before", "300ms", "--outage", "700ms", "--after", "200ms", "--rate", rate];
    let mut command = pgdetour(&["demo", "--json", "--fault", fault]);
    let output = timeout(SOON, command.args(times).env("TMPDIR", dir.path()).output()).await;
    let output = output.expect("it ends").expect("it starts");
    let summary = json(&output);
    assert!(output.status.success(), "{summary:#}\n{}", String::from_utf8_lossy(&output.stderr));
    assert_eq!((&summary["failed"], &summary["came_back"]), (&0.into(), &true.into()), "{summary:#}");
    empty(dir.path()).await;
    summary
}

/// A demo of a fault that is an outage: it is seen, and its end too.
async fn outage(fault: &str) {
    let summary = demo(fault, "100").await;
    assert_eq!(summary["outages"], 1, "{summary:#}");
    assert!(summary["detoured"].as_u64() > Some(0), "{summary:#}");
    assert!(summary["time_to_detect_ms"].is_number() && summary["time_to_return_ms"].is_number(), "{summary:#}");
}

#[tokio::test]
async fn no_read_fails_when_the_replica_s_postmaster_is_killed() {
    outage("kill").await;
}

#[tokio::test]
async fn no_read_fails_when_all_of_the_replica_is_killed() {
    outage("crash").await;
}

#[tokio::test]
async fn no_read_fails_when_the_replica_is_shut_down() {
    outage("stop").await;
}

#[tokio::test]
async fn no_read_fails_when_the_replica_is_shut_down_at_once() {
    outage("immediate").await;
}

#[tokio::test]
async fn no_read_fails_when_the_replica_freezes() {
    outage("freeze").await;
}

#[tokio::test]
async fn sessions_that_are_cut_are_no_outage() {
    // Few enough that no read is cut off twice: sessions end one after the other, and each has one retry.
    let summary = demo("terminate", "20").await;
    assert_eq!((&summary["outages"], &summary["detoured"]), (&0.into(), &0.into()), "{summary:#}");
    assert!(summary["sessions_cut"].as_u64().unwrap() > 0, "{summary:#}");
}

#[tokio::test]
async fn a_demo_that_is_piped_tells_its_story_without_an_escape() {
    let output = run(&["demo", "--before", "300ms", "--outage", "300ms", "--after", "200ms"]).await;
    let text = stdout(&output);
    assert!(output.status.success(), "{text}");
    assert!(!text.contains('\x1b'), "{text}");
    for part in ["fault:", "outage opened", "recovered", "0.0 s", "longest gap", "time to return"] {
        assert!(text.contains(part), "no {part:?} in {text}");
    }
}

#[tokio::test]
async fn a_demo_that_is_interrupted_leaves_nothing_behind() {
    for signal in [Signal::INT, Signal::TERM] {
        let dir = temporary();
        let mut child =
            pgdetour(&["demo"]).env("TMPDIR", dir.path()).stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let mut ports: Vec<u16> = Vec::new();
        while let Some(line) = timeout(SOON, lines.next_line()).await.unwrap().unwrap() {
            let numbers =
                line.split("127.0.0.1:").skip(1).filter_map(|rest| rest.split([',', ' ']).next()?.parse::<u16>().ok());
            ports.extend(numbers);
            if line.contains("fault:") {
                break;
            }
        }
        assert_eq!(ports.len(), 2, "the ports of both servers are told");
        let pid = child.id().and_then(|pid| Pid::from_raw(pid.try_into().unwrap())).unwrap();
        kill_process(pid, signal).unwrap();
        let status = timeout(SOON, child.wait()).await.expect("it ends").unwrap();
        assert_eq!(status.code(), Some(130));
        assert!(ports.iter().all(|port| TcpStream::connect(("127.0.0.1", *port)).is_err()), "a server still runs");
        empty(dir.path()).await;
    }
}

#[tokio::test]
async fn a_demo_without_postgresql_says_what_to_do() {
    let mut command = pgdetour(&["demo"]);
    let output = command.env("PG_BIN", "/nowhere").output().await.unwrap();
    assert_eq!(output.status.code(), Some(3));
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(said.contains("PG_BIN is /nowhere"), "{said}");
}

fn file(dir: &TempDir, text: &str) -> PathBuf {
    let path = dir.path().join("pgdetour.toml");
    fs::write(&path, text).expect("the directory is ours");
    path
}

#[tokio::test]
async fn check_tells_every_mistake_with_its_line_and_ends_with_2() {
    let dir = tempfile::tempdir().unwrap();
    let path = file(&dir, "ping_timeuot = \"1s\"\n[alias.replica]\nrole = \"replcia\"\nurl = \"postgres://h\"\n");
    let path = path.to_str().unwrap();
    let output = run(&["check", path]).await;
    assert_eq!((output.status.code(), stdout(&output).as_str()), (Some(2), ""));
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(said.contains(&format!("{path}:1: ")) && said.contains(&format!("{path}:3: ")), "{said}");

    let output = run(&["check", path, "--json"]).await;
    let report = json(&output);
    assert_eq!((output.status.code(), &report["fine"]), (Some(2), &false.into()));
    assert_eq!(report["mistakes"][0]["key"], "ping_timeuot");
}

#[tokio::test]
async fn check_tells_routes_and_worst_cases() {
    let dir = tempfile::tempdir().unwrap();
    let text = "[alias.primary]\nrole = \"primary\"\nurl = \"postgres://a@127.0.0.1:1/d\"\n\
                [alias.replica]\nrole = \"replica\"\nurl = \"postgres://a@127.0.0.1:2/d\"\n";
    let path = file(&dir, text);
    let path = path.to_str().unwrap();
    let text = stdout(&run(&["check", path]).await);
    assert!(text.contains("replica (at most 16 connections) -> primary (8)"), "{text}");
    assert!(text.contains("8.5 s when busy, 2m 15s when idle"), "{text}");
    let report = json(&run(&["check", path, "--json"]).await);
    assert_eq!(report["aliases"][1]["failover"][0], "primary");
    assert_eq!(report["aliases"][0]["server"]["connections"]["total"], 16 + 8 + 3);
}

#[tokio::test]
async fn check_asks_the_servers_and_prints_no_password() {
    let cluster = Cluster::builder().replicas(1).user("app").password(PASSWORD).start().await.unwrap();
    let dir = tempfile::tempdir().unwrap();
    let alias = |name, url| format!("[alias.{name}]\nrole = \"{name}\"\nurl = \"{url}\"\n");
    let declared = alias("primary", cluster.primary().url()) + &alias("replica", cluster.replica(0).url());
    let path = file(&dir, &declared);
    let args = ["check", path.to_str().unwrap(), "--connect", "--json"];

    let output = run(&args).await;
    let report = json(&output);
    assert_eq!((output.status.code(), &report["fine"]), (Some(0), &true.into()), "{report:#}");
    let now = |alias: usize| &report["aliases"][alias]["server"]["now"];
    assert_eq!((&now(0)["role"], &now(1)["role"]), (&"primary".into(), &"replica".into()), "{report:#}");
    assert!(now(1)["bytes_behind"].is_u64() && now(1)["system"] == now(0)["system"], "{report:#}");

    cluster.replica(0).kill().await.unwrap();
    let output = run(&args).await;
    let report = json(&output);
    assert_eq!((output.status.code(), &report["fine"]), (Some(1), &false.into()), "{report:#}");
    assert_eq!(report["aliases"][1]["server"]["now"]["usable"], false);

    fs::write(&path, declared.replace("tr0ub4dor", "wrong")).unwrap();
    let wrong = run(&args[..3]).await;
    assert_eq!(wrong.status.code(), Some(1));
    let said = format!("{output:?}{wrong:?}");
    assert!(said.contains("password authentication failed"), "{said}");
    assert!(!said.contains("tr0ub4dor") && !said.contains("wrong"), "{said}");
}

#[tokio::test]
async fn the_exit_codes_are_told_and_wrong_usage_ends_with_2() {
    for args in [&["--help"][..], &["demo", "--help"], &["check", "--help"], &["migrate", "--help"]] {
        assert!(stdout(&run(args).await).contains("Exit codes:"), "{args:?}");
    }
    assert_eq!(run(&["demo", "--outage", "3x"]).await.status.code(), Some(2));
    let version = stdout(&run(&["--version"]).await);
    assert_eq!(version.trim(), concat!("pgdetour ", env!("CARGO_PKG_VERSION")));
}
