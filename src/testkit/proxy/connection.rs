//! One connection through the proxy, from its acceptance to its end.

use std::io;
use std::net::SocketAddr;
use std::sync::{Mutex, PoisonError};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::net::tcp::{ReadHalf, WriteHalf};
use tokio::sync::watch;
use tokio::task::yield_now;
use tokio::time::sleep;

use super::Setting;
use super::fault::{Direction, Fault};

/// How many bytes are taken at once.
const PIECE: usize = 64 * 1024;

/// Serves one client until either side, or a fault, ends it. A fault that only concerns new connections is looked at once, here.
pub(super) async fn serve(client: TcpStream, upstream: SocketAddr, mut faults: watch::Receiver<Setting>) {
    let Ok(fault) = faults.wait_for(|now| now.fault != Fault::Hang).await.map(|now| now.fault) else { return };
    match fault {
        Fault::AcceptClose => return,
        Fault::Reset => return reset(&client),
        Fault::None
        | Fault::Refuse
        | Fault::Hang
        | Fault::BlackHole { .. }
        | Fault::Delay(_)
        | Fault::Throttle { .. }
        | Fault::Slice { .. }
        | Fault::CutAfter { .. } => {}
    }
    let Ok(mut server) = TcpStream::connect(upstream).await else {
        // The nearest that can be had to a refusal, now that the client is connected.
        return reset(&client);
    };
    let mut client = client;
    // Without it what was sent in pieces would be put together again.
    let _ = client.set_nodelay(true).and_then(|()| server.set_nodelay(true));
    let mut orders = faults.clone();
    tokio::select! {
        biased;
        Ok(_) = orders.wait_for(|now| now.fault == Fault::Reset) => {}
        () = pass(&mut client, &mut server, faults) => return,
    }
    reset(&client);
    reset(&server);
}

/// Makes the end of a connection an RST.
fn reset(stream: &TcpStream) {
    // A socket that is gone already needs none.
    let _ = stream.set_zero_linger();
}

/// Passes bytes both ways until both have ended, or one has failed.
async fn pass(client: &mut TcpStream, server: &mut TcpStream, faults: watch::Receiver<Setting>) {
    let (from_client, to_client) = client.split();
    let (from_server, to_server) = server.split();
    let budget = Budget::default();
    let up = Flow { way: Direction::Up, faults: faults.clone(), budget: &budget };
    let down = Flow { way: Direction::Down, faults, budget: &budget };
    // An error is how a cut, or the end of a peer, ends the other direction as well.
    let _ = tokio::try_join!(up.run(from_client, to_server), down.run(from_server, to_client));
}

/// What may still pass of a connection that is going to be cut, and the number of the setting that said so.
#[derive(Debug, Default)]
struct Budget(Mutex<Option<(u64, u64)>>);

impl Budget {
    /// How many bytes may pass; the count begins when the setting is first seen. None: it counts no bytes that go this way.
    fn left(&self, setting: Setting, way: Direction) -> Option<u64> {
        let Fault::CutAfter { bytes, direction } = setting.fault else { return None };
        let mut counted = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let left = counted.filter(|(number, _)| *number == setting.number).map_or(bytes, |(_, left)| left);
        *counted = Some((setting.number, left));
        direction.covers(way).then_some(left)
    }

    /// Whether the connection has used it up, now that `bytes` more have passed.
    fn spend(&self, setting: Setting, way: Direction, bytes: usize) -> bool {
        let Some(left) = self.left(setting, way) else { return false };
        let left = left.saturating_sub(bytes as u64);
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some((setting.number, left));
        left == 0
    }
}

/// One direction of a connection.
struct Flow<'a> {
    way: Direction,
    faults: watch::Receiver<Setting>,
    budget: &'a Budget,
}

impl Flow<'_> {
    async fn run(mut self, mut from: ReadHalf<'_>, mut to: WriteHalf<'_>) -> io::Result<()> {
        let mut buffer = vec![0; PIECE];
        loop {
            self.open().await?;
            let read = tokio::select! {
                biased;
                changed = self.faults.changed() => { changed.map_err(io::Error::other)?; continue }
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
        let setting = self.faults.wait_for(|setting| !setting.fault.holds(way)).await.map_err(io::Error::other)?;
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
                    changed = self.faults.changed() => { changed.map_err(io::Error::other)?; continue }
                    () = sleep(wait) => {}
                }
            }
            let left = self.budget.left(setting, self.way).unwrap_or(u64::MAX);
            let size = piece.min(bytes.len()).min(usize::try_from(left).unwrap_or(usize::MAX));
            to.write_all(&bytes[..size]).await?;
            if self.budget.spend(setting, self.way, size) {
                return Err(io::ErrorKind::ConnectionAborted.into());
            }
            bytes = &bytes[size..];
            yield_now().await;
        }
        Ok(())
    }
}
