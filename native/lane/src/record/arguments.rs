//! The arguments of a call, as the policies could read them: texts that the schema does not list are digests.

use authz_kernel::arguments::DeclaredMembers;
use authz_kernel::json::{Value, push_token};
use serde::ser::{SerializeMap as _, SerializeSeq as _};
use serde::{Serialize, Serializer};

use super::digest::Hash;
use super::masking::Masking;
use crate::judgement::Judgement;

/// Arguments as the policies could read them, for Explain. `null`: they could not be read.
pub(crate) fn facts_of(judgement: &Judgement) -> serde_json::Value {
    let notes = Masking::new();
    let facts = MaskedArguments::of(judgement, &notes);
    serde_json::to_value(facts).unwrap_or(serde_json::Value::Null)
}

/// A part of the arguments, written without its free texts.
pub(super) struct MaskedArguments<'a> {
    value: &'a Value,
    /// Schema of `value`. `None`: the catalog declares none.
    schema: Option<&'a DeclaredMembers>,
    depth: usize,
    notes: &'a Masking,
}

impl<'a> MaskedArguments<'a> {
    /// `None` if the arguments could not be read.
    pub(super) fn of(judgement: &'a Judgement, notes: &'a Masking) -> Option<Self> {
        let arguments = judgement.evaluated()?.arguments.as_ref()?;
        let world = judgement.arrival.world.as_ref();
        let schema = world.and_then(|world| world.plan.declared(&judgement.resolved.operation));
        Some(Self { value: arguments.json(), schema, depth: 0, notes })
    }

    fn part(&self, value: &'a Value, schema: Option<&'a DeclaredMembers>) -> Self {
        Self { value, schema, depth: self.depth.saturating_add(1), notes: self.notes }
    }
}

impl Serialize for MaskedArguments<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let notes = self.notes;
        if !notes.take(self.depth) {
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
                Ok(number) => number.serialize(serializer),
                Err(_) => {
                    notes.mask_here();
                    serializer.serialize_unit()
                }
            },
            Value::String(text) if self.schema.is_some_and(|schema| schema.holds(text)) => {
                serializer.serialize_str(text)
            }
            Value::String(text) => {
                notes.mask_here();
                Hash::of(text).serialize(serializer)
            }
            Value::Array(items) => {
                let schema = self.schema.and_then(DeclaredMembers::items);
                let mut list = serializer.serialize_seq(None)?;
                for (index, item) in items.iter().enumerate() {
                    if notes.left.get() == 0 {
                        notes.mask(format!("{}/{index}", notes.at.borrow()));
                        break;
                    }
                    push_token(&mut notes.at.borrow_mut(), &index.to_string());
                    list.serialize_element(&self.part(item, schema))?;
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
                    object.serialize_entry(shown, &self.part(item, schema))?;
                    notes.at.borrow_mut().truncate(length);
                }
                object.end()
            }
        }
    }
}
