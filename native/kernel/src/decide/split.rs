//! Which operation a request means, where an argument says it.

use std::sync::Arc;

use super::RequestRefusal;
use super::resolve::bad;
use crate::arguments::Arguments;
use crate::coerce::coerced;
use crate::decision::{Given, ReasonCode, Request};
use crate::json::Value as Json;
use crate::model::{Operation, Split};
use crate::plan::{Plan, Prepared};

/// The operation of a request, and its arguments where they had to be read to know it.
pub(super) struct Chosen<'a> {
    pub(super) operation: &'a Operation,
    pub(super) prepared: &'a Prepared,
    pub(super) arguments: Option<Arguments>,
}

/// Finds the operation.
pub(super) fn choose<'a>(
    plan: &'a Plan,
    request: &Request<'_>,
) -> Result<Chosen<'a>, RequestRefusal> {
    if let Some((operation, prepared)) = plan.prepared(request.operation) {
        return Ok(Chosen { operation, prepared, arguments: None });
    }
    let none =
        || RequestRefusal::new(ReasonCode::UnknownOperation, "the catalog has no such operation");
    let split = plan.model().splits.get(request.operation).ok_or_else(none)?;
    // What nobody reviewed is refused before its arguments are looked at.
    super::known(&split.operation)?;
    let any = split.cases.values().next().ok_or_else(none)?;
    let (any, prepared) = plan.prepared(any).ok_or_else(none)?;
    // All cases have the schema and the coercions of their rule.
    let arguments = read_plain(any, prepared, request)?;
    let id = case(split, &arguments)?;
    let (operation, prepared) = plan.prepared(id).ok_or_else(none)?;
    Ok(Chosen { operation, prepared, arguments: Some(arguments) })
}

/// Reads the arguments of an operation that was named; a case must be the one that they say.
pub(super) fn read(
    plan: &Plan,
    (operation, prepared): (&Operation, &Prepared),
    request: &Request<'_>,
) -> Result<Arguments, RequestRefusal> {
    let arguments = read_plain(operation, prepared, request)?;
    if let Some(named) = &prepared.case {
        let split = plan.model().splits.get(&named.of);
        let split = split.ok_or_else(|| bad("a case of an operation that is not there"))?;
        let said = case(split, &arguments)?;
        if split.cases.get(&named.value).is_none_or(|id| id != said) {
            let on = &split.on;
            let what = format!("argument `{on}` says another operation than was named");
            return Err(RequestRefusal::unread(ReasonCode::BadInput, what));
        }
    }
    Ok(arguments)
}

fn read_plain(
    operation: &Operation,
    prepared: &Prepared,
    request: &Request<'_>,
) -> Result<Arguments, RequestRefusal> {
    let schema = &prepared.arguments;
    let sent = match request.arguments {
        Given::Json(bytes) => schema.parse(bytes),
        Given::Read(value) => Ok(Arc::clone(value)),
    };
    let read = sent.and_then(|sent| {
        let coerced = coerced(&sent, &operation.origins.coerces);
        schema.take_coerced(&sent, &coerced)
    });
    read.map_err(|error| RequestRefusal {
        understood: error.is_understood(),
        ..bad(error.to_string())
    })
}

/// The operation that the arguments say.
fn case<'a>(split: &'a Split, arguments: &Arguments) -> Result<&'a str, RequestRefusal> {
    match arguments.json().pointer(&split.on) {
        Some(Json::String(value)) => split.cases.get(value).map(String::as_str).ok_or_else(|| {
            let what = format!("argument `{}` says no operation of the catalog", split.on);
            RequestRefusal::new(ReasonCode::UnknownOperation, what)
        }),
        // Null for an optional argument is its absence, as everywhere.
        None | Some(Json::Null) => split.when_absent.as_deref().ok_or_else(|| {
            bad(format!("argument `{}` says which operation this is, and is absent", split.on))
        }),
        Some(_) => Err(bad(format!("argument `{}` is no text", split.on))),
    }
}
