//! Keyed hashes of names. The store keeps these of a prompt, so that nobody can read the prompt there.

use std::collections::BTreeSet;

use authz_bundle::prompt;
use hmac::{Hmac, KeyInit as _, Mac as _};
use sha2::Sha256;

use super::{Literal, MAX_LITERALS};
use crate::hex::hex_start;

/// Bytes of one hash that are kept.
const KEPT: usize = 16;

/// The keyed hashes of the names in texts and in values that stand by themselves; at most 256.
pub(super) fn literals(texts: &[&str], values: &[&str], key: &[u8; 32]) -> BTreeSet<Literal> {
    prompt::names(texts, values, MAX_LITERALS).iter().map(|name| literal(name, key)).collect()
}

/// The hash of one name.
pub(crate) fn literal(name: &str, key: &[u8; 32]) -> Literal {
    hex_start(&hmac(key, &[name.as_bytes()]), KEPT)
}

/// HMAC-SHA-256 (RFC 2104) of parts one after the other.
#[must_use]
pub fn hmac(key: &[u8; 32], parts: &[&[u8]]) -> [u8; 32] {
    // RFC 2104 §2: a key shorter than a block of the hash is filled up with zeros.
    let mut block = hmac::digest::Key::<Hmac<Sha256>>::default();
    block.iter_mut().zip(key).for_each(|(to, from)| *to = *from);
    let mut mac = Hmac::<Sha256>::new(&block);
    parts.iter().for_each(|part| mac.update(part));
    mac.finalize().into_bytes().into()
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
