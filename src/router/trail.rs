//! What now, after an attempt that failed? Whether a call is made again, where and when, and what its error tells in the end.

use std::time::{Duration, Instant};

use super::{
    Inner,
    beside::Beside,
    call::{Attempt, BACKOFF, BoxError, End, Failure, Repeat},
    deadline::Deadline,
    error::Error,
    get::Get,
    lease::Lease,
    line::{Getting, Line},
    meter::Call,
    recall::Recall,
};
use crate::{
    clock,
    health::Cause,
    policy::{Effort, Fault, Outcome, Verdict, verdict},
    pool::{Backend, cause_of},
};

/// One call and what has become of it so far.
pub(super) struct Trail<'a, B: Backend> {
    line: &'a Line<B>,
    router: &'a Inner<B>,
    pub(super) deadline: Deadline,
    begun: Instant,
    /// When the attempt that is made now began.
    pub(super) since: Instant,
    attempts: Vec<Attempt>,
    /// The servers that have failed, by their addresses.
    failed: Vec<usize>,
    source: Option<BoxError>,
    /// How often it has waited before an attempt.
    waits: u32,
}

impl<'a, B: Backend> Trail<'a, B> {
    pub(super) fn begin(line: &'a Line<B>, router: &'a Inner<B>) -> Self {
        line.budget.deposit();
        let begun = clock::now();
        let deadline = Deadline::from(begun, line.calls.call_timeout).or_earlier(Deadline::current());
        let (attempts, failed) = (Vec::new(), Vec::new());
        Self { line, router, deadline, begun, since: begun, attempts, failed, source: None, waits: 0 }
    }

    /// The connection for the next attempt, after one that failed so, or not in time.
    ///
    /// Cancel safety: cancel safe, the call is over then.
    pub(super) async fn next(&mut self, recall: &Recall, failed: Option<BoxError>) -> Result<Lease<B>, Error> {
        let Some(error) = failed else {
            self.give_up(recall);
            return Err(self.late());
        };
        let place = self.fail(recall, error)?;
        self.again(place).await
    }

    /// Takes down an attempt that failed, and says where the next one may go. An error ends the call.
    pub(super) fn fail(&mut self, recall: &Recall, error: BoxError) -> Result<Place, Error> {
        let fault = recall.fault_of(&*error);
        if recall.server.is_accused_by_error(&*error) {
            recall.server.doubt(recall.generation);
        }
        let outcome = recall.outcome();
        let work = self.record(recall, outcome, cause_of(&*error, recall.ending()));
        recall.server.record_call(Some(fault), work);
        self.source = Some(error);
        if fault == Fault::StalePlan {
            self.line.forget_plans(&recall.server);
        }
        match verdict(Effort::Read, fault, outcome) {
            Verdict::GiveUp => Err(self.end(End::Failed)),
            Verdict::Again => Ok(Place::Same),
            Verdict::Elsewhere => {
                self.failed.push(address(recall));
                Ok(Place::Next)
            }
        }
    }

    /// Takes down an attempt for which there is no more time, once it was called back.
    pub(super) fn give_up(&mut self, recall: &Recall) {
        recall.count_late();
        self.record(recall, Outcome::Unknown, Cause::new("the time for the call was over"));
    }

    /// The connection for another attempt, if the budget has one.
    ///
    /// Cancel safety: as for `next`.
    pub(super) async fn again(&mut self, place: Place) -> Result<Lease<B>, Error> {
        if !self.line.budget.withdraw() {
            return Err(self.end(End::Spent));
        }
        self.since = clock::now();
        match tokio::time::timeout_at(self.deadline.at().into(), self.get(place)).await {
            Ok(lease) => lease.map_err(|error| self.unserved(error)),
            Err(_) => Err(self.late()),
        }
    }

    /// A connection to a server that has not failed, or to one that has after a wait. The call's deadline is around this.
    async fn get(&mut self, place: Place) -> Result<Lease<B>, Error> {
        if place == Place::Same || !self.line.has_beside(&self.failed) {
            tokio::time::sleep(BACKOFF.delay(self.waits, fastrand::u64(..))).await;
            self.waits += 1;
        }
        self.line.get_beside(self.router, Beside { failed: self.failed.clone(), strictly: false }).await
    }

    /// The connection for the first attempt, on its way, and the server it is asked of, if that is known.
    pub(super) fn first(&self) -> (Getting<'a, B>, Option<usize>) {
        let get = Get::new(self.line, self.router, B::acquire);
        let aim = get.aim();
        (Box::pin(get), aim)
    }

    /// The connection for an attempt beside one that is still made, if there is a server for it and the budget has one; `busy` is
    /// the server of that one, by its address, if it is known.
    pub(super) fn beside(&self, busy: Option<usize>) -> Option<Getting<'a, B>> {
        let busy = busy.or_else(|| self.line.some_beside(&self.failed));
        let failed: Vec<_> = self.failed.iter().copied().chain(busy).collect();
        let may = self.line.has_beside(&failed) && self.line.budget.withdraw();
        may.then(|| self.line.get_beside(self.router, Beside { failed, strictly: true }))
    }

    /// The call has its answer, by this attempt.
    pub(super) fn answered(&self, recall: &Recall) {
        let now = clock::now();
        recall.server.record_call(None, now.saturating_duration_since(recall.times.1));
        self.line.attempted(&recall.server, Call::Read, None);
        self.line.count.called(Call::Read, None);
        self.line.patience.answered(now.saturating_duration_since(self.begun));
    }

    /// Takes it down, and tells how long it was at work.
    fn record(&mut self, recall: &Recall, outcome: Outcome, cause: Cause) -> Duration {
        let (since, lent) = recall.times;
        let (acquire, work) = (lent.saturating_duration_since(since), clock::now().saturating_duration_since(lent));
        self.line.attempted(&recall.server, Call::Read, Some(outcome));
        let (server, detour) = (recall.server.name.clone(), recall.detour);
        self.attempts.push(Attempt { server, detour, acquire, work, outcome, cause });
        work
    }

    /// What the server is to give each statement from now on, where it is told of deadlines.
    pub(super) fn limit(&self, now: Instant) -> Option<Duration> {
        self.line.calls.pass_deadline.then(|| self.deadline.left(now))
    }

    /// The call's error when no connection was given for its next attempt: of the first one, that error itself.
    pub(super) fn unserved(&mut self, error: Error) -> Error {
        if self.attempts.is_empty() { error } else { self.end(End::Unserved(error)) }
    }

    /// The call's error when its time is over.
    pub(super) fn late(&mut self) -> Error {
        self.end(End::Late(self.deadline.within()))
    }

    fn end(&mut self, end: End) -> Error {
        let (alias, attempts) = (self.line.name.clone(), std::mem::take(&mut self.attempts));
        let failure = Failure { alias, repeat: Repeat::Harmless, end, attempts, source: self.source.take() };
        self.line.count.called(Call::Read, Some(failure.outcome()));
        Error::call(failure)
    }
}

/// Where the next attempt may go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Place {
    /// To the server that has failed, which may do better after a moment.
    Same,
    /// To the next server of the plan.
    Next,
}

pub(super) fn address(recall: &Recall) -> usize {
    recall.server.identity()
}
