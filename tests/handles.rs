//! What this process lacks says nothing about a server (F60): out of file handles, no connection can be made, and no outage opens.

#![cfg(all(feature = "deadpool", feature = "testkit"))]

use std::{error::Error, fs::File, io, process::Command, time::Duration};

use pgdetour::{
    Config, Router,
    config::{Pings, Role},
    testkit::Cluster,
};
use tokio::time::timeout;

type Tested = Result<(), Box<dyn Error>>;

/// Long enough for anything that is going to happen at all.
const SOON: Duration = Duration::from_secs(20);

/// Where the part with few handles finds its server.
const URL: &str = "PGDETOUR_TEST_URL";

/// A limit holds for a whole process, so the test starts itself again as one of its own.
#[tokio::test(flavor = "multi_thread")]
async fn a_process_without_file_handles_opens_no_outage_and_recovers_with_them() -> Tested {
    if let Ok(url) = std::env::var(URL) {
        return with_few_handles(url).await;
    }
    let cluster = Cluster::start(0).await?;
    let (itself, url) = (std::env::current_exe()?, cluster.primary().url());
    let part = tokio::task::spawn_blocking(move || {
        Command::new("sh")
            .args(["-c", r#"ulimit -n 100; exec "$0" "$@""#])
            .arg(itself)
            .args(["--exact", "a_process_without_file_handles_opens_no_outage_and_recovers_with_them", "--nocapture"])
            .env(URL, url)
            .output()
    });
    let output = part.await??;
    let said = String::from_utf8_lossy(&output.stdout) + String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && said.contains("1 passed"), "{said}");
    Ok(())
}

async fn with_few_handles(url: String) -> Tested {
    let pings = Pings { error_ping_frequency: Duration::from_millis(50), ..Pings::brisk() };
    let config = Config::builder().pings(pings).server("primary", Role::Primary, url);
    let router: Router = Router::start(config.build()?).await?;
    let (primary, mut events) = (router.alias("primary")?, router.events());
    let held = primary.get().await?;
    let mut handles = Vec::new();
    while let Ok(handle) = File::open("/dev/null") {
        handles.push(handle);
    }
    // Neither a request nor a ping gets a socket.
    let refused = timeout(SOON, primary.get()).await?.expect_err("it takes a handle");
    assert!(refused.is_unavailable() && refused.to_string().contains("os error 24"), "{refused}");
    assert!(primary.report(&io::Error::from(io::ErrorKind::ConnectionRefused)));
    let told = timeout(SOON, events.next()).await?.ok_or("the router has not ended")?;
    assert_eq!(told.kind.name(), "ping_inconclusive", "{told:?}");
    held.simple_query("SELECT 1").await?;
    drop(handles);
    timeout(SOON, primary.get()).await??.simple_query("SELECT 1").await?;
    router.shutdown().await;
    drop((primary, router));
    let mut told = Vec::new();
    while let Some(event) = timeout(SOON, events.next()).await? {
        told.push(event.kind.name());
    }
    assert!(!told.contains(&"outage_opened"), "{told:?}");
    Ok(())
}
