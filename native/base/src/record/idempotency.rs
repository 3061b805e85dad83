//! Answers to idempotency keys.

use std::borrow::Cow;

use serde::{Deserialize, Serialize};

use crate::record::StoredValue;
use crate::time::Time;

/// Answer to an enforcer's idempotency key.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Idempotency {
    /// `<scope>/<hash of the key>`: the scope is the caller's, so that callers do not share keys.
    pub id: String,
    /// SHA-256 of the request, in hex.
    pub digest: String,
    /// The answer, encoded.
    #[serde(with = "base64_text")]
    pub answer: Vec<u8>,
    /// Time at which it may be forgotten.
    pub expires_at: Time,
}

impl StoredValue for Idempotency {
    fn record_id(&self) -> Cow<'_, str> {
        Cow::Borrowed(&self.id)
    }

    fn record_due(&self) -> Option<Time> {
        Some(self.expires_at)
    }
}

mod base64_text {
    use base64::Engine as _;
    use base64::engine::general_purpose::STANDARD;
    use serde::{Deserialize as _, Deserializer, Serializer, de};

    pub(super) fn serialize<S: Serializer>(bytes: &[u8], serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&STANDARD.encode(bytes))
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<Vec<u8>, D::Error> {
        let text = String::deserialize(deserializer)?;
        STANDARD.decode(text).map_err(de::Error::custom)
    }
}
