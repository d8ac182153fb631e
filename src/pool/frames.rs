//! What do the bytes on the wire say? Reads the headers of protocol frames in both directions: no buffer, no bodies, no opinion.
//!
//! See the chapter "Frontend/Backend Protocol" of PostgreSQL's manual: a frame is a tag, a length that counts itself, a body.

use super::word::{FAILED, FATAL, IN_TRANSACTION, LOST, OWED, PARAMETERS, STARTED, UNFINISHED};

/// What has been seen of one conversation, as its part of the [`Word`](super::word::Word).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Seen(pub(super) u64);

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
    /// Of those, all up to the last that answers more than the closing of a statement or portal. A driver closes what it has
    /// prepared behind its user's back; the next user need not wait for that.
    awaited: u32,
    /// Since the last Sync something was closed.
    closed: bool,
    /// Since the last Sync something was asked for that is more than closing.
    asked: bool,
    parameters: u8,
    /// `STARTED`, and what the last `ReadyForQuery` said.
    ready: u64,
    /// Statements that have begun to leave.
    statements: u64,
    unsynced: bool,
    copying: bool,
    /// The last request that is answered by `ReadyForQuery` was a `Sync`, not a `Query`.
    synced_last: bool,
    report: Report,
    lost: bool,
}

impl Frames {
    /// Takes note of bytes that have been written. Those of the login have no tags yet and are ignored.
    pub(super) fn sent(&mut self, mut bytes: &[u8]) {
        if self.ready == 0 || self.lost {
            return;
        }
        if self.sending.is_inside() {
            self.sent_in_parts(&mut bytes);
        }
        while !self.lost
            && let Some((tag, _)) = next_whole(&mut bytes)
        {
            self.count_statement(tag);
            self.on_request(tag);
        }
        if !self.lost
            && let Some(&tag) = bytes.first()
        {
            self.count_statement(tag);
            self.sent_in_parts(&mut bytes);
        }
    }

    /// Takes note of bytes that have been read.
    pub(super) fn received(&mut self, mut bytes: &[u8]) {
        if self.lost {
            return;
        }
        if self.receiving.is_inside() {
            self.received_in_parts(&mut bytes);
        }
        while let Some((tag, body)) = next_whole(&mut bytes) {
            if tag == b'E' {
                self.report.take(body);
            }
            self.on_reply(tag, body.first().copied());
        }
        if !bytes.is_empty() {
            self.received_in_parts(&mut bytes);
        }
    }

    /// All of it in one word.
    #[inline]
    pub(super) fn seen(&self) -> Seen {
        let flag = |set: bool, bit: u64| if set { bit } else { 0 };
        let unfinished = self.unsynced | self.copying | self.sending.is_inside();
        Seen(
            self.ready
                | flag(unfinished, UNFINISHED)
                | flag(self.lost, LOST)
                | flag(self.report.fatal.is_some(), FATAL)
                | u64::from(self.parameters) << PARAMETERS
                | u64::from(self.awaited) << OWED,
        )
    }

    /// How many statements have begun to leave since the login.
    pub(super) fn statements(&self) -> u64 {
        self.statements
    }

    /// The SQLSTATE of the FATAL or PANIC that ended the session.
    pub(super) fn fatal(&self) -> Option<[u8; 5]> {
        self.report.fatal
    }

    #[cold]
    fn sent_in_parts(&mut self, bytes: &mut &[u8]) {
        match self.sending.next(bytes, |_, _| {}) {
            Ok(Some((tag, _))) => self.on_request(tag),
            Ok(None) => {}
            Err(NotAFrame) => self.lose(bytes),
        }
    }

    #[cold]
    fn received_in_parts(&mut self, bytes: &mut &[u8]) {
        let report = &mut self.report;
        let look = |tag, part: &[u8]| {
            if tag == b'E' {
                report.take(part);
            }
        };
        match self.receiving.next(bytes, look) {
            Ok(Some((tag, first))) => self.on_reply(tag, first),
            Ok(None) => {}
            Err(NotAFrame) => self.lose(bytes),
        }
    }

