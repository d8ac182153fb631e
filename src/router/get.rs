//! The common case of a request: the pool of the alias's own server, polled at once and waited for. All else goes down the plan.

use std::{
    future::Future,
    pin::Pin,
    task::{Context, Poll},
    time::Instant,
};

use pin_project_lite::pin_project;
use tokio::{sync::futures::Notified, time::Sleep};

use super::{
    Inner,
    error::Error,
    lease::Lease,
    line::{Getting, Line},
    meter::Reason,
    queue::Place,
    settle::Unanswered,
    stop::Stop,
};
use crate::{
    health::{Belief, Generation, Need},
    plan::{Candidate, Choice},
    pool::{Backend, Server},
};

pin_project! {
    /// A request on its way. By hand, since each future around a future would move the connection once more.
    ///
    /// The common case reads one atomic word, polls the pool once, and reads no clock.
    pub(super) struct Get<'a, B: Backend, F> {
        line: &'a Line<B>,
        router: &'a Inner<B>,
        chosen: Option<(&'a Stop<B>, Belief)>,
        #[pin]
        asked: Option<F>,
        #[pin]
        wait: Option<Wait<'a>>,
        // How it goes on when the case is no common one.
        rest: Option<Rest<'a, B>>,
    }
}

pin_project! {
    /// What a request that has to wait looks out for.
    struct Wait<'a> {
        server: &'a Server,
        since: Option<Instant>,
        deadline: Instant,
        #[pin]
        news: Notified<'a>,
        #[pin]
        late: Sleep,
        unanswered: Unanswered<'a>,
        place: Place<'a>,
    }
}

/// How a wait ends before a connection comes.
enum End {
    /// The server has gone or come back.
    Turned,
    /// It goes behind the others: who waits in line there may be served sooner elsewhere.
    Behind,
    /// The deadline has passed.
    Late,
}

impl<'a, B: Backend, F> Get<'a, B, F> {
    /// Chooses here and not at the first poll: a future that is moved into its place later is copied, and a pool's is large.
    pub(super) fn new(line: &'a Line<B>, router: &'a Inner<B>, ask: impl FnOnce(&'a B) -> F) -> Self {
        let chosen = match line.route.choose() {
            Some(Choice { candidate, detour: false, clear: true, belief }) => Some((candidate, belief)),
            _ => None,
        };
        Self { line, router, chosen, asked: chosen.map(|(stop, _)| ask(&stop.pool)), wait: None, rest: None }
    }

    /// The server that it asks first, by its address; `None` where it will look for one along the plan.
    pub(super) fn aim(&self) -> Option<usize> {
        self.chosen.map(|(stop, _)| stop.server_address())
    }
}

impl<B, F> Future for Get<'_, B, F>
where
    B: Backend,
    F: Future<Output = Result<B::Connection, B::Error>>,
{
    type Output = Result<Lease<B>, Error>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let mut this = self.project();
        let (line, router) = (*this.line, *this.router);
        if let Some(rest) = this.rest {
            return line.poll_on(rest, cx);
        }
        let (since, deadline) = this.wait.as_ref().as_pin_ref().map(|wait| (wait.since, wait.deadline)).unzip();
        let go_on = |rest: &mut Option<_>, next, cx: &mut Context<'_>| line.go_on(rest, (next, since.flatten()), cx);
        let (stop, asked, generation) = match (*this.chosen, this.asked.as_mut().as_pin_mut()) {
            // Until the first poll anything may have happened.
            (Some((stop, belief)), Some(asked)) if deadline.is_some() || stop.belief() == belief => {
                (stop, asked, belief.generation())
            }
            _ => {
                this.asked.set(None);
                return go_on(this.rest, line.get_elsewhere(router), cx);
            }
        };
        let is_news = |now: Belief| now.is_news_to(generation) || !now.serves(line.route.need());
        match asked.poll(cx) {
            // Who did not wait chose it just now. What is matched here is moved once, into its lease.
            Poll::Ready(Ok(connection)) if deadline.is_none() || !is_news(stop.belief()) => {
                Poll::Ready(Ok(line.serve(connection, (stop, generation), since.flatten())))
            }
            Poll::Ready(Ok(connection)) => {
                let deadline = deadline.unwrap_or_else(|| line.deadline());
                this.wait.set(None);
                go_on(this.rest, line.get_proven(router, (stop, generation), connection, deadline), cx)
            }
            Poll::Ready(Err(error)) => {
                this.wait.set(None);
                go_on(this.rest, line.get_after(router, (stop, generation), error, deadline), cx)
            }
            Poll::Pending => {
                if deadline.is_none() {
                    let Some(place) = line.join(stop) else {
                        this.asked.set(None);
                        // Another member of a group may have room.
                        return match line.route.own().len() {
                            0 | 1 => Poll::Ready(Err(line.overloaded(stop, false))),
                            _ => go_on(this.rest, line.get_elsewhere(router), cx),
                        };
                    };
                    this.wait.set(Some(Wait::new(&stop.server, line, place)));
                }
                // Who was chosen in spite of it stays.
                let need = line.route.need();
                let leaves = this.chosen.is_some_and(|(_, belief)| !belief.is_behind(need)).then_some(need);
                let wait = this.wait.as_mut().as_pin_mut().map(|wait| wait.poll(generation, leaves, cx));
                let Some(Poll::Ready((end, deadline))) = wait else { return Poll::Pending };
                this.asked.set(None);
                this.wait.set(None);
                match end {
                    End::Turned => go_on(this.rest, line.get_on(router, Some((stop, generation)), deadline), cx),
                    End::Behind => go_on(this.rest, line.get_on(router, None, deadline), cx),
                    End::Late => Poll::Ready(Err(line.late(stop))),
                }
            }
        }
    }
}

