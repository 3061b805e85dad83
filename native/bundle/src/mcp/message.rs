//! One JSON-RPC 2.0 message, as MCP sends it.

use authz_base::json::{self, Value};

use super::methods::{Revisions, STATELESS, TASKS};
use super::{LONGEST_ID, LONGEST_TASK, MessageId, MessageKind, PAGE_QUESTION, PageUse, TASK};
use crate::http::RequestError;

/// Member of `_meta` that holds the capabilities of the client.
const CAPABILITIES: &str = "io.modelcontextprotocol/clientCapabilities";
/// Bytes of a method.
const LONGEST_METHOD: usize = 128;
/// Members by which a client answers what the server asked for before it goes on with a call.
pub const RESPONSES: [&str; 2] = ["inputResponses", "requestState"];
/// Members of a message.
const MEMBERS: [&str; 6] = ["jsonrpc", "id", "method", "params", "result", "error"];

/// A message whose form is that of a request, a notification or a response.
#[derive(Debug)]
pub(super) struct Message {
    /// The id of a request; none for a notification, and for a response, whose id is the server's.
    pub(super) id: Option<MessageId>,
    /// None for a response.
    pub(super) method: Option<String>,
    /// Those of a request or a notification; of a response its `result` or `error`.
    pub(super) params: Vec<(String, Value)>,
    /// It has a member that the protocol does not know.
    has_unknown: bool,
}

impl Message {
    /// Reads the body of a `POST`.
    pub(super) fn read(bytes: &[u8]) -> Result<Self, RequestError> {
        if bytes.is_empty() {
            return Err(RequestError::unread("the body is empty"));
        }
        let value = json::parse(bytes, json::Limits::default())
            // Only the names of members that the protocol has stand in a message.
            .map_err(|error| {
                RequestError::unread(format!("the body is no JSON-RPC: {}", error.what))
            })?;
        let members = match value {
            Value::Object(members) => members,
            Value::Array(_) => return Err(RequestError::unread("the body is a batch")),
            _ => return Err(RequestError::unread("the body is no JSON object")),
        };
        let has_unknown = match known(&members, &MEMBERS) {
            Err(fault) if !fault.understood => return Err(fault),
            known => known.is_err(),
        };
        let mut take = Taking(members);
        if take.out("jsonrpc") != Some(Value::String("2.0".to_owned())) {
            return Err(RequestError::unread("`jsonrpc` is not `2.0`"));
        }
        let (id, method) = (take.out("id"), take.out("method"));
        let (params, result, error) = (take.out("params"), take.out("result"), take.out("error"));
        let Some(method) = method else {
            let id = id.as_ref().map(self::id).transpose()?;
            let said = match (result, error) {
                (Some(result @ Value::Object(_)), None) => Some(("result".to_owned(), result)),
                (None, Some(error)) if is_error(&error) => Some(("error".to_owned(), error)),
                _ => None,
            };
            return match (said, id, params) {
                (Some(said), Some(_), None) => {
                    Ok(Self { id: None, method: None, params: vec![said], has_unknown })
                }
                _ => {
                    Err(RequestError::unread("the message is no request, notification or response"))
                }
            };
        };
        if result.is_some() || error.is_some() {
            return Err(RequestError::unread("the message is both a request and a response"));
        }
        let id = id.as_ref().map(self::id).transpose()?;
        let method = match method {
            Value::String(method) if is_method(&method) => method,
            _ => return Err(RequestError::unread("`method` is no name of a method")),
        };
        // Some servers run what comes without an id, and answer nothing.
        if id.is_none() != method.starts_with("notifications/") {
            return Err(RequestError::unread("a request has an `id`, and a notification has none"));
        }
        let params = match params {
            None => Vec::new(),
            Some(Value::Object(params)) => params,
            Some(_) => return Err(RequestError::unread("`params` is no object")),
        };
        Ok(Self { id, method: Some(method), params, has_unknown })
    }

