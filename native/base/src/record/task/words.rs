//! Keyed prints of the words of a prompt, in order.
//!
//! INVARIANT (a word that is not read names nothing): words only add to what a task may do. So a record that is missing, or a
//! text of prints that is damaged, counts as no words, and no call is refused because of it.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD_NO_PAD as BASE64;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::{Speaker, Task, TaskView};
use crate::record::StoredValue;
use crate::record::history::Shared;
use crate::time::Time;

/// Most prints that a task keeps of all speakers: 16 KiB as they are stored.
pub const MAX_WORDS: usize = 1_500;

/// Bytes of a print, as it is stored.
const PRINT_BYTES: usize = 8;
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
            // INVARIANT (a word is never a gap).
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

    /// Whether it has no words.
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
    fn truncate(&mut self, most: usize) {
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
    /// A damaged text has no prints.
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let stored = serde_json::Value::deserialize(deserializer)?;
        let bytes = stored.as_str().and_then(|text| BASE64.decode(text).ok());
        let bytes = bytes.filter(|bytes| bytes.len().is_multiple_of(PRINT_BYTES));
        let bytes = bytes.unwrap_or_default();
        let (prints, _) = bytes.as_chunks::<PRINT_BYTES>();
        let prints: Vec<WordPrint> = prints
            .iter()
            .take(MAX_WORDS)
            .map(|bytes| WordPrint(u64::from_be_bytes(*bytes)))
            .collect();
        Ok(Self::from(prints))
    }
}

/// Words of the prompts of one task, by their speakers. All together are at most [`MAX_WORDS`].
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct SpokenWords {
    /// Words of the user.
    #[serde(skip_serializing_if = "WordPrints::is_empty")]
    user_words: WordPrints,
    /// Words of the user as a harness relays them.
    #[serde(skip_serializing_if = "WordPrints::is_empty")]
    harness_words: WordPrints,
    /// Words that an agent claims.
    #[serde(skip_serializing_if = "WordPrints::is_empty")]
    claimed_words: WordPrints,
}

impl SpokenWords {
    /// Whether it has no words.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.all().into_iter().all(WordPrints::is_empty)
    }

    /// Number of prints of all speakers, with gaps.
    #[must_use]
    pub fn len(&self) -> usize {
        self.all().into_iter().map(WordPrints::len).fold(0, usize::saturating_add)
    }

    /// Whether there is no room for another word: words beyond [`MAX_WORDS`] are left out, and so name nothing.
    #[must_use]
    pub fn is_full(&self) -> bool {
        self.len() >= MAX_WORDS
    }

    /// The words of one kind of speaker.
    #[must_use]
    pub const fn of(&self, by: Speaker) -> &WordPrints {
        match by {
            Speaker::Subject | Speaker::FrontEnd => &self.user_words,
            Speaker::Harness => &self.harness_words,
            Speaker::Agent => &self.claimed_words,
        }
    }

    /// Adds the words of one speaker. All together are at most [`MAX_WORDS`]: claims displace no word of the user.
    pub fn add(&mut self, by: Speaker, words: &[WordPrint]) {
        match by {
            Speaker::Subject | Speaker::FrontEnd => &mut self.user_words,
            Speaker::Harness => &mut self.harness_words,
            Speaker::Agent => &mut self.claimed_words,
        }
        .extend(words);
        let mut left = MAX_WORDS;
        for words in [&mut self.user_words, &mut self.harness_words, &mut self.claimed_words] {
            words.truncate(left);
            left = left.saturating_sub(words.len());
        }
    }

    /// Adds the words of a further turn.
    pub fn extend(&mut self, more: &Self) {
        for by in [Speaker::Subject, Speaker::Harness, Speaker::Agent] {
            self.add(by, more.of(by).as_slice());
        }
    }

    const fn all(&self) -> [&WordPrints; 3] {
        [&self.user_words, &self.harness_words, &self.claimed_words]
    }
}

/// Record of the words of a task: written with the start of the task and with each further prompt, and by nothing else.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TaskWords {
    /// Id of the task.
    pub task: String,
    /// Session of the task: its lock is that of the record, too.
    pub session: String,
    /// Latest end of the task, after which nothing reads its words.
    pub until: Time,
    /// The words.
    #[serde(flatten)]
    pub words: SpokenWords,
    /// Members that this version does not know.
    #[serde(flatten)]
    pub rest: BTreeMap<String, serde_json::Value>,
}

