//! What comes of what people ask for by hand?

use super::*;
use crate::{
    health::{Need, State},
    monitor::{Act, Request},
    policy::Fault,
};

impl Bench {
    async fn act(&self, name: &str, act: Act) -> bool {
        let (done, answer) = oneshot::channel();
        let servers = vec![self.server(name).name.clone()];
        self.commands.send(Command::Act(Request { servers, act, by: "ann".into(), done })).unwrap();
        timeout(HOUR, answer).await.expect("the worker answers").unwrap()
    }

    fn is_drained(&self, name: &str) -> bool {
        let belief = self.belief(name);
        assert_eq!(belief.is_drained(), belief.is_behind(Need::Reads));
        belief.is_drained()
    }
}

#[tokio::test(start_paused = true)]
async fn a_drain_is_told_with_who_asked_ends_by_itself_and_is_no_outage() {
    let mut bench = Bench::settled(pair()).await;
    assert!(bench.act("replica", Act::Drain(HOUR)).await && bench.is_drained("replica"));
    let begun = clock::now();
    let (alias, kind, _) = bench.told().await;
    let EventKind::Drained { lasting, by, detour } = kind else { panic!("{kind:?}") };
    assert_eq!((alias.as_str(), lasting, &*by), ("replica", HOUR, "ann"));
    assert_eq!(detour.unwrap().as_str(), "primary");
    let (_, kind, _) = bench.told().await;
    assert_eq!(kind, EventKind::Undrained { duration: HOUR, by: None });
    assert!(clock::now() - begun <= HOUR + SECOND && !bench.is_drained("replica"));
    assert!(bench.shared.observer.outages().is_empty());
    bench.silence(3 * HOUR).await;
}

#[tokio::test(start_paused = true)]
async fn a_drain_outlives_a_reload_and_keeps_its_end() {
    let mut bench = Bench::settled(pair()).await;
    bench.act("replica", Act::Drain(HOUR)).await;
    bench.told().await;
    tokio::time::sleep(HOUR / 2).await;
    let mut bench = bench.reloaded().await;
    assert!(bench.is_drained("replica"));
    let begun = clock::now();
    let (_, kind, _) = bench.told().await;
    assert_eq!(kind, EventKind::Undrained { duration: HOUR, by: None });
    let left = clock::now() - begun;
    assert!(left <= HOUR / 2 && left > HOUR / 2 - 5 * SECOND, "{left:?}");
    assert!(!bench.act("replica", Act::Undrain).await, "there is nothing to end");
}

#[tokio::test(start_paused = true)]
async fn a_server_that_goes_down_while_it_is_drained_is_drained_when_it_is_back() {
    let mut bench = Bench::settled(pair()).await;
    bench.act("replica", Act::Drain(20 * HOUR)).await;
    bench.told().await;
    bench.fake("replica").dies();
    assert_eq!(bench.told().await.1.name(), "outage_opened");
    assert_eq!(bench.belief("replica").state(), State::Down);
    bench.fake("replica").behaves(Manner::Answers(Duration::ZERO));
    assert_eq!(bench.told().await.1.name(), "outage_closed");
    assert!(bench.is_drained("replica"));
    assert!(bench.act("replica", Act::Undrain).await && !bench.is_drained("replica"));
    let (_, kind, _) = bench.told().await;
    assert!(matches!(kind, EventKind::Undrained { by: Some(by), .. } if &*by == "ann"));
}

#[tokio::test(start_paused = true)]
async fn no_trial_goes_to_a_drained_server_and_its_breaker_takes_none() {
    let mut bench = Bench::settled(pair()).await;
    tokio::time::sleep(SECOND).await;
    for _ in 0..30 {
        bench.server("replica").record_call(Some(Fault::Late), SECOND);
    }
    assert_eq!(bench.told().await.1.name(), "breaker_opened");
    bench.act("replica", Act::Drain(HOUR)).await;
    bench.told().await;
    tokio::time::sleep(600 * SECOND).await;
    assert!(!bench.server("replica").cell.take_trial(), "the hold was over long ago");
    bench.act("replica", Act::Undrain).await;
    bench.told().await;
    assert!(bench.belief("replica").is_behind(Need::Reads), "its breaker is open still");
    tokio::time::sleep(60 * SECOND).await;
    assert!(bench.server("replica").cell.take_trial());
}

#[tokio::test(start_paused = true)]
async fn a_hold_that_is_ended_by_hand_lets_a_trial_through_at_once() {
    let mut bench = Bench::settled(pair()).await;
    assert!(!bench.act("replica", Act::EndHold).await, "there is none");
    tokio::time::sleep(SECOND).await;
    for _ in 0..30 {
        bench.server("replica").record_call(Some(Fault::Late), SECOND);
    }
    assert_eq!(bench.told().await.1.name(), "breaker_opened");
    let begun = clock::now();
    assert!(bench.act("replica", Act::EndHold).await);
    assert_eq!(bench.told().await.1.name(), "hold_ended");
    while !bench.server("replica").cell.take_trial() {
        tokio::time::sleep(SECOND / 100).await;
    }
    assert!(clock::now() - begun < SECOND, "the hold of 30 s is over");
}

#[tokio::test(start_paused = true)]
async fn a_ping_that_is_asked_for_by_hand_goes_out_at_once() {
    let mut bench = Bench::settled(pair()).await;
    bench.fake("replica").forget();
    assert!(bench.act("replica", Act::Ping).await);
    bench.ask(Command::Run).await;
    assert_eq!(bench.fake("replica").pings().len(), 1);
    assert_eq!(bench.told().await.1.name(), "ping_asked");
}
