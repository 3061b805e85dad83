//! Prints of words: what a task keeps of the words of its prompts, and whether they have a value.
//!
//! A task keeps no prompt. The keyed prints of its words, in order, tell whether a value that a call has stands in the prompt,
//! but not which words stand there.

use std::cell::OnceCell;

use authz_bundle::prompt::{
    BETWEEN, CONJUNCTIONS_OF_LISTS, Item, Nouns, Shape, ValueWords, WordDigest, is_frequent,
    sequence, significant_words, value_words,
};
use authz_bundle::recipient_lists::Alias;
use siphasher::sip128::SipHasher24;
use smallvec::SmallVec;

use super::{MAX_WORDS, Speaker, SpokenWords, WordPrint};

/// Words that may stand between a noun and its value at once: `order number # 12`.
const MOST_BETWEEN: usize = 3;
/// Members of a list after a plural.
const LONGEST_LIST: usize = 64;
/// Significant words of a name that are compared.
const MOST_SIGNIFICANT: usize = 32;

/// Key of prints: half of the key of the hashes of names. The other half keeps those hashes unreadable.
#[derive(Clone, Copy)]
struct WordKey(SipHasher24);

impl WordKey {
    fn of(key: &[u8; 32]) -> Self {
        let (half, _) = key.split_first_chunk().unwrap_or((&[0; 16], &[]));
        Self(SipHasher24::new_with_key(half))
    }

    fn print(&self, word: WordDigest) -> WordPrint {
        let folded = self.0.hash(&word.folded.to_be_bytes());
        let exact =
            if word.exact == word.folded { folded } else { self.0.hash(&word.exact.to_be_bytes()) };
        WordPrint::new(folded.h1, exact.h2)
    }

    fn print_text(&self, word: &str) -> WordPrint {
        self.print(WordDigest::of(word))
    }
}

/// The prints of texts and of values that stand by themselves, in order.
pub(super) fn prints(texts: &[&str], values: &[&str], key: &[u8; 32]) -> Vec<WordPrint> {
    let key = WordKey::of(key);
    let items = sequence(texts, values, MAX_WORDS);
    let print = |item: Item<'_>| match item {
        Item::Word { text, is_explicit } => {
            let is_capital = text.starts_with(char::is_uppercase);
            key.print_text(text).explicit(is_explicit).capital(is_capital)
        }
        Item::Comma => WordPrint::COMMA,
        Item::Gap => WordPrint::GAP,
    };
    items.into_iter().map(print).collect()
}

/// Words of the prompts of a task, and of the root above it.
#[derive(Clone, Copy)]
pub struct PromptWords<'a> {
    spoken: [&'a SpokenWords; 2],
    key: WordKey,
}

impl std::fmt::Debug for PromptWords<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("PromptWords").finish_non_exhaustive()
    }
}

/// Significant words of a name that stand in a prompt.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SignificantWords {
    /// The best speaker who says one of them.
    pub by: Speaker,
    /// The prints of those that this speaker says: sorted, each once, never empty. Equal words have equal prints.
    pub words: SmallVec<[u64; 8]>,
}

impl SignificantWords {
    /// Whether these words say more than other ones: all of those, and another.
    ///
    /// Of two names of which neither says more, nobody knows which one the user means.
    #[must_use]
    pub fn says_more(&self, other: &Self) -> bool {
        self.words.len() > other.words.len()
            && other.words.iter().all(|word| self.words.binary_search(word).is_ok())
    }
}

