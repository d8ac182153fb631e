//! The application of a drill: reads and writes at a steady rate, and writes down what it saw.

use std::{
    error::Error,
    future::Future,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use pgdetour::{Alias, config::AliasName, health::Cause, policy::Outcome};
use tokio::{sync::watch, task::JoinSet, time::timeout};

use super::{
    ledger::Ledger,
    record::{Fate, Read, Record, Served, Way, Write},
};
use crate::clock;

const QUERY: &str = "SELECT 1";
/// How long calls that are still under way at the end may take to end.
const LAST_CALLS: Duration = Duration::from_secs(30);

/// What happened so far, written by many.
#[derive(Debug, Clone)]
pub(super) struct Notes {
    start: Instant,
    record: Arc<Mutex<Record>>,
}

impl Notes {
    pub(super) fn new() -> Self {
        Self { start: clock::now(), record: Arc::default() }
    }

    /// How long since the first read.
    pub(super) fn now(&self) -> Duration {
        clock::now().saturating_duration_since(self.start)
    }

    pub(super) fn note<T>(&self, write: impl FnOnce(&mut Record) -> T) -> T {
        write(&mut self.record.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// All of it; what comes later goes nowhere.
    pub(super) fn take(&self) -> Record {
        self.note(std::mem::take)
    }
}

/// Readers and writers, until they are stopped or dropped.
#[derive(Debug)]
pub(super) struct Load {
    tasks: JoinSet<()>,
    stop: watch::Sender<bool>,
}

/// Where writes go.
#[derive(Debug, Clone)]
pub(super) struct WriteTo {
    pub(super) alias: Alias,
    pub(super) ledger: Ledger,
    /// Which fault this is.
    pub(super) fault: usize,
}

impl Load {
    /// Nobody yet.
    pub(super) fn new() -> Self {
        Self { tasks: JoinSet::new(), stop: watch::Sender::new(false) }
    }

    /// Starts to read.
    pub(super) fn read(&mut self, alias: Alias, rate: u32, notes: &Notes) {
        let notes = notes.clone();
        self.tasks.spawn(steadily(rate, self.stop.subscribe(), move |number| {
            let (alias, notes) = (alias.clone(), notes.clone());
            async move {
                let way = if number % 2 == 0 { Way::Read } else { Way::Get };
                let (served, retried) = match way {
                    Way::Read => (by_read(&alias).await.map_err(|error| told(&error)), false),
                    Way::Get => match by_get(&alias).await {
                        Ok(served) => (Ok(served), false),
                        Err(_) => (by_get(&alias).await.map_err(|error| told(&*error)), true),
                    },
                };
                let ended = notes.now();
                notes.note(|record| record.reads.push(Read { way, ended, served, retried }));
            }
        }));
    }

    /// Starts to write.
    pub(super) fn write(&mut self, to: WriteTo, rate: u32, notes: &Notes) {
        let notes = notes.clone();
        self.tasks.spawn(steadily(rate, self.stop.subscribe(), move |number| {
            let (to, notes) = (to.clone(), notes.clone());
            async move {
                let fate = to.once(number).await;
                let ended = notes.now();
                notes.note(|record| record.writes.push(Write { number, ended, fate }));
            }
        }));
    }

    /// Starts no more calls, and waits for those under way. What does not end is given up: nobody knows of it.
    pub(super) async fn stop(mut self) -> Result<(), String> {
        self.stop.send_replace(true);
        let ended = async { while self.tasks.join_next().await.is_some() {} };
        timeout(LAST_CALLS, ended).await.map_err(|_| {
            format!("calls were still under way {} after the last began", humantime::format_duration(LAST_CALLS))
        })
    }
}

impl WriteTo {
    /// Makes a write. Once, however often it is asked for.
    pub(super) async fn once(&self, number: u32) -> Fate {
        match self.ledger.write(&self.alias, self.fault, number).await {
            Ok(server) => match AliasName::new(&server) {
                Ok(server) => Fate::Acknowledged(server),
                Err(error) => Fate::Unknown(error.to_string()),
            },
            Err(error) => match error.outcome() {
                Outcome::NotSent | Outcome::RolledBack => Fate::Undone(told(&error)),
                Outcome::Unknown => Fate::Unknown(told(&error)),
            },
        }
    }
}

/// Begins a call at each tick, whether or not those before have ended: users do not wait for each other either.
async fn steadily<F>(rate: u32, mut stop: watch::Receiver<bool>, call: impl Fn(u32) -> F)
where
    F: Future<Output = ()> + Send + 'static,
{
    let mut ticks = tokio::time::interval(Duration::from_secs(1) / rate);
    let mut calls = JoinSet::new();
    for number in 0.. {
        tokio::select! {
            _ = ticks.tick() => {}
            _ = stop.wait_for(|stop| *stop) => break,
        }
        calls.spawn(call(number));
        while calls.try_join_next().is_some() {}
    }
    while calls.join_next().await.is_some() {}
}

async fn by_read(alias: &Alias) -> Result<Served, pgdetour::Error> {
    alias
        .read(|lease| async move {
            lease.query_one(QUERY, &[]).await?;
            Ok::<_, tokio_postgres::Error>(Served { by: lease.server().clone(), detour: lease.is_detour() })
        })
        .await
}

async fn by_get(alias: &Alias) -> Result<Served, Box<dyn Error + Send + Sync>> {
    let lease = alias.get().await?;
    lease.query_one(QUERY, &[]).await?;
    Ok(Served { by: lease.server().clone(), detour: lease.is_detour() })
}

fn told(error: &(dyn Error + 'static)) -> String {
    Cause::of(error).to_string()
}
