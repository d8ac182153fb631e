//! What is told when one worker takes over from another, whatever each of them has seen.

use tokio::time::sleep;

use super::*;
use crate::{
    health::{Need, State},
    policy::Fault,
};

const BACK: Manner = Manner::Answers(Duration::ZERO);

impl Bench {
    /// A worker that begins where this one stands, over the same servers and those that `config` has besides.
    async fn next(&self, config: ConfigBuilder) -> Self {
        let before = self.ask(Command::Hand).await;
        let known = |name: &str| self.servers.iter().position(|server| server.name.as_str() == name);
        let fake = |name: &str| known(name).map_or_else(|| Fake::new(Role::Replica), |index| self.fakes[index].clone());
        Self::over(config, fake, self.shared.observer.clone(), Some(before))
    }

    /// One that has had its first pings.
    async fn next_settled(&self) -> Self {
        let next = self.next(pair()).await;
        next.ask(Command::Settle).await;
        next
    }

    /// The one that has taken over from this one.
    pub(super) async fn reloaded(&self) -> Self {
        let next = self.next_settled().await;
        self.hand_over_to(&next).await;
        next
    }

    fn monitor(&self) -> Monitor {
        Monitor { commands: self.commands.clone() }
    }

    /// Ends, and has the other one tell what there is to tell.
    async fn hand_over_to(&self, next: &Self) {
        timeout(HOUR, self.monitor().hand_over_to(&next.monitor())).await.unwrap().unwrap();
    }

    /// The names of what was told of servers up to now.
    async fn names(&mut self) -> Vec<&'static str> {
        let mut names = Vec::new();
        while let Ok(event) = timeout(SECOND / 1000, self.of_a_server()).await {
            names.push(event.kind.name());
        }
        names
    }
}

#[tokio::test(start_paused = true)]
async fn an_outage_that_is_open_at_a_reload_is_not_told_twice_and_its_end_is() {
    let mut old = Bench::settled(pair()).await;
    old.fake("replica").dies();
    let (.., opened) = old.told().await;
    sleep(HOUR / 2).await;
    let new = old.next_settled().await;
    old.hand_over_to(&new).await;
    assert_eq!(new.belief("replica").state(), State::Down);
    let (_, kind, at) = old.told().await;
    assert_eq!(kind.name(), "outage_ongoing");
    assert!(at - opened - HOUR < SECOND, "an hour after it was told, not after the reload: {:?}", at - opened);
    new.fake("replica").behaves(BACK);
    let (alias, kind, _) = old.told().await;
    let EventKind::OutageClosed { duration, .. } = kind else { panic!("{kind:?}") };
    assert!(alias == "replica" && duration >= HOUR, "{alias} {duration:?}");
    old.silence(HOUR).await;
}

#[tokio::test(start_paused = true)]
async fn an_outage_that_opens_and_one_that_closes_before_both_workers_is_told_by_the_old_one_alone() {
    let mut old = Bench::settled(pair()).await;
    let new = old.next_settled().await;
    old.fake("replica").dies();
    sleep(SECOND).await;
    assert_eq!([&old, &new].map(|bench| bench.belief("replica").state()), [State::Down; 2]);
    old.hand_over_to(&new).await;
    assert_eq!(old.names().await, ["outage_opened"]);
    let newest = new.next_settled().await;
    newest.fake("replica").behaves(BACK);
    sleep(HOUR / 2).await;
    assert_eq!([&new, &newest].map(|bench| bench.belief("replica").state()), [State::Up; 2]);
    new.hand_over_to(&newest).await;
    assert_eq!(old.names().await, ["outage_closed"]);
    old.silence(HOUR).await;
}

#[tokio::test(start_paused = true)]
async fn an_outage_that_the_new_worker_does_not_find_is_told_as_closed() {
    let mut old = Bench::settled(pair()).await;
    // It knows of nothing and begins to ask when the server is back, before the old one asks again.
    let past = old.ask(Command::Hand).await;
    old.fake("replica").dies();
    assert_eq!(old.told().await.1.name(), "outage_opened");
    old.fake("replica").behaves(BACK);
    let new = Bench::over(pair(), |name| old.fake(name).clone(), old.shared.observer.clone(), Some(past));
    new.ask(Command::Settle).await;
    assert_eq!([&old, &new].map(|bench| bench.belief("replica").state()), [State::Down, State::Up]);
    old.hand_over_to(&new).await;
    assert_eq!(old.names().await, ["outage_closed"]);
    old.silence(HOUR).await;
}

