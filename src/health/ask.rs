//! What people may ask of a server's health: a ping, whatever the cadence says.

use std::time::Instant;

use super::{machine::Health, signal::Over};

impl Health {
    /// Brings the next ping forward to now, over a fresh connection. While one is under way it is that one.
    pub fn ping_now(&mut self, now: Instant) {
        self.next_over = Over::Fresh;
        self.due = self.due.min(now);
    }
}
