//! Servers that are started, stopped and frozen, and a router that watches them.

use std::{
    error::Error,
    fs::File,
    io,
    net::{Ipv4Addr, TcpListener},
    os::unix::process::CommandExt,
    path::Path,
    process::{Child, Command, Stdio},
    time::Duration,
};

use pgdetour::{
    Config, EventKind, Events, Router,
    config::{Pings, Role},
    health::Cause,
};
use tempfile::TempDir;
use tokio::time::timeout;

pub(crate) type Tested<T = ()> = Result<T, Box<dyn Error>>;

/// RabbitMQ takes its time to start where the machine is busy.
pub(crate) const SOON: Duration = Duration::from_secs(100);
pub(crate) const MS: Duration = Duration::from_millis(1);

/// The path of a server that `scripts/services.sh` finds, or installs.
pub(crate) fn program(name: &str) -> Tested<String> {
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/scripts/services.sh");
    let found = Command::new(script).arg(name).output()?;
    let text = String::from_utf8(found.stdout)?;
    let path = text.trim().split_once('=').map(|(_, path)| path.to_owned());
    path.filter(|_| found.status.success()).ok_or_else(|| String::from_utf8_lossy(&found.stderr).into_owned().into())
}

/// A port that is free now, from below the range of outgoing connections.
pub(crate) fn free_port() -> u16 {
    loop {
        let port = fastrand::u16(10_000..32_000);
        if TcpListener::bind((Ipv4Addr::LOCALHOST, port)).is_ok() {
            return port;
        }
    }
}

/// A server in a process group of its own. Dropping it kills the group.
pub(crate) struct Server {
    command: Command,
    input: Option<String>,
    child: Option<Child>,
    pub(crate) directory: TempDir,
}

impl Server {
    /// A server that writes to a log in its own directory, which is where it works.
    pub(crate) fn new(program: impl AsRef<std::ffi::OsStr>, directory: TempDir) -> Tested<Self> {
        let mut command = Command::new(program);
        let log = File::create(directory.path().join("output"))?;
        command
            .current_dir(directory.path())
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .process_group(0);
        Ok(Self { command, input: None, child: None, directory })
    }

    pub(crate) fn command(&mut self) -> &mut Command {
        &mut self.command
    }

    /// What it reads on its standard input.
    pub(crate) fn input(&mut self, text: impl Into<String>) {
        self.input = Some(text.into());
    }

    pub(crate) fn start(&mut self) -> Tested {
        if let Some(text) = &self.input {
            let path = self.directory.path().join("input");
            std::fs::write(&path, text)?;
            self.command.stdin(File::open(path)?);
        }
        self.child = Some(self.command.spawn()?);
        Ok(())
    }

    /// `STOP` freezes, `CONT` thaws.
    pub(crate) fn signal(&self, signal: &str) -> Tested {
        let Some(child) = &self.child else { return Err("it does not run".into()) };
        let sent = Command::new("sh").arg("-c").arg(format!("kill -{signal} -{}", child.id())).status()?;
        if sent.success() { Ok(()) } else { Err(format!("no {signal} for {}", child.id()).into()) }
    }

    /// Kills it with all its processes, and waits.
    pub(crate) fn kill(&mut self) -> Tested {
        self.signal("KILL")?;
        self.child.take().map(|mut child| child.wait()).transpose()?;
        Ok(())
    }

    pub(crate) fn log(&self) -> String {
        std::fs::read_to_string(self.directory.path().join("output")).unwrap_or_default()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if self.child.is_some() {
            // It may have ended by itself.
            let _ = self.kill();
        }
    }
}

/// A directory that a server of any user may write to.
pub(crate) fn directory() -> io::Result<TempDir> {
    let directory = tempfile::tempdir()?;
    open(directory.path())?;
    Ok(directory)
}

fn open(path: &Path) -> io::Result<()> {
    use std::os::unix::fs::PermissionsExt;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o777))
}