impl<'a> Wait<'a> {
    fn new<B: Backend>(server: &'a Server, line: &Line<B>, place: Place<'a>) -> Self {
        let (since, deadline) = (line.count.begin(), line.deadline());
        let (news, late) = (server.news(), tokio::time::sleep_until(deadline.into()));
        Self { server, since, deadline, news, late, unanswered: Unanswered::waiting_for(server), place }
    }

    /// It also ends when the server goes behind for a request that `leaves` it then, with this need.
    fn poll(
        self: Pin<&mut Self>,
        generation: Generation,
        leaves: Option<Need>,
        cx: &mut Context<'_>,
    ) -> Poll<(End, Instant)> {
        let mut this = self.project();
        // First the registration, then the look: news that comes in between are seen.
        while this.news.as_mut().poll(cx).is_ready() {
            this.news.set(this.server.news());
        }
        let belief = this.server.cell.belief();
        if belief.generation().is_after(generation) {
            return Poll::Ready((End::Turned, *this.deadline));
        }
        if leaves.is_some_and(|need| belief.is_behind(need)) {
            return Poll::Ready((End::Behind, *this.deadline));
        }
        this.late.poll(cx).map(|()| (End::Late, *this.deadline))
    }
}

/// How a request goes on that could not be served at once, and since when, if somebody wants to know.
type Rest<'a, B> = (Getting<'a, B>, Option<Instant>);

impl<B: Backend> Line<B> {
    fn serve(&self, connection: B::Connection, from: (&Stop<B>, Generation), since: Option<Instant>) -> Lease<B> {
        self.count.waited(since);
        Lease::new(connection, from.0.lend(Reason::Own), from.1, false)
    }

    fn go_on<'a>(
        &self,
        rest: &mut Option<Rest<'a, B>>,
        (next, since): Rest<'a, B>,
        cx: &mut Context<'_>,
    ) -> Poll<Result<Lease<B>, Error>> {
        self.poll_on(rest.insert((next, since.or_else(|| self.count.begin()))), cx)
    }

    fn poll_on(&self, (rest, since): &mut Rest<'_, B>, cx: &mut Context<'_>) -> Poll<Result<Lease<B>, Error>> {
        let polled = rest.as_mut().poll(cx);
        if let Poll::Ready(Ok(_)) = polled {
            self.count.waited(*since);
        }
        polled
    }
}
