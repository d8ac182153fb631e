//! One fault from its beginning to its end: all is well, it happens, it is repaired, all is well.

use std::{
    sync::{Mutex, PoisonError},
    time::Duration,
};

use pgdetour::{
    EventKind, Mode, Router,
    config::{AliasKind, AliasName, Config},
    health::Bounds,
    observe::Events,
};
use tokio::task::JoinSet;

use super::{
    Trouble,
    ledger::Ledger,
    load::{Load, Notes, WriteTo},
    pair::Pair,
    plan::{Fault, Pace},
    record::{Fate, Record},
};

/// How much longer than its pings allow a recovery may take before it is given up.
const PATIENCE: Duration = Duration::from_secs(5);
/// How long servers that are to be broken may take to be well: one ping of a busy machine may come late.
const TO_BE_FIT: Duration = Duration::from_secs(10);
/// How long reads and writes may take to go well at the start.
const TO_BE_STEADY: Duration = Duration::from_secs(20);
/// So many reads in a row go well by then.
const STEADY_READS: usize = 20;
/// And so many writes.
const STEADY_WRITES: usize = 3;
/// How often somebody looks whether all is back.
const LOOK_AGAIN: Duration = Duration::from_millis(20);

/// The server that is broken now, if one is.
#[derive(Debug, Default)]
pub(super) struct Broken(Mutex<Option<Fault>>);

impl Broken {
    fn set(&self, fault: Option<Fault>) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = fault;
    }

    /// Which it is; from then on somebody else's concern.
    pub(super) fn take(&self) -> Option<Fault> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).take()
    }
}

/// Where a fault is played.
#[derive(Debug, Clone, Copy)]
pub(super) struct Stage<'a> {
    pub(super) pair: &'a Pair,
    pub(super) pace: Pace,
    pub(super) ledger: Option<&'a Ledger>,
    pub(super) broken: &'a Broken,
    /// Which fault of the drill this is.
    pub(super) number: usize,
    pub(super) fault: &'a Fault,
    /// What happens is noted here.
    pub(super) notes: &'a Notes,
}

impl Stage<'_> {
    /// Plays it. What goes wrong with it is a part of the record.
    pub(super) async fn play(&self) -> Result<Record, Trouble> {
        let (fault, notes) = (self.fault, self.notes);
        let router: Router = Router::start(self.pair.config_for(fault)?).await?;
        if let Some(why) = until_fit(&router).await {
            router.shutdown().await;
            return Err(Trouble::Environment(format!("nothing is broken while the servers are not well: {why}")));
        }
        let mut watching = JoinSet::new();
        watching.spawn(watch(router.events(), fault.alias.clone(), notes.clone()));
        let mut load = Load::new();
        load.read(router.alias(fault.read.as_str())?, self.pace.reads, notes);
        let writes = self.writes(&router)?;
        if let (Some(to), Some(rate)) = (&writes, self.pace.writes) {
            load.write(to.clone(), rate, notes);
        }
        if let Err(why) = self.until_steady(writes.is_some()).await {
            drop(load);
            router.shutdown().await;
            return Err(Trouble::Environment(why));
        }
        tokio::time::sleep(self.pace.before).await;
        self.break_and_repair(&router).await;
        let ended = load.stop().await;
        let ended = ended.and(self.read_ledger(writes.as_ref()).await);
        if let Err(why) = ended {
            notes.note(|record| record.problems.push(why));
        }
        drop(watching);
        router.shutdown().await;
        let took = notes.now();
        notes.note(|record| record.took = took);
        Ok(notes.take())
    }

    /// Waits until reads and writes go well, and forgets those before: what a start costs is not the fault's.
    async fn until_steady(&self, writes: bool) -> Result<(), String> {
        let steady = async {
            while !self.notes.note(|record| record.is_steady(STEADY_READS, if writes { STEADY_WRITES } else { 0 })) {
                tokio::time::sleep(LOOK_AGAIN).await;
            }
        };
        let steady = tokio::time::timeout(TO_BE_STEADY, steady).await;
        self.notes.note(|record| match steady {
            Ok(()) => {
                record.reads.clear();
                record.writes.clear();
                Ok(())
            }
            Err(_) => {
                let reasons = record.reasons(1).join("");
                Err(format!("nothing is broken while reads and writes do not go well: {reasons}"))
            }
        })
    }

    fn writes(&self, router: &Router) -> Result<Option<WriteTo>, Trouble> {
        let (Some(alias), Some(ledger)) = (&self.fault.write, self.ledger) else { return Ok(None) };
        let alias = router.alias(alias.as_str())?;
        Ok(Some(WriteTo { alias, ledger: ledger.clone(), fault: self.number }))
    }

    async fn break_and_repair(&self, router: &Router) {
        let (fault, notes) = (self.fault, self.notes);
        let problem = |why: String| notes.note(|record| record.problems.push(why));
        self.broken.set(Some(fault.clone()));
        let (now, vague) = (notes.now(), self.pair.is_vague(fault));
        notes.note(|record| (record.moments.fault, record.moments.vague) = (Some(now), vague));
        match self.pair.inject(fault).await {
            Ok(()) => tokio::time::sleep(self.pace.outage).await,
            // What was half done is repaired at once.
            Err(why) => problem(format!("it could not be broken: {why}")),
        }
        let now = notes.now();
        notes.note(|record| record.moments.repair = Some(now));
        if let Err(why) = self.pair.repair(fault).await {
            problem(format!("the repair failed: {why}"));
        }
        // A server of its own answers when its repair is over.
        let answers = if self.pair.is_own() && !self.pair.is_vague(fault) {
            Ok(())
        } else {
            self.pair.answers(&fault.alias, self.pace.patience).await
        };
        let now = notes.now();
        match answers {
            Ok(()) => {
                self.broken.set(None);
                notes.note(|record| record.moments.answers = Some(now));
            }
            Err(why) => return problem(why),
        }
        self.until_back(router).await;
        tokio::time::sleep(self.pace.after).await;
    }

    /// Waits until the router says that all is well again, and reads and writes say so too; or until that takes too long.
    async fn until_back(&self, router: &Router) {
        let (fault, notes) = (self.fault, self.notes);
        let back = async {
            while router.mode() != Mode::Normal || !notes.note(|record| record.is_home()) {
                tokio::time::sleep(LOOK_AGAIN).await;
            }
        };
        let patience = longest_recovery(&router.config(), &fault.alias) + PATIENCE;
        if tokio::time::timeout(patience, back).await.is_err() {
            let patience = humantime::format_duration(Duration::from_secs(patience.as_secs()));
            let why = unfit(router).unwrap_or_else(|| "reads or writes still fail or are away".to_owned());
            let why = format!("not all was back {patience} after {} answered again: {why}", fault.alias);
            notes.note(|record| record.problems.push(why));
        }
    }

    /// Makes the writes again of which nobody knows, as their caller would, and looks what is there.
    async fn read_ledger(&self, writes: Option<&WriteTo>) -> Result<(), String> {
        let Some(to) = writes else { return Ok(()) };
        let unknown = self.notes.note(|record| {
            let unknown = record.writes.iter().filter(|write| matches!(write.fate, Fate::Unknown(_)));
            unknown.map(|write| write.number).collect::<Vec<_>>()
        });
        for number in unknown {
            if let Fate::Undone(why) | Fate::Unknown(why) = to.once(number).await {
                return Err(format!("a write of which nobody knew could not be made again: {why}"));
            }
        }
        let rows = to.ledger.rows(&to.alias, self.number).await;
        let rows = rows.map_err(|why| format!("what became of the writes could not be read: {why}"))?;
        self.notes.note(|record| record.ledger = Some(rows));
        Ok(())
    }
}

