//! Which tap belongs to a client that has no place for one? A register by the client's key, looked at when it comes back.

use std::sync::{PoisonError, RwLock};

use super::Tap;

/// Few connections share a shard, so that neither a look nor who else looks takes long.
const SHARDS: usize = 64;

type Shard = RwLock<Vec<(usize, Tap)>>;

/// One register for the whole process: a key is an address, and those are of the process too. To find the register through
/// each connection would cost every loan more than the look.
static REGISTER: [Line; SHARDS] = [const { Line(RwLock::new(Vec::new())) }; SHARDS];

/// A cache line of its own: looks at one shard must not slow those at the next.
#[repr(align(128))]
struct Line(Shard);

/// Keeps the tap of a new client, and forgets those of clients that are gone: their addresses may come again.
pub(super) fn keep(key: usize, tap: Option<Tap>) {
    for line in &REGISTER {
        let mut shard = line.0.write().unwrap_or_else(PoisonError::into_inner);
        shard.retain(|(known, tap)| *known != key && !tap.is_orphan());
    }
    if let Some(tap) = tap {
        shard(key).write().unwrap_or_else(PoisonError::into_inner).push((key, tap));
    }
}

/// What `question` finds at the tap of this client, if it has one.
#[inline]
pub(super) fn look<T>(key: usize, question: impl FnOnce(&Tap) -> T) -> Option<T> {
    let shard = shard(key).read().unwrap_or_else(PoisonError::into_inner);
    shard.iter().find(|(known, _)| *known == key).map(|(_, tap)| question(tap))
}

/// Addresses differ least in their lowest bits; the multiplication spreads the others (Fibonacci hashing).
#[inline]
fn shard(key: usize) -> &'static Shard {
    let spread = (key as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> (64 - SHARDS.trailing_zeros());
    &REGISTER[spread as usize].0
}
