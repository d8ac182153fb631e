//! When is a server believed of a transaction whose `COMMIT` was lost? Over a pool that says what it is told to.

use super::{
    super::{
        fake::FakePool,
        fate::Fate,
        transaction::{Question, Xid},
    },
    reads::router,
};
use crate::config::CallSettings;

const EPOCH_OF_A: &str = "00000001 1700000001.5 1700000000.25";
const START_OF_A: &str = "1700000001.5";

/// What is said of a transaction to which the server that was started at this time gave its number, after another had told the
/// alias's epoch, and where that other one is asked.
async fn told_of(started: &str) -> Option<bool> {
    let router = router(CallSettings::default()).await;
    let (line, inner) = (router.inner.line("primary").unwrap(), &router.inner);
    let pool: &FakePool = &line.route.own()[0].pool;
    pool.answers(&[&[EPOCH_OF_A]]);
    Fate::before(&line.get(inner).await.unwrap(), &line).await;
    // Another transaction, over another session: nobody is asked again.
    let fate = Fate::before(&line.get(inner).await.unwrap(), &line).await;
    assert_eq!(fate.question(), Question::Number);
    let number = vec![Some("742".to_owned()), Some(started.to_owned())];
    let xid = Xid::of(Ok(number)).expect("it has written");
    pool.answers(&[&["committed", EPOCH_OF_A]]);
    fate.is_committed(xid, &line, inner).await
}

#[tokio::test(start_paused = true)]
async fn a_server_is_believed_of_its_own_transactions_and_not_of_those_of_another_behind_the_same_address() {
    assert_eq!(told_of(START_OF_A).await, Some(true));
    assert_eq!(told_of("1699999999.75").await, None, "its number 742 is another transaction");
}
