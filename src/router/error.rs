//! What a request, or the start of a router, can fail with.

use std::{error, fmt, io, time::Duration};

use super::{
    call::{Attempt, BoxError, End, Failure, Repeat},
    queue::Full,
};
#[cfg(feature = "cache")]
use crate::plan::{Reason, Step};
use crate::{
    config::{AliasName, ConfigError},
    health::Cause,
    plan::Plan,
    policy::{Class, Outcome},
    pool::{AcquireError, Server},
};

/// Why the router could not do what was asked. It answers questions; its `Display` tells what is wrong with each server.
pub struct Error(Box<Kind>);

#[derive(Debug)]
enum Kind {
    Config(ConfigError),
    Start {
        what: String,
        source: BoxError,
    },
    Thread(io::Error),
    Unknown {
        what: &'static str,
        name: String,
        known: Vec<AliasName>,
        nearest: Option<AliasName>,
    },
    Unavailable {
        plan: Plan,
        refusals: Vec<Refusal>,
    },
    Overloaded {
        alias: AliasName,
        server: AliasName,
        full: Full,
    },
    Call(Failure),
    #[cfg_attr(not(feature = "once"), allow(dead_code, reason = "what happens once has keys"))]
    BadKey {
        alias: AliasName,
        longest: usize,
    },
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

