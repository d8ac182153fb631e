//! What became of a transaction whose `COMMIT` was lost? The server knows, as long as it counts on where it stood.

use std::sync::Arc;

use tokio::time::sleep;

use super::{
    Inner,
    call::BACKOFF,
    lease::Lease,
    line::Line,
    transaction::{Question, Xid},
};
use crate::{
    health::Generation,
    policy::{Class, Fault},
    pool::Backend,
};

/// What a server counts transactions within: its timeline, its start, and its last crash, which resets the statistics. After a
/// promotion numbers are given out again. So they are after a crash, to which a number is lost that no flushed record holds.
/// See the chapters "Transaction ID and Snapshot Information Functions" and "The Cumulative Statistics System" of PostgreSQL's manual.
const EPOCH: &str = "pg_catalog.concat_ws(' ', \
    pg_catalog.substr(pg_catalog.pg_walfile_name(pg_catalog.pg_current_wal_lsn()), 1, 8), \
    extract(epoch FROM pg_catalog.pg_postmaster_start_time()), \
    extract(epoch FROM (SELECT b.stats_reset FROM pg_catalog.pg_stat_bgwriter b)))";

/// How often it is asked again where no connection holds: others may go with the one that lost the COMMIT. At most 0.6 s.
const TRIES: u32 = 6;

/// The epoch of the server of an alias, as of one of its generations; `None` if that server cannot tell. It was told over one session,
/// and others may go to another server: one address may be a proxy's, or have moved.
#[derive(Debug)]
pub(super) struct Epoch {
    generation: Generation,
    told: Option<String>,
}

impl Epoch {
    /// Whether it is of the server that was started then.
    fn is_of(&self, started: &str) -> bool {
        self.told.as_ref().and_then(|told| told.split(' ').nth(1)) == Some(started)
    }
}

/// Whether it can be asked what became of a transaction: with an epoch from before it.
pub(super) struct Fate(Arc<Epoch>);

impl Fate {
    /// Before a transaction. The first of an alias asks for the epoch: one round trip more.
    pub(super) async fn before<B: Backend>(lease: &Lease<B>, line: &Line<B>) -> Self {
        let (_, generation, _) = lease.goes_to();
        if let Some(epoch) = line.epoch.load_full().filter(|epoch| epoch.generation == generation) {
            return Self(epoch);
        }
        let answer = B::execute(lease, &format!("SELECT {EPOCH}")).await;
        // Of a connection that is lost the transaction finds out by itself, and the next one asks again.
        let keep = answer.as_ref().map_or_else(|error| Fault::of(&**error).class() == Class::Application, |_| true);
        let told = answer.ok().and_then(|row| row.into_iter().next().flatten());
        let epoch = Arc::new(Epoch { generation, told });
        if keep {
            line.epoch.store(Some(Arc::clone(&epoch)));
        }
        Self(epoch)
    }

    /// What goes ahead of the COMMIT.
    pub(super) fn question(&self) -> Question {
        if self.0.told.is_some() { Question::Number } else { Question::Standing }
    }

    /// Whether the transaction of this number was committed; `None` if nobody can tell.
    ///
    /// Cancel safety: it only asks.
    pub(super) async fn is_committed<B: Backend>(&self, xid: Xid, line: &Line<B>, router: &Inner<B>) -> Option<bool> {
        if !self.0.is_of(&xid.started) {
            line.epoch.store(None);
            return None;
        }
        let sql = format!("SELECT pg_catalog.pg_xact_status('{}'), {EPOCH}", xid.number);
        for attempt in 0.. {
            let lease = line.get(router).await.ok().filter(|lease| !lease.is_detour());
            let answer = match &lease {
                Some(lease) => B::execute(lease, &sql).await.ok(),
                None => None,
            };
            drop(lease);
            match answer.as_deref() {
                Some([status, epoch]) if *epoch == self.0.told => match status.as_deref() {
                    Some("committed") => return Some(true),
                    Some("aborted") => return Some(false),
                    // The server has not noticed yet that nobody is there any more.
                    Some("in progress") => {}
                    _ => return None,
                },
                Some(_) => {
                    line.epoch.store(None);
                    return None;
                }
                None if attempt < TRIES => {}
                None => return None,
            }
            sleep(BACKOFF.delay(attempt, fastrand::u64(..))).await;
        }
        None
    }
}
