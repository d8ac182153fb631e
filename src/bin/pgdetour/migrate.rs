//! `pgdetour migrate`: the tables that `write_once` needs.

use std::{
    fmt,
    future::Future,
    io::{self, Write},
};

use pgdetour::{
    Config, Migration, Router,
    config::{AliasKind, AliasName, Role},
    migrate, pending_migrations,
};
use serde_json::{Value, json};

use crate::{args, clock, exit::Exit, log};

/// Migrates, until done or interrupted. What is interrupted changes nothing.
pub(crate) async fn run(args: &args::Migrate, interrupted: impl Future<Output = ()>) -> Exit {
    log::log_to_errors(clock::now());
    tokio::select! {
        exit = migrate_alias(args) => exit,
        () = interrupted => Exit::Interrupted,
    }
}

async fn migrate_alias(args: &args::Migrate) -> Exit {
    let config = match Config::from_file(&args.file) {
        Ok(config) => config,
        Err(error) => return refuse(args, Exit::Usage, &error),
    };
    let name = match primary(&config, args.alias.as_deref()) {
        Ok(name) => name,
        Err(why) => return refuse(args, Exit::Usage, &why),
    };
    match apply(&config, &name, args.dry_run).await {
        Ok(migrations) if args.json => {
            let migrations: Vec<Value> = migrations.iter().map(described).collect();
            let key = if args.dry_run { "missing" } else { "applied" };
            say(&format!("{:#}", json!({ "fine": true, "alias": name.as_str(), key: migrations })));
            Exit::Fine
        }
        Ok(migrations) => {
            let done = if args.dry_run { "would apply" } else { "applied" };
            migrations.iter().for_each(|migration| say(&format!("{name}: {done} {migration}")));
            if migrations.is_empty() {
                say(&format!("{name}: nothing to do"));
            }
            Exit::Fine
        }
        Err(error) => refuse(args, Exit::Failed, &error),
    }
}

/// The alias that was asked for, else the only primary.
fn primary(config: &Config, asked: Option<&str>) -> Result<AliasName, String> {
    let is_primary = |kind: &AliasKind| matches!(kind, AliasKind::Server(server) if server.role == Role::Primary);
    let mut primaries = config.aliases().iter().filter(|alias| is_primary(&alias.kind)).map(|alias| &alias.name);
    if let Some(asked) = asked {
        let found = primaries.find(|name| name.as_str() == asked);
        return found.cloned().ok_or_else(|| format!("no alias named {asked:?} has the role primary"));
    }
    match (primaries.next(), primaries.next()) {
        (Some(only), None) => Ok(only.clone()),
        (None, _) => Err("no alias has the role primary".to_owned()),
        (Some(one), Some(other)) => Err(format!("{one} and {other} are primaries: say which with --alias")),
    }
}

async fn apply(config: &Config, name: &AliasName, dry: bool) -> Result<Vec<Migration>, Box<dyn std::error::Error>> {
    let router: Router = Router::start(config.alone(name)).await?;
    let role = router.table().get(name).and_then(|entry| entry.known.facts).map(|facts| facts.role);
    if role == Some(Role::Replica) {
        return Err(pgdetour::MigrateError::Replica.into());
    }
    let lease = router.alias(name.as_str())?.get().await?;
    let migrations = if dry { pending_migrations(&lease).await } else { migrate(&lease).await };
    drop(lease);
    router.shutdown().await;
    Ok(migrations?)
}

fn described(migration: &Migration) -> Value {
    json!({ "number": migration.number(), "name": migration.name(), "checksum": migration.checksum() })
}

fn refuse(args: &args::Migrate, exit: Exit, why: &dyn fmt::Display) -> Exit {
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
