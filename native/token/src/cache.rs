//! The caches of verified tokens and of verified certificate chains.
//!
//! A key covers the whole credential, so a token with another body and a known signature is another
//! key, and the revision of the trust store, so a change of keys or settings ends all entries.
//! Refusals are not cached. An entry serves until its credential ends, which is checked on every hit by the
//! same code that checks a credential for the first time.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use quick_cache::UnitWeighter;
use quick_cache::sync;
use sha2::{Digest as _, Sha256};

use crate::claims::Times;
use crate::evidence::Role;
use crate::facts::{AgentFacts, CredentialFacts, KeyBinding, PeerFacts, SubjectFacts};

/// Facts of a verified token.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) enum VerifiedToken {
    Agent(Arc<AgentFacts>),
    Subject(Arc<SubjectFacts>),
    /// With the agent that it proves.
    Credential(Arc<CredentialFacts>, Arc<AgentFacts>),
}

/// A verified token: its facts, and the values that are checked at each presentation.
#[derive(Clone, Debug)]
pub(crate) struct CachedToken {
    pub(crate) verified: VerifiedToken,
    pub(crate) times: Times,
    pub(crate) binding: Option<KeyBinding>,
    /// SHA-256 of the whole token.
    pub(crate) token_digest: [u8; 32],
}

/// SHA-256 over the trust revision, the role and the token. The token holds its header, so a hit needs
/// none of it read.
#[derive(Clone, Copy, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub(crate) struct CacheKey([u8; 32]);

/// The hash needs no secret: callers add only credentials that verified, and cannot choose their digests.
type CacheEntries<V> = sync::Cache<CacheKey, V, UnitWeighter, foldhash::fast::FixedState>;

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

    /// The key of a certificate chain in the form of texts, which need not be read to find it.
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
}

/// SHA-256 of all parts, one after the other; never inlined, since one call takes two digests, and its code is large.
#[inline(never)]
fn sha256(parts: &[&[u8]]) -> [u8; 32] {
    parts.iter().fold(Sha256::new(), |hash, part| hash.chain_update(part)).finalize().into()
}

/// Bounded cache that all threads share; an entry may be missing at any time.
pub(crate) struct BoundedCache<V> {
    /// `None` for a capacity of 0, which keeps nothing.
    entries: Option<CacheEntries<V>>,
    hits: AtomicU64,
    misses: AtomicU64,
}

/// Bounded cache of verified tokens. All threads share it; a missing entry costs time and changes no answer.
#[derive(Debug)]
pub struct TokenCache(pub(crate) BoundedCache<CachedToken>);

/// Bounded cache of verified certificate chains. All threads share it; a missing entry costs time and changes no answer.
#[derive(Debug)]
pub struct PeerCache(pub(crate) BoundedCache<PeerFacts>);

macro_rules! public_cache {
    ($name:ident) => {
        impl $name {
            /// Makes an empty cache.
            ///
            /// `capacity` is the number of credentials kept, rounded up to a multiple of the number
            /// of shards (four for each processor); 0 keeps none. An entry takes about the memory of
            /// its credential.
            #[must_use]
            pub fn new(capacity: usize) -> Self {
                Self(BoundedCache::new(capacity))
            }

            /// Credentials that were found since the start.
            #[must_use]
            pub fn hits(&self) -> u64 {
                self.0.hits.load(Ordering::Relaxed)
            }

            /// Well-formed credentials that were not found since the start.
            #[must_use]
            pub fn misses(&self) -> u64 {
                self.0.misses.load(Ordering::Relaxed)
            }

            /// Credentials in the cache, with those that have expired since.
            #[must_use]
            pub fn len(&self) -> usize {
                self.0.entries.as_ref().map_or(0, CacheEntries::len)
            }

            /// Returns whether the cache is empty.
            #[must_use]
            pub fn is_empty(&self) -> bool {
                self.len() == 0
            }
        }
    };
}

public_cache!(TokenCache);
public_cache!(PeerCache);

impl<V: Clone> BoundedCache<V> {
    fn new(capacity: usize) -> Self {
        let entries = (capacity > 0).then(|| {
            CacheEntries::with(
                capacity,
                u64::try_from(capacity).unwrap_or(u64::MAX),
                UnitWeighter,
                foldhash::fast::FixedState::default(),
                sync::DefaultLifecycle::default(),
            )
        });
        Self { entries, hits: AtomicU64::new(0), misses: AtomicU64::new(0) }
    }

    /// The entry of that key; the caller checks its times.
    pub(crate) fn find(&self, key: &CacheKey) -> Option<V> {
        let value = self.entries.as_ref()?.get(key)?;
        self.hits.fetch_add(1, Ordering::Relaxed);
        Some(value)
    }

    /// Counts a well-formed credential that was not found.
    pub(crate) fn missed(&self) {
        self.misses.fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn insert(&self, key: CacheKey, value: V) {
        if let Some(entries) = &self.entries {
            entries.insert(key, value);
        }
    }
}

impl<V> std::fmt::Debug for BoundedCache<V> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("BoundedCache").field("hits", &self.hits).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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
