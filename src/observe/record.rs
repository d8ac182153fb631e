//! How is it written down? Events, outages and spans as plain values that serde reads and writes. All text in them is data.

use serde::{Deserialize, Serialize};

use super::{
    event::{Event, EventKind},
    stamp::{Stamp, ms},
};
use crate::{
    health::{Cause, State, Tally},
    plan::Entry,
};

/// One event.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
#[non_exhaustive]
pub struct EventRecord {
    /// Its number: each is larger than the one before, within one process.
    pub number: u64,
    /// When it happened.
    pub at: Stamp,
    /// Its stable name: `outage_opened`, as the log has it.
    pub event: String,
    /// How loud it is in the log.
    pub level: Level,
    /// The alias of the server it is about.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub alias: Option<String>,
    /// `host:port/database` of that server.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub server: Option<String>,
    /// The same for people, in a few words.
    pub text: String,
    /// Why.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cause: Option<String>,
    /// The alias that takes the server's reads now.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub detour: Option<String>,
    /// From the first sign of it to the opening.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub detected_ms: Option<u64>,
    /// How long it has lasted.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub lasted_ms: Option<u64>,
    /// Reads that another server took since the outage opened.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub detoured: Option<u64>,
    /// Requests that no server took.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub refused: Option<u64>,
    /// Leases that were lost.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub failed: Option<u64>,
    /// For how long it is going to be so.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub lasting_ms: Option<u64>,
    /// Who has asked for it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub by: Option<String>,
    /// What it was.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub from: Option<String>,
    /// What it is.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub to: Option<String>,
}

/// How loud an event is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Level {
    /// All is well, or well again.
    #[default]
    Info,
    /// To be looked at.
    Warn,
    /// To be woken by.
    Error,
}

/// One outage, open or over.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct OutageRecord {
    /// What tells it from all others, in every process: opening, alias, host and process.
    pub id: String,
    /// The alias that declares the server.
    pub name: String,
    /// `host:port/database`.
    pub address: String,
    /// When it opened.
    pub opened: Stamp,
    /// From the first sign of it to the opening: the time to detect.
    pub detected_ms: u64,
    /// When it ended, or a reload has taken the server away. None: it is open.
    #[serde(default)]
    pub closed: Option<Stamp>,
    /// How long it lasted, or has lasted: the time to recover. By a clock that does not jump.
    pub lasted_ms: u64,
    /// Why it opened.
    pub cause: String,
    /// What pings said last.
    pub last_cause: String,
    /// The alias that took its reads when it opened. None: nobody.
    #[serde(default)]
    pub detour: Option<String>,
    /// Reads that another server took.
    pub detoured: u64,
    /// Requests that no server took.
    pub refused: u64,
    /// Leases that were lost.
    pub failed: u64,
}

/// How long a server was in one state.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct SpanRecord {
    /// The alias that declares the server.
    pub name: String,
    /// The state.
    pub state: SpanState,
    /// Since when.
    pub from: Stamp,
    /// Until when. None: it lasts.
    #[serde(default)]
    pub to: Option<Stamp>,
}

/// What a server is in, as a band on a page shows it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum SpanState {
    /// It answers.
    Up,
    /// Something was seen that a ping has yet to explain.
    Suspect,
    /// It answers, and its breaker is open.
    Behind,
    /// It answers, and somebody has had it drained.
    Drained,
    /// It is out.
    Down,
    /// It has answered again, not often enough yet.
    Recovering,
}

impl SpanState {
    /// The state of one server of the table.
    pub(crate) fn of(entry: &Entry) -> Self {
        match entry.known.belief.state() {
            State::Down => Self::Down,
            State::Recovering => Self::Recovering,
            State::Up | State::Suspect if entry.known.drained.is_some() => Self::Drained,
            State::Up | State::Suspect if entry.known.breaker.is_some() => Self::Behind,
            State::Suspect => Self::Suspect,
            State::Up => Self::Up,
        }
    }

    /// Whether an outage is open.
    pub(super) fn is_out(self) -> bool {
        matches!(self, Self::Down | Self::Recovering)
    }
}

impl OutageRecord {
    pub(crate) fn tell(&mut self, lasted_ms: u64, tally: Tally) {
        self.lasted_ms = lasted_ms;
        (self.detoured, self.refused, self.failed) = (tally.detoured, tally.refused, tally.failed);
    }
}

impl EventRecord {
    fn because(self, cause: &Cause) -> Self {
        Self { cause: Some(cause.to_string()), ..self }
    }

    fn counting(self, tally: Tally) -> Self {
        let Tally { detoured, refused, failed } = tally;
        Self { detoured: Some(detoured), refused: Some(refused), failed: Some(failed), ..self }
    }

    fn lasting(self, lasted: std::time::Duration) -> Self {
        Self { lasted_ms: Some(ms(lasted)), ..self }
    }

    fn turned(self, from: impl ToString, to: impl ToString) -> Self {
        Self { from: Some(from.to_string()), to: Some(to.to_string()), ..self }
    }

    fn asked_for(self, by: Option<&str>) -> Self {
        Self { by: by.map(str::to_owned), ..self }
    }

    fn detail(self, kind: &EventKind) -> Self {
        match kind {
            EventKind::OutageOpened { cause, detour, detected_in } => {
                let detour = detour.as_ref().map(ToString::to_string);
                Self { detour, detected_ms: Some(ms(*detected_in)), ..self.because(cause) }
            }
            EventKind::OutageOngoing { duration, tally, cause, .. } => {
                self.because(cause).counting(*tally).lasting(*duration)
            }
            EventKind::OutageClosed { duration, tally } => self.counting(*tally).lasting(*duration),
            EventKind::BreakerOpened { cause, detour } => {
                Self { detour: detour.as_ref().map(ToString::to_string), ..self.because(cause) }
            }
            EventKind::BreakerClosed { duration } => self.lasting(*duration),
            EventKind::Drained { lasting, by, detour } => {
                let detour = detour.as_ref().map(ToString::to_string);
                Self { detour, lasting_ms: Some(ms(*lasting)), ..self.asked_for(Some(by)) }
            }
            EventKind::Undrained { duration, by } => self.asked_for(by.as_deref()).lasting(*duration),
            EventKind::PingAsked { by } | EventKind::HoldEnded { by } => self.asked_for(Some(by)),
            EventKind::AdmissionStopped { cause }
            | EventKind::PingInconclusive { cause }
            | EventKind::HookFailed { cause, .. }
            | EventKind::HistoryStalled { cause, .. } => self.because(cause),
            EventKind::RoleChanged { from, to, .. } => self.turned(from, to),
            EventKind::ModeChanged { from, to } => self.turned(from, to),
            EventKind::StandingChanged { standing } => Self { to: Some(standing.word().to_owned()), ..self },
            EventKind::DetourNarrowed { .. }
            | EventKind::DetourWidened { .. }
            | EventKind::AdmissionResumed
            | EventKind::HistoryResumed
            | EventKind::HistoryLost { .. }
            | EventKind::CommitUnconfirmed => self,
        }
    }
}

impl From<&Event> for EventRecord {
    fn from(event: &Event) -> Self {
        let record = Self {
            number: event.number,
            at: event.at,
            event: event.kind.name().to_owned(),
            level: event.kind.level(),
            alias: event.alias.as_ref().map(ToString::to_string),
            server: event.address.as_deref().map(str::to_owned),
            text: event.kind.to_string(),
            ..Self::default()
        };
        record.detail(&event.kind)
    }
}
