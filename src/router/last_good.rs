//! The last good values of reads, for when there is no live one: bounded in number and in age.

use std::{
    any::{Any, TypeId},
    fmt,
    sync::Arc,
    time::{Duration, Instant},
};

use moka::{Expiry, policy::EvictionPolicy, sync::Cache};

use crate::config::AliasName;

/// Values by alias, key and type, so that no two of them are mistaken for each other.
type Key = (AliasName, TypeId, Box<str>);

/// The last good value of each key, of all aliases together.
pub(super) struct LastGood {
    values: Cache<Key, Good>,
    size: usize,
}

#[derive(Clone)]
struct Good {
    value: Arc<dyn Any + Send + Sync>,
    /// When it was asked for: it is no older than this.
    since: Instant,
    keep: Duration,
}

/// Frees what nobody would take any more. Who takes one looks at its age by the crate's own clock.
struct Spent;

impl Expiry<Key, Good> for Spent {
    fn expire_after_create(&self, _: &Key, good: &Good, _: Instant) -> Option<Duration> {
        Some(good.keep)
    }

    fn expire_after_update(&self, _: &Key, good: &Good, _: Instant, _: Option<Duration>) -> Option<Duration> {
        Some(good.keep)
    }
}

impl LastGood {
    /// Room for so many values; those used longest ago go first.
    pub(super) fn of_size(size: usize) -> Self {
        let values = Cache::builder().max_capacity(size as u64).eviction_policy(EvictionPolicy::lru());
        Self { values: values.expire_after(Spent).build(), size }
    }

    pub(super) fn size(&self) -> usize {
        self.size
    }

    pub(super) fn keep<T: Send + Sync + 'static>(
        &self,
        place: (&AliasName, &str),
        value: T,
        (since, keep): (Instant, Duration),
    ) {
        self.values.insert(key::<T>(place), Good { value: Arc::new(value), since, keep });
    }

    /// Lets go at once of what is too much; else that happens by and by.
    #[cfg(test)]
    pub(super) fn settle(&self) {
        self.values.run_pending_tasks();
    }

    /// The last value of this type, and how old it is at `now`.
    pub(super) fn find<T: Clone + 'static>(&self, place: (&AliasName, &str), now: Instant) -> Option<(T, Duration)> {
        let good = self.values.get(&key::<T>(place))?;
        Some((good.value.downcast_ref::<T>()?.clone(), now.saturating_duration_since(good.since)))
    }
}

fn key<T: 'static>((alias, key): (&AliasName, &str)) -> Key {
    (alias.clone(), TypeId::of::<T>(), key.into())
}

impl fmt::Debug for LastGood {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LastGood").field("size", &self.size).finish_non_exhaustive()
    }
}
