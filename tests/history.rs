//! Outages are kept in the database: each once, also those of that database itself, and a report tells them.

#![cfg(all(feature = "cli", feature = "history", feature = "testkit"))]

use std::{error::Error, process::Output, time::Duration};

use pgdetour::{
    Config, Event, Events, Router,
    config::{Pings, Role},
    history::{SELECT, SeenOutage},
    migrate,
    observe::OutageRecord,
    testkit::{Cluster, Server},
};
use serde_json::Value;
use tempfile::TempDir;
use tokio::{process::Command, time::timeout};

type Tested = Result<(), Box<dyn Error>>;

/// Long enough for anything that is going to happen at all.
const SOON: Duration = Duration::from_secs(60);

fn config(cluster: &Cluster) -> Result<Config, Box<dyn Error>> {
    let pings = Pings { outage_ping_frequency: Duration::from_millis(100), ..Pings::brisk() };
    let config = Config::builder()
        .pings(Pings { error_ping_frequency: Duration::from_millis(100), ..pings })
        .server("primary", Role::Primary, cluster.primary().url())
        .server("replica", Role::Replica, cluster.replica(0).url())
        .history("primary");
    Ok(config.build()?)
}

async fn migrated() -> Result<Cluster, Box<dyn Error>> {
    let cluster = Cluster::start(1).await?;
    migrate(&cluster.primary().connect().await?).await?;
    Ok(cluster)
}

async fn heard(events: &mut Events, name: &str, alias: Option<&str>) -> Result<Event, Box<dyn Error>> {
    let heard = async {
        while let Some(event) = events.next().await {
            if event.kind.name() == name && alias.is_none_or(|alias| event.is_about(alias)) {
                return Ok(event);
            }
        }
        Err(format!("the end came before {name}"))
    };
    Ok(timeout(SOON, heard).await.map_err(|_| format!("no {name} of {alias:?}"))??)
}

async fn stored(server: &Server) -> Result<Vec<SeenOutage>, Box<dyn Error>> {
    let rows = server.connect().await?.query(SELECT, &[&"0"]).await?;
    let columns = |row: &tokio_postgres::Row| (0..row.len()).map(|column| row.get(column)).collect::<Vec<_>>();
    let seen = rows.iter().map(|row| SeenOutage::from_columns(&columns(row)).ok_or("not a row"));
    Ok(seen.collect::<Result<_, _>>()?)
}

