//! `pgdetour explain`: where an alias's requests would go now, and why not elsewhere.

use std::{future::Future, io};

use pgdetour::observe::status::AliasStatus;

use crate::{
    clock,
    exit::{EXIT_CODES, Exit},
    log,
    paint::{Paint, Tone},
    remote::no_alias,
    safe::safe,
    say::say,
    subject::Subject,
    table::{Side, aligned},
    trouble::Trouble,
    view,
};

const EXAMPLES: &str = "\
Examples:
  pgdetour explain replica                    by a ping to each server of pgdetour.toml
  pgdetour explain replica --url http://127.0.0.1:8430
  pgdetour explain replica --json | jq -r '.route[] | select(.usable) | .server'";

/// Tells where an alias's requests go now: every server it may use, in order, and what speaks against each
///
/// Of a router that runs, over HTTP; without --url it starts one from the configuration, which pings each server once.
///
/// Exit code 1 where they go nowhere.
#[derive(Debug, clap::Args)]
#[command(after_help = format!("{EXAMPLES}\n\n{EXIT_CODES}"))]
pub(crate) struct Args {
    /// The alias
    #[arg(value_name = "ALIAS")]
    alias: String,

    #[command(flatten)]
    subject: Subject,

    /// One JSON object on standard output, and nothing else there: that of the alias in /status
    #[arg(long)]
    json: bool,
}

/// Tells, until done or interrupted.
pub(crate) async fn run(args: &Args, interrupted: impl Future<Output = ()>) -> Exit {
    log::log_to_errors(clock::now());
    tokio::select! {
        told = tell(args) => told.unwrap_or_else(|trouble| trouble.tell(args.json)),
        () = interrupted => Exit::Interrupted,
    }
}

async fn tell(args: &Args) -> Result<Exit, Trouble> {
    let status = args.subject.status().await?;
    let alias = status.alias(&args.alias).ok_or_else(|| no_alias(&args.alias, &status))?;
    if args.json {
        let alias = serde_json::to_string_pretty(alias);
        say(&alias.map_err(|error| Trouble::new(Exit::Environment, error))?);
    } else {
        lines(alias, Paint::of(&io::stdout())).iter().for_each(|line| say(line));
    }
    Ok(if alias.target.is_some() { Exit::Fine } else { Exit::Failed })
}

fn lines(alias: &AliasStatus, paint: Paint) -> Vec<String> {
    let (tone, goes) = view::goes(alias);
    let goes = tone.map_or_else(|| goes.clone(), |tone| paint.text(tone, &goes));
    let mut lines = vec![format!("{} goes to {goes}", paint.text(Tone::Strong, &safe(&alias.name)))];
    let rows: Vec<Vec<String>> = alias
        .route
        .iter()
        .enumerate()
        .map(|(index, step)| {
            vec![
                format!("  {}.", index + 1),
                safe(&step.server),
                safe(&step.address),
                if step.detour { "detour" } else { "own" }.to_owned(),
                format!("next ping {}", next(step.next_ping_ms)),
                safe(&step.text),
            ]
        })
        .collect();
    let left = [Side::Left; 6];
    for (row, step) in aligned(&left, &rows).iter().zip(&alias.route) {
        let goes = alias.target.as_deref() == Some(step.server.as_str());
        let tone = match (step.usable, goes) {
            (_, true) => Some(Tone::Good),
            (true, false) => None,
            (false, false) => Some(Tone::Bad),
        };
        lines.push(tone.map_or_else(|| row.clone(), |tone| paint.text(tone, row)));
    }
    lines
}

fn next(ms: u64) -> String {
    if ms == 0 { "now".to_owned() } else { format!("in {}", view::lasting(ms)) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::view::tests::{PLAIN, example};

    #[test]
    fn every_server_is_told_with_what_decides_and_nothing_that_a_terminal_obeys() {
        let mut alias = example().alias("replica").cloned().unwrap();
        alias.route[0].text = "down\x1b]0;x\x07".to_owned();
        let shown = lines(&alias, PLAIN);
        assert_eq!(shown.len(), 1 + alias.route.len(), "{shown:#?}");
        assert!(shown[1].contains("down\\u{1b}]0;x\\u{7}"), "{shown:#?}");
        assert!(shown.iter().all(|line| !line.contains('\x1b')), "{shown:#?}");
    }
}
