//! Requests to MCP endpoints: streamable HTTP, revisions 2025-06-18 to 2026-07-28.
//!
//! One POST is one JSON-RPC message, read once and strictly. The message is judged. Headers that repeat a part of the message
//! must agree with it, because a proxy or server may read either.

mod headers;
mod message;
mod methods;
mod parameter;

use std::collections::BTreeMap;

use authz_base::json;
use headers::MessageHeaders;
use message::Message;

use crate::built_in::operation_name;
use crate::http::{Body, HttpRequest, RequestError, require_json};
use crate::model::{Model, ParameterHeader};

pub use crate::built_in::{OWN, PROMPT, READ};
pub use headers::VERSIONS;
pub use message::RESPONSES;
pub use methods::{Traffic, protocol_arguments};

pub(crate) use headers::{LAST_EVENT_ID, READ as READ_HEADERS, SESSION_ID, is_parameter};
pub(crate) use parameter::parameter_headers;

/// Method of the operation [`OWN`] for a message that answers a request of the server.
const RESPONSE: &str = "response";
/// Method of the operation [`OWN`] for the HTTP request that opens the server's stream.
const GET: &str = "GET";
/// Method of the operation [`OWN`] for the HTTP request that ends the session.
const DELETE: &str = "DELETE";
/// Bytes of an id that is a text.
const LONGEST_ID: usize = 256;
/// The member of `_meta` that names a task.
const TASK: &str = "dev.authz/task";
/// Name of the question by which Authz asks a client to open the page of an approval, in `inputRequests` and `inputResponses`.
pub const PAGE_QUESTION: &str = "dev.authz/approval";
/// Bytes of the name of a task.
const LONGEST_TASK: usize = 256;

/// Endpoint of an MCP server.
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
    /// It takes `last-event-id`: the bundle declares that the server replays events only to their caller.
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

/// The part of a message that its answer depends on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Envelope {
    /// The system whose endpoint it came to.
    pub system: String,
    /// Kind of the message.
    pub kind: MessageKind,
    /// Id of a request. Other messages have none.
    pub id: Option<MessageId>,
    /// The revision that the request names, if it is one of [`VERSIONS`].
    pub version: Option<&'static str>,
    /// The request names a revision outside [`VERSIONS`].
    pub unsupported: bool,
    /// Name that the operation of a tool would have which the catalog lacks.
    pub missing: Option<String>,
    /// Relation to the server's own tasks.
    pub server_task: ServerTask,
    /// Relation to the page on which people answer approvals.
    pub page: PageUse,
}

/// Relation of a call to the page on which people answer approvals.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum PageUse {
    /// The client opens no pages.
    #[default]
    None,
    /// The client declares that it opens pages (`elicitation.url`), and was not asked to for this call.
    Opens,
    /// The client was asked to open the page, and repeats the call.
    Opened,
    /// The client's user did not open the page.
    Declined,
}

/// Relation of a message to the server's own tasks: calls whose results are fetched later.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ServerTask {
    /// None.
    #[default]
    None,
    /// The message starts such a task: `tools/call` with `task`.
    Begins,
    /// The message fetches the result of such a task, or cancels it: `tasks/…`. Only the permit of the call covers this.
    Follows,
}

/// Kind of the message of a request to an endpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MessageKind {
    /// A `POST` that was not read as one message.
    Unread,
    /// `tools/call`.
    ToolCall,
    /// Any other request.
    Request,
    /// A notification, which has no answer.
    Notification,
    /// The answer to a request of the server's.
    Response,
    /// `GET`, which opens the server's stream, or `DELETE`, which ends the session.
    Session,
}

/// The id of a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum MessageId {
    /// A text.
    Text(String),
    /// An integer within ±2⁵³.
    Number(i64),
}

/// Operation and arguments of a request to an endpoint.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct McpCall {
    /// The id of its operation.
    pub operation: String,
    /// The arguments of the tool.
    pub arguments: json::Value,
    /// The task that `_meta` names.
    pub task: Option<String>,
    /// The rest of the message, which its answer depends on.
    pub envelope: Envelope,
}

/// Refusal of a request to an endpoint.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MessageError {
    /// The refusal.
    pub error: RequestError,
    /// Envelope of the message, as far as it was read.
    pub envelope: Box<Envelope>,
    /// The task that the message names.
    pub task: Option<String>,
}

impl Endpoint {
    /// Compiles the endpoint of a system of the bundle.
    #[must_use]
    pub fn compile(model: &Model, system: &str) -> Self {
        let takes = |operation: &str| model.input_responses.contains(operation);
        let built_in = |name: &str| takes(&format!("{system}.{name}"));
        let tools = model.tools.get(system).into_iter().flatten().map(|(name, tool)| {
            let (operation, headers) = (tool.operation.clone(), tool.headers.clone());
            let takes_responses = takes(&operation);
            (name.clone(), EndpointTool { operation, headers, takes_responses })
        });
        let resumes = |header: &String| header == LAST_EVENT_ID;
        Self {
            system: system.to_owned(),
            tools: tools.collect(),
            reads_take_responses: built_in(READ),
            prompts_take_responses: built_in(PROMPT),
            resumes_streams: model
                .systems
                .get(system)
                .is_some_and(|system| system.headers.iter().any(resumes)),
        }
    }

