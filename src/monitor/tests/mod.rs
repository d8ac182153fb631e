//! The worker over servers that are not there, on a clock that runs as fast as nothing happens: hours in milliseconds.

mod act;
mod breaker;
mod chronicle;
mod demand;
mod fake;
mod modes;
mod outages;
mod pace;
mod reload;
mod services;

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use tokio::{
    sync::{Notify, mpsc, oneshot},
    time::timeout,
};

use self::fake::{Fake, Manner};
use super::{Command, Monitor, Past, Shared, Worker};
use crate::{
    clock,
    config::{Config, ConfigBuilder, Role},
    health::Belief,
    observe::{Event, EventKind, Events, Observer},
    pool::Server,
};

const SECOND: Duration = Duration::from_secs(1);
const HOUR: Duration = Duration::from_secs(3600);

/// A worker at work over fake servers.
struct Bench {
    fakes: Vec<Fake>,
    servers: Vec<Arc<Server>>,
    shared: Shared,
    commands: mpsc::UnboundedSender<Command>,
    events: Events,
    start: Instant,
}

/// A primary and a replica, with every frequency at its default.
fn pair() -> ConfigBuilder {
    Config::builder().server("primary", Role::Primary, "postgres://app@127.0.0.1:1/app").server(
        "replica",
        Role::Replica,
        "postgres://app@127.0.0.1:2/app",
    )
}

impl Bench {
    /// Starts a worker over the servers of `config`; `prepare` says how each behaves from the start.
    fn start(config: ConfigBuilder, prepare: impl Fn(&str, &Fake)) -> Self {
        let fake = |name: &str| {
            let fake = Fake::new(if name == "primary" { Role::Primary } else { Role::Replica });
            prepare(name, &fake);
            fake
        };
        Self::over(config, fake, Observer::default(), None)
    }

    fn over(config: ConfigBuilder, fake: impl Fn(&str) -> Fake, observer: Observer, before: Option<Past>) -> Self {
        let config = Arc::new(config.build().unwrap());
        let bell = Arc::new(Notify::new());
        let shared = Shared { bell: Arc::clone(&bell), ..Shared::new(observer) };
        let (mut fakes, mut servers) = (Vec::new(), Vec::new());
        for alias in config.aliases() {
            let mut server = Server::new(alias.name.clone(), format!("{}:5432/app", alias.name), Arc::clone(&bell));
            if let Some(old) = before.as_ref().and_then(|before| before.of(&server)) {
                server.calls = old.server.calls.resumed(SECOND);
            }
            servers.push(Arc::new(server));
            fakes.push(fake(alias.name.as_str()));
        }
        let (commands, orders) = mpsc::unbounded_channel();
        let asked = servers.iter().cloned().zip(fakes.iter().cloned()).collect();
        let worker = Worker::new(Arc::clone(&config), shared.clone(), asked, orders);
        let events = shared.observer.events();
        tokio::spawn(match before {
            Some(before) => worker.resume(before).run(),
            None => worker.run(),
        });
        Self { fakes, servers, shared, commands, events, start: clock::now() }
    }

    /// One that has had its first pings, which are forgotten.
    async fn settled(config: ConfigBuilder) -> Self {
        let bench = Self::start(config, |_, _| {});
        bench.ask(Command::Settle).await;
        bench.fakes.iter().for_each(Fake::forget);
        bench
    }

    async fn ask<T>(&self, command: fn(oneshot::Sender<T>) -> Command) -> T {
        let (done, answer) = oneshot::channel();
        self.commands.send(command(done)).unwrap();
        timeout(HOUR, answer).await.expect("the worker answers").unwrap()
    }

    fn index(&self, name: &str) -> usize {
        self.servers.iter().position(|server| server.name.as_str() == name).unwrap()
    }

    fn fake(&self, name: &str) -> &Fake {
        &self.fakes[self.index(name)]
    }

    fn server(&self, name: &str) -> &Server {
        &self.servers[self.index(name)]
    }

    fn belief(&self, name: &str) -> Belief {
        self.server(name).cell.belief()
    }

    /// An application sees an error that speaks against the server.
    fn doubt(&self, name: &str) {
        self.server(name).doubt(self.belief(name).generation());
    }

    /// What is told next of a server, about which, and how long after the start.
    async fn told(&mut self) -> (String, EventKind, Duration) {
        let event = timeout(10 * HOUR, self.of_a_server()).await.expect("something is told");
        (event.alias.expect("it is about a server").to_string(), event.kind, clock::now() - self.start)
    }

    async fn of_a_server(&mut self) -> Event {
        loop {
            let event = self.events.next().await.expect("the stream goes on");
            if event.alias.is_some() {
                return event;
            }
        }
    }

    /// That nothing is told of a server for so long.
    async fn silence(&mut self, lasting: Duration) {
        let told = timeout(lasting, self.of_a_server()).await;
        assert!(told.is_err(), "told: {told:?}");
    }
}

#[tokio::test]
async fn without_room_for_its_thread_the_start_is_an_error_and_no_panic() {
    let huge = std::thread::Builder::new().stack_size(1 << 60);
    let started = Monitor::start_on::<Fake>(huge, |_| unreachable!("there is no thread"));
    assert!(started.is_err());
}
