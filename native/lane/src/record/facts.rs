//! Facts that policies could read: names, numbers and truth values in clear, texts of the call as digests.

use std::borrow::Cow;

use authz_kernel::decision::{RecordedFact, RecordedFacts};
use authz_token::Evidence;
use serde::ser::{SerializeMap as _, SerializeSeq as _};
use serde::{Serialize, Serializer};

use super::arguments::shows_texts;
use super::digest::Hash;
use super::masking::{Masking, carries_token};
use crate::judgement::Judgement;

/// Pointer of the facts in a record.
const FACTS: &str = "/input/facts";
/// Pointer of the arguments in a record.
const ARGUMENTS: &str = "/input/arguments";

/// Facts of a judged call.
pub(super) struct FactsMember<'a> {
    facts: &'a RecordedFacts,
    texts: FactTexts<'a>,
}

#[derive(Clone, Copy)]
struct FactTexts<'a> {
    are_shown: bool,
    evidence: &'a [Evidence<'a>],
    notes: &'a Masking<'a>,
}

impl<'a> FactsMember<'a> {
    /// `None` if no policy was judged.
    pub(super) fn of(
        judgement: &'a Judgement,
        notes: &'a Masking<'a>,
        evidence: &'a [Evidence<'a>],
    ) -> Option<Self> {
        let facts = judgement.evaluated()?.facts.as_deref()?;
        let are_shown = shows_texts(judgement);
        Some(Self { facts, texts: FactTexts { are_shown, evidence, notes } })
    }
}

impl Serialize for FactsMember<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(Some(self.facts.values.len()))?;
        for (name, fact) in &self.facts.values {
            let path = FactPath { parent: None, step: FactStep::Member(name) };
            map.serialize_entry(name, &FactMember { fact, path: &path, texts: self.texts })?;
        }
        map.end()
    }
}

/// Place of a fact below [`FACTS`].
struct FactPath<'a> {
    parent: Option<&'a FactPath<'a>>,
    step: FactStep,
}

enum FactStep {
    Member(&'static str),
    Item(usize),
}

impl FactPath<'_> {
    fn pointer(&self) -> String {
        let parent = self.parent.map_or_else(|| FACTS.to_owned(), FactPath::pointer);
        match self.step {
            FactStep::Member(name) => format!("{parent}/{name}"),
            FactStep::Item(index) => format!("{parent}/{index}"),
        }
    }
}

struct FactMember<'a> {
    fact: &'a RecordedFact,
    path: &'a FactPath<'a>,
    texts: FactTexts<'a>,
}

// Recursion is bounded by the kernel, which makes three levels.
impl Serialize for FactMember<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let Self { fact, path, texts } = *self;
        match fact {
            RecordedFact::Long(number) => serializer.serialize_i64(*number),
            RecordedFact::Bool(value) => serializer.serialize_bool(*value),
            RecordedFact::Word(text) if !carries_token(text, texts.evidence) => {
                serializer.serialize_str(text)
            }
            RecordedFact::Text(text)
                if text.is_empty()
                    || (texts.are_shown
                        && !carries_token(text, texts.evidence)
                        && texts.notes.take_text(text.len())) =>
            {
                let shown = match text.is_empty() {
                    true => Cow::Borrowed(""),
                    false => texts.notes.placed(text, &path.pointer()),
                };
                serializer.serialize_str(&shown)
            }
            RecordedFact::Word(text) | RecordedFact::Text(text) => {
                texts.notes.mask(path.pointer());
                Hash::of(text).serialize(serializer)
            }
            RecordedFact::Set(members) => serializer.collect_seq(members),
            RecordedFact::Record(members) => {
                let mut map = serializer.serialize_map(Some(members.len()))?;
                for (member, fact) in members {
                    let path = FactPath { parent: Some(path), step: FactStep::Member(member) };
                    map.serialize_entry(member, &FactMember { fact, path: &path, texts })?;
                }
                map.end()
            }
            RecordedFact::List(items) => {
                let mut list = serializer.serialize_seq(Some(items.len()))?;
                for (index, fact) in items.iter().enumerate() {
                    let path = FactPath { parent: Some(path), step: FactStep::Item(index) };
                    list.serialize_element(&FactMember { fact, path: &path, texts })?;
                }
                list.end()
            }
        }
    }
}

/// True if the record has all that the policies could read, so that another bundle can judge the call from its record.
///
/// INVARIANT (order): serialized after the arguments and the facts, which note what they mask.
pub(super) struct ReplayableMember<'a> {
    notes: &'a Masking<'a>,
    reads_arguments: bool,
}

impl<'a> ReplayableMember<'a> {
    /// `None` if no policy was judged.
    pub(super) fn of(judgement: &Judgement, notes: &'a Masking<'a>) -> Option<Self> {
        let facts = judgement.evaluated()?.facts.as_deref()?;
        Some(Self { notes, reads_arguments: facts.reads_arguments })
    }
}

impl Serialize for ReplayableMember<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let masked = self.notes.masked.borrow();
        let is_missing = |pointer: &String| {
            pointer.starts_with(FACTS) || (self.reads_arguments && pointer.starts_with(ARGUMENTS))
        };
        serializer.serialize_bool(!masked.iter().any(is_missing))
    }
}
