//! The commands that look at a router and have it act: against `pgdetour serve` over real servers, and by a router of their own.

#![cfg(all(feature = "cli", unix))]

use std::{
    error::Error,
    fs::{self, File},
    os::unix::fs::PermissionsExt,
    path::Path,
    process::{Output, Stdio},
    time::Duration,
};

use pgdetour::testkit::Cluster;
use rustix::{
    process::{Pid, Signal, kill_process},
    pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt},
    termios::{LocalModes, Winsize, tcgetattr, tcsetwinsize},
};
use serde_json::Value;
use tempfile::TempDir;
use tokio::{
    io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader, Lines},
    net::TcpListener,
    process::{Child, ChildStdout, Command},
    sync::mpsc,
    time::timeout,
};

type Result<T = (), E = Box<dyn Error>> = std::result::Result<T, E>;

/// Long enough for anything that is going to happen at all.
const SOON: Duration = Duration::from_secs(60);

const TOKEN: &str = "0123456789abcdef0123456789abcdef";

fn pgdetour(args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_pgdetour"));
    command.args(args).env_remove("RUST_LOG").stdin(Stdio::null()).kill_on_drop(true);
    command
}

async fn run(args: &[&str]) -> Result<Output> {
    Ok(timeout(SOON, pgdetour(args).output()).await??)
}

/// What it says on either output, and how it ends.
async fn told(args: &[&str]) -> Result<(Option<i32>, String)> {
    let output = run(args).await?;
    let said = String::from_utf8(output.stdout)? + std::str::from_utf8(&output.stderr)?;
    Ok((output.status.code(), said))
}

async fn json(args: &[&str]) -> Result<(Option<i32>, Value)> {
    let output = run(args).await?;
    let value = serde_json::from_slice(&output.stdout).map_err(|error| format!("{error}: {output:?}"))?;
    Ok((output.status.code(), value))
}

/// A pair under `pgdetour serve`.
struct Stage {
    cluster: Cluster,
    dir: TempDir,
    url: String,
    serve: Child,
}

impl Stage {
    /// With a token, and with details for everybody or for its bearer alone.
    async fn new(public: bool) -> Result<Self> {
        let cluster = Cluster::start(1).await?;
        let dir = tempfile::tempdir()?;
        let alias = |name, url| format!("[alias.{name}]\nrole = \"{name}\"\nurl = \"{url}\"\n");
        let servers = alias("primary", cluster.primary().url()) + &alias("replica", cluster.replica(0).url());
        let (config, token) = (dir.path().join("pgdetour.toml"), dir.path().join("token"));
        fs::write(&config, format!("pace = \"brisk\"\n{servers}"))?;
        secret(&token, TOKEN)?;
        let mut serve = pgdetour(&["serve", "--listen", "127.0.0.1:0", "--token-file"]);
        serve.arg(&token).arg(&config).args(public.then_some("--public")).stdout(Stdio::piped()).stderr(Stdio::null());
        let mut serve = serve.spawn()?;
        let mut lines = BufReader::new(serve.stdout.take().ok_or("no output")?).lines();
        let line = timeout(SOON, lines.next_line()).await??.ok_or("it ended")?;
        let url = line.split_once("/ (").ok_or("no address")?.0.to_owned();
        Ok(Self { cluster, dir, url, serve })
    }

    fn path(&self, name: &str) -> String {
        self.dir.path().join(name).to_string_lossy().into_owned()
    }

    /// Asks until it says so: a server takes a moment to be found out.
    async fn until(&self, args: &[&str], says: impl Fn(&Value) -> bool) -> Result<(Option<i32>, Value)> {
        let asking = async {
            loop {
                let (code, value) = json(args).await?;
                if says(&value) {
                    return Ok((code, value));
                }
            }
        };
        timeout(SOON, asking).await?
    }
}

fn secret(path: &Path, text: &str) -> Result {
    fs::write(path, text)?;
    Ok(fs::set_permissions(path, fs::Permissions::from_mode(0o600))?)
}

