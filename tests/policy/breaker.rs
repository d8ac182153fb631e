//! When requests turn from a server, against a model that remembers every look.

use std::time::{Duration, Instant};

use pgdetour::{
    config::{BreakerSettings, Pings},
    policy::{Breaker, Counts, Shift, Trip},
};
use proptest::prelude::*;

const SECOND: Duration = Duration::from_secs(1);

fn settings() -> BreakerSettings {
    BreakerSettings { breaker_slow_rate: 80, ..BreakerSettings::default() }
}

fn pings() -> Pings {
    Pings { outage_ping_frequency: 4 * SECOND, ..Pings::default() }
}

/// What happens in the time before one look.
#[derive(Debug, Clone, Copy)]
struct Step {
    passes: Duration,
    calls: Counts,
    down: bool,
}

/// The same rules, kept as one would tell them: by what was seen at each look.
struct Model {
    seen: Vec<(Instant, Counts)>,
    state: Open,
    hold: Duration,
    closed: Option<Instant>,
}

enum Open {
    No,
    Held { since: Instant, until: Instant },
    Trying { since: Instant, offered: Instant, good: u32, calls: Counts },
    Down { since: Option<Instant> },
}

fn sum(one: Counts, other: Counts) -> Counts {
    Counts { made: one.made + other.made, failed: one.failed + other.failed, slow: one.slow + other.slow }
}

fn is_bad(calls: Counts) -> bool {
    let settings = settings();
    let share = |count: u64| if calls.made == 0 { 0.0 } else { 100.0 * count as f64 / calls.made as f64 };
    share(calls.failed) >= f64::from(settings.breaker_failure_rate)
        || share(calls.slow) >= f64::from(settings.breaker_slow_rate)
}

/// What the model expects to be told: the shift, without its reason.
#[derive(Debug, PartialEq, Eq)]
enum Told {
    Opened,
    OfferTrial,
    Closed(Duration),
}

impl Model {
    fn new() -> Self {
        Self { seen: Vec::new(), state: Open::No, hold: 4 * SECOND, closed: None }
    }

    fn follow(&mut self, down: bool, now: Instant) -> Option<Told> {
        let since = match self.state {
            Open::No => None,
            Open::Held { since, .. } | Open::Trying { since, .. } => Some(since),
            Open::Down { since } => since,
        };
        match (&self.state, down) {
            (Open::Down { .. }, false) => {
                self.begin_anew();
                since?;
                self.closed = Some(now);
                since.map(|since| Told::Closed(now - since))
            }
            (_, true) => {
                self.state = Open::Down { since };
                None
            }
            (_, false) => None,
        }
    }

    fn begin_anew(&mut self) {
        self.seen.clear();
        self.state = Open::No;
    }

    fn look(&mut self, calls: Counts, now: Instant) -> Option<Told> {
        match &mut self.state {
            Open::Down { .. } => None,
            Open::No => {
                // What was counted before the first look says nothing.
                let calls = if self.seen.is_empty() { Counts::default() } else { calls };
                self.seen.push((now, calls));
                let before = self.seen.iter().rposition(|(at, _)| *at + settings().breaker_window <= now);
                let within = self.seen[before.map_or(0, |index| index + 1)..]
                    .iter()
                    .fold(Counts::default(), |all, (_, one)| sum(all, *one));
                if within.made < 20 || !is_bad(within) {
                    return None;
                }
                let flaps = self.closed.is_some_and(|closed| now < closed + 2 * self.hold);
                self.hold = if flaps { (2 * self.hold).min(64 * SECOND) } else { 4 * SECOND };
                self.state = Open::Held { since: now, until: now + self.hold };
                Some(Told::Opened)
            }
            Open::Held { since, until } if now >= *until => {
                self.state = Open::Trying { since: *since, offered: now, good: 0, calls: Counts::default() };
                Some(Told::OfferTrial)
            }
            Open::Held { .. } => None,
            Open::Trying { since, offered, good, calls: so_far } => {
                *so_far = sum(*so_far, calls);
                if so_far.made == 0 {
                    let again = now >= *offered + 4 * SECOND;
                    *offered = if again { now } else { *offered };
                    return again.then_some(Told::OfferTrial);
                }
                let (since, bad) = (*since, is_bad(*so_far));
                if bad {
                    self.hold = (2 * self.hold).min(64 * SECOND);
                    self.state = Open::Held { since, until: now + self.hold };
                    return None;
                }
                if *good == 0 {
                    self.state = Open::Trying { since, offered: now, good: 1, calls: Counts::default() };
                    return Some(Told::OfferTrial);
                }
                self.begin_anew();
                self.closed = Some(now);
                Some(Told::Closed(now - since))
            }
        }
    }
}

fn told(shift: Shift) -> Told {
    match shift {
        Shift::Opened(_) => Told::Opened,
        Shift::OfferTrial => Told::OfferTrial,
        Shift::Closed(after) => Told::Closed(after),
    }
}

fn step() -> impl Strategy<Value = Step> {
    let calls = prop_oneof![
        3 => (0_u64..15, Just(0), Just(0)),
        2 => (0_u64..15, 0_u64..15, Just(0)),
        2 => (0_u64..15, Just(0), 0_u64..15),
        2 => Just((0, 0, 0)),
    ];
    let calls = calls.prop_map(|(good, failed, slow)| Counts { made: good + failed + slow, failed, slow });
    let passes = prop_oneof![4 => Just(1_000), 1 => 1_u64..9_000];
    (passes, calls, prop::bool::weighted(0.03)).prop_map(|(passes, calls, down)| Step {
        passes: Duration::from_millis(passes),
        calls,
        down,
    })
}

