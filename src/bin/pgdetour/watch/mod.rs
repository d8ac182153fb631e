//! `pgdetour watch`: a router live, on a terminal or as lines.

mod args;
mod canvas;
mod feed;
mod frame;
mod lines;
mod strip;

use std::{
    future::Future,
    io::{self, IsTerminal, Write},
    pin::pin,
    time::{Duration, Instant},
};

use tokio::{
    signal::unix::{SignalKind, signal},
    sync::mpsc,
    time::interval,
};

pub(crate) use self::args::Args;
use self::{
    canvas::{Canvas, keys},
    feed::{Feed, Told},
    lines::Lines,
};
use crate::{clock, exit::Exit, log, paint::Paint, subject::Scene, trouble::Trouble};

/// How often times that go on are drawn anew.
const TICK: Duration = Duration::from_secs(1);

/// Watches, until somebody ends it.
pub(crate) async fn run(args: &Args, interrupted: impl Future<Output = ()>) -> Exit {
    let paint = Paint::of(&io::stdout());
    let drawn = paint.terminal && !args.json;
    if !(drawn && io::stderr().is_terminal()) {
        // It would be written across what is drawn.
        log::log_to_errors(clock::now());
    }
    let mut interrupted = pin!(interrupted);
    let started = tokio::select! {
        started = Feed::start(&args.subject) => started,
        () = &mut interrupted => return Exit::Interrupted,
    };
    let mut feed = match started {
        Ok(feed) => feed,
        Err(trouble) => return trouble.tell(args.json),
    };
    let watched = async {
        // One that cannot be reached to begin with is a mistake in the address rather than an outage.
        let scene = match feed.next().await {
            Some(Told::Scene(scene)) => scene,
            Some(Told::Lost(trouble)) => return trouble.tell(args.json),
            None => return Exit::Environment,
        };
        let watched =
            if drawn { draw(scene, &mut feed, paint).await } else { write(scene, &mut feed, args, paint).await };
        // Whoever closed the output wants no more of it.
        watched.unwrap_or(Exit::Fine)
    };
    let exit = tokio::select! {
        exit = watched => exit,
        () = interrupted => Exit::Interrupted,
    };
    feed.end().await;
    exit
}

/// A line for each event.
async fn write(scene: Box<Scene>, feed: &mut Feed, args: &Args, paint: Paint) -> io::Result<Exit> {
    let mut lines = Lines::new(args.json, paint);
    let mut next = Some(Told::Scene(scene));
    while let Some(told) = next {
        let mut output = io::stdout().lock();
        for line in lines.of(&told) {
            writeln!(output, "{line}")?;
        }
        output.flush()?;
        drop(output);
        next = feed.next().await;
    }
    Ok(Exit::Environment)
}

/// What is drawn.
struct Shown {
    scene: Box<Scene>,
    at: Instant,
    lost: Option<Trouble>,
}

async fn draw(scene: Box<Scene>, feed: &mut Feed, paint: Paint) -> io::Result<Exit> {
    let mut canvas = Canvas::take(paint)?;
    let mut keys = keys();
    let mut resized = signal(SignalKind::window_change())?;
    let mut tick = interval(TICK);
    let mut shown = Shown { scene, at: clock::now(), lost: None };
    loop {
        let age = clock::now().saturating_duration_since(shown.at);
        canvas.draw(&frame::lines(&shown.scene, age, shown.lost.as_ref(), canvas.room()))?;
        tokio::select! {
            told = feed.next() => match told {
                Some(Told::Scene(scene)) => shown = Shown { scene, at: clock::now(), lost: None },
                Some(Told::Lost(trouble)) => shown.lost = Some(trouble),
                None => return Ok(Exit::Environment),
            },
            _ = tick.tick() => {}
            _ = resized.recv() => {}
            key = pressed(&mut keys) => match key {
                Some(b'q' | b'Q') => return Ok(Exit::Fine),
                Some(_) => {}
                // The terminal is gone, or gives no keys any more.
                None => keys = None,
            },
        }
    }
}

/// The next key; never where there are none.
async fn pressed(keys: &mut Option<mpsc::Receiver<u8>>) -> Option<u8> {
    match keys {
        Some(keys) => keys.recv().await,
        None => std::future::pending().await,
    }
}
