//! A second attempt while the first still runs: when, and which of the two counts.

use std::{
    future::{Future, poll_fn},
    pin::{Pin, pin},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    task::{Context, Poll, ready},
    time::{Duration, Instant},
};

use tokio::time::{sleep, sleep_until};

use super::{
    call::BoxError,
    error::Error,
    lease::Lease,
    line::Getting,
    recall::{Recall, Tether},
    trail::{Trail, address},
};
use crate::{clock, config::Hedge, policy::Latencies, pool::Backend};

/// After how long the reads of one alias are asked of a second server too.
#[derive(Debug)]
pub(super) struct Patience {
    rule: Hedge,
    learned: Arc<Learned>,
}

/// What the reads of an alias have taught.
#[derive(Debug)]
struct Learned {
    latencies: Latencies,
    answered: AtomicU64,
    /// In microseconds; 0 while too little is known.
    p95: AtomicU64,
}

/// How many answers come between two looks at all of them.
const LOOK: u64 = 64;

impl Patience {
    pub(super) fn new(rule: Hedge) -> Self {
        let learned = Learned { latencies: Latencies::new(), answered: AtomicU64::new(0), p95: AtomicU64::new(0) };
        Self { rule, learned: Arc::new(learned) }
    }

    /// The same rule over what another one has learned of the same servers: after a reload. Reads of before go on teaching both.
    pub(super) fn resumed(self, before: &Self) -> Self {
        Self { learned: Arc::clone(&before.learned), ..self }
    }

    /// How long a read waits for its first server alone; `None` for as long as it may take.
    pub(super) fn lasts(&self) -> Option<Duration> {
        match self.rule {
            Hedge::Off => None,
            Hedge::After(after) => Some(after),
            Hedge::P95 => {
                Some(self.learned.p95.load(Ordering::Relaxed)).filter(|p95| *p95 > 0).map(Duration::from_micros)
            }
        }
    }

    /// Learns from a read that was answered.
    pub(super) fn answered(&self, took: Duration) {
        match self.rule {
            Hedge::Off | Hedge::After(_) => {}
            Hedge::P95 => self.learned.answered(took),
        }
    }
}

impl Learned {
    fn answered(&self, took: Duration) {
        self.latencies.record(took);
        if self.answered.fetch_add(1, Ordering::Relaxed) % LOOK == LOOK - 1 {
            let p95 = self.latencies.quantile(0.95).map_or(0, |p95| u64::try_from(p95.as_micros()).unwrap_or(u64::MAX));
            self.p95.store(p95, Ordering::Relaxed);
        }
    }
}

/// A read that is asked of a second server when the first has not answered `after` so long.
pub(super) async fn hedged<'a, B, T, E, F>(
    mut trail: Trail<'a, B>,
    mut work: impl FnMut(Lease<B>) -> F + Send,
    after: Duration,
) -> Result<T, Error>
where
    B: Backend,
    F: Future<Output = Result<T, E>> + Send,
    E: Into<BoxError>,
{
    let mut over = pin!(sleep_until(trail.deadline.at().into()));
    let mut slow = pin!(sleep(after));
    let mut legs = vec![Leg::first(&trail)];
    // Two legs are enough. Whether a second one was refused, and where the next may go after one that failed while another was still made.
    let (mut refused, mut owed) = (false, None);
    loop {
        let event = poll_fn(|cx| {
            if let Poll::Ready((index, end)) = poll_any(&mut legs, cx, &trail, &mut work) {
                return Poll::Ready(Event::Ended(index, end));
            }
            if over.as_mut().poll(cx).is_ready() {
                return Poll::Ready(Event::Late);
            }
            if legs.len() == 1 && !refused { slow.as_mut().poll(cx).map(|()| Event::Slow) } else { Poll::Pending }
        });
        match event.await {
            Event::Ended(_, End::Answered(recall, answer)) => {
                trail.answered(&recall);
                called_back(&mut legs).iter().for_each(|lost| lost.count_lost_to(&recall, after));
                return Ok(answer);
            }
            Event::Ended(index, End::Failed(recall, error)) => {
                drop(legs.remove(index));
                owed = Some(trail.fail(&recall, error)?);
            }
            Event::Ended(index, End::Unserved(error)) => {
                drop(legs.remove(index));
                refused = true;
                if let (true, None, Some(error)) = (legs.is_empty(), owed, error) {
                    return Err(trail.unserved(error));
                }
            }
            Event::Slow => {
                let beside = trail.beside(legs[0].recall.as_deref().map(address).or(legs[0].aim));
                legs.extend(beside.map(|getting| Leg::new(Stage::Getting(getting), clock::now())));
            }
            Event::Late => {
                called_back(&mut legs).iter().for_each(|recall| trail.give_up(recall));
                return Err(trail.late());
            }
        }
        if let (true, Some(place)) = (legs.is_empty(), owed) {
            legs.push(Leg::working(trail.again(place).await?, &trail, &mut work));
            (refused, owed) = (false, None);
        }
        slow.as_mut().reset((clock::now() + after).into());
    }
}

