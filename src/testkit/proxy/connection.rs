//! One connection through the proxy, from its acceptance to its end.

use std::io;
use std::net::SocketAddr;
use std::sync::{Mutex, PoisonError};

use tokio::io::{AsyncReadExt, AsyncWriteExt, copy, sink};
use tokio::net::TcpStream;
use tokio::net::tcp::{ReadHalf, WriteHalf};
use tokio::sync::watch;
use tokio::task::yield_now;
use tokio::time::sleep;

use super::fault::{Direction, Fault};
use super::setting::Setting;

/// How many bytes are taken at once.
const PIECE: usize = 64 * 1024;

/// One that has come in.
pub(super) struct Connection {
    settings: watch::Sender<Setting>,
    /// The setting that was in force then.
    born: u64,
    upstream: SocketAddr,
}

impl Connection {
    pub(super) fn new(settings: watch::Sender<Setting>, upstream: SocketAddr) -> Self {
        let born = settings.borrow().number;
        Self { settings, born, upstream }
    }

    /// Serves its client until either side, or a fault, ends it.
    pub(super) async fn serve(self, mut client: TcpStream) {
        let mut orders = self.settings.subscribe();
        // A fault that only concerns new connections is looked at once, here.
        let Ok(setting) = orders.wait_for(|now| !now.holds_new()).await.map(|now| *now) else { return };
        if setting.fault == Fault::AcceptClose || setting.ends(self.born) {
            return;
        }
        if setting.resets(self.born) {
            return reset(&client);
        }
        let Ok(mut server) = TcpStream::connect(self.upstream).await else {
            // The nearest that can be had to a refusal, now that the client is connected.
            return reset(&client);
        };
        // Without it what was sent in pieces would be put together again.
        let _ = client.set_nodelay(true).and_then(|()| server.set_nodelay(true));
        tokio::select! {
            biased;
            Ok(_) = orders.wait_for(|now| now.resets(self.born)) => {}
            () = self.pass(&mut client, &mut server) => return,
        }
        reset(&client);
        reset(&server);
    }

    /// Passes bytes both ways until both have ended, or one has failed.
    async fn pass(&self, client: &mut TcpStream, server: &mut TcpStream) {
        let (from_client, to_client) = client.split();
        let (from_server, to_server) = server.split();
        let passed = Passed::default();
        let up = Flow::new(Direction::Up, self, &passed);
        let down = Flow::new(Direction::Down, self, &passed);
        // An error is how a cut, or the end of a peer, ends the other direction as well.
        let _ = tokio::try_join!(up.run(from_client, to_server), down.run(from_server, to_client));
    }

    /// Takes note that this setting cuts a connection; whether it is the first.
    fn cut(&self, setting: Setting) -> bool {
        self.settings.send_if_modified(|now| {
            let first = now.number == setting.number && !now.cut;
            now.cut |= first;
            first
        })
    }
}

/// Makes the end of a connection an RST.
fn reset(stream: &TcpStream) {
    // A socket that is gone already needs none.
    let _ = stream.set_zero_linger();
}

/// How many bytes have passed under a setting that counts them, both ways together, and the number of that setting.
#[derive(Debug, Default)]
struct Passed(Mutex<(u64, u64)>);

impl Passed {
    /// Lets as many more of so many pass as are still to pass before `most`; whether that is reached.
    fn pass(&self, number: u64, size: usize, most: u64) -> (usize, bool) {
        let mut passed = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if passed.0 != number {
            *passed = (number, 0);
        }
        let size = size.min(usize::try_from(most - passed.1).unwrap_or(usize::MAX));
        passed.1 += size as u64;
        (size, passed.1 == most)
    }
}

/// One direction of a connection.
struct Flow<'a> {
    way: Direction,
    connection: &'a Connection,
    now: watch::Receiver<Setting>,
    passed: &'a Passed,
    /// The end of what has passed under a setting that looks for something, and the number of that setting.
    last: (u64, Vec<u8>),
}

impl<'a> Flow<'a> {
    fn new(way: Direction, connection: &'a Connection, passed: &'a Passed) -> Self {
        Self { way, connection, now: connection.settings.subscribe(), passed, last: Default::default() }
    }

