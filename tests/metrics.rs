//! What a scrape sees of a router: on real servers, through the exporter of Prometheus.

use std::{
    collections::{BTreeMap, BTreeSet},
    error::Error,
    path::Path,
    process::Command,
    sync::Arc,
    time::Duration,
};

use metrics_exporter_prometheus::{Matcher, PrometheusBuilder, PrometheusHandle};
use pgdetour::{
    Config, EventKind, Router,
    config::{Pings, PoolSettings, Role},
    metrics::{self, Kind, Observed},
    testkit::Cluster,
};
use serde_json::{Value, json};
use tokio::time::timeout;

type Tested<T = ()> = Result<T, Box<dyn Error>>;

const SOON: Duration = Duration::from_secs(25);

/// What is scraped: a series by its name and labels, with its value.
type Scraped = BTreeMap<String, f64>;

struct Watched {
    observed: Observed,
    handle: PrometheusHandle,
}

impl Watched {
    fn of(router: &Router) -> Tested<Self> {
        let seconds = Matcher::Suffix("_seconds".to_owned());
        let recorder = PrometheusBuilder::new().set_buckets_for_metric(seconds, &metrics::SECONDS)?.build_recorder();
        let handle = recorder.handle();
        Ok(Self { observed: metrics::observe_with(router, Arc::new(recorder)), handle })
    }

    fn scrape(&self) -> Scraped {
        self.observed.refresh();
        let text = self.handle.render();
        let lines = text.lines().filter(|line| !line.starts_with('#'));
        let series = lines.filter_map(|line| line.rsplit_once(' '));
        series.map(|(series, value)| (series.to_owned(), value.parse().expect("a number"))).collect()
    }

    /// Scrapes until this holds.
    async fn until(&self, what: &str, holds: impl Fn(&Scraped) -> bool) -> Tested<Scraped> {
        let looks = async {
            let mut ticks = tokio::time::interval(Duration::from_millis(10));
            loop {
                ticks.tick().await;
                let scraped = self.scrape();
                if holds(&scraped) {
                    return scraped;
                }
            }
        };
        timeout(SOON, looks).await.map_err(|_| format!("never: {what}\n{}", self.handle.render()).into())
    }
}

fn config(cluster: &Cluster) -> Tested<Config> {
    let pool = PoolSettings { max_size: 2, acquire_timeout: Duration::from_millis(200), ..PoolSettings::default() };
    let config = Config::builder()
        .pings(Pings { ping_timeout: Duration::from_millis(500), ..Pings::brisk() })
        .pool(pool)
        .server("primary", Role::Primary, cluster.primary().url())
        .server("replica", Role::Replica, cluster.replica(0).url());
    Ok(config.build()?)
}

