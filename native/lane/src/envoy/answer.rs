//! The answer to a proxy.

use std::borrow::Cow;

use authz_kernel::decision::{Outcome, Principal};
use authz_kernel::reason::{PublicCode, ReasonCode};
use prost::Message;
use prost_types::Struct;

use super::removed::{ALWAYS_REMOVED, Removed};
use crate::answer::{public, shown_reason};
use crate::judgement::{CallPassage, Judgement, name_of, outcome_name};
use crate::mcp::{self, Answer};
use crate::message::public_message;
use crate::proto::envoy::config::core::v3::header_value_option::HeaderAppendAction;
use crate::proto::envoy::config::core::v3::{HeaderValue, HeaderValueOption};
use crate::proto::envoy::service::auth::v3::check_response::HttpResponse;
use crate::proto::envoy::service::auth::v3::{CheckResponse, DeniedHttpResponse, OkHttpResponse};
use crate::proto::envoy::r#type::v3::HttpStatus;
use crate::proto::google::rpc::Status;

/// `google.rpc.Code.PERMISSION_DENIED`.
const PERMISSION_DENIED: i32 = 7;
/// Headers that name the agent, the subject and the decision.
const AGENT: &str = "x-authz-agent";
const SUBJECT: &str = "x-authz-subject";
const DECISION_ID: &str = "x-authz-decision-id";

/// The answer to Envoy, encoded. `removed` lists the inbound headers that a permit removes besides those that every permit
/// removes; `nonce` is the nonce of the next proof.
///
/// An empty `CheckResponse` permits, so this is the only place where one is made, and its status is a denial's unless a
/// [`CallPassage`] is at hand.
pub(crate) fn answer(
    judgement: &Judgement,
    removed: &Removed,
    error_response: bool,
    nonce: Option<String>,
) -> Vec<u8> {
    let names: Vec<_> = judgement.caller.chain.iter().map(name_of).collect();
    let (code, response) = match judgement.passage() {
        None => deny(judgement, error_response, nonce.as_deref()),
        Some(passage) => (0, HttpResponse::OkResponse(forward(passage, &names, removed))),
    };
    let answer = CheckResponse {
        status: Some(Status { code, ..Status::default() }),
        dynamic_metadata: Some(describe(judgement, &names)),
        http_response: Some(response),
    };
    answer.encode_to_vec()
}

/// An answer that no setting of Envoy's turns into a permit: RPC OK, a status that is not, and a `denied_response`.
fn deny(judgement: &Judgement, error_response: bool, nonce: Option<&str>) -> (i32, HttpResponse) {
    let row = judgement.reason().row();
    let code = if row.grpc_code > 0 { row.grpc_code } else { PERMISSION_DENIED };
    let (status, body) = match mcp::answer(judgement) {
        Some(Answer { status, body }) => (status, body),
        None => (http_status(row.http_status), body(judgement)),
    };
    let is_challenged = status == 401;
    let challenge = challenge(judgement, nonce.is_some());
    let headers = [
        ("content-type", Some("application/json")),
        (DECISION_ID, Some(judgement.arrival.id.as_str())),
        ("www-authenticate", Some(challenge.as_str()).filter(|_| is_challenged)),
        ("dpop-nonce", nonce.filter(|_| is_challenged)),
    ];
    let headers = headers.into_iter();
    let response = DeniedHttpResponse {
        status: Some(HttpStatus { code: status.into() }),
        headers: headers.filter_map(|(name, value)| Some(set_header(name, value?))).collect(),
        body,
    };
    if row.public_code == PublicCode::Unavailable && error_response {
        (code, HttpResponse::ErrorResponse(response))
    } else {
        (code, HttpResponse::DeniedResponse(response))
    }
}

/// Value of the header `WWW-Authenticate` of an answer with status 401.
fn challenge(judgement: &Judgement, wants_nonce: bool) -> String {
    if wants_nonce {
        // RFC 9449 §9: a proof without the nonce is made again with it.
        return "DPoP realm=\"authz\", error=\"use_dpop_nonce\"".to_owned();
    }
    let kinds = judgement.decision().map_or(&[][..], |decision| &decision.kinds);
    let mut wanted = kinds.iter().filter_map(|kind| kind.strip_prefix("reauth:")).peekable();
    if judgement.reason() != ReasonCode::ReauthRequired || wanted.peek().is_none() {
        return "Bearer realm=\"authz\"".to_owned();
    }
    // RFC 9470 §3: the client fetches a token with one of these authentication contexts. A kind has no character that a quoted
    // string would have to escape.
    let wanted: Vec<&str> = wanted.collect();
    format!(
        "Bearer realm=\"authz\", error=\"insufficient_user_authentication\", acr_values=\"{}\"",
        wanted.join(" ")
    )
}

/// The HTTP status of a refusal.
const fn http_status(said: u16) -> u16 {
    match said {
        status @ 400..=599 => status,
        _ => 403,
    }
}

/// Text for the agent: the public triple and its message. It is the same for each request but for the id.
fn body(judgement: &Judgement) -> String {
    let mut body = public(judgement);
    body.insert("message".to_owned(), public_message(judgement.reason()).into());
    if let Some(reason) = shown_reason(judgement) {
        body.insert("reason".to_owned(), reason.into());
    }
    serde_json::Value::Object(body).to_string()
}