    /// What is left of `bytes` says nothing.
    fn lose(&mut self, bytes: &mut &[u8]) {
        self.lost = true;
        *bytes = &[];
    }

    /// Query, Execute, FunctionCall: what was only parsed or bound does nothing.
    #[inline]
    fn count_statement(&mut self, tag: u8) {
        self.statements += u64::from(matches!(tag, b'Q' | b'E' | b'F'));
    }

    #[inline]
    fn on_request(&mut self, tag: u8) {
        match tag {
            // Query, FunctionCall.
            b'Q' | b'F' => {
                self.asked = true;
                self.owe(false);
            }
            // Sync: a server that takes COPY data ignores it.
            b'S' if !self.copying => self.owe(true),
            // Parse, Bind, Describe, Execute, Close: nothing more is answered until the Sync.
            b'P' | b'B' | b'D' | b'E' | b'C' => {
                self.unsynced = true;
                self.closed |= tag == b'C';
                self.asked |= tag != b'C';
            }
            // CopyDone, CopyFail.
            b'c' | b'f' => {
                self.copying = false;
                self.asked = true;
            }
            // CopyData, Flush, Sync.
            b'd' | b'H' | b'S' => {}
            // Terminate, and what no client sends here.
            _ => self.lost = true,
        }
    }

    #[inline]
    fn on_reply(&mut self, tag: u8, first: Option<u8>) {
        match tag {
            b'Z' => {
                self.answered();
                self.copying = false;
                self.ready = STARTED
                    | match first {
                        Some(b'I') => 0,
                        Some(b'E') => IN_TRANSACTION | FAILED,
                        _ => IN_TRANSACTION,
                    };
            }
            // CopyInResponse, CopyBothResponse. A Sync that was sent along with the COPY is read as part of the data, and
            // ignored: the one after CopyDone is answered.
            b'G' | b'W' => {
                self.copying = true;
                if self.synced_last {
                    self.answered();
                }
            }
            b'S' => self.parameters = self.parameters.wrapping_add(1),
            b'E' => self.report.end(),
            _ => {}
        }
    }

    fn answered(&mut self) {
        self.owed = self.owed.saturating_sub(1);
        self.awaited = self.awaited.saturating_sub(1);
    }

    fn owe(&mut self, by_sync: bool) {
        self.owed = self.owed.saturating_add(1);
        let only_closed = std::mem::take(&mut self.closed) && !self.asked;
        self.asked = false;
        if !only_closed {
            self.awaited = self.owed;
        }
        self.unsynced = false;
        self.synced_last = by_sync;
    }
}

/// A tag and a length.
const HEADER: usize = 5;

/// Where one direction stands: inside a header, or so many bytes before the end of a body.
#[derive(Debug, Default)]
struct Cursor {
    header: [u8; HEADER],
    filled: usize,
    left: u32,
    first: Option<u8>,
}

/// What an `ErrorResponse` says of itself: fields of a type byte and a text that ends in zero. Two are read, the severity
/// that is never translated (`V`) and the SQLSTATE (`C`), and of those as much as counts.
#[derive(Debug, Default)]
struct Report {
    field: u8,
    position: usize,
    severity: u8,
    code: [u8; 5],
    fatal: Option<[u8; 5]>,
}

impl Report {
    fn take(&mut self, part: &[u8]) {
        for &byte in part {
            match (self.field, byte) {
                (0, field) => (self.field, self.position) = (field, 0),
                (_, 0) => self.field = 0,
                (field, byte) => {
                    match (field, self.position) {
                        (b'V', 0) => self.severity = byte,
                        (b'C', at @ 0..5) => self.code[at] = byte,
                        _ => {}
                    }
                    self.position += 1;
                }
            }
        }
    }

    fn end(&mut self) {
        let fatal = matches!(self.severity, b'F' | b'P').then_some(self.code);
        *self = Self { fatal: self.fatal.or(fatal), ..Self::default() };
    }
}

/// A length that cannot be one.
#[derive(Debug)]
struct NotAFrame;