    /// Refuses a message with a member that the protocol does not know.
    ///
    /// INVARIANT (before what `mode` may soften): the task that the message names is read before this is asked.
    pub(super) fn refuse_unknown(&self) -> Result<(), RequestError> {
        if self.has_unknown { Err(stray()) } else { Ok(()) }
    }

    pub(super) fn kind(&self) -> MessageKind {
        match (self.method.as_deref(), &self.id) {
            (None, _) => MessageKind::Response,
            (Some(_), None) => MessageKind::Notification,
            (Some("tools/call"), Some(_)) => MessageKind::ToolCall,
            (Some(_), Some(_)) => MessageKind::Request,
        }
    }

    fn param(&self, name: &str) -> Option<&Value> {
        self.params.iter().find(|(known, _)| known == name).map(|(_, value)| value)
    }

    fn text(&self, name: &str) -> Option<&str> {
        match self.param(name) {
            Some(Value::String(text)) => Some(text),
            _ => None,
        }
    }

    /// What the header `Mcp-Name` repeats.
    pub(super) fn name(&self) -> Option<&str> {
        match self.method.as_deref() {
            Some(method) if method.starts_with("resources/") => self.text("uri"),
            _ => self.text("name"),
        }
    }

    /// A member of `_meta`.
    pub(super) fn meta(&self, name: &str) -> Result<Option<&Value>, RequestError> {
        match self.param("_meta") {
            None => Ok(None),
            Some(meta @ Value::Object(_)) => Ok(meta.get(name)),
            Some(_) => Err(RequestError::unread("`_meta` is no object")),
        }
    }

    /// The task that `_meta` names.
    pub(super) fn task(&self) -> Result<Option<String>, RequestError> {
        match self.meta(TASK)? {
            None => Ok(None),
            Some(Value::String(task)) if task.len() <= LONGEST_TASK => Ok(Some(task.clone())),
            Some(_) => Err(RequestError::unread(format!("`{TASK}` is no name of a task"))),
        }
    }

    /// Whether a call asks to run as a task of the server.
    pub(super) fn runs_as_task(&self) -> Result<bool, RequestError> {
        match self.param("task") {
            None => Ok(false),
            Some(Value::Object(members)) => {
                known(members, &["ttl"])?;
                match members.iter().find(|(name, _)| name == "ttl") {
                    None | Some((_, Value::Integer(0..))) => Ok(true),
                    Some(_) => Err(RequestError::unread("`task.ttl` is no number of milliseconds")),
                }
            }
            Some(_) => Err(RequestError::unread("`task` is no object")),
        }
    }

    /// The name and the arguments of a call, which says nothing else: what it says besides would be done unjudged.
    ///
    /// Args:
    /// * `takes_responses`: whether the operation of a name takes `inputResponses` and `requestState`, which then are
    ///   arguments.
    pub(super) fn called(
        &self,
        naming: &str,
        revision: Revisions,
        takes_responses: impl Fn(&str) -> bool,
    ) -> Result<(&str, Value), RequestError> {
        let is_call = self.method.as_deref() == Some("tools/call");
        let mut members = vec![naming, "_meta"];
        members.extend((naming == "name").then_some("arguments"));
        members.extend((is_call && revision == TASKS).then_some("task"));
        members.extend((revision == STATELESS).then_some(RESPONSES).into_iter().flatten());
        known(&self.params, &members)?;
        let Some(name) = self.text(naming) else {
            return Err(RequestError::unread(format!("`{naming}` is missing, or no text")));
        };
        let arguments = match self.param("arguments") {
            None => Value::Object(Vec::new()),
            Some(arguments @ Value::Object(_)) => arguments.clone(),
            Some(_) => return Err(RequestError::unread("`arguments` is no object")),
        };
        let has_responses = RESPONSES.iter().any(|member| self.param(member).is_some());
        if has_responses && !takes_responses(name) {
            return Err(RequestError::bad(
                "the operation takes no `inputResponses` and no `requestState`",
            ));
        }
        Ok((name, arguments))
    }

