//! Which servers an alias may use at all, as configured.

use std::time::Instant;

use super::{
    explain::{Plan, Reason, Step},
    table::Table,
};
use crate::{
    config::{AliasConfig, AliasKind, AliasName, Config, Role},
    health::Need,
};

/// The servers of one alias, by the names of the aliases that declare them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Chain {
    /// What the alias's own servers have to serve.
    pub need: Need,
    /// Its own servers: one, or the members of a group.
    pub own: Vec<AliasName>,
    /// Those that stand in for them, in order; a group in the chain stands for its members.
    pub failover: Vec<AliasName>,
}

impl Chain {
    /// The servers of this alias.
    #[must_use]
    pub fn of(config: &Config, alias: &AliasConfig) -> Self {
        let own = match &alias.kind {
            AliasKind::Server(_) => vec![alias.name.clone()],
            AliasKind::Group { members, .. } => members.clone(),
        };
        let chain = config.chain_of(alias.name.as_str()).into_iter().map(|server| server.name.clone());
        let failover = chain.filter(|name| !own.contains(name)).collect();
        let need = match &alias.kind {
            AliasKind::Server(server) if server.role == Role::Primary => Need::Writes,
            AliasKind::Server(_) | AliasKind::Group { .. } => Need::Reads,
        };
        Self { need, own, failover }
    }

    /// The same for a request that writes: nobody stands in for that.
    #[must_use]
    pub fn for_writes(&self) -> Self {
        Self { need: Need::Writes, own: self.own.clone(), failover: Vec::new() }
    }

    /// Where a request would go with this table, and why.
    #[must_use]
    pub fn explain(&self, alias: AliasName, table: &Table, now: Instant) -> Plan {
        let own = self.own.iter().map(|name| (name, self.need, false));
        let failover = self.failover.iter().map(|name| (name, Need::Reads, true));
        let steps = own.chain(failover).filter_map(|(name, need, detour)| {
            let entry = table.get(name)?;
            let reason = Reason::of(entry, need, now);
            let next_ping = entry.known.next_ping.saturating_duration_since(now);
            Some(Step {
                alias: name.clone(),
                address: entry.known.address.clone(),
                detour,
                reason,
                next_ping,
                narrowed: None,
            })
        });
        let read_only = self.need == Need::Writes && table.is_read_only(&self.own);
        let mut steps: Vec<_> = steps.collect();
        steps.sort_by_key(|step| matches!(step.reason, Reason::Behind { .. } | Reason::Drained { .. }));
        Plan { alias, steps, read_only }
    }
}
