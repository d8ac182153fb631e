//! What one monitor hands to the next at a reload. For a while both ping the same server, and each may see a change that the other does
//! not: the outside is told by the first until it ends, and from there on by the second, so that it hears of each change once.

use std::time::Instant;

use super::{
    belief::State,
    change::Change,
    machine::Health,
    signal::{Cause, Facts},
    status::{Outage, Status},
};

/// What the outside has been told of one server.
#[derive(Debug, Clone, Default)]
pub struct Told {
    outage: Option<Outage>,
    /// Why no new connections are admitted.
    refusal: Option<Cause>,
    inconclusive: Option<(Instant, Cause)>,
    facts: Option<Facts>,
}

impl Told {
    /// Since when the outage lasts that was told as open.
    #[must_use]
    pub fn outage(&self) -> Option<Instant> {
        self.outage.as_ref().map(|outage| outage.opened)
    }

    /// That no new connections are admitted, while nothing worse was told.
    fn refuses(&self) -> bool {
        self.outage.is_none() && self.refusal.is_some()
    }
}

impl Health {
    /// What it has told, if all its changes were.
    #[must_use]
    pub fn told(&self) -> Told {
        Told {
            outage: self.status.outage().cloned(),
            refusal: self.refusal.clone(),
            inconclusive: self.inconclusive.clone(),
            facts: self.facts.or(self.facts_told),
        }
    }

    /// Begins where another monitor stood, which goes on telling for the time being.
    pub fn resume(&mut self, before: &Told) {
        self.refusal = before.refusal.clone();
        if let Some(outage) = &before.outage {
            self.generation = self.generation.next();
            self.status = Status::Down(outage.clone());
        }
    }

    /// Goes on telling where the other monitor has stopped: what this one believes and nobody was told. `begun` is what it was
    /// [resumed](Self::resume) with.
    #[must_use]
    pub fn take_over(&mut self, begun: &Told, told: Told, now: Instant) -> Vec<Change> {
        let refused = told.refuses();
        let facts = self.take_over_facts(told.facts);
        let outage = self.take_over_outage(begun, told.outage, now);
        let admission = self.take_over_admission(refused, now);
        let inconclusive = self.take_over_inconclusive(told.inconclusive);
        [facts, outage, admission, inconclusive].into_iter().flatten().collect()
    }

    fn take_over_facts(&mut self, told: Option<Facts>) -> Option<Change> {
        self.facts_told = told;
        let (before, now) = (told?, self.facts?);
        (!before.agrees_with(&now)).then_some(Change::FactsChanged { before: Some(before), now })
    }

    fn take_over_outage(&mut self, begun: &Told, told: Option<Outage>, now: Instant) -> Option<Change> {
        let resumed = begun.outage();
        match (told, &mut self.status) {
            (None, Status::Up | Status::Suspect) => None,
            (Some(told), Status::Up | Status::Suspect) => {
                // Of two that do not agree the other one may have asked later.
                self.ask(now);
                Some(Change::OutageClosed { duration: now.saturating_duration_since(told.opened) })
            }
            (Some(told), Status::Down(outage) | Status::Recovering { outage, .. }) => {
                (outage.opened, outage.told) = (told.opened, told.told);
                None
            }
            // The other one has seen its end.
            (None, Status::Down(outage) | Status::Recovering { outage, .. }) if resumed == Some(outage.opened) => {
                self.close(now);
                None
            }
            (None, Status::Down(outage) | Status::Recovering { outage, .. }) => {
                outage.told = now;
                Some(Change::OutageOpened { cause: outage.cause.clone(), detected_in: outage.detected_in })
            }
        }
    }

    /// Closes an outage whose end was told by somebody else, and has that looked into.
    fn close(&mut self, now: Instant) {
        self.status = Status::Up;
        self.generation = self.generation.next();
        (self.doubted, self.suspected, self.refusal) = (None, None, None);
        self.ask(now);
    }

    fn take_over_admission(&mut self, refused: bool, now: Instant) -> Option<Change> {
        match (refused, &self.refusal) {
            // The end of an outage says that it admits again.
            _ if matches!(self.state(), State::Down | State::Recovering) => None,
            (true, None) => {
                self.ask(now);
                Some(Change::AdmissionResumed)
            }
            (false, Some(cause)) => {
                let cause = cause.clone();
                self.ask(now);
                Some(Change::AdmissionStopped { cause })
            }
            (true, Some(_)) | (false, None) => None,
        }
    }

    fn take_over_inconclusive(&mut self, told: Option<(Instant, Cause)>) -> Option<Change> {
        match (told, &mut self.inconclusive) {
            (Some(told), Some(own)) => {
                *own = told;
                None
            }
            (None, Some((_, cause))) => Some(Change::PingInconclusive { cause: cause.clone() }),
            (told, None) => {
                // Unless an answer has come since.
                self.inconclusive = told.filter(|_| self.facts.is_none());
                None
            }
        }
    }
}
