#![expect(clippy::unwrap_used, reason = "tests")]

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;

use super::*;

const NOW: Time = Time(490_000 * HOUR_MS);

fn value(number: u8) -> ValueFingerprint {
    // Values differ in their tags, as keyed hashes do.
    ValueFingerprint::of(u128::from(number) << 120)
}

fn word(number: u8, marks: ValueMarks) -> NamingWord {
    NamingWord { fingerprint: ValueFingerprint::of(u128::from(number) << 120 | 9 << 64), marks }
}

fn named(number: u8) -> NamingWord {
    word(number, ValueMarks::NAMED)
}

fn later(hours: i64) -> Time {
    Time(NOW.0 + hours * HOUR_MS)
}

#[test]
fn a_full_session_knows_no_more_and_forgets_nothing() {
    let mut known = KnownValues::default();
    let wide = |number: u32| ValueFingerprint::of(u128::from(number) << 96);
    for number in 0..256 {
        assert!(known.add(wide(number * 7919), ValueMarks::MADE, NOW));
    }
    assert!(!known.add(wide(1), ValueMarks::MADE, NOW));
    assert!(!known.pair(wide(2), &[named(1)], NOW));
    assert_eq!(ValueMarks::default(), known.find(wide(1), NOW));
    assert!((0..256).all(|number| known.find(wide(number * 7919), NOW) == ValueMarks::MADE));
    // A value that is known gets further marks all the same.
    assert!(known.add(wide(0), ValueMarks::INTRODUCED, NOW));
    let stored = serde_json::to_string(&known).unwrap();
    assert!(stored.len() <= 8 * 1_024, "{} bytes", stored.len());
    assert_eq!(known, serde_json::from_str::<KnownValues>(&stored).unwrap());
}

#[test]
fn a_word_of_two_names_names_neither() {
    let mut known = KnownValues::default();
    let is_named =
        |known: &KnownValues, one: u8| known.find(value(one), NOW).has(ValueMarks::NAMED);
    assert!(known.pair(value(1), &[named(10), named(11)], NOW));
    // The other value shares one of two words: each keeps what it has alone.
    assert!(known.pair(value(2), &[named(10), named(12)], NOW));
    assert!(is_named(&known, 1) && is_named(&known, 2));
    // A third shares the last words of both, also when they are reported again.
    assert!(!known.pair(value(3), &[named(11), named(12)], NOW));
    assert!(!known.pair(value(1), &[named(10), named(11)], NOW));
    assert!(![1, 2, 3].into_iter().any(|one| is_named(&known, one)));
    // What else is known of a value stays.
    assert!(known.add(value(4), ValueMarks::INTRODUCED, NOW));
    assert!(known.pair(value(4), &[named(13)], NOW));
    assert!(!known.pair(value(5), &[named(13)], NOW));
    assert_eq!(ValueMarks::INTRODUCED, known.find(value(4), NOW));
}

#[test]
fn a_value_counts_for_a_day() {
    let mut known = KnownValues::default();
    assert!(known.add(value(1), ValueMarks::MADE, NOW));
    assert_eq!(ValueMarks::MADE, known.find(value(1), later(24)));
    assert_eq!(ValueMarks::default(), known.find(value(1), later(25)));
    // A new report of the same prolongs it; a report of something else does not.
    assert!(known.add(value(1), ValueMarks::MADE, later(20)));
    assert!(known.add(value(1), ValueMarks::INTRODUCED, later(40)));
    assert_ne!(ValueMarks::default(), known.find(value(1), later(44)));
    assert_eq!(ValueMarks::default(), known.find(value(1), later(45)));
    known.forget_old(later(45));
    assert!(known.is_empty());
}