fn outages(seen: Vec<SeenOutage>) -> Vec<OutageRecord> {
    seen.into_iter().map(|seen| seen.outage).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn every_outage_is_stored_once_with_its_times_also_that_of_the_primary_itself() -> Tested {
    let cluster = migrated().await?;
    let router: Router = Router::start(config(&cluster)?).await?;
    let mut events = router.events();
    cluster.replica(0).kill().await?;
    heard(&mut events, "outage_opened", Some("replica")).await?;
    cluster.primary().kill().await?;
    heard(&mut events, "outage_opened", Some("primary")).await?;
    cluster.replica(0).start().await?;
    heard(&mut events, "outage_closed", Some("replica")).await?;
    cluster.primary().start().await?;
    heard(&mut events, "outage_closed", Some("primary")).await?;
    let known = router.outages();
    // It waits for what is still to be stored.
    router.shutdown().await;
    let stored = stored(cluster.primary()).await?;
    assert!(stored.iter().all(|one| one.process.contains(&format!("/{}", std::process::id()))), "{stored:#?}");
    assert_eq!(outages(stored), known);
    assert_eq!(known.iter().filter(|outage| outage.closed.is_some()).count(), 2);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_table_that_is_missing_is_told_once_and_outages_wait_for_it() -> Tested {
    let cluster = Cluster::start(1).await?;
    let router: Router = Router::start(config(&cluster)?).await?;
    let mut events = router.events();
    cluster.replica(0).kill().await?;
    let told = heard(&mut events, "history_stalled", None).await?;
    assert!(
        told.kind.to_string().contains("1 outages cannot be stored") && told.kind.to_string().contains("migrate"),
        "{told:?}"
    );
    migrate(&cluster.primary().connect().await?).await?;
    heard(&mut events, "history_resumed", None).await?;
    let (stored, known) = (stored(cluster.primary()).await?, router.outages());
    assert_eq!((stored.len(), &stored[0].outage.id, stored[0].outage.closed), (1, &known[0].id, None));
    Ok(())
}

async fn report(dir: &TempDir, args: &[&str]) -> Result<Output, Box<dyn Error>> {
    let mut command = Command::new(env!("CARGO_BIN_EXE_pgdetour"));
    command.arg("report").args(args).current_dir(dir.path()).env_remove("RUST_LOG").kill_on_drop(true);
    Ok(timeout(SOON, command.output()).await??)
}

fn said(output: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

/// What two processes have seen of one outage, and one of another that is open and not heard of any more.
const ROWS: &str = "INSERT INTO pgdetour.outages VALUES
    ('1', 'a/1', 'replica', 'db2:5432/app', now() - interval '2 hours', 12, now() - interval '1 hour', 3600000, now() - interval '1 hour',
        E'refused \\x1b[31m<b>', 'refused', 'primary', 600, 0, 1),
    ('2', 'b/1', 'replica', 'db2:5432/app', now() - interval '2 hours', 20, now() - interval '1 hour', 3600000, now() - interval '1 hour',
        'refused', 'refused', 'primary', 25, 0, 0),
    ('3', 'a/1', 'primary', 'db1:5432/app', now() - interval '9 hours', 5, NULL, 0, now() - interval '8 hours',
        '=1+1', 'silent', NULL, 0, 7, 0)";

#[tokio::test(flavor = "multi_thread")]
async fn a_report_tells_times_and_shares_as_a_table_as_json_and_as_csv() -> Tested {
    let cluster = migrated().await?;
    let dir = tempfile::tempdir()?;
    let (primary, replica) = (cluster.primary().url(), cluster.replica(0).url());
    let text = format!(
        "history = \"primary\"\n[alias.primary]\nrole = \"primary\"\nurl = \"{primary}\"\n[alias.replica]\nrole = \"replica\"\nurl = \"{replica}\"\n"
    );
    std::fs::write(dir.path().join("pgdetour.toml"), text)?;
    cluster.primary().execute(ROWS).await?;
    cluster.wait_for_replay().await?;

    let output = report(&dir, &["--json", "--since", "10h"]).await?;
    let told: Value = serde_json::from_slice(&output.stdout).map_err(|error| format!("{error}: {}", said(&output)))?;
    let [first, second] = [&told["outages"][0], &told["outages"][1]];
    assert_eq!(
        (&first["name"], &first["open"], &first["refused"]),
        (&"primary".into(), &false.into(), &7.into()),
        "{told:#}"
    );
    assert_eq!(
        (&second["processes"], &second["lasted_ms"], &second["detected_ms"]["max"], &second["detoured"]),
        (&2.into(), &3_600_000.into(), &20.into(), &625.into()),
        "{told:#}"
    );
    let replica = &told["aliases"][1];
    assert_eq!(replica["available"].as_f64().map(f64::round), Some(90.0), "{told:#}");
    assert_eq!(replica["served"].as_f64(), Some(100.0), "{told:#}");

    // The replica has the history too.
    cluster.primary().kill().await?;
    let table = said(&report(&dir, &[]).await?);
    assert!(table.contains("2 processes") && table.contains("1h at least") && table.contains("99."), "{table}");
    assert!(!table.contains('\x1b') && table.contains("refused \\u{1b}[31m<b>"), "{table}");
    let csv = said(&report(&dir, &["--csv", "--name", "primary"]).await?);
    assert_eq!(csv.lines().count(), 2, "{csv}");
    assert!(
        csv.lines().nth(1).is_some_and(|line| line.starts_with("primary,db1:5432/app,") && line.ends_with(",'=1+1")),
        "{csv}"
    );
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_report_without_a_table_says_how_to_get_one() -> Tested {
    let cluster = Cluster::start(0).await?;
    let dir = tempfile::tempdir()?;
    let text = format!("[alias.primary]\nrole = \"primary\"\nurl = \"{}\"\n", cluster.primary().url());
    std::fs::write(dir.path().join("pgdetour.toml"), text)?;
    let output = report(&dir, &[]).await?;
    assert_eq!(output.status.code(), Some(1));
    let told = said(&output);
    assert!(told.contains("run pgdetour migrate pgdetour.toml") && told.contains("history = \"primary\""), "{told}");
    let output = report(&dir, &["--since", "soon"]).await?;
    assert_eq!(output.status.code(), Some(2), "{}", said(&output));
    Ok(())
}
