//! A line on standard output.

use std::io::{self, Write};

/// Writes a line. Who closed standard output does not want it.
pub(crate) fn say(line: &str) {
    let _ = writeln!(io::stdout(), "{line}");
}