impl<'a> PromptWords<'a> {
    /// None where no words are kept.
    ///
    /// Args: `spoken`: words of the root and of the task; the same twice where the task is the root; `key`: the key of the
    /// hashes.
    #[must_use]
    pub fn of(spoken: [&'a SpokenWords; 2], key: &[u8; 32]) -> Option<Self> {
        let has_words = spoken.iter().any(|words| !words.is_empty());
        has_words.then(|| Self { spoken, key: WordKey::of(key) })
    }

    /// The best speaker who names a value by its words, whole and in order.
    ///
    /// A word of letters alone, or a number, needs one of its nouns beside it, quotation marks or backticks; a number may have
    /// `#` instead.
    ///
    /// Args: `nouns`: words for the collection of the value, and for its argument; `ignores_case`: whether the collection
    /// does.
    #[must_use]
    pub fn speaker(&self, value: &str, nouns: &Nouns, ignores_case: bool) -> Option<Speaker> {
        self.speaker_of(value, value_words(value)?, nouns, ignores_case)
    }

    /// The best speaker who names an amount by a number beside one of its nouns, or as a parameter.
    #[must_use]
    pub fn speaker_of_amount(&self, number: &str, nouns: &Nouns) -> Option<Speaker> {
        // `10020030` may be an account.
        let words = value_words(number)?;
        let words = ValueWords { shape: Shape::Ordinary, is_number: false, ..words };
        let is_number = number.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.');
        if is_number { self.speaker_of(number, words, nouns, false) } else { None }
    }

    /// The best speaker who says the words of a value, whole and in order, also where they may mean something else.
    #[must_use]
    pub fn speaker_of_mention(&self, value: &str) -> Option<Speaker> {
        let words = ValueWords { shape: Shape::Distinct, ..value_words(value)? };
        self.speaker_of(value, words, &Nouns::default(), true)
    }

    fn speaker_of(
        &self,
        value: &str,
        words: ValueWords<'_>,
        nouns: &Nouns,
        ignores_case: bool,
    ) -> Option<Speaker> {
        let of_item = |item: &Item<'_>| match item {
            Item::Word { text, .. } => self.key.print_text(text),
            Item::Comma | Item::Gap => WordPrint::COMMA,
        };
        let mut patterns: SmallVec<[SmallVec<[WordPrint; 4]>; 2]> =
            SmallVec::from_iter([words.items.iter().map(of_item).collect()]);
        if words.is_number {
            patterns.push(SmallVec::from_iter([self.key.print_text(&format!("#{value}"))]));
        }
        let place = Place {
            shape: words.shape,
            is_number: words.is_number,
            is_frequent: words.shape == Shape::Ordinary && is_frequent(value),
            nouns,
            key: &self.key,
            prints: OnceCell::new(),
        };
        self.best(|said| {
            patterns.iter().any(|pattern| {
                let mut found = said.windows(pattern.len()).enumerate();
                found.any(|(at, window)| {
                    is_match(window, pattern, ignores_case) && place.counts(said, at)
                })
            })
        })
    }

    /// The significant words of a name that stand in the prompts: of at least four letters, or with a digit, without case.
    ///
    /// For a name that the system itself gives a thing; there a single word counts. If two things have the same words here, or
    /// neither [says more](SignificantWords::says_more), nobody knows which one the user means.
    #[must_use]
    pub fn significant(&self, name: &str) -> Option<SignificantWords> {
        let words = significant_words(name);
        let prints: SmallVec<[WordPrint; 8]> =
            words.iter().take(MOST_SIGNIFICANT).map(|word| self.key.print_text(word)).collect();
        let mut found: SmallVec<[u64; 8]> = SmallVec::new();
        for speaker in SPEAKERS {
            for said in self.said(speaker) {
                let is_said = |print: &&WordPrint| {
                    said.iter().any(|word| word.is_word() && word.is_same_folded(**print))
                };
                found.extend(prints.iter().filter(is_said).map(|print| print.folded()));
            }
            if !found.is_empty() {
                found.sort_unstable();
                found.dedup();
                return Some(SignificantWords { by: speaker, words: found });
            }
        }
        None
    }

