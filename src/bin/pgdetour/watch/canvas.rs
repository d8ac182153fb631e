//! The whole terminal, of which only what has changed is written; the terminal is as before when it is dropped.

use std::io::{self, IsTerminal, Write};

use crossterm::{
    cursor::{Hide, MoveTo, Show},
    queue,
    terminal::{self, Clear, ClearType, DisableLineWrap, EnableLineWrap, EnterAlternateScreen, LeaveAlternateScreen},
};
use rustix::termios::{LocalModes, OptionalActions, Termios, tcgetattr, tcsetattr};
use tokio::sync::mpsc;

use super::frame::Room;
use crate::{line::Line, paint::Paint};

/// The size of a terminal that does not tell.
const USUAL: (u16, u16) = (80, 24);

/// A terminal that is drawn on.
#[derive(Debug)]
pub(super) struct Canvas {
    paint: Paint,
    /// What each row shows.
    shown: Vec<String>,
    size: (u16, u16),
    /// How the keyboard was.
    before: Option<Termios>,
}

impl Canvas {
    /// Takes the terminal.
    pub(super) fn take(paint: Paint) -> io::Result<Self> {
        let canvas = Self { paint, shown: Vec::new(), size: (0, 0), before: quiet_keyboard() };
        let mut start = Vec::new();
        queue!(start, EnterAlternateScreen, DisableLineWrap, Hide)?;
        write(&start)?;
        Ok(canvas)
    }

    /// How much it has room for now.
    pub(super) fn room(&self) -> Room {
        let (width, height) = terminal::size().unwrap_or(USUAL);
        Room { width: width.into(), height: height.into(), unicode: self.paint.unicode }
    }

    /// Shows these lines, one a row.
    pub(super) fn draw(&mut self, lines: &[Line]) -> io::Result<()> {
        let size = terminal::size().unwrap_or(USUAL);
        let mut frame = Vec::new();
        if size != self.size {
            self.size = size;
            self.shown.clear();
            queue!(frame, Clear(ClearType::All))?;
        }
        let texts = lines.iter().take(size.1.into()).map(|line| line.painted(self.paint, size.0.into()));
        let texts: Vec<String> = texts.collect();
        for (row, text) in (0..size.1).zip(&texts) {
            if self.shown.get(usize::from(row)) != Some(text) {
                // Cleared before it is written: after a full row the cursor stands on its last character.
                queue!(frame, MoveTo(0, row), Clear(ClearType::UntilNewLine))?;
                frame.extend_from_slice(text.as_bytes());
            }
        }
        self.shown = texts;
        write(&frame)
    }
}

impl Drop for Canvas {
    fn drop(&mut self) {
        let mut end = Vec::new();
        let _ = queue!(end, Show, EnableLineWrap, LeaveAlternateScreen).and_then(|()| write(&end));
        if let Some(before) = &self.before {
            let _ = tcsetattr(io::stdin(), OptionalActions::Flush, before);
        }
    }
}

/// Sent at once, so that nothing flickers.
fn write(frame: &[u8]) -> io::Result<()> {
    let mut output = io::stdout().lock();
    output.write_all(frame)?;
    output.flush()
}

/// Has keys come at once and unseen; Ctrl-C is a signal as ever. None where the input is no terminal.
fn quiet_keyboard() -> Option<Termios> {
    let before = tcgetattr(io::stdin()).ok()?;
    let mut quiet = before.clone();
    quiet.local_modes -= LocalModes::ICANON | LocalModes::ECHO;
    tcsetattr(io::stdin(), OptionalActions::Now, &quiet).ok()?;
    Some(before)
}

/// The keys that are pressed. None, at once, where the input is no terminal.
pub(super) fn keys() -> Option<mpsc::Receiver<u8>> {
    use std::io::Read;
    if !io::stdin().is_terminal() {
        return None;
    }
    let (press, pressed) = mpsc::channel(8);
    // A thread of its own, which the program does not wait for at its end: a read of the keyboard cannot be called off.
    std::thread::spawn(move || {
        let mut key = [0];
        while io::stdin().read_exact(&mut key).is_ok() && press.blocking_send(key[0]).is_ok() {}
    });
    Some(pressed)
}
