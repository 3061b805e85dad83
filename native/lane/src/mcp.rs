//! Refusals in the form of MCP.
//!
//! An HTTP status other than 200 ends the session of many clients, so a call that is refused is answered in the protocol
//! itself. What stands in an answer is written here, and none of it is the request's but its id and revision.

use authz_kernel::mcp::{Envelope, MessageId, MessageKind, PAGE_QUESTION, PageUse, VERSIONS};
use authz_kernel::model::DenyAs;
use authz_kernel::reason::{NextAction, PublicCode, ReasonCode};
use serde_json::{Map, Value, json};

use crate::answer::{challenge, public, shown_reason};
use crate::approval_text::{instructions, page_message};
use crate::judgement::Judgement;
use crate::message::public_message;

/// The member of `_meta`, and of an error's `data`, that holds the decision.
const DECISION: &str = "dev.authz/decision";
/// From this revision on every result says its type.
const TYPED: &str = "2026-07-28";
/// JSON-RPC 2.0 §5.1.
const INVALID_REQUEST: i32 = -32_600;
const METHOD_NOT_FOUND: i32 = -32_601;
const INVALID_PARAMS: i32 = -32_602;
/// MCP.
const HEADER_MISMATCH: i32 = -32_020;
const UNSUPPORTED_VERSION: i32 = -32_022;
/// Ours, of those that MCP leaves to implementations.
const REFUSED: i32 = -32_003;

/// An answer to the client.
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) body: String,
}

/// Answer to a refused message. `None`: the HTTP status is the answer.
pub(crate) fn answer(judgement: &Judgement) -> Option<Answer> {
    let message = judgement.resolved.mcp.as_ref()?;
    let reason = judgement.reason();
    // Authentication and failures of Authz are answered by the HTTP status.
    if matches!(reason.row().public_code, PublicCode::Unauthenticated | PublicCode::Unavailable) {
        return None;
    }
    let world = judgement.arrival.world.as_ref()?;
    let deny_as = world.plan.model().deny_as;
    if message.unsupported {
        return Some(error(judgement, message, 400, UNSUPPORTED_VERSION));
    }
    match (message.kind, deny_as) {
        (MessageKind::Unread, _) => Some(error(judgement, message, 400, INVALID_REQUEST)),
        (MessageKind::ToolCall | MessageKind::Request, _)
            if reason == ReasonCode::HeaderMismatch =>
        {
            Some(error(judgement, message, 400, HEADER_MISMATCH))
        }
        (_, DenyAs::Http)
        | (MessageKind::Notification | MessageKind::Response | MessageKind::Session, _) => None,
        (MessageKind::ToolCall, DenyAs::ToolResult) => Some(result(judgement, message)),
        (MessageKind::ToolCall | MessageKind::Request, _) => {
            Some(error(judgement, message, 200, error_code(reason)))
        }
    }
}

/// One code for each public triple.
fn error_code(reason: ReasonCode) -> i32 {
    let row = reason.row();
    match (row.public_code, row.next_action) {
        (PublicCode::Invalid, NextAction::ContactOwner) => METHOD_NOT_FOUND,
        // The message was read: what is wrong is a parameter, such as a URI in a second spelling.
        (PublicCode::Invalid, _) => INVALID_PARAMS,
        _ => REFUSED,
    }
}

/// A result that asks a client to open the page of the approval, and to repeat the call then. It has no `requestState`: the repeated
/// call is known by its task and its digest. A client that comes back before the answer reads a text, so that it asks its user once.
fn input_required(judgement: &Judgement, message: &Envelope) -> Option<Answer> {
    let challenge = challenge(judgement).filter(|one| !one.url.is_empty())?;
    if message.page != PageUse::Opens || message.version != Some(TYPED) {
        return None;
    }
    let params =
        json!({"mode": "url", "message": page_message(&challenge.id), "url": challenge.url});
    let question = json!({"method": "elicitation/create", "params": params});
    let result = json!({
        "_meta": {DECISION: public(judgement)},
        "resultType": "input_required",
        "inputRequests": {PAGE_QUESTION: question},
    });
    let body = json!({"jsonrpc": "2.0", "id": id(message), "result": result});
    Some(Answer { status: 200, body: body.to_string() })
}

/// Texts for the model: the public message, how a person can allow the call, and the reason of the policy or of the person.
fn result(judgement: &Judgement, message: &Envelope) -> Answer {
    if let Some(answer) = input_required(judgement, message) {
        return answer;
    }
    let texts =
        [Some(first_text(judgement, message)), instructions(judgement), shown_reason(judgement)];
    let content: Vec<Value> =
        texts.into_iter().flatten().map(|text| json!({"type": "text", "text": text})).collect();
    let mut result = Map::new();
    result.insert("_meta".to_owned(), json!({DECISION: public(judgement)}));
    result.insert("content".to_owned(), content.into());
    result.insert("isError".to_owned(), true.into());
    if message.version == Some(TYPED) {
        result.insert("resultType".to_owned(), "complete".into());
    }
    let body = json!({"jsonrpc": "2.0", "id": id(message), "result": result});
    Answer { status: 200, body: body.to_string() }
}

fn first_text(judgement: &Judgement, message: &Envelope) -> String {
    if message.page == PageUse::Declined {
        return "The user did not open the page of the request, so the call was not made. \
                Do not make it again unless the user asks for it."
            .to_owned();
    }
    public_message(judgement.reason())
}

fn error(judgement: &Judgement, message: &Envelope, status: u16, code: i32) -> Answer {
    let mut data = Map::new();
    data.insert(DECISION.to_owned(), public(judgement).into());
    if let Some(text) = instructions(judgement) {
        data.insert("instructions".to_owned(), text.into());
    }
    if let Some(reason) = shown_reason(judgement) {
        data.insert("reason".to_owned(), reason.into());
    }
    if code == UNSUPPORTED_VERSION {
        data.insert("supported".to_owned(), VERSIONS.as_slice().into());
    }
    let text = public_message(judgement.reason());
    let error = json!({"code": code, "message": text, "data": data});
    let body = json!({"jsonrpc": "2.0", "id": id(message), "error": error});
    Answer { status, body: body.to_string() }
}

fn id(message: &Envelope) -> Value {
    match &message.id {
        None => Value::Null,
        Some(MessageId::Text(text)) => text.clone().into(),
        Some(MessageId::Number(number)) => (*number).into(),
    }
}