async fn select(router: &Router, alias: &str) -> Tested {
    router.alias(alias)?.read(|client| async move { client.batch_execute("SELECT 1").await }).await?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn an_outage_is_seen_from_its_detection_to_its_recovery() -> Tested {
    let cluster = Cluster::start(1).await?;
    let router: Router = Router::start(config(&cluster)?).await?;
    let watched = Watched::of(&router)?;
    select(&router, "replica").await?;
    let before = watched.scrape();
    assert_eq!(before[r#"pgdetour_mode{mode="normal"}"#], 1.0);
    assert_eq!(before[r#"pgdetour_routes_total{alias="replica",server="replica",reason="own"}"#], 1.0);
    assert_eq!(before[r#"pgdetour_calls_total{alias="replica",call="read",outcome="answered"}"#], 1.0);
    assert_eq!(before[r#"pgdetour_outages_total{server="replica"}"#], 0.0);

    let mut events = router.events();
    cluster.replica(0).kill().await?;
    let next = async |wanted: fn(&EventKind) -> bool| {
        while !wanted(&events.next().await.expect("the router runs").kind) {}
    };
    let mut next = next;
    timeout(SOON, next(|kind| matches!(kind, EventKind::OutageOpened { .. }))).await?;
    let down = watched
        .until("detected", |scraped| {
            scraped.get(r#"pgdetour_time_to_detect_seconds_count{server="replica"}"#) == Some(&1.0)
        })
        .await?;
    assert_eq!(down[r#"pgdetour_server_state{server="replica",state="down"}"#], 1.0);
    assert_eq!(down[r#"pgdetour_mode{mode="normal"}"#], 0.0);
    assert_eq!(down[r#"pgdetour_alias_detour{alias="replica"}"#], 1.0);
    select(&router, "replica").await?;
    let detoured = watched.scrape();
    assert_eq!(detoured[r#"pgdetour_routes_total{alias="replica",server="primary",reason="down"}"#], 1.0);
    let longer = watched
        .until("an outage that lasts", |scraped| scraped[r#"pgdetour_outage_seconds{server="replica"}"#] > 0.0)
        .await?;
    assert_eq!(longer[r#"pgdetour_pool_size{alias="replica",server="primary"}"#], 1.0);

    cluster.replica(0).start().await?;
    timeout(SOON, next(|kind| matches!(kind, EventKind::OutageClosed { .. }))).await?;
    let after = watched
        .until("recovered", |scraped| {
            scraped.get(r#"pgdetour_time_to_recover_seconds_count{server="replica"}"#) == Some(&1.0)
        })
        .await?;
    assert_eq!(after[r#"pgdetour_outages_total{server="replica"}"#], 1.0);
    assert_eq!(after[r#"pgdetour_outage_seconds{server="replica"}"#], 0.0);
    all_metrics_are_told(&watched)?;
    only_known_labels(&after);
    Ok(())
}

/// After an outage, and a wait for a connection, nothing is missing.
fn all_metrics_are_told(watched: &Watched) -> Tested {
    let text = watched.handle.render();
    let told: BTreeSet<_> = text.lines().filter_map(|line| line.strip_prefix("# TYPE ")?.split(' ').next()).collect();
    // This router has no services.
    let missing = metrics::ALL.iter().map(|metric| metric.name).filter(|name| !told.contains(name));
    let missing = missing.filter(|name| *name != "pgdetour_service_state");
    assert_eq!(missing.collect::<Vec<_>>(), Vec::<&str>::new(), "{text}");
    Ok(())
}

fn only_known_labels(scraped: &Scraped) {
    for series in scraped.keys() {
        for label in ["alias", "server"] {
            let value = series.split_once(&format!("{label}=\"")).and_then(|(_, rest)| rest.split('"').next());
            assert!(value.is_none_or(|value| ["primary", "replica"].contains(&value)), "{series}");
        }
    }
}

const ALERTS: &str = include_str!("../dashboards/alerts.yml");
const BOARD: &str = include_str!("../dashboards/grafana.json");
const RUNBOOK: &str = include_str!("../docs/runbook.md");

/// Every word of a text that begins like a metric.
fn named(text: &str) -> BTreeSet<&str> {
    let words = text.split(|c: char| !(c.is_ascii_alphanumeric() || c == '_'));
    words.filter(|word| word.starts_with("pgdetour_")).collect()
}

/// Whether the exporter prints series of this name.
fn is_told(name: &str) -> bool {
    metrics::ALL.iter().any(|metric| match metric.kind {
        Kind::Histogram => ["_bucket", "_sum", "_count"].iter().any(|end| name.strip_suffix(end) == Some(metric.name)),
        Kind::Gauge | Kind::Counter => name == metric.name,
    })
}

#[test]
fn every_metric_of_the_dashboard_and_the_alerts_exists_and_the_readme_has_them_all() {
    for (file, text) in [("alerts.yml", ALERTS), ("grafana.json", BOARD)] {
        let names = named(text);
        assert!(names.len() > 8, "{file} names few metrics: {names:?}");
        let unknown: Vec<_> = names.into_iter().filter(|name| !is_told(name)).collect();
        assert_eq!(unknown, Vec::<&str>::new(), "{file}");
    }
    let readme = include_str!("../README.md");
    for metric in metrics::ALL {
        let row = readme.lines().find(|line| line.starts_with(&format!("| `{}` |", metric.name)));
        let row = row.unwrap_or_else(|| panic!("the README has no {}", metric.name));
        assert!(metric.labels.iter().all(|label| row.contains(&format!("`{label}`"))), "{row}");
    }
}

#[test]
fn every_alert_says_what_to_do_and_has_its_entry_in_the_runbook() {
    let alerts: Vec<_> = ALERTS.split("- alert: ").skip(1).collect();
    assert!(alerts.len() > 10);
    for alert in alerts {
        let name = alert.lines().next().expect("an alert has a name");
        for key in ["severity: ", "summary: ", "description: "] {
            assert!(alert.contains(key), "{name} has no {key}");
        }
        let anchor = format!("runbook_url: docs/runbook.md#{}", name.to_lowercase());
        assert!(alert.contains(&anchor), "{name} leads elsewhere");
        let entry = RUNBOOK.split("\n## ").find(|entry| entry.lines().next() == Some(name));
        let entry = entry.unwrap_or_else(|| panic!("the runbook has no {name}"));
        for part in ["What it means.", "What users see.", "How to confirm.", "What to do.", "Safe to leave."] {
            assert!(entry.contains(&format!("**{part}**")), "{name}: {part}");
        }
    }
}

#[test]
fn promtool_finds_the_alerts_valid_and_they_fire_when_they_should() -> Tested {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let found = Command::new("sh").arg(root.join("scripts/promtool.sh")).output()?;
    assert!(found.status.success(), "{}", String::from_utf8_lossy(&found.stderr));
    let promtool = String::from_utf8(found.stdout)?;
    for (what, file) in [("check", "dashboards/alerts.yml"), ("test", "dashboards/alerts_test.yml")] {
        let said = Command::new(promtool.trim()).args([what, "rules"]).arg(root.join(file)).output()?;
        let text = [said.stdout, said.stderr].concat();
        assert!(said.status.success(), "{}", String::from_utf8_lossy(&text));
    }
    Ok(())
}

#[test]
fn promtool_understands_every_query_of_the_dashboard() -> Tested {
    let board: Value = serde_json::from_str(BOARD)?;
    let panels = board["panels"].as_array().ok_or("no panels")?;
    let targets = panels.iter().filter_map(|panel| panel["targets"].as_array()).flatten();
    let queries: Vec<_> = targets.filter_map(|target| target["expr"].as_str()).collect();
    assert!(queries.len() > 20);
    let query = |query: &&str| query.replace("$__rate_interval", "1m").replace("$__range", "1h");
    let rules = queries.iter().enumerate();
    let rules: Vec<_> = rules.map(|(n, text)| json!({"record": format!("query:{n}"), "expr": query(text)})).collect();
    let folder = tempfile::tempdir()?;
    let file = folder.path().join("queries.yml");
    std::fs::write(&file, json!({"groups": [{"name": "board", "rules": rules}]}).to_string())?;
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let found = Command::new("sh").arg(root.join("scripts/promtool.sh")).output()?;
    let promtool = String::from_utf8(found.stdout)?;
    let said = Command::new(promtool.trim()).args(["check", "rules"]).arg(&file).output()?;
    assert!(said.status.success(), "{}", String::from_utf8_lossy(&said.stderr));
    Ok(())
}
