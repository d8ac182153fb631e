//! Where do requests go while a server is drained? In virtual time, as the reads.

use std::time::Duration;

use super::{
    super::{ActionError, DRAIN_LONGEST},
    reads::{own, router},
};
use crate::{
    config::{Balance, CallSettings},
    health::{Belief, Generation, Need, State},
    plan::{Candidate, Mode, Reason, Route},
};

const HOUR: Duration = Duration::from_secs(3600);

#[tokio::test(start_paused = true)]
async fn reads_of_a_drained_replica_go_to_the_primary_and_come_back_and_no_idle_connection_is_kept() {
    let router = router(CallSettings::default()).await;
    let replica = router.alias("replica").unwrap();
    let (lent, idle) = (replica.get().await.unwrap(), replica.get().await.unwrap());
    drop(idle);
    router.drain("replica", HOUR, " ann\u{1b}[31m ").await.unwrap();
    assert!(replica.get().await.unwrap().is_detour());
    let plan = replica.explain();
    let last = plan.steps.last().unwrap();
    assert!(
        matches!(&last.reason, Reason::Drained { by, .. } if &**by == "ann [31m") && last.alias.as_str() == "replica"
    );
    assert!(plan.to_string().contains("up, and drained by ann [31m for 1h more"), "{plan}");
    let status = router.status();
    assert_eq!((status.mode, status.server("replica").unwrap().outage.as_ref()), (Mode::Degraded, None));
    let drained = status.alias("replica").unwrap().drained.clone().unwrap();
    assert_eq!((drained.by.as_str(), drained.left_ms), ("ann [31m", 3_600_000));
    assert_eq!(status.alias("replica").unwrap().target.as_deref(), Some("primary"));
    drop(lent);
    tokio::time::sleep(Duration::from_secs(3)).await;
    assert_eq!(own(&replica).size, 0, "what came back meanwhile has gone too");
    assert!(router.undrain("replica", "ann").await.unwrap());
    assert!(!replica.get().await.unwrap().is_detour());
    assert_eq!(router.status().mode, Mode::Normal);
    assert!(router.outages().is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_drained_server_is_used_where_the_others_are_full_rather_than_that_a_request_fails() {
    let router = router(CallSettings::default()).await;
    let replica = router.alias("replica").unwrap();
    router.drain("replica", HOUR, "ann").await.unwrap();
    let _all = (replica.get().await.unwrap(), replica.get().await.unwrap());
    assert!(!replica.get().await.unwrap().is_detour());
}

#[tokio::test(start_paused = true)]
async fn what_cannot_be_drained_is_refused_with_the_reason() {
    let router = router(CallSettings::default()).await;
    let error = router.drain("primary", HOUR, "ann").await.unwrap_err();
    assert!(matches!(&error, ActionError::Primary { alias } if alias.as_str() == "primary"));
    assert!(error.to_string().contains("nowhere else to go"));
    for lasting in [Duration::ZERO, DRAIN_LONGEST + Duration::from_millis(1)] {
        assert_eq!(router.drain("replica", lasting, "ann").await, Err(ActionError::Duration { lasting }));
    }
    let error = router.drain("repl\nica", HOUR, "ann").await.unwrap_err();
    assert_eq!(error.to_string(), "there is no alias \"repl ica\"");
    router.shutdown().await;
    assert_eq!(router.undrain("replica", "ann").await, Err(ActionError::Closed));
}

/// A place that is believed to be so.
#[derive(Debug, Clone)]
struct Place(Belief);

impl Candidate for Place {
    fn belief(&self) -> Belief {
        self.0
    }

    fn load(&self) -> u32 {
        0
    }
}

/// However four servers stand, two of a group and two that stand in for them: a drained one is chosen where no other serves and
/// nowhere else.
#[test]
fn a_drained_server_is_chosen_where_all_that_serve_are_behind_and_nowhere_else() {
    let of = |state| Belief::new(state, Generation::default());
    let kinds = [of(State::Up), of(State::Suspect), of(State::Down), of(State::Up).behind(), of(State::Up).drained()];
    let mut drained_chosen = 0;
    for number in 0..kinds.len().pow(4) {
        let at = |place: u32| Place(kinds[number / kinds.len().pow(place) % kinds.len()]);
        let route = Route::new(Need::Reads, vec![at(0), at(1)], vec![at(2), at(3)], Balance::RoundRobin);
        let all = [at(0).0, at(1).0, at(2).0, at(3).0];
        let serves = |belief: &Belief| belief.serves(Need::Reads);
        let Some(choice) = route.choose() else {
            assert!(!all.iter().any(serves), "{all:?}");
            continue;
        };
        if choice.belief.is_drained() {
            drained_chosen += 1;
            assert!(all.iter().filter(|belief| serves(belief)).all(|belief| belief.is_behind(Need::Reads)), "{all:?}");
        }
    }
    assert!(drained_chosen > 0);
}
