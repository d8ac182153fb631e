//! `pgdetour demo`: what does an outage look like? Servers of its own, a fault, and where the reads go meanwhile.

mod fault;
mod reader;
mod stage;
mod story;
mod summary;
mod timeline;

use std::{
    io,
    pin::pin,
    sync::Arc,
    time::{Duration, Instant},
};

use pgdetour::{Event, testkit::Server};
use tokio::{
    sync::mpsc::{UnboundedReceiver, unbounded_channel},
    task::JoinSet,
};

pub(crate) use self::fault::Fault;
use self::{
    stage::{Stage, Trouble},
    story::{Moment, Read, Story},
    timeline::{Layout, Timeline},
};
use crate::{
    args, clock,
    exit::Exit,
    log,
    paint::{Paint, Tone},
    screen::Screen,
    time::brief,
};

/// How often the screen is drawn again.
const FRAME: Duration = Duration::from_millis(50);

/// What the parts of a demo tell its teller.
#[derive(Debug)]
enum News {
    Read(Read),
    Event(Event, Duration),
    Moment(Moment, Duration, String),
    Cut(usize),
    /// A word about what happens.
    Word(String),
}

/// Runs a demo until its end, or until somebody ends it.
pub(crate) async fn run(args: &args::Demo, interrupted: impl Future<Output = ()>) -> Exit {
    let screen = Arc::new(if args.json {
        let plain = Paint { terminal: false, ..Paint::of(&io::stderr()) };
        Screen::new(Box::new(io::stderr()), Paint { colour: false, ..plain })
    } else {
        Screen::new(Box::new(io::stdout()), Paint::of(&io::stdout()))
    });
    let exit = tokio::select! {
        exit = perform(args, &screen) => exit.unwrap_or_else(|trouble| Exit::Environment.because(&trouble)),
        () = interrupted => {
            screen.settle();
            Exit::Interrupted.because(&"interrupted")
        }
    };
    screen.settle();
    exit
}

/// Everything from the servers' start to their end: they end when this future is dropped, too.
async fn perform(args: &args::Demo, screen: &Arc<Screen>) -> Result<Exit, Trouble> {
    let teller = Teller { args, screen };
    teller.headline();
    let begun = clock::now();
    let stage = Stage::build(args).await?;
    teller.servers(&stage, clock::now() - begun);

    let start = clock::now();
    let lines = Arc::clone(screen);
    log::log_to(Arc::new(move |line| lines.say(line)), screen.paint.colour, start);
    let (sender, news) = unbounded_channel();
    // Dropping the set ends its tasks.
    let mut tasks = JoinSet::new();
    tasks.spawn(reader::read_steadily(stage.router.alias("replica")?, args.rate, start, sender.clone()));
    tasks.spawn(stage::forward(stage.router.events(), start, sender.clone()));
    let play = stage.play(args, start, |news| {
        // At once, so that a word about a fault stands above the log line about its outage.
        teller.say(&news);
        // An error says that nobody watches any more.
        let _ = sender.send(news);
    });
    let story = teller.tell(play, news, start).await?;
    drop(tasks);
    stage.router.shutdown().await;
    drop(stage);
    teller.end(&story)
}

/// Shows a story while it happens.
struct Teller<'a> {
    args: &'a args::Demo,
    screen: &'a Arc<Screen>,
}

