//! Newest bundles of trust domains.

use std::borrow::Cow;
use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::record::StoredValue;
use crate::time::Time;

/// Newest bundle of a SPIFFE trust domain that any node has used. An older bundle is refused, also after a restart.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct TrustDomain {
    /// Name of the trust domain.
    pub id: String,
    /// Number of times that an operator accepted a new count of the domain's bundles.
    #[serde(default)]
    pub epoch: u32,
    /// `spiffe_sequence` of the newest bundle.
    pub sequence: u64,
    /// First use of that bundle.
    pub at: Time,
    /// Members that this version does not know.
    #[serde(flatten)]
    pub rest: BTreeMap<String, serde_json::Value>,
}

// Never removed: an older bundle of the domain would be accepted again.
impl StoredValue for TrustDomain {
    fn record_id(&self) -> Cow<'_, str> {
        Cow::Borrowed(&self.id)
    }
}