#[tokio::test]
async fn status_and_explain_tell_of_a_router_that_runs_and_by_pings_of_their_own() -> Result {
    let stage = Stage::new(true).await?;
    let (url, config) = (stage.url.as_str(), stage.path("pgdetour.toml"));
    for whose in [&["--url", url][..], &[config.as_str()]] {
        let status = [&["status"], whose].concat();
        let (code, said) = told(&status).await?;
        assert_eq!(code, Some(0), "{said}");
        assert!(said.contains("NORMAL, reads, writes") && !said.contains('\x1b'), "{said}");
        let (code, said) = told(&[&["explain", "replica"], whose].concat()).await?;
        assert_eq!(code, Some(0), "{said}");
        assert!(said.starts_with("replica goes to replica\n") && said.contains("2.  primary"), "{said}");
    }
    stage.cluster.replica(0).kill().await?;
    for whose in [&["--url", url][..], &[config.as_str()]] {
        let status = [&["status", "--json"], whose].concat();
        let (code, status) = stage.until(&status, |status| status["mode"] == "degraded").await?;
        assert_eq!((code, &status["aliases"][1]["target"]), (Some(1), &"primary".into()), "{status:#}");
        let (code, said) = told(&[&["status"], whose].concat()).await?;
        assert_eq!(code, Some(1), "{said}");
        assert!(said.contains("primary (detour)") && said.contains("down"), "{said}");
        let (code, plan) = json(&[&["explain", "replica", "--json"], whose].concat()).await?;
        assert_eq!((code, &plan["route"][0]["reason"]), (Some(0), &"down".into()), "{plan:#}");
    }
    Ok(())
}

#[tokio::test]
async fn an_alias_is_drained_and_comes_back_and_a_primary_is_not() -> Result {
    let stage = Stage::new(true).await?;
    let token = stage.path("token");
    let on = ["--url", stage.url.as_str(), "--token-file", token.as_str()];
    let act = |command: &'static [&'static str]| [command, &on].concat();

    let (code, done) = json(&act(&["drain", "replica", "--for", "10m", "--json"])).await?;
    assert_eq!((code, &done["changed"]), (Some(0), &true.into()), "{done:#}");
    let (code, said) = told(&["explain", "replica", "--url", &stage.url]).await?;
    assert_eq!(code, Some(0), "{said}");
    assert!(said.contains("replica goes to primary (detour)") && said.contains("drained"), "{said}");
    let (_, status) = told(&["status", "--url", &stage.url]).await?;
    assert!(status.contains("drained by 127.0.0.1 for 9m"), "{status}");

    let (code, said) = told(&act(&["undrain", "replica"])).await?;
    assert_eq!((code, said.as_str()), (Some(0), "replica is drained no more\n"));
    let (code, said) = told(&act(&["undrain", "replica"])).await?;
    assert_eq!((code, said.as_str()), (Some(0), "replica was not drained\n"));
    assert_eq!(told(&["status", "--url", &stage.url]).await?.0, Some(0));

    for command in [&["ping", "primary"][..], &["end-hold", "replica"]] {
        let (code, said) = told(&[command, &on].concat()).await?;
        assert_eq!(code, Some(0), "{said}");
    }
    let (code, said) = told(&act(&["drain", "primary"])).await?;
    assert_eq!(code, Some(1), "{said}");
    assert!(said.contains("declared a primary"), "{said}");
    let (code, said) = told(&act(&["drain", "replcia"])).await?;
    assert_eq!(code, Some(2), "{said}");
    assert!(said.contains("there are primary, replica"), "{said}");
    Ok(())
}

#[tokio::test]
async fn what_keeps_a_router_from_being_asked_is_told_in_words() -> Result {
    let stage = Stage::new(false).await?;
    let (url, wrong, open) = (stage.url.as_str(), stage.path("wrong"), stage.path("open"));
    secret(wrong.as_ref(), "fedcba9876543210fedcba9876543210")?;
    fs::write(&open, TOKEN)?;
    fs::set_permissions(&open, fs::Permissions::from_mode(0o644))?;
    let nested = format!("{url}/pgdetour");
    let free = TcpListener::bind("127.0.0.1:0").await?;
    let nobody = format!("http://{}", free.local_addr()?);
    drop(free);
    for (args, code, part) in [
        (&["status", "--url", url][..], 3, "wants the token"),
        (&["status", "--url", url, "--token-file", &wrong], 3, "another token"),
        (&["status", "--url", url, "--token-file", &open], 2, "open"),
        (&["drain", "replica", "--url", url, "--token-file", &wrong], 3, "another token"),
        (&["status", "--url", &nested], 3, "no endpoints of pgdetour"),
        (&["status", "--url", &nobody], 3, "cannot be reached"),
        (&["status", "--url", "https://127.0.0.1:1"], 2, "https is not spoken"),
        (&["status", "nowhere.toml"], 2, "nowhere.toml"),
        (&["drain", "replica", "--for", "25h", "--token-file", &open], 2, "24h at most"),
    ] {
        let (ended, said) = told(args).await?;
        assert_eq!(ended, Some(code), "{args:?}: {said}");
        assert!(said.contains(part) && !said.contains(TOKEN), "{args:?}: {said}");
    }
    let (code, said) = json(&["status", "--url", url, "--json"]).await?;
    assert_eq!(code, Some(3));
    assert!(said["error"].as_str().is_some_and(|why| why.contains("wants the token")), "{said}");
    Ok(())
}