    /// Takes the client's answer to the question of Authz out of the parameters of a call.
    ///
    /// INVARIANT (nothing unjudged): the server gets the answer, too, so it is taken for one only if it holds nothing but a word of MCP.
    pub(super) fn take_page_use(&mut self, revision: Revisions) -> Result<PageUse, RequestError> {
        if revision != STATELESS || self.method.as_deref() != Some("tools/call") {
            return Ok(PageUse::None);
        }
        let [responses, state] = RESPONSES;
        if self.param(state).is_some() {
            return Ok(PageUse::None);
        }
        let Some(at) = self.params.iter().position(|(name, _)| name == responses) else {
            let capabilities = self.meta(CAPABILITIES)?;
            let url = capabilities.and_then(|all| all.get("elicitation")?.get("url"));
            let opens = matches!(url, Some(Value::Object(_)));
            return Ok(if opens { PageUse::Opens } else { PageUse::None });
        };
        let page = self.params.get(at).map_or(PageUse::None, |(_, value)| page_answer(value));
        if page != PageUse::None {
            self.params.remove(at);
        }
        Ok(page)
    }

    /// `inputResponses` and `requestState`, as arguments of the operation that takes them.
    pub(super) fn responses(&self) -> impl Iterator<Item = (String, Value)> {
        let given = RESPONSES.iter().filter_map(|name| Some((*name, self.param(name)?)));
        given.map(|(name, value)| (name.to_owned(), value.clone()))
    }
}

/// What the answers of a client say of the page, if they answer no other question.
fn page_answer(answers: &Value) -> PageUse {
    let only = |value: &Value, name: &str| match value {
        Value::Object(members) if members.len() == 1 => value.get(name).cloned(),
        _ => None,
    };
    match only(answers, PAGE_QUESTION).and_then(|answer| only(&answer, "action")) {
        Some(Value::String(action)) if action == "accept" => PageUse::Opened,
        Some(Value::String(action)) if action == "decline" || action == "cancel" => {
            PageUse::Declined
        }
        _ => PageUse::None,
    }
}

/// Whether a value is the error of a response.
fn is_error(value: &Value) -> bool {
    let Value::Object(members) = value else { return false };
    known(members, &["code", "message", "data"]).is_ok()
        && matches!(value.get("code"), Some(Value::Integer(_)))
        && matches!(value.get("message"), Some(Value::String(_)))
}

struct Taking(Vec<(String, Value)>);

impl Taking {
    fn out(&mut self, name: &str) -> Option<Value> {
        let at = self.0.iter().position(|(known, _)| known == name)?;
        Some(self.0.swap_remove(at).1)
    }
}

/// Refuses members that are not expected, and above all those that a reader without regard to case takes for one that is:
/// Go's `encoding/json` does, and believes the last.
pub(super) fn known(members: &[(String, Value)], expected: &[&str]) -> Result<(), RequestError> {
    for (name, _) in members {
        if expected.contains(&name.as_str()) {
            continue;
        }
        let folds = |known: &&str| {
            name.to_lowercase() == known.to_lowercase()
                || name.to_uppercase() == known.to_uppercase()
        };
        if expected.iter().any(folds) {
            return Err(RequestError::ambiguous("a member is spelled almost as one that counts"));
        }
        return Err(stray());
    }
    Ok(())
}

fn stray() -> RequestError {
    RequestError::bad("the message has a member that the protocol does not know")
}

fn id(value: &Value) -> Result<MessageId, RequestError> {
    match value {
        Value::String(text) if text.len() <= LONGEST_ID => Ok(MessageId::Text(text.clone())),
        Value::Integer(number) => Ok(MessageId::Number(*number)),
        _ => Err(RequestError::unread("`id` is no short text, and no integer within ±2^53")),
    }
}

fn is_method(method: &str) -> bool {
    let plain = |b: u8| b.is_ascii_alphanumeric() || b"_-./$".contains(&b);
    (1..=LONGEST_METHOD).contains(&method.len()) && method.bytes().all(plain)
}