#[tokio::test(start_paused = true)]
async fn what_the_new_worker_alone_has_seen_is_told_when_it_takes_over_and_not_before() {
    let mut old = Bench::settled(pair()).await;
    let new = old.next_settled().await;
    old.fake("replica").behaves(Manner::Refuses);
    new.doubt("replica");
    sleep(10 * SECOND).await;
    assert!(!new.belief("replica").admits() && old.belief("replica").admits());
    assert_eq!(old.names().await, [""; 0]);
    old.hand_over_to(&new).await;
    assert_eq!(old.names().await, ["admission_stopped"]);
    new.fake("replica").behaves(BACK);
    assert_eq!(old.told().await.1.name(), "admission_resumed");
}

#[tokio::test(start_paused = true)]
async fn an_outage_whose_end_the_old_worker_told_is_over_for_the_new_one_too() {
    let mut old = Bench::settled(pair()).await;
    old.fake("replica").dies();
    assert_eq!(old.told().await.1.name(), "outage_opened");
    let past = old.ask(Command::Hand).await;
    let fake = |name: &str| {
        let fake = Fake::new(if name == "primary" { Role::Primary } else { Role::Replica });
        fake.behaves(if name == "primary" { BACK } else { Manner::Refuses });
        fake
    };
    let new = Bench::over(pair(), fake, old.shared.observer.clone(), Some(past));
    new.ask(Command::Settle).await;
    old.fake("replica").behaves(BACK);
    assert_eq!(old.told().await.1.name(), "outage_closed");
    let before = new.belief("replica");
    new.fake("replica").behaves(BACK);
    old.hand_over_to(&new).await;
    let after = new.belief("replica");
    assert_eq!((before.state(), after.state()), (State::Down, State::Up));
    assert!(after.generation().is_after(before.generation()));
    old.silence(HOUR).await;
}

#[tokio::test(start_paused = true)]
async fn a_breaker_that_opens_during_a_reload_is_told_once_and_stays_open() {
    let mut old = Bench::settled(pair()).await;
    old.silence(2 * SECOND).await;
    let new = old.next_settled().await;
    (0..30).for_each(|_| old.server("replica").record_call(Some(Fault::Late), SECOND));
    sleep(2 * SECOND).await;
    old.hand_over_to(&new).await;
    assert_eq!(old.names().await, ["breaker_opened"]);
    assert!(new.belief("replica").is_behind(Need::Reads));
    old.silence(HOUR).await;
}

#[tokio::test(start_paused = true)]
async fn a_change_of_role_is_told_once_whoever_of_both_has_seen_it() {
    for seen_by_the_old in [true, false] {
        let mut old = Bench::settled(pair()).await;
        let begun = old.next(pair()).await;
        begun.commands.send(Command::Stop).unwrap();
        old.fake("replica").becomes(Role::Primary);
        if seen_by_the_old {
            sleep(200 * SECOND).await;
        }
        let new = old.next_settled().await;
        old.hand_over_to(&new).await;
        let mut told = old.names().await;
        told.retain(|name| *name == "role_changed");
        assert_eq!(told, ["role_changed"], "seen by the old one: {seen_by_the_old}");
        sleep(HOUR).await;
        assert_eq!(old.names().await, [""; 0]);
    }
}

#[tokio::test(start_paused = true)]
async fn a_standing_and_a_ping_that_says_nothing_are_not_told_again_by_each_new_worker() {
    let mut old = Bench::start(pair(), |name, fake| match name {
        "primary" => fake.becomes(Role::Replica),
        _ => fake.behaves(Manner::IsFull),
    });
    old.ask(Command::Settle).await;
    let mut told = old.names().await;
    told.sort_unstable();
    assert_eq!(told, ["ping_inconclusive", "standing_changed"]);
    for _ in 0..3 {
        let new = old.reloaded().await;
        assert_eq!(old.names().await, [""; 0]);
        old = new;
    }
}

