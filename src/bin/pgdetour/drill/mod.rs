//! `pgdetour drill`: what would an application see? Faults, one after the other, while it reads and writes through the router.

mod args;
mod compose;
mod file;
mod hook;
mod kind;
mod kit;
mod ledger;
mod load;
mod pair;
mod plan;
mod record;
mod report;
mod stage;
mod tell;
mod verdict;

use std::{
    fs,
    future::{Future, poll_fn},
    io::{self, Write},
    panic::{AssertUnwindSafe, catch_unwind},
    path::PathBuf,
    pin::pin,
    task::Poll,
    time::Duration,
};

use pgdetour::{Config, testkit::TestkitError};
use serde_json::json;

pub(crate) use self::{args::Drill as Args, kit::pings};
use self::{
    ledger::Ledger,
    load::Notes,
    pair::Pair,
    plan::{Fault, Ground, Plan},
    report::{Outcome, Played},
    stage::{Broken, Stage},
    tell::Teller,
};
use crate::{clock, exit::Exit, log, safe::safe};

/// How often the terminal is drawn again.
const FRAME: Duration = Duration::from_millis(100);

/// Why a drill cannot be done.
#[derive(Debug)]
pub(crate) enum Trouble {
    /// What was asked for makes no sense.
    Usage(String),
    /// The environment does not allow it.
    Environment(String),
}

impl From<TestkitError> for Trouble {
    fn from(error: TestkitError) -> Self {
        Self::Environment(error.to_string())
    }
}

impl From<pgdetour::Error> for Trouble {
    fn from(error: pgdetour::Error) -> Self {
        Self::Environment(error.to_string())
    }
}

/// Drills, until the end or until somebody ends it. What was broken is repaired either way.
pub(crate) async fn run(args: &Args, interrupted: impl Future<Output = ()>) -> Exit {
    log::log_to_errors(clock::now());
    let mut interrupted = pin!(interrupted);
    let prepared = tokio::select! {
        prepared = Drill::prepare(args) => prepared,
        () = &mut interrupted => return refuse(args, Exit::Interrupted, "interrupted"),
    };
    let mut drill = match prepared {
        Ok(drill) => drill,
        Err(Trouble::Usage(why)) => return refuse(args, Exit::Usage, &why),
        Err(Trouble::Environment(why)) => return refuse(args, Exit::Environment, &why),
    };
    let ended = tokio::select! {
        done = caught(drill.play()) => Ended::Done(done),
        () = &mut interrupted => Ended::Interrupted,
    };
    drill.clean_up(matches!(ended, Ended::Interrupted)).await;
    drill.end(args, ended)
}

/// How the playing ended.
enum Ended {
    Done(Result<Result<(), Trouble>, Panicked>),
    Interrupted,
}

/// A mistake in this program. Its own report is on standard error.
struct Panicked;

/// Everything of a drill that outlives its playing.
struct Drill {
    plan: Plan,
    pair: Pair,
    faults: Vec<Fault>,
    ledger: Option<Ledger>,
    broken: Broken,
    outcomes: Vec<Outcome>,
    teller: Teller,
}

impl Drill {
    /// Everything up to the first fault. Breaks nothing.
    async fn prepare(args: &Args) -> Result<Self, Trouble> {
        let plan = Plan::of(args).map_err(Trouble::Usage)?;
        let (pair, faults) = if plan.ground == Ground::Own {
            let pair = Pair::own(&plan).await?;
            let faults = plan.faults_of(&pair.config, args).map_err(Trouble::Usage)?;
            (pair, faults)
        } else {
            let file = plan.config.clone().unwrap_or_default();
            let config = Config::from_file(file).map_err(|error| Trouble::Usage(error.to_string()))?;
            let faults = plan.faults_of(&config, args).map_err(Trouble::Usage)?;
            if !args.yes {
                let lines = Teller::listed(&plan, &faults).join("\n");
                return Err(Trouble::Usage(format!(
                    "a drill breaks servers.\n\n{lines}\nNothing was done. To do it, add --yes."
                )));
            }
            (Pair::given(&plan, config, &faults).await?, faults)
        };
        let teller = Teller::new(args.json);
        let mut drill =
            Self { plan, pair, faults, ledger: None, broken: Broken::default(), outcomes: Vec::new(), teller };
        drill.can_write_report(args.junit.as_ref())?;
        if let Some(alias) = drill.written() {
            drill.ledger = Some(Ledger::make(&drill.pair.config, &alias).await?);
        }
        drill.teller.headline(&drill.plan, &drill.faults);
        Ok(drill)
    }

    /// Who is written through. All faults write to the same table.
    fn written(&self) -> Option<pgdetour::config::AliasName> {
        self.faults.iter().find_map(|fault| fault.write.clone())
    }

    /// Whether the report will find its place: better now than after a quarter of an hour.
    fn can_write_report(&self, junit: Option<&PathBuf>) -> Result<(), Trouble> {
        let Some(path) = junit else { return Ok(()) };
        let opened = fs::OpenOptions::new().create(true).append(true).open(path);
        opened.map(drop).map_err(|error| Trouble::Usage(format!("{}: {error}", safe(&path.to_string_lossy()))))
    }

