//! The ledger: many writes under faults of every kind, and at the end the books have to balance. `make soak` runs the long version.

#![cfg(all(feature = "deadpool", feature = "testkit", feature = "once"))]

#[path = "ledger/chaos.rs"]
mod chaos;

use std::{
    collections::HashMap,
    error::Error,
    fmt,
    sync::{
        Arc,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
    time::Duration,
};

use pgdetour::{
    Alias, Config, Router, Transaction,
    config::{CallSettings, Pings, PoolSettings, Role},
    policy::Outcome,
    testkit::Cluster,
};
use tokio::{sync::watch, task::JoinSet, time::timeout};

use self::chaos::{Ambush, Chaos};

type Tested = Result<(), Box<dyn Error>>;

const MS: Duration = Duration::from_millis(1);

/// So many callers at once.
const CALLERS: u64 = 8;

/// One call out of so many is given up by its caller in the middle.
const CANCELLED: u32 = 8;

/// How many writes: from the environment, or so many as a test has time for.
fn count() -> u64 {
    std::env::var("PGDETOUR_LEDGER").ok().and_then(|count| count.parse().ok()).unwrap_or(2500)
}

/// What the callers were told of one entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Told {
    Acknowledged,
    Undone,
    Unknown,
    Cancelled,
}

/// What the callers were told, against what is there.
#[derive(Debug, Default)]
struct Books {
    acknowledged: usize,
    undone: usize,
    unknown: usize,
    cancelled: usize,
    executed: usize,
    doubled: usize,
    /// Acknowledged and not there.
    lost: usize,
    /// There, and reported as not sent or rolled back.
    denied: usize,
}

impl Books {
    fn close(told: &HashMap<i64, Told>, there: &HashMap<i64, i64>) -> Self {
        let count = |what: Told| told.values().filter(|told| **told == what).count();
        let which = |what: Told, is_there: bool| {
            told.iter().filter(|(entry, told)| **told == what && there.contains_key(entry) == is_there).count()
        };
        Self {
            acknowledged: count(Told::Acknowledged),
            undone: count(Told::Undone),
            unknown: count(Told::Unknown),
            cancelled: count(Told::Cancelled),
            executed: there.len(),
            doubled: there.values().filter(|times| **times > 1).count(),
            lost: which(Told::Acknowledged, false),
            denied: which(Told::Undone, true),
        }
    }

    fn balance(&self) {
        assert_eq!((self.lost, self.doubled, self.denied), (0, 0, 0), "{self}");
    }
}

impl fmt::Display for Books {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "acknowledged {}, undone {}, unknown {}, cancelled {}, executed {}, doubled {}, lost {}, denied {}",
            self.acknowledged,
            self.undone,
            self.unknown,
            self.cancelled,
            self.executed,
            self.doubled,
            self.lost,
            self.denied
        )
    }
}

/// A primary behind a faulty network, and a router that writes there.
struct Stage {
    cluster: Arc<Cluster>,
    chaos: Chaos,
    router: Router,
}

impl Stage {
    async fn set() -> Result<Self, Box<dyn Error>> {
        let cluster = Arc::new(Cluster::start(0).await?);
        let client = cluster.primary().connect().await?;
        pgdetour::migrate(&client).await?;
        client.batch_execute("CREATE TABLE ledger (entry int8 NOT NULL)").await?;
        let chaos = Chaos::new(Arc::clone(&cluster)).await?;
        let pings = Pings {
            monitoring_ping_frequency: 1000 * MS,
            outage_ping_frequency: 100 * MS,
            error_ping_frequency: 20 * MS,
            ping_timeout: 300 * MS,
            outage_ping_timeout: 100 * MS,
            slow_after: 200 * MS,
            ..Pings::default()
        };
        let config = Config::builder()
            .pings(pings)
            .pool(PoolSettings { connect_timeout: 300 * MS, ..PoolSettings::of_size(6) })
            .calls(CallSettings { call_timeout: 2000 * MS, retry_budget: 100, ..CallSettings::default() })
            .server("primary", Role::Primary, chaos.url());
        let router = Router::start(config.build()?).await?;
        Ok(Self { cluster, chaos, router })
    }

    /// Has the callers make so many calls under faults, and tells what each was told.
    async fn play<F>(
        &mut self,
        calls: u64,
        call: impl Fn(Alias, i64) -> F,
    ) -> Result<HashMap<i64, Told>, Box<dyn Error>>
    where
        F: Future<Output = Told> + Send + 'static,
    {
        let (done, progress) = watch::channel(0);
        let done = Arc::new(done);
        let next = Arc::new(AtomicU64::new(0));
        let primary = self.router.alias("primary")?;
        let call = Arc::new(call);
        let mut callers = JoinSet::new();
        let mut told = HashMap::new();
        let start = |callers: &mut JoinSet<(i64, Told)>| {
            let entry = next.fetch_add(1, Ordering::Relaxed);
            if entry < calls {
                let (done, entry) = (Arc::clone(&done), i64::try_from(entry).unwrap_or_default());
                let called = call(primary.clone(), entry);
                callers.spawn(async move {
                    let told = called.await;
                    done.send_modify(|done| *done += 1);
                    (entry, told)
                });
            }
        };
        (0..CALLERS).for_each(|_| start(&mut callers));
        // A long run has more calls for each fault: those take longest.
        let faults = self.chaos.reign(progress, 20.max(calls / 2000));
        let calls = async {
            while let Some(ended) = callers.join_next().await {
                let (entry, what) = ended?;
                told.insert(entry, what);
                // Twenty times in all: a long run shows that it goes on.
                if (told.len() as u64).is_multiple_of((calls / 20).max(1)) {
                    println!("{} of {calls} calls", told.len());
                }
                start(&mut callers);
            }
            Ok::<_, Box<dyn Error>>(())
        };
        tokio::select! {
            faults = faults => faults?,
            calls = calls => calls?,
        }
        Ok(told)
    }

