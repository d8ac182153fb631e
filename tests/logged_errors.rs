//! Errors that an application logs: which of them have a server pinged, and what other layers see of it.

#[path = "support/full.rs"]
mod full;

use std::{
    error::Error,
    fmt, io,
    sync::{Arc, Mutex},
    time::Duration,
};

use pgdetour::{
    Config, Router,
    config::{ConfigBuilder, Monitoring, Pings, Role},
    layer::ErrorTrigger,
    policy::Class,
};
use tokio::{sync::mpsc, time::timeout};
use tracing::{Level, Subscriber, level_filters::LevelFilter, subscriber::DefaultGuard};
use tracing_subscriber::{
    Layer,
    layer::{Context, SubscriberExt},
};

type Tested<T = ()> = Result<T, Box<dyn Error>>;

const SOON: Duration = Duration::from_secs(20);

/// Another layer of the same subscriber: the levels and targets of what it was given.
#[derive(Clone, Default)]
struct Seen(Arc<Mutex<Vec<(Level, String)>>>);

impl<S: Subscriber> Layer<S> for Seen {
    fn on_event(&self, event: &tracing::Event<'_>, _: Context<'_, S>) {
        let metadata = event.metadata();
        if metadata.target().starts_with("logged_errors") {
            self.0.lock().expect("nobody panics in here").push((*metadata.level(), metadata.target().to_owned()));
        }
    }
}

/// A router that is pinged when an error asks for it, and a server that says so when it is.
struct Bench {
    router: Router,
    asked: mpsc::UnboundedReceiver<()>,
    seen: Seen,
    errors: ErrorTrigger,
    _subscriber: DefaultGuard,
}

impl Bench {
    async fn new() -> Tested<Self> {
        Self::with(|config| config).await
    }

    async fn with(settings: impl FnOnce(ConfigBuilder) -> ConfigBuilder) -> Tested<Self> {
        let (url, mut asked) = full::server().await?;
        let (seen, errors) = (Seen::default(), ErrorTrigger::new());
        let subscriber = tracing_subscriber::registry().with(errors.layer()).with(seen.clone());
        let subscriber = tracing::subscriber::set_default(subscriber);
        let pings = Pings { error_ping_frequency: Duration::from_millis(1), ..Pings::default() };
        let config = Config::builder().pings(pings).monitoring(Monitoring::OnDemand);
        let config = settings(config.server("primary", Role::Primary, url));
        let router = Router::start(config.build()?).await?;
        errors.report_to(&router);
        while asked.try_recv().is_ok() {}
        Ok(Self { router, asked, seen, errors, _subscriber: subscriber })
    }

    /// Whether any ping has gone out up to now. Two that are asked for by hand come after it, so there is no time to wait for.
    async fn was_pinged(&mut self) -> Tested<bool> {
        let mut others = 0;
        while self.asked.try_recv().is_ok() {
            others += 1;
        }
        self.router.report(&refused());
        timeout(SOON, self.asked.recv()).await?.ok_or("the server ended")?;
        // What was asked for before is pinged with it, or was already.
        Ok(others > 0)
    }

    async fn next_ping(&mut self) -> Tested {
        timeout(SOON, self.asked.recv()).await?.ok_or_else(|| "the server ended".into())
    }
}

fn refused() -> io::Error {
    io::ErrorKind::ConnectionRefused.into()
}

#[tokio::test]
async fn an_error_event_that_carries_a_lost_connection_has_the_server_pinged() -> Tested {
    let mut bench = Bench::new().await?;
    let error = refused();
    tracing::error!(error = &error as &dyn Error, "the page cannot be shown");
    bench.next_ping().await?;
    // The same within an error of the application's.
    let error = io::Error::other(Page(refused()));
    tracing::error!(error = &error as &(dyn Error + 'static), page = 7);
    bench.next_ping().await
}

#[tokio::test]
async fn what_is_no_error_event_or_carries_no_error_of_a_server_or_is_the_crates_own_asks_for_nothing() -> Tested {
    let bench = Bench::new().await?;
    let mut bench = bench;
    let error = refused();
    tracing::warn!(error = &error as &dyn Error);
    tracing::info!(error = &error as &dyn Error);
    tracing::error!(%error);
    tracing::error!(target: "pgdetour", error = &error as &dyn Error);
    tracing::error!(target: "pgdetour::lease", error = &error as &dyn Error);
    tracing::error!(error = &fmt::Error as &dyn Error);
    tracing::error!("nothing");
    assert!(bench.router.table().entries().iter().all(|entry| !entry.belief().is_doubted()));
    assert!(!bench.was_pinged().await?);
    // A name that begins alike is the application's.
    tracing::error!(target: "pgdetour_shop", error = &error as &dyn Error);
    bench.next_ping().await
}

#[tokio::test]
async fn other_layers_see_what_they_would_see_without_it() -> Tested {
    let bench = Bench::new().await?;
    let error = refused();
    tracing::trace!("one");
    tracing::debug!("two");
    tracing::error!(error = &error as &dyn Error, "three");
    let seen = bench.seen.0.lock().unwrap().iter().map(|(level, _)| *level).collect::<Vec<_>>();
    assert_eq!(seen, [Level::TRACE, Level::DEBUG, Level::ERROR]);
    Ok(())
}

#[test]
fn by_itself_it_enables_no_event_below_error() {
    let subscriber = tracing_subscriber::registry().with(ErrorTrigger::new().layer());
    assert_eq!(subscriber.max_level_hint(), Some(LevelFilter::ERROR));
}

#[tokio::test]
async fn code_that_classifies_errors_may_log_and_panic_without_a_loop_and_without_a_trace() -> Tested {
    std::panic::set_hook(Box::new(|_| {}));
    let bench = Bench::with(|config| {
        config.classify_errors(|error| {
            tracing::error!(error, "while this is looked at");
            assert!(!error.is::<Page<fmt::Error>>(), "it panics here");
            Some(Class::Application)
        })
    });
    let bench = bench.await?;
    tracing::error!(error = &Page(fmt::Error) as &dyn Error);
    tracing::error!(error = &refused() as &dyn Error);
    // Within a subscriber that is not the global one nothing else is logged.
    let seen = bench.seen.0.lock().unwrap().len();
    assert!((2..=4).contains(&seen), "{seen}");
    Ok(())
}

#[tokio::test]
async fn it_does_not_keep_its_router_running() -> Tested {
    let mut bench = Bench::new().await?;
    let Bench { router, asked, errors, .. } = &mut bench;
    let mut events = router.events();
    *router = Router::start(Config::builder().server("primary", Role::Primary, full::url(1)).build()?).await?;
    assert!(timeout(SOON, events.next()).await?.is_none(), "its last handle was dropped");
    tracing::error!(error = &refused() as &dyn Error);
    assert!(asked.try_recv().is_err());
    // It may report to another one, and forgets the one that is gone.
    errors.report_to(router);
    assert!(format!("{errors:?}").contains("routers: 1"));
    Ok(())
}

/// An error of the application's, over another one.
#[derive(Debug)]
struct Page<E>(E);

impl<E> fmt::Display for Page<E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the page cannot be shown")
    }
}

impl<E: Error + 'static> Error for Page<E> {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        Some(&self.0)
    }
}
