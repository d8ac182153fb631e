//! How fast may a pool grow again? One connect, then two, then four for each step of time.

use std::time::{Duration, Instant};

/// The length of a step, before jitter.
const STEP: Duration = Duration::from_millis(100);

/// After so many steps nothing is held back any more: by then 127 connects may have begun.
const STEPS: u32 = 7;

/// After so long without a connect the next ones are a new climb, where one is wanted for each burst.
const CALM: Duration = Duration::from_secs(10);

/// Slow start: how many connects may begin since a moment. Each ramp has steps of its own length, so that many processes do not
/// climb in step.
#[derive(Debug, Clone)]
pub(crate) struct Ramp {
    since: Instant,
    step: Duration,
    begun: u32,
    last: Instant,
}

impl Ramp {
    /// A ramp from `since` on; `random` decides the length of its steps, 75 to 125 ms.
    pub(crate) fn new(since: Instant, random: u64) -> Self {
        let quarter = STEP / 4;
        let jitter = Duration::from_nanos(random % u64::try_from(2 * quarter.as_nanos()).unwrap_or(u64::MAX));
        Self { since, step: STEP - quarter + jitter, begun: 0, last: since }
    }

    /// Counts a connect that begins at `now`.
    ///
    /// # Errors
    ///
    /// When none may begin yet: from when on one may.
    pub(crate) fn begin(&mut self, now: Instant) -> Result<(), Instant> {
        let step = self.step_at(now);
        if step < STEPS && self.begun >= allowed(step) {
            return Err(self.since + self.step * (step + 1));
        }
        self.begun = self.begun.saturating_add(1);
        self.last = now;
        Ok(())
    }

    /// Whether none has begun for so long that the next ones belong to another climb.
    pub(crate) fn is_past(&self, now: Instant) -> bool {
        now.saturating_duration_since(self.last) >= CALM
    }

    fn step_at(&self, now: Instant) -> u32 {
        let steps = now.saturating_duration_since(self.since).as_nanos() / self.step.as_nanos();
        u32::try_from(steps).unwrap_or(u32::MAX)
    }
}

/// How many connects may have begun by the end of a step: 1, 1 + 2, 1 + 2 + 4 …
fn allowed(step: u32) -> u32 {
    (2_u32 << step.min(STEPS)) - 1
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const MS: Duration = Duration::from_millis(1);

    /// When each of `count` connects begins that all want to at once.
    fn begin_all(ramp: &mut Ramp, from: Instant, count: u32) -> Vec<Instant> {
        let mut now = from;
        let mut begun = Vec::new();
        while begun.len() < count as usize {
            match ramp.begin(now) {
                Ok(()) => begun.push(now),
                Err(next) => {
                    assert!(next > now, "it would spin");
                    now = next;
                }
            }
        }
        begun
    }

    #[test]
    fn each_step_lets_twice_as_many_begin_as_the_one_before() {
        let start = crate::clock::now();
        let mut ramp = Ramp::new(start, 25_000_000);
        let begun = begin_all(&mut ramp, start, 31);
        let at = |step: u32| begun.iter().filter(|at| **at == start + 100 * step * MS).count();
        assert_eq!((0..5).map(at).collect::<Vec<_>>(), [1, 2, 4, 8, 16]);
    }

    proptest! {
        #[test]
        fn a_ramp_never_lets_more_begin_than_its_steps_allow_and_ends(random: u64, gaps in prop::collection::vec(0_u64..80, 1..200)) {
            let start = crate::clock::now();
            let (mut ramp, mut now, mut begun) = (Ramp::new(start, random), start, 0);
            for gap in gaps {
                now += MS * u32::try_from(gap).unwrap();
                match ramp.begin(now) {
                    Ok(()) => begun += 1,
                    Err(next) => prop_assert!(next > now && next <= now + 125 * MS ),
                }
                let steps = u32::try_from((now - start).as_millis() / 75).unwrap();
                prop_assert!(steps >= STEPS || begun <= allowed(steps));
            }
            let end = start + STEPS * 125 * MS;
            prop_assert!((0..1000).all(|_| ramp.begin(end).is_ok()));
        }
    }
}
