//! The words of a prompt in order, and the words of a value that a prompt may have.

use std::collections::BTreeSet;

use authz_base::spelling;
use siphasher::sip128::SipHasher24;
use smallvec::SmallVec;

use super::ids::is_id;
use super::nouns::{is_filler, noun, noun_forms};
use super::stops::is_stop;
use super::{
    LONGEST_PROMPT, Word, bare, ends_sentence, is_hidden, is_span, negate, plain, quotes, words,
};

/// Longest value that is compared with a prompt, in bytes, and its words.
const LONGEST_VALUE: usize = 1_024;
const MOST_VALUE_WORDS: usize = 16;
/// Longest word that is kept, in bytes.
const LONGEST_WORD: usize = 1_024;
/// Letters of a significant word, and digits of a number that names something without its noun.
const FEW_LETTERS: usize = 4;
const FEW_DIGITS: usize = 6;

/// Digest of a word, from which its keyed print is made. Nobody reads a rare word from it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct WordDigest {
    /// Of the word in small letters.
    pub folded: u128,
    /// Of the word as it is written.
    pub exact: u128,
}

impl WordDigest {
    /// The digest of a word.
    #[must_use]
    pub fn of(word: &str) -> Self {
        let digest = |word: &str| SipHasher24::new().hash(word.as_bytes()).as_u128();
        let exact = digest(word);
        let is_folded = word.bytes().all(|byte| byte.is_ascii() && !byte.is_ascii_uppercase());
        let folded = if is_folded { exact } else { digest(&spelling::fold(word)) };
        Self { folded, exact }
    }
}

/// One item of a sequence of words.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Item<'a> {
    /// A word without the marks around it.
    Word {
        /// The word as it is written.
        text: &'a str,
        /// It stands between quotation marks or backticks, or by itself as a parameter.
        is_explicit: bool,
    },
    /// A comma after a word.
    Comma,
    /// The end of a sentence, or words that were left out: quoted, negated, or with hidden characters.
    Gap,
}

/// The words of texts and of single values in order, at most `most` with the gaps between them; of the first 256 KiB.
///
/// Words that are quoted, and words of which a negation speaks, are left out.
#[must_use]
pub fn sequence<'a>(texts: &[&'a str], values: &[&'a str], most: usize) -> Vec<Item<'a>> {
    let mut sequence = WordSequence { items: Vec::new(), most };
    let mut left = LONGEST_PROMPT;
    for text in texts {
        sequence.read(text, left);
        left = left.saturating_sub(text.len());
    }
    for value in values {
        sequence.push(Item::Gap);
        let value = value.trim();
        if left >= value.len() {
            match value.contains(char::is_whitespace) {
                true => sequence.read(value, left),
                false => sequence.word(value, true),
            }
        }
        left = left.saturating_sub(value.len());
    }
    sequence.items
}

struct WordSequence<'a> {
    items: Vec<Item<'a>>,
    most: usize,
}

impl<'a> WordSequence<'a> {
    fn read(&mut self, text: &'a str, most: usize) {
        self.push(Item::Gap);
        let mut end = text.len().min(most);
        while !text.is_char_boundary(end) {
            end = end.saturating_sub(1);
        }
        let mut words = words(text.get(..end).unwrap_or_default());
        if end < text.len() {
            // The last word may have been cut.
            words.pop();
        }
        negate(&mut words);
        let forbidden = words.iter().filter(|word| word.is_negated && !word.is_quoted);
        let forbidden: BTreeSet<&str> =
            forbidden.map(|word| bare(word.text)).filter(|text| !is_letters(text)).collect();
        for (index, word) in words.iter().enumerate() {
            if self.items.len() >= self.most {
                return;
            }
            self.take(word, &forbidden);
            let next = words.get(index.saturating_add(1)).map_or("", |word| bare(word.text));
            // `order no. 12`.
            let is_filler = is_filler(&plain(word.text)) && next.contains(is_digit);
            if ends_sentence(word.text) && !is_filler {
                self.push(Item::Gap);
            } else if word.text.ends_with(',') {
                self.push(Item::Comma);
            }
        }
    }

