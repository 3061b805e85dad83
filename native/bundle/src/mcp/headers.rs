//! The headers of a request that repeat what its message says.

use std::borrow::Cow;

use authz_base::json::Value;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use super::message::Message;
use super::{Endpoint, Envelope, Fault, Kind, ParameterHeader};
use crate::routes::{is_spelling, once};

/// The revisions that are spoken, oldest first.
pub const VERSIONS: [&str; 3] = ["2025-06-18", "2025-11-25", "2026-07-28"];
/// The first revision that repeats method and name in headers, has no sessions, and no requests of the server's.
const STATELESS: &str = "2026-07-28";

const VERSION: &str = "mcp-protocol-version";
const METHOD: &str = "mcp-method";
const NAME: &str = "mcp-name";
/// Asks for the events of a stream after this one once more, in revisions before [`STATELESS`].
pub(crate) const LAST_EVENT_ID: &str = "last-event-id";
/// Names the session, in the same revisions. The server chooses it, and it is not read here.
pub(crate) const SESSION_ID: &str = "mcp-session-id";
/// The headers that are read.
pub(crate) const READ: [&str; 4] = [LAST_EVENT_ID, VERSION, METHOD, NAME];
/// How the headers begin that repeat an argument of a call.
pub(crate) const PARAMETER: &str = "mcp-param-";
/// The member of `_meta` that repeats the revision.
pub(super) const META_VERSION: &str = "io.modelcontextprotocol/protocolVersion";

/// What the headers say.
pub(super) struct Said<'a> {
    version: Option<&'a str>,
    method: Option<&'a str>,
    name: Option<&'a str>,
    resumes: bool,
}

