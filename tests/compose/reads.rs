//! An application that reads through alias `replica` all the time, and keeps count of who answered.

use std::time::Duration;

use pgdetour::Alias;
use tokio::{sync::watch, task::JoinHandle, time::timeout};

const PATIENCE: Duration = Duration::from_secs(60);

/// Who answers a read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum By {
    Primary,
    Replica,
}

/// What became of the reads so far.
#[derive(Debug, Clone, Default)]
pub(crate) struct Seen {
    /// Answered by the primary.
    pub(crate) detoured: u64,
    /// Answered by the replica since the last one that was not.
    returned: u64,
    /// Not answered, also not when asked again.
    pub(crate) failed: Vec<String>,
}

/// The running application.
#[derive(Debug)]
pub(crate) struct Reads {
    seen: watch::Receiver<Seen>,
    task: JoinHandle<()>,
}

impl Reads {
    /// Starts reading, 200 times a second.
    pub(crate) fn through(alias: Alias) -> Self {
        let (sender, seen) = watch::channel(Seen::default());
        let task = tokio::spawn(async move {
            let mut tick = tokio::time::interval(Duration::from_millis(5));
            while !sender.is_closed() {
                tick.tick().await;
                // One retry by the caller: a read that was under way on a server that dies is lost with it.
                let answer = match read(&alias).await {
                    Err(_) => read(&alias).await,
                    answered => answered,
                };
                sender.send_modify(|seen| seen.count(answer));
            }
        });
        Self { seen, task }
    }

    /// Waits until the primary has answered `count` reads more than `before`.
    pub(crate) async fn detoured_since(&mut self, before: u64, count: u64) {
        self.until("reads detour to the primary", |seen| seen.detoured >= before + count).await;
    }

    /// Waits until the replica has answered 100 reads in a row.
    pub(crate) async fn on_the_replica(&mut self) {
        self.until("reads are back on the replica", |seen| seen.returned >= 100).await;
    }

    /// What became of the reads so far.
    pub(crate) fn seen(&self) -> Seen {
        self.seen.borrow().clone()
    }

    async fn until(&mut self, what: &str, condition: impl FnMut(&Seen) -> bool) {
        let waited = timeout(PATIENCE, self.seen.wait_for(condition)).await.map(|seen| seen.map(drop));
        assert!(matches!(waited, Ok(Ok(()))), "waited for a minute until {what}: {:?}", self.seen());
    }
}

impl Drop for Reads {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Seen {
    fn count(&mut self, answer: Result<By, String>) {
        match answer {
            Ok(By::Replica) => self.returned += 1,
            Ok(By::Primary) => (self.detoured, self.returned) = (self.detoured + 1, 0),
            Err(why) => {
                self.failed.push(why);
                self.returned = 0;
            }
        }
    }
}

async fn read(alias: &Alias) -> Result<By, String> {
    let read = async {
        let client = alias.get().await.map_err(|error| format!("get: {error}"))?;
        let row = client.query_one("SELECT pg_is_in_recovery(), count(*) FROM orders", &[]).await;
        row.map_err(|error| format!("query: {error}"))
    };
    let row = timeout(Duration::from_secs(10), read).await.map_err(|_| "no answer in 10 s".to_owned())??;
    Ok(if row.get(0) { By::Replica } else { By::Primary })
}
