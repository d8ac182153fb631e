//! What all benches share: the clock, spreads of what was measured, and the table that is printed.

#![allow(dead_code, reason = "each bench uses its part")]

pub(crate) mod lines;
pub(crate) mod reads;
pub(crate) mod turns;

use std::{
    error::Error,
    fmt, thread,
    time::{Duration, Instant},
};

use pgdetour::testkit::{Cluster, Server};

pub(crate) type Fallible<T> = Result<T, Box<dyn Error + Send + Sync>>;

/// The clock of the benches: real time, never a paused one.
#[expect(clippy::disallowed_methods, reason = "a bench measures real time and decides nothing")]
pub(crate) fn now() -> Instant {
    Instant::now()
}

/// What the server says it is.
pub(crate) async fn version(server: &Server) -> Fallible<String> {
    let client = server.connect().await?;
    let version: String = client.query_one("SHOW server_version", &[]).await?.get(0);
    Ok(format!("PostgreSQL {version}"))
}

/// Whether cargo wants measurements: `cargo test --benches` starts the same program without this argument.
pub(crate) fn is_wanted() -> bool {
    std::env::args().any(|argument| argument == "--bench")
}

/// What the command line asks for: `-- kill 100` is the part `kill`, a hundred times over. Without a name: every part.
#[derive(Debug)]
pub(crate) struct Wanted {
    named: Vec<String>,
    pub(crate) repeats: Option<usize>,
}

impl Wanted {
    fn read() -> Self {
        let arguments: Vec<String> = std::env::args().skip(1).filter(|argument| !argument.starts_with('-')).collect();
        let repeats = arguments.iter().find_map(|argument| argument.parse().ok());
        let named = arguments.into_iter().filter(|argument| argument.parse::<usize>().is_err()).collect();
        Self { named, repeats }
    }

    /// Whether this part is; then it says so.
    pub(crate) fn has(&self, part: &str) -> bool {
        let wanted = self.named.is_empty() || self.named.iter().any(|name| name == part);
        if wanted {
            progress(part);
        }
        wanted
    }
}

/// Measures what is wanted and prints the table; an error if a number that is no matter of speed is wrong.
pub(crate) fn run<F>(measure: impl FnOnce(Wanted) -> F) -> Fallible<()>
where
    F: Future<Output = Fallible<Vec<Row>>> + Send + 'static,
{
    if !is_wanted() {
        return Ok(());
    }
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    // In a task, as in a service: the thread that blocks on a runtime is none of its workers.
    let measured = measure(Wanted::read());
    let rows = runtime.block_on(async { tokio::spawn(measured).await })??;
    let postgres = runtime.block_on(async {
        let cluster = Cluster::start(0).await?;
        version(cluster.primary()).await
    });
    print(&rows, &postgres?);
    let broken: Vec<_> = rows.iter().filter(|row| row.is_broken()).map(|row| row.measure.as_str()).collect();
    if broken.is_empty() { Ok(()) } else { Err(broken.join("; ").into()) }
}

/// All values of one measure.
#[derive(Debug, Clone, Default)]
pub(crate) struct Spread(Vec<f64>);

impl Spread {
    pub(crate) fn add(&mut self, value: f64) {
        let place = self.0.partition_point(|other| *other < value);
        self.0.insert(place, value);
    }

    pub(crate) fn add_seconds(&mut self, value: Duration) {
        self.add(value.as_secs_f64());
    }

    pub(crate) fn min(&self) -> f64 {
        self.0.first().copied().unwrap_or(f64::NAN)
    }

    pub(crate) fn median(&self) -> f64 {
        self.0.get(self.0.len() / 2).copied().unwrap_or(f64::NAN)
    }

    pub(crate) fn max(&self) -> f64 {
        self.0.last().copied().unwrap_or(f64::NAN)
    }
}

impl FromIterator<f64> for Spread {
    fn from_iter<I: IntoIterator<Item = f64>>(values: I) -> Self {
        let mut spread = Self::default();
        values.into_iter().for_each(|value| spread.add(value));
        spread
    }
}

/// How a value is written.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Unit {
    Ratio,
    Count,
    Seconds,
    Kibibytes,
}

