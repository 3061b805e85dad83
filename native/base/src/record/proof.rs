//! Proofs of possession that were used.

use std::borrow::Cow;
use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::record::StoredValue;
use crate::time::Time;

/// Proof of possession that was used, and is not accepted again; or the tally of one key's proofs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Proof {
    /// `<thumbprint of the key>/<SHA-256 of its jti, in hex>`; of a tally the thumbprint alone.
    pub id: String,
    /// Time from which it would be refused anyway; of a tally, the latest of its proofs.
    pub expires_at: Time,
    /// Of a tally: number of proofs that end within each [`Self::SLOT_MS`], by the number of that slot since 1970.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub counts: BTreeMap<i64, u32>,
}

impl StoredValue for Proof {
    fn record_id(&self) -> Cow<'_, str> {
        Cow::Borrowed(&self.id)
    }

    fn record_due(&self) -> Option<Time> {
        Some(self.expires_at)
    }
}

impl Proof {
    /// Grain of a tally, in milliseconds.
    pub const SLOT_MS: i64 = 5_000;

    /// Empty tally of a key.
    #[must_use]
    pub fn tally(thumbprint: &str) -> Self {
        Self { id: thumbprint.to_owned(), expires_at: Time(0), counts: BTreeMap::new() }
    }

    /// Counts one more proof that ends at `expires_at`, unless `most` are live. A proof counts until its slot is over.
    ///
    /// Returns whether the proof was counted.
    pub fn count(&mut self, expires_at: Time, now: Time, most: u32) -> bool {
        self.counts = self.counts.split_off(&now.0.div_euclid(Self::SLOT_MS));
        if self.counts.values().fold(0_u32, |sum, count| sum.saturating_add(*count)) >= most {
            return false;
        }
        let slot = self.counts.entry(expires_at.0.div_euclid(Self::SLOT_MS)).or_default();
        *slot = slot.saturating_add(1);
        self.expires_at = self.expires_at.max(expires_at);
        true
    }
}
