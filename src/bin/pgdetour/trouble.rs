//! What kept a command from its end, and how that is told.

use std::fmt;

use pgdetour::health::Cause;
use serde_json::json;

use crate::{exit::Exit, safe::safe, say::say};

/// Why it did not go on, and with which exit code.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Trouble {
    pub(crate) exit: Exit,
    pub(crate) why: String,
}

impl Trouble {
    pub(crate) fn new(exit: Exit, why: impl fmt::Display) -> Self {
        Self { exit, why: why.to_string() }
    }

    /// With all that lies below an error.
    pub(crate) fn of(exit: Exit, what: &str, error: &(dyn std::error::Error + 'static)) -> Self {
        Self::new(exit, format_args!("{what}: {}", Cause::of(error)))
    }

    /// On standard error, or as an object on standard output where JSON is wanted.
    pub(crate) fn tell(&self, as_json: bool) -> Exit {
        if as_json {
            say(&format!("{:#}", json!({ "error": self.why })));
            return self.exit;
        }
        // Lines are ours: a configuration's mistakes have one each.
        let lines: Vec<String> = self.why.lines().map(safe).collect();
        self.exit.because(&lines.join("\n"))
    }
}
