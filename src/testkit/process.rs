//! The processes of one server: which they are, and signals for them.

#[cfg(target_os = "linux")]
use std::fs;
use std::process::Command;

use rustix::process::{Pid, Signal, kill_process};

/// A process as it was seen: its number alone may be somebody else's by now, number and start time together may not.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Process {
    pid: i32,
    started: u64,
}

/// What the system tells of a process.
struct Status {
    state: u8,
    parent: i32,
    started: u64,
}

impl Process {
    /// Sends it a signal, unless it is gone.
    pub(super) fn signal(self, signal: Signal) {
        if self.is_alive() {
            signal_pid(self.pid, signal);
        }
    }

    /// Whether it still runs; one that only waits to be reaped does not.
    pub(super) fn is_alive(self) -> bool {
        status(self.pid).is_some_and(|status| status.started == self.started && !matches!(status.state, b'Z' | b'X'))
    }

    /// Whether a SIGSTOP has reached it.
    pub(super) fn is_stopped(self) -> bool {
        status(self.pid).is_some_and(|status| status.state == b'T')
    }
}

/// The process of that number as it is now.
pub(super) fn seen(pid: i32) -> Option<Process> {
    status(pid).map(|status| Process { pid, started: status.started })
}

/// Signals a process that cannot have been reaped, because it is our own child.
pub(super) fn signal_pid(pid: i32, signal: Signal) {
    if let Some(pid) = Pid::from_raw(pid) {
        // The only error possible is that it is gone, which is what a signal may find.
        let _ = kill_process(pid, signal);
    }
}

/// The children of a process.
pub(super) fn children(parent: i32) -> Vec<Process> {
    all_pids()
        .into_iter()
        .filter_map(|pid| {
            let status = status(pid)?;
            (status.parent == parent && !matches!(status.state, b'Z' | b'X'))
                .then_some(Process { pid, started: status.started })
        })
        .collect()
}

#[cfg(target_os = "linux")]
fn all_pids() -> Vec<i32> {
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok()).collect()
}

#[cfg(target_os = "linux")]
fn status(pid: i32) -> Option<Status> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name, in parentheses, may hold anything: proc(5) counts the state as field 3, the parent as 4, the start as 22.
    let fields: Vec<&str> = stat.get(stat.rfind(')')? + 1..)?.split_whitespace().collect();
    Some(Status {
        state: *fields.first()?.as_bytes().first()?,
        parent: fields.get(1)?.parse().ok()?,
        started: fields.get(19)?.parse().ok()?,
    })
}

#[cfg(not(target_os = "linux"))]
fn all_pids() -> Vec<i32> {
    let output = Command::new("ps").args(["-axo", "pid="]).output();
    let text = output.map(|output| String::from_utf8_lossy(&output.stdout).into_owned()).unwrap_or_default();
    text.split_whitespace().filter_map(|pid| pid.parse().ok()).collect()
}

/// Elsewhere `ps` tells, without a start time that could be relied on.
#[cfg(not(target_os = "linux"))]
fn status(pid: i32) -> Option<Status> {
    let output = Command::new("ps").args(["-o", "stat=,ppid=", "-p", &pid.to_string()]).output().ok()?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let mut words = text.split_whitespace();
    Some(Status { state: *words.next()?.as_bytes().first()?, parent: words.next()?.parse().ok()?, started: 0 })
}

/// Frees the System V shared memory of a server that was killed; it stays behind otherwise, and a system has 4096 of them.
pub(super) fn free_shared_memory(id: &str) {
    let _ = Command::new("ipcrm").args(["-m", id]).stderr(std::process::Stdio::null()).status();
}