impl Teller<'_> {
    fn headline(&self) {
        if self.args.json {
            return;
        }
        let fault = self.args.fault.headline();
        let title = self.screen.paint.text(Tone::Strong, "pgdetour demo");
        self.screen.say(&format!("{title}: {fault}\n"));
        self.screen.say("\n  starting a primary and a streaming replica ...");
    }

    fn servers(&self, stage: &Stage, took: Duration) {
        if self.args.json {
            return;
        }
        let (primary, replica) = (address(stage.primary()), address(stage.replica()));
        self.screen.say(&format!("  ready after {}: {primary} and {replica}", brief(took)));
        self.screen.say(&format!("  {} reads a second through alias `replica`\n", self.args.rate));
        self.screen.say("");
    }

    /// Takes in the news until the play is over.
    async fn tell(
        &self,
        play: impl Future<Output = Result<(), Trouble>>,
        mut news: UnboundedReceiver<News>,
        start: Instant,
    ) -> Result<Story, Trouble> {
        let mut story = Story::default();
        let mut rows = Rows { shown: 0, layout: self.layout() };
        let mut frames = tokio::time::interval(FRAME);
        let mut play = pin!(play);
        if !self.args.json && !self.screen.paint.terminal {
            self.screen.say(&self.timeline(rows.layout).legend());
        }
        loop {
            tokio::select! {
                result = &mut play => break result?,
                Some(news) = news.recv() => take(&mut story, news),
                _ = frames.tick() => self.draw(&story, &mut rows, clock::now() - start),
            }
        }
        let end = clock::now() - start;
        while let Ok(news) = news.try_recv() {
            take(&mut story, news);
        }
        self.finish(&story, &rows, end);
        Ok(story)
    }

    fn say(&self, news: &News) {
        let word = match news {
            News::Moment(_, at, word) => format!("{:8.3} s  {word}", at.as_secs_f64()),
            News::Word(word) => format!("            {word}"),
            News::Read(_) | News::Event(..) | News::Cut(_) => return,
        };
        if !self.args.json {
            self.screen.say(&self.screen.paint.text(Tone::Strong, &word));
        }
    }

    /// On a terminal all rows are drawn again; elsewhere each is written once, when it is complete.
    fn draw(&self, story: &Story, rows: &mut Rows, now: Duration) {
        if self.args.json {
            return;
        }
        if self.screen.paint.terminal {
            rows.layout = self.layout();
            self.screen.live(self.picture(story, rows.layout, now));
            return;
        }
        let complete = rows.layout.complete_rows(now);
        if complete > rows.shown {
            let last = rows.layout.cell * u32::try_from(complete * rows.layout.columns).unwrap_or(u32::MAX);
            let lines =
                self.timeline(rows.layout).rows(story, rows.shown, last.saturating_sub(Duration::from_millis(1)));
            lines.iter().for_each(|line| self.screen.say(line));
            rows.shown = complete;
        }
    }

    fn finish(&self, story: &Story, rows: &Rows, end: Duration) {
        if self.args.json {
        } else if self.screen.paint.terminal {
            self.screen.live(self.picture(story, self.layout(), end));
            self.screen.settle();
        } else {
            self.timeline(rows.layout).rows(story, rows.shown, end).iter().for_each(|line| self.screen.say(line));
        }
    }

    fn picture(&self, story: &Story, layout: Layout, now: Duration) -> Vec<String> {
        let timeline = self.timeline(layout);
        let mut lines = vec![String::new(), timeline.legend()];
        lines.extend(timeline.rows(story, 0, now));
        lines
    }

    fn timeline(&self, layout: Layout) -> Timeline {
        Timeline { layout, paint: self.screen.paint, fault: self.args.fault }
    }

    fn layout(&self) -> Layout {
        Layout::of(self.screen.width(), stage::expected(self.args))
    }

    fn end(&self, story: &Story) -> Result<Exit, Trouble> {
        if self.args.json {
            // Who closed standard output does not want it.
            let _ = io::Write::write_fmt(
                &mut io::stdout(),
                format_args!("{:#}\n", summary::json(story, self.args.fault, self.args.rate)),
            );
        } else {
            self.screen.say("");
            let lines = summary::lines(story, self.args.fault, self.args.rate, self.screen.paint);
            lines.iter().for_each(|line| self.screen.say(line));
        }
        let fine = story.complaints(self.args.fault.is_outage()).is_empty();
        Ok(if fine { Exit::Fine } else { Exit::Failed })
    }
}

fn address(server: &Server) -> String {
    format!("{}:{}", server.host(), server.port())
}

fn take(story: &mut Story, news: News) {
    match news {
        News::Read(read) => story.reads.push(read),
        News::Event(event, at) => story.hear(&event.kind, at),
        News::Cut(sessions) => story.cut = Some(sessions),
        News::Moment(moment, at, _) => story.moments.push((moment, at)),
        News::Word(_) => {}
    }
}

/// How far a timeline that is written row by row has come.
struct Rows {
    shown: usize,
    layout: Layout,
}
