//! What the program can be asked for on its command line.

use std::time::Duration;

use clap::{Parser, Subcommand, ValueEnum};

use crate::{demo::Fault, exit::EXIT_CODES};

/// In-process failover routing for PostgreSQL connections: shows it, and checks its configuration.
#[derive(Debug, Parser)]
#[command(name = "pgdetour", version, max_term_width = 100, after_help = EXIT_CODES)]
pub(crate) struct Args {
    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Shows an outage live: breaks a replica under load, and where its reads go
    Demo(Demo),
}

const DEMO_EXAMPLES: &str = "\
Examples:
  pgdetour demo                           the replica's postmaster is killed (kill -9)
  pgdetour demo --fault freeze            its processes stop answering, and nothing is closed
  pgdetour demo --outage 10s --rate 1000  longer, and busier
  pgdetour demo --json                    one JSON object on standard output, logs on standard error

Nothing has to be configured. PostgreSQL 14 or newer has to be installed, not running: a primary and a
streaming replica are started on free ports of 127.0.0.1, in a temporary directory, and are gone afterwards.";

/// Starts a primary and a streaming replica, reads through alias `replica`, breaks the replica, and repairs it.
///
/// Exit code 1 if a read failed, or if the reads did not come back to the replica.
#[derive(Debug, clap::Args)]
#[command(after_help = format!("{DEMO_EXAMPLES}\n\n{EXIT_CODES}"))]
pub(crate) struct Demo {
    /// What happens to the replica
    #[arg(long, value_enum, default_value_t = Fault::Kill)]
    pub(crate) fault: Fault,

    /// Reads a second, each a `get()` and a query
    #[arg(long, value_name = "N", default_value_t = 200, value_parser = clap::value_parser!(u32).range(1..=5000))]
    pub(crate) rate: u32,

    /// How long all is well before the fault
    #[arg(long, value_name = "TIME", default_value = "1500ms", value_parser = span)]
    pub(crate) before: Duration,

    /// How long from the fault to its repair
    #[arg(long, value_name = "TIME", default_value = "2500ms", value_parser = span)]
    pub(crate) outage: Duration,

    /// How long all is well after the recovery
    #[arg(long, value_name = "TIME", default_value = "1500ms", value_parser = span)]
    pub(crate) after: Duration,

    /// How often the servers are pinged
    #[arg(long, value_enum, default_value_t = Pace::Brisk)]
    pub(crate) pace: Pace,

    /// One JSON object at the end on standard output, and nothing else there
    #[arg(long)]
    pub(crate) json: bool,
}

/// How often servers are pinged, as `pace` in the configuration.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Pace {
    /// Every 10 s while up, every 1 s while down, 200 ms after an error
    Brisk,
    /// Every 120 s while up, every 30 s while down, 5 s after an error: the defaults without a pace
    Default,
}

/// The longest phase of a demo: its reads are kept in memory.
const LONGEST: Duration = Duration::from_secs(600);

fn span(text: &str) -> Result<Duration, String> {
    match humantime::parse_duration(text) {
        Ok(span) if span <= LONGEST => Ok(span),
        Ok(_) => Err("at most 10min".to_owned()),
        Err(error) => Err(format!("{error}; write it like 3s or 1500ms")),
    }
}