impl TaskWords {
    /// The record of a task's words.
    #[must_use]
    pub fn new(task: &Task, words: SpokenWords) -> Self {
        Self {
            task: task.id.clone(),
            session: task.session.clone(),
            until: task.deadline,
            words,
            rest: BTreeMap::new(),
        }
    }
}

/// Records of the words of a task and of the root above it. `None`: the task has no such record, or it was not recalled.
#[derive(Clone, Copy, Debug, Default)]
pub struct WordRecords<'a> {
    /// Of the task.
    pub task: Option<&'a TaskWords>,
    /// Of the root; the same where the task is the root.
    pub root: Option<&'a TaskWords>,
}

impl<'a> WordRecords<'a> {
    /// The words of a task and of its root, the root's first. Without a record, those that the task's own record has of an
    /// earlier version.
    #[must_use]
    pub fn of(self, view: TaskView<'a>) -> [&'a SpokenWords; 2] {
        let root = view.root();
        let of_root = self.root.map_or(&root.names.words, |record| &record.words);
        if std::ptr::eq(root, view.task) {
            return [of_root, of_root];
        }
        [of_root, self.task.map_or(&view.task.names.words, |record| &record.words)]
    }
}

impl StoredValue for TaskWords {
    fn record_id(&self) -> Cow<'_, str> {
        Cow::Borrowed(&self.task)
    }

    fn record_due(&self) -> Option<Time> {
        Some(self.until)
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
    }

    #[test]
    fn a_damaged_text_has_no_words() {
        for bad in ["\"AAAA\"", "\"*\"", "7", "null", "{}"] {
            let text = format!(
                r#"{{"task":"t","session":"s","until":9,"user_words":{bad},"claimed_words":"AAAAAAAAAAk"}}"#
            );
            let read: TaskWords = serde_json::from_str(&text).unwrap();
            assert!(read.words.of(Speaker::Subject).is_empty(), "{bad}");
            assert_eq!(1, read.words.of(Speaker::Agent).len(), "{bad}");
        }
    }

    fn words(from: u64, count: u64) -> Vec<WordPrint> {
        (from..from.saturating_add(count)).map(|n| WordPrint::new(n << 30, n)).collect()
    }

    #[test]
    fn claims_displace_no_word_of_the_user() {
        let mut spoken = SpokenWords::default();
        spoken.add(Speaker::Agent, &words(1, 2_000));
        assert_eq!(MAX_WORDS, spoken.of(Speaker::Agent).len());
        assert!(spoken.is_full());
        spoken.add(Speaker::Harness, &words(1, 10));
        spoken.add(Speaker::Subject, &words(1, 1_000));
        assert_eq!(1_000, spoken.of(Speaker::FrontEnd).len());
        assert_eq!(10, spoken.of(Speaker::Harness).len());
        assert_eq!(MAX_WORDS - 1_010, spoken.of(Speaker::Agent).len());
        let kept = spoken.of(Speaker::Subject).clone();
        let mut more = SpokenWords::default();
        more.add(Speaker::FrontEnd, &words(9, 2_000));
        spoken.extend(&more);
        let first = spoken.of(Speaker::Subject).as_slice().get(..1_000).unwrap();
        assert_eq!(kept.as_slice(), first, "nothing is evicted");
        assert_eq!(MAX_WORDS, spoken.of(Speaker::Subject).len());
        assert!(spoken.of(Speaker::Harness).is_empty() && spoken.of(Speaker::Agent).is_empty());
        let record = TaskWords {
            task: "t".to_owned(),
            session: "s".to_owned(),
            until: Time(9),
            words: spoken,
            rest: BTreeMap::from([("later".to_owned(), serde_json::json!({"a": [1]}))]),
        };
        let stored = serde_json::to_string(&record).unwrap();
        assert!(stored.len() <= 16 << 10, "{}", stored.len());
        assert_eq!(record, serde_json::from_str(&stored).unwrap());
        assert_eq!((Some(Time(9)), "t"), (record.record_due(), &*record.record_id()));
    }
}
