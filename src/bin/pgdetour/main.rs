//! The program `pgdetour`: shows an outage live, tells how a router is and has it act, drills faults, checks, migrates, serves.

mod act;
mod args;
mod check;
#[allow(dead_code, reason = "the wall clock is for the library so far")]
#[path = "../../clock.rs"]
mod clock;
mod cluster;
mod demo;
mod drill;
mod exit;
mod explain;
mod line;
mod log;
mod manual;
mod migrate;
mod paint;
mod read;
mod remote;
mod report;
mod safe;
mod say;
mod screen;
mod serve;
mod status;
mod subject;
mod table;
mod time;
mod trouble;
mod view;
mod watch;

use std::process::ExitCode;

use clap::Parser;

use self::{
    act::Action,
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
                Command::Status(status) => status::run(&status, interrupted()).await,
                Command::Watch(watch) => watch::run(&watch, interrupted()).await,
                Command::Explain(explain) => explain::run(&explain, interrupted()).await,
                Command::Drain(drain) => act::run(&drain.on, Action::Drain(drain.lasting), interrupted()).await,
                Command::Undrain(undrain) => act::run(&undrain.on, Action::Undrain, interrupted()).await,
                Command::Ping(ping) => act::run(&ping.on, Action::Ping, interrupted()).await,
                Command::EndHold(hold) => act::run(&hold.on, Action::EndHold, interrupted()).await,
                Command::Completions(completions) => manual::completions(&completions),
                Command::Man(man) => manual::man(&man),
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
