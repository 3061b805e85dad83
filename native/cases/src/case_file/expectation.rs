//! The expected outcome of a step, in the format of case files.

use std::collections::{BTreeMap, BTreeSet};

use authz_kernel::decision::Outcome;
use authz_kernel::reason::ReasonCode;
use schemars::JsonSchema;
use serde::Deserialize;

/// Expected answer of a call: the outcome, or more. Missing members are not compared.
#[derive(Clone, Debug, JsonSchema)]
#[schemars(untagged)]
pub(crate) enum Expect {
    /// The outcome of a call.
    Outcome(OutcomeWord),
    /// Of a step that starts, delegates or ends a task, or reports: `OK`, or the reason code.
    Code(String),
    /// The outcome and more.
    Object(Box<ExpectObject>),
}

/// Expected result of a step on tasks that is not refused.
pub(crate) const OK: &str = "OK";

#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub(crate) enum OutcomeWord {
    /// May be performed.
    Permit,
    /// Not yet.
    StepUp,
    /// May not.
    Deny,
}

/// Expected answer of a call.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct ExpectObject {
    /// The outcome; needed for a call.
    pub(crate) outcome: Option<OutcomeWord>,
    /// The reason code, `FORBIDDEN`.
    pub(crate) code: Option<String>,
    /// All step-up kinds, in any order.
    pub(crate) kinds: Option<BTreeSet<String>>,
    /// One of the policies that determined the outcome, by `@id`.
    pub(crate) policy: Option<String>,
    /// All policies that determined the outcome, in any order.
    pub(crate) policies: Option<BTreeSet<String>>,
    /// All obligations of the enforcer, in any order.
    pub(crate) obligations: Option<BTreeSet<String>>,
    /// All standing exceptions on which the answer depends, in any order.
    pub(crate) exceptions: Option<BTreeSet<String>>,
    /// All policies with `@mode("observe")` that would have changed the outcome, in any order, each with the outcome that the
    /// call would have had.
    pub(crate) observed: Option<BTreeMap<String, OutcomeWord>>,
    /// All controls, in any order.
    pub(crate) controls: Option<BTreeSet<String>>,
    /// Public code, which the agent sees: `DENIED`.
    pub(crate) public_code: Option<String>,
    /// Next action of the agent: `NONE`.
    pub(crate) next_action: Option<String>,
    /// The effective tier.
    pub(crate) tier: Option<String>,
    /// The Cedar resource, `Resource::"customers/42"`.
    pub(crate) resource: Option<String>,
    /// The class of the worst destination.
    pub(crate) destination_class: Option<String>,
    /// The reason that the agent is shown.
    pub(crate) shown_reason: Option<String>,
    /// Of a step that starts or delegates: field that exceeds the given scope, `ids`.
    pub(crate) beyond: Option<String>,
    /// For runs over a server: headers towards the upstream.
    #[expect(dead_code, reason = "compared over a server only")]
    pub(crate) upstream: Option<serde_json::Value>,
    /// For runs over a server: how an MCP client is answered.
    #[expect(dead_code, reason = "compared over a server only")]
    pub(crate) answer: Option<AnswerWord>,
}

/// How an MCP client is answered.
#[derive(Clone, Copy, Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub(crate) enum AnswerWord {
    /// With the result of a tool.
    Result,
    /// With a JSON-RPC error.
    Error,
    /// As any HTTP client.
    Http,
}

impl<'de> Deserialize<'de> for Expect {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Either;
        impl<'de> serde::de::Visitor<'de> for Either {
            type Value = Expect;

            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("PERMIT, STEP_UP, DENY, or a mapping with `outcome`")
            }
            fn visit_str<E: serde::de::Error>(self, v: &str) -> Result<Expect, E> {
                if v == OK || ReasonCode::from_name(v).is_some() {
                    return Ok(Expect::Code(v.to_owned()));
                }
                let word = serde::de::value::StrDeserializer::<E>::new(v);
                OutcomeWord::deserialize(word).map(Expect::Outcome)
            }
            fn visit_map<A: serde::de::MapAccess<'de>>(self, map: A) -> Result<Expect, A::Error> {
                let map = serde::de::value::MapAccessDeserializer::new(map);
                ExpectObject::deserialize(map).map(|o| Expect::Object(Box::new(o)))
            }
        }
        deserializer.deserialize_any(Either)
    }
}

impl OutcomeWord {
    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::Permit => "PERMIT",
            Self::StepUp => "STEP_UP",
            Self::Deny => "DENY",
        }
    }
}

impl From<Outcome> for OutcomeWord {
    fn from(outcome: Outcome) -> Self {
        match outcome {
            Outcome::Permit => Self::Permit,
            Outcome::StepUp => Self::StepUp,
            Outcome::Deny => Self::Deny,
        }
    }
}
