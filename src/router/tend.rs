//! The upkeep of one pool: idle connections go when its server does, and a detour's are there before they are needed and go
//! when they no longer are.

use std::{sync::Arc, time::Duration};

use super::stop::Stop;
use crate::{
    clock,
    health::Need,
    plan::Candidate,
    pool::{Backend, Server},
};

/// How often the connections of a detour are counted.
const COUNT: Duration = Duration::from_secs(1);

/// How long after an outage a detour keeps more connections than it does in normal times.
const RELIEF: Duration = Duration::from_secs(60);

/// Tends the pool of an alias's own server until its task is aborted.
pub(super) async fn tend_own<B: Backend>(stop: Stop<B>) {
    let mut seen = stop.belief().generation();
    loop {
        stop.server.turned(seen).await;
        // Before the eviction: what turns during it is seen by the next round.
        seen = stop.belief().generation();
        stop.pool.evict();
    }
}

/// Tends the pool of a detour until its task is aborted: `idle` connections stay open while its server is well, and those
/// beyond go when `relieved`, the servers it stands in for, have been well for a while.
pub(super) async fn tend_detour<B: Backend>(stop: Stop<B>, idle: usize, relieved: Vec<Arc<Server>>) {
    let mut needed = clock::now();
    loop {
        let belief = stop.belief();
        let now = clock::now();
        if !relieved.iter().all(|server| server.cell.belief().is_clear(Need::Reads)) {
            needed = now;
        } else if now > needed + RELIEF && stop.pool.status().idle > idle {
            stop.pool.evict();
        }
        if idle > 0 && belief.is_clear(Need::Reads) && belief.admits() {
            // A failed connect has raised its doubt by itself; the next count tries again.
            let _ = stop.pool.warm(idle).await;
        }
        tokio::select! {
            biased;
            () = stop.server.turned(belief.generation()) => stop.pool.evict(),
            () = tokio::time::sleep(COUNT) => {}
        }
    }
}
