//! A drill told to people: what happens now, one row for each fault, and what it came to.

use std::{
    io::{self, Write},
    sync::Arc,
    time::Duration,
};

use super::{
    load::Notes,
    plan::{Fault, Ground, Plan},
    record::Figures,
    report::{Outcome, Played, reasons},
    verdict::time,
};
use crate::{
    paint::{Paint, Tone},
    screen::Screen,
    time::brief,
};

/// Writes to standard output; with `--json` to standard error, and less.
#[derive(Debug, Clone)]
pub(super) struct Teller {
    screen: Arc<Screen>,
    quiet: bool,
    /// Columns of the longest name of a fault.
    width: usize,
}

impl Teller {
    pub(super) fn new(json: bool) -> Self {
        let screen = if json {
            let paint = Paint { terminal: false, colour: false, ..Paint::of(&io::stderr()) };
            Screen::new(Box::new(io::stderr()), paint)
        } else {
            Screen::new(Box::new(io::stdout()), Paint::of(&io::stdout()))
        };
        Self { screen: Arc::new(screen), quiet: json, width: 0 }
    }

    /// What will be broken, and how.
    pub(super) fn listed(plan: &Plan, faults: &[Fault]) -> Vec<String> {
        let mut lines = vec!["pgdetour drill would break these servers, one after the other:".to_owned()];
        let row = |fault: &Fault| format!("  {}: {}", fault.label(), fault.described(&plan.ground));
        lines.extend(faults.iter().map(row));
        let writes = faults
            .iter()
            .find_map(|fault| fault.write.as_ref())
            .map(|alias| format!(", and writes through {alias} into a table of its own that it drops at the end"));
        let reads = faults.first().map(|fault| fault.read.to_string()).unwrap_or_default();
        lines.push(format!("Meanwhile it reads through {reads}{}.", writes.unwrap_or_default()));
        lines
    }

    /// How it begins.
    pub(super) fn headline(&mut self, plan: &Plan, faults: &[Fault]) {
        self.width = faults.iter().map(|fault| fault.label().chars().count()).max().unwrap_or_default().max(5);
        if self.quiet {
            return;
        }
        let servers = match plan.ground {
            Ground::Own => "servers of its own",
            Ground::Compose(_) => "the services of a Compose file",
            Ground::Given => "the servers of a configuration",
        };
        let title = self.screen.paint.text(Tone::Strong, "pgdetour drill");
        self.screen.say(&format!("{title}: {} faults on {servers}\n", faults.len()));
        let (reads, writes) = (plan.pace.reads, plan.pace.writes);
        let writes = writes.map_or_else(|| "nothing is written".to_owned(), |rate| format!("{rate} writes"));
        self.screen
            .say(&format!("\n  {reads} reads and {writes} a second; undone: refused or rolled back, and said so\n"));
        let head = self.columns(&[
            "fault",
            "detection",
            "failed",
            "gap",
            "return",
            "acked",
            "undone",
            "unknown",
            "doubled",
            "lost",
        ]);
        self.screen.say(&format!("\n{}", self.screen.paint.text(Tone::Faint, &head)));
    }

    /// What happens now; on a terminal alone, where the line is drawn again and again.
    pub(super) fn now(&self, fault: &Fault, notes: &Notes) {
        if self.quiet || !self.screen.paint.terminal {
            return;
        }
        let now = notes.now();
        let line = notes.note(|record| {
            let moments = record.moments;
            let since = |at: Duration| brief(now.saturating_sub(at));
            let phase = match (moments.fault, moments.outage, moments.repair, moments.answers) {
                (.., Some(answers)) => format!("answers again for {}", since(answers)),
                (.., Some(repair), None) => format!("being repaired for {}", since(repair)),
                (_, Some(outage), ..) => format!("outage for {}", since(outage)),
                (Some(broken), None, ..) => format!("broken for {}", since(broken)),
                (None, None, ..) => format!("all is well for {}", brief(now)),
            };
            let failed = record.reads.iter().filter(|read| read.served.is_err()).count();
            format!(
                "  {}: {phase}; {} reads, {failed} failed; {} writes",
                fault.label(),
                record.reads.len(),
                record.writes.len()
            )
        });
        let width = self.screen.width().saturating_sub(1);
        self.screen.live(vec![self.screen.paint.text(Tone::Strong, &line.chars().take(width).collect::<String>())]);
    }

    /// How one fault went.
    pub(super) fn row(&self, outcome: &Outcome) {
        self.screen.settle_empty();
        let Some(Played { record, figures, complaints }) = &outcome.played else { return };
        if !self.quiet {
            let tone = if complaints.is_empty() { Tone::Good } else { Tone::Bad };
            self.screen.say(&self.screen.paint.text(tone, &self.figures(&outcome.fault, figures)));
        }
        let lines = complaints.iter().map(|complaint| format!("      {complaint}"));
        lines.for_each(|line| self.screen.say(&self.screen.paint.text(Tone::Bad, &crate::safe::safe(&line))));
        if !complaints.is_empty() {
            reasons(record).iter().for_each(|reason| self.screen.say(&format!("        {reason}")));
        }
    }

    fn figures(&self, fault: &Fault, figures: &Figures) -> String {
        let writes = figures.writes;
        let counts = [writes.acknowledged, writes.undone, writes.unknown, writes.doubled, writes.lost];
        let [acknowledged, undone, unknown, doubled, lost] = counts.map(|count| match fault.write {
            Some(_) => count.to_string(),
            None => "-".to_owned(),
        });
        let failed = figures.failed.to_string();
        let (detection, gap, home) = (time(figures.detection), brief(figures.gap), time(figures.home));
        self.columns(&[
            &fault.label(),
            &detection,
            &failed,
            &gap,
            &home,
            &acknowledged,
            &undone,
            &unknown,
            &doubled,
            &lost,
        ])
    }

    fn columns(&self, cells: &[&str; 10]) -> String {
        let [name, detection, failed, gap, home, rest @ ..] = cells;
        let [acknowledged, undone, unknown, doubled, lost] = rest;
        let pad = " ".repeat(self.width.saturating_sub(name.chars().count()));
        format!(
            "  {name}{pad} {detection:>10} {failed:>7} {gap:>8} {home:>8} {acknowledged:>6} {undone:>7} {unknown:>8} {doubled:>8} {lost:>5}"
        )
    }

    /// How all of it went.
    pub(super) fn end(&self, outcomes: &[Outcome], interrupted: bool) {
        if self.quiet {
            return;
        }
        let fine = outcomes.iter().filter(|outcome| outcome.is_fine()).count();
        let skipped = outcomes.iter().filter(|outcome| outcome.played.is_none()).count();
        let reads: usize = outcomes.iter().filter_map(|outcome| Some(outcome.played.as_ref()?.figures.reads)).sum();
        let writes: usize =
            outcomes.iter().filter_map(|outcome| Some(outcome.played.as_ref()?.figures.writes.made)).sum();
        let rest = if skipped > 0 { format!(", {skipped} not reached") } else { String::new() };
        let tone = if fine == outcomes.len() && !interrupted { Tone::Good } else { Tone::Bad };
        let word = format!("  {fine} of {} faults went well{rest}; {reads} reads, {writes} writes", outcomes.len());
        self.screen.say(&format!("\n{}", self.screen.paint.text(tone, &word)));
    }

    /// Something that has to be known, whoever listens.
    pub(super) fn warn(&self, what: &str) {
        self.screen.settle_empty();
        let _ = writeln!(io::stderr(), "pgdetour: {}", crate::safe::safe(what));
    }
}
