//! The end of a demo in figures: for people, and for machines.

use std::time::Duration;

use serde_json::{Value, json};

use super::{
    fault::Fault,
    story::{Moment, Story},
};
use crate::{
    paint::{Paint, Tone},
    time::brief,
};

/// How many reasons of failed reads are shown.
const REASONS: usize = 3;

/// The figures, one line each, and the verdict.
pub(super) fn lines(story: &Story, fault: Fault, rate: u32, paint: Paint) -> Vec<String> {
    let failed_tone = if story.failed() == 0 { Tone::Good } else { Tone::Bad };
    let time = |time: Option<Duration>| time.map_or_else(|| "-".to_owned(), brief);
    let row = |name: &str, value: String, tone: Tone, says: &str| {
        format!("  {name:<15} {}  {}", paint.text(tone, &format!("{value:>9}")), paint.text(Tone::Faint, says))
    };
    let mut lines = vec![
        row("reads", story.reads.len().to_string(), Tone::Strong, &format!("{rate} a second")),
        row("failed", story.failed().to_string(), failed_tone, "neither attempt was answered"),
        row("retried", story.retried().to_string(), Tone::Strong, "made a second attempt"),
        row("detoured", story.detoured().to_string(), Tone::Strong, "answered by the primary"),
        row("longest gap", brief(story.longest_gap()), Tone::Strong, "between two answered reads"),
    ];
    if fault.is_outage() {
        lines.push(row("time to detect", time(story.time_to_detect()), Tone::Strong, "from fault to outage"));
        lines.push(row("time to return", time(story.time_to_return()), Tone::Strong, "from answering to all reads"));
    }
    lines.push(String::new());
    lines.extend(verdict(story, fault, paint));
    lines
}

fn verdict(story: &Story, fault: Fault, paint: Paint) -> Vec<String> {
    let complaints = story.complaints(fault.is_outage());
    let mut lines: Vec<String> =
        complaints.iter().map(|complaint| paint.text(Tone::Bad, &format!("  NOT FINE: {complaint}"))).collect();
    let reasons = story.reads.iter().filter_map(|read| read.served.as_ref().err());
    lines.extend(reasons.take(REASONS).map(|reason| format!("    {reason}")));
    if complaints.is_empty() {
        let sessions = story.cut.map(|cut| format!("no outage: it was up all along; {cut} sessions were cut"));
        let quiet = if fault.is_outage() && story.when(Moment::Outage).is_none() {
            "repaired before anybody noticed"
        } else {
            "no read failed, and all came back to the replica"
        };
        lines.push(paint.text(Tone::Good, &format!("  {}", sessions.as_deref().unwrap_or(quiet))));
    }
    lines
}

/// The same for machines.
pub(super) fn json(story: &Story, fault: Fault, rate: u32) -> Value {
    let milliseconds = |time: Duration| (time.as_secs_f64() * 1e6).round() / 1e3;
    let reasons: Vec<&String> =
        story.reads.iter().filter_map(|read| read.served.as_ref().err()).take(REASONS).collect();
    let retries: Vec<&String> = story.reads.iter().filter_map(|read| read.retried.as_ref()).take(REASONS).collect();
    json!({
        "fault": fault.name(),
        "rate": rate,
        "reads": story.reads.len(),
        "failed": story.failed(),
        "retried": story.retried(),
        "detoured": story.detoured(),
        "longest_gap_ms": milliseconds(story.longest_gap()),
        "outages": story.moments.iter().filter(|(moment, _)| *moment == Moment::Outage).count(),
        "time_to_detect_ms": story.time_to_detect().map(milliseconds),
        "time_to_return_ms": story.time_to_return().map(milliseconds),
        "sessions_cut": story.cut,
        "came_back": story.came_back(),
        "fine": story.complaints(fault.is_outage()).is_empty(),
        "complaints": story.complaints(fault.is_outage()),
        "failures": reasons,
        "retries": retries,
    })
}
