//! A statement whose text was looked at: may a transaction be open after it that sqlx does not know of?

use std::error::Error;

use ::sqlx::{
    Execute, Postgres, SqlStr,
    postgres::{PgArguments, PgStatement},
};

/// A query, taken apart to read its text.
pub(super) struct Read {
    sql: SqlStr,
    statement: Option<PgStatement>,
    arguments: Result<Option<PgArguments>, Box<dyn Error + Send + Sync>>,
    persistent: bool,
}

impl Read {
    pub(super) fn of<'q>(mut query: impl Execute<'q, Postgres>) -> Self {
        let (statement, arguments, persistent) =
            (query.statement().cloned(), query.take_arguments(), query.persistent());
        Self { sql: query.sql(), statement, arguments, persistent }
    }

    /// With arguments it is one statement, and its first word tells; without, there may be more.
    pub(super) fn may_open_a_transaction(&self) -> bool {
        let sql = self.sql.as_str();
        let is_one = !matches!(self.arguments, Ok(None)) && !sql.contains("--") && !sql.contains("/*");
        let mut words =
            sql.split(|letter: char| !letter.is_alphanumeric() && letter != '_').filter(|word| !word.is_empty());
        if is_one { words.next().is_some_and(begins) } else { words.any(begins) }
    }
}

/// `COMMIT AND CHAIN`, `END AND CHAIN` and the like begin one too.
fn begins(word: &str) -> bool {
    let words = ["BEGIN", "START", "COMMIT", "END", "ROLLBACK", "ABORT", "PREPARE"];
    words.iter().any(|begins| word.eq_ignore_ascii_case(begins))
}

impl<'q> Execute<'q, Postgres> for Read {
    fn sql(self) -> SqlStr {
        self.sql
    }

    fn statement(&self) -> Option<&PgStatement> {
        self.statement.as_ref()
    }

    fn take_arguments(&mut self) -> Result<Option<PgArguments>, Box<dyn Error + Send + Sync>> {
        std::mem::replace(&mut self.arguments, Ok(None))
    }

    fn persistent(&self) -> bool {
        self.persistent
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_may_open_a_transaction_is_told_by_its_text() {
        let asked = |sql: &'static str| Read::of(::sqlx::query(sql)).may_open_a_transaction();
        assert!(asked("begin") && asked("  START TRANSACTION") && asked("/* x */ BEGIN") && asked("-- x\nBEGIN"));
        assert!(!asked("SELECT CASE WHEN true THEN 1 END") && !asked("SELECT 'begin'") && !asked(""));
        let raw = |sql: &'static str| Read::of(::sqlx::raw_sql(sql)).may_open_a_transaction();
        assert!(raw("SELECT 1; BEGIN") && raw("COMMIT AND CHAIN") && !raw("SELECT 1; SELECT beginning FROM t"));
    }
}
