//! What people may do by hand: have an alias drained, pinged, or let out of a breaker's hold. Each says who asked, is an event, and ends by itself.

use std::{error, fmt, sync::Arc, time::Duration};

use super::Router;
use crate::{
    config::{AliasKind, AliasName, Config, Role},
    monitor::Act,
    pool::Backend,
};

/// How long a drain lasts where nothing else is said.
pub const DRAIN_DEFAULT: Duration = Duration::from_secs(3600);

/// The longest that a drain may last: what is forgotten ends by itself.
pub const DRAIN_LONGEST: Duration = Duration::from_secs(24 * 3600);

/// So much of a name is kept.
const LONGEST_NAME: usize = 64;

/// Why an action was not taken.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum ActionError {
    /// There is no such alias.
    UnknownAlias {
        /// What was asked for.
        alias: String,
    },
    /// It is declared a primary, and writes have nowhere else to go.
    Primary {
        /// The alias that declares it.
        alias: AliasName,
    },
    /// A drain lasts longer than nothing and no longer than [`DRAIN_LONGEST`].
    Duration {
        /// What was asked for.
        lasting: Duration,
    },
    /// The router is shut down.
    Closed,
}

impl<B: Backend> Router<B> {
    /// Has the servers of an alias drained: no new request goes there where another server of its plan serves, and idle connections are
    /// closed. What is in use is finished. Where the others are full for 100 ms, or none serves, requests go there all the same: a drain
    /// fails no request. It ends by itself after `lasting` ([`DRAIN_DEFAULT`] is an hour), outlives reloads, and begins anew if it is asked for again.
    ///
    /// It is no outage: the event is [`Drained`](crate::EventKind::Drained), and the mode is degraded meanwhile. `by` is who asks; 64
    /// printable characters of it are kept.
    ///
    /// # Errors
    ///
    /// When there is no such alias, one of its servers is declared a primary, or `lasting` is nothing or more than [`DRAIN_LONGEST`].
    ///
    /// # Cancel safety
    ///
    /// A dropped call has changed nothing, or all of it.
    pub async fn drain(&self, alias: &str, lasting: Duration, by: &str) -> Result<(), ActionError> {
        if lasting.is_zero() || lasting > DRAIN_LONGEST {
            return Err(ActionError::Duration { lasting });
        }
        self.act(alias, Act::Drain(lasting), by).await.map(drop)
    }

    /// Ends a drain. False if there was none.
    ///
    /// # Errors
    ///
    /// When there is no such alias.
    ///
    /// # Cancel safety
    ///
    /// A dropped call has changed nothing, or all of it.
    pub async fn undrain(&self, alias: &str, by: &str) -> Result<bool, ActionError> {
        self.act(alias, Act::Undrain, by).await
    }

    /// Has the servers of an alias pinged at once, and waits until that has ended, as [`Router::monitor`] does.
    ///
    /// # Errors
    ///
    /// When there is no such alias.
    ///
    /// # Cancel safety
    ///
    /// Pings that have begun go on.
    pub async fn ping_now(&self, alias: &str, by: &str) -> Result<(), ActionError> {
        self.act(alias, Act::Ping, by).await?;
        // Asked in any case: the monitor may not have said yet that a ping is due.
        let topology = self.inner.topology.load_full();
        topology.monitor.run().await;
        Ok(())
    }

    /// Ends the holds of open breakers of an alias's servers: a request goes there on trial at once. False if there was none.
    ///
    /// # Errors
    ///
    /// When there is no such alias.
    ///
    /// # Cancel safety
    ///
    /// A dropped call has changed nothing, or all of it.
    pub async fn end_hold(&self, alias: &str, by: &str) -> Result<bool, ActionError> {
        self.act(alias, Act::EndHold, by).await
    }

    async fn act(&self, alias: &str, act: Act, by: &str) -> Result<bool, ActionError> {
        // While a reload is under way there are two monitors: one would not know of it.
        let _one = self.inner.reloading.lock().await;
        let topology = self.inner.topology.load_full();
        if topology.is_closed() {
            return Err(ActionError::Closed);
        }
        let servers = servers_of(&topology.config, alias)?;
        let primary = |name: &&AliasName| role_of(&topology.config, name) == Some(Role::Primary);
        if let (Act::Drain(_), Some(primary)) = (act, servers.iter().find(primary)) {
            return Err(ActionError::Primary { alias: primary.clone() });
        }
        topology.monitor.act(servers, act, known_as(by)).await.ok_or(ActionError::Closed)
    }
}

/// The aliases that declare the own servers of this one.
fn servers_of(config: &Config, alias: &str) -> Result<Vec<AliasName>, ActionError> {
    let declared =
        config.alias(alias).ok_or_else(|| ActionError::UnknownAlias { alias: known_as(alias).to_string() })?;
    Ok(match &declared.kind {
        AliasKind::Server(_) => vec![declared.name.clone()],
        AliasKind::Group { members, .. } => members.clone(),
    })
}

fn role_of(config: &Config, alias: &AliasName) -> Option<Role> {
    match &config.alias(alias.as_str())?.kind {
        AliasKind::Server(server) => Some(server.role),
        AliasKind::Group { .. } => None,
    }
}

/// A name as it may stand in a log: bounded, in one line, without what a terminal obeys.
fn known_as(name: &str) -> Arc<str> {
    let printed = name.trim().chars().map(|c| if c.is_control() { ' ' } else { c });
    let name: String = printed.take(LONGEST_NAME).collect();
    if name.is_empty() { "somebody".into() } else { name.into() }
}

impl fmt::Display for ActionError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::UnknownAlias { alias } => write!(f, "there is no alias {alias:?}"),
            Self::Primary { alias } => {
                write!(f, "{alias} is declared a primary: its writes have nowhere else to go, so it is not drained")
            }
            Self::Duration { lasting } => {
                let (lasting, longest) =
                    (humantime::format_duration(*lasting), humantime::format_duration(DRAIN_LONGEST));
                write!(f, "a drain of {lasting} was asked for: it lasts more than nothing and {longest} at most")
            }
            Self::Closed => f.write_str("the router is shut down"),
        }
    }
}

impl error::Error for ActionError {}
