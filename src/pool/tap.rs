//! Is a connection clean? A thin stream between driver and socket keeps one atomic word that tells it without a query.

use std::{
    fmt, io,
    pin::Pin,
    sync::{
        Arc, Mutex, OnceLock, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    task::{Context, Poll, Wake, Waker},
};

use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    sync::Notify,
};

use super::{
    condition::{Condition, Ending, Transaction},
    dial::CancelToken,
    frames::{Frames, Seen},
    word::{FAILED, FATAL, IN_TRANSACTION, KEEPS, UNREAD, UNSENT, Word, Writer},
};
use crate::config::SessionReset;

/// What is known about the state of one connection, without asking the server. Cloning is cheap.
#[derive(Clone, Default)]
pub struct Tap {
    shared: Arc<Shared>,
}

/// Told the SQLSTATE of a FATAL as its bytes pass, before the driver hands it to anybody.
type Alarm = Box<dyn Fn([u8; 5]) + Send + Sync>;

#[derive(Default)]
struct Shared {
    word: Word,
    /// What the stream saw, written by the session's task alone.
    seen: AtomicU64,
    /// Statements that have begun to leave, written by the session's task alone.
    statements: AtomicU64,
    settled: Notify,
    /// The session is to end, as soon as the server agrees.
    leaving: AtomicBool,
    /// A COMMIT did not wait for the replicas.
    unconfirmed: AtomicBool,
    /// The session's task, as of its last turn.
    task: Mutex<Option<Waker>>,
    ending: OnceLock<Ending>,
    alarm: OnceLock<Alarm>,
    /// Until the session ends: after that there is nothing to cancel, and it knows secrets.
    cancel_token: Mutex<Option<CancelToken>>,
}

impl Tap {
    /// Whether the connection may be lent: one atomic load.
    #[must_use]
    pub fn is_clean(&self) -> bool {
        self.condition() == Condition::Clean
    }

    /// Its condition: one atomic load.
    #[must_use]
    #[inline]
    pub fn condition(&self) -> Condition {
        self.shared.word.condition()
    }

    /// Whether it is inside a transaction, as of the last reply. Who asks after a statement has returned is told of that statement.
    #[must_use]
    pub fn transaction(&self) -> Transaction {
        // Written before the driver hands the reply on, which orders the two.
        match self.shared.seen.load(Ordering::Relaxed) & (IN_TRANSACTION | FAILED) {
            0 => Transaction::None,
            IN_TRANSACTION => Transaction::Open,
            _ => Transaction::Failed,
        }
    }

    /// How many statements have begun to leave for the server since the login: queries, executions, function calls; what was only
    /// prepared does nothing there. One that was handed to the driver and has not been written yet is not among them and may
    /// still follow, unless the session [has ended](Self::has_ended).
    #[must_use]
    pub fn statements(&self) -> u64 {
        // As for the transaction.
        self.shared.statements.load(Ordering::Relaxed)
    }

    /// Whether the session has ended, or the server has said that it does.
    pub(crate) fn is_over(&self) -> bool {
        self.has_ended() || self.shared.seen.load(Ordering::Relaxed) & FATAL != 0
    }

    /// Whether the session is over: nothing more will leave.
    #[must_use]
    pub fn has_ended(&self) -> bool {
        self.shared.word.has_ended()
    }

    /// Waits until nothing is under way any more and tells the condition then. A dropped transaction whose
    /// `ROLLBACK` is on its way takes a round trip, a dropped query as long as the server works on it: bound it.
    ///
    /// # Cancel safety
    ///
    /// Cancel safe.
    pub async fn settled(&self) -> Condition {
        loop {
            let notified = self.shared.settled.notified();
            match self.shared.word.watch() {
                Condition::Busy => notified.await,
                condition => return condition,
            }
        }
    }

    /// Ends the session as the server sees it: says that nothing more will come, and waits until the server has hung up, which
    /// it does once its process is gone. A statement under way runs to its end before that: bound it.
    ///
    /// # Cancel safety
    ///
    /// Cancel safe; the connection is of no more use.
    pub async fn leave(&self) {
        self.shared.leaving.store(true, Ordering::SeqCst);
        let task = self.shared.task.lock().unwrap_or_else(PoisonError::into_inner).clone();
        if let Some(task) = task {
            task.wake();
        }
        loop {
            let notified = self.shared.settled.notified();
            // Not LOST: an odd conversation is that long before its session ends.
            if self.has_ended() {
                return;
            }
            notified.await;
        }
    }

