//! How much is possible while the primary is out: reads go on, writes are refused at once, and both come back.

use pgdetour::{Alias, EventKind, Mode, Router, health::State, policy::Outcome, pool::DeadpoolPostgres};

use crate::harness::{MS, Pair, Story, Tested, now, number, soon, until};

const IN_RECOVERY: &str = "SELECT pg_is_in_recovery()::int::int8";

#[tokio::test(flavor = "multi_thread")]
async fn without_its_primary_a_router_is_read_only_and_afterwards_normal_again() -> Tested {
    let pair = Pair::start().await?;
    let router: Router<DeadpoolPostgres> =
        Router::start(pair.config().failover("primary", ["replica"]).failover("replica", ["primary"]).build()?).await?;
    let (primary, mut story) = (router.alias("primary")?, Story::of(&router));
    let switch = router.switch_on_mode(Mode::ReadOnly, "open", "closed");
    assert_eq!((router.mode(), *switch.get()), (Mode::Normal, "open"));
    assert_eq!(number(&primary.get().await?, IN_RECOVERY).await?, 0);

    pair.primary().kill().await?;
    let told = story.until_mode(Mode::ReadOnly).await?;
    assert_eq!(told, EventKind::ModeChanged { from: Mode::Normal, to: Mode::ReadOnly });
    assert_eq!((router.mode(), *switch.get()), (Mode::ReadOnly, "closed"));
    let read = primary.get().await?;
    assert!(read.is_detour());
    assert_eq!(number(&read, IN_RECOVERY).await?, 1);
    drop(read);
    let asked = now();
    let error = write(&primary).await.expect_err("nobody takes writes");
    assert!(asked.elapsed() < 100 * MS, "it took {:?}", asked.elapsed());
    assert!(error.is_read_only() && error.retry_after().is_some(), "{error}");
    assert_eq!(error.outcome(), Outcome::NotSent);

    pair.primary().start().await?;
    let told = story.until_mode(Mode::Normal).await?;
    assert_eq!(told, EventKind::ModeChanged { from: Mode::ReadOnly, to: Mode::Normal });
    assert_eq!((router.mode(), *switch.get()), (Mode::Normal, "open"));
    assert!(!primary.get().await?.is_detour());
    Ok(write(&primary).await?)
}

async fn write(primary: &Alias<DeadpoolPostgres>) -> Result<(), pgdetour::Error> {
    primary.write(|transaction| async move { transaction.batch_execute("CREATE TABLE written ()").await }).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_primary_without_failover_refuses_at_once_and_says_when_to_come_back() -> Tested {
    let pair = Pair::start().await?;
    let router = pair.router::<DeadpoolPostgres>().await?;
    let (primary, mut story) = (router.alias("primary")?, Story::of(&router));
    pair.primary().kill().await?;
    story.until_mode(Mode::ReadOnly).await?;
    let asked = now();
    let error = primary.get().await.expect_err("it is down");
    assert!(asked.elapsed() < 100 * MS, "it took {:?}", asked.elapsed());
    assert!(error.is_read_only() && error.is_unavailable(), "{error}");
    assert!(error.retry_after().is_some_and(|after| after <= 330 * MS), "{error}");
    pair.replica().kill().await?;
    story.until_mode(Mode::Down).await?;
    assert!(primary.get().await.is_err_and(|error| !error.is_read_only() && error.retry_after().is_some()));
    pair.primary().start().await?;
    story.until_mode(Mode::Degraded).await?;
    pair.replica().start().await?;
    story.until_mode(Mode::Normal).await?;
    until(&router, "primary", State::Up).await?;
    soon("the end", router.shutdown()).await?;
    story.ends().await
}
