//! What does the router keep in a database? The files of `migrations/`, and how they get there.
//!
//! Written here and not left to a library: refinery's async driver takes no lock, so two programs that start together race.

use std::{error, fmt};

use sha2::{Digest, Sha256};
use tokio_postgres::{Client, Error, SimpleQueryMessage, error::SqlState};

/// Every migration there is, in order. A file that was released never changes.
const ALL: &[Migration] = &[
    Migration { number: 1, name: "writes", sql: include_str!("../migrations/0001_writes.sql") },
    Migration { number: 2, name: "outages", sql: include_str!("../migrations/0002_outages.sql") },
];

/// Who migrates holds this advisory lock: "pgdetour" in ASCII.
const LOCK: i64 = i64::from_be_bytes(*b"pgdetour");

/// One step of the schema.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Migration {
    number: u32,
    name: &'static str,
    sql: &'static str,
}

/// Applies the migrations that are missing, and tells which: all of them or none.
///
/// `client` is connected to the primary, outside a transaction; a lease dereferences to one. It is done in one transaction under
/// an advisory lock, so two that start together do not race. Whoever comes second waits, at most a minute.
///
/// # Errors
///
/// See [`MigrateError`]. Then nothing was changed.
///
/// # Cancel safety
///
/// A dropped call changes nothing, and leaves `client` in a transaction: drop that too.
pub async fn migrate(client: &Client) -> Result<Vec<Migration>, MigrateError> {
    refuse_replica(client).await?;
    // Each statement is to see what others have committed while it waited for the lock.
    let begin = "BEGIN ISOLATION LEVEL READ COMMITTED READ WRITE; SET LOCAL lock_timeout = '60s'";
    let lock = format!("{begin}; SELECT pg_catalog.pg_advisory_xact_lock({LOCK})");
    let done = async {
        client.batch_execute(&lock).await.map_err(MigrateError::of)?;
        let missing = missing(&applied(client).await?, ALL)?;
        for migration in missing {
            client.batch_execute(&migration.apply()).await.map_err(MigrateError::of)?;
        }
        client.batch_execute("COMMIT").await.map_err(MigrateError::of)?;
        Ok(missing.to_vec())
    };
    let result = done.await;
    if result.is_err() {
        // Where even this fails, the session is over and the server rolls back by itself.
        let _ = client.batch_execute("ROLLBACK").await;
    }
    result
}

/// The migrations that [`migrate`] would apply now. Changes nothing and takes no lock.
///
/// # Errors
///
/// See [`MigrateError`].
///
/// # Cancel safety
///
/// Cancel safe.
pub async fn pending_migrations(client: &Client) -> Result<Vec<Migration>, MigrateError> {
    refuse_replica(client).await?;
    Ok(missing(&applied(client).await?, ALL)?.to_vec())
}

impl Migration {
    /// Its number; they are applied in this order.
    #[must_use]
    pub fn number(&self) -> u32 {
        self.number
    }

    /// Its name.
    #[must_use]
    pub fn name(&self) -> &'static str {
        self.name
    }

    /// The SHA-256 of its file, in hexadecimal digits, whatever ends its lines.
    #[must_use]
    pub fn checksum(&self) -> String {
        let digest = Sha256::digest(self.sql.replace("\r\n", "\n"));
        digest.iter().map(|byte| format!("{byte:02x}")).collect()
    }

    /// The file and the note that it was applied. Nothing of it comes from outside of the program.
    fn apply(&self) -> String {
        let Self { number, name, sql } = self;
        let checksum = self.checksum();
        format!(
            "{sql}\nINSERT INTO pgdetour.migrations (number, name, checksum) VALUES ({number}, '{name}', '{checksum}')"
        )
    }
}

impl fmt::Display for Migration {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:04}_{}", self.number, self.name)
    }
}

impl fmt::Debug for Migration {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// A migration as the database has noted it.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Applied {
    number: u32,
    name: String,
    checksum: String,
}

/// Decides what is left to do: those after the last that was applied, if the others are what was applied.
fn missing<'a>(applied: &[Applied], all: &'a [Migration]) -> Result<&'a [Migration], MigrateError> {
    for (index, noted) in applied.iter().enumerate() {
        let Some(known) = all.get(index) else {
            return Err(MigrateError::Newer { migration: format!("{:04}_{}", noted.number, noted.name) });
        };
        if noted.number != known.number || noted.checksum != known.checksum() {
            return Err(MigrateError::Changed { migration: known.to_string() });
        }
    }
    Ok(&all[applied.len()..])
}

async fn refuse_replica(client: &Client) -> Result<(), MigrateError> {
    match &*rows(client, "SELECT pg_catalog.pg_is_in_recovery()").await? {
        [row] if row[0] == "f" => Ok(()),
        _ => Err(MigrateError::Replica),
    }
}

/// What the database has noted, in order; nothing where there is no table for it yet.
async fn applied(client: &Client) -> Result<Vec<Applied>, MigrateError> {
    let there = rows(client, "SELECT pg_catalog.to_regclass('pgdetour.migrations') IS NOT NULL").await?;
    if there.first().is_none_or(|row| row[0] != "t") {
        return Ok(Vec::new());
    }
    let rows = rows(client, "SELECT number, name, checksum FROM pgdetour.migrations ORDER BY number").await?;
    let applied = rows.into_iter().filter_map(|row| {
        let [number, name, checksum] = <[String; 3]>::try_from(row).ok()?;
        Some(Applied { number: number.parse().ok()?, name, checksum })
    });
    Ok(applied.collect())
}

