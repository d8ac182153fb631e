//! What `pgdetour watch` can be asked for on the command line.

use crate::{exit::EXIT_CODES, subject::Subject};

const EXAMPLES: &str = "\
Examples:
  pgdetour watch                                by pings of its own to the servers of pgdetour.toml
  pgdetour watch --url http://127.0.0.1:8430    a router that runs
  pgdetour watch --url http://10.0.0.5:8080/pgdetour --token-file token
  pgdetour watch | tee outages.log              a line for each event
  pgdetour watch --json | jq -c 'select(.type == \"event\")'

q or Ctrl-C ends it. Where the output is no terminal it writes lines: first how things are, then each event, and when the \
router cannot be reached and can be again.";

/// Shows live how the servers are, where requests go, the last ten minutes and the last events
///
/// Of a router that runs, over HTTP; without --url it runs one of its own, which pings the servers as the configuration says.
///
/// Exit code 0 after q, 130 after Ctrl-C, 3 if a router cannot be reached to begin with; one that is lost later is waited for.
#[derive(Debug, clap::Args)]
#[command(after_help = format!("{EXAMPLES}\n\n{EXIT_CODES}"))]
pub(crate) struct Args {
    #[command(flatten)]
    pub(super) subject: Subject,

    /// One JSON object a line, of type status, event, lost or found, also on a terminal
    #[arg(long)]
    pub(super) json: bool,
}
