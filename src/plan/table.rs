//! What is known of all servers together, and which of them may be trusted with what.

use std::{
    collections::HashMap,
    sync::Arc,
    time::{Duration, Instant},
};

use super::{chain::Chain, mode::Mode};
use crate::{
    config::{AliasKind, AliasName, Config, Role},
    health::{Belief, Cause, Facts, Need, SystemId, Tally, Timeline},
};

/// Why a server may be trusted with less than its health allows.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Standing {
    /// Nothing against it.
    Sound,
    /// Declared a primary, but it is in recovery: it takes reads and no writes.
    NotPrimary,
    /// Another server of the cluster takes writes too and is ahead, or neither is: it takes no writes.
    SplitBrain {
        /// The other one.
        other: AliasName,
    },
    /// It belongs to another cluster than the primary: it takes no traffic.
    Foreign {
        /// The cluster of the primary.
        expected: SystemId,
        /// Its own.
        found: SystemId,
    },
}

impl Standing {
    /// The stable word for it, as a status has it.
    #[must_use]
    pub fn word(&self) -> &'static str {
        match self {
            Self::Sound => "sound",
            Self::NotPrimary => "not-primary",
            Self::SplitBrain { .. } => "split-brain",
            Self::Foreign { .. } => "foreign",
        }
    }
}

/// That somebody has had a server drained: no new requests go there where another server of their plan serves.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Drain {
    /// Since when.
    pub since: Instant,
    /// Until when: it ends by itself.
    pub until: Instant,
    /// Who has asked for it.
    pub by: Arc<str>,
}

/// One server as the monitor knows it.
#[derive(Debug, Clone)]
pub struct Known {
    /// The alias that declares it.
    pub name: AliasName,
    /// `host:port/database`.
    pub address: String,
    /// What it is meant to be.
    pub declared: Role,
    /// State, generation and admission; role and identity not weighed yet.
    pub belief: Belief,
    /// What its last good ping read.
    pub facts: Option<Facts>,
    /// Since when it is down, and why its last ping failed.
    pub outage: Option<(Instant, Cause)>,
    /// Since when its breaker is open, and why.
    pub breaker: Option<(Instant, Cause)>,
    /// Until when the open breaker lets no request through on trial.
    pub held_until: Option<Instant>,
    /// What somebody has asked for.
    pub drained: Option<Drain>,
    /// How long its last good ping took.
    pub latency: Option<Duration>,
    /// What was counted of its requests before the open outage.
    pub base: Tally,
    /// When it is pinged next. In the past: it is being pinged.
    pub next_ping: Instant,
}

impl Known {
    /// In recovery, as last seen or else as declared: it takes no writes.
    fn is_replica(&self) -> bool {
        self.facts.map_or(self.declared, |facts| facts.role) == Role::Replica
    }
}

/// One line of the table.
#[derive(Debug, Clone)]
pub struct Entry {
    /// The server.
    pub known: Known,
    /// What speaks against it.
    pub standing: Standing,
    /// The set of related aliases it belongs to.
    cluster: Option<usize>,
}

impl Entry {
    /// The belief everybody may act upon: health and standing together.
    #[must_use]
    pub fn belief(&self) -> Belief {
        let belief = match (&self.known.drained, &self.known.breaker) {
            (Some(_), _) => self.known.belief.drained(),
            (None, Some(_)) => self.known.belief.behind(),
            (None, None) => self.known.belief,
        };
        match self.standing {
            Standing::Sound if self.known.is_replica() => belief.without_writes(),
            Standing::Sound => belief,
            Standing::NotPrimary | Standing::SplitBrain { .. } => belief.without_writes(),
            Standing::Foreign { .. } => belief.without_traffic(),
        }
    }
}

/// The immutable snapshot of all servers, from which every route is explained.
#[derive(Debug, Clone, Default)]
pub struct Table {
    entries: Vec<Entry>,
    mode: Mode,
}

impl Table {
    /// How much of the application's work is possible.
    #[must_use]
    pub fn mode(&self) -> Mode {
        self.mode
    }

    /// All servers, in the order of declaration.
    #[must_use]
    pub fn entries(&self) -> &[Entry] {
        &self.entries
    }

    /// The server this alias declares.
    #[must_use]
    pub fn get(&self, name: &AliasName) -> Option<&Entry> {
        self.entries.iter().find(|entry| entry.known.name == *name)
    }

    /// How many bytes of the log a replica has yet to replay, compared with the primary of its cluster, by what the last good pings of
    /// both have read. `None` where that is not known, and for a primary.
    #[must_use]
    pub fn lag_of(&self, entry: &Entry) -> Option<u64> {
        let facts = entry.known.facts.filter(|facts| facts.role == Role::Replica)?;
        let writes = |other: &&Entry| {
            let same = other.cluster == entry.cluster && system_of(&other.known) == facts.system;
            same && other.standing == Standing::Sound
                && other.known.facts.is_some_and(|facts| facts.role == Role::Primary)
        };
        let primary = self.entries.iter().find(writes)?.known.facts?;
        (primary.timeline == facts.timeline).then_some(())?;
        Some(facts.position?.bytes_to(primary.position?))
    }

