//! Writes that happen once: the key of each and its answer are stored by the transaction that does it.

use std::{error::Error as StdError, future::Future, time::Duration};

use serde::{Serialize, de::DeserializeOwned};
use tokio::time::timeout;

use super::{
    Alias,
    call::{BoxError, End, Repeat},
    error::Error,
    lease::Lease,
    transaction::{Broken, Open, Transaction},
    write::Course,
};
use crate::{
    clock,
    health::Cause,
    policy::{Fault, Outcome},
    pool::Backend,
    sql::literal,
};

/// The longest key, in bytes. The table says so too.
const LONGEST: usize = 255;

/// One write out of so many is followed by a look for keys that have expired.
const TIDY_EVERY: u32 = 32;

/// How many expired keys are deleted at once: more than come in meanwhile.
const TIDY_BATCH: u32 = 100;

/// How long that may take.
const TIDY_WITHIN: Duration = Duration::from_secs(1);

impl<B: Backend> Alias<B> {
    /// As [`write`](Self::write), but what it does happens once for each key: a call with a key that was used before does
    /// nothing and returns the answer of the call that did, as long as that is kept (`once_keep`, default 24 h).
    ///
    /// The key is stored by the same transaction, before the work. So where the answer to a `COMMIT` was lost, the router
    /// finds out: it goes on with the same key, on whatever server is the primary by then, and finds the answer or runs the work
    /// again. A call of the same key from elsewhere that is still under way is waited for. An error that says
    /// [`Unknown`](Outcome::Unknown) means that the time was over first: call again with the same key.
    ///
    /// Work that ends the transaction itself is not made again, and its error does not say that this is safe: what it has
    /// done may be there, and the key without an answer. Whoever calls with that key then is told [`Unknown`](Outcome::Unknown) too.
    ///
    /// Since the key is stored first, the work cannot choose the transaction's isolation any more: `SET TRANSACTION ISOLATION LEVEL`
    /// fails. The session's `default_transaction_isolation` holds.
    ///
    /// The key names the effect, not the attempt: one that the client of a request has sent, for example. 1 to 255 bytes without
    /// NUL. Key and answer are part of the SQL that is sent, so a server that logs statements logs them.
    ///
    /// The table it needs is made by `pgdetour migrate`, or [`migrate`](crate::migrate).
    ///
    /// ```no_run
    /// # #[cfg(feature = "deadpool")]
    /// # async fn example(primary: pgdetour::Alias, request: &str, id: i64) -> Result<(), pgdetour::Error> {
    /// let payment: i64 = primary
    ///     .write_once(request, |transaction| async move {
    ///         let row = transaction.query_one("INSERT INTO payments (account) VALUES ($1) RETURNING id", &[&id]).await?;
    ///         row.try_get(0)
    ///     })
    ///     .await?;
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    ///
    /// As [`write`](Self::write); a key that is none; an answer that cannot be written as JSON, or read as `T`. Unless the work
    /// has ended the transaction itself it [is safe](Error::is_safe_to_retry) to call again with the same key. An error is not
    /// stored.
    ///
    /// # Cancel safety
    ///
    /// As [`write`](Self::write). Call again with the same key.
    pub async fn write_once<T, E, F>(
        &self,
        key: &str,
        mut work: impl FnMut(Transaction<B>) -> F + Send,
    ) -> Result<T, Error>
    where
        T: Serialize + DeserializeOwned,
        F: Future<Output = Result<T, E>> + Send,
        E: Into<Box<dyn StdError + Send + Sync>>,
    {
        let line = self.current()?;
        if key.is_empty() || key.len() > LONGEST || key.contains('\0') {
            return Err(Error::bad_key(line.name.clone(), LONGEST));
        }
        let once = Once { key: literal(key), keep: line.calls.once_keep };
        let mut course = Course::begin(line, &self.router);
        course.repeat = Repeat::ByKey;
        // Whether a COMMIT was lost of which nothing is known yet.
        let mut unsure = false;
        loop {
            let lease = match course.try_lease().await {
                Ok(lease) => lease,
                // Until it is known, an outage is waited for: to ask costs nothing while no server is up.
                Err(End::Unserved(error)) if unsure && !error.is_closed() => {
                    course.wait().await?;
                    continue;
                }
                Err(end) => return Err(course.end(end)),
            };
            let (open, found) = match once.begin(lease, &course).await {
                Ok(begun) => begun,
                Err(broken) => {
                    course.again(broken, unsure).await?;
                    continue;
                }
            };
            if let Found::Used(answer) = found {
                // Whoever finds no answer may have found what he has done himself.
                course.repeat = if answer.is_some() { Repeat::ByKey } else { Repeat::IfUndone };
                let answer = read(open, answer).await.map_err(|broken| course.fail(broken))?;
                course.answered();
                return Ok(answer);
            }
            // The key is free, and whoever had it was waited for: a COMMIT that was lost did not happen.
            course.settle();
            match once.run(&course, open, &mut work).await {
                Ok(answer) => {
                    course.answered();
                    return Ok(answer);
                }
                Err(broken) => {
                    unsure = broken.lost;
                    // Work that has ended the transaction itself may have stored the key without an answer.
                    let ended = !unsure && broken.outcome == Outcome::Unknown;
                    course.repeat = if ended { Repeat::IfUndone } else { Repeat::ByKey };
                    course.again(broken, unsure).await?;
                }
            }
        }
    }
}

