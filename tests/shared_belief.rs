//! What every request reads: is no doubt lost between threads, and does each request go where it may?

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
fn leases_that_go_out_and_come_back_on_many_threads_are_all_counted() {
    let cell = Cell::default();
    thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                for _ in 0..RACES {
                    cell.lend();
                    cell.lend();
                    cell.take_back();
                    cell.take_back();
                }
                cell.lend();
            });
        }
    });
    let returned = u32::try_from(4 * 2 * RACES).expect("it is small");
    assert_eq!(cell.leases(), Leases { out: 4, returned });
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
    (state, 0..4).prop_map(|(state, standing)| {
        let belief = Belief::new(state, Generation::default());
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
        let fit = own.iter().any(|(belief, _)| belief.serves(need));
        let stand_in = chain.iter().position(|(belief, _)| belief.serves(Need::Reads));
        match route.choose() {
            Some(choice) if fit => {
                prop_assert!(choice.candidate.belief.serves(need) && !choice.detour);
                prop_assert_eq!(choice.clear, choice.candidate.belief.is_clear(need));
            }
            Some(choice) => {
                prop_assert!(choice.detour, "none of its own serves");
                prop_assert_eq!(Some(choice.candidate.number), stand_in.map(|index| index + 10));
            }
            None => prop_assert!(!fit && stand_in.is_none()),
        }
    }

    #[test]
    fn the_plan_names_every_usable_server_once_its_own_first_and_begins_with_the_choice(
        need in need(), own in beliefs(4), chain in beliefs(3), balance in balance(), turns in 0_usize..9,
    ) {
        let [one, other] = [0; 2].map(|_| Route::new(need, places(&own, 0), places(&chain, 10), balance));
        for _ in 0..=turns {
            let plan: Vec<usize> = one.plan().map(|choice| choice.candidate.number).collect();
            prop_assert_eq!(other.choose().map(|choice| choice.candidate.number), plan.first().copied());
            prop_assert!(plan.iter().is_sorted_by_key(|number| *number >= 10), "a detour before one of its own");
            let mut sorted = plan.clone();
            sorted.sort_unstable();
            let usable = |places: &Beliefs, need, first| {
                let fit = places.iter().enumerate().filter(move |(_, (belief, _))| belief.serves(need));
                fit.map(|(index, _)| index + first).collect::<Vec<usize>>()
            };
            prop_assert_eq!(sorted, [usable(&own, need, 0), usable(&chain, Need::Reads, 10)].concat());
        }
    }

    #[test]
    fn taking_turns_is_fair_among_the_members_that_are_up(own in beliefs(6), rounds in 1_usize..20) {
        let route = Route::new(Need::Reads, places(&own, 0), Vec::new(), Balance::RoundRobin);
        let usable = own.iter().filter(|(belief, _)| belief.serves(Need::Reads)).count();
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
        let usable = own.iter().filter(|(belief, _)| belief.serves(Need::Reads)).count();
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
        let least = own.iter().filter(|(belief, _)| belief.serves(Need::Reads)).map(|(_, load)| *load).min();
        prop_assert_eq!(route.choose().map(|choice| choice.candidate.load()), least);
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
