//! Facts that a proxy puts into its own message, besides the HTTP request.

use prost_types::value::Kind;

use crate::limits;
use crate::proto::envoy::config::core::v3::Metadata;
use crate::refusal::CallRefusal;
use crate::request;

/// The namespace of `metadata_context` that is read, and its member that lists labels.
const NAMESPACE: &str = "authz";
const LABELS: &str = "labels";
const SESSION_CONTEXT: &str = "session_context";
/// The key of `context_extensions` that lists obligations.
pub(super) const SUPPORTED_OBLIGATIONS: &str = "authz.supported_obligations";

/// The labels that an earlier filter of the proxy wrote into its metadata: `labels` of the namespace `authz`.
pub(super) fn labels(metadata: &Metadata) -> Result<Vec<&str>, CallRefusal> {
    let said = metadata.filter_metadata.get(NAMESPACE).and_then(|own| own.fields.get(LABELS));
    let refuse = || CallRefusal::input("`labels` of the metadata is no list of texts");
    let Some(said) = said else { return Ok(Vec::new()) };
    let Some(Kind::ListValue(list)) = &said.kind else { return Err(refuse()) };
    let texts = list.values.iter().map(|value| match &value.kind {
        Some(Kind::StringValue(text)) => Ok(text.as_str()),
        _ => Err(refuse()),
    });
    let texts: Vec<&str> = texts.collect::<Result<_, _>>()?;
    request::read_labels(texts.into_iter())
}

/// The context of the session that an earlier filter of the proxy wrote into its metadata: `session_context` of the namespace
/// `authz`.
pub(super) fn session_context(metadata: &Metadata) -> Result<&str, CallRefusal> {
    let own = metadata.filter_metadata.get(NAMESPACE);
    let Some(value) = own.and_then(|own| own.fields.get(SESSION_CONTEXT)) else { return Ok("") };
    match &value.kind {
        Some(Kind::StringValue(text)) if text.len() <= limits::ID => Ok(text),
        _ => Err(CallRefusal::input(format!(
            "`session_context` of the metadata is not a string of at most {} bytes",
            limits::ID
        ))),
    }
}

pub(super) fn obligations(list: Option<&str>) -> Result<Vec<&str>, CallRefusal> {
    let Some(list) = list else {
        return Ok(Vec::new());
    };
    let names: Vec<&str> = list
        .split(',')
        .map(str::trim)
        .filter(|name| !name.is_empty())
        .take(limits::LIST + 1)
        .collect();
    if names.len() > limits::LIST || names.iter().any(|name| name.len() > limits::OBLIGATION) {
        return Err(CallRefusal::input("`authz.supported_obligations` is too long"));
    }
    Ok(names)
}
