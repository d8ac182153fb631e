//! A replica that is drained by hand under reads: they go elsewhere, none fails, and they come back when it ends by itself.

use std::time::Duration;

use pgdetour::{EventKind, Mode, Router, pool::DeadpoolPostgres};

use crate::harness::{Load, Pair, Story, Tested, soon};

#[tokio::test(flavor = "multi_thread")]
async fn reads_of_a_drained_replica_go_to_the_primary_and_come_back_when_the_drain_ends_and_none_fails() -> Tested {
    let pair = Pair::start().await?;
    let router = Router::<DeadpoolPostgres>::start(pair.config().build()?).await?;
    let (replica, mut story) = (router.alias("replica")?, Story::of(&router));
    let mut load = Load::reading(&replica);
    load.until_at_home(20).await?;
    router.drain("replica", Duration::from_secs(4), "test").await?;
    let kind = story.until("replica", "drained").await?;
    let EventKind::Drained { detour, .. } = kind else { unreachable!() };
    assert_eq!(detour.as_ref().map(|target| target.as_str()), Some("primary"));
    load.until("reads elsewhere", |report| report.at_home == 0 && report.detoured > 100).await?;
    assert_eq!(router.mode(), Mode::Degraded);
    let size = || router.status().server("replica").map(|server| server.pool.size);
    let empty = async {
        while size() != Some(0) {
            load.until_more(1).await?;
        }
        Ok::<_, Box<dyn std::error::Error>>(())
    };
    soon("no session is left at the drained server", empty).await??;
    story.until("replica", "undrained").await?;
    let report = load.end_at_home().await?;
    assert_eq!(report.retried, 0, "{report:?}");
    assert_eq!(story.so_far("replica").await, ["drained", "undrained"]);
    assert!(router.outages().is_empty());
    Ok(())
}
