//! A replica that dies while pings are sent on demand: an error that is logged asks for one, and so does a call.

use pgdetour::{Router, config::Monitoring, health::State, pool::DeadpoolPostgres};

use super::harness::{Pair, Story, Tested, belief, soon};

/// The pair, of which nobody is pinged in the background, with a connection to the replica.
async fn on_demand(pair: &Pair) -> Result<Router<DeadpoolPostgres>, Box<dyn std::error::Error>> {
    Ok(Router::start(pair.config().monitoring(Monitoring::OnDemand).build()?).await?)
}

#[cfg(feature = "tracing-layer")]
#[tokio::test]
async fn an_error_that_is_logged_opens_the_outage_of_a_dead_replica_though_nobody_pings_in_the_background() -> Tested {
    use tracing_subscriber::layer::SubscriberExt;

    let errors = pgdetour::layer::ErrorTrigger::new();
    let _subscriber = tracing::subscriber::set_default(tracing_subscriber::registry().with(errors.layer()));
    let pair = Pair::start().await?;
    let router = on_demand(&pair).await?;
    errors.report_to(&router);
    let mut story = Story::of(&router);
    let replica = router.alias("replica")?;
    let lease = replica.get().await?;
    pair.replica().kill().await?;
    let error = soon("the session's end", lease.query("SELECT 1", &[])).await?.expect_err("it is dead");
    assert_ne!(belief(&router, "replica").state(), State::Down, "nobody has asked for a ping");
    tracing::error!(error = &error as &dyn std::error::Error, "the page cannot be shown");
    story.until("replica", "outage_opened").await?;
    assert!(soon("a connection", replica.get()).await??.is_detour());
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_call_that_is_monitored_finds_a_dead_replica_and_calls_that_recover_find_it_back() -> Tested {
    let pair = Pair::start().await?;
    let router = on_demand(&pair).await?;
    let mut story = Story::of(&router);
    let replica = router.alias("replica")?;
    pair.replica().kill().await?;
    let found = async {
        while !router.monitored(replica.get()).await?.is_detour() {
            tokio::task::yield_now().await;
        }
        Tested::Ok(())
    };
    soon("a detour", found).await??;
    pair.replica().start().await?;
    let back = async {
        while router.recover_from_outages(replica.get()).await?.is_detour() {
            tokio::task::yield_now().await;
        }
        Tested::Ok(())
    };
    soon("the way back", back).await??;
    assert_eq!(story.so_far("replica").await, ["outage_opened", "outage_closed"]);
    Ok(())
}
