//! The arguments of a call, as the policies could read them: texts that the schema does not list are digests.

use std::borrow::Cow;

use authz_kernel::arguments::DeclaredMembers;
use authz_kernel::json::{Value, push_token};
use authz_token::Evidence;
use serde::ser::{SerializeMap as _, SerializeSeq as _};
use serde::{Serialize, Serializer};
use smallvec::SmallVec;

use super::digest::Hash;
use super::masking::{Masking, carries_token};
use crate::judgement::Judgement;

/// Obligation to record the texts of the arguments.
const LOG_FULL: &str = "log_full";

/// Arguments as the policies could read them, for Explain. `null`: they could not be read.
pub(crate) fn facts_of(judgement: &Judgement) -> serde_json::Value {
    let notes = Masking::new(None);
    let facts = MaskedArguments::of(judgement, &notes, &[]);
    serde_json::to_value(facts).unwrap_or(serde_json::Value::Null)
}

/// True if the texts of the call are recorded in clear: the permit has the obligation, or the bundle lists the system.
pub(super) fn shows_texts(judgement: &Judgement) -> bool {
    let own = judgement.decision().map_or(&[][..], |decision| &decision.own_obligations);
    let operation = &judgement.resolved.operation;
    own.iter().any(|one| one == LOG_FULL)
        || judgement
            .arrival
            .world
            .as_ref()
            .is_some_and(|world| world.plan.model().records_texts_of(operation))
}

/// A part of the arguments, written without its free texts.
pub(super) struct MaskedArguments<'a> {
    value: &'a Value,
    /// Schema of `value`. `None`: the catalog declares none.
    schema: Option<&'a DeclaredMembers>,
    depth: usize,
    notes: &'a Masking<'a>,
    /// JSON pointers from `value` to the parts of which nothing is shown.
    hidden: SmallVec<[&'a str; 2]>,
    texts: ArgumentTexts<'a>,
}

/// Treatment of the texts that the schema does not list.
#[derive(Clone, Copy)]
struct ArgumentTexts<'a> {
    /// They are written as they are, not as digests: an obligation of the permit.
    are_shown: bool,
    /// Credentials that no text may hold.
    evidence: &'a [Evidence<'a>],
}

impl<'a> MaskedArguments<'a> {
    /// `None` if the arguments could not be read.
    pub(super) fn of(
        judgement: &'a Judgement,
        notes: &'a Masking<'a>,
        evidence: &'a [Evidence<'a>],
    ) -> Option<Self> {
        let arguments = judgement.evaluated()?.arguments.as_ref()?;
        let plan = judgement.arrival.world.as_ref().map(|world| &world.plan);
        let operation = &judgement.resolved.operation;
        let hidden = plan.map(|plan| plan.masked_arguments(operation)).unwrap_or_default();
        Some(Self {
            value: arguments.json(),
            schema: plan.and_then(|plan| plan.declared(operation)),
            depth: 0,
            notes,
            hidden: hidden.into(),
            texts: ArgumentTexts { are_shown: shows_texts(judgement), evidence },
        })
    }

    /// A member or item.
    ///
    /// Args: `name`: name of the member, or position of the item.
    fn part(&self, name: &str, value: &'a Value, schema: Option<&'a DeclaredMembers>) -> Self {
        let below = |pointer: &&'a str| {
            let (token, rest) = split_first(pointer);
            (token == "*" || unescape(token) == name).then_some(rest)
        };
        Self {
            value,
            schema,
            depth: self.depth.saturating_add(1),
            notes: self.notes,
            hidden: self.hidden.iter().filter_map(below).collect(),
            texts: self.texts,
        }
    }

    /// A text as it is, if the permit says so, and the text is not too long and holds no credential.
    fn shown_text(&self, text: &'a str) -> Option<&'a str> {
        let is_shown = self.texts.are_shown
            && !carries_token(text, self.texts.evidence)
            && self.notes.take_text(text.len());
        is_shown.then_some(text)
    }
}

/// First token of a JSON pointer, as it is written, and the pointer below it.
fn split_first(pointer: &str) -> (&str, &str) {
    let rest = pointer.strip_prefix('/').unwrap_or(pointer);
    rest.find('/').map_or((rest, ""), |at| rest.split_at(at))
}

/// A decimal without zeros at its end. An exponent stays as it is.
fn plain_decimal(text: &str) -> &str {
    match text.contains('.') && !text.contains(['e', 'E']) {
        true => text.trim_end_matches('0').trim_end_matches('.'),
        false => text,
    }
}

/// A token of a JSON pointer as the name that it stands for (RFC 6901 §4).
fn unescape(token: &str) -> Cow<'_, str> {
    match token.contains('~') {
        true => Cow::Owned(token.replace("~1", "/").replace("~0", "~")),
        false => Cow::Borrowed(token),
    }
}

impl Serialize for MaskedArguments<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let notes = self.notes;
        if self.hidden.iter().any(|pointer| pointer.is_empty()) || !notes.take(self.depth) {
            notes.mask_here();
            return serializer.serialize_unit();
        }
        let length = notes.at.borrow().len();
        match self.value {
            Value::Null => serializer.serialize_unit(),
            Value::Bool(value) => serializer.serialize_bool(*value),
            Value::Integer(number) => serializer.serialize_i64(*number),
            // A reader of the record could not read a number that `serde_json` cannot read.
            Value::Decimal(text) => match text.parse::<serde_json::Number>() {
                Ok(number) => {
                    // A reader of the record would take a number with more digits than a double has for another number.
                    if plain_decimal(text) != plain_decimal(&number.to_string()) {
                        notes.mask_here();
                    }
                    number.serialize(serializer)
                }
                Err(_) => {
                    notes.mask_here();
                    serializer.serialize_unit()
                }
            },
            Value::String(text) if self.schema.is_some_and(|schema| schema.holds(text)) => {
                serializer.serialize_str(text)
            }
            Value::String(text) => match self.shown_text(text) {
                Some(text) => serializer.serialize_str(&notes.placed(text, &notes.at.borrow())),
                None => {
                    notes.mask_here();
                    Hash::of(text).serialize(serializer)
                }
            },
            Value::Array(items) => {
                let schema = self.schema.and_then(DeclaredMembers::items);
                let mut list = serializer.serialize_seq(None)?;
                for (index, item) in items.iter().enumerate() {
                    if notes.left.get() == 0 {
                        notes.mask(format!("{}/{index}", notes.at.borrow()));
                        break;
                    }
                    let position = index.to_string();
                    push_token(&mut notes.at.borrow_mut(), &position);
                    list.serialize_element(&self.part(&position, item, schema))?;
                    notes.at.borrow_mut().truncate(length);
                }
                list.end()
            }
            Value::Object(members) => {
                let mut object = serializer.serialize_map(None)?;
                for (number, (name, item)) in members.iter().enumerate() {
                    if notes.left.get() == 0 {
                        notes.mask(format!("{}/{number}", notes.at.borrow()));
                        break;
                    }
                    let schema = self.schema.and_then(|schema| schema.member(name));
                    // A member that the schema does not name was written by the caller, its name too.
                    let hash = schema.is_none().then(|| Hash::of(name));
                    let shown = hash.as_ref().map_or(name.as_str(), Hash::as_str);
                    push_token(&mut notes.at.borrow_mut(), shown);
                    object.serialize_entry(shown, &self.part(name, item, schema))?;
                    notes.at.borrow_mut().truncate(length);
                }
                object.end()
            }
        }
    }
}
