//! Commands of others, run within a time: they may be missing, fail, hang, or leave something running.

use std::{
    fs::File,
    io::{self, Read, Seek, SeekFrom},
    process::Stdio,
    time::Duration,
};

use rustix::process::{Pid, Signal, kill_process_group};
use tokio::process::{Child, Command};

use crate::safe::safe;

/// How much of what a command said is told: its end.
const TOLD: u64 = 400;

/// A command to be run.
#[derive(Debug)]
pub(super) struct Hook {
    command: Command,
    /// How it is named when something goes wrong.
    shown: String,
    patience: Duration,
}

impl Hook {
    /// A shell command. It learns by its environment for which fault and alias it runs.
    pub(super) fn shell(command: &str, fault: &str, alias: &str, patience: Duration) -> Self {
        let mut shell = Command::new("sh");
        shell.args(["-c", command]).env("DRILL_FAULT", fault).env("DRILL_ALIAS", alias);
        Self { command: shell, shown: format!("`{}`", safe(command)), patience }
    }

    /// A program with its arguments.
    pub(super) fn program(words: &[&str], patience: Duration) -> Self {
        let mut command = Command::new(words.first().copied().unwrap_or_default());
        command.args(words.iter().skip(1));
        Self { command, shown: format!("`{}`", safe(&words.join(" "))), patience }
    }

    /// Runs it to its end and gives what it wrote. One that fails or takes too long is told with the end of what it wrote.
    ///
    /// It has a process group of its own: Ctrl-C on the terminal does not reach it, and when this future is dropped, or the time is
    /// over, its whole group is killed.
    pub(super) async fn run(mut self) -> Result<String, String> {
        // Not pipes: a process that it leaves behind would hold them open, and the end would never come.
        let mut output = tempfile::tempfile().map_err(|error| self.about(&error))?;
        let [out, err] = [output.try_clone(), output.try_clone()];
        let [out, err] = [out.map_err(|error| self.about(&error))?, err.map_err(|error| self.about(&error))?];
        self.command.stdin(Stdio::null()).stdout(out).stderr(err).process_group(0);
        let mut group = Group(self.command.spawn().map_err(|error| self.about(&error))?);
        let status = match tokio::time::timeout(self.patience, group.0.wait()).await {
            Ok(status) => status.map_err(|error| self.about(&error))?,
            Err(_) => {
                drop(group);
                let patience = humantime::format_duration(self.patience);
                return Err(self.about(&format!("did not end within {patience} and was killed{}", end_of(&mut output))));
            }
        };
        if !status.success() {
            return Err(self.about(&format!("ended with {status}{}", end_of(&mut output))));
        }
        let mut text = Vec::new();
        let read = output.rewind().and_then(|()| output.read_to_end(&mut text));
        read.map_err(|error| self.about(&error))?;
        Ok(String::from_utf8_lossy(&text).into_owned())
    }

    fn about(&self, what: &dyn std::fmt::Display) -> String {
        format!("{} {what}", self.shown)
    }
}

/// A child with its descendants: killed when this is dropped before the child has ended.
struct Group(Child);

impl Drop for Group {
    fn drop(&mut self) {
        // None: it has ended, and its number may be somebody else's.
        let pid = self.0.id().and_then(|pid| i32::try_from(pid).ok()).and_then(Pid::from_raw);
        if let Some(pid) = pid {
            // An error says that it has ended meanwhile.
            let _ = kill_process_group(pid, Signal::KILL);
        }
    }
}

/// The last words of a command, as part of a sentence.
fn end_of(output: &mut File) -> String {
    let read = |output: &mut File| -> io::Result<Vec<u8>> {
        let length = output.seek(SeekFrom::End(0))?;
        output.seek(SeekFrom::Start(length.saturating_sub(TOLD)))?;
        let mut text = Vec::new();
        output.read_to_end(&mut text)?;
        Ok(text)
    };
    let text = read(output).unwrap_or_default();
    let lines: Vec<String> = String::from_utf8_lossy(&text).lines().map(|line| safe(line.trim())).collect();
    let lines: Vec<&str> = lines.iter().map(String::as_str).filter(|line| !line.is_empty()).collect();
    if lines.is_empty() { " (it wrote nothing)".to_owned() } else { format!(": {}", lines.join(" | ")) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock;

    const SOON: Duration = Duration::from_secs(20);

    fn shell(command: &str, patience: Duration) -> Hook {
        Hook::shell(command, "kill", "replica", patience)
    }

    #[tokio::test]
    async fn a_command_knows_its_fault_and_gives_what_it_wrote() {
        let said = shell("echo $DRILL_FAULT of $DRILL_ALIAS", SOON).run().await;
        assert_eq!(said.as_deref(), Ok("kill of replica\n"));
    }

    #[tokio::test]
    async fn a_command_that_is_missing_or_fails_is_told_with_its_last_words() {
        let missing = shell("no-such-command-here", SOON).run().await.unwrap_err();
        assert!(missing.contains("exit status: 127") && missing.contains("not found"), "{missing}");
        let failed = shell("printf 'no \\033[31mroute\\n'; exit 3", SOON).run().await.unwrap_err();
        assert!(failed.ends_with(r"ended with exit status: 3: no \u{1b}[31mroute"), "{failed}");
        let program = Hook::program(&["/no/such/program"], SOON).run().await.unwrap_err();
        assert!(program.contains("`/no/such/program` No such file"), "{program}");
    }

    #[tokio::test]
    async fn a_command_that_hangs_is_killed_with_all_that_it_started() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let command = format!("sh -c 'echo $$ > {}; exec sleep 600'; true", file.path().display());
        let begun = clock::now();
        let said = shell(&command, Duration::from_millis(500)).run().await.unwrap_err();
        assert!(said.contains("did not end within 500ms and was killed"), "{said}");
        assert!(clock::now() - begun < SOON);
        let pid: i32 = std::fs::read_to_string(file.path()).unwrap().trim().parse().unwrap();
        let gone = async {
            // What was killed still has to be reaped by whoever has it now.
            while alive(pid) {
                tokio::task::yield_now().await;
            }
        };
        tokio::time::timeout(SOON, gone).await.expect("the inner sleep is gone");
    }

    #[tokio::test]
    async fn a_command_that_leaves_something_running_has_ended_all_the_same() {
        let begun = clock::now();
        let said = shell("sleep 30 & echo done", SOON).run().await;
        assert_eq!(said.as_deref(), Ok("done\n"));
        assert!(clock::now() - begun < SOON);
    }

    fn alive(pid: i32) -> bool {
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        stat.rsplit_once(") ").is_some_and(|(_, rest)| !rest.starts_with(['Z', 'X']))
    }
}
