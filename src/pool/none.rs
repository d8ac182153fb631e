//! The back end of a build without one: it cannot exist, so that a router without pools does not compile into a surprise.

use std::convert::Infallible;

use super::{AcquireError, Backend, PoolStatus};

/// No back end is built in. Name yours: `Router<MyBackend>`.
#[derive(Debug)]
pub enum NoBackend {}

impl Backend for NoBackend {
    type Connection = Infallible;
    type Error = AcquireError;

    async fn acquire(&self) -> Result<Infallible, AcquireError> {
        match *self {}
    }

    async fn verify(connection: &Infallible) -> Result<(), AcquireError> {
        match *connection {}
    }

    fn is_closed(connection: &Infallible) -> bool {
        match *connection {}
    }

    fn discard(connection: Infallible) {
        match connection {}
    }

    fn evict(&self) {
        match *self {}
    }

    fn status(&self) -> PoolStatus {
        match *self {}
    }

    fn close(&self) {
        match *self {}
    }
}
