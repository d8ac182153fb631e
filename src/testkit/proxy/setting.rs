//! Which fault is in force: what the proxy's door and its connections share.

use super::fault::Fault;

/// A fault and which setting of one it is, so that the same fault set twice counts its bytes anew.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Setting {
    pub(super) fault: Fault,
    pub(super) number: u64,
    /// Whether it has cut a connection.
    pub(super) cut: bool,
}

impl Setting {
    /// Whether new connections are not served.
    pub(super) fn holds_new(self) -> bool {
        self.fault == Fault::Hang || self.cut && matches!(self.fault, Fault::CutAt { .. })
    }

    /// Whether a connection that came in under the setting of that number is reset.
    pub(super) fn resets(self, born: u64) -> bool {
        self.fault == Fault::Reset || self.fault == Fault::ResetPresent && born < self.number
    }

    /// Whether the client of such a connection is told that it has ended.
    pub(super) fn ends(self, born: u64) -> bool {
        self.fault == Fault::EndPresent && born < self.number
    }
}