/// All rows of a simple query, NULL as the empty text: it works behind a pooler too, which a prepared statement may not.
async fn rows(client: &Client, sql: &str) -> Result<Vec<Vec<String>>, MigrateError> {
    let messages = client.simple_query(sql).await.map_err(MigrateError::of)?;
    let rows = messages.iter().filter_map(|message| match message {
        SimpleQueryMessage::Row(row) => {
            Some((0..row.len()).map(|column| row.get(column).unwrap_or_default().to_owned()).collect())
        }
        _ => None,
    });
    Ok(rows.collect())
}

/// Why a database was not migrated. Nothing was changed then, but where the connection was lost while it committed.
#[derive(Debug)]
#[non_exhaustive]
pub enum MigrateError {
    /// A migration that was applied differs from the one this program has.
    Changed {
        /// Which.
        migration: String,
    },
    /// The database is ahead of this program: a newer one has migrated it.
    Newer {
        /// The first that this program does not know.
        migration: String,
    },
    /// The server is a replica.
    Replica,
    /// The role may not do it.
    Rights(Error),
    /// Somebody else has held the lock for a minute.
    Locked(Error),
    /// Anything else that a server or a connection said.
    Failed(Error),
}

impl MigrateError {
    fn of(error: Error) -> Self {
        match error.code() {
            Some(code) if *code == SqlState::INSUFFICIENT_PRIVILEGE => Self::Rights(error),
            Some(code) if *code == SqlState::LOCK_NOT_AVAILABLE => Self::Locked(error),
            _ => Self::Failed(error),
        }
    }
}

impl fmt::Display for MigrateError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let said = |error: &Error| error.as_db_error().map_or_else(|| error.to_string(), |db| db.message().to_owned());
        match self {
            Self::Changed { migration } => {
                write!(f, "migration {migration} was applied with another content: a released file never changes")
            }
            Self::Newer { migration } => {
                write!(f, "the database has migration {migration}, which this program does not know: use a newer one")
            }
            Self::Replica => f.write_str("the server is a replica: migrate its primary"),
            Self::Rights(error) => write!(
                f,
                "the role lacks a right ({}): let one migrate that may create a schema in this database",
                said(error)
            ),
            Self::Locked(error) => {
                write!(f, "another migration, or a lock on its tables, lasts too long ({})", said(error))
            }
            Self::Failed(error) => write!(f, "the migration failed: {}", said(error)),
        }
    }
}

impl error::Error for MigrateError {
    fn source(&self) -> Option<&(dyn error::Error + 'static)> {
        match self {
            Self::Rights(error) | Self::Locked(error) | Self::Failed(error) => Some(error),
            Self::Changed { .. } | Self::Newer { .. } | Self::Replica => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    const TWO: &[Migration] =
        &[Migration { number: 1, name: "a", sql: "SELECT 1" }, Migration { number: 2, name: "b", sql: "SELECT 2" }];

    fn noted(migrations: &[Migration]) -> Vec<Applied> {
        let note = |migration: &Migration| Applied {
            number: migration.number,
            name: migration.name.to_owned(),
            checksum: migration.checksum(),
        };
        migrations.iter().map(note).collect()
    }

    #[test]
    fn what_was_not_applied_yet_is_missing() {
        for count in 0..=TWO.len() {
            assert_eq!(missing(&noted(&TWO[..count]), TWO).unwrap(), &TWO[count..]);
        }
    }

    #[test]
    fn a_file_that_has_changed_or_a_database_that_is_ahead_is_an_error() {
        let mut changed = noted(TWO);
        changed[0].checksum = "other".to_owned();
        assert!(matches!(missing(&changed, TWO), Err(MigrateError::Changed { migration }) if migration == "0001_a"));
        let ahead = noted(TWO);
        assert!(matches!(missing(&ahead, &TWO[..1]), Err(MigrateError::Newer { migration }) if migration == "0002_b"));
        let skipped = noted(&TWO[1..]);
        assert!(matches!(missing(&skipped, TWO), Err(MigrateError::Changed { .. })));
    }

    #[test]
    fn a_checksum_is_that_of_the_file_whatever_ends_its_lines() {
        let of = |sql| Migration { number: 1, name: "a", sql }.checksum();
        assert_eq!(of("SELECT 1\r\n"), of("SELECT 1\n"));
        assert_ne!(of("SELECT 1"), of("SELECT 2"));
        assert_eq!(of("abc"), "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
    }

    #[test]
    fn every_file_is_there_under_its_name_and_in_order() {
        let mut files: Vec<String> = fs::read_dir("migrations")
            .unwrap()
            .map(|file| file.unwrap().file_name().into_string().unwrap())
            .filter(|name| name.ends_with(".sql"))
            .collect();
        files.sort();
        let known: Vec<String> = ALL.iter().map(|migration| format!("{migration}.sql")).collect();
        assert_eq!(files, known);
        assert!(ALL.iter().enumerate().all(|(index, migration)| migration.number as usize == index + 1));
    }
}