    /// The best speaker who says an alias, or its first words, of which no rival has as many.
    ///
    /// A word with a capital letter beside the alias may belong to another name, as in "Mark Smith" for the alias `Mark`.
    ///
    /// Args: `aliases`: those of one destination; `rivals`: aliases of other destinations that begin with the same word. None:
    /// too many.
    #[must_use]
    pub fn speaker_of_alias<'b>(
        &self,
        aliases: &[&Alias],
        rivals: impl Fn(&Alias) -> Option<SmallVec<[&'b Alias; 4]>>,
    ) -> Option<Speaker> {
        let prints = |alias: &Alias| -> SmallVec<[WordPrint; 4]> {
            alias.words().iter().map(|word| self.key.print(*word)).collect()
        };
        let own: SmallVec<[_; 2]> =
            aliases.iter().map(|alias| (*alias, prints(alias), OnceCell::new())).collect();
        self.best(|said| {
            own.iter().any(|(alias, words, others)| {
                let places = (0..said.len()).filter(|at| run(said, *at, words) > 0);
                let mut places = places.filter(|at| {
                    let count = run(said, *at, words);
                    let first = said.get(*at).zip(words.first());
                    let is_exact = first.is_some_and(|(said, word)| said.is_same(*word));
                    // "mark it as paid" names no Mark, and "Will it rain" no Will.
                    (count > 1 || is_exact && !alias.is_frequent()) && is_apart(said, *at, count)
                });
                places.any(|at| {
                    let count = run(said, at, words);
                    let others = others.get_or_init(|| {
                        let rivals = rivals(alias)?;
                        Some(rivals.into_iter().map(prints).collect::<Vec<_>>())
                    });
                    let others = others.as_ref();
                    others.is_some_and(|others| {
                        others.iter().all(|other| run(said, at, other) < count)
                    })
                })
            })
        })
    }

    /// The best speaker of whose words something holds.
    fn best(&self, mut holds: impl FnMut(&[WordPrint]) -> bool) -> Option<Speaker> {
        SPEAKERS.into_iter().find(|speaker| self.said(*speaker).any(&mut holds))
    }

    /// The words of a speaker in the task and in its root; once where they are the same.
    fn said(&self, speaker: Speaker) -> impl Iterator<Item = &'a [WordPrint]> {
        let [root, task] = self.spoken;
        let task = (!std::ptr::eq(root, task)).then_some(task);
        [Some(root), task].into_iter().flatten().map(move |words| words.of(speaker).as_slice())
    }
}

/// Kinds of speakers, from the best to the worst.
const SPEAKERS: [Speaker; 3] = [Speaker::Subject, Speaker::Harness, Speaker::Agent];

fn is_match(said: &[WordPrint], pattern: &[WordPrint], ignores_case: bool) -> bool {
    said.iter().zip(pattern).all(|(said, wanted)| match (said.is_word(), wanted.is_word()) {
        (true, true) if ignores_case => said.is_same_folded(*wanted),
        (true, true) => said.is_same(*wanted),
        _ => said == wanted,
    })
}

/// The number of the first words of an alias that stand at a place, without case.
fn run(said: &[WordPrint], at: usize, words: &[WordPrint]) -> usize {
    let said = said.get(at..).unwrap_or_default();
    let is_same =
        |(said, word): &(&WordPrint, &WordPrint)| said.is_word() && said.is_same_folded(**word);
    said.iter().zip(words).take_while(is_same).count()
}

/// Whether no word beside these could belong to the same name: a word with a capital letter, unless it begins a sentence.
fn is_apart(said: &[WordPrint], at: usize, count: usize) -> bool {
    let is_capital =
        |at: Option<usize>| at.and_then(|at| said.get(at)).is_some_and(|word| word.is_capital());
    let begins_sentence = match at.checked_sub(2) {
        Some(before) => said.get(before) == Some(&WordPrint::GAP),
        None => true,
    };
    !is_capital(at.checked_add(count)) && (begins_sentence || !is_capital(at.checked_sub(1)))
}

