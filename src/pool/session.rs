//! What does a connection report while it lives? The task that drives it, ends it on a cut, and tells evidence from noise.

use std::{
    error::Error as _,
    future::{Future, poll_fn},
    pin::pin,
    sync::Arc,
    task::{Context, Poll, Waker},
    time::Duration,
};

use tokio_postgres::{AsyncMessage, Error, error::DbError};

use super::{
    Cut, Server,
    condition::Ending,
    connect::Terms,
    posted::Reader,
    tap::{Gauge, Tap},
    wire::Wire,
};
use crate::{
    health::Generation,
    policy::{Fault, Severity, Sqlstate},
};

/// The driving side of one pooled connection.
pub(super) struct Session {
    server: Arc<Server>,
    generation: Generation,
    wire: Wire,
    gauge: Gauge,
    tap: Tap,
    /// What the server last said without being asked: an immediate shutdown and a crash announce themselves this way.
    notice: Option<DbError>,
    in_recovery: Option<bool>,
    parameters: u8,
    /// How old it may grow, and what says that it is.
    lifetime: Option<(Duration, Waker)>,
}

impl Session {
    pub(super) fn new(server: Arc<Server>, generation: Generation, wire: Wire, tap: &Tap, terms: &Terms) -> Self {
        let gauge = tap.gauge(terms.reset);
        let lifetime = terms.lifetime(fastrand::f64()).map(|lifetime| (lifetime, tap.spender()));
        // Weak, since a tap may be remembered for long. The end of the session comes later than its FATAL, and the caller's next attempt may come in between.
        let accused = Arc::downgrade(&server);
        tap.on_fatal(move |code| {
            let sqlstate = str::from_utf8(&code).ok().and_then(Sqlstate::parse);
            let fault = sqlstate.map(|sqlstate| Fault::Reported { sqlstate, severity: Severity::Fatal });
            let accused = accused.upgrade().filter(|server| fault.is_some_and(|fault| server.is_accused_by(fault)));
            if let Some(accused) = accused {
                accused.lose(generation);
            }
        });
        let (in_recovery, parameters) = (in_recovery(&wire), gauge.parameters());
        let tap = tap.clone();
        Self { server, generation, wire, gauge, tap, notice: None, in_recovery, parameters, lifetime }
    }

    /// Drives the connection until its client is gone, the server ends it, or it is cut.
    pub(super) async fn run(mut self, cuts: Reader<Cut>) {
        let generation = self.generation;
        let mut age = self.lifetime.take().map(|(lifetime, spent)| (Box::pin(tokio::time::sleep(lifetime)), spent));
        if let Some((age, spent)) = &mut age {
            // Once is enough: the timer's waker does all that is to be done, and this task is not woken.
            let _ = age.as_mut().poll(&mut Context::from_waker(spent));
        }
        let mut cut = pin!(cuts.wait_for(|cut| cut.ends(generation)));
        let end = poll_fn(|cx| {
            // A cut wakes this task, and the belief has changed by then. To ask for it at each turn would take a lock that all
            // sessions share.
            let is_new = self.gauge.follow(cx.waker());
            if (is_new || self.server.cell.belief().outdates(generation)) && cut.as_mut().poll(cx).is_ready() {
                return Poll::Ready(Err(None));
            }
            self.turn(cx).map_err(Some)
        })
        .await;
        let ending = match end {
            Ok(()) => Ending::new("closed by its owner"),
            Err(Some(_)) if self.gauge.is_leaving() => Ending::new("closed by its owner"),
            Err(None) => Ending::new("cut: the server is believed down"),
            Err(Some(error)) => {
                if self.server.is_accused_by_error(&error) {
                    self.server.lose(generation);
                }
                self.last_words(&error)
            }
        };
        let Self { wire, gauge, server, .. } = self;
        // First the word, so that nobody who sees a query fail still reads "clean".
        tracing::debug!(alias = %server.name, cause = %ending.cause, "session ended");
        gauge.end(ending);
        drop(wire);
    }

