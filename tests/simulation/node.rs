//! One simulated server: whom it admits, how it stands, and how it can be made to fail.

use std::{
    collections::BTreeMap,
    future::pending,
    sync::{Arc, Mutex, MutexGuard, Weak},
    time::Duration,
};

use fastrand::Rng;
use pgdetour::pool::{Opening, Stream};
use tokio::sync::Notify;

use crate::{
    net::{Link, Unopened, Weather},
    record::Record,
    session,
    time::{self, MS, lock},
    wire::{Reply, Report},
};

/// ECONNREFUSED.
const REFUSED: i32 = 111;

/// More connects than any run can ask for.
const TOO_MANY: u32 = 5000;

/// How many sessions a server has room for, unless a fault takes it away.
const ROOM: usize = 100;

/// How long a replica is behind.
pub(crate) const LAG: Duration = Duration::from_millis(20);

/// A simulated server.
pub(crate) struct Node {
    pub(crate) index: usize,
    pub(crate) name: &'static str,
    pub(crate) record: Record,
    state: Mutex<State>,
    frozen: Switch,
}

pub(crate) struct State {
    pub(crate) reach: Reach,
    pub(crate) admission: Admission,
    pub(crate) in_recovery: bool,
    pub(crate) timeline: u32,
    pub(crate) system: u64,
    pub(crate) room: usize,
    pub(crate) rng: Rng,
    opened: u32,
    /// How often it was started, or has crashed.
    starts: u32,
    next_xid: u64,
    /// Whether each transaction was committed; none for one that is open.
    fates: BTreeMap<u64, Option<bool>>,
    /// The answers that are stored under keys, and which session has a key that nobody has committed.
    pub(crate) keys: BTreeMap<String, String>,
    pub(crate) claims: BTreeMap<String, u32>,
    /// What happens to the session that commits next.
    pub(crate) trap: Option<Trap>,
    weather: Weather,
    next_session: u32,
    sessions: BTreeMap<u32, Arc<Control>>,
    links: Vec<Weak<Link>>,
}

/// What becomes of a connect.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Reach {
    Open,
    /// Nobody listens there.
    Refused,
    /// Nobody answers.
    Silent,
}

/// What becomes of a login.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Admission {
    Open,
    Refused(Report),
    /// It is accepted and never answered.
    Silent,
    HangsUp,
    /// It is answered in another protocol.
    Garbage,
}

/// How a server, or one session, ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Death {
    /// `kill -9`: the socket closes.
    Silent,
    /// The session is told first.
    Told(u8, Report),
    /// The network says that it is gone.
    Reset,
}

/// When a session ends that commits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Trap {
    BeforeCommit,
    /// All of the server crashes before it, and is back at once.
    Crash,
    /// What it has written is there, and it cannot say so.
    AfterCommit,
}

/// What others may do to a session.
pub(crate) struct Control {
    pub(crate) link: Arc<Link>,
    death: Mutex<Option<Death>>,
    ends: Notify,
    frozen: Switch,
    interrupt: Mutex<Option<Report>>,
    interrupted: Notify,
}

/// Something that is on or off. Who has waited longest goes on first, as everywhere in a run that is to be seen again.
#[derive(Default)]
struct Switch {
    on: Mutex<bool>,
    turned: Notify,
}

impl Switch {
    fn set(&self, on: bool) {
        *lock(&self.on) = on;
        self.turned.notify_waiters();
    }

    fn is_on(&self) -> bool {
        *lock(&self.on)
    }

    async fn off(&self) {
        loop {
            let turned = self.turned.notified();
            if !self.is_on() {
                return;
            }
            turned.await;
        }
    }
}

impl Control {
    pub(crate) fn end(&self, death: Death) {
        *lock(&self.death) = Some(death);
        self.ends.notify_waiters();
    }

    /// Waits for an end that somebody else decides.
    pub(crate) async fn ended(&self) -> Death {
        loop {
            let ends = self.ends.notified();
            let death = *lock(&self.death);
            match death {
                Some(death) => return death,
                None => ends.await,
            }
        }
    }

    pub(crate) fn freeze(&self, frozen: bool) {
        self.frozen.set(frozen);
    }

    /// Ends the statement that runs, if one does.
    pub(crate) fn interrupt(&self, report: Report) {
        *lock(&self.interrupt) = Some(report);
        self.interrupted.notify_waiters();
    }

    /// Waits for that.
    pub(crate) async fn interrupted(&self) -> Report {
        loop {
            self.interrupted.notified().await;
            if let Some(report) = lock(&self.interrupt).take() {
                return report;
            }
        }
    }
}

impl State {
    /// A transaction that writes gets a number.
    pub(crate) fn begin(&mut self) -> u64 {
        self.next_xid += 1;
        self.fates.insert(self.next_xid, None);
        self.next_xid
    }

    pub(crate) fn end(&mut self, xid: u64, committed: bool) {
        // After a restart the number may be another's.
        if let Some(fate @ None) = self.fates.get_mut(&xid) {
            *fate = Some(committed);
        }
    }

    pub(crate) fn status(&self, xid: u64) -> Option<&'static str> {
        self.fates.get(&xid).map(|fate| match fate {
            None => "in progress",
            Some(true) => "committed",
            Some(false) => "aborted",
        })
    }

    /// Within what numbers are given once.
    pub(crate) fn epoch(&self) -> String {
        format!("{} {}", self.timeline, self.started())
    }

    /// When it was started last.
    pub(crate) fn started(&self) -> String {
        self.starts.to_string()
    }

    /// It was started anew, or has crashed: numbers that nobody has committed are given again.
    pub(crate) fn restart(&mut self) {
        self.starts += 1;
        // Some of the numbers that were lost are other clients' by the time that anybody asks.
        let reused = self.rng.bool();
        self.fates.retain(|_, fate| {
            *fate = if reused { Some(true) } else { *fate };
            *fate == Some(true)
        });
        self.next_xid = self.fates.keys().last().copied().unwrap_or(100);
    }
}