/// Condition on the place of a value in a prompt.
struct Place<'a> {
    shape: Shape,
    is_number: bool,
    is_frequent: bool,
    nouns: &'a Nouns,
    key: &'a WordKey,
    prints: OnceCell<NounPrints>,
}

/// Prints of nouns, which are made only once the value was found.
struct NounPrints {
    all: Vec<u64>,
    plurals: Vec<u64>,
    between: Vec<u64>,
    conjunctions: Vec<u64>,
}

impl Place<'_> {
    /// Whether the value that stands at this place of the words is meant.
    fn counts(&self, said: &[WordPrint], at: usize) -> bool {
        if self.shape != Shape::Ordinary {
            return true;
        }
        if said.get(at).is_some_and(|word| word.is_explicit()) {
            return true;
        }
        let before = said.get(..at).unwrap_or_default();
        let next = said.get(at.saturating_add(1));
        !self.is_frequent
            && (self.follows_noun(before)
                || self.is_in_list(before)
                || !self.is_number && next.is_some_and(|next| has(&self.prints().all, *next)))
    }

    /// `invoice 4711`, `invoice number 4711`.
    fn follows_noun(&self, before: &[WordPrint]) -> bool {
        let prints = self.prints();
        let is_between = |word: &&WordPrint| has(&prints.between, **word);
        let between = before.iter().rev().take(MOST_BETWEEN).take_while(is_between).count();
        let noun = before.iter().rev().nth(between);
        noun.is_some_and(|noun| has(&prints.all, *noun))
    }

    /// `rooms 12, 13 and 14`: words with commas or conjunctions between them, after a plural.
    fn is_in_list(&self, before: &[WordPrint]) -> bool {
        let prints = self.prints();
        let is_mark = |word: WordPrint| word == WordPrint::COMMA || has(&prints.conjunctions, word);
        let mut words = before.iter().rev().copied().take(LONGEST_LIST).peekable();
        loop {
            let mut marks = 0_usize;
            while words.next_if(|word| is_mark(*word)).is_some() {
                marks = marks.saturating_add(1);
            }
            // The member before, and what it follows.
            let Some(member) = words.next().filter(|member| marks > 0 && member.is_word()) else {
                return false;
            };
            match words.peek() {
                Some(noun) if has(&prints.plurals, *noun) => return !has(&prints.all, member),
                Some(mark) if is_mark(*mark) => {}
                _ => return false,
            }
        }
    }

    fn prints(&self) -> &NounPrints {
        self.prints.get_or_init(|| {
            let fold = |word: &str| self.key.print_text(word).folded();
            let noun =
                |noun: &u128| self.key.print(WordDigest { folded: *noun, exact: *noun }).folded();
            NounPrints {
                all: self.nouns.all().iter().map(noun).collect(),
                plurals: self.nouns.plurals().iter().map(noun).collect(),
                between: BETWEEN.iter().map(|word| fold(word)).collect(),
                conjunctions: CONJUNCTIONS_OF_LISTS.iter().map(|word| fold(word)).collect(),
            }
        })
    }
}

fn has(prints: &[u64], word: WordPrint) -> bool {
    word.is_word() && prints.contains(&word.folded())
}

#[cfg(test)]
mod tests {
    #![expect(clippy::panic, reason = "tests")]
    use std::collections::BTreeSet;

    use super::*;

    const KEY: [u8; 32] = [7; 32];

    fn spoken(by: Speaker, prompt: &str, values: &[&str]) -> SpokenWords {
        let mut words = SpokenWords::default();
        words.add(by, &prints(&[prompt], values, &KEY));
        words
    }

    fn is_named(prompt: &str, value: &str, nouns: &[&str]) -> bool {
        let spoken = spoken(Speaker::Subject, prompt, &[]);
        let Some(words) = PromptWords::of([&spoken; 2], &KEY) else { return false };
        words.speaker(value, &Nouns::of(nouns), false).is_some()
    }

