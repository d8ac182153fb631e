//! The pair of docker-compose.yml under a project name and ports of its own, taken down when dropped.

use std::{
    future::Future,
    net::TcpListener,
    path::{Path, PathBuf},
    process::Stdio,
    time::Duration,
};

use tokio::{process::Command, time::timeout};
use tokio_postgres::{Client, NoTls};

/// Longer than anything here takes on a busy machine.
const PATIENCE: Duration = Duration::from_secs(60);
/// How soon a registry must answer to be worth a download.
const REGISTRY_PATIENCE: Duration = Duration::from_secs(5);
/// The image that docker-compose.yml asks for.
const OFFICIAL_IMAGE: &str = "postgres:17";

/// A running primary and replica.
#[derive(Debug)]
pub(crate) struct Pair {
    compose: Vec<&'static str>,
    image: String,
    project: String,
    pub(crate) primary_port: u16,
    pub(crate) replica_port: u16,
}

impl Pair {
    /// Starts the pair and waits until both answer; on a machine that cannot run one, says why.
    pub(crate) async fn start() -> Result<Self, String> {
        if !project_file("docker/replica.sh").exists() {
            return Err("the published package is without the pair's scripts".to_owned());
        }
        output(&["docker", "version", "--format", "{{.Server.Version}}"], PATIENCE)
            .await
            .map_err(|error| format!("no Docker engine answers: {error}"))?;
        let compose = compose_command().await.ok_or("neither `docker compose` nor `docker-compose` is installed")?;
        let image = image().await;
        let [primary_port, replica_port] = free_ports();
        let project = format!("pgdetour-test-{}", std::process::id());
        let pair = Self { compose, image, project, primary_port, replica_port };
        pair.compose(&["up", "-d"]).await;
        pair.until_answers(pair.primary_port).await;
        pair.until_answers(pair.replica_port).await;
        Ok(pair)
    }

    /// Runs `docker compose ARGS` for this pair.
    ///
    /// # Panics
    ///
    /// If it fails.
    pub(crate) async fn compose(&self, args: &[&str]) {
        let mut command = Command::from(self.compose_command(args));
        finish(&mut command, PATIENCE).await.unwrap_or_else(|error| panic!("compose {args:?}: {error}"));
    }

    /// Cuts the replica off the pair's network.
    pub(crate) async fn disconnect_replica(&self) {
        let (network, container) = (self.network(), self.replica_container().await);
        docker(&["network", "disconnect", &network, &container]).await;
    }

    /// Puts the replica back on the pair's network.
    pub(crate) async fn connect_replica(&self) {
        let (network, container) = (self.network(), self.replica_container().await);
        docker(&["network", "connect", "--alias", "replica", &network, &container]).await;
    }

    /// Runs SQL in the replica's container as the superuser, whom no port lets in without the password.
    pub(crate) async fn in_replica(&self, sql: &str) -> String {
        let container = self.replica_container().await;
        docker(&["exec", &container, "psql", "-XqtA", "-U", "postgres", "-c", sql]).await
    }

    /// Deletes what the primary holds; its container has been removed.
    pub(crate) async fn remove_primary_data(&self) {
        docker(&["volume", "rm", &format!("{}_primary", self.project)]).await;
    }

    /// A session of the application's role.
    pub(crate) async fn session(port: u16) -> Result<Client, tokio_postgres::Error> {
        let url = format!("host=127.0.0.1 port={port} user=app password=public-demo-password dbname=app");
        let (client, connection) = tokio_postgres::connect(&url, NoTls).await?;
        tokio::spawn(connection);
        Ok(client)
    }

    /// Whether the server at this port is a replica, if it answers.
    pub(crate) async fn is_replica(port: u16) -> Option<bool> {
        let client = timeout(Duration::from_secs(2), Self::session(port)).await.ok()?.ok()?;
        client.query_one("SELECT pg_is_in_recovery()", &[]).await.ok().map(|row| row.get(0))
    }

    async fn until_answers(&self, port: u16) {
        until("both servers answer", || async { Self::is_replica(port).await.is_some() }).await;
    }

    async fn replica_container(&self) -> String {
        let mut command = Command::from(self.compose_command(&["ps", "-q", "replica"]));
        finish(&mut command, PATIENCE).await.expect("the replica has a container")
    }

    fn network(&self) -> String {
        format!("{}_default", self.project)
    }