    /// Whether a change of this server's role is waited for: it is meant to take writes and does not, or of its cluster nobody who is
    /// meant to does. One that is promoted meanwhile outranks the old primary when that comes back.
    pub(crate) fn awaits_role(&self, entry: &Entry) -> bool {
        let writes = |entry: &Entry| entry.belief().serves(Need::Writes);
        let primaries = || {
            let related = self.entries.iter().filter(|other| other.cluster == entry.cluster);
            related.filter(|other| other.known.declared == Role::Primary)
        };
        let meant = entry.known.declared == Role::Primary;
        (meant && !writes(entry)) || (primaries().next().is_some() && !primaries().any(writes))
    }

    /// Whether of these servers one is meant to take writes and none does, while reads of its cluster are served.
    pub(super) fn is_read_only(&self, names: &[AliasName]) -> bool {
        let of_them = || names.iter().filter_map(|name| self.get(name));
        let served =
            |cluster| self.entries.iter().any(|entry| entry.cluster == cluster && entry.belief().serves(Need::Reads));
        let mut primaries = of_them().filter(|entry| entry.known.declared == Role::Primary);
        !of_them().any(|entry| entry.belief().serves(Need::Writes)) && primaries.any(|entry| served(entry.cluster))
    }
}

/// Weighs servers against each other. It remembers which cluster each set of aliases belongs to: the first answer of its
/// primary decides for good, so that a foreign server that takes over an address is never accepted by itself.
#[derive(Debug)]
pub struct Judge {
    /// The set of related aliases each server belongs to.
    cluster: HashMap<AliasName, usize>,
    pinned: HashMap<usize, SystemId>,
    /// What each alias needs, and of whom.
    aliases: Vec<Chain>,
}

impl Judge {
    /// A judge of the servers of this configuration.
    #[must_use]
    pub fn new(config: &Config) -> Self {
        let aliases = config.aliases().iter().map(|alias| Chain::of(config, alias)).collect();
        Self { cluster: clusters(config), pinned: HashMap::new(), aliases }
    }

    /// The table of these servers.
    #[must_use]
    pub fn judge(&mut self, servers: Vec<Known>) -> Table {
        self.pin(&servers);
        let standings: Vec<Standing> = servers.iter().map(|server| self.standing(server, &servers)).collect();
        let entries = servers.into_iter().zip(standings).map(|(known, standing)| {
            let cluster = self.cluster_of(&known);
            Entry { known, standing, cluster }
        });
        let table = Table { entries: entries.collect(), mode: Mode::default() };
        Table { mode: Mode::of(&self.aliases, &table), ..table }
    }

    fn cluster_of(&self, server: &Known) -> Option<usize> {
        self.cluster.get(&server.name).copied()
    }

    fn pin(&mut self, servers: &[Known]) {
        for server in servers.iter().filter(|server| server.declared == Role::Primary) {
            if let (Some(cluster), Some(system)) = (self.cluster_of(server), system_of(server)) {
                self.pinned.entry(cluster).or_insert(system);
            }
        }
    }

    fn standing(&self, server: &Known, all: &[Known]) -> Standing {
        let expected = self.cluster_of(server).and_then(|cluster| self.pinned.get(&cluster).copied());
        if let (Some(expected), Some(found)) = (expected, system_of(server))
            && expected != found
        {
            return Standing::Foreign { expected, found };
        }
        match server.facts {
            Some(facts) if facts.role == Role::Primary => self.rival(server, facts.timeline, all),
            Some(_) if server.declared == Role::Primary => Standing::NotPrimary,
            _ => Standing::Sound,
        }
    }

    /// Of two servers of one cluster that both take writes the higher timeline wins; on a tie neither takes a write.
    fn rival(&self, server: &Known, timeline: Option<Timeline>, all: &[Known]) -> Standing {
        let rival = all.iter().find(|other| {
            let writable = other.facts.filter(|facts| facts.role == Role::Primary);
            other.name != server.name
                && other.address != server.address
                && other.outage.is_none()
                && self.cluster_of(other) == self.cluster_of(server)
                && system_of(other) == system_of(server)
                && writable.is_some_and(|facts| facts.timeline >= timeline)
        });
        rival.map_or(Standing::Sound, |other| Standing::SplitBrain { other: other.name.clone() })
    }
}

fn system_of(server: &Known) -> Option<SystemId> {
    server.facts.and_then(|facts| facts.system)
}

/// Aliases that stand in for each other, directly or not, are of one cluster.
fn clusters(config: &Config) -> HashMap<AliasName, usize> {
    let mut cluster: HashMap<AliasName, usize> =
        config.aliases().iter().enumerate().map(|(index, alias)| (alias.name.clone(), index)).collect();
    for alias in config.aliases() {
        let members: &[AliasName] = match &alias.kind {
            AliasKind::Server(_) => &[],
            AliasKind::Group { members, .. } => members,
        };
        for related in alias.failover.iter().chain(members) {
            let (Some(&one), Some(&other)) = (cluster.get(&alias.name), cluster.get(related)) else { continue };
            cluster.values_mut().filter(|value| **value == other).for_each(|value| *value = one);
        }
    }
    cluster
}
