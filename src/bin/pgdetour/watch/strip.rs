//! The last minutes of each server as a strip: one cell for a few seconds, in which the worst of them is shown.

use std::time::Duration;

use pgdetour::observe::{SpanRecord, SpanState, Stamp};

use crate::{line::Line, paint::Tone, safe::safe, subject::Scene};

/// How long a strip reaches back.
pub(super) const REACH: Duration = Duration::from_secs(600);

/// Cells at most: five seconds each.
const MOST_CELLS: usize = 120;

/// One strip for each server.
pub(super) fn strips(scene: &Scene, now: Stamp, width: usize, unicode: bool) -> Vec<Line> {
    let names: Vec<String> = scene.status.servers.iter().map(|server| safe(&server.name)).collect();
    let widest = names.iter().map(|name| name.chars().count()).max().unwrap_or_default();
    let cells = width.saturating_sub(widest + 2).clamp(1, MOST_CELLS);
    let strip = |(name, server): (String, &str)| {
        let spans: Vec<&SpanRecord> = scene.timeline.spans.iter().filter(|span| span.name == server).collect();
        let line = Line::plain(format!("{name:<widest$}  "));
        (0..cells).fold(line, |line, cell| {
            let (tone, glyph) = shown(worst(&spans, now, cell, cells), unicode);
            line.and(tone, glyph)
        })
    };
    let servers = scene.status.servers.iter().map(|server| server.name.as_str());
    names.into_iter().zip(servers).map(strip).collect()
}

/// The worst state within a cell. None: the router did not run yet.
fn worst(spans: &[&SpanRecord], now: Stamp, cell: usize, cells: usize) -> Option<SpanState> {
    let reach = REACH.as_millis() as u64;
    let edge = |cell: usize| (now.unix_ms() + reach * cell as u64 / cells as u64).saturating_sub(reach);
    let (from, to) = (edge(cell), edge(cell + 1));
    let meets = |span: &&&SpanRecord| {
        let ends = span.to.map_or(u64::MAX, Stamp::unix_ms);
        span.from.unix_ms() < to && ends > from
    };
    spans.iter().filter(meets).map(|span| span.state).max_by_key(|state| rank(*state))
}

fn rank(state: SpanState) -> u8 {
    match state {
        SpanState::Up => 0,
        SpanState::Suspect => 1,
        SpanState::Drained => 2,
        SpanState::Behind => 3,
        SpanState::Recovering => 4,
        _ => 5,
    }
}

fn shown(state: Option<SpanState>, unicode: bool) -> (Option<Tone>, &'static str) {
    let (tone, block, letter) = match state {
        None => (None, " ", " "),
        Some(SpanState::Up) => (Some(Tone::Good), "▁", "."),
        Some(SpanState::Suspect) => (Some(Tone::Away), "▂", "?"),
        Some(SpanState::Drained) => (Some(Tone::Away), "▄", "d"),
        Some(SpanState::Behind) => (Some(Tone::Away), "▅", "b"),
        Some(SpanState::Recovering) => (Some(Tone::Away), "▆", "r"),
        Some(_) => (Some(Tone::Bad), "█", "X"),
    };
    (tone, if unicode { block } else { letter })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn span(state: &str, from: u64, to: Option<u64>) -> SpanRecord {
        let at = |ms| serde_json::to_value(Stamp::from_unix_ms(ms)).unwrap();
        let value = serde_json::json!({ "name": "a", "state": state, "from": at(from), "to": to.map(at) });
        serde_json::from_value(value).unwrap()
    }

    #[test]
    fn a_cell_shows_the_worst_that_was_in_it() {
        // Ten cells of a minute each; the router began after two, and a second of the fifth was an outage.
        let spans =
            [span("up", 120_000, Some(270_000)), span("down", 270_000, Some(271_000)), span("up", 271_000, None)];
        let spans: Vec<&SpanRecord> = spans.iter().collect();
        let cell = |cell| shown(worst(&spans, Stamp::from_unix_ms(600_000), cell, 10), false).1;
        assert_eq!((0..10).map(cell).collect::<String>(), "  ..X.....");
    }
}
