//! Which database keeps the history of outages, and for how long? The keys `history` and `history_keep`.

use std::time::Duration;

use super::{
    AliasKind, AliasName, Config, Role,
    error::{Given, Mistake, Problem},
    raw::Raw,
};

/// How long an outage is kept: a year, since people compare with that.
const KEEP: Duration = Duration::from_secs(365 * 24 * 3600);

/// Where outages are kept for good: `history`.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct HistorySettings {
    /// The alias of the primary that has the table `pgdetour.outages`.
    pub alias: AliasName,
    /// For how long an outage that is over is kept. Default 365 days.
    pub keep: Duration,
}

impl HistorySettings {
    /// What is written, as far as it can be told without the aliases.
    pub(super) fn of(raw: &Raw) -> Option<Self> {
        let alias = AliasName::new(&raw.history.as_ref()?.value).ok()?;
        let keep = raw.numbers.durations.get("history_keep").map_or(KEEP, |given| given.value);
        Some(Self { alias, keep })
    }
}

/// What is wrong with the alias that is named.
pub(super) fn mistake(written: &Given<String>, config: &Config) -> Option<Mistake> {
    let is_primary = |kind: &AliasKind| matches!(kind, AliasKind::Server(server) if server.role == Role::Primary);
    let primaries = || config.aliases.iter().filter(|alias| is_primary(&alias.kind)).map(|alias| alias.name.as_str());
    let wanted = &written.value;
    if primaries().any(|name| name == wanted) {
        return None;
    }
    let what = match config.alias(wanted) {
        Some(_) => format!("`{wanted}` is not a primary, and the history is written"),
        None => format!("there is no alias `{wanted}`"),
    };
    Some(written.at.mistake(Problem::none_of(&what, wanted, primaries())))
}
