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
    /// Present connections are reset (RST), on both sides. New ones pass.
    ResetPresent,
    /// The client of each present connection is told that the server has ended it (FIN): what it still sends arrives, and no
    /// answer comes back. New connections pass.
    EndPresent,
    /// Connecting is not answered, as where a firewall drops what comes: nobody is refused, and no connection is made. Present
    /// connections go on. When the fault ends, whoever goes on trying is served.
    Ignore,
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
    /// The first connection on which these bytes go is closed, on both sides, just before the last of them; those before it
    /// have passed. Then new connections wait as with [`Fault::Hang`], until the next fault is set, and all others go on:
    /// what the cut has left can be looked at, and more can be done, before anybody connects again.
    /// [`Proxy::until_cut`](super::Proxy::until_cut) tells when. `b"COMMIT\0"` downwards is PostgreSQL's answer to a `COMMIT`.
    CutAt {
        /// What goes by since the fault was set, in however many pieces; if it is empty, any byte is it.
        bytes: &'static [u8],
        /// On which way.
        direction: Direction,
    },
    /// Every bit that the server sends arrives as its opposite.
    Garble,
}

impl Fault {
    /// Whether bytes that go `way` stay where they are.
    pub(super) fn holds(self, way: Direction) -> bool {
        matches!(self, Self::BlackHole { direction } if direction.covers(way))
    }

    /// Whether bytes that go `way` are garbled.
    pub(super) fn garbles(self, way: Direction) -> bool {
        self == Self::Garble && way == Direction::Down
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
            | Self::ResetPresent
            | Self::EndPresent
            | Self::Ignore
            | Self::Hang
            | Self::AcceptClose
            | Self::BlackHole { .. }
            | Self::CutAfter { .. }
            | Self::CutAt { .. }
            | Self::Garble => (usize::MAX, Duration::ZERO),
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
