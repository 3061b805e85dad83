//! The caches of verified tokens and of verified certificate chains.
//!
//! A key covers the whole credential, so a token with another body and a known signature is another
//! key, and the revision of the trust store, so a change of keys or settings ends what was cached.
//! Only what verified is kept; refusals are not. An entry serves until its credential ends, which is
//! checked on every hit by the same code that checks a credential for the first time.

use std::collections::{HashMap, VecDeque};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use sha2::{Digest as _, Sha256};

use crate::claims::Times;
use crate::facts::{AgentFacts, Binding, CredentialFacts, Role, SubjectFacts};
use crate::peer::PeerFacts;

/// What a verified token says.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) enum Verified {
    Agent(Arc<AgentFacts>),
    Subject(Arc<SubjectFacts>),
    /// With the agent that it proves.
    Credential(Arc<CredentialFacts>, Arc<AgentFacts>),
}

/// What is kept of a verified token: what it says, and what is asked of each presentation anew.
#[derive(Clone, Debug)]
pub(crate) struct Kept {
    pub(crate) verified: Verified,
    pub(crate) times: Times,
    pub(crate) binding: Option<Binding>,
    /// SHA-256 of the whole token.
    pub(crate) token_digest: [u8; 32],
}

/// SHA-256 over the trust revision, the role and the token. The token holds its header, so a hit needs
/// none of it read.
#[derive(Clone, Copy, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub(crate) struct CacheKey([u8; 32]);

/// Whoever asks adds only what verified, and cannot choose its digest: the hash needs no secret.
type Entries<V> = HashMap<CacheKey, Entry<V>, foldhash::fast::FixedState>;

impl CacheKey {
    pub(crate) fn new(revision: &[u8; 32], role: Role, token: &str) -> Self {
        let role = match role {
            Role::Agent => 1,
            Role::Subject => 2,
        };
        // INVARIANT (unambiguous): all before the token is of fixed length.
        Self(sha256(&[b"authz.token.cache.2\0", revision, &[role], token.as_bytes()]))
    }

    /// The key of a certificate chain: SHA-256 over the trust revision and each certificate with its
    /// length.
    pub(crate) fn of_chain(revision: &[u8; 32], chain: &[&[u8]]) -> Self {
        Self::of_parts(b"authz.peer.cache.1\0", revision, chain)
    }

    /// The key of a certificate chain that is written as texts, so that they need not be read to find
    /// it.
    pub(crate) fn of_texts(revision: &[u8; 32], texts: &[&[u8]]) -> Self {
        Self::of_parts(b"authz.peer.cache.text.1\0", revision, texts)
    }

    fn of_parts(kind: &[u8], revision: &[u8; 32], parts: &[&[u8]]) -> Self {
        let mut hash = Sha256::new().chain_update(kind).chain_update(revision);
        for part in parts {
            let length = u64::try_from(part.len()).unwrap_or(u64::MAX);
            hash.update(length.to_be_bytes());
            hash.update(part);
        }
        Self(hash.finalize().into())
    }

    fn shard(&self) -> usize {
        self.0.first().copied().map_or(0, usize::from)
    }
}

/// SHA-256 of all parts, one after the other; never inlined, since one call takes two digests, and its code is large.
#[inline(never)]
fn sha256(parts: &[&[u8]]) -> [u8; 32] {
    parts.iter().fold(Sha256::new(), |hash, part| hash.chain_update(part)).finalize().into()
}

struct Entry<V> {
    value: V,
    /// Read since it was last considered for eviction.
    used: bool,
}

struct Shard<V> {
    // INVARIANT (one each): `order` holds each key of `entries` exactly once.
    entries: Entries<V>,
    order: VecDeque<CacheKey>,
    /// Counted here, where nobody else writes at the same time.
    hits: u64,
}

impl<V> Default for Shard<V> {
    fn default() -> Self {
        Self { entries: Entries::default(), order: VecDeque::new(), hits: 0 }
    }
}

/// A bounded store; safe to share, at worst empty.
pub(crate) struct Cache<V> {
    shards: Vec<Mutex<Shard<V>>>,
    shard_capacity: usize,
    misses: AtomicU64,
}

/// A bounded store of verified tokens; safe to share, never wrong, at worst empty.
#[derive(Debug)]
pub struct TokenCache(pub(crate) Cache<Kept>);

/// A bounded store of verified certificate chains; safe to share, never wrong, at worst empty.
#[derive(Debug)]
pub struct PeerCache(pub(crate) Cache<PeerFacts>);

macro_rules! public_cache {
    ($name:ident) => {
        impl $name {
            /// Makes an empty cache.
            ///
            /// Args: `capacity`: most credentials kept; 0 keeps none. An entry takes about the
            /// memory of its credential.
            #[must_use]
            pub fn new(capacity: usize) -> Self {
                Self(Cache::new(capacity))
            }

            /// Returns: how many credentials were found since the start.
            #[must_use]
            pub fn hits(&self) -> u64 {
                self.0.sum(|shard| shard.hits)
            }

            /// Returns: how many well-formed credentials were not found since the start.
            #[must_use]
            pub fn misses(&self) -> u64 {
                self.0.misses.load(Ordering::Relaxed)
            }

            /// Returns: how many credentials are kept, those that have expired since included.
            #[must_use]
            pub fn len(&self) -> usize {
                usize::try_from(self.0.sum(|shard| shard.entries.len() as u64))
                    .unwrap_or(usize::MAX)
            }

            /// Returns: whether no credential is kept.
            #[must_use]
            pub fn is_empty(&self) -> bool {
                self.len() == 0
            }
        }
    };
}

public_cache!(TokenCache);
public_cache!(PeerCache);

