//! What happened in the drill of one fault, and what it comes to. Pure: moments are given, as time since the first read.

use std::{collections::BTreeMap, time::Duration};

use pgdetour::config::AliasName;

/// How a read is made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Way {
    /// By `Alias::read`.
    Read,
    /// By `Alias::get` and a query, and once more if either failed.
    Get,
}

/// One read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Read {
    pub(super) way: Way,
    pub(super) ended: Duration,
    /// Who answered; else why nobody did.
    pub(super) served: Result<Served, String>,
    /// Whether the caller tried a second time.
    pub(super) retried: bool,
}

/// Who answered a read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Served {
    pub(super) by: AliasName,
    /// Whether that server stood in for the alias's own.
    pub(super) detour: bool,
}

/// One write.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Write {
    /// Its number: what the ledger has a row of.
    pub(super) number: u32,
    pub(super) ended: Duration,
    pub(super) fate: Fate,
}

/// What the router said of a write.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Fate {
    /// It happened, by the word of this server.
    Acknowledged(AliasName),
    /// It did not happen.
    Undone(String),
    /// Nobody knows.
    Unknown(String),
}

/// The moments of a fault.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Moments {
    /// When it began to happen.
    pub(super) fault: Option<Duration>,
    /// Whether `fault` is when a command was started, which does it at some later moment.
    pub(super) vague: bool,
    /// When the outage of its server was opened.
    pub(super) outage: Option<Duration>,
    /// When it was closed.
    pub(super) recovery: Option<Duration>,
    /// When the repair began.
    pub(super) repair: Option<Duration>,
    /// When the server answered again.
    pub(super) answers: Option<Duration>,
}

/// Everything that happened.
#[derive(Debug, Default)]
pub(super) struct Record {
    pub(super) reads: Vec<Read>,
    pub(super) writes: Vec<Write>,
    pub(super) moments: Moments,
    /// Outages of other servers than the one that was broken.
    pub(super) elsewhere: Vec<AliasName>,
    /// How many rows the ledger has of each write.
    pub(super) ledger: Option<BTreeMap<u32, u64>>,
    /// What went wrong with the drill itself: a command, a repair, a server that stayed away.
    pub(super) problems: Vec<String>,
    pub(super) took: Duration,
}

/// What it comes to.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Figures {
    pub(super) reads: usize,
    pub(super) failed: usize,
    pub(super) retried: usize,
    pub(super) detoured: usize,
    pub(super) gap: Duration,
    pub(super) detection: Option<Duration>,
    pub(super) home: Option<Duration>,
    /// Whether the last reads and writes went where they belong.
    pub(super) is_home: bool,
    pub(super) writes: Writes,
}

/// What became of the writes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Writes {
    pub(super) made: usize,
    pub(super) acknowledged: usize,
    /// Refused or rolled back, and said so.
    pub(super) undone: usize,
    pub(super) unknown: usize,
    /// Acknowledged, and not in the ledger.
    pub(super) lost: usize,
    /// More than once in the ledger.
    pub(super) doubled: usize,
    /// Said to be undone, and in the ledger.
    pub(super) denied: usize,
}

impl Record {
    /// What it comes to, if the server of `broken` was the one that broke.
    pub(super) fn figures(&self, broken: &AliasName) -> Figures {
        let count = |wanted: &dyn Fn(&Read) -> bool| self.reads.iter().filter(|read| wanted(read)).count();
        let home = self.home();
        Figures {
            reads: self.reads.len(),
            failed: count(&|read| read.served.is_err()),
            retried: count(&|read| read.retried),
            detoured: count(&|read| read.served.as_ref().is_ok_and(|served| served.detour)),
            gap: self.longest_gap(),
            detection: self.detection(broken),
            home: home.unwrap_or_default(),
            is_home: home.is_some(),
            writes: self.written(),
        }
    }

    /// Whether the last reads and writes went where they belong.
    pub(super) fn is_home(&self) -> bool {
        self.home().is_some()
    }

    /// Whether the last so many reads and writes went where they belong.
    pub(super) fn is_steady(&self, reads: usize, writes: usize) -> bool {
        let last = |all: usize, count: usize| all.checked_sub(count);
        let (Some(from), Some(since)) = (last(self.reads.len(), reads), last(self.writes.len(), writes)) else {
            return false;
        };
        let acknowledged = |write: &Write| matches!(write.fate, Fate::Acknowledged(_));
        self.reads[from..].iter().all(is_home) && self.writes[since..].iter().all(acknowledged)
    }

