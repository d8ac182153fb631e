//! Closes a part of the application while what it stands on is out, and leaves the rest open.

use std::{
    fmt,
    future::Future,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use http::{Request, Response};
use pin_project_lite::pin_project;
use tower_layer::Layer;
use tower_service::Service;

use super::{monitored::Monitored, outage::Outage};
use crate::{Alias, Error, Mode, Router, Switch, clock, config::AliasName, pool::Backend, router::DefaultBackend};

/// Answers requests in the application's stead while an alias or a service is out, or the router is in a mode. It stands on `tower` and `http`
/// alone, so it goes into axum, hyper and whatever else speaks those.
///
/// ```no_run
/// # #[cfg(feature = "deadpool")]
/// # async fn example(router: pgdetour::Router) -> Result<(), pgdetour::Error> {
/// use pgdetour::{Mode, layer::OutageLayer};
///
/// let outages = OutageLayer::new(&router)
///     .monitored()
///     .when_out("reports", |request| request.uri().path().starts_with("/reports"), |outage| outage.response())?
///     .when_mode(Mode::ReadOnly, |request| request.method() != "GET", |outage| outage.problem());
/// let app: axum::Router = axum::Router::new().layer(outages);
/// # Ok(())
/// # }
/// ```
///
/// Of the rules that match a request the first answers. They are looked at when a request comes, without a lock, a clock or a task, so
/// they never lag behind where requests go. They survive a reload. Like an [`Alias`], the layer keeps the router running.
pub struct OutageLayer<B: Backend = DefaultBackend, Q = (), A = ()> {
    router: Router<B>,
    monitored: bool,
    rules: Vec<Arc<Rule<B, Q, A>>>,
}

/// A service of which a part may be closed: [`OutageLayer`] makes it.
pub struct Closing<S, B: Backend = DefaultBackend, Q = (), A = ()> {
    inner: S,
    router: Router<B>,
    rules: Arc<[Arc<Rule<B, Q, A>>]>,
}

pin_project! {
    /// The answer of a [`Closing`] service.
    pub struct ClosingFuture<F, A> {
        answer: Option<Response<A>>,
        #[pin]
        inner: Option<F>,
    }
}

/// Whether a request is one of those that are closed.
type Concerns<Q> = dyn Fn(&Request<Q>) -> bool + Send + Sync;

/// What it is answered then.
type Answers<A> = dyn Fn(&Outage) -> Response<A> + Send + Sync;

struct Rule<B: Backend, Q, A> {
    when: When<B>,
    concerns: Box<Concerns<Q>>,
    answer: Box<Answers<A>>,
}

enum When<B: Backend> {
    /// None of the alias's own servers serves.
    Out(Alias<B>),
    /// Nobody serves it, no detour either.
    Unserved(Alias<B>),
    Mode(Mode),
    /// A service is out, or watched no more.
    Service {
        name: AliasName,
        out: Switch<()>,
    },
}

impl<B: Backend, Q, A> OutageLayer<B, Q, A> {
    /// Without any rule yet.
    #[must_use]
    pub fn new(router: &Router<B>) -> Self {
        Self { router: router.clone(), monitored: false, rules: Vec::new() }
    }

    /// With `monitoring = "on-demand"`, sends the pings that are due before a request is looked at, as
    /// [`MonitoredLayer`](super::MonitoredLayer) does.
    #[must_use]
    pub fn monitored(self) -> Self {
        Self { monitored: true, ..self }
    }

    /// While no server of its own serves this alias, has `answer` answer the requests that `concerns` says yes to, whether a detour
    /// would serve them or not: what is closed does not burden the one that stands in. The same for a service while its outage is open;
    /// one that was [registered](Router::register) has to be there before the layer.
    ///
    /// # Errors
    ///
    /// When there is neither such an alias nor such a service; the error names the nearest alias.
    pub fn when_out(
        self,
        name: &str,
        concerns: impl Fn(&Request<Q>) -> bool + Send + Sync + 'static,
        answer: impl Fn(&Outage) -> Response<A> + Send + Sync + 'static,
    ) -> Result<Self, Error> {
        let when = match (self.router.alias(name), self.router.service(name)) {
            (Ok(alias), _) => When::Out(alias),
            (Err(_), Ok(service)) => {
                When::Service { name: service.name().clone(), out: self.router.switch_on_service(name, (), ())? }
            }
            (Err(unknown), Err(_)) => return Err(unknown),
        };
        Ok(self.rule(when, concerns, answer))
    }

    /// The same while nobody serves the alias, on a detour either.
    ///
    /// # Errors
    ///
    /// When there is no such alias; the error names the nearest.
    pub fn when_unserved(
        self,
        alias: &str,
        concerns: impl Fn(&Request<Q>) -> bool + Send + Sync + 'static,
        answer: impl Fn(&Outage) -> Response<A> + Send + Sync + 'static,
    ) -> Result<Self, Error> {
        let when = When::Unserved(self.router.alias(alias)?);
        Ok(self.rule(when, concerns, answer))
    }

    /// The same while the router's [mode](Router::mode) is `from` or worse.
    #[must_use]
    pub fn when_mode(
        self,
        from: Mode,
        concerns: impl Fn(&Request<Q>) -> bool + Send + Sync + 'static,
        answer: impl Fn(&Outage) -> Response<A> + Send + Sync + 'static,
    ) -> Self {
        self.rule(When::Mode(from), concerns, answer)
    }

    fn rule(
        mut self,
        when: When<B>,
        concerns: impl Fn(&Request<Q>) -> bool + Send + Sync + 'static,
        answer: impl Fn(&Outage) -> Response<A> + Send + Sync + 'static,
    ) -> Self {
        self.rules.push(Arc::new(Rule { when, concerns: Box::new(concerns), answer: Box::new(answer) }));
        self
    }
}

impl<B: Backend, Q, A> Rule<B, Q, A> {
    /// The answer to this request, if the rule has one now.
    fn answer(&self, request: &Request<Q>, router: &Router<B>) -> Option<Response<A>> {
        // First what costs less: an alias shows by an atomic load, a mode by all of them.
        let closed = match &self.when {
            When::Out(alias) => !alias.is_at_home() && (self.concerns)(request),
            When::Unserved(alias) => alias.target().is_none() && (self.concerns)(request),
            When::Service { out, .. } => out.is_flipped() && (self.concerns)(request),
            When::Mode(from) => (self.concerns)(request) && router.mode() >= *from,
        };
        closed.then(|| (self.answer)(&self.outage(router)))
    }

    fn outage(&self, router: &Router<B>) -> Outage {
        match &self.when {
            When::Out(alias) | When::Unserved(alias) => {
                let plan = alias.explain();
                let own = plan.steps.iter().filter(|step| !step.detour).map(|step| step.next_ping).min();
                let next = plan.retry_after().or(own).unwrap_or_default();
                Outage::new(Some(alias.name().clone()), router.mode(), next)
            }
            When::Service { name, .. } => {
                let service = router.service(name.as_str()).ok();
                let next = service.map(|service| service.explain().next_ping_in()).unwrap_or_default();
                Outage::new(Some(name.clone()), router.mode(), next)
            }
            When::Mode(_) => Outage::new(None, router.mode(), next_ping(router)),
        }
    }
}

/// Until a server is pinged next that is out, or any if none is.
fn next_ping<B: Backend>(router: &Router<B>) -> Duration {
    let (table, now) = (router.table(), clock::now());
    let out = table.entries().iter().filter(|entry| entry.known.outage.is_some());
    let next = out.map(|entry| entry.known.next_ping).min();
    let next = next.or_else(|| table.entries().iter().map(|entry| entry.known.next_ping).min());
    next.map_or(Duration::ZERO, |next| next.saturating_duration_since(now))
}

impl<S, B: Backend, Q, A> Layer<S> for OutageLayer<B, Q, A> {
    type Service = Monitored<Closing<S, B, Q, A>, B>;

    fn layer(&self, inner: S) -> Self::Service {
        let closing = Closing { inner, router: self.router.clone(), rules: self.rules.clone().into() };
        Monitored::new(closing, self.monitored.then(|| self.router.clone()))
    }
}

impl<S, B, Q, A> Service<Request<Q>> for Closing<S, B, Q, A>
where
    S: Service<Request<Q>, Response = Response<A>> + Clone,
    B: Backend,
{
    type Response = Response<A>;
    type Error = S::Error;
    type Future = ClosingFuture<S::Future, A>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, request: Request<Q>) -> Self::Future {
        match self.rules.iter().find_map(|rule| rule.answer(&request, &self.router)) {
            Some(answer) => {
                // What being ready has reserved, a place among so many requests, is given back.
                self.inner = self.inner.clone();
                ClosingFuture { answer: Some(answer), inner: None }
            }
            None => ClosingFuture { answer: None, inner: Some(self.inner.call(request)) },
        }
    }
}

