//! A drill breaks servers, tells what an application saw of it, and leaves nothing broken behind.

#![cfg(all(feature = "cli", unix))]

#[path = "drill/held.rs"]
mod held;

use std::{fs, os::unix::fs::PermissionsExt, path::Path, process::Output, process::Stdio, time::Duration};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use tempfile::TempDir;
use tokio::{process::Command, time::timeout};

use self::held::Held;

/// Long enough for anything that is going to happen at all.
const SOON: Duration = Duration::from_secs(60);
/// A drill that is short.
const SHORT: [&str; 6] = ["--before", "300ms", "--outage", "1500ms", "--after", "100ms"];

fn pgdetour(args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_pgdetour"));
    command.args(args).env_remove("RUST_LOG").stdin(Stdio::null()).kill_on_drop(true);
    command
}

async fn drill(args: &[&str]) -> Output {
    let args = [&["drill"], args, &SHORT].concat();
    timeout(SOON, pgdetour(&args).output()).await.expect("it ends").expect("it starts")
}

fn json(output: &Output) -> Value {
    serde_json::from_slice(&output.stdout).unwrap_or_else(|error| panic!("{error}: {output:?}"))
}

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

fn temporary() -> TempDir {
    let dir = tempfile::tempdir().expect("a directory can be made");
    // The servers' user has to pass.
    fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o711)).expect("it is ours");
    dir
}

fn in_dir(dir: &TempDir, name: &str) -> String {
    dir.path().join(name).to_str().expect("it is text").to_owned()
}

