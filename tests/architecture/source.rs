//! Rust source as far as the rules of tests/architecture.rs need it: tokens with their lines, the paths they spell, functions.

/// One token outside comments and literals, and its line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Token {
    pub(super) text: String,
    pub(super) line: usize,
}

/// A path as it stands in the source, `use` trees taken apart: `a::{b, c::d}` is `a::b` and `a::c::d`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Path {
    pub(super) segments: Vec<String>,
    pub(super) line: usize,
}

/// A function with a body.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Function {
    pub(super) name: String,
    pub(super) line: usize,
    pub(super) lines: usize,
}

/// The tokens of a source: identifiers, `::`, and single other characters. Comments, strings and numbers are left out.
pub(super) fn tokens(source: &str) -> Vec<Token> {
    let chars: Vec<char> = source.chars().collect();
    let (mut at, mut line, mut found) = (0, 1, Vec::new());
    while at < chars.len() {
        let end = literal(&chars, at).unwrap_or_else(|| word(&chars, at));
        let text: String = chars[at..end].iter().collect();
        let is_word = text.starts_with(|c: char| c.is_alphabetic() || c == '_') && !text.contains(['"', '\'']);
        if is_word || text == "::" || (end == at + 1 && chars[at].is_ascii_punctuation()) {
            found.push(Token { text: text.clone(), line });
        }
        line += text.matches('\n').count();
        at = end;
    }
    found
}

/// The end of the identifier, number, `::` or single character that starts here.
fn word(chars: &[char], at: usize) -> usize {
    let is_word = |c: &char| c.is_alphanumeric() || *c == '_';
    match chars[at] {
        c if is_word(&c) => at + chars[at..].iter().take_while(|c| is_word(c)).count(),
        ':' if chars.get(at + 1) == Some(&':') => at + 2,
        _ => at + 1,
    }
}

/// The end of the comment, string or character that starts here, if one does.
fn literal(chars: &[char], at: usize) -> Option<usize> {
    let after = |n: usize| chars.get(at + n).copied();
    let rest = || chars[at..].iter().enumerate();
    match (chars[at], after(1)) {
        ('/', Some('/')) => Some(rest().find(|(_, c)| **c == '\n').map_or(chars.len(), |(n, _)| at + n)),
        ('/', Some('*')) => Some(block_comment(chars, at)),
        ('r', Some('"' | '#')) => raw_string(chars, at + 1),
        ('b' | 'c', Some('r')) => raw_string(chars, at + 2),
        ('b' | 'c', Some('"')) => Some(quoted(chars, at + 2, '"')),
        ('"', _) => Some(quoted(chars, at + 1, '"')),
        // A lifetime has no closing quote.
        ('\'', Some('\\')) => Some(quoted(chars, at + 1, '\'')),
        ('\'', Some(_)) if after(2) == Some('\'') => Some(at + 3),
        _ => None,
    }
}

fn quoted(chars: &[char], mut at: usize, quote: char) -> usize {
    while at < chars.len() && chars[at] != quote {
        at += if chars[at] == '\\' { 2 } else { 1 };
    }
    (at + 1).min(chars.len())
}

fn raw_string(chars: &[char], at: usize) -> Option<usize> {
    let hashes = chars[at..].iter().take_while(|c| **c == '#').count();
    (chars.get(at + hashes) == Some(&'"')).then(|| {
        let close = |from: &usize| chars[*from] == '"' && chars[from + 1..].iter().take(hashes).all(|c| *c == '#');
        (at + hashes + 1..chars.len()).find(close).map_or(chars.len(), |quote| quote + 1 + hashes)
    })
}

fn block_comment(chars: &[char], at: usize) -> usize {
    let (mut depth, mut end) = (0, at);
    loop {
        match (chars.get(end), chars.get(end + 1)) {
            (Some('/'), Some('*')) => (depth, end) = (depth + 1, end + 2),
            (Some('*'), Some('/')) => (depth, end) = (depth - 1, end + 2),
            (Some(_), _) => end += 1,
            (None, _) => return chars.len(),
        }
        if depth == 0 {
            return end;
        }
    }
}

/// All paths in these tokens; a single identifier is a path too.
pub(super) fn paths(tokens: &[Token]) -> Vec<Path> {
    let (mut at, mut found) = (0, Vec::new());
    while at < tokens.len() {
        if is_identifier(&tokens[at]) {
            at = path(tokens, at, &[], &mut found);
        } else {
            at += 1;
        }
    }
    found
}

/// Reads one path or tree that starts here, and says where it ends.
fn path(tokens: &[Token], mut at: usize, prefix: &[String], found: &mut Vec<Path>) -> usize {
    let mut segments = prefix.to_vec();
    let line = tokens[at].line;
    loop {
        match tokens.get(at) {
            Some(token) if is_identifier(token) => segments.push(token.text.clone()),
            Some(token) if token.text == "{" => return tree(tokens, at + 1, &segments, found),
            Some(token) if token.text == "*" => segments.push("*".to_owned()),
            _ => break,
        }
        at += 1;
        if tokens.get(at).is_none_or(|token| token.text != "::") {
            break;
        }
        at += 1;
    }
    found.push(Path { segments, line });
    at
}

fn tree(tokens: &[Token], mut at: usize, prefix: &[String], found: &mut Vec<Path>) -> usize {
    while let Some(token) = tokens.get(at) {
        match token.text.as_str() {
            "}" => return at + 1,
            "," => at += 1,
            "as" => at += 2,
            _ if is_identifier(token) || token.text == "{" || token.text == "*" => {
                at = path(tokens, at, prefix, found);
            }
            _ => at += 1,
        }
    }
    at
}

fn is_identifier(token: &Token) -> bool {
    token.text.starts_with(|c: char| c.is_alphabetic() || c == '_')
}

/// All functions that have a body, with the lines from `fn` to the closing brace.
pub(super) fn functions(tokens: &[Token]) -> Vec<Function> {
    let starts = tokens.windows(2).enumerate().filter(|(_, pair)| pair[0].text == "fn" && is_identifier(&pair[1]));
    starts.filter_map(|(at, pair)| function(&tokens[at..], &pair[1].text)).collect()
}

fn function(tokens: &[Token], name: &str) -> Option<Function> {
    let (mut braces, mut others) = (0_i32, 0_i32);
    for token in tokens {
        match token.text.as_str() {
            "(" | "[" => others += 1,
            ")" | "]" => others -= 1,
            ";" if braces == 0 && others == 0 => return None, // Declared by a trait, without a body.
            "{" => braces += 1,
            "}" if braces == 1 => {
                let line = tokens[0].line;
                return Some(Function { name: name.to_owned(), line, lines: token.line - line + 1 });
            }
            "}" => braces -= 1,
            _ => {}
        }
    }
    None
}
