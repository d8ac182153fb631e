//! A ping over tokio-postgres: one round trip that tells role, timeline, system identifier and position.

use std::{sync::Arc, time::Duration};

use tokio::sync::watch;
use tokio_postgres::{Client, SimpleQueryMessage, SimpleQueryRow};

use super::probe::Probe;
use crate::{
    config::Role,
    health::{Cause, Facts, Finding, Lsn, SystemId, Timeline},
    policy::Fault,
    pool::{ConnectFailure, Dial, Dialed},
};

/// What a ping asks. Everything is qualified, so that no search path of the database can change its meaning. A replica's
/// timeline is known to its walreceiver, which only `pg_monitor` may see, and else as of the last restart point.
const QUESTION: &str = "\
SELECT r.recovering, \
  CASE WHEN r.recovering THEN coalesce( \
      (SELECT w.received_tli FROM pg_catalog.pg_stat_wal_receiver w), \
      (SELECT c.timeline_id FROM pg_catalog.pg_control_checkpoint() c)) \
    ELSE ('x' || pg_catalog.substr(pg_catalog.pg_walfile_name(pg_catalog.pg_current_wal_lsn()), 1, 8))::bit(32)::int4 END, \
  (SELECT s.system_identifier FROM pg_catalog.pg_control_system() s), \
  CASE WHEN r.recovering THEN pg_catalog.pg_last_wal_replay_lsn() ELSE pg_catalog.pg_current_wal_lsn() END \
FROM (SELECT pg_catalog.pg_is_in_recovery() AS recovering) r";

/// The same where the ping's role may read no more than this.
const SMALL_QUESTION: &str = "SELECT pg_catalog.pg_is_in_recovery()";

/// Pings one server.
#[derive(Debug, Clone)]
pub(crate) struct Ping {
    dial: Dial,
    longest: Duration,
}

/// A watched connection.
#[derive(Debug, Clone)]
pub(crate) struct Session {
    client: Arc<Client>,
    alive: watch::Receiver<()>,
}

impl Ping {
    /// Pings over connections made by `dial`, none of which takes longer than `longest`.
    pub(crate) fn new(dial: Dial, longest: Duration) -> Self {
        Self { dial, longest }
    }
}

impl Probe for Ping {
    type Session = Session;

    async fn connect(&self) -> Result<Session, Finding> {
        let Dialed { client, wire, .. } = self.dial.connect(self.longest).await.map_err(|error| finding(&error))?;
        let (end, alive) = watch::channel(());
        tokio::spawn(async move {
            // Why it ended is what the next ping finds out.
            let _ = wire.await;
            drop(end);
        });
        Ok(Session { client: Arc::new(client), alive })
    }

    async fn ask(&self, session: &Session) -> Finding {
        let answer = match session.client.simple_query(QUESTION).await {
            Err(error) if error.as_db_error().is_some_and(|db| db.code().code() == "42501") => {
                session.client.simple_query(SMALL_QUESTION).await
            }
            answer => answer,
        };
        match answer {
            Ok(messages) => facts(&messages).map_or_else(
                || Finding::Failed(Cause::new("the answer to a ping made no sense: is this PostgreSQL?")),
                Finding::Answered,
            ),
            Err(error) => finding(&error),
        }
    }

    async fn ended(session: &Session) {
        // The sender is dropped with the connection and never sends.
        let _ = session.alive.clone().changed().await;
    }
}

fn facts(messages: &[SimpleQueryMessage]) -> Option<Facts> {
    let row = messages.iter().find_map(|message| match message {
        SimpleQueryMessage::Row(row) => Some(row),
        _ => None,
    })?;
    let role = match row.get(0)? {
        "t" => Role::Replica,
        "f" => Role::Primary,
        _ => return None,
    };
    let timeline = column(row, 1).and_then(|text| text.parse().ok()).map(Timeline);
    let system = column(row, 2).and_then(|text| text.parse().ok()).map(SystemId);
    Some(Facts { role, timeline, system, position: column(row, 3).and_then(Lsn::parse) })
}

/// A column the small question does not have is missing, like one that is NULL.
fn column(row: &SimpleQueryRow, index: usize) -> Option<&str> {
    if index < row.len() { row.get(index) } else { None }
}

/// What a failed ping says about the server.
fn finding(error: &tokio_postgres::Error) -> Finding {
    if let Some(ConnectFailure::TimedOut { .. }) = ConnectFailure::under(error) {
        // The connect's deadline is the ping's own, and whichever timer fires first, it is silence: a late one decides nothing.
        return Finding::Silent;
    }
    let cause = Cause::of(error);
    if Fault::of(error).class().fails_ping() { Finding::Failed(cause) } else { Finding::Inconclusive(cause) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_connect_that_ran_out_of_time_is_silence_and_not_a_refusal() {
        let late = ConnectFailure::TimedOut { after: Duration::from_secs(3) }.into_driver_error().await;
        assert_eq!(finding(&late), Finding::Silent);
        let closed = ConnectFailure::Closed.into_driver_error().await;
        assert_ne!(finding(&closed), Finding::Silent);
    }
}