    /// Args: `forbidden`: words of negated sentences, which no other sentence names.
    fn take(&mut self, word: &Word<'a>, forbidden: &BTreeSet<&str>) {
        if word.is_paragraph {
            self.push(Item::Gap);
        }
        let text = bare(word.text);
        if word.refusal().is_some() || forbidden.contains(text) {
            self.push(Item::Gap);
        } else if let Some((name, id)) = split_id(text) {
            self.word(name, false);
            self.word(id, false);
        } else if text.is_empty() {
            // `&` and `-` are words of names, too.
            self.word(word.text, false);
        } else {
            // `#12` stands for itself, but `order #12` for an order.
            let is_number = text.strip_prefix('#').is_some_and(is_id) && !self.is_after_noun();
            self.word(text, is_number || is_explicit(word.text));
        }
    }

    /// Whether one of the last two words is a noun of things with ids.
    fn is_after_noun(&self) -> bool {
        let last = self.items.iter().rev().take(2).map_while(|item| match item {
            Item::Word { text, .. } => Some(*text),
            Item::Comma | Item::Gap => None,
        });
        last.into_iter().any(|word| noun(&plain(word)).is_some())
    }

    fn word(&mut self, text: &'a str, is_explicit: bool) {
        if text.is_empty() || text.len() > LONGEST_WORD || text.contains(is_hidden) {
            return self.push(Item::Gap);
        }
        self.push(Item::Word { text: without_slash(text), is_explicit });
    }

    /// Adds an item, but no gap beside a gap.
    fn push(&mut self, item: Item<'a>) {
        let is_word = matches!(item, Item::Word { .. });
        let is_after_word = matches!(self.items.last(), Some(Item::Word { .. }));
        if item == Item::Gap && self.items.last() == Some(&Item::Comma) {
            self.items.pop();
        }
        if (is_word
            || is_after_word
            || item == Item::Gap && self.items.last().is_some_and(|last| *last != Item::Gap))
            && self.items.len() < self.most
        {
            self.items.push(item);
        }
    }
}

/// `PR#7` as a noun and its number.
fn split_id(text: &str) -> Option<(&str, &str)> {
    let at = text.find('#').filter(|at| *at > 0)?;
    let (name, id) = text.split_at_checked(at)?;
    (noun(&plain(name)).is_some() && is_id(id.strip_prefix('#')?)).then_some((name, id))
}

/// A folder without the slash at its end.
fn without_slash(text: &str) -> &str {
    text.strip_suffix('/').filter(|rest| !rest.is_empty() && !rest.ends_with('/')).unwrap_or(text)
}

/// Whether a word stands between quotation marks or backticks.
fn is_explicit(word: &str) -> bool {
    let inner = word.trim_end_matches(|c: char| ".,;:!?)".contains(c)).trim_start_matches('(');
    let is_single = inner.chars().count() > 2
        && (inner.starts_with('\'') && inner.ends_with('\'')
            || inner.starts_with('\u{2018}') && inner.ends_with('\u{2019}'));
    is_span(word) || is_single || quotes(word) == (true, true)
}

/// How a value can be named by the words of a prompt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shape {
    /// One word that stands for itself: `sdk-40`, `/exports/a.csv`, `10020030`.
    Distinct,
    /// One word that a prompt may have with another meaning: of letters alone, or a number, a time, a date or a quantity. It
    /// needs its noun, quotation marks, backticks or `#`.
    Ordinary,
    /// Several words.
    Several,
}

/// The words of a value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ValueWords<'a> {
    /// Its words and commas, as a prompt has them.
    pub items: SmallVec<[Item<'a>; 4]>,
    /// How they can be named.
    pub shape: Shape,
    /// Only `#`, and no noun, makes a number of it.
    pub is_number: bool,
}

