//! A server that is gone: its reads go to the primary and come back (F01, F02, F05, F08).

use pgdetour::{
    EventKind, Router,
    config::Pings,
    health::State,
    pool::{Bb8Postgres, DeadpoolPostgres},
    testkit::Stop,
};

use crate::harness::{Load, MS, Pair, Story, Subject, Tested, number, quick, until};

#[derive(Clone, Copy)]
enum Blow {
    Kill,
    KillPostmaster,
    Stop(Stop),
    Freeze,
}

impl Blow {
    async fn strike(self, pair: &Pair) -> Tested {
        let replica = pair.replica();
        match self {
            Self::Kill => replica.kill().await?,
            Self::KillPostmaster => replica.kill_postmaster().await?,
            Self::Stop(how) => replica.stop(how).await?,
            Self::Freeze => replica.freeze().await?,
        }
        Ok(())
    }

    async fn undo(self, pair: &Pair) -> Tested {
        match self {
            Self::Freeze => pair.replica().thaw().await?,
            Self::Kill | Self::KillPostmaster | Self::Stop(_) => pair.replica().start().await?,
        }
        Ok(())
    }
}

/// Under load: the outage is told once with its detour, reads go to the primary, none fails, and all come back.
async fn no_read_fails<B: Subject>(blow: Blow) -> Tested {
    let pair = Pair::start().await?;
    let router = pair.router::<B>().await?;
    let (replica, mut story) = (router.alias("replica")?, Story::of(&router));
    let mut load = Load::start(&replica);
    load.until_at_home(20).await?;

    blow.strike(&pair).await?;
    let EventKind::OutageOpened { detour, .. } = story.until("replica", "outage_opened").await? else { unreachable!() };
    assert_eq!(detour.expect("there is a primary").as_str(), "primary");
    assert_eq!(replica.target().expect("the primary answers").as_str(), "primary");
    load.until("detoured reads", |report| report.detoured >= 20).await?;

    blow.undo(&pair).await?;
    let EventKind::OutageClosed { tally, .. } = story.until("replica", "outage_closed").await? else { unreachable!() };
    assert!(tally.detoured >= 20, "{tally:?}");
    load.end_at_home().await?;
    until(&router, "primary", State::Up).await?;
    assert_eq!(story.so_far("replica").await, ["outage_opened", "outage_closed"]);
    assert_eq!(story.so_far("primary").await, [""; 0]);
    router.shutdown().await;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn reads_of_a_killed_replica_go_to_the_primary_and_come_back_and_none_fails() -> Tested {
    no_read_fails::<DeadpoolPostgres>(Blow::Kill).await
}

#[tokio::test(flavor = "multi_thread")]
async fn with_bb8_too_no_read_of_a_killed_replica_fails() -> Tested {
    no_read_fails::<Bb8Postgres>(Blow::Kill).await
}

#[tokio::test(flavor = "multi_thread")]
async fn no_read_fails_when_the_postmaster_alone_is_killed() -> Tested {
    no_read_fails::<DeadpoolPostgres>(Blow::KillPostmaster).await
}

#[tokio::test(flavor = "multi_thread")]
async fn no_read_fails_in_a_fast_shutdown() -> Tested {
    no_read_fails::<DeadpoolPostgres>(Blow::Stop(Stop::Fast)).await
}

#[tokio::test(flavor = "multi_thread")]
async fn no_read_fails_in_an_immediate_shutdown() -> Tested {
    no_read_fails::<DeadpoolPostgres>(Blow::Stop(Stop::Immediate)).await
}

#[tokio::test(flavor = "multi_thread")]
async fn no_read_fails_or_hangs_on_a_frozen_replica() -> Tested {
    no_read_fails::<DeadpoolPostgres>(Blow::Freeze).await
}

#[tokio::test(flavor = "multi_thread")]
async fn with_bb8_too_no_read_hangs_on_a_frozen_replica() -> Tested {
    no_read_fails::<Bb8Postgres>(Blow::Freeze).await
}

/// Callers that give up long before `slow_after` leave no lease out for that long, and soon no connection either.
#[tokio::test(flavor = "multi_thread")]
async fn a_frozen_replica_is_found_out_by_callers_that_give_up_early() -> Tested {
    let pair = Pair::start().await?;
    let pings = Pings { monitoring_ping_frequency: 600_000 * MS, ..quick() };
    let router: Router<DeadpoolPostgres> = Router::start(pair.config().pings(pings).build()?).await?;
    let (replica, mut story) = (router.alias("replica")?, Story::of(&router));
    let read = async || -> Result<i64, Box<dyn std::error::Error>> {
        Ok(number(&replica.get().await?, "SELECT 1::int8").await?)
    };
    assert_eq!(read().await?, 1);
    pair.replica().freeze().await?;
    let impatient = async {
        loop {
            // That it fails for want of time is the point.
            let _ = tokio::time::timeout(20 * MS, read()).await;
        }
    };
    tokio::select! {
        () = impatient => {}
        opened = story.until("replica", "outage_opened") => drop(opened?),
    }
    Ok(())
}
