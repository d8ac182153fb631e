//! How much of the application's work is possible at all? One word for all aliases together.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::{chain::Chain, table::Table};
use crate::{config::AliasName, health::Need};

/// How much of the application's work is possible now. The later ones are worse: they compare so.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Mode {
    /// Every alias is served by its own servers.
    #[default]
    Normal,
    /// Some alias is on a detour, or misses some or all of its servers; reads and writes are possible.
    Degraded,
    /// No alias that is declared a primary takes writes, and reads are served.
    ReadOnly,
    /// Nothing is served.
    Down,
}

impl Mode {
    /// The stable name, as the log's fields `from` and `to` have it: `normal`, `degraded`, `read-only` or `down`.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Normal => "normal",
            Self::Degraded => "degraded",
            Self::ReadOnly => "read-only",
            Self::Down => "down",
        }
    }

    /// The mode of these aliases by this table. A server of which nothing is known yet is believed up.
    pub(super) fn of(aliases: &[Chain], table: &Table) -> Self {
        let serves = |name: &AliasName, need| table.get(name).is_some_and(|entry| entry.belief().serves(need));
        let behind = |name: &AliasName, need| table.get(name).is_some_and(|entry| entry.belief().is_behind(need));
        let at_home = |chain: &Chain, name: &AliasName| serves(name, chain.need) && !behind(name, chain.need);
        let served = |chain: &Chain| chain.own.iter().all(|name| at_home(chain, name));
        let mut primaries = aliases.iter().filter(|chain| chain.need == Need::Writes).peekable();
        if aliases.iter().all(served) {
            Self::Normal
        } else if !table.entries().iter().any(|entry| entry.belief().serves(Need::Reads)) {
            Self::Down
        } else if primaries.peek().is_some()
            && !primaries.any(|chain| chain.own.iter().any(|name| serves(name, chain.need)))
        {
            Self::ReadOnly
        } else {
            Self::Degraded
        }
    }
}

impl fmt::Display for Mode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}
