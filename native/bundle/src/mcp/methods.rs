//! The methods of the protocol that are neither a tool nor a resource nor a prompt: in which revisions each is, and which
//! parameters it may have.
//!
//! The list is exact. A method or a parameter that is not here is something that a server may do and nobody judged.

use authz_base::json::Value;

use super::message::known;
use super::{DELETE, GET, LONGEST_ID, RESPONSE, TASK};
use crate::http::RequestError;

/// Revisions, one bit each: 2025-06-18, 2025-11-25, 2026-07-28.
pub(super) type Revisions = u8;
/// Those in which a session begins with `initialize`.
pub(super) const STATEFUL: Revisions = 0b011;
/// The one in which calls run as tasks of the server.
pub(super) const TASKS: Revisions = 0b010;
/// The one without sessions.
pub(super) const STATELESS: Revisions = 0b100;
const EVERY: Revisions = 0b111;

/// The bit of a revision. A message that names none is `initialize`, which the last revision does not have.
pub(super) fn revision(version: Option<&str>) -> Revisions {
    match version {
        None => STATEFUL,
        Some("2025-06-18") => 0b001,
        Some("2025-11-25") => TASKS,
        Some("2026-07-28") => STATELESS,
        Some(_) => 0,
    }
}

/// Levels of log messages (RFC 5424).
const LEVELS: [&str; 8] =
    ["alert", "critical", "debug", "emergency", "error", "info", "notice", "warning"];

/// Form of a parameter.
#[derive(Clone, Copy, Debug)]
enum Form {
    Text,
    /// A short text, or an integer: it only refers to another message.
    Key,
    Number,
    Flag,
    Level,
    /// An object with any members.
    Object,
    /// An object whose members are texts.
    Texts,
    TextList,
    /// An array of anything.
    List,
    /// The prompt or the resource template that is completed.
    Reference,
    /// An object with exactly these members.
    Members(&'static [Parameter]),
}

/// A parameter that a method may have.
#[derive(Clone, Copy, Debug)]
struct Parameter {
    name: &'static str,
    form: Form,
    is_required: bool,
}

const fn must(name: &'static str, form: Form) -> Parameter {
    Parameter { name, form, is_required: true }
}

const fn may(name: &'static str, form: Form) -> Parameter {
    Parameter { name, form, is_required: false }
}

/// A method of the protocol.
#[derive(Debug)]
pub(super) struct Method {
    name: &'static str,
    revisions: Revisions,
    parameters: &'static [Parameter],
    /// A client sends it to connect, or to see what there is.
    connects: bool,
    /// Its answer may hold text of the server's.
    brings: bool,
}

const fn request(
    name: &'static str,
    revisions: Revisions,
    parameters: &'static [Parameter],
) -> Method {
    Method { name, revisions, parameters, connects: false, brings: true }
}

const fn connecting(
    name: &'static str,
    revisions: Revisions,
    parameters: &'static [Parameter],
) -> Method {
    Method { name, revisions, parameters, connects: true, brings: true }
}

/// Nobody answers a notification.
const fn notification(
    name: &'static str,
    revisions: Revisions,
    parameters: &'static [Parameter],
) -> Method {
    Method { name, revisions, parameters, connects: true, brings: false }
}

const PAGE: &[Parameter] = &[may("cursor", Form::Text)];
const RESOURCE: &[Parameter] = &[must("uri", Form::Text)];
const SERVER_TASK: &[Parameter] = &[must("taskId", Form::Text)];
const IMPLEMENTATION: &[Parameter] = &[
    must("name", Form::Text),
    must("version", Form::Text),
    may("title", Form::Text),
    may("description", Form::Text),
    may("websiteUrl", Form::Text),
    may("icons", Form::List),
];

const METHODS: &[Method] = &[
    connecting(
        "initialize",
        STATEFUL,
        &[
            must("protocolVersion", Form::Text),
            must("capabilities", Form::Object),
            must("clientInfo", Form::Members(IMPLEMENTATION)),
        ],
    ),
    Method { brings: false, ..connecting("ping", STATEFUL, &[]) },
    connecting("server/discover", STATELESS, &[]),
    connecting("tools/list", EVERY, PAGE),
    connecting("resources/list", EVERY, PAGE),
    connecting("resources/templates/list", EVERY, PAGE),
    connecting("prompts/list", EVERY, PAGE),
    connecting(
        "subscriptions/listen",
        STATELESS,
        &[must(
            "notifications",
            Form::Members(&[
                may("promptsListChanged", Form::Flag),
                may("resourcesListChanged", Form::Flag),
                may("toolsListChanged", Form::Flag),
                may("resourceSubscriptions", Form::TextList),
            ]),
        )],
    ),
    request("resources/subscribe", STATEFUL, RESOURCE),
    request("resources/unsubscribe", STATEFUL, RESOURCE),
    request("logging/setLevel", STATEFUL, &[must("level", Form::Level)]),
    request(
        "completion/complete",
        EVERY,
        &[
            must("ref", Form::Reference),
            must("argument", Form::Members(&[must("name", Form::Text), must("value", Form::Text)])),
            may("context", Form::Members(&[may("arguments", Form::Texts)])),
        ],
    ),
    request("tasks/get", TASKS, SERVER_TASK),
    request("tasks/result", TASKS, SERVER_TASK),
    request("tasks/cancel", TASKS, SERVER_TASK),
    request("tasks/list", TASKS, PAGE),
    notification("notifications/initialized", STATEFUL, &[]),
    notification(
        "notifications/cancelled",
        EVERY,
        &[may("requestId", Form::Key), may("reason", Form::Text)],
    ),
    notification(
        "notifications/progress",
        STATEFUL,
        &[
            must("progressToken", Form::Key),
            must("progress", Form::Number),
            may("total", Form::Number),
            may("message", Form::Text),
        ],
    ),
    notification("notifications/roots/list_changed", STATEFUL, &[]),
];

/// Members of `_meta` that the protocol names. Others may stand there: they count as arguments of the client.
const META: &[Parameter] = &[
    may("progressToken", Form::Key),
    may(super::headers::META_VERSION, Form::Text),
    may(CLIENT_INFO, Form::Members(IMPLEMENTATION)),
    may(CLIENT_CAPABILITIES, Form::Object),
    may(LOG_LEVEL, Form::Level),
    may(TASK, Form::Text),
];
const CLIENT_INFO: &str = "io.modelcontextprotocol/clientInfo";
const CLIENT_CAPABILITIES: &str = "io.modelcontextprotocol/clientCapabilities";
const LOG_LEVEL: &str = "io.modelcontextprotocol/logLevel";

/// The method of this name.
pub(super) fn find(name: &str) -> Option<&'static Method> {
    METHODS.iter().find(|method| method.name == name)
}

