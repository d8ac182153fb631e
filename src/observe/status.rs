//! What is so now? Everything the outside may know of a router at one moment, as plain values: what `/status` answers and the status
//! page, the command line and the metrics show. `docs/status.md` has an example of it.
//!
//! All text in it is data, not HTML, and may come from a server: whoever prints it escapes it. It holds no password.

use serde::{Deserialize, Serialize};

use super::stamp::Stamp;
use crate::{
    config::Role,
    health::{Need, State},
    plan::Mode,
};

/// The version of what is written here. It grows when a field goes or changes its meaning; fields may be added without that.
pub const VERSION: u32 = 1;

/// A router at one moment.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Status {
    /// [`VERSION`].
    pub version: u32,
    /// The moment.
    pub at: Stamp,
    /// Whose router it is.
    pub process: Process,
    /// How much of the application's work is possible.
    pub mode: Mode,
    /// Whether any alias is served.
    pub reads: bool,
    /// Whether any alias that is declared a primary takes writes.
    pub writes: bool,
    /// In the order of declaration.
    pub aliases: Vec<AliasStatus>,
    /// In the order of declaration.
    pub servers: Vec<ServerStatus>,
    /// Other things that the application depends on, in the order of declaration.
    #[serde(default)]
    pub services: Vec<ServiceStatus>,
}

/// The process a router runs in.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Process {
    /// Its number.
    pub pid: u32,
    /// The machine or container, where that has a name.
    #[serde(default)]
    pub host: Option<String>,
    /// When the router was started.
    pub started: Stamp,
    /// The version of this crate.
    pub pgdetour: String,
}

/// One alias.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct AliasStatus {
    /// Its name.
    pub name: String,
    /// What its own servers have to serve.
    pub needs: Need,
    /// The members of a group; empty for an alias that is one server.
    #[serde(default)]
    pub group: Vec<String>,
    /// The alias of the server to which a request goes now. None: nowhere.
    #[serde(default)]
    pub target: Option<String>,
    /// Whether that one stands in for the alias's own servers.
    pub detour: bool,
    /// Every server it may use, in order: what `explain` says.
    pub route: Vec<StepStatus>,
    /// Requests that wait for a connection.
    pub waiting: u64,
    /// Retries left in its budget. None: it makes no retries.
    #[serde(default)]
    pub retries_left: Option<f64>,
    /// Since when and until when somebody has had its server drained.
    #[serde(default)]
    pub drained: Option<DrainStatus>,
}

/// One server of an alias's route.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct StepStatus {
    /// The alias that declares it.
    pub server: String,
    /// `host:port/database`.
    pub address: String,
    /// Whether it stands in for the alias's own servers.
    pub detour: bool,
    /// Whether a request may go there.
    pub usable: bool,
    /// The stable word for what decides: one of `up`, `suspect`, `behind`, `drained`, `down`, `recovering`, `not-primary`,
    /// `split-brain`, `foreign`, `replica`. More may be added.
    pub reason: String,
    /// The same for people, with the cause.
    pub text: String,
    /// How long until the server is pinged next. 0: it is being pinged.
    pub next_ping_ms: u64,
}

/// One server.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct ServerStatus {
    /// The alias that declares it.
    pub name: String,
    /// `host:port/database`.
    pub address: String,
    /// What it is meant to be.
    pub declared: Role,
    /// What it is, as its last good ping found it.
    #[serde(default)]
    pub observed: Option<Role>,
    /// What is believed about it.
    pub state: State,
    /// Whether it admits new connections.
    pub admits: bool,
    /// What it may be trusted with.
    pub standing: StandingStatus,
    /// Its breaker, while that is open.
    #[serde(default)]
    pub breaker: Option<BreakerStatus>,
    /// Its outage, while one is open.
    #[serde(default)]
    pub outage: Option<OutageStatus>,
    /// Since when and until when somebody has had it drained.
    #[serde(default)]
    pub drained: Option<DrainStatus>,
    /// Bytes of the log that it has yet to replay, compared with the primary of its cluster, by what the last good pings of both have
    /// read. None: unknown, or it is the primary.
    #[serde(default)]
    pub lag_bytes: Option<u64>,
    /// The place in the log that its last good ping read: written by a primary, replayed by a replica.
    #[serde(default)]
    pub position: Option<String>,
    /// The line of history it is on.
    #[serde(default)]
    pub timeline: Option<u32>,
    /// How long its last good ping took.
    #[serde(default)]
    pub ping_ms: Option<f64>,
    /// How long until it is pinged next. 0: it is being pinged.
    pub next_ping_ms: u64,
    /// The pool of its own alias.
    pub pool: PoolUse,
    /// The pools of those for which it stands in.
    #[serde(default)]
    pub detours: Vec<DetourUse>,
}

