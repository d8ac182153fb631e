//! Which errors ask for a ping: the table, and what the configuration and the application say otherwise.

use std::error::Error;

use super::classify::{Class, Fault};
use crate::config::{ConfigBuilder, OutageErrors};

impl OutageErrors {
    /// Whether a session or lease that saw this asks for a ping. What the network shows is evidence whatever is configured.
    #[must_use]
    pub fn ask_for_ping(&self, fault: Fault) -> bool {
        if let Fault::Reported { sqlstate, .. } = fault
            && let Some(asks) = self.of_sqlstate(sqlstate.as_str())
        {
            return asks;
        }
        fault.class().asks_for_ping()
    }
}

impl ConfigBuilder {
    /// How the application classifies errors, its own types above all: `judge` is asked first about whatever is told to
    /// [`Lease::report`](crate::Lease::report) or [`Alias::report`](crate::Alias::report), about a session's end and about what a pool of
    /// your own returns. `None` leaves the error to the table. A class that speaks against the server asks for a ping, and that is
    /// all it can do: an outage is opened by pings alone.
    ///
    /// It is called on the task that saw the error, so it should only look at it.
    ///
    /// ```
    /// use std::{error::Error, io};
    /// use pgdetour::{Config, config::Role, policy::Class};
    ///
    /// let config = Config::builder()
    ///     .server("primary", Role::Primary, "postgres://app@localhost:5433/app")
    ///     .classify_errors(|error| error.is::<io::Error>().then_some(Class::Soft))
    ///     .build()?;
    /// # Ok::<(), pgdetour::config::ConfigError>(())
    /// ```
    pub fn classify_errors(
        self,
        judge: impl Fn(&(dyn Error + 'static)) -> Option<Class> + Send + Sync + 'static,
    ) -> Self {
        self.judge_errors(move |error| judge(error).map(Class::asks_for_ping))
    }
}
