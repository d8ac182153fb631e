//! `pgdetour check`: does a configuration hold, what does it come to, and do its servers answer?

mod connect;
mod print;
mod report;

use std::{
    future::Future,
    io::{self, Write},
};

use pgdetour::Config;
use serde_json::json;

use self::report::Report;
use crate::{args, clock, exit::Exit, log, paint::Paint};

/// Checks, until done or interrupted.
pub(crate) async fn run(args: &args::Check, interrupted: impl Future<Output = ()>) -> Exit {
    log::log_to_errors(clock::now());
    tokio::select! {
        exit = check(args) => exit,
        () = interrupted => Exit::Interrupted,
    }
}

async fn check(args: &args::Check) -> Exit {
    let config = match Config::from_file(&args.file) {
        Ok(config) => config,
        Err(error) if args.json => {
            let mistakes: Vec<_> = error.mistakes().iter().map(print::mistake).collect();
            say(&format!("{:#}", json!({ "file": args.file, "fine": false, "mistakes": mistakes })));
            return Exit::Usage;
        }
        Err(error) => {
            eprintln!("{error}");
            return Exit::Usage;
        }
    };
    let findings = if args.connect {
        match connect::ask_all(&config).await {
            Ok(findings) => Some(findings),
            Err(error) => return Exit::Environment.because(&error),
        }
    } else {
        None
    };
    let report = Report::new(&config, findings);
    if args.json {
        say(&format!("{:#}", print::json(&report, &args.file)));
    } else {
        print::lines(&report, &args.file, Paint::of(&io::stdout())).iter().for_each(|line| say(line));
    }
    if report.is_fine() { Exit::Fine } else { Exit::Failed }
}

fn say(line: &str) {
    // Who closed standard output does not want it.
    let _ = writeln!(io::stdout(), "{line}");
}
