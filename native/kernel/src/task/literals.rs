//! What a user named in a prompt, as keyed hashes: a destination that the user named is trusted, and nobody reads the
//! prompt from what is kept.

use std::collections::BTreeSet;

use sha2::{Digest as _, Sha256};

use super::record::Literal;
use crate::destinations::canonical;
use crate::model::DestinationKind;

/// Literals that a task keeps.
pub const MAX_LITERALS: usize = 256;
/// Bytes of a prompt that are read.
const LONGEST_PROMPT: usize = 256 << 10;
/// Words that are tried together as one IBAN: it may be written in groups of four.
const MOST_GROUPS: usize = 9;
/// Bytes of one hash that are kept.
const KEPT: usize = 16;
/// Block of SHA-256.
const BLOCK: usize = 64;

/// The keyed hashes of what a prompt names: mailboxes, hosts of URLs, IBANs, paths, and words that look like accounts,
/// each in the canonical form of its kind.
///
/// At most 256, of the first 256 KiB; what is beyond is not trusted.
#[must_use]
pub fn literals(prompt: &str, key: &[u8; 32]) -> BTreeSet<Literal> {
    let mut found = BTreeSet::new();
    let mut end = prompt.len().min(LONGEST_PROMPT);
    while !prompt.is_char_boundary(end) {
        end = end.saturating_sub(1);
    }
    let text = prompt.get(..end).unwrap_or_default();
    let mut words: Vec<&str> = text
        .split(|c: char| c.is_whitespace() || c.is_control())
        .filter(|w| !w.is_empty())
        .collect();
    if end < prompt.len() {
        // The last word may have been cut.
        words.pop();
    }
    for (index, word) in words.iter().enumerate() {
        for part in parts(word) {
            for kind in kinds(part) {
                if let Ok((canonical, _)) = canonical(kind, part) {
                    found.insert(literal(kind, &canonical, key));
                }
            }
        }
        if let Some(iban) = iban(words.get(index..).unwrap_or_default()) {
            found.insert(literal(DestinationKind::Iban, &iban, key));
        }
        if found.len() >= MAX_LITERALS {
            break;
        }
    }
    found.into_iter().take(MAX_LITERALS).collect()
}

/// A word, and what is left of it without marks around it: `bob@corp.example's` names whose it is.
fn parts(word: &str) -> impl Iterator<Item = &str> {
    let mark =
        |c: char| "()<>[]{}\"'`,;:!?.*_|".contains(c) || (!c.is_ascii() && !c.is_alphanumeric());
    let bare = word.trim_matches(mark);
    let mailto = bare.strip_prefix("mailto:");
    let owner = bare.strip_suffix("'s").or_else(|| bare.strip_suffix("\u{2019}s"));
    let bare = (bare != word && !bare.is_empty()).then_some(bare);
    [Some(word), bare, mailto, owner].into_iter().flatten()
}

/// The kinds that a word may be meant as.
fn kinds(word: &str) -> impl Iterator<Item = DestinationKind> {
    let is_url = word.contains("://");
    let is_mail = !is_url && word.contains('@');
    let is_path = !is_url && word.contains('/');
    let marked = word.len() >= 3
        && word.contains(|c: char| c.is_ascii_digit() || "#@-_:".contains(c))
        && word.contains(|c: char| c.is_ascii_alphanumeric());
    [
        (is_url, DestinationKind::UrlHost),
        (is_mail, DestinationKind::Email),
        (is_path, DestinationKind::Path),
        (!is_url && marked, DestinationKind::Account),
    ]
    .into_iter()
    .filter_map(|(meant, kind)| meant.then_some(kind))
}