/// The bytes of a frame's body: its length counts itself, and is a positive `i32`.
fn body(length: [u8; 4]) -> Result<u32, NotAFrame> {
    let length = u32::from_be_bytes(length);
    if i32::try_from(length).is_err() {
        return Err(NotAFrame);
    }
    length.checked_sub(4).ok_or(NotAFrame)
}

/// The tag and the body of the first frame, and past it, if all of it is there. Most frames come whole.
#[inline]
fn next_whole<'a>(bytes: &mut &'a [u8]) -> Option<(u8, &'a [u8])> {
    let (&[tag, length @ ..], rest) = bytes.split_first_chunk::<HEADER>()?;
    let (body, rest) = rest.split_at_checked(body(length).ok()? as usize)?;
    *bytes = rest;
    Some((tag, body))
}

impl Cursor {
    fn is_inside(&self) -> bool {
        self.filled > 0
    }

    /// Moves past the end of the current frame, if `bytes` reach so far, and gives its tag and the first byte of its body.
    /// `look` is shown the tag and each part of the body as it passes.
    fn next(&mut self, bytes: &mut &[u8], look: impl FnOnce(u8, &[u8])) -> Result<Option<(u8, Option<u8>)>, NotAFrame> {
        if self.filled < self.header.len() {
            let part = bytes.len().min(self.header.len() - self.filled);
            self.header[self.filled..self.filled + part].copy_from_slice(&bytes[..part]);
            self.filled += part;
            *bytes = &bytes[part..];
            if self.filled < self.header.len() {
                return Ok(None);
            }
            let [_, length @ ..] = self.header;
            self.left = body(length)?;
            self.first = None;
        }
        self.first = self.first.or_else(|| bytes.first().copied().filter(|_| self.left > 0));
        let part = u32::try_from(bytes.len()).unwrap_or(u32::MAX).min(self.left);
        self.left -= part;
        look(self.header[0], &bytes[..part as usize]);
        *bytes = &bytes[part as usize..];
        if self.left > 0 {
            return Ok(None);
        }
        self.filled = 0;
        Ok(Some((self.header[0], self.first)))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[derive(Debug, Clone)]
    enum Step {
        Sent(Vec<u8>),
        Received(Vec<u8>),
    }

    impl Step {
        fn bytes(&self) -> &[u8] {
            let (Self::Sent(bytes) | Self::Received(bytes)) = self;
            bytes
        }

        fn split(&self, at: usize) -> (Self, Self) {
            let (before, after) = self.bytes().split_at(at);
            match self {
                Self::Sent(_) => (Self::Sent(before.to_vec()), Self::Sent(after.to_vec())),
                Self::Received(_) => (Self::Received(before.to_vec()), Self::Received(after.to_vec())),
            }
        }
    }

    fn frame(tag: u8, body: &[u8]) -> Vec<u8> {
        let length = u32::try_from(body.len() + 4).unwrap();
        [&[tag], &length.to_be_bytes()[..], body].concat()
    }

    fn sent(tags: &[u8]) -> Step {
        // A body that would count, were it read as tags.
        Step::Sent(tags.iter().flat_map(|tag| frame(*tag, b"QEF")).collect())
    }

    fn received(tags: &[u8]) -> Step {
        Step::Received(tags.iter().flat_map(|tag| frame(*tag, b"T")).collect())
    }

    fn ready(status: u8) -> Step {
        Step::Received(frame(b'Z', &[status]))
    }

    /// A login with a password, whose first packet has no tag.
    fn login() -> Vec<Step> {
        vec![Step::Sent(vec![0, 0, 0, 9, 0, 3, 0, 0, 0]), received(b"R"), sent(b"p"), received(b"RSSSK"), ready(b'I')]
    }

    fn play(frames: &mut Frames, step: &Step) -> Seen {
        match step {
            Step::Sent(bytes) => frames.sent(bytes),
            Step::Received(bytes) => frames.received(bytes),
        }
        frames.seen()
    }

    fn after(steps: Vec<Step>) -> Seen {
        let mut frames = Frames::default();
        login().iter().chain(&steps).for_each(|step| _ = play(&mut frames, step));
        Seen(frames.seen().0 & !(0xff << PARAMETERS))
    }

    fn owed(count: u64) -> u64 {
        STARTED | count << OWED
    }

    #[test]
    fn a_login_ends_with_nothing_owed() {
        assert_eq!(after(vec![]), Seen(STARTED));
    }

    #[test]
    fn every_sync_query_and_call_is_owed_one_ready() {
        assert_eq!(after(vec![sent(b"PDS"), sent(b"BES"), sent(b"Q"), sent(b"F")]), Seen(owed(4)));
        assert_eq!(after(vec![sent(b"PDSQ"), received(b"1tTE"), ready(b'I')]), Seen(owed(1)));
        assert_eq!(after(vec![sent(b"Q"), received(b"TDDDC"), ready(b'I')]), Seen(STARTED));
    }

    #[test]
    fn who_only_closes_what_was_prepared_is_not_waited_for() {
        assert_eq!(after(vec![sent(b"CS")]), Seen(STARTED));
        assert_eq!(after(vec![sent(b"BES"), sent(b"CS")]), Seen(owed(1)));
        assert_eq!(after(vec![sent(b"BES"), sent(b"CS"), received(b"2DC"), ready(b'I')]), Seen(STARTED));
        assert_eq!(after(vec![sent(b"CS"), sent(b"BES"), received(b"3"), ready(b'I')]), Seen(owed(1)));
        assert_eq!(after(vec![sent(b"CS"), sent(b"Q"), received(b"3"), ready(b'I'), ready(b'I')]), Seen(STARTED));
        assert_eq!(after(vec![sent(b"C")]), Seen(STARTED | UNFINISHED));
    }

    #[test]
    fn messages_without_a_sync_are_unfinished() {
        assert_eq!(after(vec![sent(b"PBE")]), Seen(STARTED | UNFINISHED));
        assert_eq!(after(vec![sent(b"PBEH"), received(b"12D")]), Seen(STARTED | UNFINISHED));
        assert_eq!(after(vec![Step::Sent(vec![b'Q', 0, 0])]), Seen(STARTED | UNFINISHED));
    }

    #[test]
    fn an_open_and_a_failed_transaction_are_told_from_none() {
        let inside = STARTED | IN_TRANSACTION;
        for (status, seen) in [(b'T', inside), (b'E', inside | FAILED), (b'?', inside)] {
            assert_eq!(after(vec![sent(b"Q"), ready(status)]), Seen(seen));
        }
        assert_eq!(after(vec![sent(b"Q"), ready(b'T'), sent(b"Q"), ready(b'I')]), Seen(STARTED));
    }

    #[test]
    fn a_sync_that_a_copy_swallows_is_not_owed_anything() {
        let begun = || vec![sent(b"BES"), received(b"2G"), sent(b"dd")];
        assert_eq!(after(begun()), Seen(STARTED | UNFINISHED));
        for end in [b"cS", b"fS"] {
            let steps = [begun(), vec![sent(end)]].concat();
            assert_eq!(after(steps.clone()), Seen(owed(1)));
            assert_eq!(after([steps, vec![received(b"C"), ready(b'I')]].concat()), Seen(STARTED));
        }
    }

    #[test]
    fn a_copy_given_up_before_the_server_agreed_to_it_is_counted_right() {
        assert_eq!(after(vec![sent(b"BESfS"), received(b"2GE"), ready(b'I')]), Seen(STARTED));
        assert_eq!(after(vec![sent(b"BESfS"), received(b"E"), ready(b'I')]), Seen(owed(1)));
    }

    #[test]
    fn a_copy_by_a_plain_query_is_answered_once() {
        let steps = vec![sent(b"Q"), received(b"G"), sent(b"ddc"), received(b"C"), ready(b'I')];
        assert_eq!(after(steps), Seen(STARTED));
        assert_eq!(after(vec![sent(b"Q"), received(b"GE"), ready(b'I')]), Seen(STARTED));
    }

    #[test]
    fn a_statement_counts_as_soon_as_its_first_byte_leaves_and_a_preparation_does_not() {
        let mut frames = Frames::default();
        login().iter().for_each(|step| _ = play(&mut frames, step));
        for (bytes, statements) in
            [(&frame(b'P', b"body")[..], 0), (&frame(b'B', b"")[..], 0), (b"E", 1), (&[0, 0, 0, 4], 1)]
        {
            frames.sent(bytes);
            assert_eq!(frames.statements(), statements);
        }
        frames.sent(&[frame(b'S', b""), frame(b'Q', b"SELECT"), frame(b'F', b"call"), frame(b'X', b"")].concat());
        assert_eq!(frames.statements(), 3);
    }

    #[test]
    fn a_terminated_conversation_is_lost() {
        assert_eq!(after(vec![sent(b"X")]), Seen(STARTED | LOST));
    }

    #[test]
    fn a_length_that_cannot_be_one_is_lost_and_a_huge_one_is_waited_for() {
        for length in [[0, 0, 0, 3], [0x80, 0, 0, 0], [0xff; 4]] {
            let bytes = [b"D", &length[..], b"rest"].concat();
            assert_eq!(after(vec![Step::Received(bytes.clone())]), Seen(STARTED | LOST));
            assert_eq!(after(vec![Step::Sent(bytes)]).0 & LOST, LOST);
        }
        let huge = vec![b'Q', 0x7f, 0xff, 0xff, 0xff, 1, 2, 3];
        assert_eq!(after(vec![Step::Sent(huge)]), Seen(STARTED | UNFINISHED));
    }

    fn report(severity: &str, code: &str) -> Step {
        Step::Received(frame(b'E', format!("S?\0V{severity}\0C{code}\0MV\0\0").as_bytes()))
    }

    fn fatal_of(report: Step) -> Option<[u8; 5]> {
        let mut frames = Frames::default();
        login().iter().chain([&sent(b"Q"), &report]).for_each(|step| _ = play(&mut frames, step));
        assert_eq!(frames.seen().0 & FATAL != 0, frames.fatal().is_some());
        frames.fatal()
    }

    #[test]
    fn a_fatal_is_told_from_an_error_by_the_severity_that_is_never_translated() {
        assert_eq!(fatal_of(report("FATAL", "57P01")), Some(*b"57P01"));
        assert_eq!(fatal_of(report("PANIC", "XX000")), Some(*b"XX000"));
        assert_eq!(fatal_of(report("ERROR", "57P01")), None);
        assert_eq!(fatal_of(Step::Received(frame(b'E', b"VFATAL"))), Some([0; 5]));
        assert_eq!(fatal_of(Step::Received(frame(b'E', b"CTOO LONG A CODE\0V"))), None);
    }

    #[test]
    fn one_report_does_not_color_the_next() {
        let mut frames = Frames::default();
        let steps = [report("ERROR", "42601"), Step::Received(frame(b'E', b"MFATAL\0\0")), report("FATAL", "57P01")];
        let seen: Vec<_> = steps.iter().map(|step| play(&mut frames, step).0 & FATAL).collect();
        assert_eq!(seen, [0, 0, FATAL]);
    }

    /// What a client and a server (PostgreSQL 15) have said to each other, in turn.
    #[rustfmt::skip]
    const RECORDED: [[&[u8]; 2]; 12] = [
        [b"\0\0\0$\0\x03\0\0user\0app\0database\0postgres\0\0",
         b"R\0\0\0\x08\0\0\0\0S\0\0\0\x16application_name\0\0S\0\0\0\x19client_encoding\0UTF8\0\
            S\0\0\0\x17DateStyle\0ISO, MDY\0S\0\0\0&default_transaction_read_only\0off\0\
            S\0\0\0\x17in_hot_standby\0off\0S\0\0\0\x19integer_datetimes\0on\0\
            S\0\0\0\x1bIntervalStyle\0postgres\0S\0\0\0\x14is_superuser\0on\0S\0\0\0\x19server_encoding\0UTF8\0\
            S\0\0\x002server_version\x0015.18 (Debian 15.18-0+deb12u1)\0S\0\0\0\x1esession_authorization\0app\0\
            S\0\0\0#standard_conforming_strings\0on\0S\0\0\0\x15TimeZone\0Etc/UTC\0K\0\0\0\x0c\0\0cA\xa7nQ\xd9\
            Z\0\0\0\x05I"],
        [b"Q\0\0\0\x14BEGIN; SELECT 1\0",
         b"C\0\0\0\nBEGIN\0T\0\0\0!\0\x01?column?\0\0\0\0\0\0\0\0\0\0\x17\0\x04\xff\xff\xff\xff\0\0\
            D\0\0\0\x0b\0\x01\0\0\0\x011C\0\0\0\x0dSELECT 1\0Z\0\0\0\x05T"],
        [b"P\0\0\0\x18s\0SELECT $1::int4\0\0\0D\0\0\0\x07Ss\0S\0\0\0\x04",
         b"1\0\0\0\x04t\0\0\0\n\0\x01\0\0\0\x17\
            T\0\0\0\x1d\0\x01int4\0\0\0\0\0\0\0\0\0\0\x17\0\x04\xff\xff\xff\xff\0\0Z\0\0\0\x05T"],
        [b"B\0\0\0\x12\0s\0\0\0\0\x01\0\0\0\x012\0\0E\0\0\0\x09\0\0\0\0\0C\0\0\0\x07Ss\0S\0\0\0\x04",
         b"2\0\0\0\x04D\0\0\0\x0b\0\x01\0\0\0\x012C\0\0\0\x0dSELECT 1\x003\0\0\0\x04Z\0\0\0\x05T"],
        [b"Q\0\0\0\x0fSELECT 1/0\0",
         b"E\0\0\0ASERROR\0VERROR\0C22012\0Mdivision by zero\0Fint.c\0L869\0Rint4div\0\0Z\0\0\0\x05E"],
        [b"Q\0\0\0\x0dROLLBACK\0",
         b"C\0\0\0\x0dROLLBACK\0Z\0\0\0\x05I"],
        [b"Q\0\0\0\x1fSET application_name = 'a'\0",
         b"C\0\0\0\x08SET\0S\0\0\0\x17application_name\0a\0Z\0\0\0\x05I"],
        [b"Q\0\0\0 CREATE TEMP TABLE t (i int)\0",
         b"C\0\0\0\x11CREATE TABLE\0Z\0\0\0\x05I"],
        [b"P\0\0\0\x19\0COPY t FROM STDIN\0\0\0B\0\0\0\x0c\0\0\0\0\0\0\0\0E\0\0\0\x09\0\0\0\0\0S\0\0\0\x04",
         b"1\0\0\0\x042\0\0\0\x04G\0\0\0\x09\0\0\x01\0\0"],
        [b"d\0\0\0\x061\nd\0\0\0\x062\nc\0\0\0\x04S\0\0\0\x04",
         b"C\0\0\0\x0bCOPY 2\0Z\0\0\0\x05I"],
        [b"Q\0\0\0\x15COPY t TO STDOUT\0",
         b"H\0\0\0\x09\0\0\x01\0\0d\0\0\0\x061\nd\0\0\0\x062\nc\0\0\0\x04C\0\0\0\x0bCOPY 2\0Z\0\0\0\x05I"],
        [b"Q\0\0\x002SELECT pg_terminate_backend(pg_backend_pid())\0",
         b"T\0\0\0-\0\x01pg_terminate_backend\0\0\0\0\0\0\0\0\0\0\x10\0\x01\xff\xff\xff\xff\0\0\
            D\0\0\0\x0b\0\x01\0\0\0\x01t\
            E\0\0\0tSFATAL\0VFATAL\0C57P01\0M\
            terminating connection due to administrator command\0Fpostgres.c\0L3211\0RProcessInterrupts\0\0"],
    ];

    fn recorded() -> Vec<Step> {
        RECORDED.iter().flat_map(|[asked, said]| [Step::Sent(asked.to_vec()), Step::Received(said.to_vec())]).collect()
    }

    /// All that it tells.
    fn told(frames: &Frames) -> (Seen, u64, Option<[u8; 5]>) {
        (frames.seen(), frames.statements(), frames.fatal())
    }

    #[test]
    fn a_recorded_conversation_is_followed_to_its_end() {
        let inside = STARTED | IN_TRANSACTION;
        let expected = [
            ("login", STARTED, 0),
            ("BEGIN, SELECT", inside, 1),
            ("prepared", inside, 1),
            ("executed", inside, 2),
            ("failed", inside | FAILED, 3),
            ("ROLLBACK", STARTED, 4),
            ("SET", STARTED, 5),
            ("CREATE", STARTED, 6),
            ("COPY FROM begun", STARTED | UNFINISHED, 7),
            ("COPY FROM ended", STARTED, 7),
            ("COPY TO", STARTED, 8),
            ("terminated", owed(1) | FATAL, 9),
        ];
        let mut frames = Frames::default();
        for (steps, (what, bits, statements)) in recorded().chunks(2).zip(expected) {
            steps.iter().for_each(|step| _ = play(&mut frames, step));
            let (seen, counted, fatal) = told(&frames);
            assert_eq!((seen.0 & !(0xff << PARAMETERS), counted), (bits, statements), "{what}");
            assert_eq!(fatal, (what == "terminated").then_some(*b"57P01"), "{what}");
        }
        assert_eq!(frames.seen().parameters(), 14, "of the login 13");
    }

    #[test]
    fn wherever_a_recorded_conversation_is_cut_it_is_seen_alike() {
        let (steps, mut frames) = (recorded(), Frames::default());
        let whole = steps.iter().map(|step| {
            play(&mut frames, step);
            told(&frames)
        });
        let whole: Vec<_> = whole.collect();
        for (cut, step) in steps.iter().enumerate() {
            for at in 1..step.bytes().len() {
                let mut frames = Frames::default();
                for (n, step) in steps.iter().enumerate() {
                    let (before, after) = step.split(if n == cut { at } else { 0 });
                    play(&mut frames, &before);
                    play(&mut frames, &after);
                    assert_eq!(told(&frames), whole[n], "step {cut} cut at {at}, after step {n}");
                }
            }
        }
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            proptest::sample::select(vec![&b"PDS"[..], b"BES", b"Q", b"BESf", b"d", b"cS", b"fS", b"H"]).prop_map(sent),
            proptest::sample::select(vec![&b"1tT"[..], b"2DDC", b"G", b"S", b"N", b"W", b"E"]).prop_map(received),
            proptest::sample::select(b"ITE".to_vec()).prop_map(ready),
            proptest::sample::select(vec!["ERROR", "FATAL"]).prop_map(|severity| report(severity, "57P01")),
        ]
    }

    proptest! {
        #[test]
        fn every_slicing_of_a_conversation_is_seen_alike(
            steps in prop::collection::vec(step(), 0..20),
            sizes in prop::collection::vec(1_usize..9, 1..40),
        ) {
            let (mut whole, mut sliced) = (Frames::default(), Frames::default());
            let mut sizes = sizes.iter().cycle();
            for step in login().iter().chain(&steps) {
                play(&mut whole, step);
                let mut rest = step.clone();
                while !rest.bytes().is_empty() {
                    let (slice, after) = rest.split((*sizes.next().unwrap()).min(rest.bytes().len()));
                    play(&mut sliced, &slice);
                    rest = after;
                }
                prop_assert_eq!(told(&sliced), told(&whole));
            }
        }

        #[test]
        fn garbage_is_survived(slices in prop::collection::vec((any::<bool>(), any::<Vec<u8>>()), 0..20), greet: bool) {
            let mut frames = Frames::default();
            if greet {
                login().iter().for_each(|step| _ = play(&mut frames, step));
            }
            for (up, bytes) in slices {
                if up { frames.sent(&bytes) } else { frames.received(&bytes) }
                let _ = frames.seen();
            }
        }
    }
}
