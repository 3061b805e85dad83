//! Values that a session knows from reports, as keyed fingerprints: no value can be read from the store.
//!
//! INVARIANT (full means unknown): an entry leaves only when its time is over, or when nothing speaks for its value any more.
//! A value that finds no room is not known. So no report can push out a value of another.

use std::borrow::Cow;
use std::collections::BTreeMap;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::record::StoredValue;
use crate::time::Time;

/// Most entries of one session: values, and words of the user that name one of them.
pub const MAX_VALUES: usize = 256;
/// Time for which an entry counts, in hours: as long as a task may live, also in a session without an end.
const KEPT_HOURS: u32 = 24;
const HOUR_MS: i64 = 3_600 * 1_000;
/// Bytes of a fingerprint.
const FINGERPRINT_BYTES: usize = 14;
/// Bytes of a stored entry: fingerprint, marks (1), hour (3), holder (4).
const ENTRY_BYTES: usize = FINGERPRINT_BYTES + 8;

/// Keyed fingerprint of a value, or of a word of the user in a collection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct ValueFingerprint([u8; FINGERPRINT_BYTES]);

impl ValueFingerprint {
    /// The first 112 bits of a keyed hash.
    #[must_use]
    pub fn of(hash: u128) -> Self {
        let mut kept = [0; FINGERPRINT_BYTES];
        kept.iter_mut().zip(hash.to_be_bytes()).for_each(|(to, from)| *to = from);
        Self(kept)
    }

    /// The value as words remember their holder. The hash is keyed: no caller can look for two values with one tag.
    const fn tag(self) -> u32 {
        let [a, b, c, d, ..] = self.0;
        u32::from_be_bytes([a, b, c, d])
    }
}

impl Serialize for ValueFingerprint {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&BASE64.encode(self.0))
    }
}

impl<'de> Deserialize<'de> for ValueFingerprint {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        use serde::de::Error as _;
        let bytes = BASE64.decode(String::deserialize(deserializer)?).map_err(D::Error::custom)?;
        let bytes = bytes.try_into().map_err(|_| D::Error::custom("a fingerprint has 14 bytes"))?;
        Ok(Self(bytes))
    }
}

/// Facts of a permit that decide what its report may say about values.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ValueTerms {
    /// The object that is read has a good origin, or the call reads no single object: values and names of the result count.
    #[serde(default)]
    pub introduces: bool,
    /// The ids that the result reports as created count, unless the call named them itself.
    #[serde(default)]
    pub creates: bool,
    /// Arguments of the call, as ids of the created collections.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub arguments: Vec<ValueFingerprint>,
    /// Members that this version does not know.
    #[serde(flatten)]
    pub rest: BTreeMap<String, serde_json::Value>,
}

/// What reports said of a value.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ValueMarks(u8);

impl ValueMarks {
    /// Nothing is known of the value.
    pub const NONE: Self = Self(0);
    /// The session made the object.
    pub const MADE: Self = Self(1);
    /// A declared field of a result had the value.
    pub const INTRODUCED: Self = Self(2);
    /// As [`Self::INTRODUCED`], by an author that the user named by way of a harness.
    pub const INTRODUCED_BY_HARNESS: Self = Self(4);
    /// Words of the user name it, and nothing else that the session knows.
    pub const NAMED: Self = Self(8);
    /// As [`Self::NAMED`], by words that a harness relays.
    pub const NAMED_BY_HARNESS: Self = Self(16);
    /// Of an entry that is a word: several values have it in their names, so that it names none.
    const AMBIGUOUS: Self = Self(32);
    /// The entry is a word, not a value.
    const WORD: Self = Self(64);

    const BY_NAME: Self = Self(Self::NAMED.0 | Self::NAMED_BY_HARNESS.0);

    /// Both marks.
    #[must_use]
    pub const fn and(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// Returns whether it has one of the other's marks.
    #[must_use]
    pub const fn has(self, other: Self) -> bool {
        self.0 & other.0 != 0
    }

    const fn without(self, other: Self) -> Self {
        Self(self.0 & !other.0)
    }

    const fn only(self, other: Self) -> Self {
        Self(self.0 & other.0)
    }

    const fn is_none(self) -> bool {
        self.0 == 0
    }
}

/// A word of the user's that stands in the name of a value.
#[derive(Clone, Copy, Debug)]
pub struct NamingWord {
    /// Fingerprint of the word in the collection of the value.
    pub fingerprint: ValueFingerprint,
    /// [`ValueMarks::NAMED`] or [`ValueMarks::NAMED_BY_HARNESS`].
    pub marks: ValueMarks,
}

/// One entry: a value, or a word that names a value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Entry {
    fingerprint: ValueFingerprint,
    /// Marks that this version does not know are kept.
    marks: ValueMarks,
    /// Hours since 1970.
    hour: u32,
    /// Of a word: the tag of the value that it names.
    holder: u32,
}

