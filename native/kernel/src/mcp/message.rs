//! One JSON-RPC 2.0 message, as MCP sends it.

use super::{Fault, Id, Kind, LONGEST_TASK, TASK};
use crate::json::{self, Value};

/// Bytes of a method.
const LONGEST_METHOD: usize = 128;
/// Bytes of an id that is a text.
const LONGEST_ID: usize = 256;
/// Members of a message.
const MEMBERS: [&str; 6] = ["jsonrpc", "id", "method", "params", "result", "error"];

/// A message whose form is that of a request, a notification or a response.
#[derive(Debug)]
pub(super) struct Message {
    /// The id of a request; none for a notification, and for a response, whose id is the server's.
    pub(super) id: Option<Id>,
    /// None for a response.
    pub(super) method: Option<String>,
    params: Vec<(String, Value)>,
    /// It has a member that the protocol does not know.
    has_unknown: bool,
}

impl Message {
    /// Reads the body of a `POST`.
    pub(super) fn read(bytes: &[u8]) -> Result<Self, Fault> {
        if bytes.is_empty() {
            return Err(Fault::unread("the body is empty"));
        }
        let value = json::parse(bytes, json::Limits::default())
            // Only the names of members that the protocol has stand in a message.
            .map_err(|error| Fault::unread(format!("the body is no JSON-RPC: {}", error.what)))?;
        let members = match value {
            Value::Object(members) => members,
            Value::Array(_) => return Err(Fault::unread("the body is a batch")),
            _ => return Err(Fault::unread("the body is no JSON object")),
        };
        let has_unknown = match known(&members, &MEMBERS) {
            Err(fault) if !fault.understood => return Err(fault),
            known => known.is_err(),
        };
        let mut take = Taking(members);
        if take.out("jsonrpc") != Some(Value::String("2.0".to_owned())) {
            return Err(Fault::unread("`jsonrpc` is not `2.0`"));
        }
        let (id, method) = (take.out("id"), take.out("method"));
        let (params, result, error) = (take.out("params"), take.out("result"), take.out("error"));
        let Some(method) = method else {
            let answers = result.is_some() != error.is_some() && params.is_none();
            let id = id.as_ref().map(self::id).transpose()?;
            return match (answers, id) {
                (true, Some(_)) => {
                    Ok(Self { id: None, method: None, params: Vec::new(), has_unknown })
                }
                _ => Err(Fault::unread("the message is no request, notification or response")),
            };
        };
        if result.is_some() || error.is_some() {
            return Err(Fault::unread("the message is both a request and a response"));
        }
        let id = id.as_ref().map(self::id).transpose()?;
        let method = match method {
            Value::String(method) if is_method(&method) => method,
            _ => return Err(Fault::unread("`method` is no name of a method")),
        };
        // Some servers run what comes without an id, and answer nothing.
        if id.is_none() != method.starts_with("notifications/") {
            return Err(Fault::unread("a request has an `id`, and a notification has none"));
        }
        let params = match params {
            None | Some(Value::Null) => Vec::new(),
            Some(Value::Object(params)) => params,
            Some(_) => return Err(Fault::unread("`params` is no object")),
        };
        Ok(Self { id, method: Some(method), params, has_unknown })
    }

    /// Refuses a message with a member that the protocol does not know.
    ///
    /// INVARIANT (before what `mode` may soften): the task that the message names is read before this is asked.
    pub(super) fn refuse_unknown(&self) -> Result<(), Fault> {
        if self.has_unknown { Err(stray()) } else { Ok(()) }
    }