/// The text of a JUnit file, which is XML.
fn cases(path: &str) -> Vec<(String, Option<String>)> {
    let text = fs::read_to_string(path).expect("the report is there");
    let xml = roxmltree::Document::parse(&text).unwrap_or_else(|error| panic!("{error}: {text}"));
    let cases = xml.descendants().filter(|node| node.has_tag_name("testcase"));
    let failure = |case: roxmltree::Node| {
        let failure = case.children().find(|node| node.has_tag_name("failure") || node.has_tag_name("skipped"));
        Some(failure?.attribute("message")?.to_owned())
    };
    cases.map(|case| (case.attribute("name").expect("a case has a name").to_owned(), failure(case))).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_drill_on_servers_of_its_own_passes_and_leaves_nothing_behind() {
    let (dir, reports) = (temporary(), temporary());
    let junit = in_dir(&reports, "drill.xml");
    let faults = "kill,freeze,terminate,kill@primary";
    let limits = ["--max-failed", "0", "--max-detection", "5s", "--max-return", "10s", "--max-gap", "5s"];
    let args = [&["drill", "--json", "--junit", &junit, "--faults", faults], &limits[..], &SHORT].concat();
    let output = timeout(SOON, pgdetour(&args).env("TMPDIR", dir.path()).output()).await.unwrap().unwrap();
    let report = json(&output);
    assert!(output.status.success(), "{report:#}\n{}", said(&output));
    let told = report["faults"].as_array().unwrap();
    for fault in told {
        let is_outage = fault["fault"] != "terminate";
        assert_eq!((fault["fine"].as_bool(), fault["detection_ms"].is_number()), (Some(true), is_outage), "{fault:#}");
        let writes = &fault["writes"];
        assert_eq!((&writes["lost"], &writes["doubled"], &writes["denied"]), (&0.into(), &0.into(), &0.into()));
        assert!(
            writes["acknowledged"].as_u64() > Some(0) && fault["reads"]["get"]["made"].as_u64() > Some(0),
            "{fault:#}"
        );
    }
    assert!(told[0]["reads"]["detoured"].as_u64() > Some(0), "{report:#}");
    assert!(
        told[3]["writes"]["undone"].as_u64() > Some(0),
        "writes are refused while their primary is out: {report:#}"
    );
    let names: Vec<_> = cases(&junit).into_iter().collect();
    let expected = ["kill@replica", "freeze@replica", "terminate@replica", "kill@primary"];
    assert_eq!(names, expected.map(|name| (name.to_owned(), None)));
    let emptied = async {
        while fs::read_dir(dir.path()).unwrap().next().is_some() {
            tokio::task::yield_now().await;
        }
    };
    timeout(SOON, emptied).await.expect("no server and no file is left");
}

#[tokio::test(flavor = "multi_thread")]
async fn past_a_limit_a_drill_ends_with_1_and_both_reports_say_so() {
    let dir = tempfile::tempdir().unwrap();
    let junit = in_dir(&dir, "drill.xml");
    // Two reads are 10 ms apart when all is well.
    let output = drill(&["--faults", "kill", "--max-gap", "1ms", "--reads-only", "--junit", &junit]).await;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert_eq!(output.status.code(), Some(1), "{text}");
    assert!(text.contains("past the limit of 1.0 ms") && text.contains("0 of 1 faults went well"), "{text}");
    assert!(!text.contains('\x1b'), "what is piped has no escapes: {text:?}");
    let [(name, Some(failure))] = &cases(&junit)[..] else { panic!("one failure: {:?}", cases(&junit)) };
    assert!(name == "kill@replica" && failure.contains("longest gap"), "{name}: {failure}");
}

#[tokio::test(flavor = "multi_thread")]
async fn commands_break_and_repair_servers_of_others_and_the_ledger_is_gone_afterwards() {
    let held = Held::start().await;
    let file = held.write("drill.toml", &held.drill_file());
    let output = drill(&[&file, "--json", "--yes", "--max-failed", "0", "--max-detection", "5s"]).await;
    let report = json(&output);
    assert!(output.status.success(), "{report:#}\n{}", said(&output));
    let [kill, freeze] = report["faults"].as_array().unwrap().as_slice() else { panic!("{report:#}") };
    assert!(kill["reads"]["detoured"].as_u64() > Some(0) && kill["return_ms"].is_number(), "{kill:#}");
    assert!(freeze["writes"]["undone"].as_u64() > Some(0), "a frozen primary takes no writes: {freeze:#}");
    let left = "SELECT count(*) FROM pg_class WHERE relname LIKE 'drill%'";
    assert_eq!((held.number(left).await, held.number("SELECT count(*) FROM pgdetour.writes").await), (0, 0));
    assert_eq!(held.all_run().await, 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn without_yes_a_drill_says_what_it_would_break_and_touches_nothing() {
    let held = Held::start().await;
    let touched = held.path("touched");
    let inject = format!("kill=touch {touched}");
    let output = drill(&["--config", &held.config, "--inject", &inject]).await;
    assert_eq!(output.status.code(), Some(2));
    let told = said(&output);
    assert!(told.contains("kill@replica: touch") && told.contains("--yes"), "{told}");
    assert!(!Path::new(&touched).exists());
    assert_eq!(held.number("SELECT count(*) FROM pg_class WHERE relname LIKE 'drill%'").await, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_command_that_fails_hangs_or_is_named_to_do_harm_is_told_and_the_drill_goes_on() {
    let held = Held::start().await;
    let junit = held.path("drill.xml");
    let fails = "</testcase>\x1b[2J<&=echo no route to host >&2; exit 7";
    let args = ["--config", &held.config, "--yes", "--junit", &junit, "--reads-only", "--hook-timeout", "500ms"];
    let hooks = [
        "--inject",
        fails,
        "--inject",
        "hang=sleep 600",
        "--inject",
        "gone=no-such-command-here",
        "--repair",
        "gone=true",
    ];
    let output = drill(&[&args[..], &hooks].concat()).await;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert_eq!(output.status.code(), Some(1), "{text}\n{}", said(&output));
    for part in [
        "exit status: 7: no route to host",
        "did not end within 500ms and was killed",
        "exit status: 127",
        r"\u{1b}[2J",
    ] {
        assert!(text.contains(part), "no {part:?} in {text}");
    }
    assert!(!text.contains('\x1b'), "{text:?}");
    let cases = cases(&junit);
    assert_eq!(cases.len(), 3);
    assert!(cases[0].0.starts_with("</testcase>") && cases.iter().all(|(_, failure)| failure.is_some()), "{cases:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_drill_that_is_interrupted_repairs_what_it_broke_and_drops_its_table() {
    for signal in [Signal::INT, Signal::TERM] {
        let held = Held::start().await;
        let broken = held.path("broken");
        let inject = format!("kill={} && touch {broken}", held.command("kill replica"));
        let repair = format!("kill={}", held.command("repair replica"));
        let args =
            ["drill", "--config", &held.config, "--inject", &inject, "--repair", &repair, "--yes", "--outage", "10m"];
        let child = pgdetour(&args).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let injected = async {
            while !Path::new(&broken).exists() {
                tokio::task::yield_now().await;
            }
        };
        timeout(SOON, injected).await.expect("the fault is injected");
        let pid = child.id().and_then(|pid| Pid::from_raw(pid.try_into().unwrap())).unwrap();
        kill_process(pid, signal).unwrap();
        let output = timeout(SOON, child.wait_with_output()).await.expect("it ends").unwrap();
        assert_eq!(output.status.code(), Some(130), "{}", said(&output));
        assert!(said(&output).contains("replica answers again"), "{}", said(&output));
        assert_eq!(held.all_run().await, 2);
        assert_eq!(held.number("SELECT count(*) FROM pg_class WHERE relname LIKE 'drill%'").await, 0);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_repair_leaves_broken_is_told_and_no_fault_comes_after_it() {
    let held = Held::start().await;
    let kill = held.command("kill replica");
    let (inject, junit) = (format!("kill={kill}"), held.path("drill.xml"));
    let args = ["--config", &held.config, "--inject", &inject, "--repair", "kill=echo not today; exit 4", "--yes"];
    let more = ["--inject", "never=true", "--reads-only", "--patience", "1s", "--junit", &junit];
    let output = drill(&[&args[..], &more].concat()).await;
    assert_eq!(output.status.code(), Some(1), "{}", said(&output));
    let told = said(&output);
    assert!(told.contains("replica IS STILL BROKEN") && told.contains("exit status: 4: not today"), "{told}");
    let cases = cases(&junit);
    assert!(cases[1].1.as_ref().is_some_and(|why| why.contains("ended before it")), "{cases:?}");

    let again = drill(&["--config", &held.config, "--inject", "never=true", "--yes", "--reads-only"]).await;
    assert_eq!(again.status.code(), Some(3), "a server that is down before the drill is none of its doing");
    assert!(said(&again).contains("replica is down"), "{}", said(&again));
}

#[tokio::test]
async fn what_cannot_be_drilled_is_refused_before_anything_is_started() {
    let cases: [(&[&str], &str); 5] = [
        (&["--faults", "quake"], "no fault is named quake"),
        (&["--config", "x.toml", "--faults", "kill"], "--inject 'kill=...'"),
        (&["--inject", "kill"], "FAULT=COMMAND"),
        (&["--repair", "kill=true"], "there is no --inject kill"),
        (&["--compose", "x.yml", "--faults", "black-hole"], "Compose has no command for black-hole"),
    ];
    for (args, why) in cases {
        let output = drill(args).await;
        assert!(output.status.code() == Some(2) && said(&output).contains(why), "{args:?}: {}", said(&output));
    }
}
