//! Which errors that a server reports ask for a ping, where that is not what the table of faults says.

use std::{error::Error, fmt, sync::Arc};

use super::error::Problem;

/// What the application knows of its own errors: whether one asks for a ping, or `None` if it knows nothing of it.
type Judgement = dyn Fn(&(dyn Error + 'static)) -> Option<bool> + Send + Sync;

/// What is told of errors besides the table: of SQLSTATEs that a server reports, and of the application's own errors. All that any of
/// it can do is to ask for a ping, or not to.
#[derive(Clone, Default)]
#[non_exhaustive]
pub struct OutageErrors {
    /// These ask for a ping too.
    pub extra: Vec<CodePrefix>,
    /// Of all SQLSTATEs only these ask for a ping, and those of `extra`. Default: as the table says.
    pub only: Option<Vec<CodePrefix>>,
    judgement: Option<Arc<Judgement>>,
}

/// A SQLSTATE, or the first two characters of one: its class.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CodePrefix(String);

impl OutageErrors {
    /// What the configuration says of a SQLSTATE: whether it asks for a ping, or `None` if the table decides.
    #[must_use]
    pub fn of_sqlstate(&self, sqlstate: &str) -> Option<bool> {
        let names = |list: &[CodePrefix]| list.iter().any(|code| sqlstate.starts_with(&code.0));
        match &self.only {
            _ if names(&self.extra) => Some(true),
            Some(only) => Some(names(only)),
            None => None,
        }
    }

    /// What the application says of an error.
    #[must_use]
    pub fn of_error(&self, error: &(dyn Error + 'static)) -> Option<bool> {
        self.judgement.as_ref().and_then(|judge| judge(error))
    }

    pub(super) fn judge_by(&mut self, judge: Arc<Judgement>) {
        self.judgement = Some(judge);
    }
}

impl CodePrefix {
    /// Both kinds are of digits and capitals.
    pub(super) fn parse(text: &str) -> Result<Self, Problem> {
        let length = text.len() == 2 || text.len() == 5;
        let is_code = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit() || byte.is_ascii_uppercase());
        if length && is_code(text) {
            return Ok(Self(text.to_owned()));
        }
        let what = format!("{text:?} is no SQLSTATE and no class of them");
        let upper = text.trim().to_uppercase();
        let remedy = match upper.len() {
            2 | 5 if is_code(&upper) => format!("write \"{upper}\""),
            _ => "write five characters like \"57P01\", or the first two for a class, like \"57\"".to_owned(),
        };
        Err(Problem::new(what, remedy))
    }

    /// The characters.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for OutageErrors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let judgement = self.judgement.as_ref().map(|_| "a function");
        f.debug_struct("OutageErrors")
            .field("extra", &self.extra)
            .field("only", &self.only)
            .field("judgement", &judgement)
            .finish()
    }
}