    /// What is there, once nothing is under way any more.
    async fn entries(&self) -> Result<HashMap<i64, i64>, Box<dyn Error>> {
        self.chaos.end().await?;
        self.router.shutdown().await;
        // A session that the router has lost may not have noticed that yet.
        self.cluster.primary().restart().await?;
        let client = self.cluster.primary().connect().await?;
        let rows = client.query("SELECT entry, count(*) FROM ledger GROUP BY entry", &[]).await?;
        Ok(rows.iter().map(|row| (row.get(0), row.get(1))).collect())
    }
}

async fn enter(transaction: Transaction, entry: i64, ambush: Arc<Ambush>) -> Result<i64, Box<dyn Error + Send + Sync>> {
    transaction.execute("INSERT INTO ledger VALUES ($1)", &[&entry]).await?;
    // The second statement makes a transaction that can fail in its middle.
    let row = transaction.query_one("SELECT $1::int8 * 2", &[&entry]).await?;
    ambush.meet().await?;
    Ok(row.get(0))
}

fn told(written: Result<i64, pgdetour::Error>) -> Told {
    match written.map_err(|error| error.outcome()) {
        Ok(_) => Told::Acknowledged,
        Err(Outcome::Unknown) => Told::Unknown,
        Err(Outcome::NotSent | Outcome::RolledBack) => Told::Undone,
    }
}

/// Makes a call, or gives it up after a moment.
async fn patiently(call: impl Future<Output = Told>) -> Told {
    if fastrand::u32(..CANCELLED) > 0 {
        return call.await;
    }
    timeout(Duration::from_micros(fastrand::u64(..4000)), call).await.unwrap_or(Told::Cancelled)
}

#[tokio::test(flavor = "multi_thread")]
async fn no_write_that_was_executed_is_reported_as_undone_and_none_is_done_twice() -> Tested {
    let mut stage = Stage::set().await?;
    let ambush = stage.chaos.ambush();
    let call = |primary: Alias, entry| {
        let ambush = Arc::clone(&ambush);
        async move {
            primary_is_back(&primary).await;
            let work = |transaction| enter(transaction, entry, Arc::clone(&ambush));
            patiently(async { told(primary.write(work).await) }).await
        }
    };
    let said = stage.play(count().min(10_000), call).await?;
    let books = Books::close(&said, &stage.entries().await?);
    println!("write: {books}; {}", stage.chaos);
    books.balance();
    assert!(books.acknowledged > 0 && books.unknown + books.undone > 0, "{books}");
    Ok(())
}

/// Calls with the same key until that is answered: what a caller does who has to know. Who gives up in between may begin anew.
async fn insist(primary: Alias, entry: i64, ambush: Arc<Ambush>, unknown: Arc<AtomicUsize>) -> Told {
    let key = format!("entry {entry}");
    let work = |transaction| enter(transaction, entry, Arc::clone(&ambush));
    loop {
        match patiently(async { told(primary.write_once(&key, work).await) }).await {
            Told::Acknowledged => return Told::Acknowledged,
            // Nobody asks again.
            Told::Cancelled if fastrand::bool() => return Told::Cancelled,
            Told::Undone => primary_is_back(&primary).await,
            Told::Unknown => drop(unknown.fetch_add(1, Ordering::Relaxed)),
            Told::Cancelled => {}
        }
    }
}

/// Waits until the primary lends connections again. A refusal comes at once, and says little.
async fn primary_is_back(primary: &Alias) {
    let mut looks = tokio::time::interval(MS);
    while primary.get().await.is_err() {
        looks.tick().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_to_happen_once_is_neither_lost_nor_doubled() -> Tested {
    let mut stage = Stage::set().await?;
    let (ambush, unknown) = (stage.chaos.ambush(), Arc::new(AtomicUsize::new(0)));
    let call = |primary, entry| insist(primary, entry, Arc::clone(&ambush), Arc::clone(&unknown));
    let said = stage.play(count(), call).await?;
    // Those that were told to somebody who then called again.
    let unknown = unknown.load(Ordering::Relaxed);
    let books = Books { unknown, ..Books::close(&said, &stage.entries().await?) };
    println!("write_once: {books}; {}", stage.chaos);
    books.balance();
    assert_eq!(books.acknowledged + books.cancelled, said.len(), "{books}");
    Ok(())
}