impl Method {
    /// Whether a revision has it.
    pub(super) const fn is_in(&self, revision: Revisions) -> bool {
        self.revisions & revision != 0
    }

    /// Refuses parameters that it does not have.
    pub(super) fn check(&self, params: &[(String, Value)]) -> Result<(), RequestError> {
        members(params, self.parameters, &["_meta"])?;
        let meta = params.iter().find(|(name, _)| name == "_meta");
        let Some((_, Value::Object(meta))) = meta else { return Ok(()) };
        for (name, value) in meta {
            if let Some(declared) = META.iter().find(|declared| declared.name == name) {
                declared.check(value)?;
            }
        }
        Ok(())
    }
}

impl Parameter {
    fn check(&self, value: &Value) -> Result<(), RequestError> {
        if self.form.fits(value)? {
            return Ok(());
        }
        Err(RequestError::unread(format!(
            "`{}` does not have the form that the protocol says",
            self.name
        )))
    }
}

impl Form {
    /// Whether a value has the form. A member that should not be there is an error of its own.
    fn fits(self, value: &Value) -> Result<bool, RequestError> {
        let is_text = |value: &Value| matches!(value, Value::String(_));
        Ok(match (self, value) {
            (Self::Text, value) => is_text(value),
            (Self::Key, Value::String(text)) => text.len() <= LONGEST_ID,
            (Self::Key | Self::Number, Value::Integer(_))
            | (Self::Number, Value::Decimal(_))
            | (Self::Flag, Value::Bool(_))
            | (Self::Object, Value::Object(_))
            | (Self::List, Value::Array(_)) => true,
            (Self::Level, Value::String(level)) => LEVELS.contains(&level.as_str()),
            (Self::Texts, Value::Object(members)) => members.iter().all(|(_, one)| is_text(one)),
            (Self::TextList, Value::Array(items)) => items.iter().all(is_text),
            (Self::Reference, Value::Object(given)) => {
                let kind = given.iter().find(|(name, _)| name == "type").map(|(_, kind)| kind);
                let declared: &[Parameter] = match kind {
                    Some(Value::String(kind)) if kind == "ref/prompt" => &[
                        must("type", Form::Text),
                        must("name", Form::Text),
                        may("title", Form::Text),
                    ],
                    Some(Value::String(kind)) if kind == "ref/resource" => {
                        &[must("type", Form::Text), must("uri", Form::Text)]
                    }
                    _ => return Ok(false),
                };
                members(given, declared, &[])?;
                true
            }
            (Self::Members(declared), Value::Object(given)) => {
                members(given, declared, &[])?;
                true
            }
            _ => false,
        })
    }
}

fn members(
    given: &[(String, Value)],
    declared: &[Parameter],
    others: &[&str],
) -> Result<(), RequestError> {
    let names: Vec<&str> =
        declared.iter().map(|parameter| parameter.name).chain(others.iter().copied()).collect();
    known(given, &names)?;
    for parameter in declared {
        match given.iter().find(|(name, _)| name == parameter.name) {
            Some((_, value)) => parameter.check(value)?,
            None if parameter.is_required => {
                return Err(RequestError::unread(format!("`{}` is missing", parameter.name)));
            }
            None => {}
        }
    }
    Ok(())
}

