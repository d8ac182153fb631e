//! What goes wrong in a run, and when.

use std::{sync::Arc, time::Duration};

use fastrand::Rng;
use tokio::time::Instant;

use crate::{
    node::{Admission, Death, Node, Reach, Trap},
    time::{self, MS},
    wire::{Report, error, fatal},
    world::{NAMES, World},
};

/// The longest that bytes take one way where the network is slow.
pub(crate) const LATEST: Duration = Duration::from_millis(120);

const STOPPED: Report = fatal("57P01", "terminating connection due to administrator command");
const ANNOUNCED: Report = Report { severity: "WARNING", ..STOPPED };
const CRASHED: Report = Report {
    severity: "WARNING",
    ..fatal("57P02", "terminating connection because of crash of another server process")
};
const STOPPING: Report = fatal("57P03", "the database system is shutting down");
const STARTING: Report = fatal("57P03", "the database system is starting up");
const FULL: Report = fatal("53300", "sorry, too many clients already");
const NO_LOGIN: Report = fatal("28P01", "password authentication failed for user \"app\"");
const CONFLICT: Report =
    Report { routine: "ProcessInterrupts", ..error("40001", "canceling statement due to conflict with recovery") };

/// A fault.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fault {
    Killed,
    Stopped,
    StoppedAtOnce,
    Crashed,
    StopsSmartly,
    HungPostmaster,
    Frozen,
    BlackHole,
    LostReplies,
    Refuses,
    HangsUp,
    Garbage,
    Late,
    Full,
    NoLogin,
    Demoted,
    // Those that leave the server well:
    Sliced,
    OneTerminated,
    OneReset,
    AllReset,
    OneHung,
    OneCut,
    LostAtCommit,
    Conflict,
}

const ALL: [Fault; 26] = [
    Fault::Killed,
    Fault::Stopped,
    Fault::StoppedAtOnce,
    Fault::Crashed,
    Fault::StopsSmartly,
    Fault::HungPostmaster,
    Fault::Frozen,
    Fault::BlackHole,
    Fault::LostReplies,
    Fault::Refuses,
    Fault::HangsUp,
    Fault::Garbage,
    Fault::Late,
    Fault::Full,
    Fault::NoLogin,
    Fault::Demoted,
    Fault::Sliced,
    Fault::OneTerminated,
    Fault::OneReset,
    Fault::AllReset,
    Fault::OneHung,
    Fault::OneCut,
    Fault::LostAtCommit,
    Fault::LostAtCommit,
    Fault::LostAtCommit,
    Fault::Conflict,
];

impl Fault {
    pub(crate) fn any(rng: &mut Rng) -> Self {
        ALL[rng.usize(..ALL.len())]
    }

    /// What it does to the server's service.
    pub(crate) fn gravity(self) -> Gravity {
        match self {
            Self::Killed | Self::Stopped | Self::StoppedAtOnce | Self::Crashed => Gravity::Gone,
            Self::Frozen | Self::BlackHole | Self::LostReplies => Gravity::Silent,
            Self::StopsSmartly | Self::HungPostmaster | Self::Refuses | Self::HangsUp | Self::Garbage | Self::Late => {
                Gravity::Limps
            }
            Self::Full | Self::NoLogin | Self::Demoted => Gravity::Answers,
            Self::Sliced
            | Self::OneTerminated
            | Self::OneReset
            | Self::AllReset
            | Self::OneHung
            | Self::OneCut
            | Self::LostAtCommit
            | Self::Conflict => Gravity::None,
        }
    }
}

/// What a fault does to the service of its server.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Gravity {
    /// It is well.
    None,
    /// It answers, and not everybody gets what he wants: no outage.
    Answers,
    /// An outage may be opened or not.
    Limps,
    /// It says nothing: an outage has to be opened.
    Silent,
    /// Its process ends: an outage has to be opened at once.
    Gone,
}

/// Faults at random moments, until `end`; all is healed then.
pub(crate) async fn strike(world: World, mut rng: Rng, end: Instant) {
    loop {
        time::pass(rng.u32(50..1000) * MS).await;
        if time::now() >= end {
            return;
        }
        // More often than not, reads have something to go to.
        let server = if rng.u32(..3) == 0 { 0 } else { rng.usize(1..world.layout.servers) };
        let (fault, node) = (Fault::any(&mut rng), Arc::clone(&world.nodes[server]));
        let longest = world.layout.bounds().silent_idle.as_millis() as u32;
        let length = if rng.bool() { rng.u32(..300) } else { rng.u32(..longest + 1000) } * MS;
        let at_once = rng.u32(..3) == 0;
        let run = run(world.clone(), node, fault, length.min(end.saturating_duration_since(time::now())), rng.fork());
        if at_once {
            drop(crate::world::spawn(&world.record, run));
        } else {
            run.await;
        }
    }
}

