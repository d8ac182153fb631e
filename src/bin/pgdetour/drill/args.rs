//! What `pgdetour drill` can be asked for on the command line.

use std::{path::PathBuf, time::Duration};

use super::plan::{Command, Limits};
use crate::{args::span, exit::EXIT_CODES};

const EXAMPLES: &str = "\
Examples:
  pgdetour drill                              servers of its own, nothing to configure
  pgdetour drill --faults kill,freeze --max-failed 0 --max-detection 1s
  pgdetour drill --compose docker-compose.yml --config pgdetour.toml --yes
  pgdetour drill --config staging.toml --inject 'kill@replica=ssh db2 pkill -9 postgres' \\
      --repair 'kill@replica=ssh db2 systemctl start postgresql' --yes
  pgdetour drill drill.toml --yes --junit drill.xml

Faults: kill, crash, stop, immediate, freeze, terminate, black-hole and reset on servers of its own; kill, stop and freeze \
by Compose; whatever you name with --inject. FAULT@ALIAS breaks the server of that alias, FAULT alone that of the replica.

A drill breaks servers. Where they are not its own it says which and does nothing, until it is given --yes. It repairs what it \
broke, also when it is interrupted or a command fails; kill -9 of the drill itself is beyond it.";

/// Breaks servers under load, fault by fault, and tells what an application would see
///
/// One fault at a time, while it reads and writes through the router.
///
/// For each fault: how long until the outage was found, how many reads failed, the longest gap between two that were answered,
/// how long until all was back, and what became of every write. Exit code 1 past a limit, if a write was lost or done twice,
/// if a command failed, or if the pair did not recover.
#[derive(Debug, clap::Args)]
#[command(after_help = format!("{EXAMPLES}\n\n{EXIT_CODES}"))]
pub(crate) struct Drill {
    /// A drill as a file: configuration, faults with their commands, limits
    #[arg(value_name = "FILE")]
    pub(super) file: Option<PathBuf>,

    /// Which faults, in this order
    #[arg(long, value_name = "FAULT[@ALIAS]", value_delimiter = ',')]
    pub(super) faults: Vec<String>,

    /// Break the services of this Compose file; each is named as its alias
    #[arg(long, value_name = "FILE")]
    pub(super) compose: Option<PathBuf>,

    /// The router's configuration; default pgdetour.toml where the servers are not the drill's own
    #[arg(long, value_name = "FILE")]
    pub(super) config: Option<PathBuf>,

    /// The shell command that makes a fault happen; it has DRILL_FAULT and DRILL_ALIAS in its environment
    #[arg(long, value_name = "FAULT[@ALIAS]=COMMAND", value_parser = Command::parse)]
    pub(super) inject: Vec<Command>,

    /// The shell command that repairs it; it must be harmless where nothing is broken
    #[arg(long, value_name = "FAULT[@ALIAS]=COMMAND", value_parser = Command::parse)]
    pub(super) repair: Vec<Command>,

    /// How long such a command may take before it is killed
    #[arg(long, value_name = "TIME", default_value = "30s", value_parser = span)]
    pub(super) hook_timeout: Duration,

    /// How long a server may take to answer after its repair
    #[arg(long, value_name = "TIME", default_value = "60s", value_parser = span)]
    pub(super) patience: Duration,

    /// Break the servers that would be listed without this
    #[arg(long)]
    pub(super) yes: bool,

    /// The alias that is read through; default the replica
    #[arg(long, value_name = "ALIAS")]
    pub(super) read: Option<String>,

    /// The alias that is written through; default the primary
    #[arg(long, value_name = "ALIAS", conflicts_with = "reads_only")]
    pub(super) write: Option<String>,

    /// Write nothing, and make no table
    #[arg(long)]
    pub(super) reads_only: bool,

    /// Reads a second: every second one by `read`, the others by `get()` and a query with one retry
    #[arg(long, value_name = "N", default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..=5000))]
    pub(super) rate: u32,

    /// Writes a second, each by `write_once`
    #[arg(long, value_name = "N", default_value_t = 20, value_parser = clap::value_parser!(u32).range(1..=1000))]
    pub(super) writes: u32,

    /// How long all is well before each fault
    #[arg(long, value_name = "TIME", default_value = "1s", value_parser = span)]
    pub(super) before: Duration,

    /// How long from each fault to its repair
    #[arg(long, value_name = "TIME", default_value = "2s", value_parser = span)]
    pub(super) outage: Duration,

    /// How long all is well after each recovery
    #[arg(long, value_name = "TIME", default_value = "500ms", value_parser = span)]
    pub(super) after: Duration,

    /// Write the result as JUnit XML, one test case for each fault
    #[arg(long, value_name = "FILE")]
    pub(super) junit: Option<PathBuf>,

    /// One JSON object at the end on standard output, and nothing else there
    #[arg(long)]
    pub(super) json: bool,

    #[command(flatten)]
    pub(super) limits: LimitArgs,
}

/// What is too much, for every fault that has no limit of its own in the file.
#[derive(Debug, clap::Args)]
#[command(next_help_heading = "Limits")]
pub(super) struct LimitArgs {
    /// The longest time without an answered read
    #[arg(long, value_name = "TIME", value_parser = span)]
    max_gap: Option<Duration>,

    /// Reads that fail
    #[arg(long, value_name = "N")]
    max_failed: Option<usize>,

    /// From the fault to the outage's opening
    #[arg(long, value_name = "TIME", value_parser = span)]
    max_detection: Option<Duration>,

    /// From when the server answers again until all reads and writes are back
    #[arg(long, value_name = "TIME", value_parser = span)]
    max_return: Option<Duration>,
}

impl LimitArgs {
    pub(super) fn limits(&self) -> Limits {
        let Self { max_gap: gap, max_failed: failed, max_detection: detection, max_return: home } = *self;
        Limits { gap, failed, detection, home }
    }
}