/// A watch whose output is no terminal, and its lines.
fn watch(args: &[&str]) -> Result<(Child, Lines<BufReader<ChildStdout>>)> {
    let mut child = pgdetour(&[&["watch"], args].concat()).stdout(Stdio::piped()).spawn()?;
    let lines = BufReader::new(child.stdout.take().ok_or("no output")?).lines();
    Ok((child, lines))
}

/// The next line with this in it.
async fn line(lines: &mut Lines<BufReader<ChildStdout>>, part: &str) -> Result<String> {
    let reading = async {
        while let Some(line) = lines.next_line().await? {
            if line.contains(part) {
                return Ok(line);
            }
        }
        Err(format!("it ended without {part:?}").into())
    };
    timeout(SOON, reading).await.map_err(|_| format!("no line with {part:?}"))?
}

async fn interrupt(mut child: Child) -> Result<Option<i32>> {
    let pid = child.id().and_then(|id| Pid::from_raw(id.cast_signed())).ok_or("it has ended")?;
    kill_process(pid, Signal::INT)?;
    Ok(timeout(SOON, child.wait()).await??.code())
}

#[tokio::test]
async fn a_watch_that_is_piped_writes_a_line_for_each_event() -> Result {
    let mut stage = Stage::new(true).await?;
    let (url, config) = (stage.url.clone(), stage.path("pgdetour.toml"));
    let (elsewhere, mut of_elsewhere) = watch(&["--url", &url, "--json"])?;
    let (own, mut of_own) = watch(&[&config])?;
    let first: Value = serde_json::from_str(&line(&mut of_elsewhere, "{").await?)?;
    assert_eq!((&first["type"], &first["mode"]), (&"status".into(), &"normal".into()), "{first:#}");
    assert!(line(&mut of_own, "Z  ").await?.contains("NORMAL, reads, writes"));

    stage.cluster.replica(0).kill().await?;
    let opened: Value = serde_json::from_str(&line(&mut of_elsewhere, "outage_opened").await?)?;
    assert_eq!((&opened["type"], &opened["detour"]), (&"event".into(), &"primary".into()), "{opened:#}");
    let opened = line(&mut of_own, "down").await?;
    assert!(opened.contains("ERROR  replica: down: ") && !opened.contains('\x1b'), "{opened}");
    stage.cluster.replica(0).start().await?;
    line(&mut of_elsewhere, "outage_closed").await?;
    line(&mut of_own, "up again after").await?;

    stage.serve.kill().await?;
    let lost: Value = serde_json::from_str(&line(&mut of_elsewhere, "lost").await?)?;
    assert!(lost["error"].as_str().is_some_and(|why| why.contains(&url)), "{lost:#}");
    assert_eq!((interrupt(elsewhere).await?, interrupt(own).await?), (Some(130), Some(130)));

    let (code, said) = told(&["watch", "--url", &url]).await?;
    assert_eq!(code, Some(3), "{said}");
    assert!(said.contains("cannot be reached"), "{said}");
    Ok(())
}

/// A terminal of this size: the end that a person has, and the program's.
fn terminal(columns: u16, rows: u16) -> Result<(File, File)> {
    let person = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY)?;
    grantpt(&person)?;
    unlockpt(&person)?;
    let name = ptsname(&person, Vec::new())?;
    let program = File::options().read(true).write(true).open(name.to_str()?)?;
    tcsetwinsize(&person, Winsize { ws_row: rows, ws_col: columns, ws_xpixel: 0, ws_ypixel: 0 })?;
    Ok((File::from(person), program))
}

