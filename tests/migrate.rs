//! What the router keeps in a database gets there once, whole, and by whoever may.

#![cfg(all(feature = "cli", feature = "testkit"))]

use std::{error::Error, process::Output, time::Duration};

use pgdetour::{MigrateError, migrate, pending_migrations, testkit::Cluster};
use serde_json::Value;
use tempfile::TempDir;
use tokio::{process::Command, task::JoinSet, time::timeout};
use tokio_postgres::Client;

type Tested = Result<(), Box<dyn Error>>;

/// Long enough for anything that is going to happen at all.
const SOON: Duration = Duration::from_secs(60);

async fn number(client: &Client, sql: &str) -> Result<i64, tokio_postgres::Error> {
    Ok(client.query_one(sql, &[]).await?.get(0))
}

#[tokio::test(flavor = "multi_thread")]
async fn of_many_that_start_together_one_migrates_and_the_others_find_it_done() -> Tested {
    let cluster = Cluster::start(0).await?;
    let mut starting = JoinSet::new();
    for _ in 0..8 {
        let client = cluster.primary().connect().await?;
        starting.spawn(async move { migrate(&client).await.map(|applied| applied.len()) });
    }
    let mut applied = Vec::new();
    while let Some(done) = timeout(SOON, starting.join_next()).await? {
        applied.push(done??);
    }
    applied.sort_unstable();
    assert_eq!(applied[..7], [0; 7]);
    let client = cluster.primary().connect().await?;
    assert_eq!(number(&client, "SELECT count(*) FROM pgdetour.migrations").await?, i64::try_from(applied[7])?);
    assert!(pending_migrations(&client).await?.is_empty());
    assert_eq!(number(&client, "SELECT count(*) FROM pgdetour.writes").await?, 0);
    Ok(())
}

#[tokio::test]
async fn a_database_that_is_ahead_or_was_changed_is_refused_and_left_alone() -> Tested {
    let cluster = Cluster::start(0).await?;
    let client = cluster.primary().connect().await?;
    assert_eq!(pending_migrations(&client).await?, migrate(&client).await?);
    cluster.primary().execute("INSERT INTO pgdetour.migrations VALUES (1000, 'later', 'x')").await?;
    let told = migrate(&client).await.unwrap_err();
    assert!(matches!(&told, MigrateError::Newer { migration } if migration == "1000_later"), "{told}");
    assert!(pending_migrations(&client).await.is_err());
    cluster.primary().execute("UPDATE pgdetour.migrations SET checksum = 'other' WHERE number = 1").await?;
    let told = migrate(&client).await.unwrap_err();
    assert!(matches!(&told, MigrateError::Changed { migration } if migration == "0001_writes"), "{told}");
    // The connection is as it was: outside a transaction.
    assert_eq!(number(&client, "SELECT count(*) FROM pgdetour.migrations").await?, 3);
    Ok(())
}

#[tokio::test]
async fn a_role_without_the_right_and_a_replica_are_told_so_and_nothing_is_half_done() -> Tested {
    let cluster = Cluster::builder().replicas(1).user("app").start().await?;
    let client = cluster.primary().connect().await?;
    let told = migrate(&client).await.unwrap_err();
    assert!(matches!(told, MigrateError::Rights(_)), "{told}");
    let half = "SELECT count(*) FROM pg_namespace WHERE nspname = 'pgdetour'";
    assert_eq!(number(&client, half).await?, 0);

    let told = migrate(&cluster.replica(0).connect().await?).await.unwrap_err();
    assert!(matches!(told, MigrateError::Replica), "{told}");

    // A schema of its own, made by somebody else, is enough.
    cluster.primary().execute("CREATE SCHEMA pgdetour AUTHORIZATION app").await?;
    let told = migrate(&client).await;
    assert!(told.is_ok(), "{told:?}");
    Ok(())
}

async fn run(dir: &TempDir, args: &[&str]) -> Result<(Output, Value), Box<dyn Error>> {
    let mut command = Command::new(env!("CARGO_BIN_EXE_pgdetour"));
    command.arg("migrate").args(args).arg("--json").current_dir(dir.path()).env_remove("RUST_LOG").kill_on_drop(true);
    let output = timeout(SOON, command.output()).await??;
    let told = serde_json::from_slice(&output.stdout).map_err(|error| format!("{error}: {output:?}"))?;
    Ok((output, told))
}

#[tokio::test]
async fn the_program_migrates_and_says_what_it_did_and_why_not() -> Tested {
    let cluster = Cluster::start(1).await?;
    let dir = tempfile::tempdir()?;
    let declared = |url: &str| format!("[alias.primary]\nrole = \"primary\"\nurl = \"{url}\"\n");
    std::fs::write(dir.path().join("pgdetour.toml"), declared(&cluster.primary().url()))?;
    std::fs::write(dir.path().join("replica.toml"), declared(&cluster.replica(0).url()))?;

    let (_, told) = run(&dir, &["--dry-run"]).await?;
    assert_eq!((&told["fine"], &told["missing"][0]["name"]), (&true.into(), &"writes".into()), "{told:#}");
    let (output, told) = run(&dir, &[]).await?;
    assert_eq!((output.status.code(), &told["applied"][0]["number"]), (Some(0), &1.into()), "{told:#}");
    let (_, told) = run(&dir, &["pgdetour.toml"]).await?;
    assert_eq!(told["applied"], Value::Array(Vec::new()), "{told:#}");

    let (output, told) = run(&dir, &["replica.toml"]).await?;
    assert_eq!(output.status.code(), Some(1));
    assert!(told["error"].as_str().is_some_and(|error| error.contains("is a replica")), "{told:#}");
    let (output, _) = run(&dir, &["--alias", "other"]).await?;
    assert_eq!(output.status.code(), Some(2));
    cluster.primary().execute("INSERT INTO pgdetour.migrations VALUES (1000, 'later', 'x')").await?;
    let (output, told) = run(&dir, &[]).await?;
    assert_eq!(output.status.code(), Some(1));
    assert!(told["error"].as_str().is_some_and(|error| error.contains("1000_later")), "{told:#}");
    Ok(())
}
