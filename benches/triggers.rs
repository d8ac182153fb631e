//! What do the triggers cost where nothing is due? The same work with a layer and without, in turns; what it takes beyond.

mod support;

#[path = "../tests/support/full.rs"]
mod full;

use std::{
    cell::RefCell,
    convert::Infallible,
    error::Error,
    fmt,
    future::{Future, Ready, ready},
    hint::black_box,
    pin::pin,
    task::{Context, Poll, Waker},
};

use axum::http::{Method, Request, Response};
use pgdetour::{
    Config, Mode, Router,
    config::{Monitoring, Role},
    layer::{ErrorTrigger, MonitoredLayer, OutageLayer},
};
use tower::{Layer as _, Service, service_fn};
use tracing::Dispatch;
use tracing_subscriber::{Layer, layer::SubscriberExt};

use support::{Fallible, Judged, Row, Spread, Unit, now};

/// Pairs of turns for each row, and how often a turn does the work: some milliseconds.
const ROUNDS: usize = 200;
const TIMES: u32 = 50_000;

fn main() -> Fallible<()> {
    if !support::is_wanted() {
        return Ok(());
    }
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let rows = runtime.block_on(measure())?;
    support::print(&rows, "no PostgreSQL");
    Ok(())
}

/// The monitor of this router has a thread of its own, and all of its pings lie two minutes ahead.
async fn measure() -> Fallible<Vec<Row>> {
    let (url, _pings) = full::server().await?;
    let config = Config::builder().monitoring(Monitoring::OnDemand).server("primary", Role::Primary, url).build()?;
    let router: Router = Router::start(config).await?;
    router.monitor().await;
    Ok([requests(&router)?, log(&router)].concat())
}

fn requests(router: &Router) -> Fallible<Vec<Row>> {
    let bare = RefCell::new(service_fn(answer));
    let monitored = RefCell::new(MonitoredLayer::new(router).layer(service_fn(answer)));
    let closing = OutageLayer::new(router)
        .monitored()
        .when_out("primary", |request: &Request<()>| request.uri().path() == "/reports", |_| Response::new(()))?
        .when_mode(Mode::Down, |request| request.method() == Method::POST, |_| Response::new(()));
    let closing = RefCell::new(closing.layer(service_fn(answer)));
    let without = || call(&bare);
    Ok(vec![
        row(
            "`router.monitored(future)`, nothing due",
            beyond(|| poll(ready(())), || poll(router.monitored(ready(())))),
        ),
        row("tower: `MonitoredLayer`, nothing due", beyond(without, || call(&monitored))),
        row("tower: `OutageLayer` with two rules and monitoring, nothing due", beyond(without, || call(&closing))),
    ])
}

fn answer(request: Request<()>) -> Ready<Result<Response<()>, Infallible>> {
    black_box(&request);
    ready(Ok(Response::new(())))
}

fn call<S: Service<Request<()>>>(service: &RefCell<S>) {
    let answer = service.borrow_mut().call(Request::new(()));
    poll(answer);
}

/// What is ready at once.
fn poll<F: Future>(future: F) {
    let polled = pin!(future).poll(&mut Context::from_waker(Waker::noop()));
    assert!(matches!(black_box(polled), Poll::Ready(_)));
}

/// Another layer of the application's, which takes whatever it is given.
struct Sink;

impl<S: tracing::Subscriber> Layer<S> for Sink {
    fn on_event(&self, event: &tracing::Event<'_>, _: tracing_subscriber::layer::Context<'_, S>) {
        black_box(event);
    }
}

fn log(router: &Router) -> Vec<Row> {
    let errors = ErrorTrigger::new();
    errors.report_to(router);
    // One at a time is there: what a subscriber says of an event is kept for all.
    let without = || Dispatch::new(tracing_subscriber::registry().with(Sink));
    let with = || Dispatch::new(tracing_subscriber::registry().with(errors.layer()).with(Sink));
    let own: &(dyn Error + 'static) = &fmt::Error;
    let of = |event: fn(&(dyn Error + 'static))| {
        let turn = |dispatch: Dispatch| tracing::dispatcher::with_default(&dispatch, || time(|| event(own)));
        pairs(|| turn(without()), || turn(with()))
    };
    vec![
        row("tracing: `ErrorTrigger`, an event of another level", of(|_| tracing::info!("something"))),
        row("tracing: `ErrorTrigger`, an ERROR event without an error", of(|_| tracing::error!("something"))),
        row(
            "tracing: `ErrorTrigger`, an ERROR event with an error that is of no server",
            of(|error| tracing::error!(error)),
        ),
    ]
}

fn time(work: impl Fn()) -> f64 {
    let begun = now();
    for _ in 0..TIMES {
        work();
    }
    begun.elapsed().as_secs_f64() / f64::from(TIMES)
}

/// How much longer one time of the second work takes than one of the first.
fn beyond(without: impl Fn(), with: impl Fn()) -> Spread {
    pairs(|| time(&without), || time(&with))
}

fn pairs(without: impl Fn() -> f64, with: impl Fn() -> f64) -> Spread {
    let turns = (0..ROUNDS).map(|round| match round % 2 {
        0 => {
            let without = without();
            with() - without
        }
        _ => with() - without(),
    });
    turns.collect()
}

fn row(measure: &str, spread: Spread) -> Row {
    let (must, aim) = (100e-9, 30e-9);
    Row { measure: measure.to_owned(), unit: Unit::Seconds, judged: Judged::MedianAtMost, must, aim, spread }
}