    #[test]
    fn a_value_stands_in_the_prompt_whole_and_in_order() {
        for (prompt, value, nouns, expected) in [
            ("Close sdk-40 of heron/sdk.", "sdk-40", &[][..], true),
            ("Close sdk-40 of heron/sdk.", "heron/sdk", &[], true),
            ("Close sdk-40 of heron/sdk.", "sdk-4", &[], false),
            ("Close sdk-40 of heron/sdk.", "SDK-40", &[], false),
            ("Cancel the Team sync.", "Team sync", &[], true),
            ("Cancel the Team sync.", "Team sync now", &[], false),
            ("Cancel the team. Sync", "team Sync", &[], false),
            ("Cancel team, sync", "team sync", &[], false),
            ("Pay Acme, Inc. today", "Acme, Inc.", &[], true),
            ("Never close sdk-40. Close sdk-41", "sdk-40", &[], false),
            ("Never close sdk-40. Close sdk-41", "sdk-41", &[], true),
            ("> close sdk-40", "sdk-40", &[], false),
            ("Tell team \"x y\" sync", "team sync", &[], false),
            ("Read the file and go", "file", &["folders"], false),
            ("Read the invoices in it", "invoices", &["folders"], false),
            ("Read the folder invoices", "invoices", &["folders"], true),
            ("Read the invoices folder", "invoices", &["folders"], true),
            ("Read `invoices`", "invoices", &["folders"], true),
            ("Read \"invoices\"", "invoices", &["folders"], true),
            ("Read the folder called invoices", "invoices", &["folders"], true),
            ("Read folders drafts, invoices and bills", "bills", &["folders"], true),
            ("Read folders drafts, invoices and bills", "invoices", &["folders"], true),
            ("Read folder drafts and answer", "answer", &["folders"], false),
            ("Read folder drafts and bills", "bills", &["folders"], false),
            ("This folder is new", "is", &["folders"], false),
            ("Cancel order 4711", "4711", &["orders"], true),
            ("Cancel order #4711", "4711", &["order_id"], true),
            ("Cancel order no. 4711", "4711", &["orders"], true),
            ("Lösche Bestellung Nr. 4711", "4711", &["orders"], true),
            ("Cancel order #4711", "4711", &["invoices"], false),
            ("Cancel #4711", "4711", &["invoices"], true),
            ("Cancel it at 12", "12", &["orders"], false),
            ("Cancel rooms 12, 13 and 14", "14", &["rooms"], true),
            ("Cancel rooms 12, 13 and 14", "13", &["rooms"], true),
            ("Cancel room 12 and 13 tables", "13", &["rooms"], false),
            ("Merge PR#7", "7", &["pulls"], true),
            ("Merge pull request 7", "7", &["pulls"], true),
            ("Pay to 10020030", "10020030", &[], true),
            ("Look into /exports/", "/exports", &[], true),
            ("Delete reports*", "reports*", &[], false),
        ] {
            assert_eq!(expected, is_named(prompt, value, nouns), "{prompt:?} {value:?}");
        }
        assert!(!is_named("", "x-1", &[]));
    }

    #[test]
    fn the_words_of_the_page_hold() {
        const PAGE: &str = include_str!("../../../../docs/reference/prompt.md");
        let header = "| Prompt | Value | Collection | Named? |";
        let rows = PAGE.lines().skip_while(|line| *line != header).skip(2);
        let mut count = 0;
        for row in rows.take_while(|line| line.starts_with('|')) {
            let cells: Vec<&str> = row.trim_matches('|').split('|').map(str::trim).collect();
            let [prompt, value, collection, expected] = cells.as_slice() else {
                panic!("{row}");
            };
            let code = |cell: &str| {
                // A code span of two backticks holds single ones.
                let inner = cell.strip_prefix("`` ").and_then(|cell| cell.strip_suffix(" ``"));
                inner.unwrap_or_else(|| cell.trim_matches('`')).replace('⏎', "\n")
            };
            let is_named = is_named(&code(prompt), &code(value), &[&code(collection)]);
            assert_eq!(*expected == "yes", is_named, "{row}");
            count += 1;
        }
        assert!(count > 15, "the table was not found");
    }

