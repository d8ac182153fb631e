//! What the program can be asked for on its command line.

use std::{net::SocketAddr, path::PathBuf, time::Duration};

use clap::{Parser, Subcommand, ValueEnum};

use crate::{act, cluster, demo::Fault, drill, exit::EXIT_CODES, explain, manual, read, report, status, watch};

/// In-process failover routing for PostgreSQL connections: shows it, checks its configuration, and makes the tables it needs.
#[derive(Debug, Parser)]
#[command(name = "pgdetour", version, max_term_width = 100, after_help = EXIT_CODES)]
pub(crate) struct Args {
    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    // What each does is told where its arguments are: a line here would take the place of all of that in its help.
    Demo(Demo),
    Status(status::Args),
    Watch(watch::Args),
    Explain(explain::Args),
    Drain(act::Drain),
    Undrain(act::Undrain),
    Ping(act::Ping),
    EndHold(act::EndHold),
    Serve(Serve),
    Report(report::Args),
    Check(Check),
    Read(read::Args),
    Drill(Box<drill::Args>),
    Cluster(cluster::Args),
    Migrate(Migrate),
    Completions(manual::Completions),
    Man(manual::Man),
}

const DEMO_EXAMPLES: &str = "\
Examples:
  pgdetour demo                     the postmaster is killed (kill -9)
  pgdetour demo --fault freeze      nothing is closed, and nothing answers
  pgdetour demo --outage 10s --rate 1000
  pgdetour demo --json | jq .fine   logs go to standard error

Nothing has to be configured, and no server has to run: PostgreSQL 14 or newer \
has to be installed. A primary and a streaming replica are started on free ports \
of 127.0.0.1, in a temporary directory, and are gone afterwards.";

/// Shows an outage live: breaks a replica under load, and where its reads go
///
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

const CHECK_EXAMPLES: &str = "\
Examples:
  pgdetour check                      reads pgdetour.toml, then PGDETOUR_...
  pgdetour check prod.toml --connect  and asks each server who and how it is
  pgdetour check --json | jq .fine";

/// Reads a configuration: its mistakes, where requests go, and how long detection takes at worst
///
/// Tells every mistake there is; without one its its aliases, where their requests go, and how long the detection of
/// an outage and the return from it take at worst.
#[derive(Debug, clap::Args)]
#[command(after_help = format!("{CHECK_EXAMPLES}\n\n{EXIT_CODES}"))]
pub(crate) struct Check {
    /// The configuration
    #[arg(value_name = "FILE", default_value = "pgdetour.toml")]
    pub(crate) file: PathBuf,

    /// Ping each server once as well; exit code 1 if one of them cannot be used
    #[arg(long)]
    pub(crate) connect: bool,

    /// One JSON object on standard output, and nothing else there
    #[arg(long)]
    pub(crate) json: bool,
}

const MIGRATE_EXAMPLES: &str = "\
Examples:
  pgdetour migrate                      reads pgdetour.toml, then PGDETOUR_...
  pgdetour migrate prod.toml --dry-run  says what is missing and changes nothing
  pgdetour migrate --json | jq .applied";

/// Makes the tables that `write_once` and the history need, or brings them up to date
///
/// Applies the migrations that a primary lacks: all of them or none, under a lock, so that two that start together do not race.
///
/// Exit code 1 if the database refuses, is newer than this program, or is not a primary's.
#[derive(Debug, clap::Args)]
#[command(after_help = format!("{MIGRATE_EXAMPLES}\n\n{EXIT_CODES}"))]
pub(crate) struct Migrate {
    /// The configuration
    #[arg(value_name = "FILE", default_value = "pgdetour.toml")]
    pub(crate) file: PathBuf,

    /// The alias to migrate, of role primary; needed only if there are several
    #[arg(long, value_name = "NAME")]
    pub(crate) alias: Option<String>,

    /// Say what is missing and change nothing
    #[arg(long)]
    pub(crate) dry_run: bool,

    /// One JSON object on standard output, and nothing else there
    #[arg(long)]
    pub(crate) json: bool,
}

const SERVE_EXAMPLES: &str = "\
Examples:
  pgdetour serve --public                      on 127.0.0.1:8430, for who can log in here
  openssl rand -hex 32 >token && chmod 600 token
  pgdetour serve prod.toml --token-file token  and the page asks for the token
  curl -sf localhost:8430/readyz?need=writes   exit code 0 while writes work";

/// Watches the servers of a configuration, and serves probes, status and a page about them over HTTP
///
/// The endpoints are /livez, /readyz, /status, /timeline, /events and the page at /.
///
/// It sees what its own pings see. What an application's requests meet, and its pools, the same endpoints tell when they are nested
/// into the application.
#[derive(Debug, clap::Args)]
#[command(after_help = format!("{SERVE_EXAMPLES}\n\n{EXIT_CODES}"))]
pub(crate) struct Serve {
    /// The configuration
    #[arg(value_name = "FILE", default_value = "pgdetour.toml")]
    pub(crate) file: PathBuf,

    /// Where to listen; port 0 for a free one
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:8430")]
    pub(crate) listen: SocketAddr,

    /// Listen also where other machines can connect
    #[arg(long)]
    pub(crate) allow_remote: bool,

    /// A file with the bearer token for details and actions; others may not read it. Without one there are no actions
    #[arg(long, value_name = "FILE")]
    pub(crate) token_file: Option<PathBuf>,

    /// Show details (names, addresses, errors; no password) to everybody who can connect
    #[arg(long)]
    pub(crate) public: bool,

    /// A host name by which it may be asked for; others get 421. On the loopback its own names are known
    #[arg(long, value_name = "NAME")]
    pub(crate) host: Vec<String>,
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

pub(crate) fn span(text: &str) -> Result<Duration, String> {
    match humantime::parse_duration(text) {
        Ok(span) if span <= LONGEST => Ok(span),
        Ok(_) => Err("at most 10min".to_owned()),
        Err(error) => Err(format!("{error}; write it like 3s or 1500ms")),
    }
}
