//! Why a ping, a failover or a recovery of a service failed.

use std::{error::Error, fmt, io};

use crate::{
    health::{Cause, Finding},
    pool::is_own_shortage,
};

/// Why a ping, a [`failover`](super::Service::failover) or a [`recover`](super::Service::recover) failed.
///
/// Every [`std::error::Error`] becomes one by `?`, and speaks against the service, unless it shows that this process has run out of
/// file handles or ports. That is why it is no [`std::error::Error`] itself.
pub struct ServiceError {
    cause: Cause,
    conclusive: bool,
}

impl ServiceError {
    /// The service did not answer as it should: such pings open an outage.
    #[must_use]
    pub fn failed(what: impl AsRef<str>) -> Self {
        Self { cause: Cause::new(what), conclusive: true }
    }

    /// The ping tells nothing of the service's health: a login was refused, or there was no room for it. It opens no outage and
    /// closes none.
    #[must_use]
    pub fn inconclusive(what: impl AsRef<str>) -> Self {
        Self { cause: Cause::new(what), conclusive: false }
    }

    /// What is wrong, with the whole chain of causes in one line.
    #[must_use]
    pub fn cause(&self) -> &Cause {
        &self.cause
    }

    /// Whether it speaks against the service.
    #[must_use]
    pub fn is_conclusive(&self) -> bool {
        self.conclusive
    }

    /// The same, of one of several places.
    pub(super) fn at(self, place: &str) -> Self {
        Self { cause: Cause::new(format!("{place}: {}", self.cause)), ..self }
    }

    /// What a ping that failed so has found.
    pub(crate) fn into_finding(self) -> Finding {
        if self.conclusive { Finding::Failed(self.cause) } else { Finding::Inconclusive(self.cause) }
    }
}

impl<E: Error + 'static> From<E> for ServiceError {
    fn from(error: E) -> Self {
        let ours = is_ours(&error);
        Self { cause: Cause::of(&error), conclusive: !ours }
    }
}

/// Whether something in this process is behind an error.
fn is_ours(error: &(dyn Error + 'static)) -> bool {
    let io = error.downcast_ref::<io::Error>();
    // The source of an error that holds another is the source of that.
    let held = || io.and_then(io::Error::get_ref).is_some_and(|held| is_ours(held));
    io.is_some_and(is_own_shortage) || held() || error.source().is_some_and(is_ours)
}

impl fmt::Display for ServiceError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.cause, f)
    }
}

impl fmt::Debug for ServiceError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = if self.conclusive { "Failed" } else { "Inconclusive" };
        f.debug_tuple(name).field(&format_args!("{}", self.cause)).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_this_process_lacks_speaks_against_nobody() {
        let full = ServiceError::from(io::Error::from_raw_os_error(24));
        assert!(!full.is_conclusive(), "{full:?}");
        let wrapped = ServiceError::from(io::Error::other(io::Error::from_raw_os_error(24)));
        assert!(!wrapped.is_conclusive(), "{wrapped:?}");
        assert!(ServiceError::from(io::Error::from(io::ErrorKind::ConnectionRefused)).is_conclusive());
    }
}
