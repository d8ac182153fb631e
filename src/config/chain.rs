//! Where does an alias's chain of failover lead? Members, targets, and theirs, each once.

use super::{AliasConfig, AliasKind, AliasName, Config};

impl Config {
    /// The servers that may answer for an alias, in the order in which they are tried: its own first, then those of its failover
    /// targets, each followed by its own targets. Groups stand for their members; no server comes twice, so that aliases which name each other
    /// make no endless chain.
    #[must_use]
    pub fn chain_of(&self, alias: &str) -> Vec<&AliasConfig> {
        let mut chain = Chain { config: self, seen: Vec::new(), servers: Vec::new() };
        chain.follow(alias);
        chain.servers
    }
}

struct Chain<'a> {
    config: &'a Config,
    seen: Vec<&'a AliasName>,
    servers: Vec<&'a AliasConfig>,
}

impl<'a> Chain<'a> {
    fn follow(&mut self, alias: &str) {
        let Some(alias) = self.config.alias(alias) else { return };
        if self.seen.contains(&&alias.name) {
            return;
        }
        self.seen.push(&alias.name);
        match &alias.kind {
            AliasKind::Server(_) => self.add(alias),
            AliasKind::Group { members, .. } => {
                members
                    .iter()
                    .filter_map(|member| self.config.alias(member.as_str()))
                    .for_each(|member| self.add(member));
            }
        }
        alias.failover.iter().for_each(|target| self.follow(target.as_str()));
    }

    fn add(&mut self, server: &'a AliasConfig) {
        if !self.servers.iter().any(|known| known.name == server.name) {
            self.servers.push(server);
        }
    }
}
