//! Text from outside, made harmless for a terminal, a log and a file.

use std::fmt::Write;

/// The text with everything that a terminal would obey, or that shows nothing, as escapes: control characters, and those that
/// change the direction of text (Unicode Technical Report 36).
pub(crate) fn safe(text: &str) -> String {
    let mut safe = String::with_capacity(text.len());
    for glyph in text.chars() {
        if glyph.is_control() || steers(glyph) {
            // Writing to a string cannot fail.
            let _ = write!(safe, "{}", glyph.escape_unicode());
        } else {
            safe.push(glyph);
        }
    }
    safe
}

/// Text inside of an element or an attribute of XML 1.0.
pub(crate) fn xml(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for glyph in safe(text).chars() {
        match glyph {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '"' => escaped.push_str("&quot;"),
            '\'' => escaped.push_str("&apos;"),
            // No characters of XML.
            '\u{fffe}' | '\u{ffff}' => escaped.push('\u{fffd}'),
            _ => escaped.push(glyph),
        }
    }
    escaped
}

fn steers(glyph: char) -> bool {
    matches!(glyph, '\u{61c}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{2069}' | '\u{feff}')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_terminal_would_obey_is_told_and_not_done() {
        assert_eq!(safe("a\x1b[31mb\nc\u{202e}d"), r"a\u{1b}[31mb\u{a}c\u{202e}d");
        assert_eq!(safe("höchstens ✓"), "höchstens ✓");
    }

    #[test]
    fn markup_is_text() {
        assert_eq!(xml("<a b='c'>&\0\u{ffff}"), "&lt;a b=&apos;c&apos;&gt;&amp;\\u{0}\u{fffd}");
    }
}
