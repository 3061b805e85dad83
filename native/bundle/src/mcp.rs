//! What an HTTP request to an MCP endpoint asks for: streamable HTTP, revisions 2025-06-18 to 2026-07-28.
//!
//! One POST is one JSON-RPC message, read once and strictly. What the message says is what is judged; headers that repeat
//! it must agree, since whoever stands between may go by either.

mod headers;
mod message;
mod methods;
mod parameter;

use std::collections::BTreeMap;

use authz_base::json;
use authz_base::reason::ReasonCode;
use message::Message;

use crate::catalog::operation_name;
use crate::routes::{Body, HttpRequest, RouteError, is_json};

pub use headers::VERSIONS;
pub use message::RESPONSES;
pub use methods::Traffic;

pub(crate) use headers::{LAST_EVENT_ID, READ as READ_HEADERS, SESSION_ID, is_parameter};
pub use parameter::ParameterHeader;

/// The operation of everything that is neither a tool nor a resource nor a prompt, after `<system>.`.
pub const OWN: &str = "mcp";
/// The operation of `resources/read`.
pub const READ: &str = "resources.read";
/// The operation of `prompts/get`.
pub const PROMPT: &str = "prompts.get";
/// The method that the operation [`OWN`] has for a message that answers a request of the server's.
const RESPONSE: &str = "response";
/// Its method for the HTTP request that opens the server's stream.
const GET: &str = "GET";
/// Its method for the HTTP request that ends the session.
const DELETE: &str = "DELETE";
/// Bytes of an id that is a text.
const LONGEST_ID: usize = 256;
/// The member of `_meta` that names a task.
const TASK: &str = "dev.authz/task";
/// Bytes of the name of a task.
const LONGEST_TASK: usize = 256;

/// Where an MCP server is served.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Endpoint {
    /// The system.
    pub system: String,
    /// Its tools, by the name that the server gives them.
    pub tools: BTreeMap<String, EndpointTool>,
    /// `resources/read` takes `inputResponses` and `requestState`.
    pub reads_take_responses: bool,
    /// `prompts/get` takes them.
    pub prompts_take_responses: bool,
    /// It takes `last-event-id`: the bundle says that the server replays events to nobody but the caller that they were for.
    pub resumes_streams: bool,
}

/// A tool of an endpoint.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct EndpointTool {
    /// Its operation.
    pub operation: String,
    /// The headers that repeat its arguments.
    pub headers: Vec<ParameterHeader>,
    /// It takes `inputResponses` and `requestState`.
    pub takes_responses: bool,
}

/// A message as far as its answer depends on it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Envelope {
    /// The system whose endpoint it came to.
    pub system: String,
    /// What kind of message it is.
    pub kind: Kind,
    /// The id of a request; none for other messages.
    pub id: Option<Id>,
    /// The revision that the request says it follows, if it is one of [`VERSIONS`].
    pub version: Option<&'static str>,
    /// The request follows a revision that is none of [`VERSIONS`].
    pub unsupported: bool,
    /// What the operation of a tool that the catalog does not have would be called.
    pub missing: Option<String>,
    /// What it has to do with tasks of the server's own.
    pub server_task: ServerTask,
}

/// What a message has to do with tasks of the server's own: calls whose results are fetched later.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ServerTask {
    /// Nothing.
    #[default]
    None,
    /// It is a call that runs as one: `tools/call` with `task`.
    Begins,
    /// It asks for what such a call brought, or gives it up: `tasks/…`. The call's own permit covers that, and nothing else
    /// does.
    Follows,
}

/// What kind of message a request to an endpoint brings.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A `POST` that was not read as one message.
    Unread,
    /// `tools/call`.
    ToolCall,
    /// Any other request.
    Request,
    /// A notification: nobody waits for an answer.
    Notification,
    /// The answer to a request of the server's.
    Response,
    /// `GET`, which opens the server's stream, or `DELETE`, which ends the session.
    Session,
}

/// The id of a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Id {
    /// A text.
    Text(String),
    /// An integer within ±2⁵³.
    Number(i64),
}

/// What a request to an endpoint asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Call {
    /// The id of its operation.
    pub operation: String,
    /// The arguments of the tool.
    pub arguments: json::Value,
    /// The task that `_meta` names.
    pub task: Option<String>,
    /// What stands around them in the message.
    pub envelope: Envelope,
}

/// Why a message asks for nothing.
#[derive(Debug)]
struct Fault {
    reason: ReasonCode,
    message: String,
    understood: bool,
}

impl Fault {
    /// The message was not read, or could be read in another way.
    fn unread(message: impl Into<String>) -> Self {
        Self { reason: ReasonCode::BadInput, message: message.into(), understood: false }
    }

    /// The message was read, and asks for what no endpoint provides.
    fn bad(message: impl Into<String>) -> Self {
        Self { understood: true, ..Self::unread(message) }
    }

    fn mismatch(message: impl Into<String>) -> Self {
        Self { reason: ReasonCode::HeaderMismatch, ..Self::unread(message) }
    }

    fn ambiguous(message: impl Into<String>) -> Self {
        Self { reason: ReasonCode::AmbiguousRequest, ..Self::unread(message) }
    }

    fn unknown(message: impl Into<String>) -> Self {
        Self { reason: ReasonCode::UnknownOperation, ..Self::bad(message) }
    }
}

impl From<RouteError> for Fault {
    fn from(error: RouteError) -> Self {
        let RouteError { reason, message, understood, .. } = error;
        Self { reason, message, understood }
    }
}