#[tokio::test]
async fn a_watch_on_a_terminal_draws_what_is_so_and_leaves_it_as_it_was() -> Result {
    let stage = Stage::new(true).await?;
    let (mut person, program) = terminal(100, 30)?;
    let mut command = pgdetour(&["watch", "--url", &stage.url]);
    command.env("TERM", "xterm-256color").env_remove("NO_COLOR");
    let mut child =
        command.stdin(Stdio::from(program.try_clone()?)).stdout(Stdio::from(program.try_clone()?)).spawn()?;
    let mut keyboard = person.try_clone()?;
    let (show, mut shown) = mpsc::unbounded_channel();
    // Ends when the terminal does.
    std::thread::spawn(move || {
        let mut bytes = [0; 4096];
        while let Ok(read @ 1..) = std::io::Read::read(&mut person, &mut bytes) {
            let _ = show.send(String::from_utf8_lossy(&bytes[..read]).into_owned());
        }
    });
    let mut seen = String::new();
    for part in ["\x1b[?1049h", "NORMAL", "q ends"] {
        while !seen.contains(part) {
            seen += &timeout(SOON, shown.recv()).await?.ok_or("it ended")?;
        }
    }
    assert!(!tcgetattr(&program)?.local_modes.intersects(LocalModes::ICANON | LocalModes::ECHO), "keys come at once");
    stage.cluster.replica(0).kill().await?;
    while !seen.contains("primary (detour)") {
        seen += &timeout(SOON, shown.recv()).await?.ok_or("it ended")?;
    }
    assert_eq!(seen.matches("LAST 10 MINUTES").count(), 1, "what has not changed is drawn once");
    std::io::Write::write_all(&mut keyboard, b"q")?;
    assert_eq!(timeout(SOON, child.wait()).await??.code(), Some(0));
    for part in ["\x1b[?25h", "\x1b[?1049l"] {
        while !seen.contains(part) {
            seen += &timeout(SOON, shown.recv()).await?.ok_or("it ended")?;
        }
    }
    assert!(tcgetattr(&program)?.local_modes.contains(LocalModes::ICANON | LocalModes::ECHO));
    Ok(())
}

/// Answers every request with this.
async fn answering(answer: String) -> Result<String> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let url = format!("http://{}", listener.local_addr()?);
    tokio::spawn(async move {
        while let Ok((mut socket, _)) = listener.accept().await {
            let answer = answer.clone();
            tokio::spawn(async move {
                let _ = socket.read(&mut [0; 4096]).await;
                let _ = socket.write_all(answer.as_bytes()).await;
            });
        }
    });
    Ok(url)
}

#[tokio::test]
async fn what_is_no_pgdetour_is_told_and_steers_no_terminal() -> Result {
    let body = |body: &str| format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{body}", body.len());
    let refusal = r#"{"error":"\u001b[2Jgone\u0007"}"#;
    for (answer, part) in [
        (body("<html>It works!"), "no pgdetour"),
        (body(r#"{"version": 99}"#), "use a newer one"),
        ("SSH-2.0-OpenSSH_9.9\r\n".to_owned(), "speaks no HTTP"),
        (
            format!("HTTP/1.1 500 x\r\ncontent-length: {}\r\n\r\n{refusal}", refusal.len()),
            "answers 500: \\u{1b}[2Jgone",
        ),
    ] {
        let url = answering(answer).await?;
        let (code, said) = told(&["status", "--url", &url]).await?;
        assert_eq!(code, Some(3), "{said}");
        assert!(said.contains(part) && !said.contains(['\x1b', '\x07']), "{said:?}");
    }
    Ok(())
}

#[tokio::test]
async fn every_command_teaches_completes_and_has_a_page() -> Result {
    let commands = [
        "demo", "status", "watch", "explain", "drain", "undrain", "ping", "end-hold", "serve", "report", "check",
        "read",
    ];
    let commands = [&commands[..], &["drill", "cluster", "migrate", "completions", "man"]].concat();
    let dir = tempfile::tempdir()?;
    assert_eq!(run(&["man", "--dir", &dir.path().to_string_lossy()]).await?.status.code(), Some(0));
    for command in &commands {
        assert!(dir.path().join(format!("pgdetour-{command}.1")).exists(), "{command} has no page");
        let (_, short) = told(&[command, "-h"]).await?;
        assert!(!short.is_empty());
    }
    // What the arguments' documentation says beyond its first line.
    for (command, part) in
        [("demo", "Starts a primary"), ("check", "at worst"), ("drain", "ends by itself"), ("drill", "Exit code 1")]
    {
        let (_, help) = told(&[command, "--help"]).await?;
        let words = help.split_whitespace().collect::<Vec<_>>().join(" ");
        assert!(words.contains(part), "{help}");
    }
    for shell in ["bash", "zsh", "fish"] {
        let (code, script) = told(&["completions", shell]).await?;
        assert_eq!(code, Some(0));
        assert!(commands.iter().all(|command| script.contains(command)), "{shell}");
    }
    Ok(())
}
