//! Heads: signed statements of a node about a segment of its audit log.

use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use super::merkle::NodeHash;

/// Statement about the first `count` lines of a segment.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Eq, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Head {
    /// Name of the node that writes the log.
    pub node: String,
    /// Number of the segment, from 1.
    pub segment: u64,
    /// Number of lines.
    pub count: u64,
    /// Root of the Merkle tree over the lines (RFC 9162 §2.1), in hex.
    pub root: String,
    /// SHA-256 of the head before which the first line of the segment names, in hex; zeros for the first segment.
    pub previous: String,
    /// Time of the head: RFC 3339, UTC, milliseconds.
    pub at: String,
    /// True if the segment ended with these lines.
    pub sealed: bool,
}

/// A head as it is stored: a JSON Web Signature in the flattened JSON form (RFC 7515 §7.2.2), or without `protected` and
/// `signature` if the node has no key for heads.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Eq, Serialize)]
#[serde(deny_unknown_fields)]
pub struct SignedHead {
    /// The head: JSON in base64url.
    pub payload: String,
    /// Header of the signature: JSON in base64url.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub protected: Option<String>,
    /// Signature in base64url.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub signature: Option<String>,
}

/// Signs heads.
pub trait HeadSigner: fmt::Debug + Send {
    /// Header of the signature: JSON with at least `alg`.
    fn header(&self) -> String;

    /// Signs a message, in the form of JWS.
    ///
    /// # Errors
    /// Why the signature cannot be made.
    fn sign(&self, message: &[u8]) -> Result<Vec<u8>, String>;
}

impl Head {
    /// The head in its stored form.
    ///
    /// # Errors
    /// Why the signature cannot be made.
    pub(crate) fn signed(&self, signer: Option<&dyn HeadSigner>) -> Result<SignedHead, String> {
        let payload = serde_json::to_vec(self).map_err(|error| error.to_string())?;
        let payload = URL_SAFE_NO_PAD.encode(payload);
        let Some(signer) = signer else {
            return Ok(SignedHead { payload, ..SignedHead::default() });
        };
        let protected = URL_SAFE_NO_PAD.encode(signer.header());
        let signature = signer.sign(format!("{protected}.{payload}").as_bytes())?;
        let signature = Some(URL_SAFE_NO_PAD.encode(signature));
        Ok(SignedHead { payload, protected: Some(protected), signature })
    }
}

impl SignedHead {
    /// Reads a stored head, without its signature. `None`: it is not a head.
    pub(crate) fn read(text: &[u8]) -> Option<(Self, Head)> {
        let signed: Self = serde_json::from_slice(text).ok()?;
        let head = signed.head()?;
        Some((signed, head))
    }

    /// The head, without a check of its signature. `None`: the payload is not a head.
    #[must_use]
    pub fn head(&self) -> Option<Head> {
        serde_json::from_slice(&URL_SAFE_NO_PAD.decode(&self.payload).ok()?).ok()
    }

    /// SHA-256 of the payload, which the next segment names.
    pub(crate) fn hash(&self) -> NodeHash {
        Sha256::digest(URL_SAFE_NO_PAD.decode(&self.payload).unwrap_or_default()).into()
    }

    /// The head as a line, without a line feed.
    pub(crate) fn line(&self) -> String {
        serde_json::to_string(self).unwrap_or_default()
    }
}
