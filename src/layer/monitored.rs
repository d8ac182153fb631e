//! Pings that are due go out before a request is handled: on-demand monitoring, as a layer.

use std::{
    fmt,
    future::Future,
    mem,
    pin::Pin,
    task::{Context, Poll, ready},
};

use pin_project_lite::pin_project;
use tower_layer::Layer;
use tower_service::Service;

use crate::{Router, pool::Backend, router::DefaultBackend};

/// Puts [`Router::monitored`] around a service of any kind: with `monitoring = "on-demand"`, the pings that are due go out before a
/// request is handled. With nothing due it costs two atomic loads.
///
/// It keeps the router running, as an [`Alias`](crate::Alias) does.
///
/// ```no_run
/// # #[cfg(feature = "deadpool")]
/// # async fn example(router: pgdetour::Router) {
/// use pgdetour::layer::MonitoredLayer;
///
/// let app: axum::Router = axum::Router::new().layer(MonitoredLayer::new(&router));
/// # }
/// ```
pub struct MonitoredLayer<B: Backend = DefaultBackend> {
    router: Router<B>,
}

/// A service before whose requests the pings that are due go out: [`MonitoredLayer`] makes it.
pub struct Monitored<S, B: Backend = DefaultBackend> {
    inner: S,
    /// None: it only passes on.
    router: Option<Router<B>>,
}

pin_project! {
    /// The answer of a [`Monitored`] service.
    pub struct MonitoredFuture<S: Service<R>, R> {
        #[pin]
        stage: Stage<S, R>,
    }
}

pin_project! {
    #[project = Staged]
    enum Stage<S: Service<R>, R> {
        // The service is the one that was ready.
        Waiting { pings: Pin<Box<dyn Future<Output = ()> + Send>>, call: Option<(S, R)> },
        Called { #[pin] answer: S::Future },
    }
}

impl<B: Backend> MonitoredLayer<B> {
    /// Of this router.
    #[must_use]
    pub fn new(router: &Router<B>) -> Self {
        Self { router: router.clone() }
    }
}

impl<S, B: Backend> Monitored<S, B> {
    pub(super) fn new(inner: S, router: Option<Router<B>>) -> Self {
        Self { inner, router }
    }
}

impl<S, B: Backend> Layer<S> for MonitoredLayer<B> {
    type Service = Monitored<S, B>;

    fn layer(&self, inner: S) -> Monitored<S, B> {
        Monitored::new(inner, Some(self.router.clone()))
    }
}

impl<S, R, B> Service<R> for Monitored<S, B>
where
    S: Service<R> + Clone,
    B: Backend,
{
    type Response = S::Response;
    type Error = S::Error;
    type Future = MonitoredFuture<S, R>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, request: R) -> Self::Future {
        let due = self.router.as_ref().filter(|router| router.is_due()).cloned();
        let Some(router) = due else {
            return MonitoredFuture { stage: Stage::Called { answer: self.inner.call(request) } };
        };
        let next = self.inner.clone();
        let ready = mem::replace(&mut self.inner, next);
        let pings = Box::pin(async move { router.monitor().await });
        MonitoredFuture { stage: Stage::Waiting { pings, call: Some((ready, request)) } }
    }
}

impl<S: Service<R>, R> Future for MonitoredFuture<S, R> {
    type Output = Result<S::Response, S::Error>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let mut stage = self.project().stage;
        loop {
            let next = match stage.as_mut().project() {
                Staged::Called { answer } => return answer.poll(cx),
                Staged::Waiting { pings, call } => {
                    ready!(pings.as_mut().poll(cx));
                    call.take()
                }
            };
            // It is there: the stage is another one as soon as it is taken.
            let Some((mut service, request)) = next else { return Poll::Pending };
            stage.set(Stage::Called { answer: service.call(request) });
        }
    }
}

impl<B: Backend> Clone for MonitoredLayer<B> {
    fn clone(&self) -> Self {
        Self { router: self.router.clone() }
    }
}

impl<S: Clone, B: Backend> Clone for Monitored<S, B> {
    fn clone(&self) -> Self {
        Self { inner: self.inner.clone(), router: self.router.clone() }
    }
}

impl<B: Backend> fmt::Debug for MonitoredLayer<B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MonitoredLayer").finish_non_exhaustive()
    }
}

impl<S: fmt::Debug, B: Backend> fmt::Debug for Monitored<S, B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Monitored").field("inner", &self.inner).finish_non_exhaustive()
    }
}

impl<S: Service<R>, R> fmt::Debug for MonitoredFuture<S, R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MonitoredFuture").finish_non_exhaustive()
    }
}