impl Entry {
    const fn is_word(&self) -> bool {
        self.marks.has(ValueMarks::WORD)
    }

    const fn is_fresh(&self, hour: u32) -> bool {
        hour.saturating_sub(self.hour) <= KEPT_HOURS
    }

    fn write(&self, to: &mut Vec<u8>) {
        to.extend_from_slice(&self.fingerprint.0);
        to.push(self.marks.0);
        let [_, hour @ ..] = self.hour.to_be_bytes();
        to.extend_from_slice(&hour);
        to.extend_from_slice(&self.holder.to_be_bytes());
    }

    fn read(bytes: &[u8; ENTRY_BYTES]) -> Self {
        let (fingerprint, rest) =
            bytes.split_first_chunk().map_or(([0; 14], &[][..]), |(f, rest)| (*f, rest));
        let (marks, h, holder) = match *rest {
            [marks, h0, h1, h2, a, b, c, d] => (marks, [0, h0, h1, h2], [a, b, c, d]),
            _ => (0, [0; 4], [0; 4]),
        };
        Self {
            fingerprint: ValueFingerprint(fingerprint),
            marks: ValueMarks(marks),
            hour: u32::from_be_bytes(h),
            holder: u32::from_be_bytes(holder),
        }
    }
}

/// Values that a session knows; at most [`MAX_VALUES`] entries, sorted by fingerprint.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct KnownValues {
    entries: Vec<Entry>,
    /// Members that this version does not know.
    rest: BTreeMap<String, serde_json::Value>,
}

fn hour_of(now: Time) -> u32 {
    // Three bytes of hours last until the year 3883.
    u32::try_from(now.0.div_euclid(HOUR_MS)).unwrap_or(0).min(0x00FF_FFFF)
}

impl KnownValues {
    /// Returns whether nothing is known.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty() && self.rest.is_empty()
    }

    /// Number of entries: values, and words that name them.
    #[must_use]
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// What reports said of a value within the last 24 hours; no marks: it is not known.
    #[must_use]
    pub fn find(&self, fingerprint: ValueFingerprint, now: Time) -> ValueMarks {
        let known = self.place(fingerprint).ok().and_then(|place| self.entries.get(place));
        let fresh = known.filter(|entry| entry.is_fresh(hour_of(now)) && !entry.is_word());
        fresh.map_or_else(ValueMarks::default, |entry| entry.marks)
    }

    /// Forgets entries whose time is over.
    pub fn forget_old(&mut self, now: Time) {
        let hour = hour_of(now);
        self.entries.retain(|entry| entry.is_fresh(hour));
    }

    /// Adds marks to a value. Returns false if there is no room for it.
    ///
    /// The value counts for 24 hours from its first mark; if the same marks are added again, from then on.
    pub fn add(&mut self, fingerprint: ValueFingerprint, marks: ValueMarks, now: Time) -> bool {
        let hour = hour_of(now);
        match self.place(fingerprint) {
            Ok(place) => {
                let Some(known) = self.entries.get_mut(place) else { return false };
                if known.marks == marks {
                    known.hour = known.hour.max(hour);
                }
                known.marks = known.marks.and(marks);
                true
            }
            Err(place) => self.insert(place, Entry { fingerprint, marks, hour, holder: 0 }),
        }
    }

    /// Lets words of the user name a value, as far as they stand in the name of no other value of the session. A word that two
    /// values share names neither, from then on.
    ///
    /// Returns whether the value is named.
    pub fn pair(&mut self, value: ValueFingerprint, words: &[NamingWord], now: Time) -> bool {
        let mut losers = Vec::new();
        for word in words {
            losers.extend(self.claim(value.tag(), *word, hour_of(now)));
        }
        for loser in losers {
            let marks = self.named_by_words(loser);
            for entry in self.entries.iter_mut().filter(|entry| !entry.is_word()) {
                if entry.fingerprint.tag() == loser {
                    entry.marks = entry.marks.without(ValueMarks::BY_NAME).and(marks);
                }
            }
        }
        self.entries.retain(|entry| !entry.marks.is_none());
        let marks = self.named_by_words(value.tag());
        !marks.is_none() && self.add(value, marks, now)
    }

    /// Lets one word name a value. Returns the tag of the value that it named until now, and names no more.
    fn claim(&mut self, holder: u32, word: NamingWord, hour: u32) -> Option<u32> {
        let NamingWord { fingerprint, marks } = word;
        let marks = marks.and(ValueMarks::WORD);
        match self.place(fingerprint) {
            Err(place) => {
                self.insert(place, Entry { fingerprint, marks, hour, holder });
                None
            }
            Ok(place) => {
                let known = self.entries.get_mut(place)?;
                known.hour = known.hour.max(hour);
                if known.holder == holder || known.marks.has(ValueMarks::AMBIGUOUS) {
                    known.marks = known.marks.and(marks);
                    return None;
                }
                known.marks = known.marks.and(marks).and(ValueMarks::AMBIGUOUS);
                Some(known.holder)
            }
        }
    }

    /// The marks of all words that name a value, and no other.
    fn named_by_words(&self, holder: u32) -> ValueMarks {
        let words = self.entries.iter().filter(|entry| {
            entry.is_word() && entry.holder == holder && !entry.marks.has(ValueMarks::AMBIGUOUS)
        });
        let marks = words.fold(ValueMarks::default(), |all, word| all.and(word.marks));
        marks.only(ValueMarks::BY_NAME)
    }

    fn insert(&mut self, place: usize, entry: Entry) -> bool {
        let has_room = self.entries.len() < MAX_VALUES;
        if has_room {
            self.entries.insert(place, entry);
        }
        has_room
    }

    fn place(&self, fingerprint: ValueFingerprint) -> Result<usize, usize> {
        self.entries.binary_search_by(|entry| entry.fingerprint.cmp(&fingerprint))
    }
}

