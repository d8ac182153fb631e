//! Who runs the servers: PostgreSQL refuses to run as root.

use std::fs;
use std::os::unix::fs::{MetadataExt, chown};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Command;

use super::TestkitError;

/// The user that servers run as.
#[derive(Clone, Copy, Debug)]
pub(super) enum Account {
    /// The user that we are.
    Own,
    /// We are root and servers run as somebody else.
    Other { uid: u32, gid: u32 },
}

impl Account {
    /// `postgres`, else `nobody`, for root; oneself for everybody else.
    pub(super) fn for_servers() -> Result<Self, TestkitError> {
        if !rustix::process::geteuid().is_root() {
            return Ok(Self::Own);
        }
        let users = fs::read_to_string("/etc/passwd").map_err(TestkitError::while_("reading /etc/passwd"))?;
        ["postgres", "nobody"].iter().find_map(|name| find(&users, name)).ok_or_else(|| {
            TestkitError::new(
                "PostgreSQL does not run as root, and there is no user `postgres` or `nobody` to run it as",
            )
        })
    }

    /// Makes the command run as this user, with no group but its own.
    pub(super) fn run<'a>(&self, command: &'a mut Command) -> &'a mut Command {
        match self {
            Self::Own => command,
            // The standard library drops root's supplementary groups along with the uid.
            Self::Other { uid, gid } => command.uid(*uid).gid(*gid),
        }
    }

    /// Gives a file or directory to this user.
    pub(super) fn own(&self, path: &Path) -> Result<(), TestkitError> {
        match self {
            Self::Own => Ok(()),
            Self::Other { uid, gid } => chown(path, Some(*uid), Some(*gid))
                .map_err(TestkitError::while_(format!("giving {} to the servers' user", path.display()))),
        }
    }

    /// The first directory on the way to `path` that this user may not pass.
    pub(super) fn barrier<'a>(&self, path: &'a Path) -> Option<&'a Path> {
        let Self::Other { uid, gid } = *self else { return None };
        path.ancestors().filter(|step| step.is_dir()).find(|step| {
            fs::metadata(step).is_ok_and(|meta| {
                let shift = if meta.uid() == uid { 6 } else { 3 * u32::from(meta.gid() == gid) };
                meta.mode() >> shift & 1 == 0
            })
        })
    }
}

fn find(users: &str, name: &str) -> Option<Account> {
    let fields: Vec<&str> =
        users.lines().map(|line| line.split(':').collect()).find(|user: &Vec<_>| user[0] == name)?;
    Some(Account::Other { uid: fields.get(2)?.parse().ok()?, gid: fields.get(3)?.parse().ok()? })
}
