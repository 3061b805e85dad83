//! Reads what a prompt names: mailboxes, URLs, IBANs, accounts, paths, amounts and ids, each in one canonical form.
//!
//! The reader is strict, since a name makes a destination trusted: what may be read in two ways, what stands in a sentence
//! with a negation, and what is quoted names nothing. `docs/reference/prompt.md` has the rules with examples, which a test runs.

mod amounts;
mod hosts;
mod ids;
mod nouns;
mod stops;
mod words;

use std::collections::BTreeSet;

use authz_base::host::is_host;
use serde::Serialize;
use smallvec::SmallVec;

use crate::canonical::{canonical, url_parts};
use crate::model::DestinationKind;

pub use amounts::amount_name;
pub use nouns::noun_forms;
pub use words::{
    BETWEEN, CONJUNCTIONS_OF_LISTS, Item, Nouns, Shape, ValueWords, WordDigest, alias_words,
    is_frequent, sequence, significant_words, value_words,
};

/// Bytes of a prompt that are read.
pub const LONGEST_PROMPT: usize = 256 << 10;
/// Readings of one prompt.
const MAX_READINGS: usize = 4_096;
/// Words that are tried together as one IBAN: it may be written in groups of four.
const MOST_GROUPS: usize = 9;
/// Shortest word that names an account, and shortest one of digits alone.
const SHORTEST_ACCOUNT: usize = 4;
const SHORTEST_NUMBER: usize = 6;
/// Segments of a path that are compared.
const MOST_SEGMENTS: usize = 32;

/// Words after which nothing in the sentence is named, and before them nothing in the clause. Apostrophes are left out.
const NEGATIONS: &[&str] = &[
    "aint",
    "aucun",
    "ausser",
    "außer",
    "avoid",
    "cannot",
    "cant",
    "didnt",
    "doesnt",
    "dont",
    "except",
    "excepto",
    "exclude",
    "excluding",
    "forbid",
    "forbidden",
    "ignore",
    "ignoriere",
    "jamais",
    "kein",
    "keine",
    "keinem",
    "keinen",
    "keiner",
    "mustnt",
    "neither",
    "never",
    "nicht",
    "nie",
    "niemals",
    "no",
    "none",
    "nor",
    "not",
    "nunca",
    "ohne",
    "omit",
    "pas",
    "sans",
    "sauf",
    "shouldnt",
    "sin",
    "skip",
    "stop",
    "unless",
    "unlike",
    "without",
    "wont",
];
/// Words that begin another clause.
const CONJUNCTIONS: &[&str] = &["aber", "and", "but", "et", "oder", "or", "sondern", "then", "und"];
/// Words whose dot ends no sentence.
const ABBREVIATIONS: &[&str] =
    &["al", "bzw", "ca", "cf", "dr", "e.g", "i.e", "mr", "mrs", "ms", "st", "vs"];
/// How a line begins from which on a mail is quoted to the end.
const MAIL_HEADERS: &[&str] =
    &["from:", "sender:", "reply-to:", "return-path:", "received:", "von:", "de:", "delivered-to:"];
/// What a line holds where a mail is forwarded or answered from there on.
const MAIL_STARTS: &[&str] = &[
    "original message--",
    "forwarded message--",
    "begin forwarded message",
    "ursprüngliche nachricht--",
];

/// A word of a prompt that could name something.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Reading {
    /// The word, or the words of an IBAN.
    pub text: String,
    /// What it is.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub kind: Option<&'static str>,
    /// Its canonical form; empty where it has none.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub name: String,
    /// Reason why it names nothing. `None`: it is named.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub why: Option<&'static str>,
    /// A URL without a scheme: it names the same URL with `www.` and without it, too.
    #[serde(skip)]
    is_bare_host: bool,
}

impl Reading {
    fn named(text: &str, kind: DestinationKind, name: String) -> Self {
        Self { text: text.to_owned(), kind: Some(word(kind)), name, ..Self::default() }
    }

    fn unnamed(text: &str, why: &'static str) -> Self {
        Self { text: text.to_owned(), why: Some(why), ..Self::default() }
    }

    /// Its kind and its canonical form.
    fn key(&self) -> Option<String> {
        Some(format!("{}:{}", self.kind?, self.name))
    }

    /// The keys that it is kept by. An id has none: it is compared with the words of the prompt.
    fn keys(&self) -> SmallVec<[String; 2]> {
        let mut keys = SmallVec::new();
        match (self.kind, self.name.split_once("://")) {
            (Some("id") | None, _) => {}
            (Some("amount"), _) => {
                keys.extend(self.name.rsplit(' ').next().map(|value| format!("amount:{value}")));
                keys.extend(self.key());
            }
            (Some(_), Some((scheme, rest))) if self.is_bare_host => {
                keys.extend(self.key());
                keys.push(format!("url:{scheme}://{}", hosts::twin(rest)));
            }
            (Some(_), _) => keys.extend(self.key()),
        }
        keys
    }

