//! One ping to each server of a configuration, and what they come to together.

use std::time::Duration;

use pgdetour::{
    Config, Error, Router,
    config::{AliasKind, AliasName},
    health::Cause,
    plan::{Entry, Judge, Known},
};

use crate::clock;

/// What one server answered.
#[derive(Debug)]
pub(super) struct Finding {
    /// What is known of it now, weighed against the others.
    pub(super) entry: Entry,
    /// Why it cannot be used, if its ping told nothing: a login that is refused, for one.
    pub(super) refused: Option<Cause>,
    /// How long the connect and the ping took together.
    pub(super) took: Duration,
}

/// Asks all servers at the same time, each over a router of its own, and weighs the answers against each other.
pub(super) async fn ask_all(config: &Config) -> Result<Vec<Finding>, Error> {
    let servers = config.aliases().iter().filter(|alias| matches!(alias.kind, AliasKind::Server(_)));
    let asking: Vec<_> =
        servers.map(|alias| tokio::spawn(ask(config.alone(&alias.name), alias.name.clone()))).collect();
    let (mut known, mut rest) = (Vec::new(), Vec::new());
    for answer in asking {
        // Only a panic, or the end of the program, keeps a task from its end.
        let Ok(answer) = answer.await else { continue };
        let (server, refused, took) = answer?;
        known.push(server);
        rest.push((refused, took));
    }
    let table = Judge::new(config).judge(known);
    let findings = table.entries().iter().cloned().zip(rest);
    Ok(findings.map(|(entry, (refused, took))| Finding { entry, refused, took }).collect())
}

async fn ask(config: Config, name: AliasName) -> Result<(Known, Option<Cause>, Duration), Error> {
    let begun = clock::now();
    let router: Router = Router::start(config).await?;
    let took = clock::now() - begun;
    let table = router.table();
    let known = table.entries().iter().find(|entry| entry.known.name == name).map(|entry| entry.known.clone());
    let known = known.expect("a router knows the server that it was started with");
    let silent = known.facts.is_none() && known.outage.is_none();
    let refused = if silent { Some(why(&router, &name).await) } else { None };
    router.shutdown().await;
    Ok((known, refused, took))
}

/// Why a ping told nothing: a request finds the same.
async fn why(router: &Router, name: &AliasName) -> Cause {
    let error = match router.alias(name.as_str()) {
        Ok(alias) => alias.get().await.err(),
        Err(error) => Some(error),
    };
    match &error {
        Some(error) => Cause::of(std::error::Error::source(error).unwrap_or(error)),
        None => Cause::new("its ping told nothing of its health"),
    }
}
