//! Lines of pieces that mean something: cut to a width first and painted then, so that no escape sequence is counted or cut.

use crate::paint::{Paint, Tone};

/// A line of text.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Line(Vec<(Option<Tone>, String)>);

impl Line {
    /// A line that means nothing in particular. Text from outside has been made harmless by whoever gives it.
    pub(crate) fn plain(text: impl Into<String>) -> Self {
        Self::default().and(None, text)
    }

    /// One that means this.
    pub(crate) fn toned(tone: Option<Tone>, text: impl Into<String>) -> Self {
        Self::default().and(tone, text)
    }

    /// With this after it.
    pub(crate) fn and(mut self, tone: Option<Tone>, text: impl Into<String>) -> Self {
        self.0.push((tone, text.into()));
        self
    }

    /// With that one after it.
    pub(crate) fn join(mut self, other: Self) -> Self {
        self.0.extend(other.0);
        self
    }

    /// As an output shows it, with at most so many characters.
    pub(crate) fn painted(&self, paint: Paint, most: usize) -> String {
        let mut left = most;
        let pieces = self.0.iter().map(|(tone, text)| {
            let text: String = text.chars().take(left).collect();
            left -= text.chars().count();
            match tone {
                Some(tone) if !text.is_empty() => paint.text(*tone, &text),
                _ => text,
            }
        });
        pieces.collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_cut_by_what_is_seen() {
        let line = Line::toned(None, "ab").and(Some(Tone::Bad), "cdé").and(None, "f");
        let paint = |colour| Paint { terminal: true, colour, unicode: true };
        assert_eq!(line.painted(paint(false), 4), "abcd");
        assert_eq!(line.painted(paint(false), 99), "abcdéf");
        let shown = line.painted(paint(true), 4);
        assert!(shown.contains("cd") && !shown.contains('é') && shown.ends_with('m'), "{shown:?}");
    }
}
