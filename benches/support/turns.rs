//! Two kinds of work in turns, so that what else the machine does falls on both.

use std::time::Duration;

use tokio::task::JoinSet;

use super::{Spread, now};

/// Pairs of turns for each row.
const ROUNDS: usize = 100;
/// How long one turn takes, about: short beside what else a machine does, so that most pairs are left in peace.
const TURN: Duration = Duration::from_millis(20);

/// Does the work in each of `tasks` tasks, which are told their numbers; how long all of them took.
pub(crate) async fn in_tasks<S, F>(source: &S, tasks: usize, work: impl Fn(S, usize) -> F) -> Duration
where
    S: Clone,
    F: Future<Output = ()> + Send + 'static,
{
    let begun = now();
    let running: JoinSet<()> = (0..tasks).map(|task| work(source.clone(), task)).collect();
    running.join_all().await;
    begun.elapsed()
}

/// Times two kinds of work in turns (A B, B A, A B …): the quotient b/a of each pair.
pub(crate) async fn in_turns<A, B>(a: impl Fn(usize) -> A, b: impl Fn(usize) -> B) -> Spread
where
    A: Future<Output = Duration>,
    B: Future<Output = Duration>,
{
    let mut times = 10;
    while a(times).await.max(b(times).await) < TURN {
        times = times * 3 / 2;
    }
    let mut spread = Spread::default();
    for round in 0..ROUNDS {
        let (a, b) = match round % 2 {
            0 => (a(times).await, b(times).await),
            _ => {
                let b = b(times).await;
                (a(times).await, b)
            }
        };
        spread.add(b.as_secs_f64() / a.as_secs_f64());
    }
    spread
}

pub(crate) fn tasks_of(count: usize) -> String {
    if count == 1 { "1 task".to_owned() } else { format!("{count} tasks") }
}
