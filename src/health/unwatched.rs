//! The health of what has no connection to be watched: each ping goes over one of its own, as those of services do.

use super::machine::Health;

impl Health {
    /// The same without a watched connection.
    #[must_use]
    pub fn unwatched(mut self) -> Self {
        self.keeps = false;
        self
    }
}
