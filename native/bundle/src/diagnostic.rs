//! What is wrong with a bundle, where, and how to fix it.

use std::fmt;
use std::ops::Deref;

use serde::Serialize;

use crate::location::Location;

/// How many diagnostics are kept; a bundle with more has one cause or needs to be fixed in steps.
const MOST: usize = 100;

/// One thing that is wrong.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct Diagnostic {
    /// Path relative to the bundle folder.
    pub file: String,
    /// Line, from 1; 0 where unknown.
    pub line: u32,
    /// Column, from 1; 0 where unknown.
    pub column: u32,
    /// An error refuses the bundle.
    pub severity: Severity,
    /// What is wrong: no full stop, names in backticks.
    pub what: String,
    /// How to fix it, in sentences; may be empty.
    pub fix: String,
    /// The word that was probably meant, in place of a misspelt one at the diagnostic's place.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub replacement: Option<Box<Replacement>>,
    /// Name of the check, for the warnings of `authz check`; otherwise empty.
    #[serde(skip_serializing_if = "str::is_empty")]
    pub code: &'static str,
}

/// A word, and the word that was probably meant.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct Replacement {
    /// The word in the file.
    pub old: String,
    /// The word that was probably meant.
    pub new: String,
}

/// How to fix a defect: a text, and the replacement that `authz check --fix` makes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Advice {
    text: String,
    replacement: Option<Box<Replacement>>,
}

impl Advice {
    /// Whether a word was found that was probably meant.
    #[must_use]
    pub const fn is_guess(&self) -> bool {
        self.replacement.is_some()
    }

    /// Adds a sentence.
    #[must_use]
    pub fn and(mut self, sentence: &str) -> Self {
        if !self.text.is_empty() {
            self.text.push(' ');
        }
        self.text.push_str(sentence);
        self
    }
}

impl From<String> for Advice {
    fn from(text: String) -> Self {
        Self { text, replacement: None }
    }
}

impl From<&str> for Advice {
    fn from(text: &str) -> Self {
        text.to_owned().into()
    }
}

impl Deref for Advice {
    type Target = str;

    fn deref(&self) -> &str {
        &self.text
    }
}

impl fmt::Display for Advice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

/// What follows from a diagnostic.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// The bundle is refused.
    Error,
    /// It is served.
    Warning,
}

impl Diagnostic {
    /// An error at a place.
    #[must_use]
    pub fn error(at: &Location, what: impl Into<String>, fix: impl Into<Advice>) -> Self {
        Self::new(at, Severity::Error, what, fix)
    }

    /// A warning at a place.
    #[must_use]
    pub fn warning(at: &Location, what: impl Into<String>, fix: impl Into<Advice>) -> Self {
        Self::new(at, Severity::Warning, what, fix)
    }

    fn new(
        at: &Location,
        severity: Severity,
        what: impl Into<String>,
        fix: impl Into<Advice>,
    ) -> Self {
        let Advice { text, replacement } = fix.into();
        Self {
            file: at.file.clone(),
            line: at.line,
            column: at.column,
            severity,
            what: what.into(),
            fix: text,
            replacement,
            code: "",
        }
    }

    /// Names the check that made the diagnostic.
    #[must_use]
    pub const fn with_code(mut self, code: &'static str) -> Self {
        self.code = code;
        self
    }
}

impl fmt::Display for Diagnostic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.line, self.column) {
            (0, _) => write!(f, "{}: ", self.file)?,
            (line, 0) => write!(f, "{}:{line}: ", self.file)?,
            (line, column) => write!(f, "{}:{line}:{column}: ", self.file)?,
        }
        if self.severity == Severity::Warning {
            match self.code {
                "" => f.write_str("warning: ")?,
                code => write!(f, "warning[{code}]: ")?,
            }
        }
        f.write_str(&self.what)?;
        if self.fix.is_empty() { Ok(()) } else { write!(f, ". {}", self.fix) }
    }
}

/// Diagnostics in the order of their places; at most 100 are kept, the rest are counted.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(transparent)]
pub struct Diagnostics {
    // INVARIANT (sorted): by file, line, column, severity, without repetition, at most `MOST`.
    list: Vec<Diagnostic>,
    #[serde(skip)]
    omitted: usize,
    #[serde(skip)]
    failed: bool,
}

impl Diagnostics {
    /// Nothing wrong so far.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds one.
    pub fn push(&mut self, diagnostic: Diagnostic) {
        self.failed |= diagnostic.severity == Severity::Error;
        let Err(place) = self.list.binary_search(&diagnostic) else {
            return;
        };
        self.list.insert(place, diagnostic);
        if self.list.len() > MOST {
            // An error is never dropped for a warning.
            let warning = self.list.iter().rposition(|d| d.severity == Severity::Warning);
            self.list.remove(warning.unwrap_or(MOST));
            self.omitted += 1;
        }
    }