    /// What a negation of this reading forbids to name: itself, and each URL or path above it.
    fn forbids(&self) -> SmallVec<[String; 2]> {
        match self.kind {
            Some("url") => names_of(DestinationKind::UrlHost, &self.name, ""),
            Some("path") => names_of(DestinationKind::Path, "", &self.name),
            _ => self.key().into_iter().collect(),
        }
    }
}

/// The word for a kind of destination.
const fn word(kind: DestinationKind) -> &'static str {
    match kind {
        DestinationKind::Email => "email",
        DestinationKind::UrlHost => "url",
        DestinationKind::Iban => "iban",
        DestinationKind::Account => "account",
        DestinationKind::Path => "path",
    }
}

/// The names by which a destination of a call counts as named: its own, and of a URL or a path each one above it.
///
/// Args: `raw`: as the call has it; `canonical`: the canonical form of its kind.
pub fn names_of(kind: DestinationKind, raw: &str, canonical: &str) -> SmallVec<[String; 2]> {
    if kind == DestinationKind::Path {
        return paths_above(canonical);
    }
    if kind != DestinationKind::UrlHost {
        return SmallVec::from_iter([format!("{}:{canonical}", word(kind))]);
    }
    let Some((origin, segments)) = url_parts(raw) else { return SmallVec::new() };
    let mut name = format!("{}:{origin}", word(kind));
    let mut names = SmallVec::new();
    if segments.is_empty() {
        name.push('/');
        names.push(name);
        return names;
    }
    for segment in segments.iter().take(MOST_SEGMENTS) {
        name.push('/');
        name.push_str(segment);
        names.push(name.clone());
    }
    names
}

/// A path and the folders above it, but neither `/` nor `~`.
fn paths_above(path: &str) -> SmallVec<[String; 2]> {
    let ends = path.match_indices('/').map(|(at, _)| at).chain([path.len()]);
    let folders = ends.filter_map(|end| path.get(..end)).filter(|path| !matches!(*path, "" | "~"));
    let mut names: SmallVec<[String; 2]> =
        folders.take(MOST_SEGMENTS).map(|folder| format!("path:{folder}")).collect();
    let whole = format!("path:{path}");
    if names.last() != Some(&whole) {
        names.push(whole);
    }
    names
}

/// The names of texts and of single values, each as its kind and canonical form; at most `most`, of the first 256 KiB.
pub fn names(texts: &[&str], values: &[&str], most: usize) -> BTreeSet<String> {
    let mut names = BTreeSet::new();
    let mut left = LONGEST_PROMPT;
    let all = texts.iter().map(|text| (text, false)).chain(values.iter().map(|text| (text, true)));
    for (text, is_value) in all {
        let readings =
            if is_value && left >= text.len() { value(text) } else { read_within(text, left) };
        for reading in readings {
            if names.len() >= most {
                return names;
            }
            if reading.why.is_none() {
                let room = most.saturating_sub(names.len());
                names.extend(reading.keys().into_iter().take(room));
            }
        }
        left = left.saturating_sub(text.len());
    }
    names
}

/// Reads a value that stands by itself, such as a parameter. If it is one word, it is read as a name, not as prose.
fn value(text: &str) -> Vec<Reading> {
    if text.contains(char::is_whitespace) {
        return read(text);
    }
    let mut found = Vec::new();
    let word = Word { text, is_paragraph: false, is_quoted: false, is_negated: false };
    if let Some((iban, text, _)) = iban(std::slice::from_ref(&word)) {
        found.push(Reading::named(&text, DestinationKind::Iban, iban));
    }
    if let Some((amount, _)) = amounts::amount(None, &[word]) {
        found.push(amount);
        return found;
    }
    read_word(text, true, &mut found);
    found
}

/// A text that is not the name of one destination.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NameError {
    /// The defect.
    pub what: &'static str,
}

impl std::fmt::Display for NameError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.what)
    }
}

impl std::error::Error for NameError {}

/// Reads a text that names one destination.
///
/// # Errors
/// The text names no destination, or several.
pub fn read_name(text: &str) -> Result<String, NameError> {
    let refuse = |what| Err(NameError { what });
    let mut readings = value(text).into_iter();
    let of_whole = |reading: &Reading| reading.text == text || reading.kind == Some("iban");
    match (readings.next(), readings.next()) {
        (Some(reading), second) if of_whole(&reading) => match (reading.why, reading.key()) {
            // An IBAN may be meant as an account too.
            (None, Some(key)) if second.is_none_or(|other| other.text == text) => Ok(key),
            (Some(why), _) => refuse(why),
            _ => refuse("it is more than one name"),
        },
        _ => refuse("it is no mailbox, URL, IBAN, path or account"),
    }
}

/// Reads a prompt: the words that could name something, in order, and why some name nothing.
#[must_use]
pub fn read(prompt: &str) -> Vec<Reading> {
    read_within(prompt, LONGEST_PROMPT)
}

