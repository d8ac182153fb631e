//! What there is to show: a scene whenever something changes, from a router that runs or from one of its own.

use std::time::Duration;

use pgdetour::{Router, observe::Chronicle};
use tokio::{sync::mpsc, task::JoinHandle, time::sleep};

use crate::{
    remote::{Remote, Told as Heard},
    subject::{Scene, Subject},
    trouble::Trouble,
};

/// Between two looks at a router of its own while nothing happens: pools and counts change without an event.
const LOOK: Duration = Duration::from_secs(1);

/// Between two scenes at least: a storm of events is told in one.
const PAUSE: Duration = Duration::from_millis(100);

/// Before a router that is lost is asked again.
const AGAIN: Duration = Duration::from_secs(1);

/// What is told of a router.
#[derive(Debug)]
pub(super) enum Told {
    Scene(Box<Scene>),
    /// It cannot be reached; it is tried again.
    Lost(Trouble),
}

/// All that is told, one after the other.
#[derive(Debug)]
pub(super) struct Feed {
    told: mpsc::Receiver<Told>,
    task: JoinHandle<()>,
}

impl Feed {
    /// Begins to follow.
    pub(super) async fn start(subject: &Subject) -> Result<Self, Trouble> {
        let (tell, told) = mpsc::channel(1);
        let task = match subject.remote()? {
            Some(remote) => tokio::spawn(follow(remote, tell)),
            None => tokio::spawn(look(subject.start().await?, tell)),
        };
        Ok(Self { told, task })
    }

    /// What comes next. None: nothing ever will.
    pub(super) async fn next(&mut self) -> Option<Told> {
        self.told.recv().await
    }

    /// Ends a router of its own, if it is one.
    pub(super) async fn end(self) {
        drop(self.told);
        // A panic in there has been told by itself.
        let _ = self.task.await;
    }
}

/// Follows one that runs elsewhere, and comes back to it when it is lost.
async fn follow(remote: Remote, tell: mpsc::Sender<Told>) {
    while let Err(trouble) = follow_once(&remote, &tell).await {
        if tell.send(Told::Lost(trouble)).await.is_err() {
            return;
        }
        tokio::select! {
            () = sleep(AGAIN) => {}
            () = tell.closed() => return,
        }
    }
}

/// Ends well when nobody wants it any more.
async fn follow_once(remote: &Remote, tell: &mpsc::Sender<Told>) -> Result<(), Trouble> {
    let mut stream = tokio::select! {
        stream = remote.follow() => stream?,
        () = tell.closed() => return Ok(()),
    };
    let mut kept: Option<Chronicle> = None;
    loop {
        let Heard { status, spans, last_event } = tokio::select! {
            heard = stream.next() => heard?,
            () = tell.closed() => return Ok(()),
        };
        let known = |timeline: &Chronicle| last_event.is_some() && Some(last_number(timeline)) == last_event;
        let mut timeline = match kept.take().filter(known) {
            Some(timeline) => timeline,
            None => remote.timeline().await?,
        };
        timeline.spans = spans;
        kept = Some(timeline.clone());
        if tell.send(Told::Scene(Box::new(Scene { status, timeline }))).await.is_err() {
            return Ok(());
        }
    }
}

/// The number of the last event; 0 before the first.
pub(super) fn last_number(timeline: &Chronicle) -> u64 {
    timeline.events.last().map_or(0, |event| event.number)
}

/// Looks at one of its own.
async fn look(router: Router, tell: mpsc::Sender<Told>) {
    let mut events = router.events();
    loop {
        let scene = Scene { status: router.status(), timeline: router.timeline() };
        if tell.send(Told::Scene(Box::new(scene))).await.is_err() {
            break;
        }
        tokio::select! {
            _ = events.next() => sleep(PAUSE).await,
            () = sleep(LOOK) => {}
            () = tell.closed() => break,
        }
    }
    router.shutdown().await;
}
