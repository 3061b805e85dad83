//! Tables of calls, in the format of case files.

use std::collections::BTreeMap;

use authz_bundle::source::{At, Many};
use schemars::JsonSchema;
use serde::Deserialize;

use super::{CallerForm, CaseStep, ExpectObject, RequestFields, StartForm};

/// Calls of several principals in several contexts, with the outcome of each as a table.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(rename = "Matrix")]
pub(crate) struct MatrixForm {
    /// Callers, by the names that the head of the table gives them.
    pub(crate) principals: BTreeMap<String, At<CallerForm>>,
    /// Calls, by the names that rows give them.
    pub(crate) operations: BTreeMap<String, Option<MatrixCall>>,
    /// Contexts of calls, by the names that rows give them. Default: the table has no column for contexts.
    #[serde(default)]
    pub(crate) contexts: BTreeMap<String, Option<MatrixContext>>,
    /// The table: its head, `[operation, context, PRINCIPAL, …]`, and a row for each call in a context.
    pub(crate) outcomes: Vec<At<Vec<At<MatrixCell>>>>,
}

/// A call of a matrix.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct MatrixCall {
    /// The operation. Default: the name of the call.
    pub(crate) call: Option<At<String>>,
    /// Its arguments.
    pub(crate) input: Option<At<serde_json::Value>>,
    /// Further fields of the request.
    #[serde(default)]
    pub(crate) request: RequestFields,
}

/// A context of calls.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct MatrixContext {
    /// Facts of the caller that replace those of the principal.
    pub(crate) r#as: Option<MatrixCaller>,
    /// Arguments that replace or add to those of the call, by their names.
    pub(crate) input: Option<At<serde_json::Value>>,
    /// Fields of the request that replace those of the call.
    #[serde(default)]
    pub(crate) request: RequestFields,
    /// The task that the call is made in; default: none. Its agent and subject are those of the principal, by default.
    pub(crate) task: Option<At<StartForm>>,
    /// Steps before the call, in the same session.
    #[serde(default)]
    pub(crate) before: Vec<At<CaseStep>>,
}

/// Facts of a caller beside its identity.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct MatrixCaller {
    /// How old the caller's credential is: `30s`, `15m`.
    pub(crate) age: Option<At<String>>,
    /// The caller proves to hold the key that its credential is bound to.
    pub(crate) bound: Option<bool>,
    /// Confidence that a guard is taken to have stated for the call, 0 to 100.
    pub(crate) confidence: Option<u8>,
    /// Step-up kinds that people are taken to have met for the call.
    pub(crate) satisfied: Option<Many<At<String>>>,
}

/// A cell: a name, an outcome, an outcome and a reason code (`DENY FORBIDDEN`), `any`, or a whole expectation.
#[derive(Clone, Debug, JsonSchema)]
#[schemars(untagged)]
pub(crate) enum MatrixCell {
    /// A word.
    Text(String),
    /// The outcome and more.
    Object(Box<ExpectObject>),
}

impl<'de> Deserialize<'de> for MatrixCell {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct AnyCell;
        impl<'de> serde::de::Visitor<'de> for AnyCell {
            type Value = MatrixCell;

            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("a name, an outcome, or a mapping with `outcome`")
            }
            fn visit_str<E: serde::de::Error>(self, v: &str) -> Result<MatrixCell, E> {
                Ok(MatrixCell::Text(v.to_owned()))
            }
            fn visit_map<A: serde::de::MapAccess<'de>>(
                self,
                map: A,
            ) -> Result<MatrixCell, A::Error> {
                let map = serde::de::value::MapAccessDeserializer::new(map);
                ExpectObject::deserialize(map).map(|object| MatrixCell::Object(Box::new(object)))
            }
        }
        deserializer.deserialize_any(AnyCell)
    }
}