/// The words of a value; none if no prompt names it by words.
#[must_use]
pub fn value_words(value: &str) -> Option<ValueWords<'_>> {
    if value.len() > LONGEST_VALUE || value.contains(is_hidden) || value.contains(char::is_control)
    {
        return None;
    }
    let mut tokens = value.split_whitespace();
    let first = tokens.next()?;
    if tokens.next().is_none() {
        // INVARIANT (a value is compared whole): a blank at its end makes it another value.
        return (first.len() == value.len()).then(|| of_one_word(first))?;
    }
    let mut items = SmallVec::new();
    let mut is_significant = false;
    for token in value.split_whitespace() {
        let (text, ends_with_comma) = benign(token)?;
        is_significant |= !is_stop(&text.to_lowercase())
            && (text.chars().filter(|c| c.is_alphabetic()).count() >= FEW_LETTERS - 1
                || text.contains(is_digit));
        items.push(Item::Word { text: without_slash(text), is_explicit: false });
        if ends_with_comma {
            items.push(Item::Comma);
        }
    }
    if items.last() == Some(&Item::Comma) {
        items.pop();
    }
    let is_short = items.len() <= MOST_VALUE_WORDS;
    let shape = Shape::Several;
    (is_short && is_significant).then_some(ValueWords { items, shape, is_number: false })
}

fn of_one_word(word: &str) -> Option<ValueWords<'_>> {
    let word = without_slash(word);
    if !word.contains(char::is_alphanumeric) {
        return None;
    }
    let is_number = word.starts_with(is_digit)
        && (word.bytes().all(|byte| byte.is_ascii_digit() || b".,:-/".contains(&byte))
            || !is_id(word))
        && !(word.len() >= FEW_DIGITS && word.bytes().all(|byte| byte.is_ascii_digit()));
    let shape = if is_number || is_letters(word) || word.chars().count() < 2 {
        Shape::Ordinary
    } else {
        Shape::Distinct
    };
    let items = SmallVec::from_iter([Item::Word { text: word, is_explicit: false }]);
    Some(ValueWords { items, shape, is_number })
}

const fn is_digit(c: char) -> bool {
    c.is_ascii_digit()
}

fn is_letters(word: &str) -> bool {
    word.chars().all(char::is_alphabetic)
}

/// A word of a longer value without the marks that end clauses and hold words together; and whether it ends with a comma.
fn benign(token: &str) -> Option<(&str, bool)> {
    if !token.contains(char::is_alphanumeric) {
        return (token.chars().count() == 1 && bare(token).is_empty() || bare(token) == token)
            .then_some((token, false));
    }
    let text = bare(token);
    let at = token.find(text)?;
    let (head, rest) = token.split_at_checked(at)?;
    let tail = rest.strip_prefix(text)?;
    let tail = tail
        .strip_prefix("'s")
        .or_else(|| tail.strip_prefix('\u{2019}').and_then(|tail| tail.strip_prefix('s')))
        .unwrap_or(tail);
    let opens =
        head.is_empty() || matches!(head, "(" | "[" | "\"" | "'" | "\u{201c}" | "\u{201e}" | "«");
    let ends = tail.chars().filter(|c| ".,;:!?".contains(*c)).count();
    let closes = tail.chars().count() <= 2 && ends <= 1 && !tail.contains(['*', '|', '>', '}']);
    let is_word = tail.is_empty() || text.ends_with(char::is_alphanumeric);
    (opens && closes && is_word).then_some((text, tail.ends_with(',')))
}

/// The significant words of a name, in small letters: of at least four letters, or with a digit, and no frequent words.
#[must_use]
pub fn significant_words(name: &str) -> BTreeSet<String> {
    let name = name.get(..name.len().min(LONGEST_VALUE)).unwrap_or_default();
    let words = name.split_whitespace().take(64).map(bare).filter(|word| !word.contains(is_hidden));
    words.map(str::to_lowercase).filter(|word| is_significant(word)).collect()
}

fn is_significant(word: &str) -> bool {
    let letters = word.chars().filter(|c| c.is_alphabetic()).count();
    let has_digit = word.contains(is_digit);
    (letters >= FEW_LETTERS || has_digit) && !is_stop(word)
}

/// The words of a name by which people call somebody; none if a prompt cannot have them.
#[must_use]
pub fn alias_words(alias: &str) -> Option<SmallVec<[&str; 4]>> {
    let is_plain = |word: &str| {
        bare(word) == word && word.contains(char::is_alphabetic) && !word.contains(is_hidden)
    };
    let words: SmallVec<[&str; 4]> = alias.split_whitespace().take(MOST_VALUE_WORDS).collect();
    (!words.is_empty() && words.iter().all(|word| is_plain(word))).then_some(words)
}