    #[test]
    fn a_parameter_names_itself() {
        let spoken = spoken(Speaker::Subject, "Do it", &["12", "invoices", "Team sync"]);
        let words = PromptWords::of([&spoken; 2], &KEY);
        for (value, expected) in
            [("12", true), ("invoices", true), ("Team sync", true), ("it 12", false), ("it", false)]
        {
            let by = words.and_then(|words| words.speaker(value, &Nouns::default(), false));
            assert_eq!(expected, by.is_some(), "{value}");
        }
    }

    #[test]
    fn the_best_speaker_counts() {
        let claimed = spoken(Speaker::Agent, "Close sdk-40 and sdk-41", &[]);
        let mut root = spoken(Speaker::Subject, "Close sdk-40", &[]);
        root.extend(&spoken(Speaker::Harness, "Close sdk-42", &[]));
        let words = PromptWords::of([&root, &claimed], &KEY);
        for (value, expected) in [
            ("sdk-40", Some(Speaker::Subject)),
            ("sdk-41", Some(Speaker::Agent)),
            ("sdk-42", Some(Speaker::Harness)),
            ("sdk-43", None),
            ("SDK-40", Some(Speaker::Subject)),
        ] {
            let by = words.and_then(|words| words.speaker(value, &Nouns::default(), true));
            assert_eq!(expected, by, "{value}");
        }
        let other = PromptWords::of([&root, &claimed], &[8; 32]);
        let by = other.and_then(|words| words.speaker("sdk-40", &Nouns::default(), false));
        assert_eq!(None, by, "another key");
        assert!(PromptWords::of([&SpokenWords::default(); 2], &KEY).is_none());
    }

    #[test]
    fn an_amount_needs_its_noun() {
        let spoken = spoken(Speaker::Subject, "Pay to 10020030, amount 870", &["1250"]);
        let words = PromptWords::of([&spoken; 2], &KEY);
        let nouns = Nouns::of(&["amount"]);
        for (number, expected) in
            [("870", true), ("1250", true), ("10020030", false), ("87", false), ("amount", false)]
        {
            let by = words.and_then(|words| words.speaker_of_amount(number, &nouns));
            assert_eq!(expected, by.is_some(), "{number}");
        }
    }

    #[test]
    fn significant_words_tell_names_apart() {
        let spoken = spoken(Speaker::Subject, "Cancel the Kestrel sync on Tuesday", &[]);
        let words = PromptWords::of([&spoken; 2], &KEY);
        let of = |name: &str| words.and_then(|words| words.significant(name));
        let (both, sync, kestrel) = (of("Sync with kestrel"), of("Team sync"), of("KESTREL"));
        let more = |one: &Option<SignificantWords>, other: &Option<SignificantWords>| {
            one.as_ref().zip(other.as_ref()).is_some_and(|(one, other)| one.says_more(other))
        };
        assert!(more(&both, &sync) && more(&both, &kestrel));
        assert!(!more(&sync, &kestrel) && !more(&kestrel, &sync) && !more(&both, &both));
        assert_eq!(None, of("Cancel it on the"));
        assert_eq!(None, of(""));
        let distinct: BTreeSet<_> = both.iter().flat_map(|words| words.words.clone()).collect();
        assert_eq!(2, distinct.len());
    }

    #[test]
    fn words_are_kept_within_bounds() {
        let long = "word ".repeat(5_000);
        assert_eq!(MAX_WORDS, prints(&[&long], &[], &KEY).len());
        let spoken = spoken(Speaker::Subject, &long, &[]);
        let words = PromptWords::of([&spoken; 2], &KEY);
        let value = "word ".repeat(30);
        assert_eq!(None, words.and_then(|words| words.speaker(&value, &Nouns::default(), false)));
    }
}
