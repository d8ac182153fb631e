//! What do the bytes on the wire say? Reads the headers of protocol frames in both directions: no buffer, no bodies, no opinion.
//!
//! See the chapter "Frontend/Backend Protocol" of PostgreSQL's manual: a frame is a tag, a length that counts itself, a body.

/// What has been seen of one conversation, in one word that can be published.
///
/// ```text
/// 63 ......... 32 | 31 .... 24 | 23 ... 8 | 7 ......... 0
///  replies owed   | parameters |          | flags, status
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Seen(pub(super) u64);

/// The login is over: the server has said for the first time that it is ready.
pub(super) const STARTED: u64 = 1;
/// The last `ReadyForQuery` said: inside a transaction, or inside a failed one.
pub(super) const IN_TRANSACTION: u64 = 1 << 1;
/// A frame is half written, a COPY is under way, or messages wait for their `Sync`.
pub(super) const UNFINISHED: u64 = 1 << 2;
/// What passes is not the protocol, or the conversation was terminated: nothing can be said any more.
pub(super) const LOST: u64 = 1 << 3;
const PARAMETERS: u32 = 24;
const OWED: u32 = 32;

impl Seen {
    /// Counts `ParameterStatus` frames, modulo 256.
    pub(super) fn parameters(self) -> u8 {
        (self.0 >> PARAMETERS) as u8
    }
}

/// Follows one conversation.
#[derive(Debug, Default)]
pub(super) struct Frames {
    sending: Cursor,
    receiving: Cursor,
    /// `ReadyForQuery` frames that are still to come.
    owed: u32,
    parameters: u8,
    started: bool,
    in_transaction: bool,
    unsynced: bool,
    copying: bool,
    /// The last request that is answered by `ReadyForQuery` was a `Sync`, not a `Query`.
    synced_last: bool,
    lost: bool,
}

impl Frames {
    /// Takes note of bytes that have been written. Those of the login have no tags yet and are ignored.
    pub(super) fn sent(&mut self, mut bytes: &[u8]) {
        while self.started && !self.lost {
            match self.sending.next(&mut bytes) {
                Ok(Some((tag, _))) => self.on_request(tag),
                Ok(None) => return,
                Err(NotAFrame) => self.lost = true,
            }
        }
    }

    /// Takes note of bytes that have been read.
    pub(super) fn received(&mut self, mut bytes: &[u8]) {
        while !self.lost {
            match self.receiving.next(&mut bytes) {
                Ok(Some((tag, first))) => self.on_reply(tag, first),
                Ok(None) => return,
                Err(NotAFrame) => self.lost = true,
            }
        }
    }

    /// All of it in one word.
    pub(super) fn seen(&self) -> Seen {
        let flag = |set: bool, bit: u64| if set { bit } else { 0 };
        let unfinished = self.unsynced || self.copying || self.sending.is_inside();
        Seen(
            flag(self.started, STARTED)
                | flag(self.in_transaction, IN_TRANSACTION)
                | flag(unfinished, UNFINISHED)
                | flag(self.lost, LOST)
                | u64::from(self.parameters) << PARAMETERS
                | u64::from(self.owed) << OWED,
        )
    }

    fn on_request(&mut self, tag: u8) {
        match tag {
            // Query, FunctionCall.
            b'Q' | b'F' => self.owe(false),
            // Sync: a server that takes COPY data ignores it.
            b'S' if !self.copying => self.owe(true),
            // Parse, Bind, Describe, Execute, Close: nothing more is answered until the Sync.
            b'P' | b'B' | b'D' | b'E' | b'C' => self.unsynced = true,
            // CopyDone, CopyFail.
            b'c' | b'f' => self.copying = false,
            // CopyData, Flush, Sync.
            b'd' | b'H' | b'S' => {}
            // Terminate, and what no client sends here.
            _ => self.lost = true,
        }
    }

    fn on_reply(&mut self, tag: u8, first: u8) {
        match tag {
            b'Z' => {
                self.owed = self.owed.saturating_sub(1);
                self.copying = false;
                self.started = true;
                self.in_transaction = first != b'I';
            }
            // CopyInResponse, CopyBothResponse. A Sync that was sent along with the COPY is read as part of the data, and
            // ignored: the one after CopyDone is answered.
            b'G' | b'W' => {
                self.copying = true;
                if self.synced_last {
                    self.owed = self.owed.saturating_sub(1);
                }
            }
            b'S' => self.parameters = self.parameters.wrapping_add(1),
            _ => {}
        }
    }

    fn owe(&mut self, by_sync: bool) {
        self.owed = self.owed.saturating_add(1);
        self.unsynced = false;
        self.synced_last = by_sync;
    }
}

/// Where one direction stands: inside a header, or so many bytes before the end of a body.
#[derive(Debug, Default)]
struct Cursor {
    header: [u8; 5],
    filled: usize,
    left: u32,
    first: Option<u8>,
}

/// A length that cannot be one.
#[derive(Debug)]
struct NotAFrame;

impl Cursor {
    fn is_inside(&self) -> bool {
        self.filled > 0
    }

    /// Moves past the end of the current frame, if `bytes` reach so far, and gives its tag and the first byte of its body.
    fn next(&mut self, bytes: &mut &[u8]) -> Result<Option<(u8, u8)>, NotAFrame> {
        if self.filled < self.header.len() {
            let part = bytes.len().min(self.header.len() - self.filled);
            self.header[self.filled..self.filled + part].copy_from_slice(&bytes[..part]);
            self.filled += part;
            *bytes = &bytes[part..];
            if self.filled < self.header.len() {
                return Ok(None);
            }
            let [_, length @ ..] = self.header;
            let length = u32::from_be_bytes(length);
            if i32::try_from(length).is_err() {
                return Err(NotAFrame);
            }
            self.left = length.checked_sub(4).ok_or(NotAFrame)?;
            self.first = None;
        }
        self.first = self.first.or_else(|| bytes.first().copied().filter(|_| self.left > 0));
        let part = u32::try_from(bytes.len()).unwrap_or(u32::MAX).min(self.left);
        self.left -= part;
        *bytes = &bytes[part as usize..];
        if self.left > 0 {
            return Ok(None);
        }
        self.filled = 0;
        Ok(Some((self.header[0], self.first.unwrap_or_default())))
    }
}
