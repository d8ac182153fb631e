//! A pair that Compose runs: each service is named as its alias. Version 2 (`docker compose`) or 1 (`docker-compose`).

use std::{
    path::{Path, PathBuf},
    time::Duration,
};

use super::{Trouble, hook::Hook, kind::Kind, plan::Fault};
use crate::safe::safe;

/// Longer than a container takes to stop and to start.
const PATIENCE: Duration = Duration::from_secs(60);

/// The services of a Compose file.
#[derive(Debug)]
pub(super) struct Compose {
    command: &'static [&'static str],
    file: PathBuf,
}

impl Compose {
    /// Finds the program, and that the file has a service for each fault. Changes nothing.
    pub(super) async fn find(file: &Path, faults: &[Fault]) -> Result<Self, Trouble> {
        let mut said = Vec::new();
        for command in [&["docker", "compose"][..], &["docker-compose"]] {
            match Hook::program(&[command, &["version"]].concat(), PATIENCE).run().await {
                Ok(_) => {
                    let compose = Self { command, file: file.to_owned() };
                    compose.has_services(faults).await?;
                    return Ok(compose);
                }
                Err(why) => said.push(why),
            }
        }
        Err(Trouble::Environment(format!("no Compose was found: {}", said.join("; "))))
    }

    async fn has_services(&self, faults: &[Fault]) -> Result<(), Trouble> {
        let services = self.run(&["config", "--services"]).await.map_err(Trouble::Environment)?;
        let services: Vec<&str> = services.lines().map(str::trim).collect();
        match faults.iter().find(|fault| !services.contains(&fault.alias.as_str())) {
            None => Ok(()),
            Some(fault) => Err(Trouble::Usage(format!(
                "{} has no service {}: it has {}",
                safe(&self.file.to_string_lossy()),
                fault.alias,
                safe(&services.join(", "))
            ))),
        }
    }

    pub(super) async fn inject(&self, kind: Kind, service: &str) -> Result<(), String> {
        self.run(&[words(kind).0, service]).await.map(drop)
    }

    pub(super) async fn repair(&self, kind: Kind, service: &str) -> Result<(), String> {
        self.run(&[words(kind).1, service]).await.map(drop)
    }

    async fn run(&self, words: &[&str]) -> Result<String, String> {
        let file = self.file.to_string_lossy();
        let command = [self.command, &["--file", &file], words].concat();
        Hook::program(&command, PATIENCE).run().await
    }
}

/// Compose's commands that break and repair.
pub(super) fn words(kind: Kind) -> (&'static str, &'static str) {
    match kind {
        Kind::Stop => ("stop", "start"),
        Kind::Freeze => ("pause", "unpause"),
        // Nothing but these three is let through: `Kind::BY_COMPOSE`.
        Kind::Kill | Kind::Crash | Kind::Immediate | Kind::Terminate | Kind::BlackHole | Kind::Reset => {
            ("kill", "start")
        }
    }
}
