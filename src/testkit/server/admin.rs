//! The test kit's own way into a server: through the socket, as the superuser, and through its files.

use std::path::PathBuf;
use std::time::Duration;

use tokio_postgres::{Client, Config, NoTls, SimpleQueryMessage};

use super::super::TestkitError;
use super::{LOOK_AGAIN, Server};

impl Server {
    /// The first column of the first row of a query, as text; empty for NULL.
    pub(in super::super) async fn query_one(&self, sql: &str) -> Result<String, TestkitError> {
        let messages = self.run("postgres", sql).await?;
        let row = messages.into_iter().find_map(|message| match message {
            SimpleQueryMessage::Row(row) => Some(row.get(0).unwrap_or_default().to_owned()),
            _ => None,
        });
        row.ok_or_else(|| self.at(TestkitError::new(format!("no row from {sql}"))))
    }

    /// Runs a statement outside the URL's database, which may not be there yet.
    pub(in super::super) async fn prepare(&self, sql: &str) -> Result<(), TestkitError> {
        self.run("postgres", sql).await.map(drop)
    }

    /// Waits until this replica has replayed what the primary had written at `written`.
    pub(in super::super) async fn wait_for_replay(&self, written: &str) -> Result<(), TestkitError> {
        let written = page_start(lsn(written)?);
        let client = self.admin("postgres").await?;
        let replayed = async {
            loop {
                let row = client.simple_query("SELECT pg_is_in_recovery(), pg_last_wal_replay_lsn()").await;
                let messages = row.map_err(TestkitError::while_("asking for the replayed position"))?;
                let caught_up = messages.iter().any(|message| match message {
                    SimpleQueryMessage::Row(row) => {
                        row.get(0) == Some("f") || row.get(1).is_some_and(|at| lsn(at).is_ok_and(|at| at >= written))
                    }
                    _ => false,
                });
                if caught_up {
                    return Ok(());
                }
                tokio::time::sleep(LOOK_AGAIN).await;
            }
        };
        self.host.bounded("replaying what the primary has written", replayed).await.map_err(|error| self.at(error))
    }

    /// Opens a session and leaves its connection to a task.
    pub(super) async fn open(&self, config: &Config) -> Result<Client, TestkitError> {
        let opened = async {
            let connected = config.connect(NoTls).await;
            connected.map_err(TestkitError::while_("connecting"))
        };
        let (client, connection) = self.host.bounded("connecting", opened).await.map_err(|error| self.at(error))?;
        // What ends the connection, the client's next call reports.
        tokio::spawn(connection);
        Ok(client)
    }

    pub(super) async fn run(&self, database: &str, sql: &str) -> Result<Vec<SimpleQueryMessage>, TestkitError> {
        let client = self.admin(database).await?;
        // The statement stays out of the error: it may hold a password.
        let answered = async { client.simple_query(sql).await.map_err(TestkitError::while_("running a statement")) };
        self.host.bounded("running a statement", answered).await.map_err(|error| self.at(error))
    }

    async fn admin(&self, database: &str) -> Result<Client, TestkitError> {
        let mut config = Config::new();
        config.host_path(&self.host.sockets).port(self.port()).user("postgres").dbname(database);
        self.open(config.application_name("pgdetour testkit")).await
    }

    /// Waits until the postmaster says in its pid file that it is ready, and a session can be opened.
    pub(super) async fn wait_until_ready(&self) -> Result<(), TestkitError> {
        let file = self.data.join("postmaster.pid");
        loop {
            let Some(pid) = self.postmaster.pid() else {
                return Err(TestkitError::new("it ended at once"));
            };
            let text = std::fs::read_to_string(&file).unwrap_or_default();
            let mut lines = text.lines();
            if lines.next() == Some(pid.to_string().as_str()) && lines.last().is_some_and(|line| line.trim() == "ready")
            {
                return self.query_one("SELECT 1").await.map(drop);
            }
            tokio::time::sleep(LOOK_AGAIN).await;
        }
    }

    /// Waits until none of its processes is left.
    pub(super) async fn gone(&self, doing: &str) -> Result<(), TestkitError> {
        let gone = async {
            while !self.postmaster.is_gone() {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
            Ok(())
        };
        self.host.bounded(doing, gone).await.map_err(|error| self.at(error))
    }

    /// Asks it to end at once, whatever its state; [`Drop`] waits for it.
    pub(in super::super) fn ask_to_end(&self) {
        self.postmaster.ask_to_end();
    }

    /// Whether it ended because somebody else has its port.
    pub(in super::super) fn lost_its_port(&self) -> bool {
        !self.is_running() && self.log().contains("Address already in use")
    }

    pub(super) fn log_file(&self) -> PathBuf {
        self.data.with_file_name("log")
    }

    pub(super) fn at(&self, error: TestkitError) -> TestkitError {
        TestkitError::new(format!("{}: {error}", self.name))
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.postmaster.end(&self.data);
    }
}

/// The last lines of a log.
pub(super) fn tail(log: &str) -> String {
    let lines: Vec<&str> = log.lines().collect();
    lines[lines.len().saturating_sub(20)..].join("\n")
}

/// A position in the log of writes, from its text `16/B374D848`.
fn lsn(text: &str) -> Result<u64, TestkitError> {
    let parsed = text
        .split_once('/')
        .and_then(|(high, low)| Some(u64::from_str_radix(high, 16).ok()? << 32 | u64::from_str_radix(low, 16).ok()?));
    parsed.ok_or_else(|| TestkitError::new(format!("{text:?} is no position in the log of writes")))
}

/// A position just past a page's header (40 bytes at a segment's start, else 24) as the page's start: a replica that has replayed all
/// reports that.
fn page_start(position: u64) -> u64 {
    let in_page = position % 8192;
    let header = if position % (1 << 20) < 8192 { 40 } else { 24 };
    if in_page == header { position - header } else { position }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_position_past_a_page_header_is_the_page_start() {
        assert_eq!(page_start(lsn("0/3002018").unwrap()), lsn("0/3002000").unwrap());
        assert_eq!(page_start(lsn("1/3000028").unwrap()), lsn("1/3000000").unwrap());
        assert_eq!(page_start(lsn("0/3002028").unwrap()), lsn("0/3002028").unwrap());
        assert!(lsn("nonsense").is_err());
    }
}
