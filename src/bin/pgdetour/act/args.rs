//! What the commands that act can be asked for on the command line.

use std::{path::PathBuf, time::Duration};

use crate::exit::EXIT_CODES;

/// The longest drain that a router takes.
const LONGEST: Duration = Duration::from_secs(24 * 3600);

const DRAIN_EXAMPLES: &str = "\
Examples:
  pgdetour drain replica --token-file token           for an hour
  pgdetour drain replica --for 10m --token-file token
  pgdetour drain replica --url http://10.0.0.5:8080/pgdetour --token-file token";

/// Sends an alias's requests elsewhere for a while, before its server is stopped: what is in use is finished, and no request fails
///
/// A router that runs is asked over HTTP, with the token that it was started with. The drain ends by itself. Where no other server takes
/// the requests, or the others are full, they go there all the same; a primary is not drained, since its writes have nowhere to go.
#[derive(Debug, clap::Args)]
#[command(after_help = format!("{DRAIN_EXAMPLES}\n\n{EXIT_CODES}"))]
pub(crate) struct Drain {
    /// How long, 24h at most
    #[arg(long = "for", value_name = "TIME", default_value = "1h", value_parser = lasting)]
    pub(crate) lasting: Duration,

    #[command(flatten)]
    pub(crate) on: On,
}

/// On what it is done, and where.
#[derive(Debug, clap::Args)]
pub(crate) struct On {
    /// The alias
    #[arg(value_name = "ALIAS")]
    pub(super) alias: String,

    /// The endpoints of the router: of `pgdetour serve`, or where an application has nested them
    #[arg(long, value_name = "URL", default_value = "http://127.0.0.1:8430")]
    pub(super) url: String,

    /// A file with the bearer token; others may not read it
    #[arg(long, value_name = "FILE")]
    pub(super) token_file: PathBuf,

    /// One JSON object on standard output, and nothing else there
    #[arg(long)]
    pub(super) json: bool,
}

/// Ends a drain: requests may come back
///
/// Exit code 0 also where there was none.
#[derive(Debug, clap::Args)]
#[command(after_help = EXIT_CODES)]
pub(crate) struct Undrain {
    #[command(flatten)]
    pub(crate) on: On,
}

/// Has an alias's servers pinged now, whatever is due, and waits until they are
///
/// What came of it `pgdetour explain` tells.
#[derive(Debug, clap::Args)]
#[command(after_help = EXIT_CODES)]
pub(crate) struct Ping {
    #[command(flatten)]
    pub(crate) on: On,
}

/// Lets a request through an open breaker on trial now, rather than at the end of its hold
///
/// Exit code 0 also where no breaker was held.
#[derive(Debug, clap::Args)]
#[command(after_help = EXIT_CODES)]
pub(crate) struct EndHold {
    #[command(flatten)]
    pub(crate) on: On,
}

fn lasting(text: &str) -> Result<Duration, String> {
    match humantime::parse_duration(text) {
        Ok(lasting) if lasting.is_zero() || lasting > LONGEST => Err("more than nothing, and 24h at most".to_owned()),
        Ok(lasting) => Ok(lasting),
        Err(error) => Err(format!("{error}; write it like 30m or 2h")),
    }
}
