//! The audit record: one JSON line with OPA's decision-log field names where they exist.
//!
//! A record holds what the policies could read: numbers and truth values in clear, texts as digests. It never holds a token.

use std::collections::BTreeMap;

use authz_kernel::decision::{Outcome, Principal};
use authz_kernel::model::Tier;
use authz_token::{ClaimValue, Evidence};
use serde::Serialize;
use serde_json::{Map, Value};
use sha2::{Digest, Sha256};

use crate::judgement::{Judgement, hex, name_of};

/// Members, items and levels of arguments that a record repeats; their digest stands for the rest.
const MAX_FACTS: usize = 256;
const MAX_DEPTH: usize = 8;
/// So much of a token's start is taken for the token.
const TOKEN_START: usize = 32;
/// What most records need, so that a line seldom grows while it is written.
const LINE_BYTES: usize = 2_560;
/// Longest resource that is written in clear.
const MAX_RESOURCE: usize = 600;

/// What a record takes from the call itself.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Origin<'a> {
    pub(crate) peer: &'a str,
    /// W3C Trace Context §3.2.2: (trace id, parent id).
    pub(crate) trace: Option<(&'a str, &'a str)>,
    pub(crate) node_id: &'a str,
    pub(crate) version: &'a str,
}

#[derive(Serialize)]
struct Record<'a> {
    decision_id: &'a str,
    timestamp: String,
    labels: Labels<'a>,
    bundles: BTreeMap<&'a str, Bundle<'a>>,
    path: &'a str,
    input: Input<'a>,
    result: Answer<'a>,
    requested_by: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    trace_id: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    span_id: Option<&'a str>,
    metrics: Times,
    erased: [&'a str; 0],
    masked: &'a [String],
}

#[derive(Serialize)]
struct Labels<'a> {
    id: &'a str,
    version: &'a str,
    listener: &'a str,
    surface: &'a str,
}

#[derive(Serialize)]
struct Bundle<'a> {
    revision: &'a str,
    digest: &'a str,
}

#[derive(Serialize)]
struct Input<'a> {
    enforcer: &'a str,
    mode: &'a str,
    chain: Vec<Link<'a>>,
    operation: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    route: Option<usize>,
    arguments: Value,
    #[serde(skip_serializing_if = "Option::is_none")]
    arguments_digest: Option<String>,
    resource: String,
    destination_class: &'a str,
}

#[derive(Serialize)]
struct Link<'a> {
    kind: &'a str,
    id: String,
    claims: Map<String, Value>,
    token_sha256: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    kid: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    issued_at: Option<i64>,
    expires_at: i64,
}

#[derive(Serialize)]
struct Answer<'a> {
    outcome: &'a str,
    reason_code: &'a str,
    public_code: &'a str,
    next_action: &'a str,
    retry: &'a str,
    enforced: bool,
    step: &'a str,
    tier: &'a str,
    step_up_kinds: &'a [String],
    policies: &'a [String],
    controls: &'a [String],
    obligations: &'a [String],
    message: &'a str,
    /// The outcome of an earlier record of the same id, which was not answered.
    #[serde(skip_serializing_if = "Option::is_none")]
    instead_of: Option<&'a str>,
}

#[derive(Serialize)]
struct Times {
    #[serde(skip_serializing_if = "Option::is_none")]
    timer_verify_ns: Option<u128>,
    #[serde(skip_serializing_if = "Option::is_none")]
    timer_decide_ns: Option<u128>,
}

/// The word for an outcome.
pub(crate) const fn outcome(outcome: Outcome) -> &'static str {
    match outcome {
        Outcome::Permit => "PERMIT",
        Outcome::StepUp => "STEP_UP",
        Outcome::Deny => "DENY",
    }
}