    pub(super) fn kind(&self) -> Kind {
        match (self.method.as_deref(), &self.id) {
            (None, _) => Kind::Response,
            (Some(_), None) => Kind::Notification,
            (Some("tools/call"), Some(_)) => Kind::ToolCall,
            (Some(_), Some(_)) => Kind::Request,
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
    pub(super) fn meta(&self, name: &str) -> Result<Option<&Value>, Fault> {
        match self.param("_meta") {
            None | Some(Value::Null) => Ok(None),
            Some(meta @ Value::Object(_)) => Ok(meta.get(name)),
            Some(_) => Err(Fault::unread("`_meta` is no object")),
        }
    }

    /// The task that `_meta` names.
    pub(super) fn task(&self) -> Result<Option<String>, Fault> {
        match self.meta(TASK)? {
            None => Ok(None),
            Some(Value::String(task)) if task.len() <= LONGEST_TASK => Ok(Some(task.clone())),
            Some(_) => Err(Fault::unread(format!("`{TASK}` is no name of a task"))),
        }
    }

    /// Whether a call asks to run as a task of the server.
    pub(super) fn runs_as_task(&self) -> Result<bool, Fault> {
        match self.param("task") {
            None | Some(Value::Null) => Ok(false),
            Some(Value::Object(members)) => {
                known(members, &["ttl"])?;
                match members.iter().find(|(name, _)| name == "ttl") {
                    None | Some((_, Value::Null | Value::Integer(0..))) => Ok(true),
                    Some(_) => Err(Fault::unread("`task.ttl` is no number of milliseconds")),
                }
            }
            Some(_) => Err(Fault::unread("`task` is no object")),
        }
    }

    /// Refuses a request about tasks of the server that says more than which one.
    pub(super) fn follows(&self, method: &str) -> Result<(), Fault> {
        if method == "tasks/list" {
            return known(&self.params, &["cursor", "_meta"]);
        }
        known(&self.params, &["taskId", "_meta"])?;
        match self.text("taskId") {
            Some(id) if !id.is_empty() => Ok(()),
            _ => Err(Fault::unread("`taskId` is missing, or no text")),
        }
    }

    /// The name and the arguments of a call, which says nothing else: what it says besides would be done unjudged.
    ///
    /// `inputResponses` and `requestState` repeat to the server what it asked for in its last answer.
    pub(super) fn called(&self, naming: &str) -> Result<(&str, Value), Fault> {
        let has_arguments = naming == "name";
        let mut members = vec![naming, "_meta", "inputResponses", "requestState", "task"];
        members.extend(has_arguments.then_some("arguments"));
        known(&self.params, &members)?;
        if self.method.as_deref() != Some("tools/call") && self.runs_as_task()? {
            return Err(Fault::bad("only `tools/call` runs as a task of the server"));
        }
        let Some(name) = self.text(naming) else {
            return Err(Fault::unread(format!("`{naming}` is missing, or no text")));
        };
        let arguments = match self.param("arguments") {
            None | Some(Value::Null) => Value::Object(Vec::new()),
            Some(arguments @ Value::Object(_)) => arguments.clone(),
            Some(_) => return Err(Fault::unread("`arguments` is no object")),
        };
        Ok((name, arguments))
    }
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
fn known(members: &[(String, Value)], expected: &[&str]) -> Result<(), Fault> {
    for (name, _) in members {
        if expected.contains(&name.as_str()) {
            continue;
        }
        let folds = |known: &&str| {
            name.to_lowercase() == known.to_lowercase()
                || name.to_uppercase() == known.to_uppercase()
        };
        if expected.iter().any(folds) {
            return Err(Fault::ambiguous("a member is spelled almost as one that counts"));
        }
        return Err(stray());
    }
    Ok(())
}

fn stray() -> Fault {
    Fault::bad("the message has a member that the protocol does not know")
}

fn id(value: &Value) -> Result<Id, Fault> {
    match value {
        Value::String(text) if text.len() <= LONGEST_ID => Ok(Id::Text(text.clone())),
        Value::Integer(number) => Ok(Id::Number(*number)),
        _ => Err(Fault::unread("`id` is no short text, and no integer within ±2^53")),
    }
}

fn is_method(method: &str) -> bool {
    let plain = |b: u8| b.is_ascii_alphanumeric() || b"_-./$".contains(&b);
    (1..=LONGEST_METHOD).contains(&method.len()) && method.bytes().all(plain)
}
