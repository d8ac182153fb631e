//! `pgdetour report`: the outages of a span of time, from the history that a primary keeps.

mod args;
mod print;

use std::{error::Error, future::Future, io, path::Path, time::Duration};

use pgdetour::{
    Config, Router,
    config::{AliasKind, AliasName, Role},
    history::{Report, SELECT, Scope, SeenOutage},
    observe::Stamp,
    plan::Chain,
};
use tokio_postgres::error::SqlState;

pub(crate) use self::args::Args;
use self::args::Format;
use crate::{clock, exit::Exit, log, paint::Paint};

/// Reports, until done or interrupted.
pub(crate) async fn run(args: &Args, interrupted: impl Future<Output = ()>) -> Exit {
    log::log_to_errors(clock::now());
    tokio::select! {
        exit = report(args) => exit,
        () = interrupted => Exit::Interrupted,
    }
}

async fn report(args: &Args) -> Exit {
    let config = match Config::from_file(&args.file) {
        Ok(config) => config,
        Err(error) => return Exit::Usage.because(&error),
    };
    let until = Stamp::from(clock::wall());
    let scope = match scope(&config, args, until) {
        Ok(scope) => scope,
        Err(why) => return Exit::Usage.because(&why),
    };
    let seen = match read(&config, scope.since, &args.file).await {
        Ok(seen) => seen,
        Err(error) => return Exit::Failed.because(&error),
    };
    let wanted = |one: &SeenOutage| args.name.as_ref().is_none_or(|name| one.outage.name == *name);
    let seen: Vec<_> = seen.into_iter().filter(wanted).collect();
    let report = Report::new(&seen, &scope);
    match args.format() {
        Format::Table => print::lines(&report, Paint::of(&io::stdout())).iter().for_each(|line| print::say(line)),
        Format::Json => print::say(&print::json(&report)),
        Format::Csv => print::csv(&report).iter().for_each(|line| print::say(line)),
    }
    Exit::Fine
}

/// What is looked at: an outage that is open is told of every `outage_log_frequency`, so one that was not for twice as long is of a
/// process that has ended.
fn scope(config: &Config, args: &Args, until: Stamp) -> Result<Scope, String> {
    let frequency = config.aliases().iter().filter_map(|alias| match &alias.kind {
        AliasKind::Server(server) => Some(server.pings.outage_log_frequency),
        _ => None,
    });
    let aliases = config.aliases().iter().map(|alias| {
        let chain = Chain::of(config, alias);
        let servers = chain.own.iter().chain(&chain.failover).map(ToString::to_string);
        (alias.name.to_string(), servers.collect())
    });
    let aliases: Vec<(String, Vec<String>)> = aliases.collect();
    let aliases = match &args.name {
        None => aliases,
        Some(name) => aliases.into_iter().filter(|(alias, _)| alias == name).collect(),
    };
    let since = args.since.before(until);
    if since >= until {
        return Err(format!("--since {since} is not in the past"));
    }
    Ok(Scope { since, until, silence: 2 * frequency.max().unwrap_or(Duration::from_secs(3600)), aliases })
}

/// The rows, from the first server that answers: the primary that keeps the history, or else a replica, which has it too.
async fn read(config: &Config, since: Stamp, file: &Path) -> Result<Vec<SeenOutage>, Box<dyn Error>> {
    let mut failed: Option<Box<dyn Error>> = None;
    for name in sources(config) {
        match read_from(config, &name, since).await {
            Ok(seen) => return Ok(seen),
            Err(error) if is_missing(&*error) => {
                let file = file.display();
                let why = format!(
                    "{name} has no table pgdetour.outages: run pgdetour migrate {file}, and write history = \"{name}\" into {file}"
                );
                return Err(why.into());
            }
            Err(error) => failed = failed.or(Some(format!("{name}: {error}").into())),
        }
    }
    Err(failed.unwrap_or_else(|| "no alias is a server".into()))
}

fn sources(config: &Config) -> Vec<AliasName> {
    let of_role = |wanted: Role| {
        let servers = config.aliases().iter().filter(move |alias| match &alias.kind {
            AliasKind::Server(server) => server.role == wanted,
            _ => false,
        });
        servers.map(|alias| alias.name.clone())
    };
    let mut all: Vec<AliasName> = config.history().map(|history| history.alias.clone()).into_iter().collect();
    for name in of_role(Role::Primary).chain(of_role(Role::Replica)) {
        if !all.contains(&name) {
            all.push(name);
        }
    }
    all
}

async fn read_from(config: &Config, name: &AliasName, since: Stamp) -> Result<Vec<SeenOutage>, Box<dyn Error>> {
    let router: Router = Router::start(config.alone(name)).await?;
    let lease = router.alias(name.as_str())?.get().await?;
    let rows = lease.query(SELECT, &[&since.unix_ms().to_string()]).await;
    let seen = rows.map(|rows| {
        let columns = |row: &tokio_postgres::Row| (0..row.len()).map(|column| row.get(column)).collect::<Vec<_>>();
        rows.iter().filter_map(|row| SeenOutage::from_columns(&columns(row))).collect()
    });
    drop(lease);
    router.shutdown().await;
    Ok(seen?)
}

fn is_missing(error: &(dyn Error + 'static)) -> bool {
    let code = error.downcast_ref::<tokio_postgres::Error>().and_then(tokio_postgres::Error::code);
    matches!(code, Some(code) if *code == SqlState::UNDEFINED_TABLE || *code == SqlState::INVALID_SCHEMA_NAME)
}