/// The answer of a permit to the proxy: the headers that name who acts, and those that are taken out. `names` are those of
/// the chain.
fn forward(passage: CallPassage<'_>, names: &[Cow<'_, str>], removed: &Removed) -> OkHttpResponse {
    let judgement = passage.judgement();
    let mut chain = judgement
        .caller
        .chain
        .iter()
        .zip(names)
        .map(|(principal, name)| (matches!(principal, Principal::Agent { .. }), name.as_ref()));
    let subject = chain.clone().find_map(|(is_agent, name)| (!is_agent).then_some(name));
    let agent = chain.rfind(|(is_agent, _)| *is_agent).map(|(_, name)| name);
    let secret_header = judgement.secret_header();
    // Only a permit gets the secret: `mode` also lets unauthenticated callers through, and they never receive a secret.
    let secret = match passage {
        CallPassage::Permitted(_) => secret_header.and_then(|secret_header| secret_header.value()),
        CallPassage::Softened(_) => None,
    };
    let ours =
        [(DECISION_ID, Some(judgement.arrival.id.as_str())), (AGENT, agent), (SUBJECT, subject)];
    let set =
        ours.into_iter().chain(secret_header.map(|secret_header| (secret_header.header(), secret)));
    let headers = set.clone().filter_map(|(name, value)| Some(set_header(name, value?))).collect();
    // Envoy removes last: a name that is set must not be removed. One of ours that is not must be.
    let is_set = |name: &str| set.clone().any(|(known, value)| known == name && value.is_some());
    let is_ours = |name: &str| ours.iter().any(|(known, _)| *known == name);
    let absent = ours.iter().filter(|(_, value)| value.is_none()).map(|(name, _)| *name);
    let asked = removed.names().filter(|name| !is_ours(name));
    let of_secret = secret_header.into_iter().flat_map(|secret_header| {
        std::iter::once(secret_header.header())
            .chain(secret_header.twins().iter().map(String::as_str))
    });
    let not_set = absent.chain(asked).chain(of_secret).filter(|name| !is_set(name));
    // No permit sets any of these: the configuration refuses secrets under our names.
    let always = ALWAYS_REMOVED.iter().map(String::as_str);
    OkHttpResponse {
        headers,
        headers_to_remove: not_set.chain(always).map(str::to_owned).collect(),
        ..OkHttpResponse::default()
    }
}

/// A header that replaces every header of its name. It sets both fields that say so, because each is read by some versions of
/// the proxy.
#[expect(deprecated, reason = "proxies up to 1.36 read only `append`")]
fn set_header(name: &str, value: &str) -> HeaderValueOption {
    HeaderValueOption {
        header: Some(HeaderValue {
            key: name.to_owned(),
            value: value.to_owned(),
            ..HeaderValue::default()
        }),
        append: Some(false),
        append_action: HeaderAppendAction::OverwriteIfExistsOrAdd.into(),
        ..HeaderValueOption::default()
    }
}

/// A `Struct` of flat texts for access logs: `%DYNAMIC_METADATA(envoy.filters.http.ext_authz:decision_id)%`.
///
/// `decision` and `reason_code` are the answer. If `mode` softened the answer, `observed_…` is the verdict. `observed_policies`
/// has the policies with `@mode("observe")` that would have changed the outcome, each with `=` and that outcome.
fn describe(judgement: &Judgement, names: &[Cow<'_, str>]) -> Struct {
    let judged = (outcome_name(judgement.outcome()), judgement.reason());
    let observed = judgement.softened().map(|_| judged);
    let (decision, reason) = match observed {
        Some(_) => (outcome_name(Outcome::Permit), ReasonCode::Permitted),
        None => judged,
    };
    let chain = names.join(" > ");
    let flips = judgement.observed_policies().map(|policy| {
        let outcome = policy.outcome.map_or("", outcome_name);
        format!("{}={outcome}", policy.policy)
    });
    let flips = flips.collect::<Vec<_>>().join(" ");
    let world = judgement.arrival.world.as_ref();
    let revision = world.map_or("", |world| world.revision.as_str());
    let texts = [
        ("agent_chain", Some(chain.as_str())),
        ("decision", Some(decision)),
        ("decision_id", Some(judgement.arrival.id.as_str())),
        ("enforced", Some(if observed.is_none() { "true" } else { "false" })),
        ("policy_revision", Some(revision)),
        ("principal", Some(names.last().map_or("", AsRef::as_ref))),
        ("reason_code", Some(reason.as_str())),
        ("credential", judgement.caller.credential.as_ref().map(|used| used.jti.as_str())),
        (
            "credential_decision_id",
            judgement.caller.credential.as_ref().map(|used| used.decision_id.as_str()),
        ),
        ("observed_decision", observed.map(|(decision, _)| decision)),
        ("observed_reason_code", observed.map(|(_, reason)| reason.as_str())),
        ("observed_policies", Some(flips.as_str()).filter(|flips| !flips.is_empty())),
    ];
    let fields = texts.into_iter().filter_map(|(key, text)| {
        Some((key.to_owned(), prost_types::Value::from(text?.to_owned())))
    });
    Struct { fields: fields.collect() }
}
