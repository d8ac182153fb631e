//! What is wrong with a configuration: every mistake, with its place and what to do about it.

use std::{
    fmt,
    path::{Path, PathBuf},
    sync::Arc,
};

/// Why a configuration does not hold: every mistake found, not only the first.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConfigError {
    mistakes: Vec<Mistake>,
}

/// One mistake, or one warning: where it stands, what is wrong and what to write instead. It never holds a password or a URL.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Mistake {
    /// The file it stands in; none for text, environment and code.
    pub file: Option<PathBuf>,
    /// The line, from 1; none for environment and code, and for what is missing.
    pub line: Option<usize>,
    /// The environment variable it came from.
    pub variable: Option<String>,
    /// The path of the key, like `alias.replica.failover`; empty for the file as a whole.
    pub key: String,
    /// What is wrong.
    pub what: String,
    /// What to write instead.
    pub remedy: Option<String>,
}

impl ConfigError {
    /// The mistakes in the order of the file; those of the environment and of code come last.
    pub(super) fn new(mut mistakes: Vec<Mistake>) -> Self {
        mistakes.sort_by_key(|mistake| (mistake.variable.is_some(), mistake.line.unwrap_or(usize::MAX)));
        // One global key can be wrong for each of many aliases: it is told once.
        let mut once: Vec<Mistake> = Vec::with_capacity(mistakes.len());
        for mistake in mistakes {
            if !once.contains(&mistake) {
                once.push(mistake);
            }
        }
        Self { mistakes: once }
    }

    /// Every mistake; never empty.
    #[must_use]
    pub fn mistakes(&self) -> &[Mistake] {
        &self.mistakes
    }
}

impl fmt::Display for ConfigError {
    /// One mistake per paragraph.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, mistake) in self.mistakes.iter().enumerate() {
            write!(f, "{}{mistake}", if index == 0 { "" } else { "\n\n" })?;
        }
        Ok(())
    }
}

impl std::error::Error for ConfigError {}

impl fmt::Display for Mistake {
    /// `pgdetour.toml:12: alias.replica.failovr: unknown key; did you mean `failover`?`
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (&self.variable, &self.file, self.line) {
            (Some(variable), ..) => write!(f, "{variable}: ")?,
            (None, Some(file), Some(line)) => write!(f, "{}:{line}: ", file.display())?,
            (None, Some(file), None) => write!(f, "{}: ", file.display())?,
            (None, None, Some(line)) => write!(f, "line {line}: ")?,
            (None, None, None) => {}
        }
        if !self.key.is_empty() {
            write!(f, "{}: ", self.key)?;
        }
        f.write_str(&self.what)?;
        self.remedy.iter().try_for_each(|remedy| write!(f, "; {remedy}"))
    }
}

/// Where a value came from.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct At {
    pub(super) file: Option<Arc<Path>>,
    pub(super) line: Option<usize>,
    pub(super) variable: Option<String>,
    pub(super) key: String,
}

/// A value that somebody wrote, with its place.
#[derive(Debug, Clone)]
pub(super) struct Given<T> {
    pub(super) value: T,
    pub(super) at: At,
}

impl At {
    /// A place in code: the key alone.
    pub(super) fn code(key: impl Into<String>) -> Self {
        Self { key: key.into(), ..Self::default() }
    }

    /// A mistake at this place.
    pub(super) fn mistake(&self, problem: Problem) -> Mistake {
        Mistake {
            file: self.file.as_deref().map(Path::to_path_buf),
            line: self.line,
            variable: self.variable.clone(),
            key: self.key.clone(),
            what: problem.what,
            remedy: problem.remedy,
        }
    }
}

/// What is wrong, before it is known where.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Problem {
    what: String,
    remedy: Option<String>,
}

impl Problem {
    pub(super) fn new(what: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self { what: what.into(), remedy: Some(remedy.into()) }
    }

    pub(super) fn bare(what: impl Into<String>) -> Self {
        Self { what: what.into(), remedy: None }
    }

    /// `wrong` is none of `valid`: names the nearest of them, or all when none is near.
    pub(super) fn none_of<'a>(what: &str, wrong: &str, valid: impl Iterator<Item = &'a str> + Clone) -> Self {
        match nearest(wrong, valid.clone()) {
            Some(near) => Self::new(what, format!("did you mean `{near}`?")),
            None => Self::new(what, format!("valid: {}", valid.collect::<Vec<_>>().join(", "))),
        }
    }
}

/// The valid spelling nearest to `wrong`, if one is near at all.
pub(super) fn nearest<'a>(wrong: &str, valid: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    let wrong = wrong.to_lowercase();
    let (distance, near) =
        valid.map(|name| (strsim::damerau_levenshtein(&wrong, name), name)).min_by_key(|(distance, _)| *distance)?;
    (distance <= (near.len().max(wrong.len()) / 3).max(1)).then_some(near)
}
