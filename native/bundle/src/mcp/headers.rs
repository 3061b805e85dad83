//! The headers of a request that repeat a part of its message.

use std::borrow::Cow;

use authz_base::json::Value;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use super::message::Message;
use super::{Endpoint, Envelope, MessageKind};
use crate::http::{RequestError, is_spelling, once};
use crate::model::ParameterHeader;

/// The supported revisions, oldest first.
pub const VERSIONS: [&str; 3] = ["2025-06-18", "2025-11-25", "2026-07-28"];
/// The first revision that repeats method and name in headers, has no sessions, and no requests of the server's.
const STATELESS: &str = "2026-07-28";

const VERSION: &str = "mcp-protocol-version";
const METHOD: &str = "mcp-method";
const NAME: &str = "mcp-name";
/// Requests the events of a stream after this event again, in revisions before [`STATELESS`].
pub(crate) const LAST_EVENT_ID: &str = "last-event-id";
/// Names the session, in the same revisions. The server chooses it; Authz does not read it.
pub(crate) const SESSION_ID: &str = "mcp-session-id";
/// The headers that Authz reads.
pub(crate) const READ: [&str; 4] = [LAST_EVENT_ID, VERSION, METHOD, NAME];
/// Prefix of the headers that repeat an argument of a call.
pub(crate) const PARAMETER: &str = "mcp-param-";
/// The member of `_meta` that repeats the revision.
pub(super) const META_VERSION: &str = "io.modelcontextprotocol/protocolVersion";

/// Headers that repeat a part of the message.
pub(super) struct MessageHeaders<'a> {
    version: Option<&'a str>,
    method: Option<&'a str>,
    name: Option<&'a str>,
    resumes: bool,
}

