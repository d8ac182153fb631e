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

    /// Whether it weighs as much as before against others of its cluster.
    fn ranks_like(&self, other: &Self) -> bool {
        let facts = match (&self.facts, &other.facts) {
            (Some(facts), Some(others)) => facts.agrees_with(others),
            (None, None) => true,
            _ => false,
        };
        facts && self.outage.is_some() == other.outage.is_some()
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
    places: Arc<HashMap<AliasName, usize>>,
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
        self.places.get(name).map(|place| &self.entries[*place])
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

    /// Becomes like the other one, from which it differs by these lines.
    pub(crate) fn catch_up(&mut self, other: &Self, lines: &[usize]) {
        lines.iter().for_each(|line| self.entries[*line].clone_from(&other.entries[*line]));
        self.mode = other.mode;
    }

    /// Of which servers of one cluster a change of role is waited for: of those that are meant to take writes and do not, and where nobody
    /// who is meant to does, of all. One that is promoted meanwhile outranks the old primary when that comes back.
    pub(crate) fn awaits_roles(&self, cluster: &[usize]) -> Vec<bool> {
        let meant = |line: &&usize| self.entries[**line].known.declared == Role::Primary;
        let writes = |line: &usize| self.entries[*line].belief().serves(Need::Writes);
        let mut primaries = cluster.iter().filter(meant).peekable();
        let nobody = primaries.peek().is_some() && !primaries.any(writes);
        cluster.iter().map(|line| nobody || (meant(&line) && !writes(line))).collect()
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
    /// The lines of the table by cluster, and those of servers that are related to nobody.
    members: HashMap<usize, Vec<usize>>,
}

/// What a piece of news has changed in a table.
#[derive(Debug)]
pub(crate) struct Amended {
    /// The lines, that of the server with the news first.
    pub(crate) lines: Vec<usize>,
    /// Whether anybody is believed another than before.
    pub(crate) beliefs: bool,
}

impl Judge {
    /// A judge of the servers of this configuration.
    #[must_use]
    pub fn new(config: &Config) -> Self {
        let aliases = config.aliases().iter().map(|alias| Chain::of(config, alias)).collect();
        Self { cluster: clusters(config), pinned: HashMap::new(), aliases, members: HashMap::new() }
    }

    /// The table of these servers.
    #[must_use]
    pub fn judge(&mut self, servers: Vec<Known>) -> Table {
        servers.iter().for_each(|server| self.pin(server));
        let places = servers.iter().enumerate().map(|(place, server)| (server.name.clone(), place)).collect();
        let entries = servers.into_iter().map(|known| {
            let cluster = self.cluster_of(&known);
            Entry { known, standing: Standing::Sound, cluster }
        });
        let mut table = Table { entries: entries.collect(), places: Arc::new(places), mode: Mode::default() };
        self.members.clear();
        for (place, entry) in table.entries.iter().enumerate() {
            self.members.entry(entry.cluster.unwrap_or(usize::MAX)).or_default().push(place);
        }
        self.members.values().for_each(|members| drop(self.rank(&mut table, members)));
        table.mode = Mode::of(&self.aliases, &table);
        table
    }

    /// Takes in what is known of one server now. Servers of other clusters are not looked at.
    pub(crate) fn amend(&mut self, table: &mut Table, place: usize, known: Known) -> Amended {
        self.pin(&known);
        let entry = &mut table.entries[place];
        let belief = entry.belief();
        let before = std::mem::replace(&mut entry.known, known);
        let mut lines = vec![place];
        if !before.ranks_like(&entry.known) {
            let members = self.related(entry);
            lines.extend(self.rank(table, members).into_iter().filter(|other| *other != place));
        }
        let beliefs = lines.len() > 1 || table.entries[place].belief() != belief;
        if beliefs {
            table.mode = Mode::of(&self.aliases, table);
        }
        Amended { lines, beliefs }
    }

    /// The lines of the servers of the same cluster.
    pub(crate) fn related(&self, entry: &Entry) -> &[usize] {
        self.members.get(&entry.cluster.unwrap_or(usize::MAX)).map_or(&[], Vec::as_slice)
    }

    /// Weighs these servers of one cluster against each other; whose standing has changed.
    fn rank(&self, table: &mut Table, members: &[usize]) -> Vec<usize> {
        let entries = &table.entries;
        let all = || members.iter().map(|member| &entries[*member].known);
        let standings = members.iter().map(|member| (*member, self.standing(&entries[*member].known, all)));
        let changed: Vec<_> = standings.filter(|(member, standing)| entries[*member].standing != *standing).collect();
        let set = |(member, standing): (usize, Standing)| {
            table.entries[member].standing = standing;
            member
        };
        changed.into_iter().map(set).collect()
    }

    fn cluster_of(&self, server: &Known) -> Option<usize> {
        self.cluster.get(&server.name).copied()
    }

    fn pin(&mut self, server: &Known) {
        if server.declared == Role::Primary
            && let (Some(cluster), Some(system)) = (self.cluster_of(server), system_of(server))
        {
            self.pinned.entry(cluster).or_insert(system);
        }
    }

    fn standing<'a, A: Iterator<Item = &'a Known>>(&self, server: &Known, all: impl Fn() -> A) -> Standing {
        let expected = self.cluster_of(server).and_then(|cluster| self.pinned.get(&cluster).copied());
        if let (Some(expected), Some(found)) = (expected, system_of(server))
            && expected != found
        {
            return Standing::Foreign { expected, found };
        }
        match server.facts {
            Some(facts) if facts.role == Role::Primary => rival(server, facts.timeline, all()),
            Some(_) if server.declared == Role::Primary => Standing::NotPrimary,
            _ => Standing::Sound,
        }
    }
}

/// Of two servers of one cluster that both take writes the higher timeline wins; on a tie neither takes a write.
fn rival<'a>(server: &Known, timeline: Option<Timeline>, mut all: impl Iterator<Item = &'a Known>) -> Standing {
    let rival = all.find(|other| {
        let writable = other.facts.filter(|facts| facts.role == Role::Primary);
        other.name != server.name
            && other.address != server.address
            && other.outage.is_none()
            && system_of(other) == system_of(server)
            && writable.is_some_and(|facts| facts.timeline >= timeline)
    });
    rival.map_or(Standing::Sound, |other| Standing::SplitBrain { other: other.name.clone() })
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::health::{Generation, State};

    /// Two clusters, one of them with a second primary, and a server that is related to nobody.
    fn config() -> Config {
        let url = |name: &str| format!("postgres://app@{name}/app");
        let mut config = Config::builder().server("p1", Role::Primary, url("p1"));
        for (name, role) in [("r1", Role::Replica), ("p2", Role::Primary), ("r2", Role::Replica), ("p3", Role::Primary)]
        {
            config = config.server(name, role, url(name));
        }
        config.failover("r1", ["p1"]).failover("r2", ["p2", "p3"]).build().unwrap()
    }

    fn news(chance: &mut fastrand::Rng, name: &AliasName, declared: Role, start: Instant) -> Known {
        let states = [State::Up, State::Suspect, State::Down, State::Recovering];
        let state = states[chance.usize(..4)];
        let out = matches!(state, State::Down | State::Recovering);
        let why = || (start, Cause::new("refused"));
        let facts = chance.bool().then(|| Facts {
            role: [Role::Primary, Role::Replica][chance.usize(..2)],
            timeline: Some(Timeline(chance.u32(1..3))),
            system: Some(SystemId([1, 1, 1, 2][chance.usize(..4)])),
            position: None,
        });
        Known {
            name: name.clone(),
            address: name.to_string(),
            declared,
            belief: Belief::new(state, Generation::default()),
            facts,
            outage: out.then(why),
            breaker: chance.bool().then(why),
            held_until: None,
            latency: None,
            base: Tally::default(),
            drained: None,
            next_ping: start + Duration::from_millis(chance.u64(..9)),
        }
    }

    #[test]
    fn a_table_that_is_amended_line_by_line_is_the_one_that_is_judged_as_a_whole() {
        let (config, start, mut chance) = (config(), crate::clock::now(), fastrand::Rng::with_seed(7));
        let declared: Vec<_> = config
            .aliases()
            .iter()
            .map(|alias| match &alias.kind {
                AliasKind::Server(server) => (alias.name.clone(), server.role),
                AliasKind::Group { .. } => unreachable!("there is none"),
            })
            .collect();
        for _ in 0..50 {
            let mut known: Vec<_> = declared.iter().map(|(name, role)| news(&mut chance, name, *role, start)).collect();
            let (mut whole, mut amending) = (Judge::new(&config), Judge::new(&config));
            drop(whole.judge(known.clone()));
            let mut table = amending.judge(known.clone());
            let mut behind = table.clone();
            for _ in 0..50 {
                let place = chance.usize(..known.len());
                let (name, role) = &declared[place];
                known[place] = news(&mut chance, name, *role, start);
                let before: Vec<_> = table.entries.iter().map(Entry::belief).collect();
                let changed = amending.amend(&mut table, place, known[place].clone());
                assert_eq!(
                    format!("{table:?}"),
                    format!("{:?}", Table { places: table.places.clone(), ..whole.judge(known.clone()) })
                );
                let after: Vec<_> = table.entries.iter().map(Entry::belief).collect();
                assert!(changed.beliefs || before == after);
                behind.catch_up(&table, &changed.lines);
                assert_eq!(format!("{table:?}"), format!("{behind:?}"), "these lines and no others");
            }
        }
    }
}
