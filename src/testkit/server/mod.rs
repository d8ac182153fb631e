//! One PostgreSQL server: where it is, and what can be done to it.

mod admin;
mod postmaster;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use secrecy::ExposeSecret;
use tokio_postgres::{Client, Config};

use super::TestkitError;
use super::ground::{Plot, make_dir, quiet};
use super::port::Port;
use super::settings::Settings;
use postmaster::Postmaster;

/// How long to wait between two looks at something that PostgreSQL gives no event for.
const LOOK_AGAIN: Duration = Duration::from_millis(2);

/// How a server is told to stop (PostgreSQL manual, "Shutting Down the Server").
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stop {
    /// No new sessions, and waits for the present ones to leave by themselves.
    Smart,
    /// Rolls back and closes all sessions with 57P01, then writes a checkpoint.
    Fast,
    /// Ends all sessions with a warning, and needs recovery at the next start.
    Immediate,
}

/// What the servers of a cluster share.
#[derive(Debug)]
pub(super) struct Host {
    pub(super) plot: Plot,
    pub(super) sockets: PathBuf,
    pub(super) settings: Settings,
}

impl Host {
    /// Makes the directory for the sockets, where only the servers' user comes in. Blocks.
    pub(super) fn new(plot: Plot, settings: Settings) -> Result<Arc<Self>, TestkitError> {
        let sockets = plot.dir.join("s");
        make_dir(&sockets, 0o700)?;
        plot.account.own(&sockets)?;
        Ok(Arc::new(Self { plot, sockets, settings }))
    }

    /// Runs something within the cluster's deadline.
    pub(super) async fn bounded<T>(
        &self,
        doing: &str,
        work: impl Future<Output = Result<T, TestkitError>>,
    ) -> Result<T, TestkitError> {
        let deadline = self.settings.deadline;
        match tokio::time::timeout(deadline, work).await {
            Ok(done) => done,
            Err(_) => Err(TestkitError::new(format!("{doing} took more than {deadline:?}"))),
        }
    }
}

/// One server of a [`Cluster`](super::Cluster).
///
/// All operations end within the cluster's deadline ([`ClusterBuilder::deadline`](super::ClusterBuilder::deadline)).
#[derive(Debug)]
pub struct Server {
    name: String,
    data: PathBuf,
    port: Port,
    postmaster: Postmaster,
    host: Arc<Host>,
}

impl Server {
    pub(super) fn new(host: Arc<Host>, name: String, data: PathBuf, port: Port) -> Self {
        Self { name, data, port, postmaster: Postmaster::default(), host }
    }

    /// `primary`, `replica0`, `replica1`, … as it was started; also its `application_name` while it streams.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// `127.0.0.1`.
    #[must_use]
    pub fn host(&self) -> &str {
        "127.0.0.1"
    }

