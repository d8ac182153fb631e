//! The ground that clusters stand on: one temporary directory per process, with a data directory made once, gone when the process is.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Mutex, PoisonError};

use super::account::Account;
use super::{TestkitError, find};

/// Waits for the end of its standard input, which is the end of the process that started it, however that came. Then ends the servers that
/// were left behind (SIGQUIT is an immediate shutdown; the frozen are thawed for it) and removes the directory.
const GUARD: &str = r#"
trap '' HUP INT TERM
read -r _
left() { # prints the pid of each server of this directory that runs
  for file in "$1"/*/*/data/postmaster.pid; do
    read -r pid 2>/dev/null <"$file" || continue
    args=$(tr '\0' ' ' 2>/dev/null <"/proc/$pid/cmdline" || ps -o args= -p "$pid" 2>/dev/null)
    case "$args" in *"${file%/postmaster.pid}"*) echo "$pid" ;; esac
  done
}
for pid in $(left "$1"); do
  kill -QUIT "$pid"
  for frozen in "$pid" $(cat "/proc/$pid/task/$pid/children" 2>/dev/null || pgrep -P "$pid" 2>/dev/null); do kill -CONT "$frozen"; done
done
looks=0
while [ -n "$(left "$1")" ] && [ "$looks" -lt 80 ]; do looks=$((looks + 1)); sleep 0.1 || sleep 1; done
for pid in $(left "$1"); do kill -KILL "$pid"; done
rm -rf -- "$1"
"#;

/// Arguments of `initdb`; nothing has to be safe, and the smallest segments are copied quickest.
const INITDB: &str = "-N --locale=C --encoding=UTF8 --wal-segsize=1 --auth=trust --username=postgres";

/// Arguments of `postgres` for a run that lowers the limits which a data directory remembers: a replica copied from it refuses to start with lower ones.
const LOWER: &str =
    "--single -c fsync=off -c superuser_reserved_connections=0 -c max_connections=4 -c max_wal_senders=1 postgres";

/// The directory of this process, made at the first use.
static GROUND: Mutex<Option<Ground>> = Mutex::new(None);

/// What all clusters of this process share.
#[derive(Debug)]
struct Ground {
    dir: PathBuf,
    /// The data directory that all others are copied from, and the programs that made it.
    template: Option<(PathBuf, PathBuf)>,
    clusters: usize,
    _guard: Child,
}

/// A directory for one cluster, removed when dropped.
#[derive(Debug)]
pub(super) struct Plot {
    pub(super) dir: PathBuf,
    pub(super) template: PathBuf,
    pub(super) bindir: PathBuf,
    pub(super) account: Account,
}

impl Plot {
    /// Finds PostgreSQL and prepares everything up to the copying of the template. Blocks.
    pub(super) fn claim() -> Result<Self, TestkitError> {
        let account = Account::for_servers()?;
        let bindir = find::bindir()?;
        if let Some(barrier) = account.barrier(&bindir) {
            let (bindir, barrier) = (bindir.display(), barrier.display());
            return Err(TestkitError::new(format!(
                "PostgreSQL is in {bindir}, but servers do not run as root and their user may not enter {barrier}: \
                 open it (chmod o+x), or run as another user than root"
            )));
        }
        let mut ground = GROUND.lock().unwrap_or_else(PoisonError::into_inner);
        if ground.as_ref().is_none_or(|ground| !ground.dir.is_dir()) {
            *ground = Some(Ground::break_(account)?);
        }
        let ground = ground.as_mut().expect("it was filled above");
        let template = ground.template(&bindir, account)?;
        ground.clusters += 1;
        let dir = ground.dir.join(ground.clusters.to_string());
        make_dir(&dir, 0o711)?;
        Ok(Self { dir, template, bindir, account })
    }
}

impl Drop for Plot {
    fn drop(&mut self) {
        // What cannot be removed now, the guard removes.
        let _ = fs::remove_dir_all(&self.dir);
    }
}

impl Ground {
    fn break_(account: Account) -> Result<Self, TestkitError> {
        let root = temporary_root(account);
        let dir = tempfile::Builder::new().prefix("pgd-").tempdir_in(&root);
        let dir = dir.map_err(TestkitError::while_(format!("making a directory in {}", root.display())))?;
        fs::set_permissions(dir.path(), Permissions::from_mode(0o711))
            .map_err(TestkitError::while_("opening the temporary directory"))?;
        let guard = Command::new("sh")
            .args(["-c", GUARD, "pgdetour-testkit"])
            .arg(dir.path())
            .current_dir("/")
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .process_group(0)
            .spawn()
            .map_err(TestkitError::while_("starting the guard of the temporary directory"))?;
        Ok(Self { dir: dir.keep(), template: None, clusters: 0, _guard: guard })
    }

    /// A data directory fresh from `initdb`.
    fn template(&mut self, bindir: &Path, account: Account) -> Result<PathBuf, TestkitError> {
        if let Some((made, by)) = &self.template
            && by == bindir
        {
            return Ok(made.clone());
        }
        self.clusters += 1;
        let home = self.dir.join(format!("t{}", self.clusters));
        make_dir(&home, 0o700)?;
        account.own(&home)?;
        let data = home.join("data");
        for (program, args) in [("initdb", INITDB), ("postgres", LOWER)] {
            let mut command = Command::new(bindir.join(program));
            command.args(args.split(' ')).current_dir(&home).stdin(Stdio::null());
            let output = account.run(quiet(&mut command).env("PGDATA", &data)).output();
            let output = output.map_err(TestkitError::while_(format!("running {program}")))?;
            if !output.status.success() {
                let said = String::from_utf8_lossy(&output.stderr).into_owned();
                return Err(TestkitError::caused(format!("{program} ended with {}", output.status), said));
            }
        }
        self.template = Some((data.clone(), bindir.to_owned()));
        Ok(data)
    }
}

/// Keeps PostgreSQL's own environment variables, and a language that nobody greps for, away from a program.
pub(super) fn quiet(command: &mut Command) -> &mut Command {
    for (name, _) in std::env::vars_os().filter(|(name, _)| name.to_string_lossy().starts_with("PG")) {
        command.env_remove(name);
    }
    command.env("LC_ALL", "C").env("TZ", "UTC")
}

/// Makes a directory with exactly that mode.
pub(super) fn make_dir(dir: &Path, mode: u32) -> Result<(), TestkitError> {
    let made = fs::create_dir(dir).and_then(|()| fs::set_permissions(dir, Permissions::from_mode(mode)));
    made.map_err(TestkitError::while_(format!("making {}", dir.display())))
}

/// The first usual place for temporary files that the servers' user can enter and that is short enough for a socket's path (107 bytes).
fn temporary_root(account: Account) -> PathBuf {
    let usual = ["/tmp", "/var/tmp", "/dev/shm"].map(PathBuf::from);
    let mut roots = std::iter::once(std::env::temp_dir()).chain(usual).filter_map(|root| root.canonicalize().ok());
    roots.find(|root| root.as_os_str().len() < 60 && account.barrier(root).is_none()).unwrap_or_else(std::env::temp_dir)
}
