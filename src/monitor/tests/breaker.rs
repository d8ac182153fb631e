//! What is told of calls that go badly on a server whose pings are answered, and where requests go meanwhile.

use super::*;
use crate::{
    health::{Need, State},
    policy::Fault,
};

impl Bench {
    fn calls(&self, name: &str, count: usize, fault: Option<Fault>) {
        (0..count).for_each(|_| self.server(name).record_call(fault, 10 * SECOND));
    }

    /// Lets the worker look once more.
    async fn look(&mut self) {
        self.silence(SECOND + SECOND / 10).await;
    }

    fn is_behind(&self, name: &str) -> bool {
        self.belief(name).is_behind(Need::Reads)
    }
}

#[tokio::test(start_paused = true)]
async fn a_server_that_fails_its_calls_is_told_as_slow_to_serve_and_never_as_down_and_comes_back_after_trials() {
    let mut bench = Bench::settled(pair()).await;
    bench.look().await;
    bench.calls("replica", 30, Some(Fault::Late));
    let (about, opened, _) = bench.told().await;
    let EventKind::BreakerOpened { cause, detour } = opened else { panic!("told: {opened:?}") };
    assert_eq!((about.as_str(), cause.to_string().as_str()), ("replica", "30 of 30 calls failed"));
    assert_eq!(detour.as_ref().map(|target| target.as_str()), Some("primary"));
    assert!(bench.is_behind("replica") && bench.belief("replica").state() == State::Up);
    assert!(!bench.server("replica").cell.take_trial(), "nobody is let through before the hold is over");
    bench.silence(31 * SECOND).await;
    assert!(bench.server("replica").cell.take_trial() && !bench.server("replica").cell.take_trial());
    bench.calls("replica", 1, None);
    bench.look().await;
    assert!(bench.server("replica").cell.take_trial() && bench.is_behind("replica"));
    bench.calls("replica", 1, None);
    let (_, closed, _) = bench.told().await;
    assert!(matches!(closed, EventKind::BreakerClosed { duration } if duration > 30 * SECOND), "{closed:?}");
    assert!(!bench.is_behind("replica") && bench.belief("replica").is_clear(Need::Reads));
}

#[tokio::test(start_paused = true)]
async fn a_trial_of_which_nobody_tells_is_offered_again_as_often_as_a_server_that_is_down_is_pinged() {
    let mut bench = Bench::settled(pair()).await;
    bench.look().await;
    bench.calls("replica", 30, Some(Fault::Late));
    bench.told().await;
    for _ in 0..5 {
        bench.silence(31 * SECOND + SECOND / 10).await;
        assert!(bench.server("replica").cell.take_trial());
        bench.silence(20 * SECOND).await;
        assert!(!bench.server("replica").cell.take_trial());
        bench.silence(11 * SECOND).await;
        assert!(bench.server("replica").cell.take_trial());
    }
}

#[tokio::test(start_paused = true)]
async fn what_failed_while_a_server_went_down_holds_nobody_back_when_it_is_up_again() {
    let mut bench = Bench::settled(pair()).await;
    bench.look().await;
    bench.fake("replica").dies();
    assert!(matches!(bench.told().await.1, EventKind::OutageOpened { .. }));
    bench.calls("replica", 100, Some(Fault::Closed));
    bench.fake("replica").behaves(Manner::Answers(Duration::ZERO));
    assert!(matches!(bench.told().await.1, EventKind::OutageClosed { .. }));
    bench.calls("replica", 1, None);
    bench.silence(HOUR).await;
    assert!(!bench.is_behind("replica"));
}

#[tokio::test(start_paused = true)]
async fn a_breaker_that_is_open_at_a_reload_stays_open_is_told_once_and_is_held_longer_when_it_opens_again() {
    let mut bench = Bench::settled(pair()).await;
    bench.look().await;
    bench.calls("replica", 30, Some(Fault::Late));
    assert_eq!(bench.told().await.1.name(), "breaker_opened");
    let mut bench = bench.reloaded().await;
    assert!(bench.is_behind("replica"));
    bench.silence(31 * SECOND).await;
    assert!(bench.server("replica").cell.take_trial(), "the hold goes on from where it was");
    bench.calls("replica", 1, None);
    bench.look().await;
    assert!(bench.server("replica").cell.take_trial());
    bench.calls("replica", 1, None);
    let (_, closed, _) = bench.told().await;
    assert!(matches!(closed, EventKind::BreakerClosed { duration } if duration > 30 * SECOND), "{closed:?}");
    let mut bench = bench.reloaded().await;
    bench.look().await;
    bench.calls("replica", 30, Some(Fault::Late));
    assert_eq!(bench.told().await.1.name(), "breaker_opened");
    bench.silence(58 * SECOND).await;
    assert!(!bench.server("replica").cell.take_trial(), "twice as long as the first time");
    bench.silence(4 * SECOND).await;
    assert!(bench.server("replica").cell.take_trial());
}

#[tokio::test(start_paused = true)]
async fn a_trial_that_was_on_at_a_reload_is_made_after_it() {
    let mut bench = Bench::settled(pair()).await;
    bench.look().await;
    bench.calls("replica", 30, Some(Fault::Late));
    bench.told().await;
    bench.silence(31 * SECOND).await;
    assert!(bench.server("replica").cell.take_trial());
    let mut bench = bench.reloaded().await;
    bench.look().await;
    assert!(bench.server("replica").cell.take_trial());
}

#[tokio::test(start_paused = true)]
async fn slow_calls_open_a_breaker_only_where_the_configuration_says_what_is_slow() {
    let mut bench = Bench::settled(pair()).await;
    bench.look().await;
    bench.calls("replica", 1_000, None);
    bench.silence(HOUR).await;
    let slow = crate::config::BreakerSettings { breaker_slow_rate: 90, ..Default::default() };
    let mut bench = Bench::settled(pair().breaker_of("replica", slow)).await;
    bench.look().await;
    bench.calls("replica", 20, None);
    let (_, opened, _) = bench.told().await;
    let EventKind::BreakerOpened { cause, .. } = opened else { panic!("told: {opened:?}") };
    assert_eq!(cause.to_string(), "20 of 20 calls took 1s or longer, or lost to a second server");
}
