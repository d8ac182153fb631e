//! Where does an alias's chain of failover lead? Members, targets, cycles.

use super::{AliasConfig, AliasKind, AliasName, Config};

impl Config {
    /// The servers that may answer for an alias, in the order in which they are tried: its own first, then those of its failover
    /// targets, each followed by its own targets. Groups stand for their members; no server comes twice.
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

/// A loop of written failovers that begins and ends at `start`, and out of which no written failover leads.
///
/// Two replicas that back each other up *and* then go on to the primary are no mistake: the chain ends there.
pub(super) fn cycle<'a>(start: &'a str, written: &dyn Fn(&str) -> &'a [String]) -> Option<Vec<&'a str>> {
    let back = path(start, start, written)?;
    let leads_out = reachable(start, written).into_iter().any(|alias| path(alias, start, written).is_none());
    (!leads_out || back.len() == 2).then_some(back)
}

/// One way from `from` to `to`, both ends included.
fn path<'a>(from: &'a str, to: &str, written: &dyn Fn(&str) -> &'a [String]) -> Option<Vec<&'a str>> {
    let mut seen = Vec::new();
    let mut ways = vec![vec![from]];
    while let Some(way) = ways.pop() {
        for next in written(way.last().copied().unwrap_or(from)) {
            let longer = || way.iter().copied().chain([next.as_str()]).collect::<Vec<_>>();
            if next == to {
                return Some(longer());
            }
            if !seen.contains(&next) {
                seen.push(next);
                ways.push(longer());
            }
        }
    }
    None
}

fn reachable<'a>(start: &'a str, written: &dyn Fn(&str) -> &'a [String]) -> Vec<&'a str> {
    let mut found: Vec<&str> = Vec::new();
    let mut open = vec![start];
    while let Some(alias) = open.pop() {
        for next in written(alias) {
            if !found.contains(&next.as_str()) {
                found.push(next);
                open.push(next);
            }
        }
    }
    found
}