/// The record of a decision, without a line feed.
///
/// Args: `evidence`: what was presented, so that no token gets into a record by way of another field. `instead_of`: the
/// outcome of a record of the same decision that this one replaces.
pub(crate) fn line(
    judgement: &Judgement,
    evidence: &[Evidence<'_>],
    origin: Origin<'_>,
    instead_of: Option<Outcome>,
) -> Vec<u8> {
    let decision = judgement.decision.as_ref();
    let mut masked = Vec::new();
    let arguments = facts_of(judgement, &mut masked);
    let resource = decision.map_or("", |decision| decision.resource.as_str());
    let resource = if carries_token(resource, evidence) || resource.len() > MAX_RESOURCE {
        masked.push("/input/resource".to_owned());
        text_digest(resource)
    } else {
        resource.to_owned()
    };
    // The kernel's messages hold no values, but they may name an argument that the caller made up.
    let message = if carries_token(judgement.message(), evidence) {
        masked.push("/result/message".to_owned());
        text_digest(judgement.message())
    } else {
        judgement.message().to_owned()
    };
    let row = judgement.reason().row();
    let standing = judgement.standing();
    let mut bundles = BTreeMap::new();
    if let Some(world) = &judgement.world {
        bundles.insert(
            world.name.as_str(),
            Bundle { revision: &world.revision, digest: &world.digest },
        );
    }
    let record = Record {
        decision_id: &judgement.id,
        timestamp: rfc3339(judgement.now_ms),
        labels: Labels {
            id: origin.node_id,
            version: origin.version,
            listener: &judgement.listener,
            surface: judgement.surface.as_str(),
        },
        bundles,
        path: judgement.surface.path(),
        input: Input {
            enforcer: &judgement.enforcer,
            mode: if judgement.probe { "PROBE" } else { "ENFORCE" },
            chain: chain(judgement, &mut masked),
            operation: judgement.operation.clone(),
            route: judgement.route,
            arguments,
            arguments_digest: decision
                .and_then(|decision| decision.arguments_digest)
                .map(|digest| format!("sha256:{}", hex(&digest))),
            resource,
            destination_class: decision.map_or("", |decision| decision.destination_class.as_str()),
        },
        result: Answer {
            outcome: outcome(judgement.outcome()),
            reason_code: judgement.reason().as_str(),
            public_code: row.public_code.as_str(),
            next_action: row.next_action.as_str(),
            retry: row.retry.as_str(),
            enforced: true,
            step: judgement.step().as_str(),
            tier: judgement.tier.map_or("", Tier::as_str),
            step_up_kinds: standing.map_or(&[], |decision| decision.kinds.as_slice()),
            policies: standing.map_or(&[], |decision| decision.policies.as_slice()),
            controls: standing.map_or(&[], |decision| decision.controls.as_slice()),
            obligations: standing.map_or(&[], |decision| decision.obligations.as_slice()),
            message: &message,
            instead_of: instead_of.map(outcome),
        },
        requested_by: origin.peer,
        trace_id: origin.trace.map(|(trace, _)| trace),
        span_id: origin.trace.map(|(_, span)| span),
        metrics: Times {
            timer_verify_ns: judgement.verify_time.map(|time| time.as_nanos()),
            timer_decide_ns: judgement.decide_time.map(|time| time.as_nanos()),
        },
        erased: [],
        masked: &masked,
    };
    // Texts and numbers always serialise; were it otherwise, the id still says that something was decided.
    let mut line = Vec::with_capacity(LINE_BYTES);
    match serde_json::to_writer(&mut line, &record) {
        Ok(()) => line,
        Err(_) => format!("{{\"decision_id\":\"{}\"}}", judgement.id).into_bytes(),
    }
}

/// What the policies could read of the arguments; empty where they could not be read.
pub(crate) fn facts_of(judgement: &Judgement, masked: &mut Vec<String>) -> Value {
    let read =
        judgement.decision.as_ref().is_some_and(|decision| decision.arguments_digest.is_some());
    if !read {
        return Value::Null;
    }
    let schema = judgement.world.as_ref().and_then(|world| world.schema(&judgement.operation));
    let text: &[u8] = if judgement.arguments.is_empty() { b"{}" } else { &judgement.arguments };
    match serde_json::from_slice(text) {
        Ok(value) => {
            let mut left = MAX_FACTS;
            Facts { masked, left: &mut left }.clean(
                value,
                schema,
                &mut "/input/arguments".to_owned(),
                0,
            )
        }
        Err(_) => Value::Null,
    }
}

struct Facts<'a> {
    masked: &'a mut Vec<String>,
    left: &'a mut usize,
}