/// Notes the outages as the router tells them.
async fn watch(mut events: Events, alias: AliasName, notes: Notes) {
    while let Some(event) = events.next().await {
        let now = notes.now();
        let ours = event.is_about(alias.as_str());
        notes.note(|record| match (&event.kind, event.alias) {
            (EventKind::OutageOpened { .. }, _) if ours && record.moments.fault.is_some() => {
                record.moments.outage.get_or_insert(now);
            }
            (EventKind::OutageOpened { .. }, Some(other)) => record.elsewhere.push(other),
            (EventKind::OutageClosed { .. }, _) if ours => record.moments.recovery = Some(now),
            _ => {}
        });
    }
}

/// Waits until all servers are well; after a while, why they are not.
async fn until_fit(router: &Router) -> Option<String> {
    let fit = async {
        while unfit(router).is_some() {
            tokio::time::sleep(LOOK_AGAIN).await;
        }
    };
    // An error says that time is over, which the look after it tells more of.
    let _ = tokio::time::timeout(TO_BE_FIT, fit).await;
    unfit(router)
}

/// Why these servers are in no state to be broken, if so.
fn unfit(router: &Router) -> Option<String> {
    let table = router.table();
    let unfit = |entry: &pgdetour::plan::Entry| {
        let name = &entry.known.name;
        match (&entry.known.outage, entry.known.facts, &entry.standing) {
            (Some((_, cause)), ..) => Some(format!("{name} is down: {cause}")),
            (None, None, _) => Some(format!("{name} has not answered: `pgdetour check --connect` says why")),
            (None, Some(_), pgdetour::plan::Standing::Sound) => None,
            (None, Some(_), standing) => Some(format!("{name} is not what it is declared as: {standing:?}")),
        }
    };
    table.entries().iter().find_map(unfit)
}

/// How long a router with these pings takes at worst to see that a server is back.
pub(super) fn longest_recovery(config: &Config, alias: &AliasName) -> Duration {
    match config.alias(alias.as_str()).map(|alias| &alias.kind) {
        Some(AliasKind::Server(server)) => Bounds::of(&server.pings).recovery,
        _ => Duration::ZERO,
    }
}