impl Unit {
    fn show(self, value: f64) -> String {
        match self {
            Self::Ratio => format!("{value:.3}"),
            Self::Count => format!("{value:.0}"),
            Self::Seconds if value < 1e-6 => format!("{:.1} ns", value * 1e9),
            Self::Seconds if value < 1.0 => format!("{:.1} ms", value * 1e3),
            Self::Seconds => format!("{value:.2} s"),
            Self::Kibibytes => format!("{value:.1} KiB"),
        }
    }

    /// As a limit: without the digits of a measurement.
    fn show_limit(self, value: f64) -> String {
        match self {
            Self::Ratio => format!("{value:.2}"),
            Self::Count => format!("{value:.0}"),
            Self::Seconds if value < 1e-6 => format!("{:.0} ns", value * 1e9),
            Self::Seconds if value < 1.0 => format!("{:.0} ms", value * 1e3),
            Self::Seconds => format!("{value:.1} s"),
            Self::Kibibytes => format!("{value:.0} KiB"),
        }
    }
}

/// On which side of its bounds a measure has to be, and which of its values decides.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Judged {
    /// The median, which has to be no more than the bounds.
    MedianAtMost,
    /// The median, which has to be no less.
    MedianAtLeast,
    /// The largest of all.
    WorstAtMost,
}

/// One line of the table.
#[derive(Debug, Clone)]
pub(crate) struct Row {
    pub(crate) measure: String,
    pub(crate) unit: Unit,
    pub(crate) judged: Judged,
    pub(crate) must: f64,
    pub(crate) aim: f64,
    pub(crate) spread: Spread,
}

const MISSED: &str = "**missed**";

impl Row {
    /// A measure of which every value counts.
    pub(crate) fn worst(measure: &str, unit: Unit, must: f64, aim: f64, spread: Spread) -> Self {
        Self { measure: measure.to_owned(), unit, judged: Judged::WorstAtMost, must, aim, spread }
    }

    /// Whether a number that is no matter of speed is wrong.
    pub(crate) fn is_broken(&self) -> bool {
        matches!(self.unit, Unit::Count) && self.verdict() == MISSED
    }

    fn verdict(&self) -> &'static str {
        let holds = |bound: f64| match self.judged {
            Judged::MedianAtMost => self.spread.median() <= bound,
            Judged::MedianAtLeast => self.spread.median() >= bound,
            Judged::WorstAtMost => self.spread.max() <= bound,
        };
        match (holds(self.aim), holds(self.must)) {
            (true, _) => "aim met",
            (false, true) => "must met",
            (false, false) => MISSED,
        }
    }
}

impl fmt::Display for Row {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (unit, spread) = (self.unit, &self.spread);
        let sign = if matches!(self.judged, Judged::MedianAtLeast) { "≥" } else { "≤" };
        // What decides stands in bold.
        let by_median = !matches!(self.judged, Judged::WorstAtMost);
        let bold = |value: f64, deciding: bool| match deciding {
            true => format!("**{}**", unit.show(value)),
            false => unit.show(value),
        };
        write!(
            f,
            "| {} | {sign} {} | {sign} {} | {} | {} | {} | {} |",
            self.measure,
            unit.show_limit(self.must),
            unit.show_limit(self.aim),
            unit.show(spread.min()),
            bold(spread.median(), by_median),
            bold(spread.max(), !by_median),
            self.verdict(),
        )
    }
}

/// Prints rows as a table in Markdown.
pub(crate) fn print(rows: &[Row], postgres: &str) {
    println!("\n{}\n", machine(postgres));
    println!("| measure | must | aim | min | median | max | verdict |");
    println!("| --- | --- | --- | --- | --- | --- | --- |");
    rows.iter().for_each(|row| println!("{row}"));
}

/// The machine this ran on, in one line.
fn machine(postgres: &str) -> String {
    let cores = thread::available_parallelism().map_or(1, usize::from);
    let cpus = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model = cpus.lines().find_map(|line| line.strip_prefix("model name")?.split_once(": "));
    let model = model.map_or(std::env::consts::ARCH, |(_, model)| model);
    let kernel = std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    format!("{cores} cores ({model}), {} {}, {postgres}.", std::env::consts::OS, kernel.trim())
}

/// Says on standard error what is going on.
pub(crate) fn progress(what: impl fmt::Display) {
    eprintln!("{what}");
}