impl Facts<'_> {
    /// `at` is the JSON pointer of `value`; it is as it was when this returns.
    fn clean(
        &mut self,
        value: Value,
        schema: Option<&Value>,
        at: &mut String,
        depth: usize,
    ) -> Value {
        if *self.left == 0 || depth > MAX_DEPTH {
            self.masked.push(at.clone());
            return Value::Null;
        }
        *self.left = self.left.saturating_sub(1);
        let length = at.len();
        match value {
            Value::Null | Value::Bool(_) | Value::Number(_) => value,
            Value::String(text) if is_enumerated(&text, schema) => Value::String(text),
            Value::String(text) => {
                self.masked.push(at.clone());
                Value::String(text_digest(&text))
            }
            Value::Array(items) => {
                let schema = schema.and_then(|schema| schema.get("items"));
                let mut list = Vec::new();
                for (index, item) in items.into_iter().enumerate() {
                    if *self.left == 0 {
                        self.masked.push(format!("{at}/{index}"));
                        break;
                    }
                    at.push('/');
                    at.push_str(&index.to_string());
                    list.push(self.clean(item, schema, at, depth.saturating_add(1)));
                    at.truncate(length);
                }
                Value::Array(list)
            }
            Value::Object(members) => {
                let properties = schema.and_then(|schema| schema.get("properties"));
                let mut object = Map::with_capacity(members.len().min(*self.left));
                for (number, (name, item)) in members.into_iter().enumerate() {
                    if *self.left == 0 {
                        self.masked.push(format!("{at}/{number}"));
                        break;
                    }
                    let schema = properties.and_then(|properties| properties.get(&name));
                    // A member that the schema does not name was written by the caller, its name too.
                    let shown = match schema {
                        Some(_) => name,
                        None => text_digest(&name),
                    };
                    at.push('/');
                    // RFC 6901 §3.
                    for character in shown.chars() {
                        match character {
                            '~' => at.push_str("~0"),
                            '/' => at.push_str("~1"),
                            plain => at.push(plain),
                        }
                    }
                    let item = self.clean(item, schema, at, depth.saturating_add(1));
                    at.truncate(length);
                    object.insert(shown, item);
                }
                Value::Object(object)
            }
        }
    }
}

/// A text of a closed set is no free text.
fn is_enumerated(text: &str, schema: Option<&Value>) -> bool {
    let Some(schema) = schema else {
        return false;
    };
    let is_it = |value: &Value| value.as_str() == Some(text);
    schema.get("const").is_some_and(is_it)
        || schema
            .get("enum")
            .and_then(Value::as_array)
            .is_some_and(|values| values.iter().any(is_it))
}

fn chain<'a>(judgement: &'a Judgement, masked: &mut Vec<String>) -> Vec<Link<'a>> {
    let mut links = Vec::new();
    for (index, principal) in judgement.chain.iter().enumerate() {
        let link = match principal {
            Principal::Agent { .. } => judgement.facts.agent.as_ref().map(|agent| Link {
                kind: "Agent",
                id: name_of(principal),
                claims: Map::new(),
                token_sha256: hex(&agent.token_digest),
                kid: Some(agent.kid.as_str()),
                issued_at: agent.issued_at,
                expires_at: agent.expires_at,
            }),
            Principal::User(_) | Principal::Service(_) => {
                judgement.facts.subject.as_ref().map(|subject| Link {
                    kind: if matches!(principal, Principal::User(_)) { "User" } else { "Service" },
                    id: name_of(principal),
                    claims: claims(&subject.claims, index, masked),
                    token_sha256: hex(&subject.token_digest),
                    kid: None,
                    issued_at: subject.issued_at,
                    expires_at: subject.expires_at,
                })
            }
        };
        links.extend(link);
    }
    links
}

