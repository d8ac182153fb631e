//! A program of the guides, run as a process of its own.

use std::{
    env, fs,
    net::SocketAddr,
    process::Stdio,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use pgdetour::testkit::Cluster;
use tempfile::TempDir;
use tokio::{
    io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader},
    net::TcpStream,
    process::{Child, Command},
    sync::Notify,
    time::timeout,
};

use super::{SOON, Tested};

/// How long a client waits for a page: a bare bb8 pool would have it wait for half a minute.
const PATIENCE: Duration = Duration::from_secs(5);

/// The variable that says which program this binary is to be.
pub(crate) const PROGRAM: &str = "ADOPT_PROGRAM";

/// A service that runs, and what it has said.
pub(crate) struct Running {
    pub(crate) address: SocketAddr,
    said: Arc<Said>,
    _child: Child,
    _directory: TempDir,
}

#[derive(Default)]
struct Said {
    lines: Mutex<Vec<String>>,
    more: Notify,
}

impl Running {
    /// Starts it as a reader of the guide does: where `pgdetour.toml` is, with the addresses of this pair.
    pub(crate) async fn start(program: &str, cluster: &Cluster, configuration: &str) -> Tested<Self> {
        let directory = tempfile::tempdir()?;
        fs::write(directory.path().join("pgdetour.toml"), configuration)?;
        let (primary, replica) = (cluster.primary().url(), cluster.replica(0).url());
        let mut child = Command::new(env::current_exe()?)
            .args(["--exact", "program", "--ignored", "--nocapture"])
            .current_dir(directory.path())
            .envs([(PROGRAM, program), ("LISTEN", "127.0.0.1:0"), ("NO_COLOR", "1"), ("RUST_LOG", "info")])
            .envs([("PRIMARY_URL", &primary), ("REPLICA_URL", &replica)])
            .envs([("PGDETOUR_ALIAS__PRIMARY__URL", &primary), ("PGDETOUR_ALIAS__REPLICA__URL", &replica)])
            // The guide's pair may take its time.
            .envs([("PGDETOUR_OUTAGE_PING_FREQUENCY", "200ms")])
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()?;
        let said = Arc::new(Said::default());
        let (heard, output) = (Arc::clone(&said), child.stdout.take().ok_or("no output")?);
        tokio::spawn(async move {
            let mut lines = BufReader::new(output).lines();
            while let Ok(Some(line)) = lines.next_line().await {
                heard.lines.lock().unwrap_or_else(PoisonError::into_inner).push(line);
                heard.more.notify_waiters();
            }
        });
        let listening = said.line("listening on ").await.map_err(|error| format!("{program}: {error}"))?;
        let address = listening.rsplit(' ').next().ok_or("no address")?.parse()?;
        Ok(Self { address, said, _child: child, _directory: directory })
    }

    /// Waits until its log has a line with this in it.
    pub(crate) async fn says(&self, what: &str) -> Tested<String> {
        self.said.line(what).await
    }

    /// What it has logged of the router's.
    pub(crate) fn log(&self) -> Vec<String> {
        let lines = self.said.lines.lock().unwrap_or_else(PoisonError::into_inner);
        lines.iter().filter(|line| line.contains("pgdetour:")).cloned().collect()
    }

    /// The page, or what it says in place of it.
    pub(crate) async fn list(&self) -> Result<String, String> {
        ask(self.address, "GET /orders HTTP/1.0\r\n\r\n".to_owned())
            .await
            .unwrap_or_else(|error| Err(error.to_string()))
    }

    pub(crate) async fn place(&self, item: &str) -> Result<String, String> {
        let request = format!(
            "POST /orders HTTP/1.0\r\nContent-Type: text/plain\r\nContent-Length: {}\r\n\r\n{item}",
            item.len()
        );
        ask(self.address, request).await.unwrap_or_else(|error| Err(error.to_string()))
    }
}

impl Said {
    fn find(&self, what: &str) -> Option<String> {
        let lines = self.lines.lock().unwrap_or_else(PoisonError::into_inner);
        lines.iter().find(|line| line.contains(what)).cloned()
    }

    async fn line(&self, what: &str) -> Tested<String> {
        let found = async {
            loop {
                let more = self.more.notified();
                if let Some(line) = self.find(what) {
                    return line;
                }
                more.await;
            }
        };
        timeout(SOON, found).await.map_err(|_| format!("never said {what:?}, but {:#?}", self.lines).into())
    }
}

/// The body of a good answer, or the head and body of a bad one.
async fn ask(address: SocketAddr, request: String) -> Tested<Result<String, String>> {
    let exchange = async {
        let mut socket = TcpStream::connect(address).await?;
        socket.write_all(request.as_bytes()).await?;
        let mut answer = String::new();
        socket.read_to_string(&mut answer).await?;
        std::io::Result::Ok(answer)
    };
    let answer = timeout(PATIENCE, exchange).await??;
    let (head, body) = answer.split_once("\r\n\r\n").ok_or("no answer")?;
    let status = head.lines().next().unwrap_or_default();
    let good = status.split(' ').nth(1).is_some_and(|code| code.starts_with('2'));
    Ok(if good { Ok(body.to_owned()) } else { Err(format!("{head}: {body}")) })
}
