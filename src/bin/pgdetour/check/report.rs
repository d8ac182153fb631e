//! What a configuration comes to: pure, from the configuration and what its servers answered.

use pgdetour::{
    Config,
    config::{AliasConfig, AliasKind, AliasName, Mistake, Role, ServerConfig},
    health::{Bounds, Facts, Need},
    plan::{Chain, Standing},
};

use super::connect::Finding;

/// Sessions of the monitor on one server at most: the watched one, and two new ones while one ping confirms another.
const PING_SESSIONS: usize = 3;

/// Everything that is told about a configuration.
#[derive(Debug)]
pub(super) struct Report<'a> {
    pub(super) aliases: Vec<Alias<'a>>,
    pub(super) warnings: &'a [Mistake],
    /// Whether the servers were asked.
    pub(super) asked: bool,
}

/// One alias.
#[derive(Debug)]
pub(super) struct Alias<'a> {
    pub(super) config: &'a AliasConfig,
    pub(super) chain: Chain,
    /// Its server, unless it is a group.
    pub(super) server: Option<Server<'a>>,
}

/// One server.
#[derive(Debug)]
pub(super) struct Server<'a> {
    pub(super) config: &'a ServerConfig,
    pub(super) bounds: Bounds,
    /// Connections that this process makes to it at most.
    pub(super) most: Connections,
    pub(super) finding: Option<Finding>,
    /// How many bytes of the primary's log it has not replayed, as far as two pings that are not quite simultaneous can tell.
    pub(super) behind: Option<u64>,
}

/// Connections of one process to one server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Connections {
    pub(super) own: usize,
    pub(super) detours: usize,
    pub(super) pings: usize,
}

impl Connections {
    pub(super) fn total(self) -> usize {
        self.own + self.detours + self.pings
    }
}

impl<'a> Report<'a> {
    /// The report on a configuration that holds.
    pub(super) fn new(config: &'a Config, findings: Option<Vec<Finding>>) -> Self {
        let asked = findings.is_some();
        let mut findings = findings.unwrap_or_default();
        let written =
            findings.iter().filter_map(|finding| finding.entry.known.facts).find(|facts| facts.role == Role::Primary);
        let aliases = config.aliases().iter().map(|alias| {
            let server = match &alias.kind {
                AliasKind::Server(server) => {
                    let index = findings.iter().position(|finding| finding.entry.known.name == alias.name);
                    let finding = index.map(|index| findings.swap_remove(index));
                    let facts = finding.as_ref().and_then(|finding| finding.entry.known.facts);
                    Some(Server {
                        config: server,
                        bounds: Bounds::of(&server.pings),
                        most: most(config, alias),
                        behind: behind(facts, written),
                        finding,
                    })
                }
                _ => None,
            };
            Alias { config: alias, chain: Chain::of(config, alias), server }
        });
        Self { aliases: aliases.collect(), warnings: config.warnings(), asked }
    }

    /// Whether every server that was asked can be used.
    pub(super) fn is_fine(&self) -> bool {
        self.aliases.iter().filter_map(|alias| alias.server.as_ref()?.finding.as_ref()).all(Finding::is_usable)
    }
}

impl Alias<'_> {
    pub(super) fn need(&self) -> Need {
        self.chain.need
    }
}

impl Finding {
    /// Whether the router would send it what it is declared for.
    pub(super) fn is_usable(&self) -> bool {
        self.refused.is_none() && self.entry.known.outage.is_none() && self.entry.standing == Standing::Sound
    }
}

/// The pools that lead to this server are its own, and one for each alias whose failover comes here.
fn most(config: &Config, server: &AliasConfig) -> Connections {
    let leads_here = |alias: &&AliasConfig| Chain::of(config, alias).failover.contains(&server.name);
    let detours = config.aliases().iter().filter(leads_here).map(|alias| alias.pool.detour_size).sum();
    Connections { own: server.pool.max_size, detours, pings: PING_SESSIONS }
}

fn behind(replica: Option<Facts>, primary: Option<Facts>) -> Option<u64> {
    let (replica, primary) = (replica?, primary?);
    let comparable =
        replica.role == Role::Replica && replica.system.is_none_or(|id| primary.system.is_none_or(|it| it == id));
    comparable.then(|| Some(replica.position?.bytes_to(primary.position?)))?
}

/// The names, as a list.
pub(super) fn list(names: &[AliasName]) -> String {
    names.iter().map(AliasName::as_str).collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_server_gets_its_own_connections_and_those_of_each_detour_to_it() {
        let text = r#"
            max_size = 10
            [alias.primary]
            role = "primary"
            url = "postgres://a@127.0.0.1:1/d"
            [alias.replica]
            role = "replica"
            url = "postgres://a@127.0.0.1:2/d"
            detour_size = 4
            [alias.second]
            role = "replica"
            url = "postgres://a@127.0.0.1:3/d"
            failover = ["replica"]
            [alias.both]
            members = ["replica", "second"]
            detour_size = 2
        "#;
        let config = Config::from_toml(text).unwrap();
        let report = Report::new(&config, None);
        let most: Vec<_> = report.aliases.iter().filter_map(|alias| Some(alias.server.as_ref()?.most)).collect();
        // `second` goes to `replica` and on to the primary with 5 each, `replica` with 4 and the group with 2 to the primary.
        let expected = [(10, 4 + 5 + 2), (10, 5), (10, 0)];
        assert_eq!(most, expected.map(|(own, detours)| Connections { own, detours, pings: 3 }));
    }
}