    async fn play(&mut self) -> Result<(), Trouble> {
        for (number, fault) in self.faults.iter().enumerate() {
            let notes = Notes::new();
            let ledger = self.ledger.as_ref();
            let (pair, broken, pace) = (&self.pair, &self.broken, self.plan.pace);
            let stage = Stage { pair, pace, ledger, broken, number, fault, notes: &notes };
            let record = watched(stage.play(), || self.teller.now(fault, &notes)).await?;
            let answers = record.moments.answers.is_some();
            let figures = record.figures(&fault.alias);
            let complaints = verdict::complaints(fault, &figures, &record);
            let outcome = Outcome { fault: fault.clone(), played: Some(Played { record, figures, complaints }) };
            self.teller.row(&outcome);
            self.outcomes.push(outcome);
            if !answers {
                return Err(Trouble::Environment(format!("{} is still broken: no more faults", fault.alias)));
            }
        }
        Ok(())
    }

    /// Repairs what is broken, and drops the table.
    async fn clean_up(&mut self, interrupted: bool) {
        if self.pair.is_own() {
            // They end, in whatever state they are.
            return;
        }
        if let Some(fault) = self.broken.take() {
            let why = if interrupted { "interrupted" } else { "it is still broken" };
            self.teller.warn(&format!("{why}: repairing {}, after {} ...", fault.alias, fault.name));
            let repaired = self.pair.repair(&fault).await;
            match (repaired, self.pair.answers(&fault.alias, self.plan.pace.patience).await) {
                (_, Ok(())) => self.teller.warn(&format!("{} answers again", fault.alias)),
                (repaired, Err(silent)) => {
                    let failed = repaired.err().map(|why| format!("the repair failed: {why}; ")).unwrap_or_default();
                    self.teller.warn(&format!("{} IS STILL BROKEN, repair it yourself: {failed}{silent}", fault.alias));
                }
            }
        }
        if let (Some(ledger), Some(alias)) = (self.ledger.take(), self.written())
            && let Err(why) = ledger.drop(&self.pair.config, &alias).await
        {
            self.teller.warn(&why);
        }
    }

    fn end(mut self, args: &Args, ended: Ended) -> Exit {
        let interrupted = matches!(ended, Ended::Interrupted);
        let unplayed = self.faults.split_off(self.outcomes.len().min(self.faults.len()));
        self.outcomes.extend(unplayed.into_iter().map(|fault| Outcome { fault, played: None }));
        self.teller.end(&self.outcomes, interrupted);
        if args.json {
            say(&format!("{:#}", report::json(&self.outcomes, interrupted)));
        }
        if let Some(path) = &args.junit
            && let Err(error) = fs::write(path, report::junit(&self.outcomes))
        {
            return Exit::Environment.because(&format!("{}: {error}", safe(&path.to_string_lossy())));
        }
        match ended {
            Ended::Interrupted => Exit::Interrupted.because(&"interrupted"),
            Ended::Done(Err(Panicked)) => Exit::Failed.because(&"a mistake in pgdetour itself, see above"),
            Ended::Done(Ok(Err(Trouble::Usage(why) | Trouble::Environment(why)))) => {
                let exit = if self.outcomes.iter().any(|outcome| outcome.played.is_some()) {
                    Exit::Failed
                } else {
                    Exit::Environment
                };
                exit.because(&why)
            }
            Ended::Done(Ok(Ok(()))) if self.outcomes.iter().all(Outcome::is_fine) => Exit::Fine,
            Ended::Done(Ok(Ok(()))) => Exit::Failed,
        }
    }
}

/// Does something again and again while a future runs.
async fn watched<T>(work: impl Future<Output = T>, mut look: impl FnMut()) -> T {
    let mut work = pin!(work);
    let mut frames = tokio::time::interval(FRAME);
    loop {
        tokio::select! {
            done = &mut work => return done,
            _ = frames.tick() => look(),
        }
    }
}

/// Runs a future to its end, its panic included: what is broken has to be repaired all the same.
async fn caught<T>(work: impl Future<Output = T>) -> Result<T, Panicked> {
    let mut work = pin!(work);
    // Nothing of it is used after a panic but what locks protect.
    poll_fn(|context| match catch_unwind(AssertUnwindSafe(|| work.as_mut().poll(context))) {
        Ok(polled) => polled.map(Ok),
        Err(_) => Poll::Ready(Err(Panicked)),
    })
    .await
}

fn refuse(args: &Args, exit: Exit, why: &str) -> Exit {
    if args.json {
        say(&format!("{:#}", json!({ "fine": false, "error": why })));
        return exit;
    }
    exit.because(&why)
}

fn say(line: &str) {
    // Who closed standard output does not want it.
    let _ = writeln!(io::stdout(), "{line}");
}