    /// The longest time without an answered read.
    fn longest_gap(&self) -> Duration {
        let answered = self.reads.iter().filter(|read| read.served.is_ok());
        let mut ends: Vec<Duration> = answered.map(|read| read.ended).collect();
        ends.sort_unstable();
        ends.windows(2).map(|pair| pair[1] - pair[0]).max().unwrap_or_default()
    }

    /// From the fault to the outage. A command breaks the server at some moment between its start and its end: not before the
    /// last answer that the server gave, so the time since then is how long detection took at most.
    fn detection(&self, broken: &AliasName) -> Option<Duration> {
        let (fault, outage) = (self.moments.fault?, self.moments.outage?);
        let from = if self.moments.vague {
            let answers = self.answers_of(broken).filter(|at| *at <= outage);
            answers.max().map_or(fault, |last| last.max(fault))
        } else {
            fault
        };
        Some(outage.saturating_sub(from))
    }

    fn answers_of<'a>(&'a self, server: &'a AliasName) -> impl Iterator<Item = Duration> + 'a {
        let read =
            move |read: &'a Read| read.served.as_ref().is_ok_and(|served| served.by == *server).then_some(read.ended);
        let wrote = move |write: &'a Write| {
            matches!(&write.fate, Fate::Acknowledged(by) if by == server).then_some(write.ended)
        };
        self.reads.iter().filter_map(read).chain(self.writes.iter().filter_map(wrote))
    }

    /// From when the server answered again to the first read or write after the last that was away or failed. `None` if there is none
    /// such; `Some(None)` if nothing was ever away.
    fn home(&self) -> Option<Option<Duration>> {
        let reads = self.reads.iter().map(|read| (read.ended, is_home(read)));
        let first = self.comes_home(reads)?;
        let writes = self.writes.iter().map(|write| (write.ended, matches!(write.fate, Fate::Acknowledged(_))));
        let second = if self.writes.is_empty() { None } else { self.comes_home(writes)? };
        let latest = first.max(second);
        Some(latest.map(|at| at.saturating_sub(self.moments.answers.or(self.moments.fault).unwrap_or(at))))
    }

    /// The first good one after the last that was not; the inner `None` if all were good.
    fn comes_home(&self, calls: impl Iterator<Item = (Duration, bool)> + Clone) -> Option<Option<Duration>> {
        let Some(last_away) = calls.clone().filter(|(_, good)| !good).map(|(at, _)| at).max() else {
            return Some(None);
        };
        calls.filter(|(at, good)| *good && *at > last_away).map(|(at, _)| at).min().map(Some)
    }

    fn written(&self) -> Writes {
        let mut sum = Writes { made: self.writes.len(), ..Writes::default() };
        for write in &self.writes {
            let rows = self.ledger.as_ref().map(|ledger| ledger.get(&write.number).copied().unwrap_or(0));
            match &write.fate {
                Fate::Acknowledged(_) => sum.acknowledged += 1,
                Fate::Undone(_) => sum.undone += 1,
                Fate::Unknown(_) => sum.unknown += 1,
            }
            match (&write.fate, rows) {
                (_, Some(2..)) => sum.doubled += 1,
                (Fate::Acknowledged(_), Some(0)) => sum.lost += 1,
                (Fate::Undone(_), Some(1)) => sum.denied += 1,
                (Fate::Acknowledged(_) | Fate::Undone(_) | Fate::Unknown(_), _) => {}
            }
        }
        sum
    }

    /// Why reads failed, and why nobody knows of writes: a few different ones.
    pub(super) fn reasons(&self, most: usize) -> Vec<&str> {
        let reads = self.reads.iter().filter_map(|read| read.served.as_ref().err());
        let writes = self.writes.iter().filter_map(|write| match &write.fate {
            Fate::Undone(why) | Fate::Unknown(why) => Some(why),
            Fate::Acknowledged(_) => None,
        });
        // The same but for its times and ports is the same.
        let kind = |reason: &str| reason.replace(|glyph: char| glyph.is_ascii_digit() || glyph == '.', "");
        let mut reasons: Vec<(String, &str)> = Vec::new();
        for reason in reads.chain(writes) {
            let kind = kind(reason);
            if reasons.len() < most && reasons.iter().all(|(known, _)| *known != kind) {
                reasons.push((kind, reason));
            }
        }
        reasons.into_iter().map(|(_, reason)| reason).collect()
    }
}

