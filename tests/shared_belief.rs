//! What every request reads: is no doubt lost between threads, and does each request go where it may?

#[path = "shared_belief/striped.rs"]
mod striped;
#[path = "shared_belief/threads.rs"]
mod threads;

use std::{
    collections::HashMap,
    sync::{
        Arc,
        atomic::{AtomicU32, AtomicUsize, Ordering},
    },
    thread,
};

use pgdetour::{
    config::Balance,
    health::{Belief, Cell, Generation, Leases, Need, State},
    plan::{Candidate, Route},
};
use proptest::prelude::*;

/// How often each race is run.
const RACES: usize = 20_000;

#[test]
fn a_doubt_wakes_the_monitor_once_until_it_looked() {
    let (cell, now) = (Cell::default(), Generation::default());
    assert!(cell.doubt(now) && !cell.doubt(now));
    assert_eq!(cell.belief().state(), State::Suspect);
    assert!(cell.take_doubt() && !cell.take_doubt());
    assert!(cell.doubt(now));
}

#[test]
fn a_doubt_from_an_older_generation_changes_nothing() {
    let (cell, before) = (Cell::default(), Generation::default());
    cell.publish(Belief::new(State::Up, before.next()));
    assert!(!cell.doubt(before));
    assert!(cell.belief().is_clear(Need::Reads));
}

#[test]
fn a_doubt_raised_while_the_monitor_publishes_survives() {
    let (cell, up) = (Cell::default(), Belief::new(State::Up, Generation::default()));
    assert!(cell.doubt(Generation::default()));
    cell.publish(up);
    assert!(cell.belief().is_doubted());
    assert!(cell.take_doubt());
    cell.publish(up);
    assert!(!cell.belief().is_doubted());
}

#[test]
fn leases_are_counted_out_and_back() {
    let cell = Cell::default();
    cell.lend();
    cell.lend();
    cell.give_up();
    assert_eq!(cell.leases(), Leases { out: 1, returned: 0 }, "who gave up had no answer");
    cell.note_return();
    cell.give_up();
    assert_eq!(cell.leases(), Leases { out: 0, returned: 1 });
}

#[test]
fn a_doubt_that_races_with_the_monitor_is_seen_by_it() {
    let (cell, doubting, woken) = (Cell::default(), AtomicUsize::new(2), AtomicUsize::new(0));
    let mut seen = 0;
    thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                // Until the two have woken the monitor often enough for every order of events.
                while woken.load(Ordering::Relaxed) < RACES {
                    woken.fetch_add(usize::from(cell.doubt(Generation::default())), Ordering::Relaxed);
                }
                doubting.fetch_sub(1, Ordering::Release);
            });
        }
        // The monitor: what it takes it has seen, and what it then publishes knows nothing of what came meanwhile.
        while doubting.load(Ordering::Acquire) > 0 {
            seen += usize::from(cell.take_doubt());
            cell.publish(Belief::new(State::Up, Generation::default()));
        }
    });
    seen += usize::from(cell.take_doubt());
    assert_eq!(woken.into_inner(), seen, "each doubt that woke the monitor is there when it looks, and no other");
}

#[test]
fn a_doubt_that_races_with_the_next_generation_is_dropped_or_belongs_to_it() {
    let mut generation = Generation::default();
    for _ in 0..RACES / 40 {
        let (cell, before) = (Arc::new(Cell::default()), generation);
        cell.publish(Belief::new(State::Up, before));
        generation = generation.next();
        let doubter = thread::spawn({
            let cell = Arc::clone(&cell);
            move || cell.doubt(before)
        });
        cell.publish(Belief::new(State::Up, generation));
        doubter.join().expect("the doubter does not panic");
        assert!(!cell.take_doubt(), "a doubt from before the transition outlived it");
        assert!(cell.belief().is_clear(Need::Reads));
        assert!(cell.doubt(generation) && cell.take_doubt());
    }
}

#[test]
fn ten_thousand_doubts_at_once_wake_the_monitor_once() {
    let (cell, woken) = (Cell::default(), AtomicUsize::new(0));
    thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| {
                (0..1_250).filter(|_| cell.doubt(Generation::default())).for_each(|_| {
                    woken.fetch_add(1, Ordering::Relaxed);
                });
            });
        }
    });
    assert_eq!(woken.into_inner(), 1);
    assert_eq!(cell.belief().state(), State::Suspect);
}