    /// Whether a `COMMIT` since the last call did not wait for the replicas that were to confirm it.
    pub(crate) fn take_unconfirmed(&self) -> bool {
        self.shared.unconfirmed.swap(false, Ordering::AcqRel)
    }

    pub(super) fn leave_unconfirmed(&self) {
        self.shared.unconfirmed.store(true, Ordering::Release);
    }

    /// How the session ended, once it has.
    #[must_use]
    pub fn ending(&self) -> Option<&Ending> {
        self.shared.ending.get()
    }

    /// What cancels the statement that runs on this connection.
    #[must_use]
    pub fn cancel_token(&self) -> Option<CancelToken> {
        self.shared.cancel_token.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Keeps what cancels a statement on this connection.
    pub(super) fn keep_cancel_token(&self, token: CancelToken) {
        *self.shared.cancel_token.lock().unwrap_or_else(PoisonError::into_inner) = Some(token);
    }

    /// Calls `alarm` when the server ends the session with a FATAL: whoever is told of it by the driver finds that done.
    pub(super) fn on_fatal(&self, alarm: impl Fn([u8; 5]) + Send + Sync + 'static) {
        // There is one session for each tap.
        let _ = self.shared.alarm.set(Box::new(alarm));
    }

    /// Puts this tap on a stream.
    pub(super) fn on<S>(&self, stream: S) -> Tapped<S> {
        Tapped { stream, frames: Frames::default(), marks: 0, hung_up: false, tap: self.clone() }
    }

    /// The session's own access, taken once the login is over. Until its first turn the connection counts as busy: the
    /// driver cannot wake it yet.
    pub(super) fn gauge(&self, reset: SessionReset) -> Gauge {
        let lasting = match reset {
            SessionReset::None => 0,
            SessionReset::DiscardAll => KEEPS,
        };
        let writer = Writer::new(&self.shared.word, self.shared.seen.load(Ordering::Relaxed), lasting);
        Gauge { tap: self.clone(), writer, waker: None }
    }

    /// What wakes up when the session has grown too old: it only says so in the word.
    pub(super) fn spender(&self) -> Waker {
        Waker::from(Arc::new(Spend(self.clone())))
    }
}

impl fmt::Debug for Tap {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tap").field("condition", &self.condition()).finish_non_exhaustive()
    }
}

/// Publishes what the tap has seen, around each turn of the session's task.
pub(super) struct Gauge {
    tap: Tap,
    writer: Writer,
    waker: Option<(Waker, Waker)>,
}

impl Gauge {
    /// One turn of the session, whose task was [followed](Self::follow): `work` is given a context whose waker raises `STIRRED`.
    #[inline]
    pub(super) fn turn<T>(&mut self, cx: &Context<'_>, work: impl FnOnce(&mut Context<'_>) -> T) -> T {
        let (waker, shared) = (self.waker.as_ref().map_or(cx.waker(), |(_, ours)| ours), &self.tap.shared);
        self.writer.begin(&shared.word);
        let result = work(&mut Context::from_waker(waker));
        if self.writer.finish(&shared.word, shared.seen.load(Ordering::Relaxed)) {
            shared.settled.notify_waiters();
        }
        result
    }

    /// How many changes of a server parameter were reported so far, modulo 256.
    pub(super) fn parameters(&self) -> u8 {
        Seen(self.writer.known()).parameters()
    }

    /// Whether the session ends because its owner wants it to.
    pub(super) fn is_leaving(&self) -> bool {
        self.tap.shared.leaving.load(Ordering::SeqCst)
    }

    /// Writes down how the session ended.
    pub(super) fn end(self, ending: Ending) {
        // Nobody else sets it.
        let _ = self.tap.shared.ending.set(ending);
    }

    /// Makes the waker that stirs the word on its way to `task`, unless there is one. Whether there was none.
    #[inline]
    pub(super) fn follow(&mut self, task: &Waker) -> bool {
        let is_new = !self.waker.as_ref().is_some_and(|(known, _)| known.will_wake(task));
        if is_new {
            *self.tap.shared.task.lock().unwrap_or_else(PoisonError::into_inner) = Some(task.clone());
            let ours = Waker::from(Arc::new(Stir { tap: self.tap.clone(), task: task.clone() }));
            self.waker = Some((task.clone(), ours));
        }
        is_new
    }
}

