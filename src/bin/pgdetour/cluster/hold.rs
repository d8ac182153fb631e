//! The servers of a cluster that is held up, by the names of their aliases.

use std::fmt::Write;

use pgdetour::{
    config::Pings,
    migrate,
    testkit::{Cluster, Server, Stop, TestkitError},
};

use super::args::Action;
use crate::safe::safe;

/// A cluster, held up until it is dropped.
#[derive(Debug)]
pub(super) struct Hold(Cluster);

impl Hold {
    /// Starts it, and makes the table of `write_once`.
    pub(super) async fn start(replicas: usize) -> Result<Self, Box<dyn std::error::Error>> {
        let cluster = Cluster::builder().replicas(replicas).user("app").database("app").start().await?;
        migrate(&cluster.primary().connect().await?).await?;
        cluster.wait_for_replay().await?;
        Ok(Self(cluster))
    }

    /// All of them with their names.
    fn servers(&self) -> impl Iterator<Item = (String, &Server)> {
        let replicas = self.0.replicas().iter().zip(1..).map(|(server, number)| {
            let name = if number == 1 { "replica".to_owned() } else { format!("replica{number}") };
            (name, server)
        });
        std::iter::once(("primary".to_owned(), self.0.primary())).chain(replicas)
    }

    /// The configuration of a router over them.
    pub(super) fn configuration(&self, pings: &Pings) -> String {
        let time = |time| humantime::format_duration(time).to_string();
        let mut text = format!(
            "# The servers of `pgdetour cluster`: they are gone when that ends.\npace = \"brisk\"\nslow_after = \"{}\"\nping_timeout = \"{}\"\noutage_ping_timeout = \"{}\"\n",
            time(pings.slow_after),
            time(pings.ping_timeout),
            time(pings.outage_ping_timeout)
        );
        for (name, server) in self.servers() {
            let role = if name == "primary" { "primary" } else { "replica" };
            // Writing to a string cannot fail.
            let _ = write!(text, "\n[alias.{name}]\nrole = \"{role}\"\nurl = \"{}\"\n", server.url());
        }
        text
    }

    /// Does what a line asks for: an action and a server.
    pub(super) async fn obey(&self, line: &str) -> Result<String, String> {
        let mut words = line.split_whitespace();
        let action = words.next().unwrap_or_default();
        let action = <Action as clap::ValueEnum>::from_str(action, false)
            .map_err(|_| format!("no action is named {}", safe(action)))?;
        let name = words.next().unwrap_or_default();
        if action == Action::Status {
            return Ok(self.status());
        }
        let Some((name, server)) = self.servers().find(|(known, _)| known == name) else {
            let known: Vec<String> = self.servers().map(|(name, _)| name).collect();
            return Err(format!("no server is named {:?}: there are {}", safe(name), known.join(", ")));
        };
        let done = act(action, server).await.map_err(|error| error.to_string())?;
        Ok(format!("{name}: {done}"))
    }

    fn status(&self) -> String {
        let of = |(name, server): (String, &Server)| {
            let state = if server.is_running() { "runs" } else { "does not run" };
            format!("{name}: {state} ({}:{})", server.host(), server.port())
        };
        self.servers().map(of).collect::<Vec<_>>().join("\n")
    }
}

async fn act(action: Action, server: &Server) -> Result<&'static str, TestkitError> {
    Ok(match action {
        Action::Status => "",
        Action::Kill => server.kill_postmaster().await.map(|()| "killed")?,
        Action::Crash => server.kill().await.map(|()| "killed with all its processes")?,
        Action::Stop => server.stop(Stop::Fast).await.map(|()| "stopped")?,
        Action::Immediate => server.stop(Stop::Immediate).await.map(|()| "stopped at once")?,
        Action::Freeze => server.freeze().await.map(|()| "frozen")?,
        Action::Thaw => server.thaw().await.map(|()| "thawed")?,
        Action::Terminate => server.terminate_backends().await.map(|_| "sessions ended")?,
        Action::Start => server.start().await.map(|()| "started")?,
        Action::Restart => server.restart().await.map(|()| "restarted")?,
        Action::Repair if server.is_running() => server.thaw().await.map(|()| "goes on")?,
        Action::Repair => server.start().await.map(|()| "started")?,
        Action::Promote => server.promote().await.map(|()| "promoted")?,
    })
}