    /// Adds an error at a place.
    pub fn error(&mut self, at: &Location, what: impl Into<String>, fix: impl Into<Advice>) {
        self.push(Diagnostic::error(at, what, fix));
    }

    /// Adds a warning at a place.
    pub fn warning(&mut self, at: &Location, what: impl Into<String>, fix: impl Into<Advice>) {
        self.push(Diagnostic::warning(at, what, fix));
    }

    /// Adds all of another list.
    pub fn append(&mut self, other: Self) {
        self.omitted += other.omitted;
        self.failed |= other.failed;
        for diagnostic in other.list {
            self.push(diagnostic);
        }
    }

    /// Whether any is an error.
    #[must_use]
    pub const fn has_errors(&self) -> bool {
        self.failed
    }

    /// Whether it has no diagnostics.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.list.is_empty()
    }

    /// How many there were beyond those kept.
    #[must_use]
    pub const fn omitted(&self) -> usize {
        self.omitted
    }

    /// Those kept, in the order of their places.
    pub fn iter(&self) -> std::slice::Iter<'_, Diagnostic> {
        self.list.iter()
    }

    /// `value` where nothing is an error; else the whole list. Warnings are lost on success: take them first.
    ///
    /// # Errors
    /// The list, where one of it is an error.
    pub fn finish<T>(self, value: T) -> Result<T, Self> {
        if self.failed { Err(self) } else { Ok(value) }
    }
}

impl<'a> IntoIterator for &'a Diagnostics {
    type Item = &'a Diagnostic;
    type IntoIter = std::slice::Iter<'a, Diagnostic>;

    fn into_iter(self) -> Self::IntoIter {
        self.iter()
    }
}

impl From<Diagnostic> for Diagnostics {
    fn from(diagnostic: Diagnostic) -> Self {
        let mut list = Self::new();
        list.push(diagnostic);
        list
    }
}

impl fmt::Display for Diagnostics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, diagnostic) in self.list.iter().enumerate() {
            if i > 0 {
                f.write_str("\n")?;
            }
            write!(f, "{diagnostic}")?;
        }
        if self.omitted > 0 { write!(f, "\nand {} more", self.omitted) } else { Ok(()) }
    }
}

impl std::error::Error for Diagnostics {}

/// The text for a name that is not declared: what there is, and which of it was probably meant.
///
/// Args: the word for the kind of thing (`sequence`), the name, and the declared names with their places.
/// Returns `what` and `fix` of a diagnostic: ``unknown sequence `x`; declared: a (support.yaml:31)``.
pub fn unknown<'a>(
    kind: &str,
    name: &str,
    declared: impl IntoIterator<Item = (&'a str, Option<&'a Location>)>,
) -> (String, Advice) {
    let declared: Vec<(&str, Option<&Location>)> = declared.into_iter().collect();
    let mut what = format!("unknown {kind} `{}`", clip(name));
    let near = nearest(name, declared.iter().map(|(n, _)| *n));
    // The likely one first, so that a long list does not hide it.
    let first = declared.iter().filter(|(n, _)| Some(*n) == near);
    let others = declared.iter().filter(|(n, _)| Some(*n) != near);
    for (i, (name, at)) in first.chain(others).take(SHOWN).enumerate() {
        what.push_str(if i == 0 { "; declared: " } else { ", " });
        what.push_str(clip(name));
        if let Some(at) = at {
            what.push_str(&format!(" ({}:{})", at.file, at.line));
        }
    }
    if declared.len() > SHOWN {
        what.push_str(&format!(" and {} more", declared.len() - SHOWN));
    }
    let fix = match near {
        Some(near) => meant(name, near),
        None if declared.is_empty() => format!("No {kind} is declared.").into(),
        None => "Write one of the declared names, or declare this one.".into(),
    };
    (what, fix)
}

/// The text for a word of a set that no bundle adds to, such as the tiers.
///
/// Args and result are as of [`unknown`]; the words have no places.
pub fn unknown_word<'a>(
    kind: &str,
    word: &str,
    words: impl IntoIterator<Item = &'a str>,
) -> (String, Advice) {
    let (what, fix) = unknown(kind, word, words.into_iter().map(|word| (word, None)));
    let fix = if fix.is_guess() { fix } else { "Write one of these words.".into() };
    (what.replacen("; declared: ", "; known: ", 1), fix)
}

