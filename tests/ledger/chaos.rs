//! Faults that follow each other, each after so many calls: what a network and a server do to those who write.

use std::{error::Error, fmt, sync::Arc, time::Duration};

use pgdetour::testkit::{Cluster, Direction, Fault, Proxy};
use tokio::{sync::watch, time::timeout};

/// The network to a primary, and the primary itself.
pub(crate) struct Chaos {
    cluster: Arc<Cluster>,
    proxy: Proxy,
    cuts: u32,
    holes: u32,
    terminations: u32,
    crashes: u32,
}

/// So many calls are made under a fault, unless that stops them.
const WAR: u64 = 5;
const LONGEST: Duration = Duration::from_millis(250);

impl Chaos {
    pub(crate) async fn new(cluster: Arc<Cluster>) -> Result<Self, Box<dyn Error>> {
        let primary = cluster.primary();
        let proxy = Proxy::start((primary.host(), primary.port())).await?;
        Ok(Self { cluster, proxy, cuts: 0, holes: 0, terminations: 0, crashes: 0 })
    }

    /// The way through the network.
    pub(crate) fn url(&self) -> String {
        self.cluster.primary().url_at("127.0.0.1", self.proxy.addr().port())
    }

    /// One fault after the other, while calls are made, and so many in `peace` in between.
    pub(crate) async fn reign(&mut self, mut progress: watch::Receiver<u64>, peace: u64) -> Result<(), Box<dyn Error>> {
        loop {
            let begun = *progress.borrow();
            progress.wait_for(|done| *done >= begun + peace).await?;
            self.strike().await?;
            let begun = *progress.borrow();
            // Under some faults no call ends.
            let _ = timeout(LONGEST, progress.wait_for(|done| *done >= begun + WAR)).await;
            self.proxy.set(Fault::None).await?;
        }
    }

    async fn strike(&mut self) -> Result<(), Box<dyn Error>> {
        let primary = self.cluster.primary();
        match fastrand::u32(..40) {
            // An answer that breaks off, mostly that to a COMMIT.
            0..16 => {
                self.cuts += 1;
                let (bytes, direction) = (fastrand::u64(..400), Direction::Down);
                self.proxy.set(Fault::CutAfter { bytes, direction }).await?;
            }
            // A request that breaks off.
            16..22 => {
                self.cuts += 1;
                let (bytes, direction) = (fastrand::u64(..400), Direction::Up);
                self.proxy.set(Fault::CutAfter { bytes, direction }).await?;
            }
            22..26 => {
                self.cuts += 1;
                self.proxy.set(Fault::Reset).await?;
            }
            26..32 => {
                self.holes += 1;
                let direction = [Direction::Up, Direction::Down, Direction::Both][fastrand::usize(..3)];
                self.proxy.set(Fault::BlackHole { direction }).await?;
            }
            32..38 => {
                self.terminations += 1;
                primary.terminate_backends().await?;
            }
            38 => {
                self.crashes += 1;
                // All sessions end, and the server recovers. There may be none to kill.
                let _ = primary.kill_one_backend().await;
            }
            _ => {
                self.crashes += 1;
                primary.kill().await?;
                primary.start().await?;
            }
        }
        Ok(())
    }

    /// Peace for good.
    pub(crate) async fn end(&self) -> Result<(), Box<dyn Error>> {
        Ok(self.proxy.set(Fault::None).await?)
    }
}

impl fmt::Display for Chaos {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { cuts, holes, terminations, crashes, .. } = self;
        write!(f, "{cuts} cuts, {holes} black holes, {terminations} terminations, {crashes} crashes")
    }
}
