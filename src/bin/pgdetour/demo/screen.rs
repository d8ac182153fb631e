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

/// An output that several threads write to. What cannot be written is lost: who closed the output does not want it.
pub(super) struct Screen {
    /// What the output can show.
    pub(super) paint: Paint,
    inner: Mutex<Inner>,
}

struct Inner {
    output: Box<dyn Write + Send>,
    live: Vec<String>,
    hidden: bool,
}

impl Screen {
    /// A screen on this output.
    pub(super) fn new(output: Box<dyn Write + Send>, paint: Paint) -> Self {
        Self { paint, inner: Mutex::new(Inner { output, live: Vec::new(), hidden: false }) }
    }

    /// How many columns it has now.
    pub(super) fn width(&self) -> usize {
        let size = crossterm::terminal::size().ok().filter(|_| self.paint.terminal);
        size.map_or(USUAL_WIDTH, |(columns, _)| usize::from(columns)).max(LEAST_WIDTH)
    }

    /// Writes text that stays, above what is drawn again.
    pub(super) fn say(&self, text: &str) {
        let mut inner = self.inner();
        let _ = inner.change(|inner, frame| {
            writeln!(frame, "{}", text.trim_end_matches('\n'))?;
            inner.draw(frame)
        });
    }

    /// Draws these lines in the place of those drawn before. Only for terminals.
    pub(super) fn live(&self, lines: Vec<String>) {
        let mut inner = self.inner();
        inner.hidden = true;
        let _ = inner.change(|inner, frame| {
            inner.live = lines;
            queue!(frame, Hide)?;
            inner.draw(frame)
        });
    }

    /// Lets what is drawn stay as it is.
    pub(super) fn settle(&self) {
        self.inner().settle();
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

impl fmt::Debug for Screen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Screen").field("paint", &self.paint).finish_non_exhaustive()
    }
}