#[test]
fn a_server_that_is_retired_stays_so_whatever_the_monitor_publishes() {
    let (cell, published) = (Cell::default(), AtomicUsize::new(0));
    thread::scope(|scope| {
        scope.spawn(|| {
            for _ in 0..RACES {
                cell.publish(Belief::new(State::Up, Generation::default()));
                published.fetch_add(1, Ordering::Release);
            }
        });
        cell.retire();
        while published.load(Ordering::Acquire) < RACES {
            assert!(cell.belief().is_retired() && !cell.belief().is_clear(Need::Reads));
        }
    });
    cell.publish(Belief::new(State::Up, Generation::default()));
    assert!(cell.belief().is_retired());
}

#[test]
fn leases_that_go_out_and_end_on_many_threads_are_all_counted() {
    let cell = Cell::default();
    thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                for _ in 0..RACES {
                    cell.lend();
                    cell.lend();
                    cell.give_up();
                    cell.give_up();
                }
                cell.lend();
            });
        }
    });
    assert_eq!(cell.leases(), Leases { out: 4, returned: 0 });
}

#[test]
fn of_all_who_race_for_a_trial_one_takes_it_and_none_after_its_breaker_has_closed() {
    let cell = Cell::default();
    let up = Belief::new(State::Up, Generation::default());
    for _ in 0..RACES / 40 {
        let taken = AtomicUsize::new(0);
        cell.publish(up.behind());
        assert!(!cell.take_trial(), "none is offered yet");
        cell.offer_trial();
        // The monitor has other news meanwhile.
        cell.publish(up.behind());
        thread::scope(|scope| {
            for _ in 0..2 {
                scope.spawn(|| taken.fetch_add(usize::from(cell.take_trial()), Ordering::Relaxed));
            }
        });
        assert_eq!(taken.into_inner(), 1);
        cell.offer_trial();
        cell.publish(up);
        cell.offer_trial();
        assert!(!cell.take_trial() && cell.belief().is_clear(Need::Reads));
    }
}

/// A place whose server is believed to be so.
#[derive(Debug)]
struct Place {
    number: usize,
    belief: Belief,
    load: AtomicU32,
}

impl Candidate for Place {
    fn belief(&self) -> Belief {
        self.belief
    }

    fn load(&self) -> u32 {
        self.load.load(Ordering::Relaxed)
    }
}

fn belief() -> impl Strategy<Value = Belief> {
    let state = prop_oneof![Just(State::Up), Just(State::Suspect), Just(State::Down), Just(State::Recovering)];
    (state, 0..4, prop::bool::weighted(0.25)).prop_map(|(state, standing, behind)| {
        let belief = Belief::new(state, Generation::default());
        let belief = if behind { belief.behind() } else { belief };
        match standing {
            0 => belief.without_writes(),
            1 => belief.without_traffic(),
            2 => belief.without_admission(),
            _ => belief,
        }
    })
}

fn places(beliefs: &[(Belief, u32)], first: usize) -> Vec<Place> {
    let place = |(number, (belief, load)): (usize, &(Belief, u32))| Place {
        number: first + number,
        belief: *belief,
        load: AtomicU32::new(*load),
    };
    beliefs.iter().enumerate().map(place).collect()
}

fn balance() -> impl Strategy<Value = Balance> {
    prop_oneof![Just(Balance::RoundRobin), Just(Balance::Random), Just(Balance::LeastLoaded)]
}

fn need() -> impl Strategy<Value = Need> {
    prop_oneof![Just(Need::Reads), Just(Need::Writes)]
}

type Beliefs = Vec<(Belief, u32)>;

/// Those that serve reads and that no others go before.
fn foremost(places: &Beliefs) -> impl Iterator<Item = &(Belief, u32)> {
    places.iter().filter(|(belief, _)| belief.serves(Need::Reads) && !belief.is_behind(Need::Reads))
}

/// The numbers of those of these places that serve, foremost first; a place that is behind comes after all that are not.
fn in_order(own: &Beliefs, chain: &Beliefs, need: Need) -> Vec<usize> {
    let number = |places: &Beliefs, need, first: usize| {
        let fit = places.iter().enumerate().filter(move |(_, (belief, _))| belief.serves(need));
        fit.map(|(index, (belief, _))| (belief.is_behind(need), index + first)).collect::<Vec<_>>()
    };
    let mut all = [number(own, need, 0), number(chain, Need::Reads, 10)].concat();
    all.sort_by_key(|(behind, _)| *behind);
    all.into_iter().map(|(_, number)| number).collect()
}

