//! The faults that a drill knows how to make by itself.

/// A fault with a name of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Kill,
    Crash,
    Stop,
    Immediate,
    Freeze,
    Terminate,
    BlackHole,
    Reset,
}

impl Kind {
    /// All of them, as they are told.
    pub(super) const ALL: [Self; 8] = [
        Self::Kill,
        Self::Crash,
        Self::Stop,
        Self::Immediate,
        Self::Freeze,
        Self::Terminate,
        Self::BlackHole,
        Self::Reset,
    ];

    /// Those that Compose has a command for.
    pub(super) const BY_COMPOSE: [Self; 3] = [Self::Kill, Self::Stop, Self::Freeze];

    /// The one of this name.
    pub(super) fn of(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.name() == name)
    }

    /// Its name.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Kill => "kill",
            Self::Crash => "crash",
            Self::Stop => "stop",
            Self::Immediate => "immediate",
            Self::Freeze => "freeze",
            Self::Terminate => "terminate",
            Self::BlackHole => "black-hole",
            Self::Reset => "reset",
        }
    }

    /// Whether the server is out while it lasts.
    pub(super) fn is_outage(self) -> bool {
        self != Self::Terminate
    }

    /// Whether it is the network that fails.
    pub(super) fn is_network(self) -> bool {
        matches!(self, Self::BlackHole | Self::Reset)
    }
}