impl<'a> MessageHeaders<'a> {
    pub(super) fn read(headers: &[(&str, &'a str)]) -> Result<Self, RequestError> {
        Ok(Self {
            version: once(headers, VERSION)?,
            method: once(headers, METHOD)?,
            name: once(headers, NAME)?,
            resumes: once(headers, LAST_EVENT_ID)?.is_some(),
        })
    }

    /// Notes the revision, which header and `_meta` must agree on.
    ///
    /// Only `initialize` has none, because client and server agree on a revision by it.
    pub(super) fn note_version(
        &self,
        message: Option<&Message>,
        envelope: &mut Envelope,
    ) -> Result<(), RequestError> {
        let in_body = message.map_or(Ok(None), |message| message.meta(META_VERSION))?;
        let in_body = match in_body {
            None => None,
            Some(Value::String(version)) => Some(version.as_str()),
            Some(_) => {
                return Err(RequestError::mismatch("`_meta` names no revision that a header can"));
            }
        };
        let method = message.and_then(|message| message.method.as_deref());
        let Some(sent) = self.version else {
            return match (in_body, method) {
                (None, Some("initialize")) => Ok(()),
                (None, _) => Err(RequestError::unread(format!("`{VERSION}` is missing"))),
                (Some(_), _) => {
                    Err(RequestError::mismatch(format!("`{VERSION}` is in `_meta` only")))
                }
            };
        };
        if in_body.is_some_and(|version| version != sent) {
            return Err(RequestError::mismatch(format!("`{VERSION}` differs from `_meta`")));
        }
        envelope.version = VERSIONS.into_iter().find(|version| *version == sent);
        let Some(version) = envelope.version else {
            envelope.unsupported = true;
            return Err(RequestError::unread(format!(
                "`{VERSION}` names none of {}",
                VERSIONS.join(", ")
            )));
        };
        if version != STATELESS {
            return Ok(());
        }
        match envelope.kind {
            MessageKind::Response => {
                Err(RequestError::unread("this revision has no responses of clients"))
            }
            MessageKind::Session => Err(RequestError::unread("this revision has no sessions")),
            MessageKind::ToolCall | MessageKind::Request if in_body.is_none() => {
                Err(RequestError::mismatch(format!("`{VERSION}` is not in `_meta`")))
            }
            MessageKind::ToolCall | MessageKind::Request => self.require_repeats(message),
            _ => Ok(()),
        }
    }

    /// Requires the headers of this revision.
    fn require_repeats(&self, message: Option<&Message>) -> Result<(), RequestError> {
        let method = message.and_then(|message| message.method.as_deref());
        let named = matches!(method, Some("tools/call" | "resources/read" | "prompts/get"));
        if self.method.is_none() {
            return Err(RequestError::mismatch(format!("`{METHOD}` is missing")));
        }
        if named && self.name.is_none() {
            return Err(RequestError::mismatch(format!("`{NAME}` is missing")));
        }
        Ok(())
    }

    /// Refuses to resume a stream, unless the bundle declares that the endpoint does.
    ///
    /// An event id belongs to a stream of the server, and no task or session here records it. A caller that guesses or learns
    /// an id would get the events of another caller.
    pub(super) fn check_resume(&self, endpoint: &Endpoint) -> Result<(), RequestError> {
        if self.resumes && !endpoint.resumes_streams {
            return Err(RequestError::bad(format!(
                "the system does not declare the header `{LAST_EVENT_ID}`"
            )));
        }
        Ok(())
    }

    /// Refuses headers that contradict the message.
    pub(super) fn check_message(
        &self,
        method: Option<&str>,
        name: Option<&str>,
    ) -> Result<(), RequestError> {
        match (self.method, self.name) {
            (Some(sent), _) if method != Some(sent) => differs(METHOD, sent),
            (_, Some(sent)) if !name.is_some_and(|name| stands_for(sent, name)) => {
                differs(NAME, sent)
            }
            _ => Ok(()),
        }
    }
}

/// Refuses headers that repeat arguments and differ from them.
///
/// A header for an argument that is absent, or that no tool declares, is a value that the message lacks. A server that reads
/// headers would act on it.
///
/// * `declared`: headers of the tool; empty if the message calls no tool.
/// * `are_required`: each argument with a declared header must be repeated.
pub(super) fn check_parameters(
    headers: &[(&str, &str)],
    declared: &[ParameterHeader],
    arguments: &Value,
    are_required: bool,
) -> Result<(), RequestError> {
    let is_declared = |name: &str| declared.iter().any(|header| is_spelling(name, &header.name));
    if headers.iter().any(|(name, _)| is_parameter(name) && !is_declared(name)) {
        return Err(RequestError::mismatch(format!("a `{PARAMETER}…` header repeats no argument")));
    }
    for ParameterHeader { name, path } in declared {
        let argument = path.iter().try_fold(arguments, |value, member| value.get(member));
        match (once(headers, name)?, argument.and_then(header_text)) {
            (None, None) => {}
            (None, Some(_)) if !are_required => {}
            (None, Some(_)) => return Err(RequestError::mismatch(format!("`{name}` is missing"))),
            (Some(_), None) => {
                return Err(RequestError::mismatch(format!("`{name}` repeats no argument")));
            }
            (Some(sent), Some(text)) if stands_for(sent, &text) => {}
            (Some(sent), Some(_)) => return differs(name, sent),
        }
    }
    Ok(())
}

/// Whether a header, by its name in lower case, repeats an argument, also in the spelling of servers that take `_` for `-`.
pub(crate) fn is_parameter(name: &str) -> bool {
    name.get(..PARAMETER.len()).is_some_and(|start| is_spelling(start, PARAMETER))
}

/// Text of an argument in a header. `None`: a header cannot repeat it.
fn header_text(value: &Value) -> Option<Cow<'_, str>> {
    match value {
        Value::String(text) => Some(Cow::Borrowed(text)),
        Value::Integer(number) => Some(Cow::Owned(number.to_string())),
        Value::Bool(true) => Some(Cow::Borrowed("true")),
        Value::Bool(false) => Some(Cow::Borrowed("false")),
        _ => None,
    }
}

fn differs(header: &str, sent: &str) -> Result<(), RequestError> {
    match sent.contains(',') {
        // A proxy joins headers of one name with commas.
        true => Err(RequestError::ambiguous(format!("`{header}` may hold several values"))),
        false => Err(RequestError::mismatch(format!("`{header}` differs from the message"))),
    }
}

/// Whether the value of a header stands for a text: literally, or as `=?base64?…?=` of its UTF-8.
pub(super) fn stands_for(header: &str, text: &str) -> bool {
    match header.strip_prefix("=?base64?").and_then(|rest| rest.strip_suffix("?=")) {
        // Encode instead of decode: a text has one correct encoding, and other encodings are not accepted.
        Some(encoded) => encoded == STANDARD.encode(text),
        None => header == text,
    }
}