fn beliefs(most: usize) -> impl Strategy<Value = Beliefs> {
    prop::collection::vec((belief(), 0_u32..5), 0..=most)
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_request_goes_to_a_server_that_serves_it_whenever_there_is_one(
        need in need(), own in beliefs(4), chain in beliefs(3), balance in balance(), turns in 0_usize..9,
    ) {
        let route = Route::new(need, places(&own, 0), places(&chain, 10), balance);
        (0..turns).for_each(|_| drop(route.choose()));
        let order = in_order(&own, &chain, need);
        match (route.choose(), order.first()) {
            (Some(choice), Some(&first)) if first < 10 => {
                let need = if choice.detour { Need::Reads } else { need };
                prop_assert!(choice.candidate.belief.serves(need) && !choice.detour);
                let foremost = |number: &usize| *number < 10 && !own[*number].0.is_behind(need);
                prop_assert_eq!(choice.candidate.belief.is_behind(need), !order.iter().any(foremost));
                prop_assert_eq!(choice.clear, choice.candidate.belief.is_clear(need));
            }
            (Some(choice), first) => {
                prop_assert!(choice.detour, "none of its own serves, or all of them are behind");
                prop_assert_eq!(Some(&choice.candidate.number), first);
            }
            (None, first) => prop_assert_eq!(first, None),
        }
    }

    #[test]
    fn the_plan_names_every_usable_server_once_its_own_first_and_those_behind_last_and_begins_with_the_choice(
        need in need(), own in beliefs(4), chain in beliefs(3), balance in balance(), turns in 0_usize..9,
    ) {
        let [one, other] = [0; 2].map(|_| Route::new(need, places(&own, 0), places(&chain, 10), balance));
        for _ in 0..=turns {
            let plan: Vec<usize> = one.plan().map(|choice| choice.candidate.number).collect();
            prop_assert_eq!(other.choose().map(|choice| choice.candidate.number), plan.first().copied());
            let rank = |number: &usize| match own.get(*number) {
                Some((belief, _)) => (belief.is_behind(need), false, 0),
                None => (chain[number - 10].0.is_behind(Need::Reads), true, *number),
            };
            prop_assert!(plan.iter().is_sorted_by_key(rank), "{:?}", plan);
            let (mut named, mut usable) = (plan.clone(), in_order(&own, &chain, need));
            named.sort_unstable();
            usable.sort_unstable();
            prop_assert_eq!(named, usable);
        }
    }

    #[test]
    fn taking_turns_is_fair_among_the_members_that_are_up(own in beliefs(6), rounds in 1_usize..20) {
        let route = Route::new(Need::Reads, places(&own, 0), Vec::new(), Balance::RoundRobin);
        let usable = foremost(&own).count();
        let mut taken: HashMap<usize, usize> = HashMap::new();
        for _ in 0..usable * rounds {
            let choice = route.choose().expect("one is usable");
            *taken.entry(choice.candidate.number).or_default() += 1;
        }
        prop_assert_eq!(taken.len(), usable);
        prop_assert!(taken.values().all(|&count| count == rounds), "{:?}", taken);
    }

    #[test]
    fn chance_is_fair_among_the_members_that_are_up(own in beliefs(6)) {
        let route = Route::new(Need::Reads, places(&own, 0), Vec::new(), Balance::Random);
        let usable = foremost(&own).count();
        let mut taken: HashMap<usize, usize> = HashMap::new();
        for _ in 0..usable * 300 {
            let choice = route.choose().expect("one is usable");
            *taken.entry(choice.candidate.number).or_default() += 1;
        }
        prop_assert_eq!(taken.len(), usable);
        prop_assert!(taken.values().all(|count| (200..=400).contains(count)), "{:?}", taken);
    }

    #[test]
    fn the_least_loaded_member_is_taken(own in beliefs(6), turns in 0_usize..9) {
        let route = Route::new(Need::Reads, places(&own, 0), Vec::new(), Balance::LeastLoaded);
        (0..turns).for_each(|_| drop(route.choose()));
        if let Some(least) = foremost(&own).map(|(_, load)| *load).min() {
            prop_assert_eq!(route.choose().map(|choice| choice.candidate.load()), Some(least));
        }
    }
}

#[test]
fn equally_loaded_members_share_the_leases() {
    let up = Belief::new(State::Up, Generation::default());
    let down = Belief::new(State::Down, Generation::default());
    let members = places(&[(up, 0), (down, 0), (up, 0), (up, 0)], 0);
    let route = Route::new(Need::Reads, members, Vec::new(), Balance::LeastLoaded);
    for _ in 0..30 {
        let choice = route.choose().expect("three are up");
        choice.candidate.load.fetch_add(1, Ordering::Relaxed);
    }
    let loads: Vec<u32> = route.own().iter().map(Candidate::load).collect();
    assert_eq!(loads, [10, 0, 10, 10]);
}
