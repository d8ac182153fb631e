//! How the program ends: exit codes that scripts can rely on, and signals.

use std::{fmt, process::ExitCode};

use tokio::signal::unix::{SignalKind, signal};

/// What the exit codes mean, for `--help`.
pub(crate) const EXIT_CODES: &str = "\
Exit codes:
  0    fine
  1    what was shown, checked, drilled or asked for failed, or is not normal
  2    wrong usage, or a mistake in the configuration
  3    the environment does not allow it: no PostgreSQL found, no router reached, a wrong token
  130  ended by a signal";

/// How the program ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Exit {
    Fine = 0,
    Failed = 1,
    Usage = 2,
    Environment = 3,
    Interrupted = 130,
}

impl Exit {
    /// The same, with its reason on standard error.
    pub(crate) fn because(self, reason: &dyn fmt::Display) -> Self {
        eprintln!("pgdetour: {reason}");
        self
    }
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit as u8)
    }
}

/// Ends when somebody wants the program to end: Ctrl-C, SIGTERM, or a terminal that is closed.
pub(crate) async fn interrupted() {
    let kinds = [SignalKind::interrupt(), SignalKind::terminate(), SignalKind::hangup()];
    let [Ok(mut interrupt), Ok(mut terminate), Ok(mut hangup)] = kinds.map(signal) else {
        // Without handlers a signal ends the program at once; the test kit's guard then cleans up.
        return std::future::pending().await;
    };
    tokio::select! {
        _ = interrupt.recv() => {}
        _ = terminate.recv() => {}
        _ = hangup.recv() => {}
    }
}