    /// One turn of the driver: everything it can do now.
    #[inline]
    fn turn(&mut self, cx: &Context<'_>) -> Poll<Result<(), Error>> {
        let (wire, notice, tap) = (&mut self.wire, &mut self.notice, &self.tap);
        let end = self.gauge.turn(cx, |cx| {
            loop {
                match wire.poll_message(cx) {
                    Poll::Ready(Some(Ok(AsyncMessage::Notice(said)))) => {
                        if is_unconfirmed(&said) {
                            // Before the reply to the COMMIT is handed on.
                            tap.leave_unconfirmed();
                        }
                        *notice = Some(said);
                    }
                    Poll::Ready(Some(Ok(_))) => {}
                    Poll::Ready(Some(Err(error))) => return Poll::Ready(Err(error)),
                    Poll::Ready(None) => return Poll::Ready(Ok(())),
                    Poll::Pending => return Poll::Pending,
                }
            }
        });
        self.watch_role();
        end
    }

    /// A promotion reaches every session with its next reply, as a changed parameter (PostgreSQL 14 and later).
    fn watch_role(&mut self) {
        if self.gauge.parameters() == self.parameters {
            return;
        }
        self.parameters = self.gauge.parameters();
        let now = in_recovery(&self.wire);
        if now != self.in_recovery {
            self.in_recovery = now;
            self.server.doubt(self.generation);
        }
    }

    fn last_words(&self, error: &Error) -> Ending {
        let words = error.as_db_error().or(self.notice.as_ref());
        let mut cause = error.to_string();
        match words {
            Some(words) => cause = format!("{}: {} ({})", words.severity(), words.message(), words.code().code()),
            None => {
                let mut source = error.source();
                while let Some(next) = source {
                    cause = format!("{cause}: {next}");
                    source = next.source();
                }
            }
        }
        Ending { sqlstate: words.map(|words| words.code().code().to_owned()), cause }
    }
}

impl Ending {
    fn new(cause: &str) -> Self {
        Self { sqlstate: None, cause: cause.to_owned() }
    }
}

/// Whether a COMMIT happened on the primary alone. The text of the warning is translated, the place it comes from is not.
fn is_unconfirmed(notice: &DbError) -> bool {
    notice.routine() == Some("SyncRepWaitForLSN")
}

