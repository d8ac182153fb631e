//! The library's log on the outputs of this program.

use std::{
    fmt,
    io::{self, Write},
    sync::Arc,
    time::Instant,
};

use tracing_subscriber::{
    EnvFilter,
    fmt::{MakeWriter, format::Writer, time::FormatTime},
};

use crate::clock;

/// Where a line of the log goes.
pub(crate) type Line = Arc<dyn Fn(&str) + Send + Sync>;

/// Logs to `line`, from level INFO on unless `RUST_LOG` says otherwise; times are those since `start`.
pub(crate) fn log_to(line: Line, colour: bool, start: Instant) {
    let subscriber = tracing_subscriber::fmt()
        .with_env_filter(EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("pgdetour=info")))
        .with_ansi(colour)
        .with_timer(Since(start))
        .with_writer(Lines(line));
    // An error says that somebody else has set one up: then they get the log.
    let _ = subscriber.try_init();
}

/// Logs to standard error with the time of day, from level INFO on unless `RUST_LOG` says otherwise: a program that stays.
pub(crate) fn log_as_a_service() {
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("pgdetour=info"));
    let subscriber = tracing_subscriber::fmt().with_env_filter(filter).with_ansi(false);
    // An error says that somebody else has set one up: then they get the log.
    let _ = subscriber.with_writer(io::stderr).try_init();
}

/// Logs to standard error what `RUST_LOG` asks for, else nothing: the output tells it all.
pub(crate) fn log_to_errors(start: Instant) {
    if let Ok(filter) = EnvFilter::try_from_default_env() {
        let subscriber = tracing_subscriber::fmt().with_env_filter(filter).with_ansi(false).with_timer(Since(start));
        // An error says that somebody else has set one up: then they get the log.
        let _ = subscriber.with_writer(io::stderr).try_init();
    }
}

/// Tells the time since the start of the story.
struct Since(Instant);

impl FormatTime for Since {
    fn format_time(&self, writer: &mut Writer<'_>) -> fmt::Result {
        let since = clock::now().saturating_duration_since(self.0);
        write!(writer, "{:8.3} s", since.as_secs_f64())
    }
}

struct Lines(Line);

impl<'a> MakeWriter<'a> for Lines {
    type Writer = OneLine;

    fn make_writer(&'a self) -> OneLine {
        OneLine { text: Vec::new(), line: Arc::clone(&self.0) }
    }
}

/// One line of the log: whole when it is dropped.
struct OneLine {
    text: Vec<u8>,
    line: Line,
}

impl Write for OneLine {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.text.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Drop for OneLine {
    fn drop(&mut self) {
        (self.line)(&String::from_utf8_lossy(&self.text));
    }
}
