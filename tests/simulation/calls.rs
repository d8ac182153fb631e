//! Calls that the router makes again by itself, reads and writes, and what their errors must not claim.

use std::{
    future::Future,
    sync::{Arc, Mutex},
    time::Duration,
};

use pgdetour::{Error, Transaction, config::Hedge, policy::Outcome};

use crate::{
    time::lock,
    world::{GRACE, World, index_of},
};

/// The leases of one call, in the order of its attempts.
type Leases = Arc<Mutex<Vec<u64>>>;

impl World {
    /// A read that may be run again.
    pub(crate) async fn read(&self, rows: u64) {
        let (alias, begun, leases) = (self.layout.reads(), self.record.at(), Leases::default());
        let result = self
            .alias(alias)
            .read(|lease| {
                // A hedge goes elsewhere, and may be there first.
                let first = lock(&leases).is_empty() && self.layout.calls.hedge_after == Hedge::Off;
                let first = first.then_some(begun);
                let (world, leases, held) = (self.clone(), Arc::clone(&leases), self.lent(alias, lease, first));
                async move {
                    lock(&leases).push(held.number);
                    world.execute(&held, &format!("SELECT rows({rows})"), Duration::ZERO, rows.is_multiple_of(2)).await
                }
            })
            .await;
        self.record.count(if result.is_ok() { "reads" } else { "failed reads" });
        self.check_call(begun, &leases, result.as_ref().err());
        let Err(error) = result else { return };
        self.record.tell(format!("a read failed: {error}"));
        self.check_refusal(alias, &error, begun);
    }

    /// A write that the router commits.
    pub(crate) async fn write(&self, id: u64) {
        let (begun, leases) = (self.record.at(), Leases::default());
        let result = self.alias("primary").write(|transaction| self.insert(id, transaction, &leases)).await;
        self.record.count(if result.is_ok() { "writes by the router" } else { "failed writes by the router" });
        self.check_call(begun, &leases, result.as_ref().err());
        match result {
            Ok(_) => drop(self.record.book().acknowledged.insert(id)),
            Err(error) => {
                self.record.tell(format!("write {id} failed, {:?}: {error}", error.outcome()));
                self.record.count(match error.outcome() {
                    Outcome::NotSent => "writes not sent",
                    Outcome::RolledBack => "writes rolled back",
                    Outcome::Unknown => "writes of which nobody knows",
                });
                self.record.book().told.push((id, error.outcome()));
            }
        }
    }

    /// A write that happens once, called again with its key until it is known.
    pub(crate) async fn write_once(&self, id: u64) {
        let key = id.to_string();
        for _ in 0..4 {
            let (begun, leases) = (self.record.at(), Leases::default());
            let alias = self.alias("primary");
            let written = alias.write_once(&key, |transaction| {
                let work = self.insert(id, transaction, &leases);
                async move { work.await.map(|_| id) }
            });
            let result = written.await;
            self.record.count(if result.is_ok() {
                "writes that happen once"
            } else {
                "failed writes that happen once"
            });
            self.check_call(begun, &leases, result.as_ref().err());
            match result {
                Ok(answer) => {
                    self.record.check(answer == id, || format!("{answer} is the answer of another than {id}"));
                    self.record.book().acknowledged.insert(id);
                    return;
                }
                Err(error) => self.record.tell(format!("write once {id} failed, {:?}: {error}", error.outcome())),
            }
        }
    }

    /// The work of a write.
    fn insert(
        &self,
        id: u64,
        transaction: Transaction,
        leases: &Leases,
    ) -> impl Future<Output = Result<u64, tokio_postgres::Error>> + Send + use<> {
        let (record, leases) = (self.record.clone(), Arc::clone(leases));
        let server = index_of(transaction.server().as_str());
        async move {
            let number = record.lend_begun(server);
            lock(&leases).push(number);
            let done = transaction.execute(&format!("INSERT INTO ledger VALUES ({id}) /*L{number}*/"), &[]).await;
            record.take_back(number);
            done
        }
    }

    /// A call ends in time, and its error tells each of its attempts as it was.
    fn check_call(&self, begun: Duration, leases: &Leases, error: Option<&Error>) {
        let (took, leases) = (self.record.at() - begun, lock(leases).clone());
        let limit = self.layout.calls.call_timeout + GRACE;
        self.record.check(took <= limit, || format!("invariant 16: a call took {took:?} of {limit:?}"));
        let most = 1 + 2 * self.layout.pool.max_size + 100;
        self.record.check(leases.len() <= most, || format!("invariant 16: {} attempts in one call", leases.len()));
        let Some(error) = error else { return };
        // The work of a write is not run where BEGIN fails.
        let attempts = error.attempts();
        self.record
            .check(attempts.len() >= leases.len(), || format!("{leases:?} were lent, and told are {attempts:?}"));
        if attempts.len() == leases.len() {
            let unsent = attempts.iter().zip(leases).filter(|(attempt, _)| attempt.outcome() == Outcome::NotSent);
            self.record.book().unsent.extend(unsent.map(|(_, lease)| lease));
        }
    }

    /// While a server is well, a read fails only of too many others, too little time, or too many retries.
    fn check_refusal(&self, alias: &str, error: &Error, begun: Duration) {
        let spent = error.to_string().contains("budget is spent");
        if error.is_overloaded() || error.is_late() || spent {
            return self.record.count("reads given up for load");
        }
        let well = self.servers_of(alias).find(|server| self.is_well_since(*server, begun));
        self.record.check(well.is_none(), || format!("invariant 11: {alias}: server {well:?} is well, and: {error}"));
    }

    fn is_well_since(&self, server: usize, begun: Duration) -> bool {
        self.is_well(server, begun) && self.is_well(server, self.record.at())
    }
}
