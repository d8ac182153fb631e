//! `pgdetour read`: one read through the router, as an application makes it. For scripts, probes and experiments.

use std::{
    fmt,
    future::Future,
    io::{self, Write},
    path::PathBuf,
    time::Duration,
};

use pgdetour::{
    Config, Router,
    config::{AliasKind, AliasName, Role},
    health::Cause,
};
use serde_json::json;

use crate::{
    clock,
    exit::{EXIT_CODES, Exit},
    log,
    time::brief,
};

const EXAMPLES: &str = "\
Examples:
  pgdetour read                          reads pgdetour.toml, then PGDETOUR_...
  pgdetour read prod.toml --alias reports
  pgdetour read --json | jq .server      who answered";

/// Reads once through the router, as an application does, and says who answered
///
/// Starts a router, runs one `read` of `SELECT 1` through it, and says who answered.
///
/// Exit code 1 if nobody did.
#[derive(Debug, clap::Args)]
#[command(after_help = format!("{EXAMPLES}\n\n{EXIT_CODES}"))]
pub(crate) struct Args {
    /// The configuration
    #[arg(value_name = "FILE", default_value = "pgdetour.toml")]
    file: PathBuf,

    /// The alias to read through; default the first replica, else the first alias
    #[arg(long, value_name = "NAME")]
    alias: Option<String>,

    /// One JSON object on standard output, and nothing else there
    #[arg(long)]
    json: bool,
}

/// Who answered.
#[derive(Debug)]
struct Answer {
    alias: AliasName,
    server: AliasName,
    detour: bool,
    took: Duration,
}

/// Reads, until done or interrupted.
pub(crate) async fn run(args: &Args, interrupted: impl Future<Output = ()>) -> Exit {
    log::log_to_errors(clock::now());
    tokio::select! {
        exit = read_once(args) => exit,
        () = interrupted => Exit::Interrupted,
    }
}

async fn read_once(args: &Args) -> Exit {
    let config = match Config::from_file(&args.file) {
        Ok(config) => config,
        Err(error) => return refuse(args, Exit::Usage, &error),
    };
    let Some(name) = chosen(&config, args.alias.as_deref()) else {
        return refuse(
            args,
            Exit::Usage,
            &format!("there is no alias {:?}", args.alias.as_deref().unwrap_or_default()),
        );
    };
    match through(config, name).await {
        Ok(Answer { alias, server, detour, took }) if args.json => {
            let took = (took.as_secs_f64() * 1e6).round() / 1e3;
            let answer = json!({
                "fine": true, "alias": alias.as_str(), "server": server.as_str(), "detour": detour, "took_ms": took,
            });
            say(&format!("{answer:#}"));
            Exit::Fine
        }
        Ok(Answer { alias, server, detour, took }) => {
            let how = if detour { "on a detour" } else { "its own server" };
            say(&format!("{alias}: answered by {server}, {how}, in {}", brief(took)));
            Exit::Fine
        }
        Err(error) => refuse(args, Exit::Failed, &Cause::of(&error)),
    }
}

/// The alias that was asked for, else the first replica, else the first.
fn chosen(config: &Config, asked: Option<&str>) -> Option<AliasName> {
    let aliases = config.aliases();
    let is_replica = |kind: &AliasKind| matches!(kind, AliasKind::Server(server) if server.role == Role::Replica);
    let alias = match asked {
        Some(asked) => config.alias(asked),
        None => aliases.iter().find(|alias| is_replica(&alias.kind)).or(aliases.first()),
    };
    alias.map(|alias| alias.name.clone())
}

async fn through(config: Config, alias: AliasName) -> Result<Answer, pgdetour::Error> {
    let router: Router = Router::start(config).await?;
    let begun = clock::now();
    let read = router.alias(alias.as_str())?;
    let read = read.read(|lease| async move {
        lease.query_one("SELECT 1", &[]).await?;
        Ok::<_, tokio_postgres::Error>((lease.server().clone(), lease.is_detour()))
    });
    let read = read.await;
    let took = clock::now() - begun;
    router.shutdown().await;
    let (server, detour) = read?;
    Ok(Answer { alias, server, detour, took })
}

fn refuse(args: &Args, exit: Exit, why: &dyn fmt::Display) -> Exit {
    if args.json {
        say(&format!("{:#}", json!({ "fine": false, "error": why.to_string() })));
        return exit;
    }
    exit.because(why)
}

fn say(line: &str) {
    // Who closed standard output does not want it.
    let _ = writeln!(io::stdout(), "{line}");
}
