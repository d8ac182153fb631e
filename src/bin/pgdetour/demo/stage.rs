//! The servers of a demo, the router over them, and the play: all is well, a fault, its repair, all is well.

use std::{
    fmt,
    time::{Duration, Instant},
};

use pgdetour::{
    Config, EventKind, Router,
    config::{ConfigError, Pings, Role},
    observe::Events,
    testkit::{Cluster, Server, TestkitError},
};
use tokio::sync::mpsc::UnboundedSender;

use super::{News, fault::Fault, story::Moment};
use crate::{
    args::{Demo, Pace},
    clock,
};

/// How much longer than its pings allow a recovery may take before it is given up.
const PATIENCE: Duration = Duration::from_secs(5);

/// Why a demo cannot be shown.
#[derive(Debug)]
pub(super) enum Trouble {
    Servers(TestkitError),
    Config(ConfigError),
    Router(pgdetour::Error),
}

/// Two servers and a router.
#[derive(Debug)]
pub(super) struct Stage {
    // In this order: the router's sessions end before the servers do.
    pub(super) router: Router,
    cluster: Cluster,
}

impl Stage {
    /// Starts everything.
    pub(super) async fn build(args: &Demo) -> Result<Self, Trouble> {
        // A role without rights needs no password for these seconds; the superuser does not come in by TCP.
        let only_by_socket = "host all postgres 127.0.0.1/32 reject";
        let cluster = Cluster::builder().replicas(1).user("demo").hba(only_by_socket).start().await?;
        let config = Config::builder()
            .pings(pings(args))
            .server("primary", Role::Primary, cluster.primary().url())
            .server("replica", Role::Replica, cluster.replica(0).url())
            .build()?;
        Ok(Self { router: Router::start(config).await?, cluster })
    }

    pub(super) fn primary(&self) -> &Server {
        self.cluster.primary()
    }

    pub(super) fn replica(&self) -> &Server {
        self.cluster.replica(0)
    }

    /// The play. It tells what it does as it does it.
    pub(super) async fn play(&self, args: &Demo, start: Instant, tell: impl Fn(News)) -> Result<(), Trouble> {
        let moment = |moment, word: String| tell(News::Moment(moment, clock::now() - start, word));
        let (fault, replica) = (args.fault, self.replica());
        let mut events = self.router.events();
        tokio::time::sleep(args.before).await;
        moment(Moment::Fault, format!("fault: {}", fault.headline()));
        let repaired_at = clock::now() + args.outage;
        if let Some(cut) = fault.inject(replica).await? {
            tell(News::Cut(cut));
        }
        let opened = outage_until(&mut events, repaired_at).await;
        tokio::time::sleep_until(repaired_at.into()).await;
        if let Some(done) = fault.repair() {
            moment(Moment::Repair, format!("the replica is {done}"));
            fault.undo(replica).await?;
            moment(Moment::Answers, "the replica answers again".to_owned());
        }
        if opened && !recovery_until(&mut events, clock::now() + longest_recovery(&pings(args)) + PATIENCE).await {
            tell(News::Word("the router has not seen the recovery".to_owned()));
        }
        tokio::time::sleep(args.after).await;
        Ok(())
    }
}

/// Tells the router's events as they come.
pub(super) async fn forward(mut events: Events, start: Instant, news: UnboundedSender<News>) {
    while let Some(event) = events.next().await {
        let at = clock::now() - start;
        if news.send(News::Event(event, at)).is_err() {
            return;
        }
    }
}

/// How long the play takes if all goes well.
pub(super) fn expected(args: &Demo) -> Duration {
    let recovery = if args.fault.is_outage() { longest_recovery(&pings(args)) } else { Duration::ZERO };
    args.before + args.outage + recovery + args.after
}

async fn outage_until(events: &mut Events, until: Instant) -> bool {
    comes(events, until, |kind| matches!(kind, EventKind::OutageOpened { .. })).await
}

async fn recovery_until(events: &mut Events, until: Instant) -> bool {
    comes(events, until, |kind| matches!(kind, EventKind::OutageClosed { .. })).await
}

async fn comes(events: &mut Events, until: Instant, wanted: impl Fn(&EventKind) -> bool) -> bool {
    let come = async {
        while let Some(event) = events.next().await {
            if wanted(&event.kind) {
                return true;
            }
        }
        false
    };
    tokio::time::timeout_at(until.into(), come).await.unwrap_or(false)
}

fn pings(args: &Demo) -> Pings {
    let pace = match args.pace {
        Pace::Brisk => Pings::brisk(),
        Pace::Default => Pings::default(),
    };
    if args.fault == Fault::Freeze {
        // Silence is told from slowness by time alone.
        return Pings { slow_after: Duration::from_millis(100), ping_timeout: Duration::from_millis(200), ..pace };
    }
    pace
}

fn longest_recovery(pings: &Pings) -> Duration {
    pings.outage_ping_frequency.mul_f64(1.1) + Duration::from_millis(200)
}

impl fmt::Display for Trouble {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Servers(error) => write!(f, "{error}"),
            Self::Config(error) => write!(f, "{error}"),
            Self::Router(error) => write!(f, "{error}"),
        }
    }
}

impl From<TestkitError> for Trouble {
    fn from(error: TestkitError) -> Self {
        Self::Servers(error)
    }
}

impl From<ConfigError> for Trouble {
    fn from(error: ConfigError) -> Self {
        Self::Config(error)
    }
}

impl From<pgdetour::Error> for Trouble {
    fn from(error: pgdetour::Error) -> Self {
        Self::Router(error)
    }
}
