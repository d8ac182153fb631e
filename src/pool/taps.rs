//! Which tap belongs to a client that has no place for one? A register by the client's key, looked at when it comes back.

use std::{cell::RefCell, sync::Arc};

use arc_swap::{ArcSwapOption, Cache};

use super::Tap;

/// Few connections share a shard, so that a look takes no longer where there are many.
const SHARDS: usize = 64;

type Shard = ArcSwapOption<Vec<(usize, Tap)>>;

/// One register for the whole process: a key is an address, and those are of the process too. To find the register through
/// each connection would cost every loan more than the look.
static REGISTER: [Shard; SHARDS] = [const { Shard::const_empty() }; SHARDS];

type Known = Option<Cache<&'static Shard, Option<Arc<Vec<(usize, Tap)>>>>>;

thread_local! {
    /// The register as this thread saw it last: a look writes nothing that another thread reads.
    static SEEN: RefCell<[Known; SHARDS]> = const { RefCell::new([const { None }; SHARDS]) };
}

/// Keeps the tap of a new client, and forgets those of sessions that are over: their keys may come again.
pub(super) fn keep(key: usize, tap: Option<Tap>) {
    let is_over = |(known, tap): &(usize, Tap)| *known == key || tap.has_ended();
    for shard in &REGISTER {
        if shard.load().iter().flat_map(|entries| entries.iter()).any(is_over) {
            shard.rcu(|entries| {
                let kept = entries.iter().flat_map(|entries| entries.iter()).filter(|entry| !is_over(entry));
                Some(Arc::new(kept.cloned().collect()))
            });
        }
    }
    let Some(tap) = tap else { return };
    REGISTER[shard(key)].rcu(|entries| {
        let known = entries.iter().flat_map(|entries| entries.iter().cloned());
        Some(Arc::new(known.chain([(key, tap.clone())]).collect()))
    });
}

/// What `question` finds at the tap of this client, if it has one and its session is not long over.
#[inline]
pub(super) fn look<T>(key: usize, question: impl FnOnce(&Tap) -> T) -> Option<T> {
    let ask = |seen: &RefCell<[Known; SHARDS]>| {
        let (mut seen, shard) = (seen.borrow_mut(), shard(key));
        let entries = seen[shard].get_or_insert_with(|| Cache::new(&REGISTER[shard])).load().as_ref()?;
        entries.iter().find(|(known, _)| *known == key).map(|(_, tap)| question(tap))
    };
    // A thread that is ending knows nothing any more.
    SEEN.try_with(ask).ok().flatten()
}

/// Addresses differ least in their lowest bits; the multiplication spreads the others (Fibonacci hashing).
#[inline]
fn shard(key: usize) -> usize {
    ((key as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> (64 - SHARDS.trailing_zeros())) as usize
}