impl Node {
    pub(crate) fn new(index: usize, name: &'static str, record: Record, rng: Rng) -> Arc<Self> {
        let state = State {
            reach: Reach::Open,
            admission: Admission::Open,
            in_recovery: index > 0,
            timeline: 1,
            system: 7,
            room: ROOM,
            rng,
            opened: 0,
            starts: 1,
            next_xid: 100,
            fates: BTreeMap::new(),
            keys: BTreeMap::new(),
            claims: BTreeMap::new(),
            trap: None,
            weather: Weather::default(),
            next_session: 1,
            sessions: BTreeMap::new(),
            links: Vec::new(),
        };
        Arc::new(Self { index, name, record, state: Mutex::new(state), frozen: Switch::default() })
    }

    pub(crate) fn state(&self) -> MutexGuard<'_, State> {
        lock(&self.state)
    }

    /// A stream to it, for a client.
    pub(crate) fn open(self: &Arc<Self>) -> Opening {
        let node = Arc::clone(self);
        Box::pin(async move {
            let State { reach, weather, opened, .. } = *node.state();
            node.state().opened += 1;
            if opened >= TOO_MANY {
                // Whoever connects without end would go on so without any time passing.
                if opened == TOO_MANY {
                    node.record.violation("invariant 8: connects without end");
                }
                return pending().await;
            }
            if weather.late > Duration::ZERO {
                time::pass(weather.late * 2).await;
            }
            match reach {
                Reach::Refused => Stream::new(Unopened(REFUSED)),
                Reach::Silent => pending().await,
                Reach::Open if weather.held != [false; 2] => pending().await,
                Reach::Open => {
                    let (link, client, server) = Link::new(weather);
                    node.state().links.push(Arc::downgrade(&link));
                    session::spawn(&node, link, server);
                    Stream::new(client)
                }
            }
        })
    }

    /// Waits until neither the server nor this session is frozen.
    pub(crate) async fn thawed(&self, control: &Control) {
        while self.frozen.is_on() || control.frozen.is_on() {
            self.frozen.off().await;
            control.frozen.off().await;
        }
    }

    pub(crate) fn freeze(&self, frozen: bool) {
        self.frozen.set(frozen);
    }

    pub(crate) fn set_weather(&self, change: impl FnOnce(&mut Weather)) {
        let mut state = self.state();
        change(&mut state.weather);
        let weather = state.weather;
        state.links.retain(|link| link.strong_count() > 0);
        state.links.iter().filter_map(Weak::upgrade).for_each(|link| link.set_weather(weather));
    }

    /// A new session.
    pub(crate) fn register(&self, link: Arc<Link>) -> (u32, Arc<Control>) {
        let control = Control {
            link,
            death: Mutex::default(),
            ends: Notify::new(),
            frozen: Switch::default(),
            interrupt: Mutex::new(None),
            interrupted: Notify::new(),
        };
        let (control, mut state) = (Arc::new(control), self.state());
        let number = state.next_session;
        state.next_session += 1;
        state.sessions.insert(number, Arc::clone(&control));
        (number, control)
    }

    pub(crate) fn forget(&self, session: u32) {
        self.state().sessions.remove(&session);
    }

    pub(crate) fn session(&self, number: u32) -> Option<Arc<Control>> {
        self.state().sessions.get(&number).cloned()
    }

    /// All sessions, oldest first: the monitor's watched one may be among them.
    pub(crate) fn sessions(&self) -> Vec<Arc<Control>> {
        self.state().sessions.values().cloned().collect()
    }

    pub(crate) fn any_session(&self) -> Option<Arc<Control>> {
        let sessions = self.sessions();
        (!sessions.is_empty()).then(|| Arc::clone(&sessions[self.state().rng.usize(..sessions.len())]))
    }

    /// Crashes, and is back before anybody can connect.
    pub(crate) fn crash(&self) {
        self.state().restart();
        self.sessions().iter().for_each(|session| session.end(Death::Silent));
    }

    /// Ends all sessions, one after the other over a few milliseconds, as a server does that is killed.
    pub(crate) async fn end_all(&self, death: Death) {
        for session in self.sessions() {
            if self.chance(3) {
                time::pass(MS).await;
            }
            session.end(death);
        }
    }

    /// True once in `of` times.
    pub(crate) fn chance(&self, of: u32) -> bool {
        self.state().rng.u32(..of) == 0
    }

    /// What takes no time at all cannot be hit in its middle.
    pub(crate) async fn dawdle(&self) {
        let time = {
            let rng = &mut self.state().rng;
            [MS, 30 * MS].into_iter().find(|_| rng.u32(..8) == 0)
        };
        if let Some(time) = time {
            time::pass(time).await;
        }
    }

    /// What a session is told that is admitted.
    pub(crate) fn greeting(&self, session: u32, reply: &mut Reply) {
        let in_recovery = self.state().in_recovery;
        reply.frame(b'R', &[0; 4]);
        reply.parameter("server_version", "15.0").parameter("client_encoding", "UTF8");
        reply.parameter("in_hot_standby", if in_recovery { "on" } else { "off" });
        reply.frame(b'K', &[session.to_be_bytes(), [0; 4]].concat()).ready(b'I');
    }
}
