//! The word that tells whether a connection is clean, in every order in which threads may meet at it: the same source over loom's
//! atomics.
//!
//! A `cfg(loom)` would reach the runtime too, which then has no sockets. So the file is compiled here once more, with other atomics
//! above it, and the models run in every test.

use loom::{
    model::Builder,
    sync::{Arc, Condvar, Mutex, atomic::AtomicUsize},
    thread,
};

use self::{
    atomic::{AtomicBool, Ordering},
    condition::Condition,
    word::{OWED, STARTED, Word, Writer},
};

#[expect(dead_code, unreachable_pub, reason = "a model needs a part of it")]
#[path = "../src/pool/condition.rs"]
mod condition;
#[expect(dead_code, reason = "a model needs a part of it")]
#[path = "../src/pool/word.rs"]
mod word;

mod atomic {
    pub(super) use loom::sync::atomic::{AtomicU64, Ordering, fence};

    /// Loom takes `SeqCst` for `AcqRel`, but at fences. So a `SeqCst` load has one before it here: on machines whose loads are
    /// weak that is how it is compiled.
    #[derive(Debug, Default)]
    pub(super) struct AtomicBool(loom::sync::atomic::AtomicBool);

    impl AtomicBool {
        pub(super) fn load(&self, order: Ordering) -> bool {
            if order == Ordering::SeqCst {
                fence(order);
            }
            self.0.load(order)
        }

        pub(super) fn store(&self, value: bool, order: Ordering) {
            self.0.store(value, order);
        }

        pub(super) fn swap(&self, value: bool, order: Ordering) -> bool {
            self.0.swap(value, order)
        }
    }
}

fn check(model: impl Fn() + Send + Sync + 'static) {
    let mut builder = Builder::new();
    // More switches than that find no more and take for ever.
    builder.preemption_bound = Some(3);
    builder.check(model);
}

/// What of a connection counts here: the word, the driver's queue, and what has left of it.
#[derive(Default)]
struct Line {
    word: Word,
    queued: AtomicUsize,
    waker: SessionWaker,
    written: AtomicUsize,
}

impl Line {
    /// What the driver's client does for a query, before its future first returns.
    fn queue(&self) {
        self.queued.fetch_add(1, Ordering::Release);
        if self.waker.take() {
            self.word.stir();
        }
    }

    /// As the driver's receiver: looks, leaves its waker, and looks again, until there is nothing.
    fn write_all(&self) {
        let mut written = self.written.load(Ordering::Relaxed);
        loop {
            let mut queued = self.queued.load(Ordering::Acquire);
            if queued == written {
                self.waker.leave(|| self.word.stir());
                queued = self.queued.load(Ordering::Acquire);
            }
            if queued == written {
                return;
            }
            written = queued;
            self.written.store(written, Ordering::Relaxed);
        }
    }

    fn turn(&self, writer: &mut Writer) {
        writer.begin(&self.word);
        self.write_all();
        assert!(!writer.finish(&self.word, STARTED), "nobody watches");
    }

    fn is_clean(&self) -> bool {
        self.word.condition() == Condition::Clean
    }

    fn has_written(&self, count: usize) -> bool {
        self.written.load(Ordering::Relaxed) >= count
    }
}

/// The `AtomicWaker` of the driver's queue, order by order: who wakes while a waker is being left leaves the waking to the session.
#[derive(Default)]
struct SessionWaker {
    state: AtomicUsize,
    is_there: AtomicBool,
}

const WAITING: usize = 0;
const REGISTERING: usize = 1;
const WAKING: usize = 2;

impl SessionWaker {
    /// Whether there is one to be called.
    fn take(&self) -> bool {
        let found = self.state.fetch_or(WAKING, Ordering::AcqRel) == WAITING;
        found && {
            let is_there = self.is_there.swap(false, Ordering::Relaxed);
            self.state.swap(WAITING, Ordering::Release);
            is_there
        }
    }

    fn leave(&self, wake: impl Fn()) {
        let (acquire, both) = (Ordering::Acquire, Ordering::AcqRel);
        if self.state.compare_exchange(WAITING, REGISTERING, acquire, acquire).is_err() {
            return wake();
        }
        self.is_there.store(true, Ordering::Relaxed);
        if self.state.compare_exchange(REGISTERING, WAITING, both, acquire).is_err() {
            self.is_there.store(false, Ordering::Relaxed);
            self.state.swap(WAITING, both);
            wake();
        }
    }
}

#[test]
fn what_is_queued_and_not_yet_written_is_never_taken_for_clean() {
    check(|| {
        let line = Arc::new(Line::default());
        let mut writer = Writer::new(&line.word, STARTED, 0);
        assert!(!line.is_clean(), "the driver cannot wake it yet");
        line.turn(&mut writer);
        assert!(line.is_clean());
        let session = thread::spawn({
            let line = Arc::clone(&line);
            move || {
                (0..2).for_each(|_| line.turn(&mut writer));
                writer
            }
        });
        for count in 1..=2 {
            line.queue();
            assert!(!line.is_clean() || line.has_written(count));
        }
        let mut writer = session.join().expect("it does not panic");
        assert!(!line.is_clean() || line.has_written(2), "the turn that ended last has left it stirred");
        line.turn(&mut writer);
        assert!(line.is_clean() && line.has_written(2));
    });
}

#[test]
fn a_session_that_grows_too_old_during_a_turn_stays_so() {
    check(|| {
        let line = Arc::new(Line::default());
        let mut writer = Writer::new(&line.word, STARTED, 0);
        let timer = thread::spawn({
            let line = Arc::clone(&line);
            move || line.word.spend()
        });
        (0..2).for_each(|_| line.turn(&mut writer));
        timer.join().expect("it does not panic");
        assert_eq!(line.word.condition(), Condition::Dirty);
        line.turn(&mut writer);
        assert_eq!(line.word.condition(), Condition::Dirty);
    });
}

/// As the runtime's `Notify`: wakes all who stood in line before.
#[derive(Default)]
struct Settled {
    times: Mutex<usize>,
    again: Condvar,
}

impl Settled {
    fn times(&self) -> usize {
        *self.times.lock().expect("nobody panics")
    }

    fn wait_after(&self, before: usize) {
        let mut times = self.times.lock().expect("nobody panics");
        while *times == before {
            times = self.again.wait(times).expect("nobody panics");
        }
    }

    fn tell(&self) {
        *self.times.lock().expect("nobody panics") += 1;
        self.again.notify_all();
    }
}

/// Waits as the tap does.
fn settle(word: &Word, settled: &Settled) -> Condition {
    loop {
        let before = settled.times();
        match word.watch() {
            Condition::Busy => settled.wait_after(before),
            condition => return condition,
        }
    }
}

#[test]
fn the_turn_that_ends_what_was_under_way_wakes_everybody_who_waits_for_that() {
    check(|| {
        let line = Arc::new((Word::default(), Settled::default()));
        let mut writer = Writer::new(&line.0, STARTED, 0);
        let waiting = thread::spawn({
            let line = Arc::clone(&line);
            move || settle(&line.0, &line.1)
        });
        let session = thread::spawn({
            let line = Arc::clone(&line);
            move || {
                for seen in [STARTED | 1 << OWED, STARTED] {
                    writer.begin(&line.0);
                    if writer.finish(&line.0, seen) {
                        line.1.tell();
                    }
                }
            }
        });
        // Whom nobody wakes waits for ever, which loom reports.
        let found = [settle(&line.0, &line.1), waiting.join().expect("it does not panic")];
        session.join().expect("it does not panic");
        assert_eq!(found, [Condition::Clean; 2]);
    });
}