/// Which attempt has ended, and how.
fn poll_any<'a, B, T, E, F>(
    legs: &mut [Leg<'a, B, F>],
    cx: &mut Context<'_>,
    trail: &Trail<'a, B>,
    work: &mut impl FnMut(Lease<B>) -> F,
) -> Poll<(usize, End<T>)>
where
    B: Backend,
    F: Future<Output = Result<T, E>>,
    E: Into<BoxError>,
{
    for index in 0..legs.len() {
        let other = legs.iter().enumerate().find(|(at, _)| *at != index);
        let taken = other.and_then(|(_, other)| other.recall.as_deref().map(address));
        if let Poll::Ready(end) = legs[index].poll(cx, taken, trail, work) {
            return Poll::Ready((index, end));
        }
    }
    Poll::Pending
}

/// Ends these attempts.
fn called_back<B: Backend, F>(legs: &mut Vec<Leg<'_, B, F>>) -> Vec<Arc<Recall>> {
    legs.drain(..).filter_map(|leg| leg.recall.clone()).collect()
}

enum Event<T> {
    Ended(usize, End<T>),
    /// The first attempt takes long.
    Slow,
    /// The call's time is over.
    Late,
}

/// How one attempt ended.
enum End<T> {
    Answered(Arc<Recall>, T),
    Failed(Arc<Recall>, BoxError),
    /// It was given no connection; or one to the server that the other attempt is at work on (`None`): in a group where it goes shows
    /// at the end of the wait.
    Unserved(Option<Error>),
}

/// One attempt of a call that may have two at a time. Dropping it cancels it, wherever it is.
struct Leg<'a, B: Backend, F> {
    /// Before the work, so that it is dropped before it.
    tether: Option<Tether>,
    stage: Stage<'a, B, F>,
    recall: Option<Arc<Recall>>,
    /// The server that it asks for a connection, by its address, if that is known.
    aim: Option<usize>,
    since: Instant,
}

enum Stage<'a, B: Backend, F> {
    Getting(Getting<'a, B>),
    Working(Pin<Box<F>>),
}

impl<'a, B: Backend, F> Leg<'a, B, F> {
    fn new(stage: Stage<'a, B, F>, since: Instant) -> Self {
        Self { tether: None, stage, recall: None, aim: None, since }
    }

    /// The first one of a call.
    fn first(trail: &Trail<'a, B>) -> Self {
        let (getting, aim) = trail.first();
        Self { aim, ..Self::new(Stage::Getting(getting), trail.since) }
    }

    /// One that has its connection already.
    fn working(lease: Lease<B>, trail: &Trail<'a, B>, work: &mut impl FnMut(Lease<B>) -> F) -> Self {
        let pending = Stage::Getting(Box::pin(std::future::pending()));
        let mut leg = Self::new(pending, trail.since);
        leg.begin(lease, trail, work);
        leg
    }

    fn begin(&mut self, mut lease: Lease<B>, trail: &Trail<'a, B>, work: &mut impl FnMut(Lease<B>) -> F) {
        let now = clock::now();
        let recall = Recall::tie(&mut lease, (self.since, now), trail.limit(now));
        self.stage = Stage::Working(Box::pin(work(lease)));
        self.tether = Some(Tether::new(&recall));
        self.recall = Some(recall);
    }

    fn poll<T, E>(
        &mut self,
        cx: &mut Context<'_>,
        taken: Option<usize>,
        trail: &Trail<'a, B>,
        work: &mut impl FnMut(Lease<B>) -> F,
    ) -> Poll<End<T>>
    where
        F: Future<Output = Result<T, E>>,
        E: Into<BoxError>,
    {
        if let Stage::Getting(getting) = &mut self.stage {
            match ready!(getting.as_mut().poll(cx)) {
                Ok(lease) if taken == Some(lease.goes_to().0.identity()) => return Poll::Ready(End::Unserved(None)),
                Ok(lease) => self.begin(lease, trail, work),
                Err(error) => return Poll::Ready(End::Unserved(Some(error))),
            }
        }
        let (Stage::Working(working), Some(recall)) = (&mut self.stage, &self.recall) else { return Poll::Pending };
        let ended = ready!(working.as_mut().poll(cx));
        self.tether.take().into_iter().for_each(Tether::cut);
        Poll::Ready(match ended {
            Ok(answer) => End::Answered(Arc::clone(recall), answer),
            Err(error) => End::Failed(Arc::clone(recall), error.into()),
        })
    }
}