/// Stored form of [`KnownValues`].
#[derive(Serialize, Deserialize)]
struct StoredValues {
    /// All entries in base64.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    entries: String,
    #[serde(flatten)]
    rest: BTreeMap<String, serde_json::Value>,
}

impl Serialize for KnownValues {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut bytes = Vec::with_capacity(self.entries.len().saturating_mul(ENTRY_BYTES));
        self.entries.iter().for_each(|entry| entry.write(&mut bytes));
        StoredValues { entries: BASE64.encode(bytes), rest: self.rest.clone() }
            .serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for KnownValues {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        use serde::de::Error as _;
        let StoredValues { entries, rest } = StoredValues::deserialize(deserializer)?;
        let bytes = BASE64.decode(entries).map_err(D::Error::custom)?;
        let (chunks, more) = bytes.as_chunks::<ENTRY_BYTES>();
        if !more.is_empty() {
            return Err(D::Error::custom("an entry of the known values is cut off"));
        }
        let entries: Vec<Entry> = chunks.iter().map(Entry::read).collect();
        // A search in entries out of order would find some values and miss others.
        if !entries.is_sorted_by(|one, next| one.fingerprint < next.fingerprint) {
            return Err(D::Error::custom("the known values are not in order"));
        }
        Ok(Self { entries, rest })
    }
}

/// Record of the values that a session knows: written with a report that brings values, and by nothing else.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct KnownValuesRecord {
    /// Id of the session.
    pub session: String,
    /// Time from which on no value counts any more.
    pub until: Time,
    /// The values.
    pub values: KnownValues,
    /// Members that this version does not know.
    #[serde(flatten)]
    pub rest: BTreeMap<String, serde_json::Value>,
}

impl KnownValuesRecord {
    /// The record of the values that a session knows after a report.
    #[must_use]
    pub fn new(session: &str, values: KnownValues, now: Time) -> Self {
        let kept_ms = i64::from(KEPT_HOURS).saturating_add(1).saturating_mul(HOUR_MS);
        let until = Time(now.0.saturating_add(kept_ms));
        Self { session: session.to_owned(), until, values, rest: BTreeMap::new() }
    }
}

impl StoredValue for KnownValuesRecord {
    fn record_id(&self) -> Cow<'_, str> {
        Cow::Borrowed(&self.session)
    }

    fn record_due(&self) -> Option<Time> {
        Some(self.until)
    }
}

#[cfg(test)]
mod tests;
