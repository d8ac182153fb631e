//! What changes between two programs, as the guides show it.

/// A line of a diff.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Line<'a> {
    Same(&'a str),
    Gone(&'a str),
    New(&'a str),
}

/// The difference between two texts.
pub(crate) struct Diff<'a>(Vec<Line<'a>>);

/// Lines around a change that are shown too.
const AROUND: usize = 1;

impl<'a> Diff<'a> {
    /// By the longest sequence of lines that both have.
    pub(crate) fn between(before: &'a str, after: &'a str) -> Self {
        let (old, new): (Vec<&str>, Vec<&str>) = (before.lines().collect(), after.lines().collect());
        // The length of what both have from these lines on.
        let mut common = vec![vec![0_usize; new.len() + 1]; old.len() + 1];
        for at in (0..old.len()).rev() {
            for to in (0..new.len()).rev() {
                common[at][to] = match old[at] == new[to] {
                    true => common[at + 1][to + 1] + 1,
                    false => common[at + 1][to].max(common[at][to + 1]),
                };
            }
        }
        let (mut at, mut to, mut lines) = (0, 0, Vec::new());
        while at < old.len() || to < new.len() {
            if at < old.len() && to < new.len() && old[at] == new[to] {
                lines.push(Line::Same(old[at]));
                (at, to) = (at + 1, to + 1);
            } else if at < old.len() && (to == new.len() || common[at + 1][to] >= common[at][to + 1]) {
                lines.push(Line::Gone(old[at]));
                at += 1;
            } else {
                lines.push(Line::New(new[to]));
                to += 1;
            }
        }
        Self(lines)
    }

    /// Lines that differ: one that was replaced by another counts once.
    pub(crate) fn changed(&self) -> usize {
        let spans = self.0.split(|line| matches!(line, Line::Same(_)));
        let count = |span: &[Line<'_>]| {
            let gone = span.iter().filter(|line| matches!(line, Line::Gone(_))).count();
            gone.max(span.len() - gone)
        };
        spans.map(count).sum()
    }

    /// As a guide shows it: what changes, with a line around it unless that is empty, and `@@` between places that are apart.
    pub(crate) fn shown(&self) -> String {
        let near = |at: usize| {
            let around = &self.0[at.saturating_sub(AROUND)..(at + AROUND + 1).min(self.0.len())];
            self.0[at] != Line::Same("") && around.iter().any(|line| !matches!(line, Line::Same(_)))
        };
        let (mut text, mut last) = (String::new(), None);
        for at in (0..self.0.len()).filter(|at| near(*at)) {
            if last.is_some_and(|last| last + 1 < at) {
                text.push_str("@@\n");
            }
            last = Some(at);
            let (mark, line) = match self.0[at] {
                Line::Same(line) => (' ', line),
                Line::Gone(line) => ('-', line),
                Line::New(line) => ('+', line),
            };
            text.push_str(format!("{mark}{line}").trim_end());
            text.push('\n');
        }
        text
    }
}

#[test]
fn a_line_that_is_replaced_counts_once_and_one_that_goes_or_comes_counts_too() {
    let diff = Diff::between("a\nb\nc\nd\ne\nf\n", "a\nB\nc\nd\ne\nf\ng\n");
    assert_eq!(diff.changed(), 2);
    assert_eq!(diff.shown(), " a\n-b\n+B\n c\n@@\n f\n+g\n");
    assert_eq!(Diff::between("a\nb\n", "b\n").changed(), 1);
    assert_eq!(Diff::between("a\n", "a\n").changed(), 0);
}