fn is_home(read: &Read) -> bool {
    read.served.as_ref().is_ok_and(|served| !served.detour)
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    fn alias(name: &str) -> AliasName {
        AliasName::new(name).unwrap()
    }

    fn read(at: u32, by: &str) -> Read {
        let served = if by.is_empty() {
            Err("refused".to_owned())
        } else {
            Ok(Served { by: alias(by), detour: by == "primary" })
        };
        Read { way: Way::Read, ended: at * MS, served, retried: false }
    }

    fn write(number: u32, at: u32, fate: Fate) -> Write {
        Write { number, ended: at * MS, fate }
    }

    /// A replica that breaks at 6 ms and answers at 40 ms.
    fn record(reads: &[(u32, &str)]) -> Record {
        let moments = Moments {
            fault: Some(6 * MS),
            outage: Some(19 * MS),
            repair: Some(36 * MS),
            answers: Some(40 * MS),
            ..Moments::default()
        };
        Record { reads: reads.iter().map(|(at, by)| read(*at, by)).collect(), moments, ..Record::default() }
    }

    const WELL: [(u32, &str); 5] = [(0, "replica"), (10, "replica"), (30, "primary"), (45, "primary"), (60, "replica")];

    #[test]
    fn a_drill_that_ends_well_is_summed_up() {
        let figures = record(&WELL).figures(&alias("replica"));
        assert_eq!((figures.reads, figures.failed, figures.detoured, figures.gap), (5, 0, 2, 20 * MS));
        assert_eq!((figures.detection, figures.home, figures.is_home), (Some(13 * MS), Some(20 * MS), true));
    }

    #[test]
    fn what_a_command_breaks_is_broken_no_earlier_than_its_last_answer() {
        let mut record = record(&WELL);
        record.moments.vague = true;
        assert_eq!(record.figures(&alias("replica")).detection, Some(9 * MS));
        assert_eq!(record.figures(&alias("other")).detection, Some(13 * MS));
    }

    #[test]
    fn reads_that_stay_away_and_writes_that_go_on_failing_are_not_home() {
        assert!(!record(&WELL[..4]).figures(&alias("replica")).is_home);
        let mut record = record(&WELL);
        record.writes =
            vec![write(0, 5, Fate::Acknowledged(alias("primary"))), write(1, 50, Fate::Undone(String::new()))];
        assert!(!record.figures(&alias("replica")).is_home);
        record.writes.push(write(2, 70, Fate::Acknowledged(alias("primary"))));
        assert_eq!(record.figures(&alias("replica")).home, Some(30 * MS));
    }

    #[test]
    fn reasons_that_differ_in_their_numbers_are_told_once() {
        let mut record = record(&[]);
        let failed = |why: &str| Read { served: Err(why.to_owned()), ..read(1, "") };
        record.reads = vec![failed("down for 1.2s"), failed("down for 47s"), failed("late")];
        assert_eq!(record.reasons(5), ["down for 1.2s", "late"]);
        assert_eq!(record.reasons(1), ["down for 1.2s"]);
    }

    #[test]
    fn it_is_steady_when_the_last_calls_went_well_however_the_first_did() {
        assert!(record(&WELL).is_steady(1, 0) && !record(&WELL).is_steady(2, 0));
        assert!(!record(&WELL[..2]).is_steady(3, 0) && !record(&WELL).is_steady(1, 1));
    }

    #[test]
    fn where_nothing_was_ever_away_there_is_no_return() {
        let figures = record(&WELL[..2]).figures(&alias("replica"));
        assert_eq!((figures.home, figures.is_home), (None, true));
    }

    #[test]
    fn the_ledger_tells_what_was_lost_doubled_and_denied() {
        let mut record = record(&WELL);
        let acknowledged = || Fate::Acknowledged(alias("primary"));
        let (undone, unknown) = (|| Fate::Undone(String::new()), || Fate::Unknown(String::new()));
        let fates = [acknowledged(), acknowledged(), acknowledged(), undone(), undone(), unknown(), unknown()];
        record.writes = fates.into_iter().zip(0..).map(|(fate, number)| write(number, number, fate)).collect();
        assert_eq!(record.figures(&alias("replica")).writes.lost, 0, "nothing is said where the ledger was not read");
        record.ledger = Some(BTreeMap::from([(0, 1), (1, 2), (3, 1), (5, 1)]));
        let writes = record.figures(&alias("replica")).writes;
        let expected = Writes { made: 7, acknowledged: 3, undone: 2, unknown: 2, lost: 1, doubled: 1, denied: 1 };
        assert_eq!(writes, expected);
    }
}
