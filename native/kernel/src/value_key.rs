//! Key of the fingerprints of values.

use std::fmt;
use std::hash::Hasher as _;

use authz_base::record::history::ValueFingerprint;
use siphasher::sip128::{Hasher128 as _, SipHasher24};

/// Key of the fingerprints of values, for SipHash-2-4 with 128 bits: without the key nobody can compute a fingerprint, or make
/// two values meet.
#[derive(Clone)]
pub struct ValueKey(u64, u64);

impl fmt::Debug for ValueKey {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("ValueKey")
    }
}

impl ValueKey {
    /// Takes the first half of 32 random bytes that serve nothing else.
    #[must_use]
    pub fn new(bytes: &[u8; 32]) -> Self {
        let (halves, _) = bytes.as_chunks::<8>();
        let half = |index: usize| halves.get(index).copied().map_or(0, u64::from_le_bytes);
        Self(half(0), half(1))
    }

    /// Fingerprint of an id, as its collection knows it.
    #[must_use]
    pub fn id(&self, system: &str, collection: &str, id: &str) -> ValueFingerprint {
        self.hash(["id", system, collection, id])
    }

    /// Fingerprint of a destination by its name: kind and canonical form.
    #[must_use]
    pub fn destination(&self, name: &str) -> ValueFingerprint {
        self.hash(["destination", "", "", name])
    }

    /// Fingerprint of a word in the names of a collection, by its keyed print.
    #[must_use]
    pub fn word(&self, system: &str, collection: &str, word: u64) -> ValueFingerprint {
        self.hash(["word", system, collection, &format!("{word:x}")])
    }

    /// Fingerprint of a value that a person endorses: its role, its namespace and its canonical form.
    #[must_use]
    pub fn endorsed(&self, role: &str, system: &str, space: &str, value: &str) -> ValueFingerprint {
        // Names of roles, of forms and of collections hold no slash.
        self.hash(["endorsed", system, &format!("{role}/{space}"), value])
    }

    fn hash(&self, parts: [&str; 4]) -> ValueFingerprint {
        let mut hasher = SipHasher24::new_with_keys(self.0, self.1);
        // Names of systems and collections hold no NUL, so that two lists of parts never read the same.
        for part in parts {
            hasher.write(part.as_bytes());
            hasher.write(&[0]);
        }
        ValueFingerprint::of(hasher.finish128().as_u128())
    }
}
