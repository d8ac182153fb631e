//! What is kept of an outage, and how long it took to find.

use super::*;
use crate::observe::{Event, SpanState};

impl Bench {
    /// The next event of this name.
    async fn next_of(&mut self, name: &str) -> Event {
        loop {
            let event = timeout(10 * HOUR, self.events.next()).await.expect("something is told").unwrap();
            if event.kind.name() == name {
                return event;
            }
        }
    }
}

#[tokio::test(start_paused = true)]
async fn the_record_of_an_outage_has_the_times_that_its_events_have() {
    let mut bench = Bench::settled(pair()).await;
    bench.lead();
    tokio::time::sleep(50 * SECOND).await;
    bench.fake("replica").dies();
    let opened = bench.next_of("outage_opened").await;
    let open = bench.shared.observer.outages();
    assert_eq!((open.len(), open[0].opened, open[0].closed), (1, opened.at, None));
    bench.fake("replica").behaves(Manner::Answers(Duration::ZERO));
    let closed = bench.next_of("outage_closed").await;
    assert!(closed.number > opened.number);
    let EventKind::OutageClosed { duration, .. } = closed.kind else { unreachable!() };

    let kept = bench.shared.observer.chronicle();
    let outage = &kept.outages[0];
    assert_eq!((outage.name.as_str(), outage.closed), ("replica", Some(closed.at)));
    assert_eq!(
        (&outage.id, outage.cause.as_str(), outage.detour.as_deref()),
        (&open[0].id, "refused", Some("primary"))
    );
    assert_eq!(u128::from(outage.lasted_ms), duration.as_millis(), "by the clock that does not jump");
    let names: Vec<_> = kept.events.iter().map(|event| event.event.as_str()).collect();
    assert_eq!(names, ["outage_opened", "mode_changed", "outage_closed", "mode_changed"]);
    let down: Vec<_> =
        kept.spans.iter().filter(|span| span.name == "replica" && span.state == SpanState::Down).collect();
    assert_eq!((down.len(), down[0].from), (1, opened.at));
    let last = kept.spans.iter().rfind(|span| span.name == "replica").unwrap();
    assert_eq!((last.state, last.from, last.to), (SpanState::Up, closed.at, None));
    assert!(kept.spans.iter().all(|span| span.name != "primary" || span.state == SpanState::Up));
}

/// How long it took to find an outage that begins like this.
async fn detected(bench: &mut Bench, begins: impl Fn(&Bench)) -> Duration {
    tokio::time::sleep(50 * SECOND).await;
    begins(bench);
    let EventKind::OutageOpened { detected_in, .. } = bench.next_of("outage_opened").await.kind else { unreachable!() };
    bench.fake("replica").behaves(Manner::Answers(Duration::ZERO));
    bench.next_of("outage_closed").await;
    detected_in
}

#[tokio::test(start_paused = true)]
async fn the_time_to_detect_counts_from_the_first_sign_of_the_same_episode() {
    let mut bench = Bench::settled(pair()).await;
    let lost = detected(&mut bench, |bench| bench.fake("replica").dies()).await;
    assert_eq!(lost, Duration::ZERO, "its watched connection ended, and nobody was there");
    // A doubt that a good ping has explained is no sign of what comes after it.
    bench.doubt("replica");
    let silent = detected(&mut bench, |bench| {
        bench.fake("replica").behaves(Manner::Hangs);
        bench.doubt("replica");
    });
    assert_eq!(silent.await, 3 * SECOND, "one ping_timeout after an error");
    let idle = detected(&mut bench, |bench| bench.fake("replica").behaves(Manner::Hangs)).await;
    assert_eq!(idle, 3 * SECOND, "from the beginning of the first ping that was not answered");
}