/// Pings that a test can wait for.
pub(crate) fn often() -> Pings {
    Pings {
        monitoring_ping_frequency: 2000 * MS,
        outage_ping_frequency: 1000 * MS,
        error_ping_frequency: 50 * MS,
        ping_timeout: 2000 * MS,
        outage_ping_timeout: 1000 * MS,
        ..Pings::default()
    }
}

/// The configuration of a router without a database that answers: services do not need one.
pub(crate) fn config() -> Tested<Config> {
    let builder = Config::builder().pings(often());
    Ok(builder.server("primary", Role::Primary, "postgres://app@127.0.0.1:1/app").build()?)
}

/// The same with services, as TOML.
pub(crate) fn config_with(services: &str) -> Tested<Config> {
    let top = "monitoring_ping_frequency = \"2s\"\noutage_ping_frequency = \"1s\"\nerror_ping_frequency = \"50ms\"\n\
               ping_timeout = \"2s\"\noutage_ping_timeout = \"1s\"\n[alias.primary]\nrole = \"primary\"\n\
               url = \"postgres://app@127.0.0.1:1/app\"\n";
    Ok(Config::from_toml(&format!("{top}{services}"))?)
}

/// A router and what it tells.
pub(crate) struct Watch {
    pub(crate) router: Router,
    pub(crate) events: Events,
}

impl Watch {
    pub(crate) async fn start() -> Tested<Self> {
        Self::with(config()?).await
    }

    pub(crate) async fn with(config: Config) -> Tested<Self> {
        let router: Router = Router::start(config).await?;
        Ok(Self { events: router.events(), router })
    }

    /// Waits until the service is up.
    pub(crate) async fn until_up(&mut self, name: &str) -> Tested {
        let up = async {
            while self.router.service(name)?.is_out() {
                self.events.next().await.ok_or("the router has ended")?;
            }
            Ok::<_, Box<dyn Error>>(())
        };
        let late = timeout(SOON, up).await;
        late.unwrap_or_else(|_| Err(format!("{name} does not come up: {:?}", self.router.services()).into()))
    }

    /// The application sees an error of it, and waits until its outage is open; why it is.
    pub(crate) async fn until_out(&mut self, name: &str) -> Tested<Cause> {
        assert!(self.router.report_service(name, &io::Error::from(io::ErrorKind::BrokenPipe)), "it asks for a ping");
        let opened = async {
            loop {
                let event = self.events.next().await.ok_or("the router has ended")?;
                if let (true, EventKind::OutageOpened { cause, .. }) = (event.is_about(name), event.kind) {
                    return Ok(cause);
                }
            }
        };
        timeout(SOON, opened).await?
    }

    /// Waits until a ping has told nothing; what it told instead.
    pub(crate) async fn until_inconclusive(&mut self, name: &str) -> Tested<Cause> {
        let state = || Ok::<_, Box<dyn Error>>(self.router.service(name)?.explain());
        let told = state()?;
        assert!(!told.is_out(), "{told}");
        told.inconclusive.ok_or_else(|| "its ping was conclusive".into())
    }
}

/// Through every fault and back: what is said of each.
pub(crate) async fn stopped_frozen_and_restarted(watch: &mut Watch, name: &str, server: &mut Server) -> Tested {
    watch.until_up(name).await.map_err(|error| format!("{error}\n{}", server.log()))?;
    let switch = watch.router.switch_on_service(name, "normal", "other")?;
    assert_eq!(*switch.get(), "normal");

    server.signal("STOP")?;
    let cause = watch.until_out(name).await?.to_string();
    assert!(cause.contains("no answer within"), "frozen: {cause}");
    assert_eq!(*switch.get(), "other");
    server.signal("CONT")?;
    watch.until_up(name).await?;
    assert_eq!(*switch.get(), "normal");

    server.kill()?;
    let cause = watch.until_out(name).await?.to_string();
    assert!(cause.contains("refused") || cause.contains("closed"), "stopped: {cause}");
    let told = watch.router.service(name)?.explain().to_string();
    assert!(told.contains("down for") && told.contains("next ping in"), "{told}");
    server.start()?;
    watch.until_up(name).await
}