/// Ended or aborted, a session leaves a connection that is of no more use.
impl Drop for Gauge {
    fn drop(&mut self) {
        self.tap.shared.word.end();
        *self.tap.shared.task.lock().unwrap_or_else(PoisonError::into_inner) = None;
        *self.tap.shared.cancel_token.lock().unwrap_or_else(PoisonError::into_inner) = None;
        self.tap.shared.settled.notify_waiters();
    }
}

/// Wakes the session and says so in the word.
struct Stir {
    tap: Tap,
    task: Waker,
}

impl Wake for Stir {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        self.tap.shared.word.stir();
        self.task.wake_by_ref();
    }
}

/// Says in the word that the session has grown too old.
struct Spend(Tap);

impl Wake for Spend {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        self.0.shared.word.spend();
    }
}

/// A stream whose bytes pass the tap, unchanged.
pub(crate) struct Tapped<S> {
    stream: S,
    frames: Frames,
    marks: u64,
    hung_up: bool,
    tap: Tap,
}

impl<S> Tapped<S> {
    /// The stream below.
    pub(super) fn stream(&self) -> &S {
        &self.stream
    }

    fn mark(&mut self, mark: u64, set: bool) {
        self.marks = if set { self.marks | mark } else { self.marks & !mark };
        self.tap.shared.seen.store(self.frames.seen().0 | self.marks, Ordering::Relaxed);
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncRead for Tapped<S> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        if self.tap.shared.leaving.load(Ordering::Relaxed) && !self.hung_up {
            // The server answers with its own end: what is read until then is of no interest to anybody.
            self.hung_up = Pin::new(&mut self.stream).poll_shutdown(cx)?.is_ready();
        }
        let before = buf.filled().len();
        let read = Pin::new(&mut self.stream).poll_read(cx, buf);
        if read.is_pending() {
            // Nothing is seen, but that there is nothing: mostly that was known.
            if self.marks & UNREAD != 0 {
                self.mark(UNREAD, false);
            }
            return read;
        }
        let was_fatal = self.frames.fatal().is_some();
        self.frames.received(&buf.filled()[before..]);
        if !was_fatal
            && let Some(code) = self.frames.fatal()
            && let Some(alarm) = self.tap.shared.alarm.get()
        {
            alarm(code);
        }
        self.mark(UNREAD, true);
        read
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Tapped<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        if self.hung_up {
            // The driver goes on until it reads the end.
            return Poll::Ready(Ok(buf.len()));
        }
        let written = Pin::new(&mut self.stream).poll_write(cx, buf);
        let taken = if let Poll::Ready(Ok(count)) = &written { *count } else { 0 };
        self.frames.sent(&buf[..taken]);
        self.tap.shared.statements.store(self.frames.statements(), Ordering::Relaxed);
        self.mark(UNSENT, taken < buf.len());
        written
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.hung_up { Poll::Ready(Ok(())) } else { Pin::new(&mut self.stream).poll_flush(cx) }
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use proptest::prelude::*;
    use tokio::{
        io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex},
        runtime, time,
    };

    use super::*;
    use crate::pool::word::LOST;

    /// What one side says to the other, and in slices of which size it is written and read.
    #[derive(Debug, Clone)]
    struct Step {
        up: bool,
        bytes: Vec<u8>,
        written: usize,
        read: usize,
    }

    fn header(tag: u8, length: u32) -> Vec<u8> {
        [&[tag], &length.to_be_bytes()[..]].concat()
    }

    fn frame(tag: u8, body: &[u8]) -> Vec<u8> {
        [header(tag, u32::try_from(body.len() + 4).unwrap()), body.to_vec()].concat()
    }

