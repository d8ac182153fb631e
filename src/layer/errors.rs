//! Errors that an application logs ask for a ping.

use std::{
    cell::Cell,
    error::Error,
    fmt,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::Arc,
};

use arc_swap::ArcSwap;
use tracing::{
    Event, Level, Metadata, Subscriber,
    field::{Field, Visit},
    level_filters::LevelFilter,
    subscriber::Interest,
};
use tracing_subscriber::{
    Layer,
    layer::{Context, Filter},
    registry::LookupSpan,
};

use crate::{Router, pool::Backend, router::Reporter};

/// Reports the errors that the application logs: each ERROR event with a field that is an error, `error = &error as &dyn Error`, is
/// [reported](Router::report) to the routers that this is for. What of them speaks against a server asks for a ping.
///
/// The subscriber is there before the router, so the layer is made first and told of the router later. It does not keep the
/// router running.
///
/// ```no_run
/// # #[cfg(feature = "deadpool")]
/// # async fn example() -> Result<(), Box<dyn std::error::Error>> {
/// use pgdetour::{Router, layer::ErrorTrigger};
/// use tracing_subscriber::{layer::SubscriberExt, util::SubscriberInitExt};
///
/// let errors = ErrorTrigger::new();
/// tracing_subscriber::registry().with(errors.layer()).with(tracing_subscriber::fmt::layer()).init();
///
/// let router: Router = Router::from_file("pgdetour.toml").await?;
/// errors.report_to(&router);
/// # Ok(())
/// # }
/// ```
///
/// The layer has a filter of its own, so that events of other levels cost it nothing and other layers get what they want. What this
/// crate logs itself, target `pgdetour`, is left out. An error that is logged as text (`%error`, `?error`) is no error any more, and neither is what
/// comes from the `log` crate.
#[derive(Clone, Default)]
pub struct ErrorTrigger {
    reporters: Arc<ArcSwap<Vec<Arc<Reporter>>>>,
}

impl ErrorTrigger {
    /// For no router yet.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// From now on errors are reported to this router too.
    pub fn report_to<B: Backend>(&self, router: &Router<B>) {
        let reporter = Arc::new(router.reporter());
        self.reporters.rcu(|others| {
            // Those whose router is gone have nobody to report to.
            let others = others.iter().filter(|other| other(None).is_some());
            others.chain([&reporter]).cloned().collect::<Vec<_>>()
        });
    }

    /// The layer. It may be part of several subscribers.
    #[must_use]
    pub fn layer<S>(&self) -> impl Layer<S> + Send + Sync + use<S>
    where
        S: Subscriber + for<'a> LookupSpan<'a>,
    {
        Listener(self.clone()).with_filter(Errors)
    }

    fn report(&self, error: &(dyn Error + 'static)) {
        for reporter in self.reporters.load().iter() {
            // A panic of the application's own code, which classifies errors, must not leave a log statement.
            let _ = catch_unwind(AssertUnwindSafe(|| reporter(Some(error))));
        }
    }
}

thread_local! {
    /// Whether this thread is reporting: code of the application's that is asked about an error may log one.
    static REPORTING: Cell<bool> = const { Cell::new(false) };
}

/// The layer itself, which has to have its filter.
struct Listener(ErrorTrigger);

impl<S: Subscriber> Layer<S> for Listener {
    fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
        // An error says that the thread is ending.
        if REPORTING.try_with(|reporting| reporting.replace(true)) == Ok(false) {
            event.record(&mut Visitor(&self.0));
            REPORTING.set(false);
        }
    }
}

struct Visitor<'a>(&'a ErrorTrigger);

impl Visit for Visitor<'_> {
    fn record_error(&mut self, _: &Field, error: &(dyn Error + 'static)) {
        self.0.report(error);
    }

    fn record_debug(&mut self, _: &Field, _: &dyn fmt::Debug) {}
}

/// Lets ERROR events through that are not this crate's.
struct Errors;

impl Errors {
    fn lets_through(metadata: &Metadata<'_>) -> bool {
        let own =
            || metadata.target().strip_prefix("pgdetour").is_some_and(|rest| rest.is_empty() || rest.starts_with("::"));
        metadata.is_event() && *metadata.level() == Level::ERROR && !own()
    }
}

impl<S> Filter<S> for Errors {
    fn enabled(&self, metadata: &Metadata<'_>, _: &Context<'_, S>) -> bool {
        Self::lets_through(metadata)
    }

    fn callsite_enabled(&self, metadata: &'static Metadata<'static>) -> Interest {
        if Self::lets_through(metadata) { Interest::always() } else { Interest::never() }
    }

    fn max_level_hint(&self) -> Option<LevelFilter> {
        Some(LevelFilter::ERROR)
    }
}

impl fmt::Debug for ErrorTrigger {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ErrorTrigger").field("routers", &self.reporters.load().len()).finish()
    }
}