    fn compose_command(&self, args: &[&str]) -> std::process::Command {
        let mut command = std::process::Command::new(self.compose[0]);
        command
            .args(&self.compose[1..])
            .args([
                "--file",
                concat!(env!("CARGO_MANIFEST_DIR"), "/docker-compose.yml"),
                "--project-name",
                &self.project,
            ])
            .args(args)
            .env("POSTGRES_IMAGE", &self.image)
            .env("PRIMARY_PORT", self.primary_port.to_string())
            .env("REPLICA_PORT", self.replica_port.to_string())
            .env("DEMO_PASSWORD", "public-demo-password")
            .stdin(Stdio::null());
        command
    }
}

impl Drop for Pair {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let _ = self.compose_command(&["logs", "--no-color", "--tail", "60"]).status();
        }
        // A paused container cannot be stopped by every version.
        let _ = self.compose_command(&["unpause"]).output();
        match self.compose_command(&["down", "--volumes", "--remove-orphans", "--timeout", "1"]).output() {
            Ok(output) if output.status.success() => {}
            left => eprintln!("the pair {} could not be taken down: {left:?}", self.project),
        }
    }
}

/// Polls until `condition` holds.
///
/// # Panics
///
/// If it does not within a minute.
pub(crate) async fn until<F: Future<Output = bool>>(what: &str, mut condition: impl FnMut() -> F) {
    let mut tick = tokio::time::interval(Duration::from_millis(50));
    let wait = async {
        loop {
            tick.tick().await;
            if condition().await {
                return;
            }
        }
    };
    timeout(PATIENCE, wait).await.unwrap_or_else(|_| panic!("waited for a minute until {what}"));
}

/// Compose v2 or v1, whichever is there.
async fn compose_command() -> Option<Vec<&'static str>> {
    for command in [vec!["docker", "compose"], vec!["docker-compose"]] {
        let version = [command.as_slice(), &["version"]].concat();
        if output(&version, PATIENCE).await.is_ok() {
            return Some(command);
        }
    }
    None
}

/// The image to run: the one asked for, the official one if it is here or can be pulled, else one made on this machine.
async fn image() -> String {
    if let Ok(image) = std::env::var("POSTGRES_IMAGE") {
        return image;
    }
    let here = output(&["docker", "image", "inspect", OFFICIAL_IMAGE], PATIENCE).await.is_ok();
    let pulled = || async {
        output(&["docker", "manifest", "inspect", OFFICIAL_IMAGE], REGISTRY_PATIENCE).await.is_ok()
            && output(&["docker", "pull", "--quiet", OFFICIAL_IMAGE], PATIENCE).await.is_ok()
    };
    if here || pulled().await {
        return OFFICIAL_IMAGE.to_owned();
    }
    let made = finish(&mut Command::new(project_file("docker/build-image.sh")), 3 * PATIENCE)
        .await
        .expect("docker/build-image.sh makes an image");
    made.lines().last().expect("it prints the image's name").to_owned()
}

/// Two ports that are free now and that the kernel gives nobody as a source port: a container that is down does not hold its own.
fn free_ports() -> [u16; 2] {
    let mut free = std::iter::repeat_with(|| fastrand::u16(20_000..32_000))
        .filter_map(|port| TcpListener::bind(("127.0.0.1", port)).ok())
        .take(2);
    [(); 2].map(|()| free.next().and_then(|held| held.local_addr().ok()).expect("some port is free").port())
}

fn project_file(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(name)
}

async fn docker(args: &[&str]) -> String {
    output(&[&["docker"], args].concat(), PATIENCE).await.unwrap_or_else(|error| panic!("docker {args:?}: {error}"))
}

/// What a command prints, or why it failed.
async fn output(command: &[&str], patience: Duration) -> Result<String, String> {
    finish(Command::new(command[0]).args(&command[1..]), patience).await
}

async fn finish(command: &mut Command, patience: Duration) -> Result<String, String> {
    let output = command.stdin(Stdio::null()).kill_on_drop(true).output();
    let output = match timeout(patience, output).await {
        Ok(output) => output.map_err(|error| error.to_string())?,
        Err(_) => return Err(format!("no answer within {patience:?}")),
    };
    if output.status.success() {
        Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned())
    } else {
        Err(String::from_utf8_lossy(&output.stderr).trim().to_owned())
    }
}
