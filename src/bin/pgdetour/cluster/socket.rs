//! How a running cluster is told what to do: one line to a Unix socket, and one answer.

use std::{
    fs, io,
    os::unix::fs::{FileTypeExt, PermissionsExt},
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use tokio::{
    io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader},
    net::{UnixListener, UnixStream},
    task::JoinSet,
    time::timeout,
};

use super::hold::Hold;
use crate::safe::safe;

/// The longest line.
const LONGEST: u64 = 200;
/// How long somebody who connects may take to say what he wants.
const TO_ASK: Duration = Duration::from_secs(5);
/// Longer than the test kit takes for anything.
const TO_ANSWER: Duration = Duration::from_secs(90);

/// A socket in the file system; its file goes when this is dropped.
#[derive(Debug)]
pub(super) struct Socket {
    listener: UnixListener,
    path: PathBuf,
}

impl Socket {
    /// Listens, for this user alone. What a cluster left behind that was killed is replaced.
    pub(super) fn listen(path: &Path) -> io::Result<Self> {
        if fs::symlink_metadata(path).is_ok_and(|file| file.file_type().is_socket()) {
            if std::os::unix::net::UnixStream::connect(path).is_ok() {
                return Err(io::Error::new(io::ErrorKind::AddrInUse, "another cluster is running there"));
            }
            fs::remove_file(path)?;
        }
        let listener = UnixListener::bind(path)?;
        fs::set_permissions(path, fs::Permissions::from_mode(0o600))?;
        Ok(Self { listener, path: path.to_owned() })
    }

    /// Does what it is told, until it is dropped.
    pub(super) async fn serve(&self, hold: &Arc<Hold>) -> io::Error {
        let mut serving = JoinSet::new();
        loop {
            match self.listener.accept().await {
                Ok((stream, _)) => drop(serving.spawn(answer(stream, Arc::clone(hold)))),
                Err(error) => return error,
            }
            while serving.try_join_next().is_some() {}
        }
    }
}

impl Drop for Socket {
    fn drop(&mut self) {
        // An error says that somebody else has removed it.
        let _ = fs::remove_file(&self.path);
    }
}

async fn answer(stream: UnixStream, hold: Arc<Hold>) {
    let mut stream = BufReader::new(stream);
    let mut line = String::new();
    let asked = timeout(TO_ASK, (&mut stream).take(LONGEST).read_line(&mut line)).await;
    let Ok(Ok(1..)) = asked else { return };
    let answer = match hold.obey(&line).await {
        Ok(done) => format!("ok {done}\n"),
        Err(why) => format!("error {why}\n"),
    };
    // Who does not wait for the answer does not want it.
    let _ = stream.get_mut().write_all(answer.as_bytes()).await;
}

/// Tells a running cluster what to do.
pub(super) async fn tell(path: &Path, line: &str) -> Result<Result<String, String>, io::Error> {
    let told = async {
        let mut stream = UnixStream::connect(path).await?;
        stream.write_all(format!("{line}\n").as_bytes()).await?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await?;
        Ok::<_, io::Error>(answer)
    };
    let answer = timeout(TO_ANSWER, told).await.map_err(|_| io::Error::from(io::ErrorKind::TimedOut))??;
    let text = |text: &str| text.lines().map(safe).collect::<Vec<_>>().join("\n");
    match answer.split_once(' ') {
        Some(("ok", done)) => Ok(Ok(text(done))),
        Some(("error", why)) => Ok(Err(text(why))),
        _ => Ok(Err("the cluster ended before it answered".to_owned())),
    }
}