#[tokio::test(start_paused = true)]
async fn what_an_outage_has_cost_is_counted_across_a_reload() {
    let mut old = Bench::settled(pair()).await;
    old.fake("replica").dies();
    assert_eq!(old.told().await.1.name(), "outage_opened");
    (0..3).for_each(|_| old.server("replica").cell.count_detoured());
    let new = old.next_settled().await;
    old.server("replica").cell.count_detoured();
    old.hand_over_to(&new).await;
    (0..2).for_each(|_| new.server("replica").cell.count_detoured());
    new.fake("replica").behaves(BACK);
    let EventKind::OutageClosed { tally, .. } = old.told().await.1 else { panic!("it is closed") };
    assert_eq!(tally.detoured, 6);
}

#[tokio::test(start_paused = true)]
async fn an_outage_of_a_server_that_a_reload_takes_away_is_told_as_closed() {
    let mut old = Bench::settled(pair()).await;
    old.fake("replica").dies();
    assert_eq!(old.told().await.1.name(), "outage_opened");
    let new = old.next(Config::builder().server("primary", Role::Primary, "postgres://app@127.0.0.1:1/app")).await;
    new.ask(Command::Settle).await;
    old.hand_over_to(&new).await;
    let (alias, kind, _) = old.told().await;
    assert_eq!((alias.as_str(), kind.name()), ("replica", "outage_closed"));
    old.silence(HOUR).await;
}

#[tokio::test(start_paused = true)]
async fn a_worker_that_is_replaced_before_it_has_taken_over_loses_nothing() {
    let mut old = Bench::settled(pair()).await;
    old.fake("replica").dies();
    assert_eq!(old.told().await.1.name(), "outage_opened");
    let (new, newest) = (old.next_settled().await, old.next_settled().await);
    // Both at once, the later one first.
    let later = new.monitor().hand_over_to(&newest.monitor());
    drop(old.monitor().hand_over_to(&new.monitor()));
    timeout(HOUR, later).await.unwrap().unwrap();
    assert_eq!(old.names().await, [""; 0]);
    newest.fake("replica").behaves(BACK);
    assert_eq!(old.told().await.1.name(), "outage_closed");
    old.silence(HOUR).await;
}

/// One step of what befalls two servers and the workers that watch them.
async fn step(chance: &mut fastrand::Rng, now: &mut Bench, next: &mut Option<Bench>) {
    let name = ["primary", "replica"][chance.usize(..2)];
    match chance.u8(..9) {
        0 => now.fake(name).dies(),
        1 => now.fake(name).behaves(Manner::Refuses),
        2 | 3 => now.fake(name).behaves(BACK),
        4 => now.doubt(name),
        5 => next.as_ref().unwrap_or(now).doubt(name),
        6 => *next = Some(now.next(pair()).await),
        7 => {
            if let Some(next) = next.take() {
                if chance.bool() {
                    next.ask(Command::Settle).await;
                }
                drop(now.monitor().hand_over_to(&next.monitor()));
                *now = next;
            }
        }
        _ => {}
    }
    if chance.u8(..3) > 0 {
        sleep(Duration::from_millis(chance.u64(..40_000))).await;
    }
}

#[tokio::test(start_paused = true)]
async fn however_outages_and_reloads_meet_each_outage_has_one_opening_and_one_closing_record() {
    for seed in 0..15 {
        let mut chance = fastrand::Rng::with_seed(seed);
        let (mut now, mut next) = (Bench::settled(pair()).await, None);
        let mut events = now.shared.observer.events();
        for _ in 0..40 {
            step(&mut chance, &mut now, &mut next).await;
        }
        now.fakes.iter().for_each(|fake| fake.behaves(BACK));
        sleep(200 * SECOND).await;
        now.shared.observer.close();
        let mut told = std::collections::HashMap::<String, Vec<&str>>::new();
        while let Some(event) = events.next().await {
            if let Some(alias) = event.alias {
                told.entry(alias.to_string()).or_default().push(event.kind.name());
            }
        }
        assert_eq!(events.missed(), 0);
        for (alias, told) in told {
            let outages: Vec<_> = told.iter().copied().filter(|name| name.contains("outage")).collect();
            let paired = outages.chunks(2).all(|pair| pair == ["outage_opened", "outage_closed"]);
            assert!(paired, "seed {seed}, {alias}: {told:?}");
            // An outage's end tells of admission too.
            let admits = told.split(|name| name.contains("outage")).all(|told| {
                told.chunks(2)
                    .all(|pair| matches!(pair, ["admission_stopped"] | ["admission_stopped", "admission_resumed"]))
            });
            assert!(admits && told.last() != Some(&"admission_stopped"), "seed {seed}, {alias}: {told:?}");
        }
    }
}
