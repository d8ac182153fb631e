//! What can happen to the replica, and how it is repaired.

use clap::ValueEnum;
use pgdetour::testkit::{Server, Stop, TestkitError};

/// What happens to the replica.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Fault {
    /// Its postmaster is killed (kill -9); its other processes end by themselves
    Kill,
    /// All its processes are killed (kill -9) and none can say goodbye, as when a machine loses its power
    Crash,
    /// It is shut down properly (fast shutdown): sessions are told
    Stop,
    /// It is shut down at once (immediate shutdown)
    Immediate,
    /// Its processes stop answering (SIGSTOP); connections stay open
    Freeze,
    /// Its sessions are ended (pg_terminate_backend); it stays up, and no outage is to be seen
    Terminate,
}

impl Fault {
    /// The word on the command line.
    pub(crate) fn name(self) -> String {
        self.to_possible_value().map_or_else(String::new, |value| value.get_name().to_owned())
    }

    /// What happens, as a headline has it.
    pub(super) fn headline(self) -> &'static str {
        match self {
            Self::Kill => "kill -9 of the replica's postmaster",
            Self::Crash => "kill -9 of all the replica's processes",
            Self::Stop => "fast shutdown of the replica",
            Self::Immediate => "immediate shutdown of the replica",
            Self::Freeze => "the replica freezes (SIGSTOP)",
            Self::Terminate => "pg_terminate_backend on the replica",
        }
    }

    /// What happened, in a word.
    pub(super) fn done(self) -> &'static str {
        match self {
            Self::Kill | Self::Crash => "killed",
            Self::Stop | Self::Immediate => "stopped",
            Self::Freeze => "frozen",
            Self::Terminate => "sessions cut",
        }
    }

    /// How it is repaired, in a word; nothing where the server stays up.
    pub(super) fn repair(self) -> Option<&'static str> {
        match self {
            Self::Kill | Self::Crash | Self::Stop | Self::Immediate => Some("restarted"),
            Self::Freeze => Some("thawed"),
            Self::Terminate => None,
        }
    }

    /// Whether it is an outage at all.
    pub(super) fn is_outage(self) -> bool {
        self.repair().is_some()
    }

    /// Lets it happen. The number of sessions that were cut, where that is what it is.
    pub(super) async fn inject(self, server: &Server) -> Result<Option<usize>, TestkitError> {
        match self {
            Self::Kill => server.kill_postmaster().await?,
            Self::Crash => server.kill().await?,
            Self::Stop => server.stop(Stop::Fast).await?,
            Self::Immediate => server.stop(Stop::Immediate).await?,
            Self::Freeze => server.freeze().await?,
            Self::Terminate => return server.terminate_backends().await.map(Some),
        }
        Ok(None)
    }

    /// Repairs it. Back when the server answers, a frozen one at once.
    pub(super) async fn undo(self, server: &Server) -> Result<(), TestkitError> {
        match self {
            Self::Kill | Self::Crash | Self::Stop | Self::Immediate => server.start().await,
            Self::Freeze => server.thaw().await,
            Self::Terminate => Ok(()),
        }
    }
}