/// Makes a fault, and heals it after `length`.
async fn run(world: World, node: Arc<Node>, fault: Fault, length: Duration, mut rng: Rng) {
    world.record.tell(format!("{} {fault:?} for {length:?}", NAMES[node.index]));
    let trouble = world.record.trouble(node.index, fault, length);
    // Of two that take writes the primary is as good as the other.
    let rivalry = (fault == Fault::Demoted && node.index > 0).then(|| world.record.trouble(0, fault, length));
    match fault {
        Fault::Killed => die(&node, Death::Silent, length).await,
        Fault::Stopped => die(&node, Death::Told(b'E', STOPPED), length).await,
        Fault::StoppedAtOnce => die(&node, Death::Told(b'N', ANNOUNCED), length).await,
        Fault::Crashed => crash(&node, length).await,
        Fault::StopsSmartly => admit(&node, Admission::Refused(STOPPING), length).await,
        Fault::HungPostmaster => admit(&node, Admission::Silent, length).await,
        Fault::HangsUp => admit(&node, Admission::HangsUp, length).await,
        Fault::Garbage => admit(&node, Admission::Garbage, length).await,
        Fault::Full | Fault::NoLogin => {
            let refusal = if fault == Fault::Full { FULL } else { NO_LOGIN };
            node.state().admission = Admission::Refused(refusal);
            if rng.bool() {
                node.end_all(Death::Reset).await;
            }
            admit(&node, Admission::Refused(refusal), length).await;
        }
        Fault::Refuses => {
            node.state().reach = if rng.bool() { Reach::Refused } else { Reach::Silent };
            time::pass(length).await;
            node.state().reach = Reach::Open;
        }
        Fault::Frozen => {
            node.freeze(true);
            time::pass(length).await;
            node.freeze(false);
        }
        Fault::BlackHole => hold(&node, [true; 2], length).await,
        Fault::LostReplies => hold(&node, [false, true], length).await,
        Fault::Late => {
            node.set_weather(|weather| weather.late = rng.u32(1..=LATEST.as_millis() as u32) * MS);
            time::pass(length).await;
            node.set_weather(|weather| weather.late = Duration::ZERO);
            // What is on its way arrives late.
            time::pass(LATEST * 4).await;
        }
        Fault::Sliced => {
            node.set_weather(|weather| weather.slice = Some(1));
            time::pass(length).await;
            node.set_weather(|weather| weather.slice = None);
        }
        Fault::LostAtCommit => {
            let trap = [Trap::BeforeCommit, Trap::AfterCommit, Trap::Crash][rng.usize(..3)];
            world.nodes[0].state().trap = Some(trap);
        }
        Fault::Demoted => demote(&node, length).await,
        Fault::AllReset => node.sessions().iter().for_each(|session| session.end(Death::Reset)),
        Fault::OneTerminated | Fault::OneReset | Fault::OneHung | Fault::OneCut | Fault::Conflict => {
            hit_one(&node, fault, length, &mut rng).await;
        }
    }
    [Some(trouble), rivalry].into_iter().flatten().for_each(|trouble| world.record.heal(trouble));
    world.record.tell(format!("{} no longer {fault:?}", NAMES[node.index]));
}

async fn die(node: &Node, death: Death, length: Duration) {
    node.state().reach = Reach::Refused;
    node.end_all(death).await;
    node.state().restart();
    time::pass(length).await;
    node.state().admission = Admission::Refused(STARTING);
    node.state().reach = Reach::Open;
    time::pass(length / 4).await;
    node.state().admission = Admission::Open;
}

async fn crash(node: &Node, length: Duration) {
    node.state().admission = Admission::Refused(STARTING);
    node.end_all(Death::Told(b'N', CRASHED)).await;
    node.state().restart();
    time::pass(length).await;
    node.state().admission = Admission::Open;
}

async fn admit(node: &Node, admission: Admission, length: Duration) {
    node.state().admission = admission;
    time::pass(length).await;
    node.state().admission = Admission::Open;
}

async fn hold(node: &Node, held: [bool; 2], length: Duration) {
    node.set_weather(|weather| weather.held = held);
    time::pass(length).await;
    node.set_weather(|weather| weather.held = [false; 2]);
}

/// The primary comes back as a standby, or a standby is promoted, on a new timeline; then it is undone.
async fn demote(node: &Node, length: Duration) {
    let turn = || {
        let mut state = node.state();
        state.in_recovery = !state.in_recovery;
        state.timeline += u32::from(!state.in_recovery);
    };
    turn();
    time::pass(length).await;
    turn();
}

async fn hit_one(node: &Node, fault: Fault, length: Duration, rng: &mut Rng) {
    let Some(session) = node.any_session() else { return };
    match fault {
        Fault::OneTerminated => session.end(Death::Told(b'E', STOPPED)),
        Fault::OneReset => session.end(Death::Reset),
        Fault::OneCut => session.link.cut_after(rng.usize(..2000)),
        Fault::Conflict => {
            session.interrupt(if rng.bool() { CONFLICT } else { Report { severity: "FATAL", ..CONFLICT } })
        }
        _ => {
            session.freeze(true);
            time::pass(length).await;
            session.freeze(false);
        }
    }
}
