//! What a request, or the start of a router, can fail with.

use std::{error, fmt, io, time::Duration};

use crate::{
    config::{AliasName, ConfigError},
    health::Cause,
    plan::Plan,
    policy::Class,
    pool::{AcquireError, PoolStatus, Server},
};

/// Why the router could not do what was asked. It answers questions; its `Display` tells what is wrong with each server.
pub struct Error(Box<Kind>);

#[derive(Debug)]
enum Kind {
    Config(ConfigError),
    Start { alias: AliasName, source: Box<dyn error::Error + Send + Sync> },
    Thread(io::Error),
    UnknownAlias { name: String, known: Vec<AliasName>, nearest: Option<AliasName> },
    Unavailable { plan: Plan, refusals: Vec<Refusal> },
    Overloaded { alias: AliasName, server: AliasName, status: PoolStatus, waited: Duration },
    Closed,
}

/// Why one server of a plan gave no connection.
#[derive(Debug)]
pub(super) struct Refusal {
    server: AliasName,
    cause: Cause,
    class: Class,
    source: Option<AcquireError>,
}

impl Refusal {
    pub(super) fn new(server: &Server, class: Class, error: AcquireError) -> Self {
        Self { server: server.name.clone(), cause: Cause::of(&error), class, source: Some(error) }
    }

    pub(super) fn went_down(server: &Server) -> Self {
        let cause = Cause::new("went down while the request waited for a connection");
        Self { server: server.name.clone(), cause, class: Class::Hard, source: None }
    }
}

impl Error {
    pub(super) fn unavailable(plan: Plan, refusals: Vec<Refusal>) -> Self {
        Self(Box::new(Kind::Unavailable { plan, refusals }))
    }

    pub(super) fn overloaded(alias: AliasName, server: &Server, status: PoolStatus, waited: Duration) -> Self {
        Self(Box::new(Kind::Overloaded { alias, server: server.name.clone(), status, waited }))
    }

    pub(super) fn start(alias: &AliasName, source: impl Into<Box<dyn error::Error + Send + Sync>>) -> Self {
        Self(Box::new(Kind::Start { alias: alias.clone(), source: source.into() }))
    }

    pub(super) fn thread(source: io::Error) -> Self {
        Self(Box::new(Kind::Thread(source)))
    }

    pub(super) fn closed() -> Self {
        Self(Box::new(Kind::Closed))
    }

    pub(super) fn unknown_alias(name: &str, known: Vec<AliasName>) -> Self {
        let distance = |alias: &&AliasName| strsim::osa_distance(name, alias.as_str());
        let nearest = known.iter().min_by_key(distance).filter(|alias| distance(alias) <= 3).cloned();
        Self(Box::new(Kind::UnknownAlias { name: name.to_owned(), known, nearest }))
    }

    /// Whether servers are up but have no room: no connection came free in time, or too many are open there. Nothing was sent.
    /// Shed load, or try again later.
    #[must_use]
    pub fn is_overloaded(&self) -> bool {
        match &*self.0 {
            Kind::Overloaded { .. } => true,
            Kind::Unavailable { refusals, .. } => refusals.iter().any(|refusal| refusal.class == Class::Overload),
            Kind::Config(_) | Kind::Start { .. } | Kind::Thread(_) | Kind::UnknownAlias { .. } | Kind::Closed => false,
        }
    }

    /// Whether no server of the alias's plan is usable. Nothing was sent.
    #[must_use]
    pub fn is_unavailable(&self) -> bool {
        matches!(*self.0, Kind::Unavailable { .. }) && !self.is_overloaded()
    }

    /// Whether the router has been shut down.
    #[must_use]
    pub fn is_closed(&self) -> bool {
        matches!(*self.0, Kind::Closed)
    }

    /// The configuration's mistakes, if it is those.
    #[must_use]
    pub fn as_config(&self) -> Option<&ConfigError> {
        if let Kind::Config(error) = &*self.0 { Some(error) } else { None }
    }

    /// The plan as it was when no server of it was usable.
    #[must_use]
    pub fn plan(&self) -> Option<&Plan> {
        if let Kind::Unavailable { plan, .. } = &*self.0 { Some(plan) } else { None }
    }
}

impl From<ConfigError> for Error {
    fn from(error: ConfigError) -> Self {
        Self(Box::new(Kind::Config(error)))
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &*self.0 {
            Kind::Config(error) => write!(f, "{error}"),
            Kind::Start { alias, source } => write!(f, "alias {alias} cannot be set up: {}", Cause::of(&**source)),
            Kind::Thread(source) => write!(f, "the monitor's thread cannot be started: {source}"),
            Kind::UnknownAlias { name, known, nearest } => {
                write!(f, "no alias is named {name:?}")?;
                match nearest {
                    Some(nearest) => write!(f, "; did you mean {:?}?", nearest.as_str()),
                    None => write!(f, "; there are {known:?}"),
                }
            }
            Kind::Unavailable { plan, refusals } => {
                write!(f, "no server gave a connection: {plan}")?;
                refusals.iter().try_for_each(|refusal| write!(f, "\n  tried {}: {}", refusal.server, refusal.cause))
            }
            Kind::Overloaded { alias, server, status, waited } => write!(
                f,
                "{alias}: no connection to {server} came free within {} ({} of {} in use)",
                humantime::format_duration(*waited),
                status.size.saturating_sub(status.idle),
                status.max_size,
            ),
            Kind::Closed => f.write_str("the router is shut down"),
        }
    }
}

impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.0, f)
    }
}

impl error::Error for Error {
    fn source(&self) -> Option<&(dyn error::Error + 'static)> {
        match &*self.0 {
            Kind::Start { source, .. } => Some(&**source),
            Kind::Thread(source) => Some(source),
            Kind::Unavailable { refusals, .. } => {
                let mut sources = refusals.iter().filter_map(|refusal| refusal.source.as_ref());
                sources.next().map(|source| source as &(dyn error::Error + 'static))
            }
            Kind::Config(_) | Kind::UnknownAlias { .. } | Kind::Overloaded { .. } | Kind::Closed => None,
        }
    }
}