/// The IBAN that begins with the first word, in one word or in groups.
fn iban(words: &[&str]) -> Option<String> {
    let head = words.first()?.trim_start_matches(|c: char| !c.is_ascii_alphanumeric());
    let begins = head.len() >= 4
        && head.bytes().take(2).all(|b| b.is_ascii_alphabetic())
        && head.bytes().skip(2).take(2).all(|b| b.is_ascii_digit());
    if !begins {
        return None;
    }
    let mut joined = String::new();
    for word in words.iter().take(MOST_GROUPS) {
        let word = if joined.is_empty() { head } else { word };
        let bare = word.trim_end_matches(|c: char| !c.is_ascii_alphanumeric());
        if !bare.bytes().all(|b| b.is_ascii_alphanumeric()) || joined.len() + bare.len() > 34 {
            return None;
        }
        joined.push_str(bare);
        if let Ok((iban, _)) = canonical(DestinationKind::Iban, &joined) {
            return Some(iban);
        }
        if bare.len() < word.len() {
            return None;
        }
    }
    None
}

/// The hash of one canonical form.
pub(crate) fn literal(kind: DestinationKind, canonical: &str, key: &[u8; 32]) -> Literal {
    let name = match kind {
        DestinationKind::Email => "email:",
        DestinationKind::UrlHost => "url:",
        DestinationKind::Iban => "iban:",
        DestinationKind::Account => "account:",
        DestinationKind::Path => "path:",
    };
    let hash = hmac(key, &[name.as_bytes(), canonical.as_bytes()]);
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

    fn names(prompt: &str, kind: DestinationKind, canonical: &str) -> bool {
        literals(prompt, &KEY).contains(&literal(kind, canonical, &KEY))
    }

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
    fn what_a_prompt_names_is_found_in_its_canonical_form() {
        let prompt = "Answer Bob (Bob@ACME.example), see <https://Docs.acme.example/a?b>, pay GB82 WEST 1234 5698 \
                      7654 32. Put it in /exports/a.csv, tell #ops-room and acct:42!";
        for (kind, canonical) in [
            (DestinationKind::Email, "Bob@acme.example"),
            (DestinationKind::UrlHost, "docs.acme.example"),
            (DestinationKind::Iban, "GB82WEST12345698765432"),
            (DestinationKind::Path, "/exports/a.csv"),
            (DestinationKind::Account, "#ops-room"),
            (DestinationKind::Account, "acct:42"),
        ] {
            assert!(names(prompt, kind, canonical), "{canonical}");
        }
        for (kind, canonical) in [
            (DestinationKind::Email, "x@evil.example"),
            (DestinationKind::UrlHost, "acme.example"),
            (DestinationKind::Account, "Answer"),
            (DestinationKind::Account, "Bob@acme.example"),
            (DestinationKind::Iban, "GB82WEST1234569876543"),
        ] {
            assert!(!names(prompt, kind, canonical), "{canonical}");
        }
    }

    #[test]
    fn whose_something_is_is_named() {
        let prompt =
            "Use bob@acme.example's figures and @kai\u{2019}s list, not 's or x's@evil.example";
        assert!(names(prompt, DestinationKind::Email, "bob@acme.example"));
        assert!(names(prompt, DestinationKind::Account, "@kai"));
        assert!(!names(prompt, DestinationKind::Email, "x@evil.example"));
        assert!(!names("", DestinationKind::Account, ""));
    }

    #[test]
    fn another_key_or_kind_is_another_hash() {
        let one = literal(DestinationKind::Email, "a@x.example", &KEY);
        assert_ne!(one, literal(DestinationKind::Email, "a@x.example", &[8; 32]));
        assert_ne!(one, literal(DestinationKind::Account, "a@x.example", &KEY));
        assert_eq!(32, one.len());
    }

    #[test]
    fn a_prompt_is_read_within_bounds() {
        let many: String = (0..2_000).map(|n| format!("user{n}@x.example ")).collect();
        assert_eq!(MAX_LITERALS, literals(&many, &KEY).len());
        let long = format!("{} late@x.example", "\u{e4} ".repeat(LONGEST_PROMPT / 3));
        assert!(!names(&long, DestinationKind::Email, "late@x.example"));
        let cut = format!("{}bob@corp.example.evil", " ".repeat(LONGEST_PROMPT - 16));
        assert!(literals(&cut, &KEY).is_empty(), "a cut word names something else");
    }
}
