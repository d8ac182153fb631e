//! What now, after an attempt that failed? Whether a call is made again, where and when, and what its error tells in the end.

use std::time::{Duration, Instant};

use super::{
    Inner,
    call::{Attempt, BACKOFF, BoxError, End, Failure},
    deadline::Deadline,
    error::Error,
    lease::Lease,
    line::Line,
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
    /// When the attempt that is made now began.
    pub(super) since: Instant,
    attempts: Vec<Attempt>,
    /// The servers that have failed, by their addresses.
    failed: Vec<usize>,
    source: Option<BoxError>,
    /// How often the same server was tried again.
    again: u32,
}

impl<'a, B: Backend> Trail<'a, B> {
    pub(super) fn begin(line: &'a Line<B>, router: &'a Inner<B>) -> Self {
        line.budget.deposit();
        let since = clock::now();
        let deadline = Deadline::from(since, line.calls.call_timeout).or_earlier(Deadline::current());
        let (attempts, failed) = (Vec::new(), Vec::new());
        Self { line, router, deadline, since, attempts, failed, source: None, again: 0 }
    }

    /// The connection for the next attempt, after one that was `lent` a connection then and `failed` so, or not in time.
    ///
    /// Cancel safety: cancel safe, the call is over then.
    pub(super) async fn next(
        &mut self,
        recall: &Recall,
        lent: Instant,
        failed: Option<BoxError>,
    ) -> Result<Lease<B>, Error> {
        let now = clock::now();
        let took = now.saturating_duration_since(lent);
        let Some(error) = failed else {
            recall.server.record_call(Some(Fault::Late), took);
            self.record(recall, lent, now, (Outcome::Unknown, Cause::new("the time for the call was over")));
            return Err(self.late());
        };
        let fault = Fault::of(&*error);
        recall.server.record_call(Some(fault), took);
        if recall.server.is_accused_by_error(&*error) {
            recall.server.doubt(recall.generation);
        }
        let outcome = recall.outcome(fault);
        self.record(recall, lent, now, (outcome, cause_of(&*error, recall.ending())));
        self.source = Some(error);
        let elsewhere = match verdict(Effort::Read, fault, outcome) {
            Verdict::GiveUp => return Err(self.end(End::Failed)),
            Verdict::Elsewhere => true,
            Verdict::Again => false,
        };
        if !self.line.budget.withdraw() {
            return Err(self.end(End::Spent));
        }
        if elsewhere {
            self.failed.push(std::sync::Arc::as_ptr(&recall.server).addr());
        }
        if fault == Fault::StalePlan {
            self.line.forget_plans(&recall.server);
        }
        self.since = now;
        match tokio::time::timeout_at(self.deadline.at().into(), self.get(elsewhere)).await {
            Ok(Ok(lease)) => Ok(lease),
            Ok(Err(error)) => Err(self.end(End::Unserved(error))),
            Err(_) => Err(self.late()),
        }
    }

    /// A connection to a server that has not failed, or to one that has after a wait.
    async fn get(&mut self, elsewhere: bool) -> Result<Lease<B>, Error> {
        if !(elsewhere && self.line.has_beside(&self.failed)) {
            tokio::time::sleep(BACKOFF.delay(self.again, fastrand::u64(..))).await;
            self.again += 1;
        }
        // The call's own deadline is around this.
        self.line.get_beside(self.router, &self.failed, self.line.deadline()).await
    }

    /// An attempt that was `lent` a connection then has come to an answer.
    pub(super) fn answered(&self, recall: &Recall, lent: Instant) {
        recall.server.record_call(None, clock::now().saturating_duration_since(lent));
    }

    fn record(&mut self, recall: &Recall, lent: Instant, now: Instant, (outcome, cause): (Outcome, Cause)) {
        let (acquire, work) = (lent.saturating_duration_since(self.since), now.saturating_duration_since(lent));
        let (server, detour) = (recall.server.name.clone(), recall.detour);
        self.attempts.push(Attempt { server, detour, acquire, work, outcome, cause });
    }

    /// What the server is to give each statement from now on, where it is told of deadlines.
    pub(super) fn limit(&self, now: Instant) -> Option<Duration> {
        self.line.calls.pass_deadline.then(|| self.deadline.left(now))
    }

    /// The call's error when its time is over.
    pub(super) fn late(&mut self) -> Error {
        self.end(End::Late(self.deadline.within()))
    }

    fn end(&mut self, end: End) -> Error {
        let (alias, attempts) = (self.line.name.clone(), std::mem::take(&mut self.attempts));
        Error::call(Failure { alias, repeatable: true, end, attempts, source: self.source.take() })
    }
}