/// Arguments of the operation that stands for the protocol, for a message that no HTTP request brought, in any revision. `method`
/// is `None` for a response, whose `params` are its `result` or `error`.
///
/// `None`: MCP has no such method, or has it as a notification where the message is a request, or the reverse.
#[must_use]
pub fn protocol_arguments(
    method: Option<&str>,
    is_notification: bool,
    params: &[(String, Value)],
) -> Option<Value> {
    let Some(method) = method else {
        return (!is_notification).then(|| arguments(RESPONSE, params));
    };
    let is_of_kind = method.starts_with("notifications/") == is_notification;
    (is_of_kind && find(method).is_some()).then(|| arguments(method, params))
}

/// Arguments of the operation that stands for the protocol: `method`; `level` and `uri` where the method has them; and as
/// `params` everything else that the client says in words of its own.
///
/// References to other messages, and values of fixed lists, are left out: they carry nothing that a session has read.
pub(super) fn arguments(method: &str, params: &[(String, Value)]) -> Value {
    let mut arguments = vec![("method".to_owned(), Value::String(method.to_owned()))];
    let mut rest = Vec::new();
    for (name, value) in params {
        match (method, name.as_str(), value) {
            ("logging/setLevel", "level", _)
            | ("resources/subscribe" | "resources/unsubscribe", "uri", _) => {
                arguments.push((name.clone(), value.clone()));
            }
            ("notifications/cancelled", "requestId", _) => {}
            ("subscriptions/listen", "notifications", wanted) if is_fixed(wanted) => {}
            // An empty result says that the request arrived.
            (RESPONSE, "result", Value::Object(members)) if members.is_empty() => {}
            (_, "_meta", Value::Object(meta)) => {
                let own = |(name, value): &&(String, Value)| !is_reference(name, value);
                let own: Vec<_> = meta.iter().filter(own).cloned().collect();
                if !own.is_empty() {
                    rest.push((name.clone(), Value::Object(own)));
                }
            }
            _ => rest.push((name.clone(), value.clone())),
        }
    }
    if !rest.is_empty() {
        arguments.push(("params".to_owned(), Value::Object(rest)));
    }
    Value::Object(arguments)
}

/// Whether a member of `_meta` only refers to something, or comes of a fixed list.
fn is_reference(name: &str, value: &Value) -> bool {
    match name {
        "progressToken" | super::headers::META_VERSION | TASK | LOG_LEVEL => true,
        CLIENT_CAPABILITIES => is_fixed(value),
        _ => false,
    }
}

/// Names of capabilities of clients, and of the kinds of subscriptions.
const FIXED: [&str; 19] = [
    "cancel",
    "context",
    "create",
    "createMessage",
    "elicitation",
    "form",
    "list",
    "listChanged",
    "promptsListChanged",
    "requests",
    "resourcesListChanged",
    "roots",
    "sampling",
    "tasks",
    "tools",
    "toolsListChanged",
    "url",
    "experimental",
    "extensions",
];

/// Whether a value holds nothing but names that the protocol has, and booleans. Its nesting is bounded by that of messages.
fn is_fixed(value: &Value) -> bool {
    match value {
        Value::Bool(_) => true,
        Value::Object(members) => {
            members.iter().all(|(name, value)| FIXED.contains(&name.as_str()) && is_fixed(value))
        }
        _ => false,
    }
}

/// What a message of the protocol moves between client and server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Traffic {
    /// It only connects, or shows what there is.
    pub connects: bool,
    /// Its answer may hold text of the server's.
    pub brings: bool,
    /// It holds words of the client's.
    pub sends: bool,
}

impl Traffic {
    /// That of every operation that is not the protocol.
    pub const OPERATION: Self = Self { connects: false, brings: true, sends: true };
    /// The least that a message moves.
    pub const LEAST: Self = Self { connects: true, brings: false, sends: false };

    /// Reads it off the arguments of the operation that stands for the protocol. An unknown method moves data both ways: a
    /// caller that names the operation itself may state any method.
    pub fn of(given: &Value) -> Self {
        let Some(Value::String(method)) = given.get("method") else { return Self::OPERATION };
        let (connects, brings) = match (method.as_str(), find(method)) {
            (_, Some(method)) => (method.connects, method.brings),
            (GET, None) => (true, true),
            (DELETE, None) => (true, false),
            (RESPONSE, None) => (false, false),
            (_, None) => return Self::OPERATION,
        };
        let is_plain = |(name, value): &(String, Value)| match (name.as_str(), value) {
            ("method", _) => true,
            ("level", Value::String(level)) => LEVELS.contains(&level.as_str()),
            _ => false,
        };
        let sends = match given {
            Value::Object(members) => !members.iter().all(is_plain),
            _ => true,
        };
        Self { connects, brings, sends }
    }
}
