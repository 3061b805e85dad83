//! Digests, as a record writes them.

use authz_kernel::digest::sha256;
use authz_kernel::hex::write_hex;
use serde::{Serialize, Serializer};

/// Digest of a text: `sha256:` and hex.
pub(super) struct Hash([u8; HASH_START.len() + 64]);

const HASH_START: &[u8; 7] = b"sha256:";

impl Hash {
    pub(super) fn of(text: &str) -> Self {
        Self::from(&sha256(text.as_bytes()))
    }

    pub(super) fn as_str(&self) -> &str {
        std::str::from_utf8(&self.0).unwrap_or_default()
    }
}

impl From<&[u8; 32]> for Hash {
    fn from(digest: &[u8; 32]) -> Self {
        let mut text = [0; HASH_START.len() + 64];
        if let Some((start, rest)) = text.split_first_chunk_mut() {
            *start = *HASH_START;
            write_hex(digest, rest);
        }
        Self(text)
    }
}

impl Serialize for Hash {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.as_str())
    }
}

/// A digest in hex.
pub(super) struct Hex([u8; 64]);

impl From<&[u8; 32]> for Hex {
    fn from(digest: &[u8; 32]) -> Self {
        let mut text = [0; 64];
        write_hex(digest, &mut text);
        Self(text)
    }
}

impl Serialize for Hex {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(std::str::from_utf8(&self.0).unwrap_or_default())
    }
}
