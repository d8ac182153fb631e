//! A pair that `pgdetour cluster` holds up in a process of its own.

use std::{fs, process::Stdio, time::Duration};

use tempfile::TempDir;
use tokio::{
    io::{AsyncBufReadExt, BufReader},
    process::{Child, Command},
    time::timeout,
};
use tokio_postgres::NoTls;

const SOON: Duration = Duration::from_secs(60);
const PROGRAM: &str = env!("CARGO_BIN_EXE_pgdetour");

/// A primary and a replica, until dropped.
#[derive(Debug)]
pub(crate) struct Held {
    _child: Child,
    /// The path of the configuration.
    pub(crate) config: String,
    dir: TempDir,
}

impl Held {
    pub(crate) async fn start() -> Self {
        let dir = tempfile::tempdir().expect("a directory can be made");
        let path = |name: &str| dir.path().join(name).to_str().expect("it is text").to_owned();
        let (config, socket) = (path("pair.toml"), path("socket"));
        let mut child = Command::new(PROGRAM)
            .args(["cluster", "--config", &config, "--socket", &socket])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .expect("it starts");
        let mut lines = BufReader::new(child.stderr.take().expect("it is piped")).lines();
        let ready = async {
            let mut said = Vec::new();
            while let Some(line) = lines.next_line().await.expect("it is text") {
                if line.contains("ready") {
                    return;
                }
                said.push(line);
            }
            panic!("the cluster ended: {said:?}");
        };
        timeout(SOON, ready).await.expect("the cluster is ready");
        Self { _child: child, config, dir }
    }

    pub(crate) fn path(&self, name: &str) -> String {
        self.dir.path().join(name).to_str().expect("it is text").to_owned()
    }

    pub(crate) fn write(&self, name: &str, text: &str) -> String {
        let path = self.path(name);
        fs::write(&path, text).expect("the directory is ours");
        path
    }

    /// The shell command that tells the cluster to do something.
    pub(crate) fn command(&self, what: &str) -> String {
        format!("{PROGRAM} cluster --socket {} {what}", self.path("socket"))
    }

    /// A drill of two faults, the second of the primary.
    pub(crate) fn drill_file(&self) -> String {
        let fault = |name: &str, alias: &str| {
            let (inject, repair) = (self.command(&format!("{name} {alias}")), self.command(&format!("repair {alias}")));
            format!("[[fault]]\nname = \"{name}\"\nalias = \"{alias}\"\ninject = \"{inject}\"\nrepair = \"{repair}\"\n")
        };
        format!("config = \"pair.toml\"\n{}{}", fault("kill", "replica"), fault("freeze", "primary"))
    }

    pub(crate) async fn tell(&self, what: &str) -> String {
        let command = self.command(what);
        let output = timeout(SOON, Command::new("sh").args(["-c", &command]).output()).await;
        let output = output.expect("it ends").expect("it starts");
        assert!(output.status.success(), "{what}: {output:?}");
        String::from_utf8(output.stdout).expect("it is text")
    }

    /// How many of its servers run.
    pub(crate) async fn all_run(&self) -> usize {
        self.tell("status").await.lines().filter(|line| line.contains(": runs")).count()
    }

    /// A number that the primary gives.
    pub(crate) async fn number(&self, sql: &str) -> i64 {
        let text = fs::read_to_string(&self.config).expect("it is there");
        let url = text.lines().find_map(|line| line.strip_prefix("url = ")).expect("the primary comes first");
        let (client, connection) = tokio_postgres::connect(url.trim_matches('"'), NoTls).await.expect("it answers");
        tokio::spawn(connection);
        client.query_one(sql, &[]).await.expect("a number").get(0)
    }
}
