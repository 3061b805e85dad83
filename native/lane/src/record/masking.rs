//! Texts that a record must not hold in clear: tokens, and texts that are too long.

use std::borrow::Cow;
use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;

use authz_kernel::digest::sha256;
use authz_kernel::hex::hex;
use authz_token::Evidence;
use serde::Serialize;

use super::digest::Hash;
use crate::clock::Clock;

/// Members, items and levels of arguments that a record repeats; their digest stands for the rest.
const MAX_FACTS: usize = 256;
const MAX_DEPTH: usize = 8;
/// Bytes of all texts of arguments that a record holds as they are.
const MAX_TEXT: usize = 16_384;
/// Length of a token's start that is taken for the token.
const TOKEN_START: usize = 32;
/// Length of most pointers.
const POINTER_BYTES: usize = 64;
/// The length of an erasable text with its padding is a multiple of so many bytes.
const PADDED_TO: usize = 64;

/// Notes of the members of a record that are left out or written as digests.
pub(super) struct Masking<'a> {
    /// Source of salts. `None`: texts stand in their places, and cannot be erased.
    salts: Option<&'a dyn Clock>,
    /// Texts that can be erased, by JSON pointer.
    pub(super) texts: RefCell<BTreeMap<String, ErasableText>>,
    /// JSON pointers of the members that are left out, or are digests.
    pub(super) masked: RefCell<Vec<String>>,
    /// JSON pointer of the argument that is being written.
    pub(super) at: RefCell<String>,
    /// Number of arguments that may still be written.
    pub(super) left: Cell<usize>,
    /// Bytes of texts of arguments that may still be written.
    left_text: Cell<usize>,
}

/// Text of a record that can be erased: the record has its salted digest in its place.
///
/// An erased text leaves as many bytes as it had, since sinks remember places in the log as numbers of bytes. `pad` fills the
/// written text up to a multiple of [`PADDED_TO`], so that these bytes do not tell the length of the text.
#[derive(Debug, Serialize)]
pub(super) struct ErasableText {
    salt: String,
    text: String,
    pad: String,
}

impl ErasableText {
    /// `None`: no salt can be had.
    fn new(text: &str, clock: &dyn Clock) -> Option<Self> {
        let (high, low) = clock.random().zip(clock.random())?;
        let salt = format!("{high:016x}{low:016x}");
        // As it is written, in quotation marks and with escapes.
        let written = serde_json::to_string(text).ok()?.len().saturating_sub(2);
        let pad = "-".repeat(PADDED_TO.saturating_sub(written % PADDED_TO));
        Some(Self { salt, text: text.to_owned(), pad })
    }

    /// Salted digest that stands at the place of the text.
    fn digest(&self) -> String {
        let Self { salt, text, .. } = self;
        format!("salted:{}", hex(&sha256(format!("{salt}{text}").as_bytes())))
    }
}

impl<'a> Masking<'a> {
    pub(super) fn new(salts: Option<&'a dyn Clock>) -> Self {
        let mut at = String::with_capacity(POINTER_BYTES);
        at.push_str("/input/arguments");
        Self {
            salts,
            texts: RefCell::default(),
            masked: RefCell::new(Vec::new()),
            at: RefCell::new(at),
            left: Cell::new(MAX_FACTS),
            left_text: Cell::new(MAX_TEXT),
        }
    }

    /// Notes a pointer.
    pub(super) fn mask(&self, pointer: String) {
        self.masked.borrow_mut().push(pointer);
    }

    /// A text, or its digest where it is too long or may hold a token.
    pub(super) fn shown<'t>(
        &self,
        text: &'t str,
        pointer: &str,
        longest: usize,
        evidence: &[Evidence<'_>],
    ) -> Cow<'t, str> {
        if text.len() > longest || carries_token(text, evidence) {
            self.mask(pointer.to_owned());
            return Cow::Owned(Hash::of(text).as_str().to_owned());
        }
        Cow::Borrowed(text)
    }

    /// The text to write at a pointer: the text itself, or its salted digest if texts can be erased.
    pub(super) fn placed<'t>(&self, text: &'t str, pointer: &str) -> Cow<'t, str> {
        let Some(clock) = self.salts else { return Cow::Borrowed(text) };
        let Some(erasable) = ErasableText::new(text, clock) else {
            self.mask(pointer.to_owned());
            return Cow::Owned(Hash::of(text).as_str().to_owned());
        };
        let digest = erasable.digest();
        self.texts.borrow_mut().insert(pointer.to_owned(), erasable);
        Cow::Owned(digest)
    }

    pub(super) fn mask_here(&self) {
        self.mask(self.at.borrow().clone());
    }

    /// Takes the bytes of a text that is written as it is. False: so many are not left.
    pub(super) fn take_text(&self, bytes: usize) -> bool {
        let left = self.left_text.get().checked_sub(bytes);
        left.inspect(|left| self.left_text.set(*left)).is_some()
    }

    /// Takes one of the arguments that may still be written. False: none is left, or `depth` is too deep.
    pub(super) fn take(&self, depth: usize) -> bool {
        let left = self.left.get();
        if left == 0 || depth > MAX_DEPTH {
            return false;
        }
        self.left.set(left.saturating_sub(1));
        true
    }
}

/// True if a text from a caller may hold a token, or a good part of one.
pub(super) fn carries_token(text: &str, evidence: &[Evidence<'_>]) -> bool {
    evidence.iter().any(|item| {
        let start = item.token.get(..TOKEN_START).unwrap_or(item.token);
        !start.is_empty() && text.contains(start)
    }) || looks_like_token(text)
}

/// A compact JWS begins with the Base64 of `{"`; one that was not evidence is a secret all the same, also encoded again.
pub(super) fn looks_like_token(text: &str) -> bool {
    // Most texts are shorter, or lack a letter of the start, which is found out faster than the start itself.
    let may_hold = |letter| text.len() >= TOKEN_START && text.as_bytes().contains(&letter);
    [("eyJ", b'J'), ("ZXlK", b'Z')].iter().any(|(start, letter)| {
        may_hold(*letter)
            && text.match_indices(start).take(MAX_FACTS).any(|(at, _)| {
                let rest = text.get(at..).unwrap_or_default();
                rest.bytes().take_while(|byte| is_token_byte(*byte)).take(TOKEN_START).count()
                    >= TOKEN_START
            })
    })
}

const fn is_token_byte(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.' | b'+' | b'/' | b'=')
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    /// A token is found at each place in a text, and also if it is encoded again. A word is not a token.
    #[test]
    fn tokens_are_found() {
        let token = "eyJhbGciOiJFUzI1NiIsInR5cCI6IkpXVCJ9.eyJpc3MiOiJo";
        let again = "ZXlKaGJHY2lPaUpGVXpJMU5pSXNJblI1Y0NJNklrcFhWQ0o5";
        for text in [token, again] {
            assert!(looks_like_token(text));
            assert!(looks_like_token(&format!("a text with {text}, and more after it")));
            assert!(!looks_like_token(text.get(..31).unwrap()));
            assert!(looks_like_token(text.get(..32).unwrap()));
            assert!(!looks_like_token(&format!("{} is no token", text.get(..20).unwrap())));
        }
        assert!(!looks_like_token("JUST A LONG TEXT IN CAPITALS, Z AND ALL"));
    }
}