fn in_recovery(wire: &Wire) -> Option<bool> {
    wire.parameter("in_hot_standby").map(|value| value == "on")
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use tokio::{
        io::{AsyncReadExt, AsyncWriteExt},
        net::{TcpListener, TcpStream},
        runtime::Handle,
        sync::Notify,
        time::timeout,
    };

    use super::*;
    use crate::{
        config::{AliasName, PoolSettings, SessionReset, Target, Tls},
        health::{Belief, State},
        pool::{Condition, ConnectFailure, Connected, Connector, Dial},
    };

    /// Long enough for anything that is going to happen at all.
    const SOON: Duration = Duration::from_secs(20);

    /// A server of which each test writes what it says.
    struct Fake {
        listener: TcpListener,
        server: Arc<Server>,
        connector: Connector,
    }

    impl Fake {
        async fn start(connect_timeout: Duration) -> Self {
            let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
            let mut postgres = tokio_postgres::Config::new();
            postgres.host("127.0.0.1").port(listener.local_addr().unwrap().port()).user("app");
            let target = Target { postgres, tls: Tls::Disable };
            let name = AliasName::new("fake").unwrap();
            let server = Arc::new(Server::new(name, target.address(), Arc::new(Notify::new())));
            let dial = Dial::new(&target).unwrap();
            let pool = PoolSettings { connect_timeout, ..PoolSettings::default() };
            let connector = Connector::new(Arc::clone(&server), dial, &pool, Handle::current());
            Self { listener, server, connector }
        }

        /// The same, for a pool with these settings.
        async fn pooled(pool: &PoolSettings) -> Self {
            let fake = Self::start(SOON).await;
            let connector = Connector::on_terms(fake.server.clone(), fake.connector.dial(), SOON, Terms::of(pool));
            Self { connector, ..fake }
        }

        /// A login that succeeds: the driver's side and the server's.
        async fn login(&self) -> (Connected, TcpStream) {
            let (connected, socket) = tokio::join!(self.connector.connect_tapped(), self.accept());
            (connected.unwrap(), socket)
        }

        /// The server's side of a login.
        async fn accept(&self) -> TcpStream {
            let (mut socket, _) = self.listener.accept().await.unwrap();
            let length = socket.read_u32().await.unwrap();
            socket.read_exact(&mut vec![0; length as usize - 4]).await.unwrap();
            let ready = [&frame(b'R', &[0; 4]), &status("on"), &frame(b'Z', b"I")[..]].concat();
            socket.write_all(&ready).await.unwrap();
            socket
        }

        /// Whether the server is doubted after it has said `words` and hung up.
        async fn is_doubted_after(&self, words: &[u8]) -> bool {
            let (connected, mut socket) = self.login().await;
            socket.write_all(words).await.unwrap();
            drop(socket);
            timeout(SOON, connected.task).await.unwrap().unwrap();
            self.server.cell.take_doubt()
        }
    }

    fn frame(tag: u8, body: &[u8]) -> Vec<u8> {
        let length = u32::try_from(body.len() + 4).unwrap();
        [&[tag], &length.to_be_bytes()[..], body].concat()
    }

    fn status(in_hot_standby: &str) -> Vec<u8> {
        frame(b'S', format!("in_hot_standby\0{in_hot_standby}\0").as_bytes())
    }

    fn words(tag: u8, severity: &str, state: &str) -> Vec<u8> {
        frame(tag, format!("S{severity}\0V{severity}\0C{state}\0Mlast words\0\0").as_bytes())
    }

    #[tokio::test]
    async fn a_server_that_hangs_up_is_doubted() {
        let fake = Fake::start(SOON).await;
        assert!(fake.is_doubted_after(&[]).await);
        assert!(fake.is_doubted_after(&words(b'E', "FATAL", "57P01")).await);
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn who_is_told_a_fatal_finds_the_server_doubted_though_the_session_has_not_ended() {
        let fake = Fake::start(SOON).await;
        let (Connected { client, tap, .. }, mut socket) = fake.login().await;
        let query = tokio::spawn(async move { client.simple_query("SELECT 1").await.map(|_| client) });
        let mut header = [0; 5];
        socket.read_exact(&mut header).await.unwrap();
        socket.write_all(&words(b'E', "FATAL", "57P01")).await.unwrap();
        // The socket stays open: nothing but the words has arrived.
        let error = timeout(SOON, query).await.unwrap().unwrap().unwrap_err();
        assert_eq!(error.code().map(|state| state.code()), Some("57P01"));
        assert!(fake.server.cell.belief().is_doubted());
        assert_ne!(tap.condition(), Condition::Clean);
    }

    #[tokio::test]
    async fn the_end_of_one_session_for_its_own_reasons_is_no_evidence_against_the_server() {
        let fake = Fake::start(SOON).await;
        for state in ["57P05", "57P04", "25P03", "40001"] {
            assert!(!fake.is_doubted_after(&words(b'E', "FATAL", state)).await, "{state}");
        }
    }

    #[tokio::test]
    async fn a_session_that_has_grown_too_old_is_not_lent_again_and_ends_what_it_has_begun() {
        let fake =
            Fake::pooled(&PoolSettings { max_lifetime: Some(Duration::from_millis(50)), ..Default::default() }).await;
        let (Connected { client, tap, .. }, mut socket) = fake.login().await;
        assert_eq!(timeout(SOON, tap.settled()).await.unwrap(), Condition::Clean);
        let old = async {
            while tap.condition() == Condition::Clean {
                tokio::task::yield_now().await;
            }
        };
        timeout(SOON, old).await.expect("nothing has to happen for it to grow old");
        assert_eq!(tap.condition(), Condition::Dirty);
        let query = tokio::spawn(async move { client.simple_query("").await.map(|_| client) });
        assert_eq!(socket.read_u8().await.unwrap(), b'Q');
        assert_eq!(tap.condition(), Condition::Busy);
        socket.write_all(&[frame(b'I', &[]), frame(b'Z', b"I")].concat()).await.unwrap();
        let _client = timeout(SOON, query).await.unwrap().unwrap().unwrap();
        assert_eq!(timeout(SOON, tap.settled()).await.unwrap(), Condition::Dirty, "it has grown no younger");
    }

    #[test]
    fn connections_made_together_do_not_grow_old_together() {
        let pool = PoolSettings { max_lifetime: Some(Duration::from_secs(1000)), ..Default::default() };
        let lifetimes = [0.0, 0.5, 1.0].map(|chance| Terms::of(&pool).lifetime(chance).unwrap().as_secs());
        assert_eq!(lifetimes, [900, 1000, 1100]);
        assert_eq!(Terms::of(&PoolSettings { max_lifetime: None, ..pool }).lifetime(0.5), None);
    }

    #[tokio::test]
    async fn a_session_that_is_to_be_reset_is_never_just_clean() {
        let reset = SessionReset::DiscardAll;
        let fake = Fake::pooled(&PoolSettings { session_reset: reset, ..Default::default() }).await;
        let (Connected { tap, client: _client, .. }, mut socket) = fake.login().await;
        assert_eq!(timeout(SOON, tap.settled()).await.unwrap(), Condition::Used);
        socket.write_all(&frame(b'Z', b"T")).await.unwrap();
        let in_transaction = async {
            while tap.condition() != Condition::Dirty {
                tokio::task::yield_now().await;
            }
        };
        timeout(SOON, in_transaction).await.unwrap();
    }

    #[tokio::test]
    async fn a_client_that_is_dropped_ends_its_session_quietly() {
        let fake = Fake::start(SOON).await;
        let (Connected { client, task, tap }, _socket) = fake.login().await;
        drop(client);
        timeout(SOON, task).await.unwrap().unwrap();
        assert!(!fake.server.cell.take_doubt());
        assert_eq!(tap.ending().unwrap().cause, "closed by its owner");
        assert_eq!(fake.server.sessions(), 0);
    }

    #[tokio::test]
    async fn a_session_that_leaves_has_ended_when_its_server_hangs_up() {
        let fake = Fake::start(SOON).await;
        let (Connected { client, task, tap }, mut socket) = fake.login().await;
        let query = tokio::spawn(async move { client.simple_query("SELECT 1").await.map(|_| client) });
        let mut header = [0; 5];
        socket.read_exact(&mut header).await.unwrap();
        let mut left = pin!(tap.leave());
        assert!(poll_fn(|cx| Poll::Ready(left.as_mut().poll(cx).is_pending())).await);
        timeout(SOON, socket.read_to_end(&mut Vec::new())).await.expect("it says that nothing more will come").unwrap();
        // The server is still at work on the statement.
        assert!(poll_fn(|cx| Poll::Ready(left.as_mut().poll(cx).is_pending())).await);
        assert_eq!(fake.server.sessions(), 1);
        drop(socket);
        timeout(SOON, left).await.unwrap();
        timeout(SOON, task).await.unwrap().unwrap();
        assert!(timeout(SOON, query).await.unwrap().unwrap().is_err());
        assert_eq!(tap.ending().unwrap().cause, "closed by its owner");
        assert!(!fake.server.cell.take_doubt());
    }

    #[tokio::test]
    async fn who_waits_for_a_connection_to_settle_learns_that_its_session_was_aborted() {
        let fake = Fake::start(SOON).await;
        let (Connected { client, task, tap }, _socket) = fake.login().await;
        let query = tokio::spawn(async move { client.simple_query("SELECT 1").await });
        let settled = tokio::spawn(async move { tap.settled().await });
        tokio::task::yield_now().await;
        task.abort();
        assert_eq!(timeout(SOON, settled).await.unwrap().unwrap(), Condition::Dirty);
        assert!(timeout(SOON, query).await.unwrap().unwrap().is_err());
    }

    #[tokio::test]
    async fn what_the_server_announced_before_it_hung_up_is_the_cause() {
        let fake = Fake::start(SOON).await;
        let (Connected { task, tap, client: _client }, mut socket) = fake.login().await;
        socket.write_all(&words(b'N', "WARNING", "57P02")).await.unwrap();
        drop(socket);
        timeout(SOON, task).await.unwrap().unwrap();
        let ending = tap.ending().unwrap();
        assert_eq!(ending.sqlstate.as_deref(), Some("57P02"));
        assert_eq!(tap.condition(), Condition::Dirty);
    }

    #[tokio::test]
    async fn a_server_that_changes_its_role_is_doubted_once() {
        let fake = Fake::start(SOON).await;
        let (Connected { tap, client: _client, .. }, mut socket) = fake.login().await;
        timeout(SOON, tap.settled()).await.unwrap();
        assert!(!fake.server.cell.take_doubt());
        socket.write_all(&status("off")).await.unwrap();
        let doubted = async {
            while !fake.server.cell.take_doubt() {
                tokio::task::yield_now().await;
            }
        };
        timeout(SOON, doubted).await.unwrap();
    }

    #[tokio::test]
    async fn a_transition_ends_the_sessions_from_before_it_while_the_server_says_nothing() {
        let fake = Fake::start(SOON).await;
        let (Connected { client, task, tap }, _socket) = fake.login().await;
        let query = tokio::spawn(async move { client.simple_query("SELECT 1").await });
        fake.server.publish(Belief::new(State::Down, Generation(1)));
        timeout(SOON, task).await.unwrap().unwrap();
        assert!(timeout(SOON, query).await.unwrap().unwrap().is_err());
        assert!(tap.ending().unwrap().cause.starts_with("cut"));
    }

    #[tokio::test]
    async fn a_server_that_never_answers_is_given_up_at_the_deadline() {
        let after = Duration::from_millis(50);
        let fake = Fake::start(after).await;
        let error = timeout(SOON, fake.connector.connect()).await.unwrap().unwrap_err();
        assert_eq!(ConnectFailure::under(&error), Some(ConnectFailure::TimedOut { after }));
        assert_eq!(fake.server.sessions(), 0);
    }

    #[tokio::test]
    async fn who_waits_in_vain_for_a_turn_to_connect_has_learned_nothing_about_the_server() {
        let after = Duration::from_millis(100);
        let fake = Fake::start(after).await;
        let connect = || {
            let connector = fake.connector.clone();
            async move { ConnectFailure::under(&connector.connect().await.unwrap_err()) }
        };
        let late = Some(ConnectFailure::TimedOut { after });
        let failures = timeout(SOON, async { tokio::join!(connect(), connect(), connect()) }).await.unwrap();
        assert_eq!(failures, (late, late, Some(ConnectFailure::Crowded { after })));
    }

    #[tokio::test]
    async fn a_server_that_is_down_or_closed_gets_no_connection() {
        let fake = Fake::start(SOON).await;
        fake.server.publish(Belief::new(State::Down, Generation(1)));
        let error = fake.connector.connect().await.unwrap_err();
        assert_eq!(ConnectFailure::under(&error), Some(ConnectFailure::NotAdmitted));
        fake.server.close();
        let error = fake.connector.connect().await.unwrap_err();
        assert_eq!(ConnectFailure::under(&error), Some(ConnectFailure::Closed));
    }

    #[tokio::test]
    async fn an_attempt_under_way_ends_when_the_server_goes_down() {
        let fake = Fake::start(SOON).await;
        let connector = fake.connector.clone();
        let attempt = tokio::spawn(async move { connector.connect().await });
        let _socket = fake.listener.accept().await.unwrap();
        fake.server.publish(Belief::new(State::Down, Generation(1)));
        let error = timeout(SOON, attempt).await.unwrap().unwrap().unwrap_err();
        assert_eq!(ConnectFailure::under(&error), Some(ConnectFailure::NotAdmitted));
    }

    #[tokio::test]
    async fn an_attempt_that_nobody_polls_any_more_does_not_hold_up_a_shutdown() {
        let fake = Fake::start(SOON).await;
        let mut attempt = std::pin::pin!(fake.connector.connect());
        assert!(poll_fn(|cx| Poll::Ready(attempt.as_mut().poll(cx).is_pending())).await);
        let _socket = fake.listener.accept().await.unwrap();
        fake.server.close();
        timeout(SOON / 4, fake.server.drained()).await.expect("the attempt ends by itself");
    }

    #[tokio::test]
    async fn a_connection_outlives_the_runtime_in_which_it_was_asked_for() {
        let fake = Fake::start(SOON).await;
        let (connector, made) = (fake.connector.clone(), tokio::sync::oneshot::channel());
        let elsewhere = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            let connected = runtime.block_on(connector.connect_tapped()).unwrap();
            made.0.send((connected, runtime)).map_err(drop).unwrap();
        });
        let mut socket = fake.accept().await;
        let (Connected { client, .. }, idle) = timeout(SOON, made.1).await.unwrap().unwrap();
        elsewhere.join().unwrap();
        let answered = tokio::spawn(async move { client.simple_query("").await });
        let query = socket.read_u8().await.unwrap();
        assert_eq!(query, b'Q');
        socket.write_all(&[frame(b'I', &[]), frame(b'Z', b"I")].concat()).await.unwrap();
        timeout(SOON / 4, answered).await.expect("the other runtime drives nothing").unwrap().unwrap();
        idle.shutdown_background();
    }
}
