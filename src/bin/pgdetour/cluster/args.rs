//! What `pgdetour cluster` can be asked for on the command line.

use std::path::PathBuf;

use clap::ValueEnum;

use crate::exit::EXIT_CODES;

const EXAMPLES: &str = "\
Examples:
  pgdetour cluster --config pair.toml   starts a primary and a replica, and stays until Ctrl-C
  pgdetour cluster kill replica         in another terminal
  pgdetour cluster repair replica
  pgdetour drill --config pair.toml --inject 'kill=pgdetour cluster kill replica' \\
      --repair 'kill=pgdetour cluster repair replica' --yes

The servers are named as their aliases: primary, replica, replica2, ... They run on free ports of 127.0.0.1 in a temporary \
directory, let every local user in without a password, and are gone when this program ends. PostgreSQL 14 or newer has to be installed.";

/// Holds servers up for experiments of your own, and breaks and repairs them by name
///
/// Starts a primary and streaming replicas for experiments of your own, prints the configuration of a router over them, and
/// stays. With an action it tells a running one to break or repair a server.
#[derive(Debug, clap::Args)]
#[command(after_help = format!("{EXAMPLES}\n\n{EXIT_CODES}"))]
pub(crate) struct Cluster {
    /// What to do to a server of the cluster that is running
    #[arg(value_enum)]
    pub(super) action: Option<Action>,

    /// Which server; `status` needs none
    #[arg(requires = "action")]
    pub(super) server: Option<String>,

    /// Where a running cluster is told what to do: a Unix socket for this user alone
    #[arg(long, value_name = "PATH", default_value = "pgdetour-cluster.sock")]
    pub(super) socket: PathBuf,

    /// How many replicas to start
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u8).range(0..=9), conflicts_with = "action")]
    pub(super) replicas: u8,

    /// Write the configuration to this file too, before the socket is there
    #[arg(long, value_name = "FILE", conflicts_with = "action")]
    pub(super) config: Option<PathBuf>,
}

/// What can be done to a server.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Action {
    /// Say which servers run
    Status,
    /// Its postmaster is killed (kill -9); its other processes end by themselves
    Kill,
    /// All its processes are killed (kill -9)
    Crash,
    /// Fast shutdown: sessions are told
    Stop,
    /// Immediate shutdown
    Immediate,
    /// Its processes stop answering (SIGSTOP); connections stay open
    Freeze,
    /// They go on (SIGCONT)
    Thaw,
    /// Its sessions are ended (pg_terminate_backend)
    Terminate,
    /// Start it again
    Start,
    /// Stop it fast and start it again
    Restart,
    /// Thaw it or start it, whichever it needs; nothing if it is well
    Repair,
    /// Make a replica a primary
    Promote,
}

impl Action {
    /// The word on the command line.
    pub(super) fn name(self) -> String {
        self.to_possible_value().map_or_else(String::new, |value| value.get_name().to_owned())
    }
}