    /// Its TCP port, the same for its whole life.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.port.number()
    }

    /// `postgres://user:password@127.0.0.1:port/database`, the password as it is.
    #[must_use]
    pub fn url(&self) -> String {
        self.url_at(self.host(), self.port())
    }

    /// The same URL with another host and port, such as those of a [`Proxy`](super::Proxy).
    #[must_use]
    pub fn url_at(&self, host: &str, port: u16) -> String {
        let settings = &self.host.settings;
        let encoded =
            |text: &str| percent_encoding::utf8_percent_encode(text, percent_encoding::NON_ALPHANUMERIC).to_string();
        let password = settings
            .password
            .as_ref()
            .map(|password| format!(":{}", encoded(password.expose_secret())))
            .unwrap_or_default();
        format!("postgres://{}{password}@{host}:{port}/{}", encoded(&settings.user), encoded(&settings.database))
    }

    /// The directory of its Unix socket, for a superuser's connection as `postgres` without a password.
    #[must_use]
    pub fn socket_dir(&self) -> &Path {
        &self.host.sockets
    }

    /// Its data directory.
    #[must_use]
    pub fn data_dir(&self) -> &Path {
        &self.data
    }

    /// Everything it has logged so far.
    #[must_use]
    pub fn log(&self) -> String {
        fs::read(self.log_file()).map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).unwrap_or_default()
    }

    /// The process number of its postmaster, while it runs.
    #[must_use]
    pub fn pid(&self) -> Option<u32> {
        self.postmaster.pid()
    }

    /// Whether its postmaster runs; a frozen one does.
    #[must_use]
    pub fn is_running(&self) -> bool {
        self.postmaster.pid().is_some()
    }

    /// Connects as the user of the URL. The connection is driven by a task of the runtime; the server has to answer within the deadline.
    ///
    /// # Errors
    ///
    /// What the driver reports, or that the deadline has passed. With [`ClusterBuilder::tls`](super::ClusterBuilder::tls) too this connection is plain.
    ///
    /// # Cancel safety
    ///
    /// Cancel safe: the connection is closed.
    pub async fn connect(&self) -> Result<Client, TestkitError> {
        let settings = &self.host.settings;
        let mut config = Config::new();
        config.host(self.host()).port(self.port()).user(&settings.user).dbname(&settings.database);
        if let Some(password) = &settings.password {
            config.password(password.expose_secret());
        }
        self.open(&config).await
    }

    /// Starts it again after it was killed or stopped, on the same port and data, and waits until it answers. Ends what
    /// [`kill_postmaster`](Self::kill_postmaster) left behind first.
    ///
    /// # Errors
    ///
    /// When it runs already, or does not come up; the text ends with what it logged.
    ///
    /// # Cancel safety
    ///
    /// It goes on to start if it was begun: [`is_running`](Self::is_running) tells.
    pub async fn start(&self) -> Result<(), TestkitError> {
        let logged = self.log().len();
        let mut command = Command::new(self.host.plot.bindir.join("postgres"));
        command.arg("-D").arg(&self.data).arg("-c").arg(format!("port={}", self.port()));
        self.host.plot.account.run(quiet(command.current_dir(&self.data)));
        let started = async {
            self.postmaster.clear()?;
            self.gone("ending what was left of it").await?;
            self.postmaster.start(&mut command, &self.log_file())?;
            self.wait_until_ready().await
        };
        self.host.bounded("starting it", started).await.map_err(|error| {
            let log = self.log();
            TestkitError::new(format!(
                "{}: {error}; it logged:\n{}",
                self.name,
                admin::tail(log.get(logged..).unwrap_or(&log))
            ))
        })
    }

    /// Stops it fast, if it runs, and starts it again.
    ///
    /// # Errors
    ///
    /// Those of [`stop`](Self::stop) and [`start`](Self::start).
    ///
    /// # Cancel safety
    ///
    /// As those of both: it may be left stopped.
    pub async fn restart(&self) -> Result<(), TestkitError> {
        if self.is_running() {
            self.stop(Stop::Fast).await?;
        }
        self.start().await
    }

    /// Tells it to stop and waits until it has.
    ///
    /// # Errors
    ///
    /// When it does not run, or is still there at the deadline: a smart stop waits for the sessions, and a frozen server does not hear.
    ///
    /// # Cancel safety
    ///
    /// Once polled it has been told, and stops all the same.
    pub async fn stop(&self, how: Stop) -> Result<(), TestkitError> {
        self.postmaster.ask(how).map_err(|error| self.at(error))?;
        self.gone("stopping it").await
    }

    /// Kills all its processes (SIGKILL) before any can tell its client. The signals are sent before the first `await`.
    ///
    /// # Errors
    ///
    /// When it does not run, or one of its processes is still there at the deadline.
    ///
    /// # Cancel safety
    ///
    /// Once polled its processes end all the same.
    pub async fn kill(&self) -> Result<(), TestkitError> {
        self.postmaster.kill().map_err(|error| self.at(error))?;
        self.gone("killing it").await
    }

    /// Kills its postmaster alone: the port refuses at once, and sessions end with 57P01 when they next wait for something.
    ///
    /// # Errors
    ///
    /// When it does not run.
    ///
    /// # Cancel safety
    ///
    /// Waits for nothing: once polled it is done.
    pub async fn kill_postmaster(&self) -> Result<(), TestkitError> {
        self.postmaster.kill_alone().map_err(|error| self.at(error))
    }

    /// Freezes all its processes (SIGSTOP): connections stay open and nothing answers. Back when all have stopped.
    ///
    /// # Errors
    ///
    /// When it does not run, or not all have stopped by the deadline.
    ///
    /// # Cancel safety
    ///
    /// Some of its processes may be left frozen; [`thaw`](Self::thaw) lets all go on.
    pub async fn freeze(&self) -> Result<(), TestkitError> {
        let frozen = async {
            self.postmaster.freeze_alone()?;
            while self.postmaster.freeze_children() {
                tokio::task::yield_now().await;
            }
            Ok(())
        };
        self.host.bounded("freezing it", frozen).await.map_err(|error| self.at(error))
    }

    /// Freezes its postmaster alone: present sessions work, new ones connect and are never answered.
    ///
    /// # Errors
    ///
    /// When it does not run.
    ///
    /// # Cancel safety
    ///
    /// Waits for nothing: once polled it is done.
    pub async fn freeze_postmaster(&self) -> Result<(), TestkitError> {
        self.postmaster.freeze_alone().map_err(|error| self.at(error))
    }

    /// Lets a frozen server go on (SIGCONT).
    ///
    /// # Errors
    ///
    /// When it does not run.
    ///
    /// # Cancel safety
    ///
    /// Waits for nothing: once polled it is done.
    pub async fn thaw(&self) -> Result<(), TestkitError> {
        self.postmaster.thaw().map_err(|error| self.at(error))
    }

    /// Ends all client sessions but its own with `pg_terminate_backend`, and tells how many there were.
    ///
    /// # Errors
    ///
    /// When the server does not answer.
    ///
    /// # Cancel safety
    ///
    /// What the server has been asked for it does all the same.
    pub async fn terminate_backends(&self) -> Result<usize, TestkitError> {
        let ended = self
            .query_one(
                "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity
                 WHERE backend_type = 'client backend' AND pid <> pg_backend_pid()",
            )
            .await?;
        ended.parse().map_err(TestkitError::while_("counting the sessions"))
    }

    /// Kills (SIGKILL) the process of the oldest client session, as the kernel does when memory runs out: the postmaster ends all others with 57P02,
    /// recovers and goes on. Gives the process number.
    ///
    /// # Errors
    ///
    /// When the server does not answer, or has no session but the test kit's.
    ///
    /// # Cancel safety
    ///
    /// Cancel safe: then none was killed.
    pub async fn kill_one_backend(&self) -> Result<u32, TestkitError> {
        let pid = self
            .query_one(
                "SELECT (SELECT pid FROM pg_stat_activity
                         WHERE backend_type = 'client backend' AND pid <> pg_backend_pid()
                         ORDER BY backend_start LIMIT 1)",
            )
            .await?;
        let pid = pid.parse().map_err(|_| self.at(TestkitError::new("has no client session to kill")))?;
        self.postmaster.kill_child(pid).map_err(|error| self.at(error))?;
        Ok(pid)
    }

    /// Promotes a replica and waits until it takes writes.
    ///
    /// # Errors
    ///
    /// When it does not answer, is no replica, or takes no writes by the deadline.
    ///
    /// # Cancel safety
    ///
    /// Once the server has been asked it is promoted all the same.
    pub async fn promote(&self) -> Result<(), TestkitError> {
        self.query_one("SELECT pg_promote(false)").await?;
        let promoted = async {
            while self.is_replica().await? {
                tokio::time::sleep(LOOK_AGAIN).await;
            }
            Ok(())
        };
        self.host.bounded("promoting it", promoted).await.map_err(|error| self.at(error))
    }

    /// Whether it is a replica now, as the server itself says.
    ///
    /// # Errors
    ///
    /// When it does not answer.
    ///
    /// # Cancel safety
    ///
    /// Cancel safe: it only asks.
    pub async fn is_replica(&self) -> Result<bool, TestkitError> {
        Ok(self.query_one("SELECT pg_is_in_recovery()").await? == "t")
    }

    /// Runs statements as the superuser `postgres` in the URL's database, through the socket.
    ///
    /// # Errors
    ///
    /// When the server does not answer or refuses.
    ///
    /// # Cancel safety
    ///
    /// What was sent may be executed all the same.
    pub async fn execute(&self, sql: &str) -> Result<(), TestkitError> {
        self.run(&self.host.settings.database, sql).await.map(drop)
    }
}
