//! Colours and glyphs: both where the terminal has them, neither where it has not.

use std::{env, io::IsTerminal};

use crossterm::style::{Attribute, Color, ContentStyle};

/// What a piece of text means.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Tone {
    /// All is well: reads on their own server.
    Good,
    /// A detour, a warning.
    Away,
    /// A failure.
    Bad,
    /// What matters most in its surroundings.
    Strong,
    /// What matters least.
    Faint,
}

/// How text is shown on one output.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Paint {
    /// Whether the output is a terminal on which lines can be drawn again.
    pub(crate) terminal: bool,
    /// Whether it has colours.
    pub(crate) colour: bool,
    /// Whether it has more than ASCII.
    pub(crate) unicode: bool,
}

impl Paint {
    /// What this output can show, by the environment: `TERM`, `NO_COLOR` and the locale.
    pub(crate) fn of(output: &impl IsTerminal) -> Self {
        let set = |name: &str| env::var(name).ok().filter(|value| !value.is_empty());
        let terminal = output.is_terminal() && set("TERM").is_none_or(|term| term != "dumb");
        // no-color.org: any value but the empty one.
        let colour = terminal && set("NO_COLOR").is_none();
        let locale = ["LC_ALL", "LC_CTYPE", "LANG"].into_iter().find_map(set);
        let utf8 = |locale: String| locale.to_lowercase().replace('-', "").contains("utf8");
        Self { terminal, colour, unicode: locale.is_none_or(utf8) }
    }

    /// The text in the colour of its meaning.
    pub(crate) fn text(self, tone: Tone, text: &str) -> String {
        if !self.colour {
            return text.to_owned();
        }
        let mut style = ContentStyle::new();
        match tone {
            Tone::Good => style.foreground_color = Some(Color::Green),
            Tone::Away => style.foreground_color = Some(Color::Yellow),
            Tone::Bad => style.foreground_color = Some(Color::Red),
            Tone::Strong => style.attributes.set(Attribute::Bold),
            Tone::Faint => style.attributes.set(Attribute::Dim),
        }
        style.apply(text).to_string()
    }
}
