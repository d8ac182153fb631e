//! What `pgdetour report` can be asked for on its command line.

use std::{path::PathBuf, time::Duration};

use pgdetour::observe::Stamp;

use crate::exit::EXIT_CODES;

const REPORT_EXAMPLES: &str = "\
Examples:
  pgdetour report                               the last 30 days, by pgdetour.toml
  pgdetour report prod.toml --since 2026-01-01  since that day began in UTC
  pgdetour report --name replica --csv > replica.csv
  pgdetour report --json | jq '.aliases[] | {name, served}'

The history is kept by applications whose configuration says history = \"primary\", once \
`pgdetour migrate` has made the table for it.";

/// Reports the outages of a span of time: times to detect and to recover, and how available each alias was
///
/// Reads the outages that were kept in `pgdetour.outages`: what several processes have seen at the same time is one.
#[derive(Debug, clap::Args)]
#[command(after_help = format!("{REPORT_EXAMPLES}\n\n{EXIT_CODES}"))]
pub(crate) struct Args {
    /// The configuration
    #[arg(value_name = "FILE", default_value = "pgdetour.toml")]
    pub(crate) file: PathBuf,

    /// From when on: so long ago (30d, 12h), a day, or a moment (2026-01-31T12:00:00Z)
    #[arg(long, value_name = "TIME", default_value = "30d", value_parser = since)]
    pub(crate) since: Since,

    /// This alias or service alone
    #[arg(long, value_name = "NAME")]
    pub(crate) name: Option<String>,

    /// One JSON object on standard output, and nothing else there
    #[arg(long, conflicts_with = "csv")]
    pub(crate) json: bool,

    /// The outages as comma-separated values
    #[arg(long)]
    pub(crate) csv: bool,
}

/// How a report is written.
pub(crate) enum Format {
    Table,
    Json,
    Csv,
}

impl Args {
    pub(crate) fn format(&self) -> Format {
        match (self.json, self.csv) {
            (true, _) => Format::Json,
            (false, true) => Format::Csv,
            (false, false) => Format::Table,
        }
    }
}

/// A moment in the past.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Since {
    Ago(Duration),
    At(Stamp),
}

impl Since {
    /// The moment, seen from this one.
    pub(crate) fn before(self, now: Stamp) -> Stamp {
        match self {
            Self::Ago(time) => now.before(time),
            Self::At(at) => at,
        }
    }
}

fn since(text: &str) -> Result<Since, String> {
    let at = [text.to_owned(), format!("{text}T00:00:00Z")].into_iter().find_map(|text| text.parse().ok());
    let ago = || humantime::parse_duration(text).ok().filter(|time| !time.is_zero()).map(Since::Ago);
    at.map(Since::At).or_else(ago).ok_or_else(|| "write it like 30d, 2026-01-31 or 2026-01-31T12:00:00Z".to_owned())
}