fn claims(
    claims: &BTreeMap<String, ClaimValue>,
    index: usize,
    masked: &mut Vec<String>,
) -> Map<String, Value> {
    let mut shown = Map::new();
    for (name, claim) in claims {
        let value = match claim {
            ClaimValue::Bool(value) => Value::from(*value),
            ClaimValue::Long(value) => Value::from(*value),
            ClaimValue::String(text) => Value::from(text_digest(text)),
            ClaimValue::Set(texts) => {
                texts.iter().map(|text| Value::from(text_digest(text))).collect()
            }
        };
        if matches!(claim, ClaimValue::String(_) | ClaimValue::Set(_)) {
            masked.push(format!("/input/chain/{index}/claims/{name}"));
        }
        shown.insert(name.clone(), value);
    }
    shown
}

/// Whether a text that callers can write into may hold a token, or a good part of one.
fn carries_token(text: &str, evidence: &[Evidence<'_>]) -> bool {
    evidence.iter().any(|item| {
        let start = item.token.get(..TOKEN_START).unwrap_or(item.token);
        !start.is_empty() && text.contains(start)
    }) || looks_like_token(text)
}

/// A compact JWS begins with the Base64 of `{"`; one that was not evidence is a secret all the same, also encoded again.
fn looks_like_token(text: &str) -> bool {
    ["eyJ", "ZXlK"].iter().any(|start| {
        text.match_indices(start).take(MAX_FACTS).any(|(at, _)| {
            let rest = text.get(at..).unwrap_or_default();
            rest.bytes().take_while(|byte| is_token_byte(*byte)).take(TOKEN_START).count()
                >= TOKEN_START
        })
    })
}

const fn is_token_byte(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.' | b'+' | b'/' | b'=')
}

fn text_digest(text: &str) -> String {
    format!("sha256:{}", hex(&Sha256::digest(text.as_bytes())))
}

/// Milliseconds since 1970 as RFC 3339 in UTC.
pub(crate) fn rfc3339(ms: i64) -> String {
    let days = ms.div_euclid(86_400_000);
    let of_day = ms.rem_euclid(86_400_000);
    // Days to a civil date, in eras of 400 years that begin on 1 March.
    let shifted = days.saturating_add(719_468);
    let era = shifted.div_euclid(146_097);
    let day_of_era = shifted.rem_euclid(146_097);
    let year_of_era =
        (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted_month = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * shifted_month + 2) / 5 + 1;
    let month = if shifted_month < 10 { shifted_month + 3 } else { shifted_month - 9 };
    let year = year_of_era + era.saturating_mul(400) + i64::from(month <= 2);
    format!(
        "{year:04}-{month:02}-{day:02}T{:02}:{:02}:{:02}.{:03}Z",
        of_day / 3_600_000,
        of_day / 60_000 % 60,
        of_day / 1_000 % 60,
        of_day % 1_000
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Dates around leap days and centuries.
    #[test]
    fn dates() {
        for (ms, text) in [
            (0, "1970-01-01T00:00:00.000Z"),
            (951_782_400_000, "2000-02-29T00:00:00.000Z"),
            (1_764_031_409_123, "2025-11-25T00:43:29.123Z"),
            (4_107_542_399_999, "2100-02-28T23:59:59.999Z"),
            (4_107_542_400_000, "2100-03-01T00:00:00.000Z"),
        ] {
            assert_eq!(text, rfc3339(ms));
        }
    }
}