/// The advice to write another word.
#[must_use]
pub fn meant(old: &str, new: &str) -> Advice {
    Advice {
        text: format!("Did you mean `{}`?", clip(new)),
        replacement: Some(Box::new(Replacement { old: old.to_owned(), new: new.to_owned() })),
    }
}

/// How many declared names a message lists.
const SHOWN: usize = 5;

/// The name that was probably meant: at most a third of its letters differ.
#[must_use]
pub fn nearest<'a>(name: &str, declared: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let wanted: Vec<char> = name.chars().take(64).flat_map(char::to_lowercase).collect();
    let allowed = wanted.len().div_ceil(3);
    declared
        .into_iter()
        .take(20_000)
        .filter_map(|d| {
            let letters: Vec<char> = d.chars().take(64).flat_map(char::to_lowercase).collect();
            if letters.len().abs_diff(wanted.len()) > allowed {
                return None;
            }
            let distance = edits(&wanted, &letters);
            (distance <= allowed).then_some((distance, d))
        })
        .min()
        .map(|(_, d)| d)
}

/// The name, cut to the length that fits in a message.
#[must_use]
pub fn clip(name: &str) -> &str {
    match name.char_indices().nth(80) {
        Some((end, _)) => name.get(..end).unwrap_or(name),
        None => name,
    }
}

/// Insertions, deletions, substitutions and swaps of neighbours that turn one word into the other.
fn edits(a: &[char], b: &[char]) -> usize {
    let mut before: Vec<usize> = Vec::new();
    let mut last: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.iter().enumerate() {
        let mut row = vec![i + 1];
        for (j, y) in b.iter().enumerate() {
            let get = |row: &[usize], j: usize| row.get(j).copied().unwrap_or(usize::MAX - 1);
            let mut best = get(&last, j) + usize::from(x != y);
            best = best.min(get(&last, j + 1) + 1).min(get(&row, j) + 1);
            let swapped = i > 0 && j > 0 && a.get(i - 1) == Some(y) && b.get(j - 1) == Some(x);
            if swapped {
                best = best.min(get(&before, j - 1) + 1);
            }
            row.push(best);
        }
        before = std::mem::replace(&mut last, row);
    }
    last.last().copied().unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(line: u32) -> Location {
        Location { file: "support.yaml".into(), line, column: 3 }
    }

    #[test]
    fn a_message_says_what_where_and_how_to_fix() {
        let place = Location { file: "policies/support.cedar".into(), line: 17, column: 44 };
        let declared = at(31);
        let (what, fix) =
            unknown("sequence", "search-then-delte", [("search-then-delete", Some(&declared))]);
        assert_eq!(
            "policies/support.cedar:17:44: unknown sequence `search-then-delte`; declared: search-then-delete \
             (support.yaml:31). Did you mean `search-then-delete`?",
            Diagnostic::error(&place, what, fix).to_string()
        );
    }

    #[test]
    fn a_name_that_resembles_none_gets_no_guess() {
        let (what, fix) = unknown("label", "zebra", [("pii", None), ("untrusted", None)]);
        assert_eq!("unknown label `zebra`; declared: pii, untrusted", what);
        assert_eq!("Write one of the declared names, or declare this one.", &*fix);
        assert_eq!("No label is declared.", &*unknown("label", "x", []).1);
    }

    #[test]
    fn a_word_of_a_closed_set_is_not_to_be_declared() {
        let (what, fix) = unknown_word("tier", "top", ["low", "high"]);
        assert_eq!("unknown tier `top`; known: low, high", what);
        assert_eq!("Write one of these words.", &*fix);
        assert_eq!("Did you mean `high`?", &*unknown_word("tier", "hihg", ["low", "high"]).1);
    }

    #[test]
    fn the_list_is_sorted_bounded_and_never_drops_an_error_for_a_warning() {
        let mut list = Diagnostics::new();
        list.error(&at(900), "last", "");
        for line in (1..=200).rev() {
            list.warning(&at(line), "w", "");
        }
        assert_eq!(100, list.iter().count());
        assert_eq!(101, list.omitted());
        assert!(list.has_errors());
        assert_eq!(Some("last"), list.iter().last().map(|d| d.what.as_str()));
        assert!(list.iter().is_sorted());
        assert!(list.to_string().ends_with("support.yaml:900:3: last\nand 101 more"));
    }

    #[test]
    fn edits_count_a_swap_once() {
        let of = |a: &str, b: &str| {
            edits(&a.chars().collect::<Vec<_>>(), &b.chars().collect::<Vec<_>>())
        };
        assert_eq!(1, of("stpe", "step"));
        assert_eq!(3, of("kitten", "sitting"));
        assert_eq!(4, of("", "four"));
    }
}