fn read_within(prompt: &str, most: usize) -> Vec<Reading> {
    let mut end = prompt.len().min(most);
    while !prompt.is_char_boundary(end) {
        end = end.saturating_sub(1);
    }
    let mut words = words(prompt.get(..end).unwrap_or_default());
    if end < prompt.len() {
        // The last word may have been cut.
        words.pop();
    }
    negate(&mut words);
    let mut found: Vec<Reading> = Vec::new();
    let mut ids = ids::Ids::default();
    let mut taken = 0_usize;
    for index in 0..words.len() {
        if found.len() >= MAX_READINGS {
            break;
        }
        if index < taken {
            continue;
        }
        let from = found.len();
        let rest = words.get(index..).unwrap_or_default();
        let before = index.checked_sub(1).and_then(|index| words.get(index));
        let span = read_at(before, rest, &mut ids, &mut found);
        taken = index.saturating_add(span);
        let refusal = rest.iter().take(span).find_map(Word::refusal);
        for reading in found.iter_mut().skip(from) {
            reading.why = reading.why.or(refusal);
        }
    }
    let forbidden: BTreeSet<String> =
        found.iter().filter(|one| one.why == Some(NEGATED)).flat_map(Reading::forbids).collect();
    for reading in &mut found {
        if reading.why.is_none() && reading.key().is_some_and(|key| forbidden.contains(&key)) {
            reading.why = Some("another sentence of the prompt forbids it");
        }
    }
    found.truncate(MAX_READINGS);
    found
}

/// Reads what begins with the first of some words. Returns the number of words that were read, at least 1.
fn read_at(
    before: Option<&Word<'_>>,
    words: &[Word<'_>],
    ids: &mut ids::Ids,
    found: &mut Vec<Reading>,
) -> usize {
    let Some(word) = words.first() else { return 1 };
    if let Some((iban, text, count)) = iban(words) {
        found.push(Reading::named(&text, DestinationKind::Iban, iban));
        // One word may be meant as an account too; groups of it name nothing by themselves.
        if count > 1 {
            ids.end();
            return count;
        }
    }
    if let Some((amount, count)) = amounts::amount(before, words) {
        ids.end();
        found.push(amount);
        return count;
    }
    let is_in_folder = ids.is_after_folder();
    let id = ids.read(before, words);
    let from = found.len();
    read_word(word.text, is_span(word.text) || is_in_folder && word.text.contains('/'), found);
    if is_in_folder && found.len() == from {
        found.extend(folder(bare(word.text)));
    }
    if let Some(id) = id {
        // Without its noun, it would be a number, which names nothing.
        let mut index = 0_usize;
        found.retain(|reading| {
            index = index.saturating_add(1);
            index <= from || reading.why.is_none()
        });
        found.push(id);
    }
    1
}

const NEGATED: &str = "its sentence has a negation";
const QUOTED: &str = "it is quoted";

/// A word and its surroundings.
struct Word<'a> {
    text: &'a str,
    /// It begins a line after an empty one.
    is_paragraph: bool,
    is_quoted: bool,
    is_negated: bool,
}

impl Word<'_> {
    fn refusal(&self) -> Option<&'static str> {
        match (self.is_quoted, self.is_negated) {
            (true, _) => Some(QUOTED),
            (false, true) => Some(NEGATED),
            (false, false) => None,
        }
    }
}

/// Splits a text into words, and tells which are quoted.
fn words(text: &str) -> Vec<Word<'_>> {
    let is_break =
        |c: char| matches!(c, '\n' | '\r' | '\u{b}' | '\u{c}' | '\u{85}' | '\u{2028}' | '\u{2029}');
    let mut words = Vec::new();
    let (mut in_code, mut in_mail, mut after_empty) = (false, false, false);
    for line in text.split(is_break) {
        let start = line.trim_start();
        let lower = start.to_lowercase();
        in_mail |= MAIL_HEADERS.iter().any(|header| lower.starts_with(header))
            || MAIL_STARTS.iter().any(|begin| lower.contains(begin));
        let is_fence = start.starts_with("```") || start.starts_with("~~~");
        let is_quoted = in_mail || in_code || is_fence || start.starts_with('>');
        in_code ^= is_fence;
        let mut in_quotes = false;
        let mut is_first = true;
        for word in line.split(|c: char| c.is_whitespace() || c.is_control()) {
            if word.is_empty() {
                continue;
            }
            let (begins, ends) = quotes(word);
            let is_inside = in_quotes || begins && !ends;
            in_quotes = (in_quotes || begins) && !ends;
            words.push(Word {
                text: word,
                is_paragraph: is_first && after_empty,
                is_quoted: is_quoted || is_inside,
                is_negated: false,
            });
            is_first = false;
        }
        after_empty = is_first;
        in_mail |= lower.trim_end().ends_with("wrote:") || lower.trim_end().ends_with("schrieb:");
    }
    words
}