impl<V: Clone> Cache<V> {
    fn new(capacity: usize) -> Self {
        let count = capacity.min(SHARDS);
        Self {
            shards: (0..count).map(|_| Mutex::default()).collect(),
            shard_capacity: capacity.checked_div(count).unwrap_or(0),
            misses: AtomicU64::new(0),
        }
    }

    fn sum(&self, of: impl Fn(&Shard<V>) -> u64) -> u64 {
        self.shards.iter().map(|shard| shard.lock().map_or(0, |shard| of(&shard))).sum()
    }

    /// The entry of that key; the caller checks its times.
    pub(crate) fn find(&self, key: &CacheKey) -> Option<V> {
        // A poisoned shard is a miss: the credential is verified anew.
        let mut shard = self.shard(key)?.lock().ok()?;
        let entry = shard.entries.get_mut(key)?;
        entry.used = true;
        let value = entry.value.clone();
        shard.hits = shard.hits.saturating_add(1);
        Some(value)
    }

    /// Counts a well-formed credential that was not found.
    pub(crate) fn missed(&self) {
        self.misses.fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn insert(&self, key: CacheKey, value: V) {
        let Some(Ok(mut shard)) = self.shard(&key).map(Mutex::lock) else {
            return;
        };
        let shard = &mut *shard;
        if let Some(entry) = shard.entries.get_mut(&key) {
            // Verified twice at once; both found the same.
            entry.value = value;
            return;
        }
        let mut chances = SECOND_CHANCES;
        while shard.entries.len() >= self.shard_capacity {
            let Some(oldest) = shard.order.pop_front() else {
                return;
            };
            match shard.entries.get_mut(&oldest) {
                Some(entry) if entry.used && chances > 0 => {
                    chances -= 1;
                    entry.used = false;
                    shard.order.push_back(oldest);
                }
                _ => {
                    shard.entries.remove(&oldest);
                }
            }
        }
        // INVARIANT (one each): `key` was in neither.
        shard.order.push_back(key);
        shard.entries.insert(key, Entry { value, used: false });
    }

    fn shard(&self, key: &CacheKey) -> Option<&Mutex<Shard<V>>> {
        self.shards.get(key.shard().checked_rem(self.shards.len())?)
    }
}

impl<V> std::fmt::Debug for Cache<V> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Cache")
            .field("shards", &self.shards.len())
            .field("shard_capacity", &self.shard_capacity)
            .finish_non_exhaustive()
    }
}

const SHARDS: usize = 16;
/// How many entries in use are passed over before one is evicted all the same.
const SECOND_CHANCES: u32 = 8;

#[cfg(test)]
mod tests {
    #![expect(clippy::panic, clippy::unwrap_used, reason = "tests")]

    use super::*;
    use crate::claims::{self, TimeLimits};
    use crate::facts::AgentProof;

    fn entry(byte: u8) -> (CacheKey, Kept) {
        let claims = claims::read(br#"{"exp":1}"#).unwrap();
        let times = Times::read(&claims, &TimeLimits { leeway: 0, max_lifetime: None }).unwrap();
        let facts = AgentFacts {
            spiffe_id: String::new(),
            trust_domain: String::new(),
            proof: AgentProof::JwtSvid,
            kid: None,
            issued_at: None,
            expires_at: Some(1),
            token_digest: Some([byte; 32]),
            certificate_digest: None,
            jti: None,
            bound: false,
            audiences: Vec::new(),
        };
        let kept = Kept {
            verified: Verified::Agent(Arc::new(facts)),
            times,
            binding: None,
            token_digest: [byte; 32],
        };
        (CacheKey([byte; 32]), kept)
    }

    /// After a thread died holding a shard, the cache misses and does not panic.
    #[test]
    fn a_poisoned_shard_is_a_miss() {
        let cache = Cache::new(1);
        let (key, value) = entry(7);
        cache.insert(key, value.clone());
        assert!(cache.find(&key).is_some());
        let died = std::thread::scope(|scope| {
            scope
                .spawn(|| {
                    let _guard = cache.shards.first().unwrap().lock().unwrap();
                    panic!("the thread dies");
                })
                .join()
                .is_err()
        });
        assert!(died);
        assert!(cache.find(&key).is_none());
        cache.insert(key, value);
        assert_eq!(0, cache.sum(|shard| shard.entries.len() as u64));
    }

    /// The queue holds each key once, whatever is inserted and found, and used entries outlive
    /// unused ones.
    #[test]
    fn the_queue_holds_each_key_once() {
        let cache = Cache::new(64);
        let (kept, value) = entry(0);
        cache.insert(kept, value);
        for byte in 1..=255 {
            let (key, value) = entry(byte);
            cache.insert(key, value.clone());
            cache.insert(key, value);
            assert!(cache.find(&kept).is_some(), "in use, so kept");
            for shard in &cache.shards {
                let shard = shard.lock().unwrap();
                let order: std::collections::BTreeSet<_> = shard.order.iter().collect();
                assert_eq!(shard.order.len(), order.len());
                let entries: std::collections::BTreeSet<_> = shard.entries.keys().collect();
                assert!(entries == order);
            }
        }
    }

    /// Revision, role and token each make another key.
    #[test]
    fn each_part_makes_another_key() {
        let keys = [
            CacheKey::new(&[0; 32], Role::Agent, "ab"),
            CacheKey::new(&[1; 32], Role::Agent, "ab"),
            CacheKey::new(&[0; 32], Role::Subject, "ab"),
            CacheKey::new(&[0; 32], Role::Agent, "b"),
            CacheKey::new(&[0; 32], Role::Agent, ""),
        ];
        let distinct: std::collections::BTreeSet<_> = keys.into_iter().collect();
        assert_eq!(5, distinct.len());
    }
}