/// Whether a word of letters alone is a frequent one, which not even its noun makes a name.
#[must_use]
pub fn is_frequent(word: &str) -> bool {
    is_stop(&word.to_lowercase())
}

/// Nouns by which a prompt may call a value: those of its collection and of its argument, in the singular and the plural.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Nouns {
    all: Box<[u128]>,
    plurals: Box<[u128]>,
}

impl Nouns {
    /// Args: `names`: names of a collection and of arguments, such as `invoices` and `invoice_id`.
    #[must_use]
    pub fn of(names: &[&str]) -> Self {
        let all: BTreeSet<String> = names.iter().flat_map(|name| noun_forms(name)).collect();
        // A plural has its singular beside it.
        let is_plural = |form: &&String| match noun(form) {
            Some((_, is_plural)) => is_plural,
            None => {
                let ends = ["s", "es", "n", "en"];
                ends.iter().any(|end| form.strip_suffix(end).is_some_and(|stem| all.contains(stem)))
            }
        };
        let digest = |form: &String| WordDigest::of(form).folded;
        Self {
            plurals: all.iter().filter(is_plural).map(digest).collect(),
            all: all.iter().map(digest).collect(),
        }
    }

    /// Digests of all of them, without case.
    #[must_use]
    pub fn all(&self) -> &[u128] {
        &self.all
    }

    /// Digests of the plurals, after which a list may follow.
    #[must_use]
    pub fn plurals(&self) -> &[u128] {
        &self.plurals
    }
}

