//! How many connects go to one server at a time, and how fast do they grow more? A login costs the server a process: many at once
//! slow those it is serving, and after a restart every client of it wants all of its connections back.

use std::{
    sync::{Mutex, MutexGuard, PoisonError},
    time::Instant,
};

use tokio::sync::{Semaphore, SemaphorePermit};

use crate::{clock, policy::Ramp};

/// Connects to one server at a time, whatever pools they are for; pings do not count.
const AT_ONCE: usize = 2;

/// What every connect to one server has to pass.
#[derive(Debug)]
pub(super) struct Gate {
    turns: Semaphore,
    recovery: Climb,
}

/// What holds connects back for a while.
#[derive(Debug, Default)]
pub(super) struct Climb {
    ramp: Mutex<Option<Ramp>>,
    /// Each burst of connects begins slowly, not the first alone.
    renews: bool,
}

impl Gate {
    /// A gate that lets two through at a time, and is otherwise open.
    pub(super) fn new() -> Self {
        Self { turns: Semaphore::new(AT_ONCE), recovery: Climb::default() }
    }

    /// Lets connects begin slowly from now on: the server has just come back.
    pub(super) fn slow_start(&self) {
        self.recovery.restart();
    }

    /// Waits for a turn to connect, and for `climb` where the pool has one of its own. The connect is to end before the turn is
    /// dropped.
    ///
    /// # Cancel safety
    ///
    /// Cancel safe: a turn that is given up goes to whoever comes next. What a ramp has counted stays counted.
    pub(super) async fn turn(&self, climb: Option<&Climb>) -> Option<SemaphorePermit<'_>> {
        // First, since whoever waits for it must not keep the server's other pools waiting.
        if let Some(climb) = climb {
            climb.wait().await;
        }
        // It is never closed.
        let turn = self.turns.acquire().await.ok();
        self.recovery.wait().await;
        turn
    }
}

impl Climb {
    /// One that lets each burst of connects begin slowly.
    pub(super) fn of_bursts() -> Self {
        Self { ramp: Mutex::default(), renews: true }
    }

    /// Begins at one connect.
    fn restart(&self) {
        *self.lock() = Some(Ramp::new(clock::now(), fastrand::u64(..)));
    }

    /// Waits until one more connect may begin, and counts it.
    async fn wait(&self) {
        while let Err(next) = self.begin(clock::now()) {
            tokio::time::sleep_until(next.into()).await;
        }
    }

    fn begin(&self, now: Instant) -> Result<(), Instant> {
        let mut ramp = self.lock();
        if self.renews && ramp.as_ref().is_none_or(|ramp| ramp.is_past(now)) {
            *ramp = Some(Ramp::new(now, fastrand::u64(..)));
        }
        ramp.as_mut().map_or(Ok(()), |ramp| ramp.begin(now))
    }

    fn lock(&self) -> MutexGuard<'_, Option<Ramp>> {
        self.ramp.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use std::{
        sync::{
            Arc,
            atomic::{AtomicUsize, Ordering},
        },
        time::Duration,
    };

    use tokio::{task::JoinSet, time::sleep};

    use super::*;

    const MS: Duration = Duration::from_millis(1);

    /// When each of `count` connects began that all wanted to at once and take 4 ms each, and how many were under way at most.
    async fn connect_all(gate: &Arc<Gate>, climb: Option<Arc<Climb>>, count: usize) -> (Vec<Duration>, usize) {
        let (start, under_way, most) = (clock::now(), Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
        let connects: JoinSet<Duration> = (0..count)
            .map(|_| {
                let (gate, climb, under_way, most) = (gate.clone(), climb.clone(), under_way.clone(), most.clone());
                async move {
                    let _turn = gate.turn(climb.as_deref()).await;
                    let begun = clock::now() - start;
                    most.fetch_max(under_way.fetch_add(1, Ordering::Relaxed) + 1, Ordering::Relaxed);
                    sleep(4 * MS).await;
                    under_way.fetch_sub(1, Ordering::Relaxed);
                    begun
                }
            })
            .collect();
        (connects.join_all().await, most.load(Ordering::Relaxed))
    }

    fn within(begun: &[Duration], from: Duration, until: Duration) -> usize {
        begun.iter().filter(|at| (from..until).contains(&**at)).count()
    }

    #[tokio::test(start_paused = true)]
    async fn two_connects_go_to_a_server_at_a_time_and_nothing_else_holds_them_back() {
        let (begun, most) = connect_all(&Arc::new(Gate::new()), None, 16).await;
        assert_eq!(most, 2);
        assert_eq!(begun.into_iter().max(), Some(7 * 4 * MS));
    }

    #[tokio::test(start_paused = true)]
    async fn after_a_return_one_connect_begins_then_two_then_four() {
        let gate = Arc::new(Gate::new());
        gate.slow_start();
        let (begun, most) = connect_all(&gate, None, 16).await;
        assert!(most <= 2);
        // A step takes 75 to 125 ms.
        assert_eq!(within(&begun, Duration::ZERO, 75 * MS), 1);
        assert!(within(&begun, Duration::ZERO, 150 * MS) <= 3);
        assert!(begun.iter().all(|at| *at < 5 * 125 * MS), "{begun:?}");
        sleep(Duration::from_secs(1)).await;
        let (begun, _) = connect_all(&gate, None, 16).await;
        assert_eq!(begun.into_iter().max(), Some(7 * 4 * MS), "it is over");
    }

    #[tokio::test(start_paused = true)]
    async fn each_burst_of_a_detour_begins_slowly() {
        let (gate, climb) = (Arc::new(Gate::new()), Arc::new(Climb::of_bursts()));
        for _ in 0..2 {
            let (begun, _) = connect_all(&gate, Some(climb.clone()), 8).await;
            assert_eq!(within(&begun, Duration::ZERO, 75 * MS), 1, "{begun:?}");
            assert!(begun.iter().all(|at| *at < 4 * 125 * MS), "{begun:?}");
            sleep(Duration::from_secs(60)).await;
        }
    }

    #[tokio::test(start_paused = true)]
    async fn connects_of_a_detour_that_begin_slowly_do_not_hold_back_those_of_other_pools() {
        let (gate, climb) = (Arc::new(Gate::new()), Arc::new(Climb::of_bursts()));
        let (_, (begun, _)) = tokio::join!(connect_all(&gate, Some(climb), 8), async {
            sleep(10 * MS).await;
            connect_all(&gate, None, 2).await
        });
        assert_eq!(begun, [Duration::ZERO; 2]);
    }

    #[tokio::test(start_paused = true)]
    async fn a_turn_that_is_given_up_goes_to_the_next() {
        let gate = Gate::new();
        let held = (gate.turn(None).await, gate.turn(None).await);
        assert!(tokio::time::timeout(MS, gate.turn(None)).await.is_err());
        drop(held);
        assert!(tokio::time::timeout(MS, gate.turn(None)).await.is_ok());
    }
}
