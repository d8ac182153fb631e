//! What is watched as lines, for what is no terminal: how things are to begin with, then each event once.

use pgdetour::observe::{EventRecord, Level, Stamp};
use serde::Serialize;
use serde_json::{Value, json};

use super::feed::{Told, last_number};
use crate::{paint::Paint, safe::safe, subject::Scene, view};

/// Turns what is told into lines, and knows what it has written already.
#[derive(Debug)]
pub(super) struct Lines {
    as_json: bool,
    paint: Paint,
    /// The router that was told of, by its beginning, and the number of its last event that was written.
    written: Option<(Stamp, u64)>,
    lost: bool,
}

impl Lines {
    pub(super) fn new(as_json: bool, paint: Paint) -> Self {
        Self { as_json, paint, written: None, lost: false }
    }

    /// The lines for this.
    pub(super) fn of(&mut self, told: &Told) -> Vec<String> {
        match told {
            // It is tried again and again: once is enough.
            Told::Lost(_) if std::mem::replace(&mut self.lost, true) => Vec::new(),
            Told::Lost(trouble) if self.as_json => vec![json!({ "type": "lost", "error": trouble.why }).to_string()],
            Told::Lost(trouble) => vec![format!("lost: {}; it is tried again", safe(&trouble.why))],
            Told::Scene(scene) => self.of_scene(scene),
        }
    }

    fn of_scene(&mut self, scene: &Scene) -> Vec<String> {
        let mut lines = Vec::new();
        if std::mem::take(&mut self.lost) {
            lines.push(if self.as_json { json!({ "type": "found" }).to_string() } else { "found again".to_owned() });
        }
        let started = scene.status.process.started;
        let last = match self.written {
            Some((known, last)) if known == started => last,
            // Another process has taken its place: all of its events are new.
            Some(_) => 0,
            // What was before this is in `/timeline`.
            None => last_number(&scene.timeline),
        };
        if self.written.is_none_or(|(known, _)| known != started) {
            lines.push(self.status(scene));
        }
        let new = scene.timeline.events.iter().filter(|event| event.number > last);
        lines.extend(new.map(|event| self.event(event)));
        self.written = Some((started, last_number(&scene.timeline).max(last)));
        lines
    }

    fn status(&self, scene: &Scene) -> String {
        if self.as_json {
            return typed("status", &scene.status);
        }
        format!("{}  {}", scene.status.at, view::headline(&scene.status).painted(self.paint, usize::MAX))
    }

    fn event(&self, event: &EventRecord) -> String {
        if self.as_json { typed("event", event) } else { format!("{}  {}", event.at, words(event)) }
    }
}

/// An event without its time.
pub(super) fn words(event: &EventRecord) -> String {
    let level = match event.level {
        Level::Info => "INFO ",
        Level::Warn => "WARN ",
        Level::Error => "ERROR",
    };
    let about = event.alias.as_deref().map_or_else(String::new, |alias| format!("{}: ", safe(alias)));
    format!("{level}  {about}{}", safe(&event.text))
}

/// The object with its type before all else.
fn typed(kind: &str, value: &impl Serialize) -> String {
    let mut object = json!({ "type": kind });
    // Plain values with names for keys: there is nothing in them that JSON cannot write.
    if let (Value::Object(object), Ok(Value::Object(fields))) = (&mut object, serde_json::to_value(value)) {
        object.extend(fields);
    }
    object.to_string()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        exit::Exit,
        trouble::Trouble,
        view::tests::{PLAIN, scene},
    };

    fn told(numbers: &[u64]) -> Told {
        Told::Scene(Box::new(scene(numbers)))
    }

    #[test]
    fn each_event_is_one_line_and_what_was_before_is_none() {
        let mut lines = Lines::new(false, PLAIN);
        assert_eq!(lines.of(&told(&[1, 2])).len(), 1, "how things are");
        assert_eq!(lines.of(&told(&[1, 2])), Vec::<String>::new());
        let new = lines.of(&told(&[1, 2, 3, 4]));
        assert_eq!(new.len(), 2, "{new:?}");
        assert!(new[1].contains("4\\u{1b}[2J") && !new[1].contains('\x1b'), "{new:?}");
    }

    #[test]
    fn a_router_that_is_lost_is_told_once_and_its_successor_from_the_beginning() {
        let mut lines = Lines::new(true, PLAIN);
        let kinds = |lines: Vec<String>| -> Vec<String> {
            let kind =
                |line: String| serde_json::from_str::<Value>(&line).unwrap()["type"].as_str().unwrap().to_owned();
            lines.into_iter().map(kind).collect()
        };
        assert_eq!(kinds(lines.of(&told(&[7]))), ["status"]);
        let lost = || Told::Lost(Trouble::new(Exit::Environment, "gone"));
        assert_eq!(kinds(lines.of(&lost())), ["lost"]);
        assert_eq!(kinds(lines.of(&lost())), [""; 0]);
        assert_eq!(kinds(lines.of(&told(&[7, 8]))), ["found", "event"]);
        let mut next = scene(&[1]);
        next.status.process.started = Stamp::from_unix_ms(5);
        assert_eq!(kinds(lines.of(&Told::Scene(Box::new(next)))), ["status", "event"]);
    }
}