/// Words that stand between the last members of a list.
pub const CONJUNCTIONS_OF_LISTS: [&str; 4] = ["and", "or", "und", "oder"];
/// Words between a noun and its value.
pub const BETWEEN: [&str; 10] =
    ["number", "no", "nr", "nummer", "id", "#", "№", "called", "named", "namens"];

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Words, `,` for a comma, `|` for a gap; explicit words between backticks.
    fn shown(items: &[Item<'_>]) -> String {
        let shown = items.iter().map(|item| match item {
            Item::Word { text, is_explicit: true } => format!("`{text}`"),
            Item::Word { text, is_explicit: false } => (*text).to_owned(),
            Item::Comma => ",".to_owned(),
            Item::Gap => "|".to_owned(),
        });
        shown.collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn words_are_kept_in_order_with_gaps() {
        for (prompt, expected) in [
            ("Cancel the Team sync.", "Cancel the Team sync |"),
            ("Pay Ann, Bob and \"Eve\"", "Pay Ann , Bob and `Eve`"),
            ("Never tell Eve. Tell Bob", "Tell Bob"),
            ("Tell Bob, not Eve. Ask Ann", "Tell Bob | Ask Ann"),
            ("Say \"the wolf comes\" to Bob", "Say | to Bob"),
            ("Close a-1. Never close a-1, or b. b", "Close | b"),
            ("One\n> two\nthree", "One | three"),
            ("Close PR#7 (bob's), & `x`", "Close PR #7 bob , & `x`"),
            ("Close #12, order no. #13", "Close `#12` , order no #13"),
            ("Clear /tmp/a/ - all of it", "Clear /tmp/a - all of it"),
            ("b\u{200b}ob is in", "is in"),
            ("a\n\nb", "a | b"),
            ("", ""),
        ] {
            let items = sequence(&[prompt], &[], 99);
            assert_eq!(expected, shown(&items), "{prompt:?}");
        }
        assert_eq!("a | `4711` | to Ann", shown(&sequence(&["a"], &["4711", "to Ann"], 99)));
        assert_eq!(3, sequence(&["a b c d e"], &[], 3).len());
    }

    proptest! {
        #[test]
        fn any_text_is_split_within_bounds(text in any::<String>(), most in 0_usize..9) {
            prop_assert!(sequence(&[&text], &[&text], most).len() <= most);
            let items = sequence(&[&text], &[&text], 99);
            let is_gap = |item: &Item<'_>| !matches!(item, Item::Word { .. });
            prop_assert!(!items.windows(2).any(|pair| pair.iter().all(is_gap)), "{items:?}");
            for item in items {
                if let Item::Word { text: word, .. } = item {
                    prop_assert!(!word.is_empty() && text.contains(word));
                }
            }
            drop((value_words(&text), significant_words(&text)));
        }

        /// A word of a quotation, and a word of which a negation speaks, are never kept.
        #[test]
        fn words_that_do_not_count_are_left_out(before in "[a-z ,.:]{0,20}", after in "[a-z ,]{0,20}") {
            let has = |prompt: &str| shown(&sequence(&[prompt], &[], 999)).contains("evil-7");
            let prompts = [
                format!("{before}. Never {after} evil-7 {after}"),
                format!("{before} evil-7. Do not {after} evil-7 {after}"),
                format!("{before}\n> {after} evil-7 {after}"),
                format!("{before} \"{after} evil-7 and {after}"),
                format!("{before}\n```\n{after} evil-7 {after}"),
            ];
            for prompt in &prompts {
                prop_assert!(!has(prompt), "{:?}", prompt);
            }
        }

        #[test]
        fn a_value_is_found_where_its_words_are(words in prop::collection::vec("[b-df-hj-mp-z]{4,6}", 2..6)) {
            let value = words.join(" ");
            let prompt = format!("Take {value} now");
            let found = sequence(&[&prompt], &[], 99);
            let Some(wanted) = value_words(&value) else { return Ok(()) };
            prop_assert!(found.windows(wanted.items.len()).any(|items| items == wanted.items.as_slice()));
        }
    }

    #[test]
    fn a_value_is_compared_whole() {
        for (value, expected) in [
            ("sdk-40", Some(("sdk-40", Shape::Distinct))),
            ("10020030", Some(("10020030", Shape::Distinct))),
            ("/exports/a.csv", Some(("/exports/a.csv", Shape::Distinct))),
            ("/exports/", Some(("/exports", Shape::Distinct))),
            ("4711", Some(("4711", Shape::Ordinary))),
            ("10:30", Some(("10:30", Shape::Ordinary))),
            ("2026-11-30", Some(("2026-11-30", Shape::Ordinary))),
            ("5kg", Some(("5kg", Shape::Ordinary))),
            ("invoices", Some(("invoices", Shape::Ordinary))),
            ("x", Some(("x", Shape::Ordinary))),
            ("Team sync", Some(("Team sync", Shape::Several))),
            ("Acme, Inc.", Some(("Acme , Inc", Shape::Several))),
            ("Budget (draft)", Some(("Budget draft", Shape::Several))),
            ("Tom & Ann Lee", Some(("Tom & Ann Lee", Shape::Several))),
            ("Bob's birthday", Some(("Bob birthday", Shape::Several))),
            ("of the", None),
            ("a **b**", None),
            ("docs a/..", None),
            ("docs a/...", None),
            ("docs ../a", Some(("docs ../a", Shape::Several))),
            ("*", None),
            ("", None),
            (" 4711", None),
            ("4711\n", None),
            ("b\u{200b}ob", None),
        ] {
            let found = value_words(value);
            let found = found.as_ref().map(|words| (shown(&words.items), words.shape));
            let found = found.as_ref().map(|(text, shape)| (text.as_str(), *shape));
            assert_eq!(expected, found, "{value:?}");
        }
    }

    #[test]
    fn significant_words_say_what_is_meant() {
        let words = |name| significant_words(name).into_iter().collect::<Vec<_>>().join(" ");
        assert_eq!("kestrel sync", words("The Sync with Kestrel"));
        assert_eq!("q3", words("All of the Q3"));
        assert_eq!("12 room", words("Room 12"));
        assert_eq!("", words("meeting about the new one".split_at(0).0));
        assert_eq!("", words("send message to user"));
    }

    #[test]
    fn nouns_of_a_collection_have_plurals() {
        let has = |nouns: &[u128], word: &str| nouns.contains(&WordDigest::of(word).folded);
        let nouns = Nouns::of(&["branches", "branch_name"]);
        assert!(has(nouns.all(), "branch") && has(nouns.plurals(), "branches"));
        assert!(!has(nouns.plurals(), "branch"));
        let nouns = Nouns::of(&["widgets"]);
        assert!(has(nouns.plurals(), "Widgets") && !has(nouns.plurals(), "widget"));
        assert_eq!(Nouns::default(), Nouns::of(&["id"]));
    }
}