impl<F, A, E> Future for ClosingFuture<F, A>
where
    F: Future<Output = Result<Response<A>, E>>,
{
    type Output = Result<Response<A>, E>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.project();
        match (this.inner.as_pin_mut(), this.answer.take()) {
            (Some(inner), _) => inner.poll(cx),
            (None, Some(answer)) => Poll::Ready(Ok(answer)),
            // It has answered, and nobody asks a future twice.
            (None, None) => Poll::Pending,
        }
    }
}

impl<B: Backend, Q, A> Clone for OutageLayer<B, Q, A> {
    fn clone(&self) -> Self {
        Self { router: self.router.clone(), monitored: self.monitored, rules: self.rules.clone() }
    }
}

impl<S: Clone, B: Backend, Q, A> Clone for Closing<S, B, Q, A> {
    fn clone(&self) -> Self {
        Self { inner: self.inner.clone(), router: self.router.clone(), rules: Arc::clone(&self.rules) }
    }
}

impl<B: Backend, Q, A> fmt::Debug for OutageLayer<B, Q, A> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("OutageLayer")
            .field("monitored", &self.monitored)
            .field("rules", &self.rules)
            .finish_non_exhaustive()
    }
}

impl<S: fmt::Debug, B: Backend, Q, A> fmt::Debug for Closing<S, B, Q, A> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Closing").field("inner", &self.inner).field("rules", &self.rules).finish_non_exhaustive()
    }
}

impl<B: Backend, Q, A> fmt::Debug for Rule<B, Q, A> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.when {
            When::Service { name, .. } => write!(f, "while {name} is out"),
            When::Out(alias) => write!(f, "while {} is out", alias.name()),
            When::Unserved(alias) => write!(f, "while nobody serves {}", alias.name()),
            When::Mode(mode) => write!(f, "while the mode is {mode} or worse"),
        }
    }
}

impl<F, A> fmt::Debug for ClosingFuture<F, A> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ClosingFuture").finish_non_exhaustive()
    }
}
