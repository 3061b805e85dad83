//! From an operation id and bytes to arguments, resource and destination.

use crate::arguments::Arguments;
use crate::decision::{Decision, ReasonCode, Request};
use crate::destinations::Placed;
use crate::evaluate::Known;
use crate::json::Value as Json;
use crate::model::{DestinationRule, Operation, ResourceRule};
use crate::plan::{Plan, Prepared};
use crate::schema::NO_DESTINATION;

use super::Refusal;

/// Bytes of a resource id.
const MAX_ID: usize = 1024;
/// Destinations of one request.
const MAX_DESTINATIONS: usize = 256;

/// What a request is about.
pub(super) struct Resolved<'a> {
    pub(super) arguments: Arguments,
    pub(super) resource: Known,
    /// The worst destination; none where the operation has no destination rule.
    pub(super) destination: Option<Placed<'a>>,
}

impl Resolved<'_> {
    /// Class of the worst destination.
    pub(super) fn class(&self) -> &str {
        match &self.destination {
            Some(placed) if !placed.class.is_empty() => placed.class,
            _ => NO_DESTINATION,
        }
    }
}

pub(super) fn resolve<'a>(
    plan: &'a Plan,
    operation: &'a Operation,
    prepared: &Prepared,
    request: &Request<'_>,
    decision: &mut Decision,
) -> Result<Resolved<'a>, Refusal> {
    let arguments =
        prepared.arguments.read(request.arguments).map_err(|error| bad(error.to_string()))?;
    decision.arguments_digest = Some(arguments.digest());
    let resource = resource(plan, operation, &arguments, request)?;
    decision.resource = resource.uid();
    let destination = match &operation.destination {
        None if request.destinations.is_empty() => None,
        None => {
            return Err(bad(format!(
                "`{}` sends data nowhere, so no destination may be named",
                operation.id
            )));
        }
        Some(rule) => Some(worst(plan, rule, &arguments, request)?),
    };
    if let Some(placed) = &destination {
        placed.class.clone_into(&mut decision.destination_class);
    }
    Ok(Resolved { arguments, resource, destination })
}

fn bad(message: impl Into<String>) -> Refusal {
    Refusal::new(ReasonCode::BadInput, message)
}

fn resource(
    plan: &Plan,
    operation: &Operation,
    arguments: &Arguments,
    request: &Request<'_>,
) -> Result<Known, Refusal> {
    let Some(ResourceRule { collection, id }) = &operation.resource else {
        return match request.resource {
            None | Some("") => Ok(plan.words.system(&operation.system)),
            Some(_) => Err(bad(format!(
                "`{}` acts on no collection, so no resource may be named",
                operation.id
            ))),
        };
    };
    let id = match (id, request.resource) {
        (Some(_), Some(given)) if !given.is_empty() => {
            return Err(bad("the arguments name the resource, so the request may not"));
        }
        (Some(pointer), _) => match arguments.json().pointer(pointer) {
            Some(Json::String(text)) => canonical(text)?,
            Some(Json::Integer(number)) => number.to_string(),
            Some(_) => {
                return Err(bad(format!(
                    "argument `{pointer}` names the resource: expected a text or integer"
                )));
            }
            None => {
                return Err(bad(format!("argument `{pointer}` names the resource, and is absent")));
            }
        },
        (None, Some(given)) if !given.is_empty() => canonical(given)?,
        (None, _) => String::new(),
    };
    let labels = plan.labels(collection, &id);
    Ok(plan.words.resource(&operation.system, collection, &id, labels.iter().map(String::as_str)))
}

/// One way to write an id: without a leading slash, empty or dot segments and control characters, so that no other
/// spelling of it escapes a pattern.
fn canonical(id: &str) -> Result<String, Refusal> {
    let id = id.strip_prefix('/').unwrap_or(id);
    let plain = |segment: &str| !matches!(segment, "" | "." | "..");
    if id.len() > MAX_ID || id.chars().any(char::is_control) || !id.split('/').all(plain) {
        return Err(bad(
            "the resource id is empty, longer than 1,024 bytes, or has empty or dot segments or control characters",
        ));
    }
    Ok(id.to_owned())
}

fn worst<'a>(
    plan: &'a Plan,
    rule: &'a DestinationRule,
    arguments: &Arguments,
    request: &Request<'_>,
) -> Result<Placed<'a>, Refusal> {
    let mut named: Vec<&str> = Vec::new();
    if rule.from.is_empty() {
        named.extend(request.destinations);
    } else if !request.destinations.is_empty() {
        return Err(bad("the arguments name the destinations, so the request may not"));
    }
    for pointer in &rule.from {
        match arguments.json().pointer(pointer) {
            None | Some(Json::Null) => {}
            Some(Json::String(text)) => named.push(text),
            Some(Json::Array(items)) => {
                for item in items {
                    let Json::String(text) = item else {
                        return Err(bad(format!(
                            "argument `{pointer}` names destinations: expected texts"
                        )));
                    };
                    named.push(text);
                }
            }
            Some(_) => {
                return Err(bad(format!(
                    "argument `{pointer}` names destinations: expected texts"
                )));
            }
        }
        if named.len() > MAX_DESTINATIONS {
            break;
        }
    }
    if named.len() > MAX_DESTINATIONS {
        return Err(bad(format!("more than {MAX_DESTINATIONS} destinations")));
    }
    let mut worst: Option<(usize, Placed<'a>)> = None;
    for raw in named {
        let placed = plan
            .model()
            .classify_destination(rule.kind, raw)
            .map_err(|error| bad(format!("a destination: {error}")))?;
        let clearance =
            plan.model().destinations.get(placed.class).map_or(0, |class| class.clearance.len());
        let worse = worst
            .as_ref()
            .is_none_or(|(least, other)| (clearance, placed.class) < (*least, other.class));
        if worse {
            worst = Some((clearance, placed));
        }
    }
    Ok(worst.map_or_else(
        || {
            let class = if rule.when_absent.is_empty() {
                plan.model().least_trusted()
            } else {
                Some(rule.when_absent.as_str())
            };
            Placed {
                class: class.unwrap_or_default(),
                canonical: String::new(),
                host: String::new(),
            }
        },
        |(_, placed)| placed,
    ))
}
