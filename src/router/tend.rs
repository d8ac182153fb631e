//! The upkeep of one pool: idle connections go when its server does or when they are too old, and a detour's are there before they are needed and go
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

/// How often the connections of an own server are looked through for those that are too old.
const LOOK: Duration = Duration::from_secs(10);

/// How long after an outage a detour keeps more connections than it does in normal times.
const RELIEF: Duration = Duration::from_secs(60);

/// Tends the pool of an alias's own server until its task is aborted.
pub(super) async fn tend_own<B: Backend>(stop: Stop<B>) {
    let mut seen = stop.belief().generation();
    loop {
        let drained = stop.belief().is_drained();
        if drained {
            // What comes back while it is drained goes as well.
            stop.pool.evict();
        }
        tokio::select! {
            biased;
            () = stop.server.turned(seen) => {
                // Before the eviction: what turns during it is seen by the next round.
                seen = stop.belief().generation();
                stop.pool.evict();
            }
            () = stop.server.drains(!drained) => {}
            () = tokio::time::sleep(if drained { COUNT } else { LOOK }) => stop.pool.evict_spent(),
        }
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
        }
        // While its server is drained there is nothing to be had ready.
        if belief.is_drained() || now > needed + RELIEF && stop.pool.status().idle > idle {
            stop.pool.evict();
        }
        if idle > 0 && belief.is_clear(Need::Reads) && belief.admits() {
            // A failed connect has raised its doubt by itself; the next count tries again.
            let _ = stop.pool.warm(idle).await;
        }
        tokio::select! {
            biased;
            () = stop.server.turned(belief.generation()) => stop.pool.evict(),
            () = tokio::time::sleep(COUNT) => stop.pool.evict_spent(),
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::sync::Notify;

    use super::*;
    use crate::{config::AliasName, router::fake::FakePool};

    fn stop() -> Stop<FakePool> {
        let server = Server::new(AliasName::new("db").unwrap(), "db".to_owned(), Arc::new(Notify::new()));
        Stop::new(&Arc::new(server), &Arc::new(FakePool::new(4)))
    }

    #[tokio::test(start_paused = true)]
    async fn idle_connections_that_are_too_old_go_and_the_others_stay() {
        let (own, detour) = (stop(), stop());
        tokio::spawn(tend_own(own.clone()));
        tokio::spawn(tend_detour(detour.clone(), 0, Vec::new()));
        for Stop { pool, .. } in [own, detour] {
            let lent = (pool.acquire().await.unwrap(), pool.acquire().await.unwrap());
            pool.age();
            let young = pool.acquire().await.unwrap();
            drop((lent, young));
            tokio::time::sleep(LOOK * 2).await;
            let left = pool.status();
            assert_eq!((left.size, left.idle), (1, 1));
        }
    }
}