/// What a server may be trusted with.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct StandingStatus {
    /// The stable word: `sound`, `not-primary`, `split-brain` or `foreign`. More may be added.
    pub word: String,
    /// The same for people.
    pub text: String,
}

/// An open breaker.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct BreakerStatus {
    /// When it opened.
    pub since: Stamp,
    /// For how long it has been open.
    pub lasting_ms: u64,
    /// Why.
    pub cause: String,
    /// How long it is held before a request is let through on trial. None: one is.
    #[serde(default)]
    pub hold_ms: Option<u64>,
}

/// An open outage.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct OutageStatus {
    /// What tells it from all others, in every process: the same in the record of outages and in the history.
    pub id: String,
    /// When it opened.
    pub since: Stamp,
    /// How long it has lasted.
    pub lasting_ms: u64,
    /// Why the last ping failed.
    pub cause: String,
    /// Reads that another server took.
    pub detoured: u64,
    /// Requests that no server took.
    pub refused: u64,
    /// Leases that were lost.
    pub failed: u64,
}

/// What somebody has drained.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct DrainStatus {
    /// When it was.
    pub since: Stamp,
    /// When it ends by itself.
    pub until: Stamp,
    /// How long until then.
    pub left_ms: u64,
    /// Who has asked for it.
    pub by: String,
}

/// How much of a pool is in use.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[non_exhaustive]
pub struct PoolUse {
    /// Connections at most.
    pub max: u64,
    /// Connections now.
    pub size: u64,
    /// Those of them that wait to be lent.
    pub idle: u64,
    /// Those of them that are lent.
    pub lent: u64,
    /// Requests that wait for one.
    pub waiting: u64,
}

/// One detour that leads to a server.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct DetourUse {
    /// The alias for which the server stands in.
    pub of: String,
    /// Connections it may have: `detour_size`.
    pub size: u64,
    /// Those that may be used now: fewer while the server is slow.
    pub usable: u64,
    /// Its pool.
    pub pool: PoolUse,
}

/// Something other than a database that the application depends on.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct ServiceStatus {
    /// Its name.
    pub name: String,
    /// What it is: `tcp`, `redis`, …, or what the application calls it.
    pub kind: String,
    /// Where it is, if that is known.
    #[serde(default)]
    pub address: Option<String>,
    /// What is believed about it.
    pub state: State,
    /// Its outage, while one is open.
    #[serde(default)]
    pub outage: Option<OutageStatus>,
    /// How long its last good ping took.
    #[serde(default)]
    pub ping_ms: Option<f64>,
    /// How long until it is pinged next. 0: it is being pinged.
    pub next_ping_ms: u64,
}

impl Status {
    /// The alias of this name.
    #[must_use]
    pub fn alias(&self, name: &str) -> Option<&AliasStatus> {
        self.aliases.iter().find(|alias| alias.name == name)
    }

    /// The server that the alias of this name declares.
    #[must_use]
    pub fn server(&self, name: &str) -> Option<&ServerStatus> {
        self.servers.iter().find(|server| server.name == name)
    }

    /// The service of this name.
    #[must_use]
    pub fn service(&self, name: &str) -> Option<&ServiceStatus> {
        self.services.iter().find(|service| service.name == name)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::*;

    #[test]
    fn the_documented_example_is_what_is_written() {
        let page = include_str!("../../docs/status.md");
        let example =
            page.split("```json").nth(1).and_then(|rest| rest.split("```").next()).expect("there is an example");
        let example: Value = serde_json::from_str(example).unwrap();
        let status: Status = serde_json::from_value(example.clone()).unwrap();
        assert_eq!(status.version, VERSION);
        assert_eq!(serde_json::to_value(&status).unwrap(), example, "every field, and no other");
    }

    #[test]
    fn what_a_later_version_adds_is_passed_over() {
        let step = r#"{"server": "a", "address": "db1:5432", "detour": false, "usable": true, "reason": "up", "text": "up",
            "next_ping_ms": 1, "new": {"x": 1}}"#;
        assert_eq!(serde_json::from_str::<StepStatus>(step).unwrap().server, "a");
    }
}
