//! Who sends pings where nobody does in the background: those who ask, and errors that were told.

use tokio::time::{sleep, timeout};

use super::{
    super::{Command, Due},
    Bench, HOUR, Manner, SECOND, pair,
};
use crate::{config::Monitoring, health::State};

/// A settled pair of which requests go by, pinged on demand.
async fn on_demand() -> Bench {
    let bench = Bench::settled(pair().monitoring(Monitoring::OnDemand)).await;
    bench.shared.lead(Monitoring::OnDemand);
    // The first who asks finds out that nothing is due.
    bench.ask(Command::Run).await;
    bench
}

impl Bench {
    fn due(&self) -> &Due {
        &self.shared.due
    }

    fn pings(&self) -> Vec<usize> {
        self.fakes.iter().map(|fake| fake.pings().len()).collect()
    }

    /// An error of a server is told to the router.
    fn urge(&self, name: &str) {
        self.doubt(name);
        if self.due().urge() {
            self.shared.bell.notify_one();
        }
    }
}

#[tokio::test(start_paused = true)]
async fn what_is_due_shows_when_it_is_and_is_pinged_once_it_is_asked_for() {
    let bench = on_demand().await;
    assert!(!bench.due().is_due());
    sleep(100 * SECOND).await;
    assert!(!bench.due().is_due(), "a server that is up is pinged every 120 s");
    sleep(40 * SECOND).await;
    assert!(bench.due().is_due() && !bench.due().is_recovery_due());
    assert_eq!(bench.pings(), [0, 0], "nobody has asked");
    bench.ask(Command::Run).await;
    assert_eq!(bench.pings(), [1, 1]);
    // What was asked for is answered in the turn that finds nothing due.
    tokio::task::yield_now().await;
    assert!(!bench.due().is_due());
}

#[tokio::test(start_paused = true)]
async fn a_recovery_that_is_asked_for_pings_none_but_those_that_are_out() {
    let bench = on_demand().await;
    bench.fake("replica").dies();
    tokio::task::yield_now().await;
    bench.ask(Command::Run).await;
    assert_eq!(bench.belief("replica").state(), State::Down);
    bench.fakes.iter().for_each(|fake| fake.forget());
    sleep(HOUR).await;
    assert!(bench.due().is_recovery_due() && bench.due().is_due(), "the primary's ping is due too");
    bench.ask(Command::Recover).await;
    assert_eq!(bench.pings(), [0, 1]);
    assert!(bench.due().is_due() && !bench.due().is_recovery_due());
    bench.fake("replica").behaves(Manner::Answers(SECOND / 100));
    for _ in 0..2 {
        sleep(40 * SECOND).await;
        bench.ask(Command::Recover).await;
    }
    assert_eq!(bench.belief("replica").state(), State::Up);
    assert_eq!(bench.pings()[0], 0);
    // Nobody is out any more: there is nothing to wait for.
    timeout(SECOND, bench.ask(Command::Recover)).await.expect("it is answered");
}

#[tokio::test(start_paused = true)]
async fn an_error_that_is_told_has_its_server_pinged_though_nobody_asks_and_no_other() {
    let mut bench = on_demand().await;
    sleep(20 * SECOND).await;
    bench.urge("replica");
    assert!(bench.due().is_due(), "whoever asks now waits for that ping");
    sleep(SECOND).await;
    assert_eq!(bench.pings(), [0, 1]);
    assert_eq!(bench.belief("replica").state(), State::Up);
    // The next one comes too soon, and is not forgotten.
    bench.fake("replica").behaves(Manner::Hangs);
    bench.urge("replica");
    sleep(2 * SECOND).await;
    assert_eq!(bench.pings(), [0, 1]);
    assert_eq!(bench.told().await.1.name(), "outage_opened");
    let pings = bench.pings();
    sleep(HOUR).await;
    assert_eq!(bench.pings(), pings, "an outage is not pinged by itself");
}

#[tokio::test(start_paused = true)]
async fn with_background_monitoring_nothing_is_ever_due_for_those_who_ask() {
    let mut bench = Bench::settled(pair()).await;
    bench.shared.lead(Monitoring::Background);
    bench.fake("replica").dies();
    assert_eq!(bench.told().await.1.name(), "outage_opened");
    for _ in 0..3600 {
        assert!(!bench.due().is_due() && !bench.due().is_recovery_due());
        sleep(SECOND).await;
    }
    assert!(bench.pings().iter().all(|pings| *pings > 20));
}
