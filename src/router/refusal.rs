//! Why does a request get no connection? The errors of those that are refused, each counted once.

use super::{
    deadline::Deadline,
    error::{Error, Refusal},
    line::Line,
    meter::Refused,
    stop::Stop,
};
use crate::{clock, pool::Backend};

impl<B: Backend> Line<B> {
    /// Why a wait for this server ended: for its own length, or for a deadline around it.
    pub(super) fn late(&self, stop: &Stop<B>) -> Error {
        match Deadline::current().filter(|around| around.left(clock::now()).is_zero()) {
            Some(around) => {
                self.count.refused(Refused::Late);
                Error::late(self.name.clone(), around.within())
            }
            None => self.overloaded(stop, true),
        }
    }

    /// Why a request gets no connection to this server, for which it has `waited`, or has not even done that.
    pub(super) fn overloaded(&self, stop: &Stop<B>, waited: bool) -> Error {
        self.refused_for(Refused::Overloaded);
        Error::overloaded(self.name.clone(), &stop.server, stop.full(self.acquire_timeout, waited))
    }

    /// Why a write has nowhere to go: with reads of the same cluster served, it is read-only for the time being.
    pub(super) fn refuse_write(&self, refusals: Vec<Refusal>) -> Error {
        self.refused_for(Refused::Unavailable);
        let plan = self.chain.for_writes().explain(self.name.clone(), &self.table.load(), clock::now());
        Error::unavailable(plan, refusals)
    }

    pub(super) fn nowhere(&self, refusals: Vec<Refusal>) -> Error {
        self.refused_for(Refused::Unavailable);
        Error::unavailable(self.explain(), refusals)
    }

    fn refused_for(&self, why: Refused) {
        self.count.refused(why);
        self.count(|server| server.cell.count_refused());
    }
}
