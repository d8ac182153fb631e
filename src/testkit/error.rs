//! What went wrong while a server or a proxy was being run.

use std::error::Error;
use std::fmt;

/// Why the test kit could not do what was asked; its text says what was tried and, where there is one, the remedy.
#[derive(Debug)]
pub struct TestkitError {
    what: String,
    source: Option<Box<dyn Error + Send + Sync>>,
}

impl TestkitError {
    pub(super) fn new(what: impl Into<String>) -> Self {
        Self { what: what.into(), source: None }
    }

    pub(super) fn caused(what: impl Into<String>, source: impl Into<Box<dyn Error + Send + Sync>>) -> Self {
        Self { what: what.into(), source: Some(source.into()) }
    }

    /// Turns any error into one that says what was being done: `.map_err(TestkitError::while_("copying the template"))`.
    pub(super) fn while_<E: Into<Box<dyn Error + Send + Sync>>>(doing: impl Into<String>) -> impl FnOnce(E) -> Self {
        let doing = doing.into();
        move |source| Self::caused(doing, source)
    }
}

impl fmt::Display for TestkitError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.what)?;
        let mut cause = self.source.as_deref().map(|source| source as &dyn Error);
        while let Some(error) = cause {
            write!(f, ": {error}")?;
            cause = error.source();
        }
        Ok(())
    }
}

// The causes are part of the text, so `source()` stays empty: a report that walks the chain would print them twice.
impl Error for TestkitError {}