/// Whether a word begins with a quotation mark, and whether it ends with one.
fn quotes(word: &str) -> (bool, bool) {
    let is_mark = |c: char| matches!(c, '"' | '\u{201c}' | '\u{201d}' | '\u{201e}' | '«' | '»');
    let begins = word.trim_start_matches(['(', '[', '*', '_']).starts_with(is_mark);
    let tail = word.trim_end_matches(|c: char| ".,;:!?)]*_".contains(c));
    let ends = tail.ends_with(is_mark) && tail.chars().count() > 1;
    (begins, ends)
}

/// Marks the words of which a negation speaks: all after it in its sentence, and those before it in its clause.
fn negate(words: &mut [Word<'_>]) {
    let mut seen = false;
    let mut is_list = false;
    for word in words.iter_mut() {
        if word.is_paragraph && !is_list {
            seen = false;
        }
        seen |= is_negation(word.text);
        word.is_negated = seen;
        is_list = word.text.ends_with(':');
        seen &= !ends_sentence(word.text);
    }
    let mut follows = false;
    for word in words.iter_mut().rev() {
        if ends_clause(word.text) {
            follows = false;
        }
        word.is_negated |= follows;
        follows |= is_negation(word.text);
        if word.is_paragraph || is_conjunction(word.text) {
            follows = false;
        }
    }
}

fn is_negation(word: &str) -> bool {
    let plain = plain(word);
    // "No, write to Bob": an answer, not a negation of the next words.
    let is_answer = plain == "no" && !word.ends_with(char::is_alphabetic);
    !is_answer && (NEGATIONS.contains(&plain.as_str()))
}

fn is_conjunction(word: &str) -> bool {
    CONJUNCTIONS.contains(&plain(word).as_str())
}

/// The letters of a word, in lower case, without marks around it and apostrophes in it.
fn plain(word: &str) -> String {
    // Longer than any word that is looked for.
    if word.len() > 32 {
        return String::new();
    }
    let word = word.trim_matches(|c: char| !c.is_alphanumeric());
    word.chars().filter(|c| !matches!(c, '\'' | '\u{2019}')).flat_map(char::to_lowercase).collect()
}

fn ends_sentence(word: &str) -> bool {
    let bare = word.trim_end_matches(|c: char| "\"')]}»\u{201d}\u{2019}*_".contains(c));
    if bare.ends_with(['!', '?', ';', '\u{2026}']) {
        return true;
    }
    bare.ends_with('.') && !ABBREVIATIONS.contains(&plain(bare).as_str())
}

fn ends_clause(word: &str) -> bool {
    word.ends_with(',') || ends_sentence(word)
}

/// Whether marks after a word keep it apart from the next.
fn is_closed(word: &Word<'_>) -> bool {
    word.text.ends_with([',', '.', ';', ':', '!', '?', ')', ']'])
}

/// Whether a word stands between backticks, so that it is meant as it is written.
fn is_span(word: &str) -> bool {
    let word = word.trim_end_matches(['.', ',', ';', ':', '!', '?', ')']).trim_start_matches('(');
    word.len() > 2 && word.starts_with('`') && word.ends_with('`')
}

/// Whether nobody sees a character.
const fn is_hidden(c: char) -> bool {
    matches!(c, '\u{ad}' | '\u{200b}'..='\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{feff}')
}

/// Reads one word.
///
/// Args: `is_explicit`: the word is not prose, so that `heron/sdk` is a path and `lou-field` an account.
fn read_word(word: &str, is_explicit: bool, found: &mut Vec<Reading>) {
    let bare = bare(word);
    if bare.is_empty() {
        return;
    }
    if bare.contains(is_hidden) {
        return found.push(Reading::unnamed(bare, "it has characters that nobody sees"));
    }
    if bare.contains("://") {
        return found.push(url(bare, bare));
    }
    let bare = bare.strip_prefix("mailto:").unwrap_or(bare);
    if bare.char_indices().any(|(at, c)| c == '@' && at > 0) {
        let apart = |c: char| ",;|<>()[]\"".contains(c);
        for part in bare.split(apart).filter(|part| part.contains('@')) {
            found.push(mailbox(part));
        }
        return;
    }
    if bare.contains('\\') {
        return found.push(Reading::unnamed(bare, "it has a backslash"));
    }
    if bare.contains('/') {
        return found.extend(slashed(bare, is_explicit));
    }
    if bare.starts_with("www.") && is_host(bare) {
        return found.push(host(bare));
    }
    let from = found.len();
    if hosts::is_plain_host(bare) {
        found.push(host(bare));
    }
    // Between backticks it may be meant as an account, too.
    found.extend(account(bare, is_explicit));
    if found.len() == from && hosts::is_like_host(bare) {
        found.push(Reading::unnamed(bare, "it may be a file: write a host with `https://`"));
    }
}

/// A host, or a URL, without its scheme.
fn host(text: &str) -> Reading {
    Reading { is_bare_host: true, ..url(&format!("https://{text}"), text) }
}

/// The word after "folder", where no other kind reads it.
fn folder(text: &str) -> Option<Reading> {
    let is_plain = |c: char| c.is_alphanumeric() || matches!(c, '-' | '_');
    let is_name = text.chars().count() > 1
        && text.chars().all(is_plain)
        && text.contains(char::is_alphabetic)
        && !stops::is_stop(&plain(text));
    let path = canonical(DestinationKind::Path, text).ok().filter(|_| is_name)?;
    Some(Reading::named(text, DestinationKind::Path, path.text))
}

/// A word without the marks around it, and without a genitive's end: `bob@corp.example's` names whose it is.
fn bare(word: &str) -> &str {
    let opens = |c: char| "([{<\"'`*_|«„".contains(c) || matches!(c, '\u{201c}' | '\u{2018}');
    let closes = |c: char| {
        ")]}>\"'`*|,;:!?.»".contains(c) || matches!(c, '\u{201d}' | '\u{2019}' | '\u{2026}')
    };
    let bare = word.trim_start_matches(opens).trim_end_matches(closes);
    let owner = bare.strip_suffix("'s").or_else(|| bare.strip_suffix("\u{2019}s"));
    owner.unwrap_or(bare).trim_end_matches(closes)
}

fn url(full: &str, text: &str) -> Reading {
    if full.matches("://").count() > 1 {
        return Reading::unnamed(text, "it is more than one URL");
    }
    if let Err(error) = canonical(DestinationKind::UrlHost, full) {
        return Reading::unnamed(text, error.what);
    }
    let Some((origin, segments)) = url_parts(full) else {
        return Reading::unnamed(text, "its path may be read in two ways");
    };
    if has_punycode(&origin) {
        return Reading::unnamed(text, PUNYCODE);
    }
    let mut name = origin;
    name.push('/');
    name.push_str(&segments.join("/"));
    Reading::named(text, DestinationKind::UrlHost, name)
}

const PUNYCODE: &str = "its host is spelled in Punycode, which nobody reads";

fn has_punycode(host: &str) -> bool {
    host.split(['.', '/', '@', ':'])
        .any(|label| label.get(..4).is_some_and(|start| start.eq_ignore_ascii_case("xn--")))
}

fn mailbox(text: &str) -> Reading {
    match canonical(DestinationKind::Email, text) {
        Ok(mailbox) if !has_punycode(&mailbox.text) => {
            Reading::named(text, DestinationKind::Email, mailbox.text)
        }
        Ok(_) => Reading::unnamed(text, PUNYCODE),
        Err(error) => Reading::unnamed(text, error.what),
    }
}

/// A word with a slash: a path, or a URL without its scheme.
fn slashed(text: &str, is_explicit: bool) -> Option<Reading> {
    let (first, _) = text.split_once('/')?;
    if !text.contains(|c: char| c.is_alphanumeric()) {
        return None;
    }
    let is_domain = |host: &str| {
        let last = host.rsplit('.').next().unwrap_or_default();
        host.contains('.')
            && is_host(host)
            && last.len() > 1
            && last.bytes().all(|byte| byte.is_ascii_alphabetic())
    };
    if is_domain(first) {
        return Some(host(text));
    }
    let is_rooted = first.is_empty() || first == "~";
    let folder = text.strip_suffix('/');
    let path = folder.unwrap_or(text);
    let last = path.rsplit('/').next().unwrap_or_default();
    let is_file = last.rsplit_once('.').is_some_and(|(stem, ending)| {
        !stem.is_empty()
            && (1..=8).contains(&ending.len())
            && ending.bytes().all(|byte| byte.is_ascii_alphanumeric())
            && ending.bytes().any(|byte| byte.is_ascii_alphabetic())
    });
    if !is_rooted && !is_file && !is_explicit && folder.is_none() {
        let why = "a path begins with `/` or `~/`, ends in `/` or in a file name like `q3.csv`, or stands between backticks";
        return Some(Reading::unnamed(text, why));
    }
    Some(match canonical(DestinationKind::Path, path) {
        Ok(path) => Reading::named(text, DestinationKind::Path, path.text),
        Err(error) => Reading::unnamed(text, error.what),
    })
}

/// A word that may be an account: `#ops`, `@kai`, `acct:42`, `alice_b`, `10020030`. Words of letters alone are not accounts.
fn account(text: &str, is_explicit: bool) -> Option<Reading> {
    let is_letter = |byte: u8| byte.is_ascii_alphabetic();
    let has = |is: fn(u8) -> bool| text.bytes().any(is);
    let (digits, letters) = (has(|byte| byte.is_ascii_digit()), has(is_letter));
    if let Some(rest) = text.strip_prefix(['#', '@']) {
        let is_plain = rest.bytes().all(|b| b.is_ascii_alphanumeric() || b"_-.".contains(&b));
        if rest.len() < 2 || !is_plain {
            return None;
        }
        return Some(Reading::named(text, DestinationKind::Account, text.to_owned()));
    }
    let is_joined_by = |marks: &[char]| {
        text.contains(marks) && text.split(marks).all(|part| !part.is_empty()) && letters
    };
    let is_marked =
        digits || is_joined_by(&['_']) || (is_explicit && is_joined_by(&['-', '.', ':', '_']));
    if !is_marked {
        return None;
    }
    let marks: &[u8] = if is_explicit { b"_-:." } else { b"_-:" };
    if !text.bytes().all(|b| b.is_ascii_alphanumeric() || marks.contains(&b)) {
        return None;
    }
    let unit = text.trim_start_matches(|c: char| c.is_ascii_digit() || ":-".contains(c));
    let is_number = unit.len() <= 3 && unit.bytes().all(is_letter);
    let is_plain_number = !letters && text.bytes().all(|byte| byte.is_ascii_digit());
    if is_plain_number && text.len() >= SHORTEST_NUMBER {
        return Some(Reading::named(text, DestinationKind::Account, text.to_owned()));
    }
    if is_number {
        return Some(Reading::unnamed(text, "it is a number, a time, a date or a quantity"));
    }
    if text.len() < SHORTEST_ACCOUNT {
        return Some(Reading::unnamed(text, "an account has at least 4 characters"));
    }
    Some(Reading::named(text, DestinationKind::Account, text.to_owned()))
}

/// The IBAN that begins with the first word, in one word or in groups; its words, and how many they are.
fn iban(words: &[Word<'_>]) -> Option<(String, String, usize)> {
    let head = words.first()?.text.trim_start_matches(|c: char| !c.is_ascii_alphanumeric());
    let begins = head.len() >= 4
        && head.bytes().take(2).all(|b| b.is_ascii_alphabetic())
        && head.bytes().skip(2).take(2).all(|b| b.is_ascii_digit());
    if !begins {
        return None;
    }
    let mut joined = String::new();
    let mut text = String::new();
    for (index, word) in words.iter().take(MOST_GROUPS).enumerate() {
        let word = if index == 0 { head } else { word.text };
        let bare = word.trim_end_matches(|c: char| !c.is_ascii_alphanumeric());
        if !bare.bytes().all(|b| b.is_ascii_alphanumeric()) || joined.len() + bare.len() > 34 {
            return None;
        }
        joined.push_str(bare);
        if index > 0 {
            text.push(' ');
        }
        text.push_str(bare);
        if let Ok(iban) = canonical(DestinationKind::Iban, &joined) {
            return Some((iban.text, text, index.saturating_add(1)));
        }
        if bare.len() < word.len() {
            return None;
        }
    }
    None
}

#[cfg(test)]
mod tests {
    #![expect(clippy::panic, reason = "tests")]
    use proptest::prelude::*;

    use super::*;

    const PAGE: &str = include_str!("../../../docs/reference/prompt.md");

    /// The cells of the table with this header, row by row.
    fn table(header: &str) -> Vec<Vec<String>> {
        let rows = PAGE.lines().skip_while(|line| *line != header).skip(2);
        let cells = |line: &str| {
            let cells = line.trim_matches('|').split('|').map(|cell| cell.trim().to_owned());
            cells.collect::<Vec<_>>()
        };
        rows.take_while(|line| line.starts_with('|')).map(cells).collect()
    }

    /// The texts between backticks.
    fn codes(cell: &str) -> Vec<String> {
        cell.split('`').skip(1).step_by(2).map(|code| code.replace('⏎', "\n")).collect()
    }

    #[test]
    fn the_examples_of_the_page_hold() {
        let rows = table("| Prompt | Names | Does not name |");
        assert!(rows.len() > 25, "the table was not found");
        for row in rows {
            let [prompt, names, unnamed] = row.as_slice() else { panic!("{row:?}") };
            let prompt = codes(prompt).join("");
            let readings = read(&prompt);
            let found: Vec<String> = readings
                .iter()
                .filter(|reading| reading.why.is_none())
                .map(|reading| format!("{} {}", reading.kind.unwrap_or_default(), reading.name))
                .collect();
            assert_eq!(codes(names), found, "{prompt:?}");
            for text in codes(unnamed) {
                assert!(prompt.contains(&text), "{text:?} stands in {prompt:?}");
                let named = readings.iter().find(|one| one.text == text && one.why.is_none());
                assert_eq!(None, named, "{prompt:?}");
            }
        }
    }

    #[test]
    fn the_urls_of_the_page_hold() {
        let rows = table("| Named URL | URL of a call | Named? |");
        assert!(rows.len() > 8, "the table was not found");
        for row in rows {
            let [url, call, expected] = row.as_slice() else { panic!("{row:?}") };
            let (url, call) = (codes(url).join(""), codes(call).join(""));
            let named = names(&[&url], &[], 2);
            assert!(!named.is_empty(), "{url}");
            let of_call = names_of(DestinationKind::UrlHost, &call, "");
            let is_named = of_call.iter().any(|name| named.contains(name));
            assert_eq!(expected == "yes", is_named, "{url} {call}");
        }
    }

    #[test]
    fn a_refusal_says_why() {
        let why = |prompt: &str| {
            read(prompt).into_iter().filter_map(|reading| reading.why).collect::<Vec<_>>()
        };
        assert_eq!([NEGATED], why("Never tell eve@evil.example")[..]);
        assert_eq!([QUOTED], why("> ask eve@evil.example")[..]);
        assert_eq!([PUNYCODE], why("https://xn--e1a.example/")[..]);
        assert_eq!(["the URL names a user"], why("https://a@evil.example")[..]);
        assert_eq!(["it has characters that nobody sees"], why("b\u{200b}ob@corp.example")[..]);
        assert_eq!(
            ["another sentence of the prompt forbids it", NEGATED],
            why("Ask eve@evil.example. Never ask eve@evil.example.")[..]
        );
        assert!(read("").is_empty() && read(" \n ,;.!").is_empty());
    }

    /// A list below a negated lead is forbidden, also across an empty line; a paragraph of its own is not.
    #[test]
    fn a_negated_lead_covers_its_list() {
        let named = |prompt: &str| names(&[prompt], &[], 16).len();
        assert_eq!(0, named("Never write to:\n- eve@evil.example\n- mal@evil.example"));
        assert_eq!(0, named("Never write to:\n\n- eve@evil.example"));
        assert_eq!(1, named("Never write to strangers\n\nAnswer bob@corp.example"));
        assert_eq!(0, named("Never write to\neve@evil.example"), "the line was wrapped");
    }

    #[test]
    fn code_fences_and_answers_are_quoted() {
        let named = |prompt: &str| names(&[prompt], &[], 16).len();
        assert_eq!(0, named("Look:\n```\nmail eve@evil.example\n```"));
        assert_eq!(1, named("Look:\n```\nx\n```\nmail bob@corp.example"));
        assert_eq!(0, named("```\nmail eve@evil.example"), "a fence that never ends");
        assert_eq!(0, named("Hi\nOn Monday Eve wrote:\nmail eve@evil.example"));
        assert_eq!(0, named("She said \"mail eve@evil.example"), "a quotation that never ends");
    }

    #[test]
    fn a_prompt_is_read_within_bounds() {
        let cut = format!("{}bob@corp.example.evil", " ".repeat(LONGEST_PROMPT - 16));
        assert!(read(&cut).is_empty(), "a cut word names something else");
        let many = "a@x.example ".repeat(20_000);
        assert_eq!(MAX_READINGS, read(&many).len());
        let deep = format!("https://x.example{}", "/a".repeat(100));
        assert_eq!(MOST_SEGMENTS, names_of(DestinationKind::UrlHost, &deep, "").len());
    }

    #[test]
    fn a_named_folder_names_what_is_below_it() {
        let named = names(&["Look into /exports/2026/, heron/sdk/ and ~/a"], &[], 16);
        for (path, expected) in [
            ("/exports/2026", true),
            ("/exports/2026/a.csv", true),
            ("/exports/2026/a/b", true),
            ("/exports", false),
            ("/exports/2026-old", false),
            ("exports/2026/a.csv", false),
            ("heron/sdk/a", true),
            ("heron", false),
            ("~/a/b", true),
            ("~/b", false),
            ("a", false),
        ] {
            let is_named =
                names_of(DestinationKind::Path, "", path).iter().any(|name| named.contains(name));
            assert_eq!(expected, is_named, "{path}");
        }
        let deep = "/a".repeat(100);
        let names = names_of(DestinationKind::Path, "", &deep);
        assert_eq!(MOST_SEGMENTS + 1, names.len());
        assert_eq!(Some(&format!("path:{deep}")), names.last());
    }

    #[test]
    fn an_amount_is_kept_with_its_currency_and_without() {
        let named = names(&["Pay €1,250.50 for invoice 4711"], &[], 16);
        assert_eq!(
            BTreeSet::from(["amount:1250.5".to_owned(), "amount:EUR 1250.5".to_owned()]),
            named
        );
        assert_eq!(named, names(&[], &["EUR1250.50"], 16), "a parameter");
        assert!(names(&["Never pay €1,250.50"], &[], 16).is_empty());
    }

    /// Words of which some name something.
    fn prompts() -> impl Strategy<Value = String> {
        let word = prop_oneof![
            4 => prop::sample::select(vec![
                "a@x.example", "x.example", "www.x.example/a", "https://x.example", "/tmp/a/", "b/",
                "€870", "870", "EUR", "euros", "1,250", "250", "million", "invoices", "order", "#4711", "12,",
                "folder", "drafts", "GB82", "WEST", "1234", "5698", "7654", "32", "`a_b`", "#ops", "10020030",
                "and", "PR#7", "number", "kroner", "$", "cents",
            ]).prop_map(str::to_owned),
            1 => "[^\\s.!?;\u{2026}]{1,8}",
        ];
        prop::collection::vec(word, 0..24).prop_map(|words| words.join(" "))
    }

    fn texts() -> impl Strategy<Value = String> {
        prop_oneof![prompts(), any::<String>()]
    }

    proptest! {
        #[test]
        fn any_text_is_read_within_bounds(text in texts()) {
            let readings = read(&text);
            prop_assert!(readings.len() <= MAX_READINGS);
            for reading in &readings {
                prop_assert!(reading.why.is_some() || reading.kind.is_some(), "{reading:?}");
                prop_assert!(reading.keys().len() <= 2);
            }
            prop_assert!(names(&[&text], &[&text], 3).len() <= 3);
        }

        #[test]
        fn nothing_is_named_in_quotations_and_after_negations(text in texts(), other in prompts()) {
            let lines = text.replace(|c: char| c.is_control() || matches!(c, '\u{2028}' | '\u{2029}'), " ");
            for quoted in [format!("> {lines}"), format!("```\n{other}\n"), format!("From: x\n{other}")] {
                prop_assert!(names(&[&quoted], &[], 16).is_empty(), "{quoted:?}");
            }
            for negation in ["Never", "Do not use:", "ohne"] {
                let negated = format!("{negation} {other}");
                let is_one = !words(&negated).iter().any(|word| ends_sentence(word.text));
                prop_assert!(!is_one || names(&[&negated], &[], 16).is_empty(), "{negated:?}");
            }
        }

        /// A negation in one sentence removes the name from all other sentences.
        #[test]
        fn a_forbidden_name_is_not_named_elsewhere(before in prompts(), after in prompts()) {
            let prompt = format!("{before}. Never ask a@x.example. {after}");
            // A forbidding that is quoted forbids nothing.
            prop_assume!(words(&prompt).iter().all(|word| !word.is_quoted));
            prop_assert!(!names(&[&prompt], &[], 256).contains("email:a@x.example"));
        }

        #[test]
        fn a_name_is_kept_in_the_form_of_a_call(text in texts()) {
            for reading in read(&text).iter().filter(|one| one.why.is_none()) {
                let name = reading.name.as_str();
                let names = match reading.kind {
                    Some("path") => names_of(DestinationKind::Path, "", name),
                    Some("url") => names_of(DestinationKind::UrlHost, name, ""),
                    Some("amount") => {
                        let (currency, value) = name.split_once(' ').unwrap_or_default();
                        amount_name(value, 1, Some(currency)).into_iter().collect()
                    }
                    _ => continue,
                };
                prop_assert!(names.iter().any(|name| reading.keys().contains(name)), "{reading:?}");
            }
        }
    }

    /// Between backticks, and as a value of its own, a word is not prose.
    #[test]
    fn a_code_span_is_meant_as_it_is_written() {
        let named = |prompt: &str| names(&[prompt], &[], 16);
        assert_eq!(
            BTreeSet::from(["account:lou-field".to_owned(), "path:heron/sdk".to_owned()]),
            named("Give `lou-field` read on (`heron/sdk`).")
        );
        assert!(named("Give lou-field read on heron/sdk, and `Mark`, and `a b-c`").is_empty());
        assert!(named("Never tell `lou-field`").is_empty());
        let values = |text: &str| names(&[], &[text], 16);
        assert_eq!(BTreeSet::from(["path:heron/sdk".to_owned()]), values("heron/sdk"));
        assert_eq!(BTreeSet::from(["email:a@x.example".to_owned()]), values("a@x.example"));
        assert_eq!(2, values("GB82WEST12345698765432").len(), "an IBAN, and an account so called");
        assert!(values("follow up and/or re-schedule").is_empty(), "it is prose");
        assert!(values("acme").is_empty());
    }

    #[test]
    fn one_name_is_the_whole_text() {
        assert_eq!(Ok("email:a@x.example".to_owned()), read_name("a@x.example"));
        assert_eq!(Ok("url:https://x.example/a".to_owned()), read_name("https://x.example/a"));
        assert_eq!(
            Ok("iban:GB82WEST12345698765432".to_owned()),
            read_name("GB82 WEST 1234 5698 7654 32")
        );
        assert_eq!(
            Ok("iban:GB82WEST12345698765432".to_owned()),
            read_name("GB82WEST12345698765432")
        );
        assert_eq!(Ok("account:#ops".to_owned()), read_name("#ops"));
        assert_eq!(Ok("path:heron/sdk".to_owned()), read_name("heron/sdk"));
        assert_eq!(Ok("account:lou-field".to_owned()), read_name("lou-field"));
        for text in ["", "Mark", "to a@x.example", "a@x.example b@x.example", "https://a@x.example"]
        {
            assert!(read_name(text).is_err(), "{text}");
        }
    }
}