proptest! {
    #[test]
    fn a_breaker_does_what_its_model_does(steps in prop::collection::vec(step(), 0..200)) {
        let (mut breaker, mut model) = (Breaker::new(settings(), &pings()), Model::new());
        let (mut now, mut counts) = (start(), Counts::default());
        for step in steps {
            now += step.passes;
            counts = sum(counts, step.calls);
            let followed = breaker.follow(step.down, now).map(told);
            prop_assert_eq!(followed, model.follow(step.down, now));
            let looked = breaker.look(counts, now).map(told);
            prop_assert_eq!(looked, model.look(step.calls, now));
            let open = matches!(model.state, Open::Held { .. } | Open::Trying { .. });
            prop_assert_eq!(breaker.tripped().is_some(), open);
        }
    }
}

#[expect(clippy::disallowed_methods, reason = "simulated time has to begin somewhere")]
fn start() -> Instant {
    Instant::now()
}

/// A breaker, and a server whose calls are told second by second.
struct Played {
    breaker: Breaker,
    counts: Counts,
    now: Instant,
}

impl Played {
    fn new(settings: BreakerSettings) -> Self {
        let (breaker, now) = (Breaker::new(settings, &pings()), start());
        let mut played = Self { breaker, counts: Counts::default(), now };
        assert_eq!(played.second(0, 0, 0), None);
        played
    }

    fn second(&mut self, made: u64, failed: u64, slow: u64) -> Option<Shift> {
        self.now += SECOND;
        self.counts = sum(self.counts, Counts { made, failed, slow });
        self.breaker.look(self.counts, self.now)
    }

    /// How many seconds without a call it takes until a trial is offered.
    fn held(&mut self) -> usize {
        (1..500).find(|_| self.second(0, 0, 0) == Some(Shift::OfferTrial)).expect("every hold ends")
    }
}

#[test]
fn too_few_calls_tell_nothing_and_neither_do_those_from_before_the_window() {
    let mut played = Played::new(BreakerSettings::default());
    assert_eq!(played.second(19, 19, 0), None);
    (0..10).for_each(|_| assert_eq!(played.second(0, 0, 0), None));
    assert_eq!(played.second(19, 19, 0), None);
    assert_eq!(played.second(1, 0, 0), Some(Shift::Opened(Trip::Failing { failed: 19, made: 20 })));
}

#[test]
fn at_the_default_no_call_is_too_slow_and_half_of_them_may_not_fail() {
    let mut played = Played::new(BreakerSettings::default());
    assert_eq!(played.second(100, 49, 51), None);
    assert_eq!(played.second(2, 2, 0), Some(Shift::Opened(Trip::Failing { failed: 51, made: 102 })));
    let mut never = Played::new(BreakerSettings { breaker_failure_rate: 0, ..BreakerSettings::default() });
    assert_eq!(never.second(100, 100, 0), None);
}

#[test]
fn a_server_that_flaps_is_held_twice_as_long_each_time_up_to_a_cap_and_calm_forgets_it() {
    let mut played = Played::new(settings());
    let mut holds = Vec::new();
    for _ in 0..7 {
        assert!(matches!(played.second(20, 0, 20), Some(Shift::Opened(Trip::Slow { slow: 20, made: 20, .. }))));
        holds.push(played.held());
        assert_eq!(played.second(1, 0, 0), Some(Shift::OfferTrial));
        assert!(matches!(played.second(1, 0, 0), Some(Shift::Closed(_))));
        assert_eq!(played.second(0, 0, 0), None);
    }
    assert_eq!(holds, [4, 8, 16, 32, 64, 64, 64]);
    (0..128).for_each(|_| assert_eq!(played.second(5, 0, 0), None));
    assert!(matches!(played.second(400, 400, 0), Some(Shift::Opened(_))));
    assert_eq!(played.held(), 4);
}

#[test]
fn a_trial_that_goes_badly_lengthens_the_hold_and_is_no_second_opening() {
    let mut played = Played::new(settings());
    assert!(matches!(played.second(20, 20, 0), Some(Shift::Opened(_))));
    assert_eq!(played.held(), 4);
    assert_eq!(played.second(1, 0, 1), None);
    assert_eq!(played.held(), 8);
    assert_eq!(played.second(1, 0, 0), Some(Shift::OfferTrial));
    assert_eq!(played.second(1, 1, 0), None);
    assert_eq!(played.held(), 16);
}

#[test]
fn what_failed_up_to_an_outage_holds_nobody_back_after_it() {
    let mut played = Played::new(settings());
    assert_eq!(played.second(19, 19, 0), None);
    assert_eq!(played.breaker.follow(true, played.now), None);
    assert_eq!(played.second(50, 50, 0), None);
    assert_eq!(played.breaker.follow(false, played.now), None);
    (0..20).for_each(|_| assert_eq!(played.second(1, 0, 0), None));
}

#[test]
fn a_breaker_that_was_told_as_open_is_told_as_closed_when_an_outage_has_come_and_gone() {
    let mut played = Played::new(settings());
    assert!(matches!(played.second(20, 20, 0), Some(Shift::Opened(_))));
    assert_eq!(played.breaker.follow(true, played.now), None);
    assert_eq!(played.breaker.tripped(), None);
    (0..9).for_each(|_| assert_eq!(played.second(0, 0, 0), None));
    assert_eq!(played.breaker.follow(false, played.now), Some(Shift::Closed(9 * SECOND)));
}