    async fn run(mut self, mut from: ReadHalf<'_>, mut to: WriteHalf<'_>) -> io::Result<()> {
        let mut buffer = vec![0; PIECE];
        loop {
            if self.open().await?.ends(self.connection.born) && self.way == Direction::Down {
                to.shutdown().await?;
                return copy(&mut from, &mut sink()).await.map(drop);
            }
            let read = tokio::select! {
                biased;
                changed = self.now.changed() => { changed.map_err(io::Error::other)?; continue }
                read = from.read(&mut buffer) => read?,
            };
            if read == 0 {
                self.open().await?;
                return to.shutdown().await;
            }
            self.forward(&buffer[..read], &mut to).await?;
        }
    }

    /// Waits until bytes may pass, and tells the setting under which they do.
    async fn open(&mut self) -> io::Result<Setting> {
        let way = self.way;
        let setting = self.now.wait_for(|setting| !setting.fault.holds(way)).await.map_err(io::Error::other)?;
        Ok(*setting)
    }

    async fn forward(&mut self, mut bytes: &[u8], to: &mut WriteHalf<'_>) -> io::Result<()> {
        while !bytes.is_empty() {
            let setting = self.open().await?;
            let (piece, wait) = setting.fault.pace();
            if !wait.is_zero() {
                // A new fault holds for all that has not been written yet.
                tokio::select! {
                    biased;
                    changed = self.now.changed() => { changed.map_err(io::Error::other)?; continue }
                    () = sleep(wait) => {}
                }
            }
            let (size, cut) = self.pass(setting, &bytes[..piece.min(bytes.len())]);
            if setting.fault.garbles(self.way) {
                to.write_all(&bytes[..size].iter().map(|byte| !byte).collect::<Vec<_>>()).await?;
            } else {
                to.write_all(&bytes[..size]).await?;
            }
            if cut {
                return Err(io::ErrorKind::ConnectionAborted.into());
            }
            bytes = &bytes[size..];
            yield_now().await;
        }
        Ok(())
    }

    /// How many of these bytes may pass, and whether the connection is cut after them.
    fn pass(&mut self, setting: Setting, bytes: &[u8]) -> (usize, bool) {
        match setting.fault {
            Fault::CutAfter { bytes: most, direction } if direction.covers(self.way) => {
                let (size, cut) = self.passed.pass(setting.number, bytes.len(), most);
                if cut {
                    self.connection.cut(setting);
                }
                (size, cut)
            }
            Fault::CutAt { bytes: wanted, direction } if direction.covers(self.way) => {
                if self.last.0 != setting.number {
                    self.last = (setting.number, Vec::new());
                }
                match before_the_last(&mut self.last.1, bytes, wanted) {
                    Some(size) if self.connection.cut(setting) => (size, true),
                    _ => (bytes.len(), false),
                }
            }
            _ => (bytes.len(), false),
        }
    }
}

/// How many of `bytes` may pass before the last of those that are looked for, if these are complete with them. `last` is the end of
/// what has passed before.
fn before_the_last(last: &mut Vec<u8>, bytes: &[u8], wanted: &[u8]) -> Option<usize> {
    let keep = wanted.len().saturating_sub(1);
    let before = last.len();
    last.extend(bytes);
    let found = last.windows(wanted.len().max(1)).position(|window| window.starts_with(wanted));
    last.drain(..last.len().saturating_sub(keep));
    Some((found? + keep).saturating_sub(before))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_looked_for_is_found_however_it_is_sliced() {
        let sent = b"COMMIT and COMMIT\0 and more";
        for first in 0..=sent.len() {
            let (one, other) = sent.split_at(first);
            let mut last = Vec::new();
            let passed = [one, other].into_iter().try_fold(0, |passed, piece| {
                before_the_last(&mut last, piece, b"COMMIT\0")
                    .map_or(Ok(passed + piece.len()), |size| Err(passed + size))
            });
            assert_eq!(passed, Err(17), "{first}");
        }
        assert_eq!(before_the_last(&mut Vec::new(), b"COMMIT", b"COMMIT\0"), None);
        assert_eq!(before_the_last(&mut Vec::new(), b"x", b""), Some(0));
    }
}