impl Endpoint {
    /// What a request asks for.
    pub fn read(&self, request: &HttpRequest<'_>) -> Result<Call, RouteError> {
        let mut envelope = self.envelope(request.method);
        let mut task = None;
        match self.ask(request, &mut envelope, &mut task) {
            Ok(Asked { operation, arguments }) => Ok(Call { operation, arguments, task, envelope }),
            Err(Fault { reason, message, understood }) => {
                let mcp = Some(Box::new(envelope));
                Err(RouteError { understood, mcp, task, ..RouteError::new(reason, message) })
            }
        }
    }

    /// What is known of a request before its message is read.
    pub fn envelope(&self, method: &str) -> Envelope {
        let kind = if method == "POST" { Kind::Unread } else { Kind::Session };
        let system = self.system.clone();
        let server_task = ServerTask::None;
        Envelope {
            system,
            kind,
            id: None,
            version: None,
            unsupported: false,
            missing: None,
            server_task,
        }
    }

    /// Args: `envelope`, `task`: take what is known of the message, also where it is refused.
    fn ask(
        &self,
        request: &HttpRequest<'_>,
        envelope: &mut Envelope,
        task: &mut Option<String>,
    ) -> Result<Asked, Fault> {
        if request.method != "POST" {
            let said = headers::Said::read(request.headers)?;
            said.version(None, envelope)?;
            said.is_of(None, None)?;
            said.may_resume(self)?;
            headers::repeat(request.headers, &[], &json::Value::Null, false)?;
            return Ok(self.own(request.method, &[]));
        }
        let message = match request.body {
            Body::Absent => {
                return Err(Fault::unread("the body was not sent along; let the proxy send it"));
            }
            Body::Partial => {
                return Err(Fault::unread("the body was cut off; let the proxy send all of it"));
            }
            Body::Whole(bytes) => {
                is_json(request.headers)?;
                Message::read(bytes)?
            }
        };
        envelope.kind = message.kind();
        envelope.id.clone_from(&message.id);
        let method = message.method.as_deref();
        let said = headers::Said::read(request.headers)?;
        said.version(Some(&message), envelope)?;
        said.is_of(method, message.name())?;
        said.may_resume(self)?;
        let revision = methods::revision(envelope.version);
        if method != Some("tools/call") {
            headers::repeat(request.headers, &[], &json::Value::Null, false)?;
        }
        *task = message.task()?;
        message.refuse_unknown()?;
        let Some(method) = method else { return Ok(self.own(RESPONSE, &message.params)) };
        match method {
            "tools/call" => self.call(request, &message, revision, envelope),
            "resources/read" => {
                let takes = |_: &str| self.reads_take_responses;
                let (uri, _) = message.called("uri", revision, takes)?;
                let uri = json::Value::String(uri.to_owned());
                let members = [("uri".to_owned(), uri)].into_iter().chain(message.responses());
                Ok(self.asked(READ, members.collect()))
            }
            "prompts/get" => {
                let takes = |_: &str| self.prompts_take_responses;
                let (name, arguments) = message.called("name", revision, takes)?;
                let name = json::Value::String(name.to_owned());
                let members = [("name".to_owned(), name), ("arguments".to_owned(), arguments)];
                let members = members.into_iter().chain(message.responses());
                Ok(self.asked(PROMPT, members.collect()))
            }
            _ => match methods::find(method) {
                Some(found) if found.is_in(revision) => {
                    found.check(&message.params)?;
                    if method.starts_with("tasks/") {
                        envelope.server_task = ServerTask::Follows;
                    }
                    Ok(self.own(method, &message.params))
                }
                Some(_) => Err(Fault::unknown("the revision does not have this JSON-RPC method")),
                None => Err(Fault::unknown("no operation stands for this JSON-RPC method")),
            },
        }
    }

    /// A call of a tool.
    fn call(
        &self,
        request: &HttpRequest<'_>,
        message: &Message,
        revision: methods::Revisions,
        envelope: &mut Envelope,
    ) -> Result<Asked, Fault> {
        let takes = |name: &str| self.tools.get(name).is_some_and(|tool| tool.takes_responses);
        // A tool that is not there takes none either, and that it is not there says more.
        let takes = |name: &str| takes(name) || !self.tools.contains_key(name);
        let (name, mut arguments) = message.called("name", revision, takes)?;
        let tool = self.tools.get(name);
        let declared = tool.map_or(&[][..], |tool| tool.headers.as_slice());
        headers::repeat(request.headers, declared, &arguments, revision == methods::STATELESS)?;
        let Some(tool) = tool else {
            envelope.missing = Some(format!("{}.{}", self.system, operation_name(name)));
            return Err(Fault::unknown("the server has no tool of this name"));
        };
        if message.runs_as_task()? {
            envelope.server_task = ServerTask::Begins;
        }
        if let json::Value::Object(members) = &mut arguments
            && tool.takes_responses
        {
            // INVARIANT (once): the bundle does not load where such a tool has an argument of one of these names.
            members.extend(message.responses());
        }
        Ok(Asked { operation: tool.operation.clone(), arguments })
    }

    fn own(&self, method: &str, params: &[(String, json::Value)]) -> Asked {
        let operation = format!("{}.{OWN}", self.system);
        Asked { operation, arguments: methods::arguments(method, params) }
    }

    fn asked(&self, name: &str, arguments: Vec<(String, json::Value)>) -> Asked {
        let operation = format!("{}.{name}", self.system);
        Asked { operation, arguments: json::Value::Object(arguments) }
    }
}

struct Asked {
    operation: String,
    arguments: json::Value,
}

#[cfg(test)]
mod tests;
