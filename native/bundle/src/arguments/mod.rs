//! An operation's arguments: from the JSON Schema in the catalog to typed values that policies can read.
//!
//! An integer becomes a Long, another number a decimal, a text a String, an array a Set, an object with declared
//! members a record. What Cedar has no type for (a union, a map, a recursive or untyped schema) is *opaque*: JSON
//! Schema checks it, and policies see only whether it is present. Argument names need no mapping: a Cedar attribute
//! may be any text, read as `context.input["odd name"]`.

mod declared;
mod read;
mod tame;
mod types;
mod unions;

use std::sync::Arc;

use authz_base::json;
use types::CompiledSchema;

pub use declared::DeclaredMembers;
pub use read::write_canonical;
pub use read::{ArgumentError, ArgumentValue, Arguments};
pub use tame::tame;
pub use types::{ArgumentType, Member, SchemaError};

/// The compiled form of one operation's input schema.
#[derive(Debug)]
pub struct ArgumentSchema {
    root: std::collections::BTreeMap<String, Member>,
    checker: Option<Checker>,
    declared: DeclaredMembers,
    nulls: Nulls,
}

/// Meaning of null for an argument whose schema does not allow it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Nulls {
    /// An optional argument is absent.
    #[default]
    Absent,
    /// The arguments do not have the declared form.
    Refused,
}

/// What checks everything that the types do not say.
#[derive(Debug)]
struct Checker {
    validator: jsonschema::Validator,
    /// Only where nesting multiplies the work.
    unions: Option<unions::Unions>,
}

impl ArgumentSchema {
    /// Compiles an object schema.
    ///
    /// # Errors
    /// [`SchemaError`] if the schema is not an object schema, refers to another document, leads back to itself without
    /// going into the value, has a pattern that cannot be matched in linear time, or is larger than the limits allow.
    pub fn compile(schema: &serde_json::Value) -> Result<Self, SchemaError> {
        let CompiledSchema { root, checked } = types::compile(schema)?;
        let checker = if checked {
            let unions = unions::compile(schema)?;
            Some(Checker { validator: types::validator(schema)?, unions })
        } else {
            None
        };
        Ok(Self { root, checker, declared: DeclaredMembers::of(schema), nulls: Nulls::Absent })
    }

    /// The same schema with another meaning of null.
    #[must_use]
    pub fn with_nulls(self, nulls: Nulls) -> Self {
        Self { nulls, ..self }
    }

    /// What null means for an argument whose schema does not allow it.
    #[must_use]
    pub const fn nulls(&self) -> Nulls {
        self.nulls
    }

    /// A schema without arguments.
    #[must_use]
    pub fn none() -> Self {
        let root = std::collections::BTreeMap::new();
        Self { root, checker: None, declared: DeclaredMembers::default(), nulls: Nulls::Absent }
    }

    /// The declared arguments by name.
    #[must_use]
    pub fn members(&self) -> &std::collections::BTreeMap<String, Member> {
        &self.root
    }

    /// What of the arguments a record may repeat.
    #[must_use]
    pub const fn declared(&self) -> &DeclaredMembers {
        &self.declared
    }

    /// Reads one JSON object.
    ///
    /// # Errors
    /// [`ArgumentError`] with a JSON pointer and no value, if the bytes are not a strict JSON object, do not have
    /// the declared form, or nest so deep in unions that checking them would take too long.
    pub fn read(&self, bytes: &[u8]) -> Result<Arguments, ArgumentError> {
        self.take(&self.parse(bytes)?)
    }

    /// Reads one JSON object, whose form is not checked.
    ///
    /// # Errors
    /// [`ArgumentError`] if the bytes are not strict JSON.
    pub fn parse(&self, bytes: &[u8]) -> Result<Arc<json::Value>, ArgumentError> {
        read::parse(&self.root, bytes).map(Arc::new)
    }

    /// Takes a value that was read before.
    ///
    /// # Errors
    /// [`ArgumentError`] if it is not an object of the declared form, or nests so deep in unions that checking it would
    /// take too long.
    pub fn take(&self, value: &Arc<json::Value>) -> Result<Arguments, ArgumentError> {
        self.take_coerced(value, value)
    }

    /// Takes a value that was read before, in the form in which its server takes it.
    ///
    /// Args: `sent`: the value as it was sent, whose digest the arguments have.
    ///
    /// # Errors
    /// Those of [`Self::take`].
    pub fn take_coerced(
        &self,
        sent: &json::Value,
        value: &Arc<json::Value>,
    ) -> Result<Arguments, ArgumentError> {
        read::read(&self.root, self.checker.as_ref(), self.nulls, sent, value)
    }
}
