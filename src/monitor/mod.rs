//! How are beliefs kept up to date? A thread of its own with a runtime of its own, so that a busy application's late timers
//! never look like a slow server.

mod act;
mod agenda;
mod due;
mod dues;
mod handover;
mod hooks;
mod ping;
mod press;
mod probe;
mod service;
mod services;
mod shared;
mod state;
#[cfg(test)]
mod tests;
mod watch;
mod watched;
mod worker;

use std::{io, sync::Arc, thread, time::Duration};

use tokio::{
    runtime::{self, Runtime},
    sync::{mpsc, oneshot},
};

pub use self::state::ServiceState;
use crate::config::AliasName;

pub(crate) use self::{
    act::{Act, Request},
    due::Due,
    handover::Past,
    ping::Ping,
    probe::Probe,
    service::Watched as WatchedService,
    services::{Draft, Misfit, Services},
    shared::Shared,
    worker::{Command, Worker},
};

/// The running monitor. Dropping it ends its thread, its pings and its connections.
#[derive(Debug)]
pub(crate) struct Monitor {
    commands: mpsc::UnboundedSender<Command>,
}

impl Monitor {
    /// Starts the thread. `build` makes the worker inside it; `done` is told when everything has ended.
    pub(crate) fn start<P: Probe>(
        build: impl FnOnce(mpsc::UnboundedReceiver<Command>) -> Worker<P> + Send + 'static,
    ) -> io::Result<(Self, oneshot::Receiver<()>)> {
        Self::start_on(thread::Builder::new(), build)
    }

    fn start_on<P: Probe>(
        thread: thread::Builder,
        build: impl FnOnce(mpsc::UnboundedReceiver<Command>) -> Worker<P> + Send + 'static,
    ) -> io::Result<(Self, oneshot::Receiver<()>)> {
        let (commands, orders) = mpsc::unbounded_channel();
        let (done, ended) = oneshot::channel();
        // The thread first: a runtime panics when it is dropped inside another, as it would be here without a thread.
        let (hand_over, runtime) = std::sync::mpsc::channel::<Runtime>();
        thread.name("pgdetour-monitor".to_owned()).spawn(move || {
            let _alarm = Alarm;
            // An error says that there is none: then nobody waits for this thread.
            let Ok(runtime) = runtime.recv() else { return };
            runtime.block_on(async { build(orders).run().await });
            // A name lookup that hangs must not hold up the end of the program.
            runtime.shutdown_timeout(Duration::from_millis(100));
            let _ = done.send(());
        })?;
        // The thread waits for it, so it is received.
        let _ = hand_over.send(runtime::Builder::new_current_thread().enable_all().build()?);
        Ok((Self { commands }, ended))
    }

    /// The same in the runtime this is called in, for a simulation in virtual time.
    #[cfg(feature = "testkit")]
    pub(crate) fn start_here<P: Probe>(
        build: impl FnOnce(mpsc::UnboundedReceiver<Command>) -> Worker<P>,
    ) -> (Self, oneshot::Receiver<()>) {
        let (commands, orders) = mpsc::unbounded_channel();
        let (done, ended) = oneshot::channel();
        let worker = build(orders);
        tokio::spawn(async move {
            worker.run().await;
            let _ = done.send(());
        });
        (Self { commands }, ended)
    }

    /// Waits until every server has been pinged once.
    pub(crate) async fn settled(&self) {
        self.ask(Command::Settle).await;
    }

    /// Sends the pings that are due and waits until they have ended.
    pub(crate) async fn run(&self) {
        self.ask(Command::Run).await;
    }

    /// The same for servers that are out alone.
    pub(crate) async fn recover(&self) {
        self.ask(Command::Recover).await;
    }

    /// What is known now, for the monitor that will take over.
    pub(crate) async fn past(&self) -> Past {
        self.ask(Command::Hand).await
    }

    /// Ends this one; from then on the other tells what there is to tell. That comes to pass, and is answered by the other one, also if
    /// nobody waits for it.
    pub(crate) fn hand_over_to(&self, other: &Self) -> oneshot::Receiver<()> {
        let ((hand, handed), (done, led)) = (oneshot::channel(), oneshot::channel());
        // Errors say that they have ended.
        let _ = self.commands.send(Command::HandOver(hand));
        let _ = other.commands.send(Command::Lead(handed, done));
        led
    }

    /// Has it do what somebody asks for; whether there was anything to do. `None`: it has ended.
    pub(crate) async fn act(&self, servers: Vec<AliasName>, act: Act, by: Arc<str>) -> Option<bool> {
        let (done, answer) = oneshot::channel();
        let _ = self.commands.send(Command::Act(Request { servers, act, by, done }));
        answer.await.ok()
    }

    /// Ends the thread, its pings and its connections, without waiting for that.
    pub(crate) fn stop(&self) {
        // An error says that it has ended.
        let _ = self.commands.send(Command::Stop);
    }

    /// A worker that has ended answers nothing, and there is nothing to wait for.
    async fn ask<T: Default>(&self, command: fn(oneshot::Sender<T>) -> Command) -> T {
        let (done, answer) = oneshot::channel();
        let _ = self.commands.send(command(done));
        answer.await.unwrap_or_default()
    }
}

/// Speaks up if the monitor's thread panics: from then on nothing would be believed anew, and nobody would know.
struct Alarm;

impl Drop for Alarm {
    fn drop(&mut self) {
        if thread::panicking() {
            tracing::error!(target: "pgdetour", event = "monitor_failed", "the monitor has panicked: restart this process");
        }
    }
}