#[test]
fn a_record_of_another_version_keeps_its_members() {
    let stored = r#"{"entries":"","shapes":[1]}"#;
    let mut known: KnownValues = serde_json::from_str(stored).unwrap();
    assert!(!known.is_empty());
    assert!(known.add(value(1), ValueMarks(128), NOW));
    let again = serde_json::to_string(&known).unwrap();
    assert!(again.contains(r#""shapes":[1]"#), "{again}");
    let again: KnownValues = serde_json::from_str(&again).unwrap();
    assert_eq!(ValueMarks(128), again.find(value(1), NOW));
    for damaged in ["AAAA", "?", &BASE64.encode([0; 44])] {
        let stored = format!(r#"{{"entries":"{damaged}"}}"#);
        assert!(serde_json::from_str::<KnownValues>(&stored).is_err(), "{damaged}");
    }
}

/// Something that a report says.
#[derive(Clone, Debug)]
enum Said {
    Add(u8, ValueMarks),
    Pair(u8, BTreeMap<u8, bool>),
}

/// The same by maps of whole entries; which value is named is worked out anew from all words each time.
#[derive(Default)]
struct Slow {
    values: BTreeMap<u8, (u8, u32)>,
    words: BTreeMap<u8, (BTreeSet<u8>, u8, u32)>,
}

impl Slow {
    fn has_room(&self) -> bool {
        self.values.len() + self.words.len() < MAX_VALUES
    }

    fn names(&self, value: u8) -> u8 {
        let own = self.words.values().filter(|(holders, ..)| *holders == BTreeSet::from([value]));
        own.fold(0, |all, (_, marks, _)| all | marks)
    }

    fn add(&mut self, value: u8, marks: u8, hour: u32) -> bool {
        let room = self.has_room();
        match self.values.get_mut(&value) {
            Some((known, at)) => {
                *at = if *known == marks { hour } else { *at };
                *known |= marks;
                true
            }
            None if room => self.values.insert(value, (marks, hour)).is_none(),
            None => false,
        }
    }

    fn hear(&mut self, said: &Said, hour: u32) -> bool {
        match said {
            Said::Add(value, marks) => self.add(*value, marks.0, hour),
            Said::Pair(value, words) => {
                let mut losers = BTreeSet::new();
                for (word, by_harness) in words {
                    let room = self.has_room();
                    let marks = if *by_harness { 16 } else { 8 };
                    match self.words.get_mut(word) {
                        Some((holders, known, at)) => {
                            // A word that names no value any more takes nothing from one.
                            losers.extend(holders.iter().copied().filter(|_| holders.len() == 1));
                            holders.insert(*value);
                            (*known, *at) = (*known | marks, hour);
                        }
                        None if room => {
                            self.words.insert(*word, (BTreeSet::from([*value]), marks, hour));
                        }
                        None => {}
                    }
                }
                losers.remove(value);
                for loser in losers {
                    let names = self.names(loser);
                    if let Some((marks, _)) = self.values.get_mut(&loser) {
                        *marks = (*marks & !24) | names;
                    }
                }
                self.values.retain(|_, (marks, _)| *marks != 0);
                let names = self.names(*value);
                names != 0 && self.add(*value, names, hour)
            }
        }
    }

    fn forget(&mut self, hour: u32) {
        self.values.retain(|_, (_, at)| hour - *at <= 24);
        self.words.retain(|_, (_, _, at)| hour - *at <= 24);
    }
}

fn said() -> impl Strategy<Value = Said> {
    let marks = prop_oneof![
        Just(ValueMarks::MADE),
        Just(ValueMarks::INTRODUCED),
        Just(ValueMarks::INTRODUCED_BY_HARNESS)
    ];
    let words = prop::collection::btree_map(any::<u8>(), any::<bool>(), 0..4);
    prop_oneof![
        2 => (any::<u8>(), marks).prop_map(|(value, marks)| Said::Add(value, marks)),
        3 => (0_u8..200, words).prop_map(|(value, words)| Said::Pair(value, words)),
    ]
}

proptest! {
    #[test]
    fn it_knows_what_a_slow_reference_knows(
        reports in prop::collection::vec((0_u32..8, prop::collection::vec(said(), 0..60)), 1..12)
    ) {
        let (mut known, mut slow) = (KnownValues::default(), Slow::default());
        let mut hours = 0;
        for (after, all) in reports {
            hours += after;
            let now = later(i64::from(hours));
            known.forget_old(now);
            slow.forget(hours);
            for one in &all {
                let done = match one {
                    Said::Add(number, marks) => known.add(value(*number), *marks, now),
                    Said::Pair(number, words) => {
                        let words: Vec<NamingWord> = words
                            .iter()
                            .map(|(one, by_harness)| match by_harness {
                                true => word(*one, ValueMarks::NAMED_BY_HARNESS),
                                false => named(*one),
                            })
                            .collect();
                        known.pair(value(*number), &words, now)
                    }
                };
                prop_assert_eq!(slow.hear(one, hours), done, "{:?}", one);
            }
            prop_assert_eq!(slow.values.len() + slow.words.len(), known.len());
            let stored = serde_json::to_string(&known).unwrap();
            prop_assert!(stored.len() <= 8 * 1_024);
            known = serde_json::from_str(&stored).unwrap();
            for number in 0..=255 {
                let marks = slow.values.get(&number).map_or(0, |(marks, _)| *marks);
                prop_assert_eq!(ValueMarks(marks), known.find(value(number), now), "{}", number);
            }
        }
    }
}

#[test]
fn the_record_outlives_each_of_its_values() {
    let mut known = KnownValues::default();
    assert!(known.add(value(1), ValueMarks::MADE, NOW));
    let record = KnownValuesRecord::new("s", known, NOW);
    let last = Time(record.until.0 - 1);
    assert!(record.values.find(value(1), later(24)).has(ValueMarks::MADE));
    assert_eq!(ValueMarks::NONE, record.values.find(value(1), Time(last.0 + 1)));
    let stored = serde_json::to_string(&record).unwrap();
    assert_eq!(record, serde_json::from_str(&stored).unwrap());
    assert_eq!((Some(record.until), "s"), (record.record_due(), &*record.record_id()));
}
