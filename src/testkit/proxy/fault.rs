//! What a proxy can do to the traffic.

use std::time::Duration;

/// Which way bytes go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    /// From the client to the server.
    Up,
    /// From the server to the client.
    Down,
    /// Both ways.
    Both,
}

impl Direction {
    /// Whether bytes that go `way` are meant.
    pub(super) fn covers(self, way: Self) -> bool {
        self == Self::Both || self == way
    }
}

/// A fault of the network; in force from when [`Proxy::set`](super::Proxy::set) is back until the next one is set.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Fault {
    /// Bytes pass.
    #[default]
    None,
    /// The port is closed: connecting is refused. Present connections go on.
    Refuse,
    /// Present connections are reset (RST), on both sides, and so are new ones once they are made.
    Reset,
    /// New connections are made and nothing answers, as with a stopped postmaster; the upstream does not hear of them. Present connections go
    /// on. When the fault ends, those that waited are served.
    Hang,
    /// New connections are made and closed at once. Present connections go on.
    AcceptClose,
    /// No byte passes, and no connection ends, in that direction, for new connections and present ones. When the fault ends, what was sent
    /// meanwhile arrives, as TCP would send it again.
    BlackHole {
        /// In which direction bytes are lost.
        direction: Direction,
    },
    /// Each piece of data passes that much later, in each direction.
    Delay(Duration),
    /// Bytes pass at that speed, per connection and direction.
    Throttle {
        /// At least 1.
        bytes_per_second: u32,
    },
    /// Bytes are passed on in pieces of that size, each in a segment of its own.
    Slice {
        /// At least 1.
        bytes: usize,
    },
    /// Each connection is closed, on both sides, when that many bytes have passed since the fault was set.
    CutAfter {
        /// How many bytes still pass; 0 closes at the first.
        bytes: u64,
        /// Which bytes are counted and cut; bytes the other way pass.
        direction: Direction,
    },
}

impl Fault {
    /// Whether bytes that go `way` stay where they are.
    pub(super) fn holds(self, way: Direction) -> bool {
        matches!(self, Self::BlackHole { direction } if direction.covers(way))
    }

    /// How many bytes to pass on at once, and how long to wait before.
    pub(super) fn pace(self) -> (usize, Duration) {
        match self {
            Self::Delay(delay) => (usize::MAX, delay),
            Self::Slice { bytes } => (bytes.max(1), Duration::ZERO),
            Self::Throttle { bytes_per_second } => {
                let speed = bytes_per_second.max(1);
                // A fiftieth of a second's worth: timers are good to a millisecond.
                let piece = (speed / 50).max(1);
                (piece as usize, Duration::from_secs(1) * piece / speed)
            }
            Self::None
            | Self::Refuse
            | Self::Reset
            | Self::Hang
            | Self::AcceptClose
            | Self::BlackHole { .. }
            | Self::CutAfter { .. } => (usize::MAX, Duration::ZERO),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_throttle_waits_as_long_as_its_piece_takes() {
        assert_eq!(Fault::Throttle { bytes_per_second: 1_000 }.pace(), (20, Duration::from_millis(20)));
        assert_eq!(Fault::Throttle { bytes_per_second: 10 }.pace(), (1, Duration::from_millis(100)));
        assert_eq!(Fault::Throttle { bytes_per_second: 0 }.pace(), (1, Duration::from_secs(1)));
    }

    #[test]
    fn a_black_hole_holds_its_own_direction() {
        let up = Fault::BlackHole { direction: Direction::Up };
        assert!(up.holds(Direction::Up) && !up.holds(Direction::Down));
        assert!(Fault::BlackHole { direction: Direction::Both }.holds(Direction::Down));
    }
}