    pub(super) fn takes_no_writes(server: &Server) -> Self {
        let cause = Cause::new("was found to take no writes while the request waited for a connection");
        Self { server: server.name.clone(), cause, class: Class::Role, source: None }
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

    pub(super) fn overloaded(alias: AliasName, server: &Server, full: Full) -> Self {
        Self(Box::new(Kind::Overloaded { alias, server: server.name.clone(), full }))
    }

    pub(super) fn call(failure: Failure) -> Self {
        Self(Box::new(Kind::Call(failure)))
    }

    /// A request for a connection that the deadline around it ended.
    pub(super) fn late(alias: AliasName, within: Duration) -> Self {
        let (end, attempts) = (End::Late(within), Vec::new());
        Self::call(Failure { alias, repeat: Repeat::Harmless, end, attempts, source: None })
    }

    #[cfg(feature = "once")]
    pub(super) fn bad_key(alias: AliasName, longest: usize) -> Self {
        Self(Box::new(Kind::BadKey { alias, longest }))
    }

    pub(super) fn start(alias: &AliasName, source: impl Into<BoxError>) -> Self {
        Self(Box::new(Kind::Start { what: format!("alias {alias}"), source: source.into() }))
    }

    pub(crate) fn service(name: &str, source: impl Into<BoxError>) -> Self {
        Self(Box::new(Kind::Start { what: format!("service {name}"), source: source.into() }))
    }

    pub(super) fn thread(source: io::Error) -> Self {
        Self(Box::new(Kind::Thread(source)))
    }

    pub(super) fn closed() -> Self {
        Self(Box::new(Kind::Closed))
    }

    pub(super) fn unknown_alias(name: &str, known: Vec<AliasName>) -> Self {
        Self::unknown("alias", name, known)
    }

    /// No alias or service, whichever was asked for, has this name.
    pub(super) fn unknown(what: &'static str, name: &str, known: Vec<AliasName>) -> Self {
        let distance = |alias: &&AliasName| strsim::osa_distance(name, alias.as_str());
        let nearest = known.iter().min_by_key(distance).filter(|alias| distance(alias) <= 3).cloned();
        Self(Box::new(Kind::Unknown { what, name: name.to_owned(), known, nearest }))
    }

    /// What became of the call: for one of several attempts, what the one says that promises least. Whatever `get()` fails with
    /// was not sent. A read of which anything may have left is [`Unknown`](Outcome::Unknown): nobody looks into its statements.
    #[must_use]
    pub fn outcome(&self) -> Outcome {
        if let Kind::Call(failure) = &*self.0 { failure.outcome() } else { Outcome::NotSent }
    }

    /// Whether the same call may be made again without doing anything twice: nothing of it has had an effect, or it was a
    /// read. It does not say that it would fare better.
    #[must_use]
    pub fn is_safe_to_retry(&self) -> bool {
        let repeatable = matches!(&*self.0, Kind::Call(failure) if failure.repeat != Repeat::IfUndone);
        repeatable || self.outcome().is_safe_to_retry()
    }

    /// The attempts of a call that failed, in their order: where each went, how long it took, how it ended. None where no
    /// connection was given at all.
    #[must_use]
    pub fn attempts(&self) -> &[Attempt] {
        if let Kind::Call(failure) = &*self.0 { &failure.attempts } else { &[] }
    }

    /// Whether the deadline of the call passed: the alias's `call_timeout`, or an earlier one around it.
    #[must_use]
    pub fn is_late(&self) -> bool {
        matches!(&*self.0, Kind::Call(failure) if matches!(failure.end, End::Late(_)))
    }

    /// Whether a primary is out while reads of its cluster are served: what an alias's `write` fails with then, and its `get`,
    /// unless it has a `failover` to get a connection for reads from. It [is unavailable](Self::is_unavailable) too.
    #[must_use]
    pub fn is_read_only(&self) -> bool {
        self.is_unavailable() && self.plan().is_some_and(|plan| plan.read_only)
    }

    /// After how long it makes sense to try again, where that is known: when no server is usable, until one is pinged next. When
    /// a pool is full, the alias's `acquire_timeout`: by then all who wait in its line now have been served or have left. That is
    /// no promise of a place. Of a server that itself has no room nobody here knows when it has some: `None`.
    #[must_use]
    pub fn retry_after(&self) -> Option<Duration> {
        match &*self.0 {
            Kind::Unavailable { plan, .. } => plan.retry_after(),
            Kind::Overloaded { full, .. } => Some(full.longest),
            Kind::Call(failure) => failure.unserved()?.retry_after(),
            Kind::Config(_) | Kind::Start { .. } | Kind::Thread(_) | Kind::Unknown { .. } | Kind::BadKey { .. } => None,
            Kind::Closed => None,
        }
    }

    /// Whether servers are up but have no room: no connection came free in time, or too many are open there. Nothing was sent,
    /// but for the [attempts](Self::attempts) before. Shed load, or try again later.
    #[must_use]
    pub fn is_overloaded(&self) -> bool {
        match &*self.0 {
            Kind::Overloaded { .. } => true,
            Kind::Unavailable { refusals, .. } => refusals.iter().any(|refusal| refusal.class == Class::Overload),
            Kind::Call(failure) => failure.unserved().is_some_and(Self::is_overloaded),
            Kind::Config(_) | Kind::Start { .. } | Kind::Thread(_) | Kind::Unknown { .. } | Kind::BadKey { .. } => {
                false
            }
            Kind::Closed => false,
        }
    }

    /// Whether no server of the alias's plan is usable. Nothing was sent, but for the [attempts](Self::attempts) before.
    #[must_use]
    pub fn is_unavailable(&self) -> bool {
        match &*self.0 {
            Kind::Unavailable { .. } => !self.is_overloaded(),
            Kind::Call(failure) => failure.unserved().is_some_and(Self::is_unavailable),
            Kind::Config(_) | Kind::Start { .. } | Kind::Thread(_) | Kind::Unknown { .. } | Kind::BadKey { .. } => {
                false
            }
            Kind::Overloaded { .. } | Kind::Closed => false,
        }
    }

    /// Whether all that is in the way of a connection is a login, a certificate or a setting that is wrong: no server is out.
    #[cfg(feature = "cache")]
    pub(super) fn is_misconfigured(&self) -> bool {
        match &*self.0 {
            Kind::Unavailable { plan, refusals } => {
                let out = |step: &Step| matches!(step.reason, Reason::Down { .. } | Reason::Recovering { .. });
                let wrong = refusals.iter().all(|refusal| refusal.class == Class::Config);
                !refusals.is_empty() && wrong && !plan.steps.iter().any(out)
            }
            // An attempt that a server failed is another matter.
            Kind::Call(failure) => {
                failure.attempts.is_empty() && failure.unserved().is_some_and(Self::is_misconfigured)
            }
            Kind::Config(_) | Kind::Start { .. } | Kind::Thread(_) | Kind::Unknown { .. } | Kind::BadKey { .. } => {
                false
            }
            Kind::Overloaded { .. } | Kind::Closed => false,
        }
    }

    /// Whether the router has been shut down.
    #[must_use]
    pub fn is_closed(&self) -> bool {
        match &*self.0 {
            Kind::Closed => true,
            Kind::Call(failure) => failure.unserved().is_some_and(Self::is_closed),
            Kind::Config(_) | Kind::Start { .. } | Kind::Thread(_) | Kind::Unknown { .. } | Kind::BadKey { .. } => {
                false
            }
            Kind::Unavailable { .. } | Kind::Overloaded { .. } => false,
        }
    }

    /// The configuration's mistakes, if it is those.
    #[must_use]
    pub fn as_config(&self) -> Option<&ConfigError> {
        if let Kind::Config(error) = &*self.0 { Some(error) } else { None }
    }

    /// The plan as it was when no server of it was usable.
    #[must_use]
    pub fn plan(&self) -> Option<&Plan> {
        match &*self.0 {
            Kind::Unavailable { plan, .. } => Some(plan),
            Kind::Call(failure) => failure.unserved()?.plan(),
            Kind::Config(_) | Kind::Start { .. } | Kind::Thread(_) | Kind::Unknown { .. } | Kind::BadKey { .. } => None,
            Kind::Overloaded { .. } | Kind::Closed => None,
        }
    }

    /// The servers that it speaks against, where that is known: those that refused a connection, and the one that failed the last
    /// attempt of a call, if `judge` says so of what was seen there.
    pub(super) fn accused(&self, judge: &dyn Fn(&(dyn error::Error + 'static)) -> bool) -> Vec<&AliasName> {
        match &*self.0 {
            Kind::Unavailable { refusals, .. } => {
                let refused = refusals.iter().filter(|refusal| {
                    let source = refusal.source.as_ref().map(|source| judge(source));
                    source.unwrap_or_else(|| refusal.class.asks_for_ping())
                });
                refused.map(|refusal| &refusal.server).collect()
            }
            Kind::Call(Failure { source, attempts, end, .. }) => {
                let failed = source.as_ref().is_some_and(|source| judge(&**source));
                let last = attempts.last().filter(|_| failed).map(|attempt| &attempt.server);
                let unserved = if let End::Unserved(error) = end { error.accused(judge) } else { Vec::new() };
                last.into_iter().chain(unserved).collect()
            }
            Kind::Config(_) | Kind::Start { .. } | Kind::Thread(_) | Kind::Unknown { .. } | Kind::BadKey { .. } => {
                Vec::new()
            }
            Kind::Overloaded { .. } | Kind::Closed => Vec::new(),
        }
    }

    /// What the work of a call returned, as it returned it; `None` if it failed otherwise.
    #[must_use]
    pub fn into_source(self) -> Option<Box<dyn error::Error + Send + Sync>> {
        if let Kind::Call(failure) = *self.0 { failure.source } else { None }
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
            Kind::Start { what, source } => write!(f, "{what} cannot be set up: {}", Cause::of(&**source)),
            Kind::Thread(source) => write!(f, "the monitor's thread cannot be started: {source}"),
            Kind::Unknown { what, name, known, nearest } => {
                write!(f, "no {what} is named {name:?}")?;
                match nearest {
                    Some(nearest) => write!(f, "; did you mean {:?}?", nearest.as_str()),
                    None => write!(f, "; there are {known:?}"),
                }
            }
            Kind::Unavailable { plan, refusals } => {
                if plan.read_only {
                    write!(f, "{}: no server takes writes now, reads go on; ", plan.alias)?;
                }
                write!(f, "no server gave a connection: {plan}")?;
                refusals.iter().try_for_each(|refusal| write!(f, "\n  tried {}: {}", refusal.server, refusal.cause))
            }
            Kind::Overloaded { alias, server, full } => {
                write!(f, "{alias}: ")?;
                full.tell(server, f)
            }
            Kind::Call(failure) => write!(f, "{failure}"),
            Kind::BadKey { alias, longest } => {
                write!(f, "{alias}: what happens once needs a key of 1 to {longest} bytes without NUL")
            }
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
            Kind::Call(Failure { source, end, .. }) => match (source, end) {
                (Some(source), _) => Some(&**source),
                (None, End::Unserved(error)) => Some(error),
                (None, End::Failed | End::Spent | End::Late(_)) => None,
            },
            Kind::Config(_) | Kind::Unknown { .. } | Kind::BadKey { .. } => None,
            Kind::Overloaded { .. } | Kind::Closed => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::error::Error as _;

    use super::*;

    #[derive(PartialEq)]
    struct Own(u8);

    impl fmt::Debug for Own {
        fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            fmt::Display::fmt(self, f)
        }
    }

    impl fmt::Display for Own {
        fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("SELECT secret")
        }
    }

    impl error::Error for Own {}

    fn name(name: &str) -> AliasName {
        AliasName::new(name).unwrap()
    }

    fn attempt(server: &str, detour: bool, outcome: Outcome, cause: &str) -> Attempt {
        let [acquire, work] = [1, 20].map(Duration::from_millis);
        Attempt { server: name(server), detour, acquire, work, outcome, cause: Cause::new(cause) }
    }

    fn failed(repeat: Repeat, end: End) -> Error {
        let attempts = vec![
            attempt("replica", false, Outcome::Unknown, "connection closed"),
            attempt("primary", true, Outcome::RolledBack, "ERROR 22012"),
        ];
        Error::call(Failure { alias: name("replica"), repeat, end, attempts, source: Some(Box::new(Own(7))) })
    }

    #[test]
    fn a_failed_call_names_every_attempt_and_repeats_nothing_of_the_works_own_error() {
        assert!(!format!("{:?}", failed(Repeat::Harmless, End::Failed)).contains("secret"));
        let told = failed(Repeat::Harmless, End::Failed).to_string();
        assert_eq!(
            told,
            "replica: the call failed\n  \
             tried replica: connection closed; outcome unknown, 1.0ms for a connection, 20.0ms at work\n  \
             tried primary (detour): ERROR 22012; rolled back, 1.0ms for a connection, 20.0ms at work"
        );
    }

    #[test]
    fn a_failed_call_keeps_what_the_work_returned() {
        let error = failed(Repeat::IfUndone, End::Spent);
        assert_eq!(error.source().and_then(|source| source.downcast_ref::<Own>()), Some(&Own(7)));
        let own = error.into_source().and_then(|source| source.downcast::<Own>().ok());
        assert_eq!(own, Some(Box::new(Own(7))));
    }

    #[test]
    fn of_several_attempts_the_least_certain_decides_whether_a_write_may_be_tried_again() {
        assert_eq!(failed(Repeat::IfUndone, End::Failed).outcome(), Outcome::Unknown);
        assert!(!failed(Repeat::IfUndone, End::Failed).is_safe_to_retry());
        assert!(failed(Repeat::Harmless, End::Failed).is_safe_to_retry(), "a read does no harm");
    }

    #[test]
    fn a_write_that_may_have_happened_says_what_to_do_about_it() {
        let last = |repeat| failed(repeat, End::Failed).to_string().lines().last().map(str::to_owned);
        assert_eq!(last(Repeat::IfUndone).unwrap(), "  it may have happened: find out before it is made again");
        assert_eq!(last(Repeat::ByKey).unwrap(), "  it may have happened: a call with the same key finds out");
    }

    #[test]
    fn what_gave_no_connection_was_not_sent_and_stays_what_it_was_after_an_attempt() {
        assert_eq!(Error::closed().outcome(), Outcome::NotSent);
        assert!(Error::closed().is_safe_to_retry() && Error::closed().attempts().is_empty());
        let after = failed(Repeat::Harmless, End::Unserved(Error::closed()));
        assert!(after.is_closed() && after.attempts().len() == 2 && !after.is_late());
        assert!(after.to_string().starts_with("the router is shut down\n  tried replica"));
    }

    #[test]
    fn a_late_call_says_how_long_it_had() {
        let late = failed(Repeat::Harmless, End::Late(Duration::from_secs(30)));
        assert!(late.is_late() && !late.is_overloaded() && !late.is_unavailable());
        assert!(late.to_string().starts_with("replica: no answer within 30.0s\n"));
    }
}