    fn login() -> [Step; 2] {
        let ready = [frame(b'R', &[0; 4]), frame(b'Z', b"I")].concat();
        let step = |up, bytes| Step { up, bytes, written: 3, read: 4 };
        [step(true, vec![0, 0, 0, 9, 0, 3, 0, 0, 0]), step(false, ready)]
    }

    /// Frames, lengths up to 2 GiB and such as cannot be, last words, and what is no protocol at all.
    fn words() -> impl Strategy<Value = Vec<u8>> {
        let tag = || prop::sample::select(b"QPBEDSCFdcfHXRKTZGINE".to_vec());
        let body = || prop::collection::vec(any::<u8>(), 0..40);
        let lengths = vec![0, 3, 0x7fff_ffff, 0x8000_0000, u32::MAX];
        prop_oneof![
            6 => (tag(), body()).prop_map(|(tag, body)| frame(tag, &body)),
            1 => (tag(), prop::sample::select(lengths), body())
                .prop_map(|(tag, length, rest)| [header(tag, length), rest].concat()),
            1 => Just(frame(b'E', b"VFATAL\0C57P01\0\0")),
            1 => body(),
        ]
    }

    fn step() -> impl Strategy<Value = Step> {
        let words = prop::collection::vec(words(), 0..4).prop_map(|words| words.concat());
        (any::<bool>(), words, 1_usize..50, 1_usize..50).prop_map(|(up, bytes, written, read)| Step {
            up,
            bytes,
            written,
            read,
        })
    }

    /// What comes out at the other end.
    async fn pass(step: &Step, from: &mut (impl AsyncWrite + Unpin), to: &mut (impl AsyncRead + Unpin)) -> Vec<u8> {
        let mut came = vec![0; step.bytes.len()];
        let write = async {
            for slice in step.bytes.chunks(step.written) {
                from.write_all(slice).await.unwrap();
            }
        };
        let read = async {
            for slice in came.chunks_mut(step.read) {
                to.read_exact(slice).await.unwrap();
            }
        };
        tokio::join!(write, read);
        came
    }

    /// Of a conversation that is lost, nothing else counts.
    fn told(seen: u64) -> u64 {
        if seen & LOST != 0 { LOST } else { seen }
    }

    /// Plays a conversation through a tap: every byte arrives, no other does, and the tap tells what frames tell that came whole.
    async fn converse(
        steps: Vec<Step>,
        tap: Tap,
        mut tapped: Tapped<DuplexStream>,
        mut server: DuplexStream,
    ) -> Frames {
        let mut whole = Frames::default();
        for step in &steps {
            if step.up {
                assert_eq!(pass(step, &mut tapped, &mut server).await, step.bytes);
                whole.sent(&step.bytes);
            } else {
                assert_eq!(pass(step, &mut server, &mut tapped).await, step.bytes);
                whole.received(&step.bytes);
            }
            assert_eq!(told(tap.shared.seen.load(Ordering::Relaxed) & !UNREAD), told(whole.seen().0));
            assert_eq!(tap.statements(), whole.statements());
        }
        let mut rest = Vec::new();
        server.shutdown().await.unwrap();
        tapped.read_to_end(&mut rest).await.unwrap();
        tapped.shutdown().await.unwrap();
        server.read_to_end(&mut rest).await.unwrap();
        assert_eq!(rest, b"");
        whole
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn a_tap_alters_no_byte_and_misses_none(
            greet: bool,
            steps in prop::collection::vec(step(), 0..12),
            capacity in 1_usize..64,
        ) {
            let steps = if greet { [login().to_vec(), steps].concat() } else { steps };
            let (tap, (client, server), alarms) = (Tap::default(), duplex(capacity), Arc::new(Mutex::new(Vec::new())));
            tap.on_fatal({
                let alarms = Arc::clone(&alarms);
                move |code| alarms.lock().unwrap().push(code)
            });
            let tapped = tap.on(client);
            // The clock goes on as soon as nobody can: a byte that never comes ends the test at once.
            let runtime = runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
            let whole = runtime.block_on(async {
                time::timeout(Duration::from_secs(1), converse(steps, tap, tapped, server)).await.expect("every byte arrives")
            });
            prop_assert_eq!(alarms.lock().unwrap().clone(), Vec::from_iter(whole.fatal()));
        }
    }
}
