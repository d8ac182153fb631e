//! What is logged about one outage from beginning to end, and that a password is in none of it.
//!
//! One test alone in its process: everything that anybody logs there is captured, the driver and the pool included.

#![cfg(all(feature = "deadpool", feature = "testkit"))]

use std::{
    collections::BTreeMap,
    error::Error,
    fmt::{Debug, Write as _},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use pgdetour::{
    Config, Router,
    config::{ConfigError, Pings, Role},
    observe::Events,
    testkit::Cluster,
};
use tokio::time::timeout;
use tracing::{
    Level, Metadata, Subscriber,
    field::{Field, Visit},
    span,
};
use tracing_subscriber::{Layer, layer::Context, prelude::*};

type Tested = Result<(), Box<dyn Error>>;

const SOON: Duration = Duration::from_secs(25);
const PASSWORD: &str = "Hush hush, 100% s3cret/'quoted'";

/// One line of the log.
#[derive(Clone, Debug)]
struct Record {
    level: Level,
    target: String,
    fields: BTreeMap<String, String>,
}

impl Visit for Record {
    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        self.fields.insert(field.name().to_owned(), format!("{value:?}"));
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        self.fields.insert(field.name().to_owned(), value.to_owned());
    }
}

/// Keeps everything, of every level.
#[derive(Clone, Default)]
struct Capture(Arc<Mutex<Vec<Record>>>);

impl Capture {
    fn lock(&self) -> MutexGuard<'_, Vec<Record>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn keep(&self, metadata: &Metadata<'_>, fill: impl FnOnce(&mut Record)) {
        let (level, target) = (*metadata.level(), metadata.target().to_owned());
        let mut record = Record { level, target, fields: BTreeMap::new() };
        fill(&mut record);
        self.lock().push(record);
    }

    fn all(&self) -> Vec<Record> {
        self.lock().clone()
    }

    /// Those that an operator would be woken by.
    fn loud(&self) -> Vec<Record> {
        self.all().into_iter().filter(|record| record.level <= Level::WARN).collect()
    }

    /// Those of this name.
    fn named(&self, name: &str) -> Vec<Record> {
        self.all().into_iter().filter(|record| record.fields.get("event").is_some_and(|event| event == name)).collect()
    }
}

impl<S: Subscriber> Layer<S> for Capture {
    fn on_event(&self, event: &tracing::Event<'_>, _: Context<'_, S>) {
        self.keep(event.metadata(), |record| event.record(record));
    }

    fn on_new_span(&self, attributes: &span::Attributes<'_>, _: &span::Id, _: Context<'_, S>) {
        self.keep(attributes.metadata(), |record| attributes.record(record));
    }
}

/// The driver logs by another crate: here as lines of text.
#[derive(Default)]
struct Driver(Mutex<String>);

impl Driver {
    fn lock(&self) -> MutexGuard<'_, String> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl log::Log for Driver {
    fn enabled(&self, _: &log::Metadata<'_>) -> bool {
        true
    }

    fn log(&self, record: &log::Record<'_>) {
        let _ = writeln!(self.lock(), "{} {} {}", record.level(), record.target(), record.args());
    }

    fn flush(&self) {}
}

