//! Keyed hashes of names: nobody reads a prompt from what is kept of it.

use std::collections::BTreeSet;

use sha2::{Digest as _, Sha256};

use super::prompt;
use super::{Literal, MAX_LITERALS};

/// Bytes of one hash that are kept.
const KEPT: usize = 16;
/// Block of SHA-256.
const BLOCK: usize = 64;

/// The keyed hashes of what texts, and values that stand by themselves, name; at most 256.
pub(super) fn literals(texts: &[&str], values: &[&str], key: &[u8; 32]) -> BTreeSet<Literal> {
    prompt::names(texts, values, MAX_LITERALS).iter().map(|name| literal(name, key)).collect()
}

/// The hash of one name.
pub(crate) fn literal(name: &str, key: &[u8; 32]) -> Literal {
    let hash = hmac(key, &[name.as_bytes()]);
    let mut hex = String::with_capacity(2 * KEPT);
    for byte in hash.iter().take(KEPT) {
        for digit in [byte >> 4, byte & 15] {
            hex.extend(char::from_digit(u32::from(digit), 16));
        }
    }
    hex
}

/// HMAC-SHA-256 (RFC 2104) of parts one after the other.
#[must_use]
pub fn hmac(key: &[u8; 32], parts: &[&[u8]]) -> [u8; 32] {
    let mut block = [0_u8; BLOCK];
    for (to, from) in block.iter_mut().zip(key) {
        *to = *from;
    }
    let mut inner = Sha256::new_with_prefix(block.map(|byte| byte ^ 0x36));
    for part in parts {
        inner.update(part);
    }
    let outer = Sha256::new_with_prefix(block.map(|byte| byte ^ 0x5c));
    outer.chain_update(inner.finalize()).finalize().into()
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEY: [u8; 32] = [7; 32];

    #[test]
    fn hmac_is_that_of_rfc_4231() {
        // Test case 2 has a key of 4 bytes; a shorter key is filled up with zeros.
        let mut key = [0; 32];
        key[..4].copy_from_slice(b"Jefe");
        let hash = hmac(&key, &[b"what do ya want ", b"for nothing?"]);
        let hex: String = hash.iter().map(|byte| format!("{byte:02x}")).collect();
        assert_eq!("5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843", hex);
    }

    #[test]
    fn another_key_or_kind_is_another_hash() {
        let hash = literal("email:a@x.example", &KEY);
        assert_ne!(hash, literal("email:a@x.example", &[8; 32]));
        assert_ne!(hash, literal("account:a@x.example", &KEY));
        assert_eq!(32, hash.len());
    }

    #[test]
    fn names_are_kept_within_bounds() {
        let many: String = (0..2_000).map(|n| format!("user{n}@x.example ")).collect();
        assert_eq!(MAX_LITERALS, literals(&[&many], &[], &KEY).len());
        let filler = "\u{e4} ".repeat(prompt::LONGEST_PROMPT / 3);
        assert!(literals(&[&filler, "late@x.example"], &[], &KEY).is_empty(), "over all texts");
    }
}
