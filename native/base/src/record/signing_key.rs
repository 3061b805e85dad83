//! Public keys of the nodes that sign task credentials.

use std::borrow::Cow;

use serde::{Deserialize, Serialize};

use crate::record::StoredValue;
use crate::time::Time;

/// Public key of a node that signs task credentials; the private part is the node's alone.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SigningKey {
    /// Id of the key: the thumbprint of RFC 7638.
    pub kid: String,
    /// Name of the node.
    pub node: String,
    /// The public key, as the text of a JWK.
    pub jwk: String,
    /// Time of publication.
    pub published_at: Time,
    /// Time from which it signs.
    pub active_from: Time,
    /// End of the last token that it signed. `None`: it may still sign.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires_at: Option<Time>,
}

impl StoredValue for SigningKey {
    fn record_id(&self) -> Cow<'_, str> {
        Cow::Borrowed(&self.kid)
    }

    fn record_due(&self) -> Option<Time> {
        self.expires_at
    }
}