/// The threads of this process, by name.
fn threads() -> Vec<String> {
    let tasks = std::fs::read_dir("/proc/self/task").into_iter().flatten().flatten();
    tasks.filter_map(|task| std::fs::read_to_string(task.path().join("comm")).ok()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn an_outage_is_logged_with_all_its_fields_a_healthy_run_not_at_all_and_no_password_ever() -> Tested {
    let capture = Capture::default();
    // Not `init`: where another crate asks for it, that takes the log of the driver as well.
    tracing::subscriber::set_global_default(tracing_subscriber::registry().with(capture.clone()))?;
    let driver: &'static Driver = Box::leak(Box::default());
    log::set_logger(driver).map_err(|error| error.to_string())?;
    log::set_max_level(log::LevelFilter::Trace);

    let cluster = Cluster::builder().replicas(1).user("app").password(PASSWORD).start().await?;
    let config = config(&cluster)?;
    let mut printed = format!("{config:?} {config:#?} {cluster:?}");
    let router: Router = Router::start(config).await?;
    let mut events = router.events();
    healthy_run(&router, &mut printed).await?;
    assert!(capture.loud().is_empty(), "{:?}", capture.loud());
    assert!(!driver.lock().lines().any(|line| line.starts_with("WARN") || line.starts_with("ERROR")));
    outage(&router, &cluster, &mut events, &mut printed).await?;
    check_records(&capture, &cluster.replica(0).port().to_string());

    drop(router);
    while timeout(SOON, events.next()).await?.is_some() {}
    let ended = async {
        while threads().iter().any(|name| name.starts_with("pgdetour-monit")) {
            tokio::task::yield_now().await;
        }
    };
    timeout(SOON, ended).await.map_err(|_| "the monitor's thread goes on")?;

    let records = capture.all().iter().fold(String::new(), |all, record| format!("{all}{record:?}\n"));
    let driver = driver.lock().clone();
    assert!(records.contains("session ended") && driver.contains("tokio_postgres"), "everything is captured");
    for text in [printed, records, driver] {
        let found =
            ["s3cret", "Hush", "quoted"].iter().find_map(|piece| text.lines().find(|line| line.contains(piece)));
        assert_eq!(found, None, "a piece of the password is printed");
    }
    Ok(())
}

fn config(cluster: &Cluster) -> Result<Config, ConfigError> {
    let pings = Pings {
        monitoring_ping_frequency: Duration::from_secs(1),
        outage_ping_frequency: Duration::from_millis(300),
        error_ping_frequency: Duration::from_millis(50),
        outage_log_frequency: Duration::from_millis(400),
        ..Pings::default()
    };
    Config::builder()
        .pings(pings)
        .server("primary", Role::Primary, cluster.primary().url())
        .server("replica", Role::Replica, cluster.replica(0).url())
        .build()
}

async fn healthy_run(router: &Router, printed: &mut String) -> Tested {
    let replica = router.alias("replica")?;
    write!(printed, "{router:?} {replica:?} {:?} {}", router.table(), replica.explain())?;
    for _ in 0..50 {
        let lease = replica.get().await?;
        lease.query_one("SELECT 1", &[]).await?;
        write!(printed, "{lease:?}")?;
    }
    router.monitor().await;
    Ok(())
}

/// The replica is lost, its outage logged again, the primary lost too, and both come back.
async fn outage(router: &Router, cluster: &Cluster, events: &mut Events, printed: &mut String) -> Tested {
    let replica = router.alias("replica")?;
    cluster.replica(0).kill().await?;
    for expected in ["outage_opened", "mode_changed", "outage_ongoing", "outage_ongoing"] {
        let event = timeout(SOON, events.next()).await?.ok_or("the router ended")?;
        write!(printed, "{event:?}")?;
        assert_eq!(event.kind.name(), expected);
        assert!(replica.get().await?.is_detour());
    }
    cluster.primary().kill().await?;
    let refused = async {
        loop {
            if let Err(error) = replica.get().await {
                return error;
            }
        }
    };
    let refused = timeout(SOON, refused).await?;
    write!(printed, "{refused} {refused:?} {refused:#?}")?;
    cluster.primary().start().await?;
    cluster.replica(0).start().await?;
    let both_back = async {
        let mut closed = 0;
        while closed < 2 {
            let event = events.next().await.expect("the router runs");
            closed += usize::from(event.kind.name() == "outage_closed");
        }
        // Of the last recovery the mode is told next.
        events.next().await;
    };
    Ok(timeout(SOON, both_back).await?)
}

/// The records of the replica's outage have their levels and fields, which people alert on.
fn check_records(capture: &Capture, port: &str) {
    let of = |name: &str| -> Vec<Record> {
        let records = capture.named(name).into_iter();
        records.filter(|record| record.fields["alias"] == "replica").collect()
    };
    let (opened, ongoing, closed) = (of("outage_opened"), of("outage_ongoing"), of("outage_closed"));
    assert_eq!((opened.len(), closed.len()), (1, 1));
    assert!(ongoing.len() >= 2);
    let expected = [
        (&opened[0], Level::ERROR, &["cause", "detour", "detected_in_s"][..]),
        (&ongoing[0], Level::ERROR, &["cause", "duration_s", "detoured", "refused", "failed", "next_ping_s"][..]),
        (&closed[0], Level::INFO, &["duration_s", "detoured", "refused", "failed"][..]),
    ];
    for (record, level, fields) in expected {
        assert_eq!((record.level, record.target.as_str()), (level, "pgdetour"), "{record:?}");
        assert!(record.fields["server"].contains(port), "{record:?}");
        assert_eq!(record.fields["pid"], std::process::id().to_string());
        assert!(fields.iter().all(|field| record.fields.contains_key(*field)), "{record:?}");
    }
    let modes = capture.named("mode_changed");
    let steps: Vec<_> =
        modes.iter().map(|record| (record.level, &*record.fields["from"], &*record.fields["to"])).collect();
    assert_eq!(steps[0], (Level::WARN, "normal", "degraded"));
    assert!(steps.contains(&(Level::WARN, "degraded", "down")), "{steps:?}");
    assert!(steps.last().is_some_and(|last| (last.0, last.2) == (Level::INFO, "normal")), "{steps:?}");
    assert!(modes.iter().all(|record| !record.fields.contains_key("alias") && !record.fields.contains_key("server")));
    assert_eq!(opened[0].fields["detour"], "primary");
    assert!(opened[0].fields["cause"].contains("Connection refused"), "{:?}", opened[0]);
}
