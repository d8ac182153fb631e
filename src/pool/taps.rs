//! Which tap belongs to a client that has no place for one? A register by the client's key, looked at when it comes back.

use std::{cell::RefCell, sync::Arc};

use arc_swap::{ArcSwapOption, Cache};

use super::Tap;

/// Few connections share a shard, so that a look takes no longer where there are many.
const SHARDS: usize = 64;

type Shard = ArcSwapOption<Entries>;

type Entries = Vec<(usize, Tap)>;

/// One register for the whole process: a key is an address, and those are of the process too. To find the register through
/// each connection would cost every loan more than the look.
static REGISTER: [Shard; SHARDS] = [const { Shard::const_empty() }; SHARDS];

type Known = Option<Cache<&'static Shard, Option<Arc<Entries>>>>;

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
pub(super) fn look<T>(key: usize, question: impl Fn(&Tap) -> T) -> Option<T> {
    let shard = shard(key);
    let ask = |entries: &Option<Arc<Entries>>| {
        entries.as_ref()?.iter().find(|(known, _)| *known == key).map(|(_, tap)| question(tap))
    };
    let seen = SEEN.try_with(|seen| {
        let mut seen = seen.borrow_mut();
        ask(seen[shard].get_or_insert_with(|| Cache::new(&REGISTER[shard])).load())
    });
    // A thread that is ending has forgotten what it saw, and may still hold leases.
    seen.unwrap_or_else(|_| ask(&REGISTER[shard].load()))
}

/// Addresses differ least in their lowest bits; the multiplication spreads the others (Fibonacci hashing).
#[inline]
fn shard(key: usize) -> usize {
    ((key as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> (64 - SHARDS.trailing_zeros())) as usize
}

#[cfg(test)]
mod tests {
    use std::{
        sync::{Barrier, mpsc},
        thread,
    };

    use super::{super::tap::Gauge, *};
    use crate::config::SessionReset;

    /// Keys of one shard that no client has: nothing is kept at the top of the address space.
    fn keys(of: usize) -> impl Iterator<Item = usize> {
        (0..).map(|below| usize::MAX - below).filter(move |key| shard(*key) == of)
    }

    /// Keeps the tap of a client under this key. Its session ends when it is dropped.
    fn client(key: usize) -> Gauge {
        let tap = Tap::default();
        let session = tap.gauge(SessionReset::None);
        keep(key, Some(tap));
        session
    }

    /// Whether the session of that client is over, as this thread knows it.
    fn has_ended(key: usize) -> Option<bool> {
        look(key, Tap::has_ended)
    }

    #[test]
    fn a_key_that_is_used_again_is_the_new_clients_also_to_a_thread_that_has_looked_before() {
        let key = keys(0).next().unwrap();
        let before = client(key);
        assert_eq!(has_ended(key), Some(false));
        drop(before);
        let _new = thread::spawn(move || client(key)).join().unwrap();
        assert_eq!(has_ended(key), Some(false));
    }

    #[test]
    fn a_key_may_be_used_again_before_the_session_that_had_it_is_over() {
        let key = keys(1).next().unwrap();
        let (before, _new) = (client(key), client(key));
        drop(before);
        assert_eq!(has_ended(key), Some(false));
        keep(key, None);
        assert_eq!(has_ended(key), None, "a client without a tap has not its predecessor's");
    }

    #[test]
    fn the_tap_of_an_ended_session_is_gone_after_the_next_client_whatever_its_shard() {
        let [ended, next] = [2, 3].map(|shard| keys(shard).next().unwrap());
        drop(client(ended));
        let _next = client(next);
        assert_eq!(has_ended(ended), None);
    }

    #[test]
    fn a_thread_that_is_ending_still_knows_the_taps_of_the_leases_it_holds() {
        struct Holder(usize, mpsc::Sender<Option<bool>>);
        impl Drop for Holder {
            fn drop(&mut self) {
                self.1.send(has_ended(self.0)).unwrap();
            }
        }
        thread_local! {
            static HELD: RefCell<Option<Holder>> = const { RefCell::new(None) };
        }
        let key = keys(5).next().unwrap();
        let _client = client(key);
        let (found, at_the_end) = mpsc::channel();
        let holds = move || {
            HELD.set(Some(Holder(key, found)));
            // What was used first ends last.
            assert_eq!(has_ended(key), Some(false));
            assert!(SEEN.try_with(|_| ()).is_ok());
        };
        thread::spawn(holds).join().unwrap();
        assert_eq!(at_the_end.recv().unwrap(), Some(false));
    }

    #[test]
    fn two_threads_that_keep_taps_in_one_shard_while_sessions_end_there_lose_none() {
        let begin = Barrier::new(2);
        // The key of each has just been another's.
        let keep_every_second = |first: usize| {
            begin.wait();
            let again = |key| {
                drop(client(key));
                (key, client(key))
            };
            keys(4).skip(first).step_by(2).take(300).map(again).collect::<Vec<_>>()
        };
        let [one, other] = thread::scope(|scope| {
            [0, 1].map(|first| scope.spawn(move || keep_every_second(first))).map(|thread| thread.join().unwrap())
        });
        let lost = one.iter().chain(&other).filter(|(key, _)| has_ended(*key) != Some(false)).count();
        assert_eq!(lost, 0, "of 600");
    }
}
