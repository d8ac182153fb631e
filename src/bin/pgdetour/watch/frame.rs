//! All that a terminal shows at one moment, as lines: as many as there is room for.

use std::time::Duration;

use pgdetour::observe::{EventRecord, Level, status::Status};

use super::{lines::words, strip};
use crate::{line::Line, paint::Tone, subject::Scene, trouble::Trouble, view};

/// What there is room for.
#[derive(Debug, Clone, Copy)]
pub(super) struct Room {
    pub(super) width: usize,
    pub(super) height: usize,
    pub(super) unicode: bool,
}

/// The lines of a scene that was told so long ago, and why there is no later one.
pub(super) fn lines(scene: &Scene, age: Duration, lost: Option<&Trouble>, room: Room) -> Vec<Line> {
    let status = aged(scene.status.clone(), age);
    let now = status.at.after(age);
    let title = Line::toned(Some(Tone::Strong), "pgdetour  ").join(view::headline(&status));
    let mut lines = vec![title.and(Some(Tone::Faint), format!("   {} UTC", clock(&now.to_string())))];
    if let Some(trouble) = lost {
        let why = crate::safe::safe(&trouble.why);
        lines.push(Line::toned(Some(Tone::Bad), format!("not reached for {}: {why}", view::lasting(ms(age)))));
    }
    for part in [view::aliases(&status), view::servers(&status), view::services(&status)] {
        if !part.is_empty() {
            lines.push(Line::default());
            lines.extend(part);
        }
    }
    let reach = strip::REACH.as_secs() / 60;
    lines.push(Line::default());
    lines.push(Line::toned(Some(Tone::Faint), format!("LAST {reach} MINUTES")));
    lines.extend(strip::strips(scene, now, room.width, room.unicode));
    lines.push(Line::default());
    lines.push(Line::toned(Some(Tone::Faint), "EVENTS"));
    // The last line says how to end it.
    let left = room.height.saturating_sub(lines.len() + 1);
    lines.extend(scene.timeline.events.iter().rev().take(left).map(event));
    lines.truncate(room.height.saturating_sub(1));
    lines.resize(room.height.saturating_sub(1), Line::default());
    lines.push(Line::toned(Some(Tone::Faint), "q ends"));
    lines
}

/// The newest first: the eye is at the top.
fn event(event: &EventRecord) -> Line {
    let tone = match event.level {
        Level::Info => None,
        Level::Warn => Some(Tone::Away),
        Level::Error => Some(Tone::Bad),
    };
    Line::toned(Some(Tone::Faint), clock(&event.at.to_string())).and(tone, format!("  {}", words(event)))
}

/// The time of day of a moment in RFC 3339.
fn clock(at: &str) -> String {
    at.chars().skip(11).take(8).collect()
}

/// The same later, as far as that can be told without asking.
fn aged(mut status: Status, age: Duration) -> Status {
    let age = ms(age);
    for server in &mut status.servers {
        server.next_ping_ms = server.next_ping_ms.saturating_sub(age);
        if let Some(outage) = &mut server.outage {
            outage.lasting_ms += age;
        }
        if let Some(breaker) = &mut server.breaker {
            breaker.lasting_ms += age;
        }
        if let Some(drain) = &mut server.drained {
            drain.left_ms = drain.left_ms.saturating_sub(age);
        }
    }
    for service in &mut status.services {
        service.next_ping_ms = service.next_ping_ms.saturating_sub(age);
        if let Some(outage) = &mut service.outage {
            outage.lasting_ms += age;
        }
    }
    status
}

fn ms(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        exit::Exit,
        view::tests::{PLAIN, scene},
    };

    fn drawn(height: usize, lost: Option<&Trouble>) -> Vec<String> {
        let room = Room { width: 100, height, unicode: true };
        let lines = lines(&scene(&[1, 2, 3]), Duration::from_secs(2), lost, room);
        lines.iter().map(|line| line.painted(PLAIN, 100)).collect()
    }

    #[test]
    fn a_frame_has_as_many_lines_as_the_terminal_and_ends_with_how_to_end_it() {
        for height in [1, 5, 24, 60] {
            let lines = drawn(height, None);
            assert_eq!((lines.len(), lines[height - 1].as_str()), (height, "q ends"), "{lines:#?}");
        }
        let lines = drawn(60, None).join("\n");
        for part in ["pgdetour  DEGRADED", "SERVER", "LAST 10 MINUTES", "3\\u{1b}[2J"] {
            assert!(lines.contains(part), "no {part:?} in\n{lines}");
        }
        assert!(!lines.contains('\x1b'), "{lines}");
    }

    #[test]
    fn what_is_old_says_so() {
        let lost = Trouble::new(Exit::Environment, "http://a has ended");
        assert!(drawn(24, Some(&lost))[1].starts_with("not reached for 2 s: http://a has ended"));
    }
}
