//! The processes of one server, from the postmaster's start to its end.

use std::fs::{self, File};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

use rustix::process::Signal;

use super::super::TestkitError;
use super::super::process::{self, Process};
use super::Stop;

/// How many milliseconds an immediate shutdown may take before a server that is being dropped is killed.
const PATIENCE_MS: usize = 1_000;

/// How often to look whether a stopped process has noticed; it does within microseconds, unless the machine is very busy.
const LOOKS_FOR_STOP: usize = 10_000;

/// A postmaster and its children.
#[derive(Debug, Default)]
pub(super) struct Postmaster(Mutex<Running>);

#[derive(Debug, Default)]
struct Running {
    /// Not reaped as long as it is here, so that its number cannot be anybody else's.
    child: Option<Child>,
    /// Processes of a postmaster that was killed, which may still be there.
    left: Vec<Process>,
}

impl Running {
    /// The postmaster's number while it runs.
    fn pid(&mut self) -> Option<i32> {
        if let Some(child) = &mut self.child
            && !matches!(child.try_wait(), Ok(None))
        {
            self.child = None;
        }
        self.child.as_ref().and_then(|child| child.id().try_into().ok())
    }

    fn must_run(&mut self) -> Result<i32, TestkitError> {
        self.pid().ok_or_else(|| TestkitError::new("does not run"))
    }

    /// Remembers the children before their postmaster gets a signal that it may not survive.
    fn remember(&mut self, pid: i32) {
        self.left.extend(process::children(pid));
    }

    /// Stops the postmaster for the moment that it takes to kill it, and remembers its children. A child forked meanwhile would be left behind, with
    /// the listening socket and the shared memory.
    fn hold(&mut self, pid: i32) {
        process::signal_pid(pid, Signal::STOP);
        for _ in 0..LOOKS_FOR_STOP {
            if process::seen(pid).is_none_or(Process::is_stopped) {
                break;
            }
            thread::yield_now();
        }
        self.remember(pid);
    }

    fn signal_left(&self, signal: Signal) {
        self.left.iter().for_each(|process| process.signal(signal));
    }

    fn is_gone(&mut self) -> bool {
        self.left.retain(|process| process.is_alive());
        self.pid().is_none() && self.left.is_empty()
    }

    /// Kills all, the children first: those that see the postmaster die tell their clients so (57P01), which no crash of a machine does.
    fn kill(&mut self, pid: i32) {
        self.hold(pid);
        self.signal_left(Signal::KILL);
        process::signal_pid(pid, Signal::KILL);
    }
}

impl Postmaster {
    fn lock(&self) -> MutexGuard<'_, Running> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Starts it in a process group of its own, where a Ctrl-C at the terminal does not reach it.
    pub(super) fn start(&self, command: &mut Command, log: &Path) -> Result<(), TestkitError> {
        let mut running = self.lock();
        let log =
            File::options().create(true).append(true).open(log).map_err(TestkitError::while_("opening its log"))?;
        let errors = log.try_clone().map_err(TestkitError::while_("opening its log"))?;
        command.stdin(Stdio::null()).stdout(log).stderr(errors).process_group(0);
        running.child = Some(command.spawn().map_err(TestkitError::while_("starting `postgres`"))?);
        Ok(())
    }

    pub(super) fn pid(&self) -> Option<u32> {
        self.lock().pid().and_then(|pid| pid.try_into().ok())
    }

    /// Kills what was left of a postmaster that was killed alone; [`is_gone`](Self::is_gone) tells when they are.
    pub(super) fn clear(&self) -> Result<(), TestkitError> {
        let mut running = self.lock();
        if running.pid().is_some() {
            return Err(TestkitError::new("it runs already"));
        }
        running.signal_left(Signal::KILL);
        Ok(())
    }

    pub(super) fn is_gone(&self) -> bool {
        self.lock().is_gone()
    }

    pub(super) fn ask(&self, how: Stop) -> Result<(), TestkitError> {
        let pid = self.lock().must_run()?;
        let signal = match how {
            Stop::Smart => Signal::TERM,
            Stop::Fast => Signal::INT,
            Stop::Immediate => Signal::QUIT,
        };
        process::signal_pid(pid, signal);
        Ok(())
    }

    pub(super) fn kill(&self) -> Result<(), TestkitError> {
        let mut running = self.lock();
        let pid = running.must_run()?;
        running.kill(pid);
        Ok(())
    }

    /// Kills the postmaster and reaps it.
    pub(super) fn kill_alone(&self) -> Result<(), TestkitError> {
        let mut running = self.lock();
        let pid = running.must_run()?;
        running.hold(pid);
        process::signal_pid(pid, Signal::KILL);
        if let Some(mut child) = running.child.take() {
            child.wait().map_err(TestkitError::while_("waiting for its end"))?;
        }
        Ok(())
    }

    pub(super) fn kill_child(&self, pid: u32) -> Result<(), TestkitError> {
        let postmaster = self.lock().must_run()?;
        let child = i32::try_from(pid).ok().and_then(process::seen);
        match child.filter(|child| process::children(postmaster).contains(child)) {
            Some(child) => child.signal(Signal::KILL),
            None => return Err(TestkitError::new(format!("its process {pid} is gone"))),
        }
        Ok(())
    }

    pub(super) fn freeze_alone(&self) -> Result<(), TestkitError> {
        process::signal_pid(self.lock().must_run()?, Signal::STOP);
        Ok(())
    }

    /// Freezes the children; whether any of them, or the postmaster, has yet to notice.
    pub(super) fn freeze_children(&self) -> bool {
        let Some(pid) = self.lock().pid() else { return false };
        let moving: Vec<_> = process::children(pid).into_iter().filter(|child| !child.is_stopped()).collect();
        moving.iter().for_each(|child| child.signal(Signal::STOP));
        !moving.is_empty() || process::seen(pid).is_some_and(|postmaster| !postmaster.is_stopped())
    }

    pub(super) fn thaw(&self) -> Result<(), TestkitError> {
        let pid = self.lock().must_run()?;
        process::children(pid).iter().for_each(|child| child.signal(Signal::CONT));
        process::signal_pid(pid, Signal::CONT);
        Ok(())
    }

    /// Asks for an immediate shutdown, which leaves no shared memory behind as a kill does; the frozen are thawed for it.
    pub(super) fn ask_to_end(&self) {
        let mut running = self.lock();
        if let Some(pid) = running.pid() {
            running.remember(pid);
            process::signal_pid(pid, Signal::QUIT);
            process::signal_pid(pid, Signal::CONT);
            running.signal_left(Signal::CONT);
        }
    }

    /// Ends it in any case, and waits. Blocks, for some 10 ms as a rule.
    pub(super) fn end(&self, data: &Path) {
        self.ask_to_end();
        let mut running = self.lock();
        if running.child.is_none() {
            running.signal_left(Signal::KILL);
        }
        for _ in 0..PATIENCE_MS {
            if running.is_gone() {
                break;
            }
            thread::sleep(Duration::from_millis(1));
        }
        if let Some(pid) = running.pid() {
            running.kill(pid);
        }
        running.signal_left(Signal::KILL);
        if let Some(mut child) = running.child.take() {
            let _ = child.wait();
        }
        free_what_a_kill_left(data);
    }
}

/// The seventh line of a pid file that outlived its postmaster names a segment of shared memory: its key and its number.
fn free_what_a_kill_left(data: &Path) {
    let text = fs::read_to_string(data.join("postmaster.pid")).unwrap_or_default();
    if let Some(id) = text.lines().nth(6).and_then(|line| line.split_whitespace().nth(1)) {
        process::free_shared_memory(id);
    }
}
