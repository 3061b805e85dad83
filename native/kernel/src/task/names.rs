//! Reads the names of a task out of a prompt and parameters.

use std::collections::BTreeMap;

use super::literals::literals;
use super::words::prints;
use super::{Names, Param, Speaker, SpokenWords};

/// Parts of one prompt.
pub const MAX_PARTS: usize = 256;

/// Whose text a part of a prompt is, as its speaker says.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum SaidBy {
    /// The user's own words.
    User,
    /// A text that the user quotes: a pasted mail, an attached file.
    Quoted,
    /// Any other text, such as instructions of the program.
    #[default]
    Other,
}

/// One part of a prompt.
#[derive(Clone, Copy, Debug)]
pub struct Part<'a> {
    /// The text.
    pub text: &'a str,
    /// Whose it is.
    pub said_by: SaidBy,
}

impl<'a> Part<'a> {
    /// The user's own words.
    #[must_use]
    pub const fn of_user(text: &'a str) -> Self {
        Self { text, said_by: SaidBy::User }
    }
}

/// What a task keeps of a prompt and of the parameters of its template.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PromptNames {
    /// The names, for the record of the task.
    pub names: Names,
    /// The words, for a record of their own.
    pub words: SpokenWords,
}

/// Reads the names and the words of a prompt and of the parameters of a template.
///
/// Args: `parts`: of which only the user's own count; `by`: who says all of it; `key`: the key of the hashes.
#[must_use]
pub fn read_names(
    parts: &[Part<'_>],
    params: &BTreeMap<String, Param>,
    by: Speaker,
    key: &[u8; 32],
) -> PromptNames {
    let said = parts.iter().take(MAX_PARTS).filter(|part| part.said_by == SaidBy::User);
    let given = params.values().filter_map(|param| match param {
        Param::Text(text) => Some(text.as_str()),
        Param::Long(_) | Param::Bool(_) => None,
    });
    let numbers: Vec<String> = params
        .values()
        .filter_map(|param| match param {
            Param::Long(number) => Some(number.to_string()),
            Param::Text(_) | Param::Bool(_) => None,
        })
        .collect();
    let texts: Vec<&str> = said.map(|part| part.text).collect();
    let values: Vec<&str> = given.collect();
    let mut names = Names::default();
    names.add(by, literals(&texts, &values, key));
    let given: Vec<&str> = values.into_iter().chain(numbers.iter().map(String::as_str)).collect();
    let mut words = SpokenWords::default();
    words.add(by, &prints(&texts, &given, key));
    names.has_words = !words.is_empty();
    PromptNames { names, words }
}
