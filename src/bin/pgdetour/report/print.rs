//! A report in words, in JSON and in CSV.

use std::{
    io::{self, Write},
    time::Duration,
};

use humantime::format_duration;
use pgdetour::history::{Incident, NameReport, Report};

use crate::{
    paint::{Paint, Tone},
    safe::safe,
    table::{
        Side::{Left, Right},
        aligned,
    },
    time::brief,
};

/// The report, line by line.
pub(super) fn lines(report: &Report, paint: Paint) -> Vec<String> {
    let days = format_duration(report.until.since(report.since));
    let head = format!("from {} to {} ({days})", minute(&report.since.to_string()), minute(&report.until.to_string()));
    let mut lines = vec![paint.text(Tone::Strong, &format!("Outages {head}")), String::new()];
    if report.outages.is_empty() {
        lines.push(paint.text(Tone::Good, "none"));
    } else {
        lines.extend(headed(
            outages(&report.outages),
            &[Left, Left, Right, Right, Right, Right, Right, Right, Left, Left],
            paint,
        ));
    }
    lines.extend([String::new(), paint.text(Tone::Strong, "By alias"), String::new()]);
    lines.extend(headed(
        names(&report.aliases),
        &[Left, Right, Right, Right, Right, Right, Right, Right, Right, Right, Right],
        paint,
    ));
    lines.extend([
        String::new(),
        "detect: from the first sign to the outage; recover: from the outage to its end; half of them took no longer."
            .to_owned(),
        "own: the share of the time in which its own server answered; served: in which any server of its plan did."
            .to_owned(),
    ]);
    lines
}

fn headed(rows: Vec<Vec<String>>, sides: &[crate::table::Side], paint: Paint) -> Vec<String> {
    let mut lines = aligned(sides, &rows);
    if let Some(head) = lines.first_mut() {
        *head = paint.text(Tone::Faint, head);
    }
    lines
}

fn outages(outages: &[Incident]) -> Vec<Vec<String>> {
    let head =
        ["opened (UTC)", "alias", "lasted", "detected", "detoured", "refused", "failed", "seen by", "detour", "cause"];
    let rows = outages.iter().map(|one| {
        let lasted = match (one.open, one.closed) {
            (true, _) => format!("{}, open", long(one.lasted_ms)),
            (false, Some(_)) => long(one.lasted_ms),
            (false, None) => format!("{} at least", long(one.lasted_ms)),
        };
        let seen = if one.processes == 1 { "1 process".to_owned() } else { format!("{} processes", one.processes) };
        vec![
            second(&one.opened.to_string()),
            safe(&one.name),
            lasted,
            brief(Duration::from_millis(one.detected_ms.max)),
            one.detoured.to_string(),
            one.refused.to_string(),
            one.failed.to_string(),
            seen,
            safe(one.detour.as_deref().unwrap_or("none")),
            safe(&one.cause),
        ]
    });
    std::iter::once(head.map(str::to_owned).to_vec()).chain(rows).collect()
}

fn names(aliases: &[NameReport]) -> Vec<Vec<String>> {
    let head =
        ["alias", "outages", "out", "detect", "recover", "longest", "detoured", "refused", "failed", "own", "served"];
    let rows = aliases.iter().map(|one| {
        let time = |ms: Option<u64>| ms.map_or_else(|| "-".to_owned(), long);
        vec![
            safe(&one.name),
            one.outages.to_string(),
            if one.out_ms == 0 { "-".to_owned() } else { long(one.out_ms) },
            time(one.detect_ms),
            time(one.recover_ms),
            time(one.longest_ms),
            one.detoured.to_string(),
            one.refused.to_string(),
            one.failed.to_string(),
            one.available.map_or_else(|| "-".to_owned(), percent),
            percent(one.served),
        ]
    });
    std::iter::once(head.map(str::to_owned).to_vec()).chain(rows).collect()
}

/// For machines.
pub(super) fn json(report: &Report) -> String {
    // Nothing in it can fail to be written.
    serde_json::to_string_pretty(report).unwrap_or_default()
}

/// The outages as RFC 4180 has them, times in UTC and in milliseconds.
pub(super) fn csv(report: &Report) -> Vec<String> {
    let head = "alias,server,opened,closed,open,lasted_ms,detected_ms_min,detected_ms_max,processes,detoured,refused,failed,detour,cause";
    let rows = report.outages.iter().map(|one| {
        let cells = [
            one.name.clone(),
            one.address.clone(),
            one.opened.to_string(),
            one.closed.map(|at| at.to_string()).unwrap_or_default(),
            one.open.to_string(),
            one.lasted_ms.to_string(),
            one.detected_ms.min.to_string(),
            one.detected_ms.max.to_string(),
            one.processes.to_string(),
            one.detoured.to_string(),
            one.refused.to_string(),
            one.failed.to_string(),
            one.detour.clone().unwrap_or_default(),
            one.cause.clone(),
        ];
        cells.map(|cell| quoted(&cell)).join(",")
    });
    std::iter::once(head.to_owned()).chain(rows).collect()
}

/// A cell. A spreadsheet takes one that begins like a formula for one.
fn quoted(cell: &str) -> String {
    let cell = safe(cell);
    let cell = if cell.starts_with(['=', '+', '-', '@']) { format!("'{cell}") } else { cell };
    if cell.contains(['"', ',']) { format!("\"{}\"", cell.replace('"', "\"\"")) } else { cell }
}

/// A time of any length.
fn long(ms: u64) -> String {
    let time = Duration::from_millis(ms);
    if ms < 60_000 { brief(time) } else { format_duration(Duration::from_secs(time.as_secs())).to_string() }
}

/// Enough digits to tell five nines, and never 100 % where something was out.
fn percent(share: f64) -> String {
    if share >= 100.0 { "100 %".to_owned() } else { format!("{:.4} %", (share * 1e4).floor() / 1e4) }
}

fn minute(stamp: &str) -> String {
    stamp.get(..16).unwrap_or(stamp).replace('T', " ")
}

fn second(stamp: &str) -> String {
    stamp.get(..19).unwrap_or(stamp).replace('T', " ")
}

pub(super) fn say(line: &str) {
    // Who closed standard output does not want it.
    let _ = writeln!(io::stdout(), "{line}");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cell_is_neither_two_cells_nor_a_formula() {
        assert_eq!(quoted("a, \"b\""), "\"a, \"\"b\"\"\"");
        assert_eq!(quoted("=HYPERLINK(1)"), "'=HYPERLINK(1)");
    }

    #[test]
    fn what_was_out_is_never_rounded_up_to_always() {
        assert_eq!((percent(99.999_99).as_str(), percent(100.0).as_str()), ("99.9999 %", "100 %"));
    }
}
