//! Keyed prints of the words of a prompt, in order.

use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD_NO_PAD as BASE64;
use serde::de::{Deserialize, Deserializer, Error as _};
use serde::ser::{Serialize, Serializer};

use crate::record::history::Shared;

/// Most prints that a task keeps of all speakers: 16 KiB as they are stored.
pub const MAX_WORDS: usize = 1_500;

/// Bits of a print that compare a word without case.
const FOLDED_BITS: u32 = 40;

/// Bits of a print that say how the word is written.
const MARK_BITS: u32 = 2;
const EXPLICIT: u64 = 1;
const CAPITAL: u64 = 2;

/// Keyed print of one word, or a gap between words.
///
/// Of 64 bits, 40 are a keyed hash of the word in small letters, and 22 are one of the word as it is written. The last two say
/// whether the word begins with a capital letter, and whether it is explicit. Nobody can read the word from it without the key.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct WordPrint(u64);

impl WordPrint {
    /// Words that were left out, or the end of a sentence: nothing is read across it.
    pub const GAP: Self = Self(0);
    /// A comma: a list is read across it, a name is not.
    pub const COMMA: Self = Self(1);

    /// Args: `folded`, `exact`: keyed hashes of the word in small letters and as it is written.
    #[must_use]
    pub const fn new(folded: u64, exact: u64) -> Self {
        let exact_bits = u64::BITS - FOLDED_BITS - MARK_BITS;
        let folded = match folded >> (u64::BITS - FOLDED_BITS) {
            // INVARIANT (a word is no gap).
            0 => 1,
            folded => folded,
        };
        let exact = exact >> (u64::BITS - exact_bits);
        Self(folded << (exact_bits + MARK_BITS) | exact << MARK_BITS)
    }

    /// The same word: it stands between quotation marks or backticks, or by itself as a parameter.
    #[must_use]
    pub const fn explicit(self, is_explicit: bool) -> Self {
        if is_explicit { Self(self.0 | EXPLICIT) } else { self }
    }

    /// The same word: it begins with a capital letter.
    #[must_use]
    pub const fn capital(self, is_capital: bool) -> Self {
        if is_capital { Self(self.0 | CAPITAL) } else { self }
    }

    /// Whether it stands for a word.
    #[must_use]
    pub const fn is_word(self) -> bool {
        self.0 > Self::COMMA.0
    }

    /// Whether the word was meant as it is written.
    #[must_use]
    pub const fn is_explicit(self) -> bool {
        self.is_word() && self.0 & EXPLICIT != 0
    }

    /// Whether the word begins with a capital letter.
    #[must_use]
    pub const fn is_capital(self) -> bool {
        self.is_word() && self.0 & CAPITAL != 0
    }

    /// Whether both are of one word, letter by letter.
    #[must_use]
    pub const fn is_same(self, other: Self) -> bool {
        self.0 >> MARK_BITS == other.0 >> MARK_BITS
    }

    /// Whether both are of one word, without case.
    #[must_use]
    pub const fn is_same_folded(self, other: Self) -> bool {
        self.folded() == other.folded()
    }

    /// The part that compares words without case; equal for equal words.
    #[must_use]
    pub const fn folded(self) -> u64 {
        self.0 >> (u64::BITS - FOLDED_BITS)
    }
}

impl fmt::Debug for WordPrint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::GAP => f.write_str("|"),
            Self::COMMA => f.write_str(","),
            Self(print) => write!(f, "{print:016x}"),
        }
    }
}

/// Prints of the words of one kind of speaker. Copies share them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct WordPrints(Shared<Vec<WordPrint>>);

impl WordPrints {
    /// The prints, in order.
    #[must_use]
    pub fn as_slice(&self) -> &[WordPrint] {
        &self.0
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Number of prints, with gaps.
    #[must_use]
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Adds further words after a gap.
    pub fn extend(&mut self, more: &[WordPrint]) {
        if more.is_empty() {
            return;
        }
        if self.0.last().is_some_and(|last| *last != WordPrint::GAP) {
            self.0.push(WordPrint::GAP);
        }
        self.0.extend_from_slice(more);
    }

    /// Leaves the first prints.
    pub(super) fn truncate(&mut self, most: usize) {
        if self.0.len() > most {
            self.0.truncate(most);
        }
    }
}

impl From<Vec<WordPrint>> for WordPrints {
    fn from(prints: Vec<WordPrint>) -> Self {
        Self(Shared::from(prints))
    }
}

impl Serialize for WordPrints {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let bytes: Vec<u8> = self.0.iter().flat_map(|print| print.0.to_be_bytes()).collect();
        serializer.serialize_str(&BASE64.encode(bytes))
    }
}

impl<'de> Deserialize<'de> for WordPrints {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        let bytes = BASE64.decode(text).map_err(D::Error::custom)?;
        let (prints, rest) = bytes.as_chunks::<8>();
        if !rest.is_empty() {
            return Err(D::Error::custom("a print of a word has 8 bytes"));
        }
        let prints: Vec<WordPrint> =
            prints.iter().map(|bytes| WordPrint(u64::from_be_bytes(*bytes))).collect();
        Ok(Self::from(prints))
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]
    use super::*;

    #[test]
    fn a_print_compares_with_and_without_case() {
        let print = WordPrint::new(0x1234_5678_9abc_def0, u64::MAX);
        let other = WordPrint::new(0x1234_5678_9abc_def0, 0).explicit(true);
        assert!(print.is_same_folded(other) && !print.is_same(other));
        assert!(print.is_same(print.explicit(true).capital(true)));
        assert!(!print.is_explicit() && other.is_explicit());
        assert!(!other.is_capital() && print.capital(true).is_capital());
        for zero in [WordPrint::new(0, 0), WordPrint::new(1, 0).explicit(true).capital(true)] {
            assert!(zero.is_word(), "{zero:?}");
            assert!(!zero.is_same(WordPrint::GAP) && !zero.is_same_folded(WordPrint::COMMA));
        }
        assert!(!WordPrint::COMMA.is_explicit());
    }

    #[test]
    fn prints_are_stored_as_bytes() {
        let mut prints = WordPrints::from(vec![WordPrint::new(u64::MAX, 7)]);
        prints.extend(&[]);
        prints.extend(&[WordPrint::COMMA]);
        assert_eq!(3, prints.len(), "a gap stands between both");
        let text = serde_json::to_string(&prints).unwrap();
        assert_eq!(prints, serde_json::from_str(&text).unwrap());
        for bad in ["\"AAAA\"", "\"*\"", "7"] {
            assert!(serde_json::from_str::<WordPrints>(bad).is_err(), "{bad}");
        }
    }
}
