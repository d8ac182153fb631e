//! The upkeep of one pool: idle connections go when its server does, and a detour's are there before they are needed.

use std::time::Duration;

use super::line::Stop;
use crate::{health::Need, plan::Candidate, pool::Backend};

/// How often the connections of a warm detour are counted.
const COUNT: Duration = Duration::from_secs(1);

/// Tends one pool until its task is aborted; keeps `idle` connections open while the server is well.
pub(super) async fn tend<B: Backend>(stop: Stop<B>, idle: usize) {
    loop {
        let belief = stop.belief();
        if idle > 0 && belief.is_clear(Need::Reads) && belief.admits() {
            // A failed connect has raised its doubt by itself; the next count tries again.
            let _ = stop.pool.warm(idle).await;
        }
        tokio::select! {
            () = stop.server.turned(belief.generation()) => stop.pool.evict(),
            () = tokio::time::sleep(COUNT), if idle > 0 => {}
        }
    }
}
