//! The program `pgdetour`: shows an outage live, drills faults, checks a configuration, migrates a database, and serves a status page.

mod args;
mod check;
#[allow(dead_code, reason = "the wall clock is for the library so far")]
#[path = "../../clock.rs"]
mod clock;
mod cluster;
mod demo;
mod drill;
mod exit;
mod log;
mod migrate;
mod paint;
mod read;
mod report;
mod safe;
mod screen;
mod serve;
mod table;
mod time;

use std::process::ExitCode;

use clap::Parser;

use self::{
    args::{Args, Command},
    exit::{Exit, interrupted},
};

fn main() -> ExitCode {
    let args = Args::parse();
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return Exit::Environment.because(&error).into(),
    };
    // A second signal while servers end is of no use: they end within a second or so.
    runtime
        .block_on(async {
            match args.command {
                Command::Demo(demo) => demo::run(&demo, interrupted()).await,
                Command::Cluster(cluster) => cluster::run(&cluster, interrupted()).await,
                Command::Drill(drill) => drill::run(&drill, interrupted()).await,
                Command::Read(read) => read::run(&read, interrupted()).await,
                Command::Check(check) => check::run(&check, interrupted()).await,
                Command::Migrate(migrate) => migrate::run(&migrate, interrupted()).await,
                Command::Serve(serve) => serve::run(&serve, interrupted()).await,
                Command::Report(report) => report::run(&report, interrupted()).await,
            }
        })
        .into()
}