    /// Reads the operation and the arguments of a request.
    ///
    /// # Errors
    /// The request is not one message, its headers contradict it, or no operation stands for it.
    pub fn read(&self, request: &HttpRequest<'_>) -> Result<McpCall, MessageError> {
        let mut envelope = self.envelope(request.method);
        let mut task = None;
        match self.read_message(request, &mut envelope, &mut task) {
            Ok(OperationCall { operation, arguments }) => {
                Ok(McpCall { operation, arguments, task, envelope })
            }
            Err(error) => Err(MessageError { error, envelope: Box::new(envelope), task }),
        }
    }

    /// The envelope of a request whose message is not read yet.
    pub fn envelope(&self, method: &str) -> Envelope {
        let kind = if method == "POST" { MessageKind::Unread } else { MessageKind::Session };
        let system = self.system.clone();
        let (server_task, page) = (ServerTask::None, PageUse::None);
        Envelope {
            system,
            kind,
            id: None,
            version: None,
            unsupported: false,
            missing: None,
            server_task,
            page,
        }
    }

    /// `envelope`, `task`: filled as far as the message is read, also of a refused message.
    fn read_message(
        &self,
        request: &HttpRequest<'_>,
        envelope: &mut Envelope,
        task: &mut Option<String>,
    ) -> Result<OperationCall, RequestError> {
        if request.method != "POST" {
            let sent = MessageHeaders::read(request.headers)?;
            sent.note_version(None, envelope)?;
            sent.check_message(None, None)?;
            sent.check_resume(self)?;
            headers::check_parameters(request.headers, &[], &json::Value::Null, false)?;
            return Ok(self.protocol_call(request.method, &[]));
        }
        let mut message = match request.body {
            Body::Absent => {
                return Err(RequestError::unread(
                    "the body was not sent along; let the proxy send it",
                ));
            }
            Body::Partial => {
                return Err(RequestError::unread(
                    "the body was cut off; let the proxy send all of it",
                ));
            }
            Body::Whole(bytes) => {
                require_json(request.headers)?;
                Message::read(bytes)?
            }
        };
        envelope.kind = message.kind();
        envelope.id.clone_from(&message.id);
        let sent = MessageHeaders::read(request.headers)?;
        sent.note_version(Some(&message), envelope)?;
        let revision = methods::revision(envelope.version);
        let page = message.take_page_use(revision);
        let method = message.method.as_deref();
        sent.check_message(method, message.name())?;
        sent.check_resume(self)?;
        if method != Some("tools/call") {
            headers::check_parameters(request.headers, &[], &json::Value::Null, false)?;
        }
        *task = message.task()?;
        message.refuse_unknown()?;
        envelope.page = page?;
        if envelope.page == PageUse::Declined {
            return Err(RequestError::bad("the user did not open the page of the approval"));
        }
        let Some(method) = method else { return Ok(self.protocol_call(RESPONSE, &message.params)) };
        match method {
            "tools/call" => self.call(request, &message, revision, envelope),
            "resources/read" => {
                let takes = |_: &str| self.reads_take_responses;
                let (uri, _) = message.called("uri", revision, takes)?;
                let uri = json::Value::String(uri.to_owned());
                let members = [("uri".to_owned(), uri)].into_iter().chain(message.responses());
                Ok(self.operation_call(READ, members.collect()))
            }
            "prompts/get" => {
                let takes = |_: &str| self.prompts_take_responses;
                let (name, arguments) = message.called("name", revision, takes)?;
                let name = json::Value::String(name.to_owned());
                let members = [("name".to_owned(), name), ("arguments".to_owned(), arguments)];
                let members = members.into_iter().chain(message.responses());
                Ok(self.operation_call(PROMPT, members.collect()))
            }
            _ => match methods::find(method) {
                Some(found) if found.is_in(revision) => {
                    found.check(&message.params)?;
                    if method.starts_with("tasks/") {
                        envelope.server_task = ServerTask::Follows;
                    }
                    Ok(self.protocol_call(method, &message.params))
                }
                Some(_) => {
                    Err(RequestError::unknown("the revision does not have this JSON-RPC method"))
                }
                None => Err(RequestError::unknown("no operation stands for this JSON-RPC method")),
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
    ) -> Result<OperationCall, RequestError> {
        let takes = |name: &str| self.tools.get(name).is_some_and(|tool| tool.takes_responses);
        // An unknown tool takes no responses either, but its refusal says that the tool is unknown.
        let takes = |name: &str| takes(name) || !self.tools.contains_key(name);
        let (name, mut arguments) = message.called("name", revision, takes)?;
        let tool = self.tools.get(name);
        let declared = tool.map_or(&[][..], |tool| tool.headers.as_slice());
        headers::check_parameters(
            request.headers,
            declared,
            &arguments,
            revision == methods::STATELESS,
        )?;
        let Some(tool) = tool else {
            envelope.missing = Some(format!("{}.{}", self.system, operation_name(name)));
            return Err(RequestError::unknown("the server has no tool of this name"));
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
        Ok(OperationCall { operation: tool.operation.clone(), arguments })
    }

    fn protocol_call(&self, method: &str, params: &[(String, json::Value)]) -> OperationCall {
        let operation = format!("{}.{OWN}", self.system);
        OperationCall { operation, arguments: methods::arguments(method, params) }
    }

    fn operation_call(&self, name: &str, arguments: Vec<(String, json::Value)>) -> OperationCall {
        let operation = format!("{}.{name}", self.system);
        OperationCall { operation, arguments: json::Value::Object(arguments) }
    }
}

/// Operation and arguments of a message.
struct OperationCall {
    operation: String,
    arguments: json::Value,
}

#[cfg(test)]
mod tests;
