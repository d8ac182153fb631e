//! One output for all: lines that stay, and below them a few that are drawn again and again.

use std::{
    fmt,
    io::{self, Write},
    sync::{Mutex, MutexGuard, PoisonError},
};

use crossterm::{
    cursor::{Hide, MoveToColumn, MoveUp, Show},
    queue,
    terminal::{Clear, ClearType},
};

use crate::paint::Paint;

/// The width of what is no terminal, or does not tell.
const USUAL_WIDTH: usize = 80;
/// A narrower one breaks lines.
const LEAST_WIDTH: usize = 40;
/// Columns before the text of a line that goes on.
const INDENT: usize = 12;

/// An output that several threads write to. What cannot be written is lost: who closed the output does not want it.
pub(crate) struct Screen {
    /// What the output can show.
    pub(crate) paint: Paint,
    inner: Mutex<Inner>,
}

struct Inner {
    output: Box<dyn Write + Send>,
    live: Vec<String>,
    hidden: bool,
}

impl Screen {
    /// A screen on this output.
    pub(crate) fn new(output: Box<dyn Write + Send>, paint: Paint) -> Self {
        Self { paint, inner: Mutex::new(Inner { output, live: Vec::new(), hidden: false }) }
    }

    /// How many columns it has now.
    pub(crate) fn width(&self) -> usize {
        let size = crossterm::terminal::size().ok().filter(|_| self.paint.terminal);
        size.map_or(USUAL_WIDTH, |(columns, _)| usize::from(columns)).max(LEAST_WIDTH)
    }

    /// Writes text that stays, above what is drawn again.
    pub(crate) fn say(&self, text: &str) {
        let text = text.trim_end_matches('\n');
        let text = if self.paint.terminal { wrapped(text, self.width()) } else { text.to_owned() };
        let mut inner = self.inner();
        let _ = inner.change(|inner, frame| {
            writeln!(frame, "{text}")?;
            inner.draw(frame)
        });
    }

    /// Draws these lines in the place of those drawn before. Only for terminals.
    pub(crate) fn live(&self, lines: Vec<String>) {
        let mut inner = self.inner();
        inner.hidden = true;
        let _ = inner.change(|inner, frame| {
            inner.live = lines;
            queue!(frame, Hide)?;
            inner.draw(frame)
        });
    }

    /// Lets what is drawn stay as it is.
    pub(crate) fn settle(&self) {
        self.inner().settle();
    }

    /// Takes away what is drawn.
    pub(crate) fn settle_empty(&self) {
        let mut inner = self.inner();
        let _ = inner.change(|inner, _| {
            inner.live.clear();
            Ok(())
        });
        inner.settle();
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Inner {
    /// Takes the live lines away, lets something be written, and sends it all at once, so that nothing flickers.
    fn change(&mut self, write: impl FnOnce(&mut Self, &mut Vec<u8>) -> io::Result<()>) -> io::Result<()> {
        let mut frame = Vec::new();
        if let Ok(lines @ 1..) = u16::try_from(self.live.len()) {
            queue!(frame, MoveUp(lines), MoveToColumn(0), Clear(ClearType::FromCursorDown))?;
        }
        write(self, &mut frame)?;
        self.output.write_all(&frame)?;
        self.output.flush()
    }

    fn draw(&self, frame: &mut Vec<u8>) -> io::Result<()> {
        self.live.iter().try_for_each(|line| writeln!(frame, "{line}"))
    }

    fn settle(&mut self) {
        self.live.clear();
        if std::mem::take(&mut self.hidden) {
            let _ = queue!(self.output, Show).and_then(|()| self.output.flush());
        }
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        self.inner().settle();
    }
}

/// Breaks a line between words, where it would be broken within one. Escape sequences have no width.
fn wrapped(text: &str, width: usize) -> String {
    let (mut lines, mut column) = (String::new(), 0);
    for (index, word) in text.split(' ').enumerate() {
        let length = visible(word);
        if index > 0 && column + 1 + length > width {
            lines.push_str(&format!("\n{}", " ".repeat(INDENT)));
            column = INDENT;
        } else if index > 0 {
            lines.push(' ');
            column += 1;
        }
        lines.push_str(word);
        column += length;
    }
    lines
}

/// How many columns a word takes. The only escape sequences here set colours: they end with an `m`.
fn visible(word: &str) -> usize {
    let mut parts = word.split('\x1b');
    let first = parts.next().unwrap_or_default().chars().count();
    first + parts.map(|part| part.split_once('m').map_or(0, |(_, text)| text.chars().count())).sum::<usize>()
}

impl fmt::Debug for Screen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Screen").field("paint", &self.paint).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_broken_between_words_and_colours_take_no_room() {
        let text = "1.0 s \x1b[31mERROR\x1b[0m outage opened cause=refused";
        assert_eq!(wrapped(text, 30), "1.0 s \x1b[31mERROR\x1b[0m outage opened\n            cause=refused");
        assert_eq!(wrapped(text, 80), text);
    }
}
