//! Ids with their noun in a prompt: `invoice 4711`, `order #4711`, `rooms 12 and 13`.

use super::nouns::{is_filler, is_verb, noun};
use super::{Reading, Word, bare, ends_sentence, is_closed, plain};

/// Longest id, in bytes.
const LONGEST: usize = 64;
/// Digits of a number that may count things: "order 5 chairs".
const FEW_DIGITS: usize = 3;
/// Ends of numbers that are times or quantities.
const UNITS: &[&str] = &[
    "am", "cm", "d", "g", "gb", "h", "k", "kb", "kg", "km", "kw", "l", "m", "mb", "min", "mm",
    "ms", "nd", "pm", "px", "rd", "s", "st", "tb", "th", "uhr", "x",
];
const MONTHS: &[&str] = &[
    "january",
    "february",
    "march",
    "april",
    "may",
    "june",
    "july",
    "august",
    "september",
    "october",
    "november",
    "december",
    "januar",
    "februar",
    "märz",
    "mai",
    "juni",
    "juli",
    "oktober",
    "dezember",
    "jan",
    "feb",
    "mar",
    "apr",
    "jun",
    "jul",
    "aug",
    "sep",
    "sept",
    "oct",
    "nov",
    "dec",
    "okt",
    "dez",
];

/// The noun that was read last, while its ids may follow.
struct Lead {
    noun: &'static str,
    is_plural: bool,
    is_verb: bool,
    /// `number` or `#` stands after it.
    is_marked: bool,
    /// An id was read.
    is_used: bool,
    why: Option<&'static str>,
}

/// Reader of ids, word by word.
#[derive(Default)]
pub(super) struct Ids {
    lead: Option<Lead>,
}

impl Ids {
    /// Notes that another reader took the word.
    pub(super) fn end(&mut self) {
        self.lead = None;
    }

    /// Whether the word before is "folder", or a word of the same meaning.
    pub(super) fn is_after_folder(&self) -> bool {
        self.lead.as_ref().is_some_and(|lead| {
            lead.noun == "folder" && !lead.is_plural && !lead.is_used && lead.why.is_none()
        })
    }

    /// Reads the first of some words: the noun of an id, a word between both, or an id.
    pub(super) fn read(
        &mut self,
        before: Option<&Word<'_>>,
        words: &[Word<'_>],
    ) -> Option<Reading> {
        let word = words.first()?;
        let text = bare(word.text);
        if let Some((name, id)) = text.split_once('#').filter(|(name, _)| !name.is_empty()) {
            // `PR#7`.
            let (noun, _) = noun(&plain(name))?;
            self.lead = None;
            return is_id(id).then(|| reading(text, noun, id));
        }
        let small = plain(text);
        let two = before
            .filter(|word| !is_closed(word))
            .and_then(|before| noun(&format!("{} {small}", plain(before.text))));
        if let Some((noun, is_plural)) = two.or_else(|| noun(&small)) {
            let is_open = !is_closed(word) || word.text.ends_with(':');
            self.lead = is_open.then(|| Lead {
                noun,
                is_plural,
                is_verb: is_verb(&small),
                is_marked: false,
                is_used: false,
                why: word.refusal(),
            });
            return None;
        }
        let lead = self.lead.as_mut()?;
        let is_joined = lead.is_plural && lead.is_used;
        if is_filler(&small) || text == "#" {
            lead.is_marked = true;
            return None;
        }
        if is_joined && matches!(small.as_str(), "and" | "or" | "und" | "oder") {
            return None;
        }
        let id = text.strip_prefix('#').unwrap_or(text);
        let is_marked = lead.is_marked || id.len() < text.len();
        let next = words
            .get(1)
            .filter(|_| !is_closed(word))
            .map_or_else(String::new, |word| plain(bare(word.text)));
        let is_count =
            lead.is_verb && !is_marked && is_short(id) && (next == "of" || next.ends_with('s'));
        let is_date = MONTHS.contains(&next.as_str()) && is_short(id);
        if !is_id(id) || is_count || is_date {
            self.lead = None;
            return None;
        }
        lead.is_used = true;
        let found = Reading { why: lead.why, ..reading(id, lead.noun, id) };
        // Only a plural has several: "rooms 12 and 13".
        if !lead.is_plural || ends_sentence(word.text) {
            self.lead = None;
        }
        Some(found)
    }
}

fn reading(text: &str, noun: &str, id: &str) -> Reading {
    Reading {
        text: text.to_owned(),
        kind: Some("id"),
        name: format!("{noun} {id}"),
        ..Reading::default()
    }
}

fn is_short(id: &str) -> bool {
    id.len() <= FEW_DIGITS && id.bytes().all(|byte| byte.is_ascii_digit())
}

/// Whether a word may be an id: it has a digit, and is neither a time nor a date nor a quantity.
pub(super) fn is_id(text: &str) -> bool {
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"_-./".contains(&byte);
    let unit = text.trim_start_matches(|c: char| c.is_ascii_digit() || c == '.');
    let is_date = {
        let mut parts = text.split(['-', '.', '/']);
        let lens: Vec<usize> = parts.by_ref().map(str::len).take(4).collect();
        matches!(lens.as_slice(), [4, 2, 2] | [1 | 2, 1 | 2, 2 | 4])
            && text.bytes().all(|byte| byte.is_ascii_digit() || b"-./".contains(&byte))
    };
    (1..=LONGEST).contains(&text.len())
        && text.bytes().all(is_plain)
        && text.bytes().any(|byte| byte.is_ascii_digit())
        && text.starts_with(|c: char| c.is_ascii_alphanumeric())
        && !is_date
        && (unit.len() == text.len() || !UNITS.contains(&unit.to_ascii_lowercase().as_str()))
}
