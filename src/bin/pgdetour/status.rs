//! `pgdetour status`: what is so now, once.

use std::{future::Future, io};

use pgdetour::{Mode, observe::status::Status};

use crate::{
    clock,
    exit::{EXIT_CODES, Exit},
    line::Line,
    log,
    paint::Paint,
    say::say,
    subject::Subject,
    trouble::Trouble,
    view,
};

const EXAMPLES: &str = "\
Examples:
  pgdetour status                               pings the servers of pgdetour.toml once
  pgdetour status --url http://127.0.0.1:8430   asks a router that runs
  pgdetour status --url http://10.0.0.5:8080/pgdetour --token-file token
  pgdetour status --json | jq .mode             normal, degraded, read-only or down

A router of its own sees what its pings see. What an application's requests have met, and its pools, tells its own router.";

/// Tells once how the servers are and where each alias's requests go
///
/// Of a router that runs, over HTTP; without --url it starts one from the configuration, which pings each server once.
///
/// Exit code 0 while all is normal, 1 when it is degraded or worse.
#[derive(Debug, clap::Args)]
#[command(after_help = format!("{EXAMPLES}\n\n{EXIT_CODES}"))]
pub(crate) struct Args {
    #[command(flatten)]
    subject: Subject,

    /// One JSON object on standard output, and nothing else there: that of /status
    #[arg(long)]
    json: bool,
}

/// Tells, until done or interrupted.
pub(crate) async fn run(args: &Args, interrupted: impl Future<Output = ()>) -> Exit {
    log::log_to_errors(clock::now());
    let told = async {
        let status = args.subject.status().await?;
        tell(&status, args.json)
    };
    tokio::select! {
        told = told => told.unwrap_or_else(|trouble| trouble.tell(args.json)),
        () = interrupted => Exit::Interrupted,
    }
}

fn tell(status: &Status, as_json: bool) -> Result<Exit, Trouble> {
    if as_json {
        let status = serde_json::to_string_pretty(status);
        say(&status.map_err(|error| Trouble::new(Exit::Environment, error))?);
    } else {
        let paint = Paint::of(&io::stdout());
        let parts =
            [vec![view::headline(status)], view::aliases(status), view::servers(status), view::services(status)];
        let lines = parts.into_iter().filter(|part| !part.is_empty()).collect::<Vec<_>>().join(&Line::default());
        // Cut nowhere: a cause that is too long for the terminal is still wanted.
        lines.iter().for_each(|line| say(&line.painted(paint, usize::MAX)));
    }
    Ok(if status.mode == Mode::Normal { Exit::Fine } else { Exit::Failed })
}
