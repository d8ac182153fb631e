//! What is told of the router's mode, and when.

use super::*;
use crate::plan::Mode;

impl Bench {
    /// Requests go by this worker's table from now on.
    pub(super) fn lead(&self) {
        self.shared.lead(crate::config::Monitoring::Background);
    }

    /// That nothing at all is told for so long.
    async fn quiet(&mut self, lasting: Duration) {
        let told = timeout(lasting, self.events.next()).await;
        assert!(told.is_err(), "told: {told:?}");
    }

    /// The next event, if it is one about the router: from which mode to which.
    async fn mode_told(&mut self) -> (Mode, Mode) {
        let event = timeout(HOUR, self.events.next()).await.expect("something is told").unwrap();
        assert_eq!((&event.alias, &event.address), (&None, &None), "{event:?}");
        let EventKind::ModeChanged { from, to } = event.kind else { panic!("told of no mode: {event:?}") };
        (from, to)
    }
}

#[tokio::test(start_paused = true)]
async fn a_primary_that_goes_and_comes_makes_two_changes_of_mode_told_after_its_outage() {
    let mut bench = Bench::settled(pair()).await;
    bench.lead();
    bench.fake("primary").dies();
    assert!(matches!(bench.told().await.1, EventKind::OutageOpened { .. }));
    assert_eq!(bench.mode_told().await, (Mode::Normal, Mode::ReadOnly));
    assert_eq!(bench.shared.table.load().mode(), Mode::ReadOnly);
    bench.fake("primary").behaves(Manner::Answers(Duration::ZERO));
    assert!(matches!(bench.told().await.1, EventKind::OutageClosed { .. }));
    assert_eq!(bench.mode_told().await, (Mode::ReadOnly, Mode::Normal));
    bench.quiet(HOUR).await;
}

#[tokio::test(start_paused = true)]
async fn a_table_that_nobody_goes_by_yet_tells_no_mode_and_then_the_one_it_is_in() {
    let mut bench = Bench::settled(pair()).await;
    bench.fake("replica").dies();
    assert!(matches!(bench.told().await.1, EventKind::OutageOpened { .. }));
    bench.quiet(SECOND).await;
    bench.lead();
    assert_eq!(bench.mode_told().await, (Mode::Normal, Mode::Degraded));
}

#[tokio::test(start_paused = true)]
async fn the_stream_ends_with_the_router_after_what_was_told_before() {
    let mut bench = Bench::settled(pair()).await;
    bench.lead();
    bench.fake("replica").dies();
    assert!(matches!(bench.told().await.1, EventKind::OutageOpened { .. }));
    while bench.shared.table.load().mode() == Mode::Normal {
        tokio::task::yield_now().await;
    }
    bench.shared.observer.close();
    assert_eq!(bench.mode_told().await, (Mode::Normal, Mode::Degraded));
    assert_eq!(bench.events.next().await, None);
    assert_eq!(bench.shared.observer.events().next().await, None);
}