/// What is there under a key.
enum Found {
    /// It belongs to whoever has looked.
    Nothing,
    /// The answer of whoever has used it. None where that has ended its transaction itself.
    Used(Option<String>),
}

/// What is to happen once.
struct Once {
    /// The key, as SQL.
    key: String,
    keep: Duration,
}

impl Once {
    /// Begins a transaction that takes the key, if nobody has used it.
    async fn begin<B: Backend>(&self, lease: Lease<B>, course: &Course<'_, B>) -> Result<(Open<B>, Found), Broken> {
        let Self { key, keep } = self;
        // Who comes second waits here for the first. A key that has expired is as good as none. Where it is taken, the first row
        // is of one column.
        let sql = format!(
            "{opening}; \
             INSERT INTO pgdetour.writes AS w (key, expires_at) \
             VALUES ({key}, pg_catalog.now() + pg_catalog.make_interval(secs => {seconds})) \
             ON CONFLICT (key) DO UPDATE SET answer = NULL, expires_at = EXCLUDED.expires_at \
             WHERE w.expires_at <= pg_catalog.now() RETURNING true; \
             SELECT w.answer, CASE pg_catalog.current_setting('idle_in_transaction_session_timeout') WHEN '0' \
             THEN pg_catalog.set_config('idle_in_transaction_session_timeout', '{left}', true) END \
             FROM pgdetour.writes w WHERE w.key = {key}",
            opening = course.opening(),
            seconds = keep.as_secs_f64(),
            // Whom the network has cut off does not keep the key from others for longer than it may take.
            left = course.deadline.left(clock::now()).as_millis().clamp(1, i32::MAX as u128),
        );
        let begun = Open::begin((lease, course.tether()), &sql, course.deadline).await;
        let (open, mut row) = begun.map_err(with_remedy)?;
        match row.len() {
            1 => Ok((open, Found::Nothing)),
            2 => Ok((open, Found::Used(row.swap_remove(0)))),
            _ => {
                open.roll_back().await;
                Err(Broken::because("the key was stored and is not there", Outcome::RolledBack))
            }
        }
    }

    /// Runs the work and commits its answer with it.
    async fn run<B, T, E, F>(
        &self,
        course: &Course<'_, B>,
        open: Open<B>,
        work: impl FnOnce(Transaction<B>) -> F,
    ) -> Result<T, Broken>
    where
        B: Backend,
        T: Serialize,
        F: Future<Output = Result<T, E>>,
        E: Into<BoxError>,
    {
        let (open, value) = open.run(work).await?;
        let answer = match serde_json::to_string(&value) {
            Ok(answer) => literal(&answer),
            Err(error) => {
                open.roll_back().await;
                return Err(Broken::by(error.into(), None, |_| Outcome::RolledBack));
            }
        };
        let committed = open
            .commit_by(&format!("UPDATE pgdetour.writes SET answer = {answer} WHERE key = {}; COMMIT", self.key))
            .await?;
        course.committed(committed.unconfirmed);
        if fastrand::u32(..TIDY_EVERY) == 0 {
            tokio::spawn(tidy(committed.lease));
        }
        Ok(value)
    }
}

/// Says what to do where there is no table for keys.
fn with_remedy(broken: Broken) -> Broken {
    match broken.fault {
        Some(Fault::Reported { sqlstate, .. }) if sqlstate.as_str() == "42P01" => {
            Broken { cause: Cause::new("there is no table for keys: `pgdetour migrate` makes it"), ..broken }
        }
        _ => broken,
    }
}

/// Gives the transaction up and the stored answer back. Where there is none, or none of the type that is asked for, it has happened
/// all the same.
async fn read<B: Backend, T: DeserializeOwned>(open: Open<B>, answer: Option<String>) -> Result<T, Broken> {
    open.roll_back().await;
    let Some(answer) = answer else {
        let why = "work that ended its transaction itself has used the key, and left no answer";
        return Err(Broken::because(why, Outcome::Unknown));
    };
    serde_json::from_str(&answer).map_err(|error| Broken::by(error.into(), None, |_| Outcome::Unknown))
}

/// Deletes some keys that have expired, over a connection that is done with.
async fn tidy<B: Backend>(lease: Lease<B>) {
    let sql = format!(
        "DELETE FROM pgdetour.writes WHERE key IN (SELECT w.key FROM pgdetour.writes w \
         WHERE w.expires_at <= pg_catalog.now() ORDER BY w.expires_at LIMIT {TIDY_BATCH} FOR UPDATE SKIP LOCKED)"
    );
    let deleted = B::execute(&lease, &sql);
    // Where it fails or takes too long, the next one tries again.
    let _ = timeout(TIDY_WITHIN, deleted).await;
}
