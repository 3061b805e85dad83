//! SHA-256 as decisions take it.

use sha2::{Digest as _, Sha256};

use crate::hex::hex_start;

/// SHA-256 of all bytes (FIPS 180-4 §6.2).
///
/// Never inlined: a decision takes several digests, and its code, which is large, would be read once for each.
#[inline(never)]
#[must_use]
pub fn sha256(bytes: &[u8]) -> [u8; 32] {
    Sha256::digest(bytes).into()
}

/// Stands for a text that may be long, or a secret: the first half of its digest, in hex.
pub fn short(text: &str) -> String {
    hex_start(&sha256(text.as_bytes()), 16)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::hex::hex;

    /// The examples of FIPS 180-4 for one block and for two, and nothing at all.
    #[test]
    fn as_published() {
        let two_blocks = b"abcdbcdecdefdefgefghfghighijhijkijkljklmklmnlmnomnopnopq";
        for (bytes, digest) in [
            (b"".as_slice(), "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"),
            (b"abc", "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"),
            (two_blocks, "248d6a61d20638b8e5c026930c3e6039a33ce45964ff2167f6ecedd419db06c1"),
        ] {
            assert_eq!(digest, hex(&sha256(bytes)));
        }
    }
}
