//! Faults that follow each other, each after so many calls: what a network and a server do to those who write.

use std::{
    error::Error,
    fmt,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU32, Ordering},
    },
    time::Duration,
};

use pgdetour::testkit::{Cluster, Direction, Fault, Proxy};
use tokio::{sync::watch, time::timeout};

/// The network to a primary, and the primary itself.
pub(crate) struct Chaos {
    cluster: Arc<Cluster>,
    ambush: Arc<Ambush>,
    cuts: u32,
    holes: u32,
    terminations: u32,
    crashes: u32,
}

/// A cut that waits for a write to be about to commit.
pub(crate) struct Ambush {
    proxy: Proxy,
    laid: AtomicBool,
    sprung: AtomicU32,
}

impl Ambush {
    /// A write is about to commit: if this waits for one, the answers break off, mostly in the one to its COMMIT.
    pub(crate) async fn meet(&self) -> Result<(), Box<dyn Error + Send + Sync>> {
        if self.laid.swap(false, Ordering::Relaxed) {
            self.sprung.fetch_add(1, Ordering::Relaxed);
            // What goes ahead of the COMMIT is answered by some 100 bytes.
            let (bytes, direction) = (fastrand::u64(..120), Direction::Down);
            self.proxy.set(Fault::CutAfter { bytes, direction }).await?;
        }
        Ok(())
    }
}

/// So many calls are made under a fault, unless that stops them.
const WAR: u64 = 5;
const LONGEST: Duration = Duration::from_millis(250);

impl Chaos {
    pub(crate) async fn new(cluster: Arc<Cluster>) -> Result<Self, Box<dyn Error>> {
        let primary = cluster.primary();
        let proxy = Proxy::start((primary.host(), primary.port())).await?;
        let ambush = Arc::new(Ambush { proxy, laid: AtomicBool::new(false), sprung: AtomicU32::new(0) });
        Ok(Self { cluster, ambush, cuts: 0, holes: 0, terminations: 0, crashes: 0 })
    }

    pub(crate) fn ambush(&self) -> Arc<Ambush> {
        Arc::clone(&self.ambush)
    }

    /// The way through the network.
    pub(crate) fn url(&self) -> String {
        self.cluster.primary().url_at("127.0.0.1", self.ambush.proxy.addr().port())
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
            self.end().await?;
        }
    }

    async fn strike(&mut self) -> Result<(), Box<dyn Error>> {
        let (primary, proxy) = (self.cluster.primary(), &self.ambush.proxy);
        match fastrand::u32(..40) {
            0..10 => self.ambush.laid.store(true, Ordering::Relaxed),
            // An answer that breaks off.
            10..16 => {
                self.cuts += 1;
                let (bytes, direction) = (fastrand::u64(..400), Direction::Down);
                proxy.set(Fault::CutAfter { bytes, direction }).await?;
            }
            // A request that breaks off.
            16..22 => {
                self.cuts += 1;
                let (bytes, direction) = (fastrand::u64(..400), Direction::Up);
                proxy.set(Fault::CutAfter { bytes, direction }).await?;
            }
            22..26 => {
                self.cuts += 1;
                proxy.set(Fault::Reset).await?;
            }
            26..32 => {
                self.holes += 1;
                let direction = [Direction::Up, Direction::Down, Direction::Both][fastrand::usize(..3)];
                proxy.set(Fault::BlackHole { direction }).await?;
            }
            32..38 => {
                self.terminations += 1;
                // It may be recovering from a crash.
                let _ = primary.terminate_backends().await;
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
        self.ambush.laid.store(false, Ordering::Relaxed);
        Ok(self.ambush.proxy.set(Fault::None).await?)
    }
}

impl fmt::Display for Chaos {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { ambush, cuts, holes, terminations, crashes, .. } = self;
        let commits = ambush.sprung.load(Ordering::Relaxed);
        write!(
            f,
            "{commits} cuts at a COMMIT, {cuts} others, {holes} black holes, {terminations} terminations, {crashes} crashes"
        )
    }
}