impl<'a> Said<'a> {
    pub(super) fn read(headers: &[(&str, &'a str)]) -> Result<Self, Fault> {
        Ok(Self {
            version: once(headers, VERSION)?,
            method: once(headers, METHOD)?,
            name: once(headers, NAME)?,
            resumes: once(headers, LAST_EVENT_ID)?.is_some(),
        })
    }

    /// Notes the revision, which header and `_meta` must agree on.
    ///
    /// Only `initialize` comes without: it is what agrees on a revision.
    pub(super) fn version(
        &self,
        message: Option<&Message>,
        envelope: &mut Envelope,
    ) -> Result<(), Fault> {
        let in_body = message.map_or(Ok(None), |message| message.meta(META_VERSION))?;
        let in_body = match in_body {
            None => None,
            Some(Value::String(version)) => Some(version.as_str()),
            Some(_) => return Err(Fault::mismatch("`_meta` names no revision that a header can")),
        };
        let method = message.and_then(|message| message.method.as_deref());
        let Some(said) = self.version else {
            return match (in_body, method) {
                (None, Some("initialize")) => Ok(()),
                (None, _) => Err(Fault::unread(format!("`{VERSION}` is missing"))),
                (Some(_), _) => Err(Fault::mismatch(format!("`{VERSION}` is in `_meta` only"))),
            };
        };
        if in_body.is_some_and(|version| version != said) {
            return Err(Fault::mismatch(format!("`{VERSION}` differs from `_meta`")));
        }
        envelope.version = VERSIONS.into_iter().find(|version| *version == said);
        let Some(version) = envelope.version else {
            envelope.unsupported = true;
            return Err(Fault::unread(format!(
                "`{VERSION}` names none of {}",
                VERSIONS.join(", ")
            )));
        };
        if version != STATELESS {
            return Ok(());
        }
        match envelope.kind {
            Kind::Response => Err(Fault::unread("this revision has no responses of clients")),
            Kind::Session => Err(Fault::unread("this revision has no sessions")),
            Kind::ToolCall | Kind::Request if in_body.is_none() => {
                Err(Fault::mismatch(format!("`{VERSION}` is not in `_meta`")))
            }
            Kind::ToolCall | Kind::Request => self.repeats(message),
            _ => Ok(()),
        }
    }

    /// The headers that this revision asks for.
    fn repeats(&self, message: Option<&Message>) -> Result<(), Fault> {
        let method = message.and_then(|message| message.method.as_deref());
        let named = matches!(method, Some("tools/call" | "resources/read" | "prompts/get"));
        if self.method.is_none() {
            return Err(Fault::mismatch(format!("`{METHOD}` is missing")));
        }
        if named && self.name.is_none() {
            return Err(Fault::mismatch(format!("`{NAME}` is missing")));
        }
        Ok(())
    }

    /// Refuses to resume a stream, unless the bundle says that the endpoint does.
    ///
    /// An event id belongs to a stream of the server, and no task or session here knows of it. A caller that guesses or learns
    /// an id would be sent the events of another caller.
    pub(super) fn may_resume(&self, endpoint: &Endpoint) -> Result<(), Fault> {
        if self.resumes && !endpoint.resumes_streams {
            return Err(Fault::bad(format!(
                "the system does not declare the header `{LAST_EVENT_ID}`"
            )));
        }
        Ok(())
    }

    /// The headers, where they are there, say what the message says.
    pub(super) fn is_of(&self, method: Option<&str>, name: Option<&str>) -> Result<(), Fault> {
        match (self.method, self.name) {
            (Some(said), _) if method != Some(said) => differs(METHOD, said),
            (_, Some(said)) if !name.is_some_and(|name| says(said, name)) => differs(NAME, said),
            _ => Ok(()),
        }
    }
}

/// Refuses headers that repeat arguments, unless the arguments are as they say.
///
/// A header for an argument that is absent, or that no tool declares, is a value that the message does not have: whoever goes
/// by headers would act on it.
///
/// Args:
/// * `declared`: those of the tool; none where the message calls none.
/// * `are_required`: an argument that is there must be repeated.
pub(super) fn repeat(
    headers: &[(&str, &str)],
    declared: &[ParameterHeader],
    arguments: &Value,
    are_required: bool,
) -> Result<(), Fault> {
    let is_declared = |name: &str| declared.iter().any(|one| is_spelling(name, &one.name));
    if headers.iter().any(|(name, _)| is_parameter(name) && !is_declared(name)) {
        return Err(Fault::mismatch(format!("a `{PARAMETER}…` header repeats no argument")));
    }
    for ParameterHeader { name, path } in declared {
        let argument = path.iter().try_fold(arguments, |value, member| value.get(member));
        match (once(headers, name)?, argument.and_then(written)) {
            (None, None) => {}
            (None, Some(_)) if !are_required => {}
            (None, Some(_)) => return Err(Fault::mismatch(format!("`{name}` is missing"))),
            (Some(_), None) => {
                return Err(Fault::mismatch(format!("`{name}` repeats no argument")));
            }
            (Some(said), Some(text)) if says(said, &text) => {}
            (Some(said), Some(_)) => return differs(name, said),
        }
    }
    Ok(())
}

/// Whether a header, by its name in lower case, repeats an argument, also in the spelling of servers that take `_` for `-`.
pub(crate) fn is_parameter(name: &str) -> bool {
    name.get(..PARAMETER.len()).is_some_and(|start| is_spelling(start, PARAMETER))
}

/// How a header writes an argument; none for one that no header can repeat.
fn written(value: &Value) -> Option<Cow<'_, str>> {
    match value {
        Value::String(text) => Some(Cow::Borrowed(text)),
        Value::Integer(number) => Some(Cow::Owned(number.to_string())),
        Value::Bool(true) => Some(Cow::Borrowed("true")),
        Value::Bool(false) => Some(Cow::Borrowed("false")),
        _ => None,
    }
}

fn differs(header: &str, said: &str) -> Result<(), Fault> {
    match said.contains(',') {
        // A proxy joins headers of one name with commas.
        true => Err(Fault::ambiguous(format!("`{header}` may hold several values"))),
        false => Err(Fault::mismatch(format!("`{header}` differs from the message"))),
    }
}

/// Whether the value of a header stands for a text: as it is, or as `=?base64?…?=` of its UTF-8.
pub(super) fn says(header: &str, text: &str) -> bool {
    match header.strip_prefix("=?base64?").and_then(|rest| rest.strip_suffix("?=")) {
        // Written, not read: there is one right way to write a text, and any other is none.
        Some(encoded) => encoded == STANDARD.encode(text),
        None => header == text,
    }
}
