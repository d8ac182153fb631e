//! How does everybody hear of a change? A value that is posted for all; who has waited longest hears first.

use std::{
    fmt,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
};

use tokio::sync::Notify;

/// A value posted for everybody, by its one owner.
///
/// `tokio::sync::watch` wakes by lot. Here the order is that of waiting: what follows from a change can then be played again.
pub(super) struct Posted<T>(Arc<Shared<T>>);

/// Somebody who reads it, and is counted.
pub struct Reader<T>(Arc<Shared<T>>);

struct Shared<T> {
    value: Mutex<T>,
    changed: Notify,
    readers: AtomicUsize,
    left: Notify,
}

impl<T: Copy> Posted<T> {
    pub(super) fn new(value: T) -> Self {
        Self(Arc::new(Shared {
            value: Mutex::new(value),
            changed: Notify::new(),
            readers: AtomicUsize::new(0),
            left: Notify::new(),
        }))
    }

    /// Changes the value, and wakes whoever waits.
    pub(super) fn change(&self, change: impl FnOnce(&mut T)) {
        change(&mut self.0.lock());
        self.0.changed.notify_waiters();
    }

    pub(super) fn reader(&self) -> Reader<T> {
        self.0.readers.fetch_add(1, Ordering::AcqRel);
        Reader(Arc::clone(&self.0))
    }

    pub(super) fn readers(&self) -> usize {
        self.0.readers.load(Ordering::Acquire)
    }

    /// Waits until nobody reads it any more.
    pub(super) async fn left(&self) {
        loop {
            let left = self.0.left.notified();
            if self.readers() == 0 {
                return;
            }
            left.await;
        }
    }
}

impl<T: Copy> Reader<T> {
    /// The value now.
    #[must_use]
    pub fn value(&self) -> T {
        *self.0.lock()
    }

    /// Waits until the value is as asked, and returns it.
    ///
    /// # Cancel safety
    ///
    /// Cancel safe.
    pub async fn wait_for(&self, is: impl FnMut(&T) -> bool) -> T {
        self.0.wait_for(is).await
    }
}

impl<T: Copy> Shared<T> {
    fn lock(&self) -> MutexGuard<'_, T> {
        self.value.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn wait_for(&self, mut is: impl FnMut(&T) -> bool) -> T {
        loop {
            // Before the look: a change after it is not missed.
            let changed = self.changed.notified();
            let value = *self.lock();
            if is(&value) {
                return value;
            }
            changed.await;
        }
    }
}

impl<T> Drop for Reader<T> {
    fn drop(&mut self) {
        if self.0.readers.fetch_sub(1, Ordering::AcqRel) == 1 {
            self.0.left.notify_waiters();
        }
    }
}

impl<T: Copy + fmt::Debug> fmt::Debug for Posted<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Posted").field(&*self.0.lock()).finish()
    }
}

impl<T: Copy + fmt::Debug> fmt::Debug for Reader<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Reader").field(&*self.0.lock()).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn who_has_waited_longest_hears_first() {
        let (posted, heard) = (Posted::new(0), Arc::new(Mutex::new(Vec::new())));
        let waiting: Vec<_> = (0..20)
            .map(|number| {
                let (reader, heard) = (posted.reader(), Arc::clone(&heard));
                tokio::spawn(async move {
                    let value = reader.wait_for(|value| *value > 0).await;
                    heard.lock().unwrap().push((number, value));
                })
            })
            .collect();
        tokio::task::yield_now().await;
        posted.change(|value| *value = 7);
        for task in waiting {
            task.await.unwrap();
        }
        assert_eq!(*heard.lock().unwrap(), (0..20).map(|number| (number, 7)).collect::<Vec<_>>());
        posted.left().await;
        assert_eq!(posted.readers(), 0);
    }
}
