//! Builds the answers. Each starts as a denial; only a permit, or a proof that `mode` softens, turns one into a permit.

use std::borrow::Cow;
use std::collections::BTreeMap;

use authz_kernel::decision::{Judged, Outcome, PolicyEffect, Principal, Verdict};
use authz_kernel::history::SessionHistory;
use authz_kernel::model::Tier;
use authz_kernel::reason::{PublicCode, ReasonCode};
use prost::Message;
use prost_types::{Struct, Timestamp};

use crate::envoy::{ALWAYS_REMOVED, Removed};
use crate::judgement::outcome_name;
use crate::judgement::{Judgement, Passage, Softened, name_of};
use crate::mcp::{self, Answer};
use crate::message::public_message;
use crate::proto::authz::v1 as wire;
use crate::proto::envoy::config::core::v3::header_value_option::HeaderAppendAction;
use crate::proto::envoy::config::core::v3::{HeaderValue, HeaderValueOption};
use crate::proto::envoy::service::auth::v3::check_response::HttpResponse;
use crate::proto::envoy::service::auth::v3::{CheckResponse, DeniedHttpResponse, OkHttpResponse};
use crate::proto::envoy::r#type::v3::HttpStatus;
use crate::proto::google::rpc::Status;

/// `google.rpc.Code.PERMISSION_DENIED`.
const PERMISSION_DENIED: i32 = 7;
/// The headers that name who acts, for whom, and by which decision.
const AGENT: &str = "x-authz-agent";
const SUBJECT: &str = "x-authz-subject";
const DECISION_ID: &str = "x-authz-decision-id";

/// What a check is answered: its decision, or the one that it repeats.
pub(crate) fn own(judgement: &Judgement) -> wire::Decision {
    let repeated = judgement.settlement.repeats.as_deref().filter(|_| judgement.granted().is_ok());
    repeated
        .and_then(|answer| wire::Decision::decode(answer).ok())
        .unwrap_or_else(|| decision(judgement))
}

/// The decision as our own API sends it.
pub(crate) fn decision(judgement: &Judgement) -> wire::Decision {
    let row = judgement.reason().row();
    let mut answer = wire::Decision {
        decision_id: judgement.arrival.id.clone(),
        outcome: wire::Outcome::Deny as i32,
        public_code: row.public_code.number(),
        next_action: row.next_action.number(),
        retry: row.retry.number(),
        public_message: public_message(judgement.reason()),
        decided_at: Some(timestamp(judgement.arrival.now_ms)),
        enforced: true,
        ..wire::Decision::default()
    };
    if judgement.outcome() == Outcome::StepUp {
        answer.outcome = wire::Outcome::StepUp as i32;
    }
    if let Some(permit) = judgement.permit() {
        answer.outcome = wire::Outcome::Permit as i32;
        answer.obligations.clone_from(&permit.decision().obligations);
    }
    if let Some(standing) = judgement.decision() {
        answer.step_up_kinds.clone_from(&standing.kinds);
        answer.shown_reason = standing.shown_reason.clone().unwrap_or_default();
    }
    if let Some(softened) = judgement.softened() {
        let observed = wire::Observed {
            outcome: answer.outcome,
            public_code: answer.public_code,
            next_action: answer.next_action,
            retry: answer.retry,
            step_up_kinds: std::mem::take(&mut answer.step_up_kinds),
            reason_code: 0,
        };
        permit_softened(softened, observed, &mut answer);
    }
    // That we failed is no secret, and whoever asks may have to tell why.
    if row.public_code == PublicCode::Unavailable {
        answer.reason_code = judgement.reason().number();
    }
    if !judgement.arrival.asks_itself {
        for_enforcer(judgement, &mut answer);
    }
    answer
}

/// Turns a denial into what a caller reads as a permit, and keeps beside it what it would have been.
fn permit_softened(_: Softened<'_>, observed: wire::Observed, answer: &mut wire::Decision) {
    let row = ReasonCode::Permitted.row();
    answer.outcome = wire::Outcome::Permit as i32;
    answer.public_code = row.public_code.number();
    answer.next_action = row.next_action.number();
    answer.retry = row.retry.number();
    answer.public_message = public_message(ReasonCode::Permitted);
    answer.shown_reason.clear();
    answer.enforced = false;
    answer.observed = Some(observed);
}

/// The part of a decision that an agent must not see.
fn for_enforcer(judgement: &Judgement, answer: &mut wire::Decision) {
    let reason = judgement.reason().number();
    match &mut answer.observed {
        Some(observed) => {
            observed.reason_code = reason;
            answer.reason_code = ReasonCode::Permitted.number();
        }
        None => answer.reason_code = reason,
    }
    judgement.message().clone_into(&mut answer.message);
    answer.tier = judgement.resolved.tier.map_or(wire::Tier::Unspecified, tier) as i32;
    if let Some(world) = &judgement.arrival.world {
        answer.bundle_revision.clone_from(&world.revision);
        answer.bundle_digest.clone_from(&world.digest);
    }
    if let Some(standing) = judgement.decision() {
        answer.policy_ids.clone_from(&standing.policies);
        answer.controls.clone_from(&standing.controls);
        answer.resource.clone_from(&standing.resource);
    }
    if let Some(world) = judgement.awaits_report() {
        answer.reservation_id.clone_from(&judgement.arrival.id);
        answer.yields = world.plan.may_yield(&judgement.resolved.operation).cloned().collect();
    }
}

/// Everything that led to the decision, for Explain.
pub(crate) fn detail(judgement: &Judgement, facts_json: Vec<u8>) -> wire::Detail {
    let decision = judgement.evaluated();
    wire::Detail {
        policies: decision
            .map_or_else(Vec::new, |decision| decision.trace.iter().map(judged).collect()),
        chain: judgement
            .caller
            .chain
            .iter()
            .map(|principal| name_of(principal).into_owned())
            .collect(),
        enforcer: judgement.arrival.asker.name().to_owned(),
        step: judgement.step().as_str().to_owned(),
        facts_json,
        label_origins: label_origins(judgement),
        destination_class: decision
            .map_or_else(String::new, |decision| decision.destination_class.clone()),
    }
}

/// The decision that brought each label that counts: those that the task's session carries, that its agent remembers of other
/// tasks, and that what it acts on keeps of those that wrote it.
fn label_origins(judgement: &Judgement) -> BTreeMap<String, String> {
    let along = judgement.context.recalled.remembered(judgement.arrival.now());
    let along = along.map(|(label, from)| (label.to_owned(), from.decision_id.to_owned()));
    let mut own = BTreeMap::new();
    for (label, from) in
        judgement.context.recalled.seen().into_iter().flat_map(SessionHistory::carried)
    {
        own.entry(label.to_owned()).or_insert_with(|| from.decision_id.to_owned());
    }
    let now = judgement.arrival.now();
    let written = judgement.context.recalled.written(now);
    let written = written.map(|(label, origin)| (label.to_owned(), origin.decision_id.clone()));
    along.chain(written).chain(own).collect()
}

fn judged(judged: &Judged) -> wire::JudgedPolicy {
    let (result, error) = match &judged.result {
        Verdict::Fired => (wire::PolicyResult::Fired, String::new()),
        Verdict::NotFired => (wire::PolicyResult::NotFired, String::new()),
        Verdict::Failed(how) => (wire::PolicyResult::Failed, how.clone()),
    };
    let effect = match judged.effect {
        PolicyEffect::Permit => wire::PolicyEffect::Permit,
        PolicyEffect::Forbid => wire::PolicyEffect::Forbid,
    };
    wire::JudgedPolicy {
        policy_id: judged.policy.clone(),
        file: judged.at.file.clone(),
        line: judged.at.line,
        principal: judged.principal.clone(),
        effect: effect as i32,
        result: result as i32,
        error,
        reason: judged.reason.clone(),
    }
}

const fn tier(tier: Tier) -> wire::Tier {
    match tier {
        Tier::Low => wire::Tier::Low,
        Tier::Standard => wire::Tier::Standard,
        Tier::High => wire::Tier::High,
        Tier::Critical => wire::Tier::Critical,
    }
}

fn timestamp(ms: i64) -> Timestamp {
    let nanos = i32::try_from(ms.rem_euclid(1_000).saturating_mul(1_000_000)).unwrap_or(0);
    Timestamp { seconds: ms.div_euclid(1_000), nanos }
}

/// The answer to Envoy, encoded. `removed` lists the inbound headers that a permit takes out, besides those that every permit
/// does; `nonce` is what a proof must bring.
///
/// An empty `CheckResponse` permits, so this is the only place where one is made, and its status is a denial's unless a
/// [`Passage`] is at hand.
pub(crate) fn envoy(
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
    // RFC 9449 §9: a proof without the nonce is made again with it.
    let challenge = match nonce {
        Some(_) => "DPoP realm=\"authz\", error=\"use_dpop_nonce\"",
        None => "Bearer realm=\"authz\"",
    };
    let is_challenged = status == 401;
    let headers = [
        ("content-type", Some("application/json")),
        (DECISION_ID, Some(judgement.arrival.id.as_str())),
        ("www-authenticate", Some(challenge).filter(|_| is_challenged)),
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

/// The HTTP status of a refusal.
const fn http_status(said: u16) -> u16 {
    match said {
        status @ 400..=599 => status,
        _ => 403,
    }
}

/// What the agent reads: the public triple and its text, byte-equal but for the id.
fn body(judgement: &Judgement) -> String {
    let mut body = public(judgement);
    body.insert("message".to_owned(), public_message(judgement.reason()).into());
    if let Some(reason) = shown_reason(judgement) {
        body.insert("reason".to_owned(), reason.into());
    }
    serde_json::Value::Object(body).to_string()
}

/// The id and the public triple.
pub(crate) fn public(judgement: &Judgement) -> serde_json::Map<String, serde_json::Value> {
    let row = judgement.reason().row();
    let mut public = serde_json::Map::new();
    let mut put = |key: &str, value: &str| public.insert(key.to_owned(), value.into());
    put("decision_id", &judgement.arrival.id);
    put("public_code", row.public_code.as_str());
    put("next_action", row.next_action.as_str());
    put("retry", row.retry.as_str());
    public
}

/// The policy's reason, where the bundle shows it.
pub(crate) fn shown_reason(judgement: &Judgement) -> Option<&str> {
    judgement.decision().and_then(|decision| decision.shown_reason.as_deref())
}

/// The answer of a permit to the proxy: the headers that name who acts, and those that are taken out. `names` are those of
/// the chain.
fn forward(passage: Passage<'_>, names: &[Cow<'_, str>], removed: &Removed) -> OkHttpResponse {
    let judgement = passage.judgement();
    let mut chain = judgement
        .caller
        .chain
        .iter()
        .zip(names)
        .map(|(principal, name)| (matches!(principal, Principal::Agent { .. }), name.as_ref()));
    let subject = chain.clone().find_map(|(is_agent, name)| (!is_agent).then_some(name));
    let agent = chain.rfind(|(is_agent, _)| *is_agent).map(|(_, name)| name);
    let injected = judgement.injected();
    // On a permit alone: `mode` lets through whom nobody knows, and that is no reason to lend them a key.
    let secret = match passage {
        Passage::Permitted(_) => injected.and_then(|injected| injected.value()),
        Passage::Softened(_) => None,
    };
    let ours =
        [(DECISION_ID, Some(judgement.arrival.id.as_str())), (AGENT, agent), (SUBJECT, subject)];
    let set = ours.into_iter().chain(injected.map(|injected| (injected.header(), secret)));
    let headers = set.clone().filter_map(|(name, value)| Some(set_header(name, value?))).collect();
    // Envoy removes last: a name that is set must not be removed. One of ours that is not must be.
    let is_set = |name: &str| set.clone().any(|(known, value)| known == name && value.is_some());
    let is_ours = |name: &str| ours.iter().any(|(known, _)| *known == name);
    let absent = ours.iter().filter(|(_, value)| value.is_none()).map(|(name, _)| *name);
    let asked = removed.names().filter(|name| !is_ours(name));
    let of_secret = injected.into_iter().flat_map(|injected| {
        std::iter::once(injected.header()).chain(injected.twins().iter().map(String::as_str))
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

/// A header that replaces every header of its name, whichever of the two fields the proxy's version reads.
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
/// `decision` and `reason_code` are what was answered; where that was softened, `observed_…` is what was judged.
fn describe(judgement: &Judgement, names: &[Cow<'_, str>]) -> Struct {
    let judged = (outcome_name(judgement.outcome()), judgement.reason());
    let observed = judgement.softened().map(|_| judged);
    let (decision, reason) = match observed {
        Some(_) => (outcome_name(Outcome::Permit), ReasonCode::Permitted),
        None => judged,
    };
    let chain = names.join(" > ");
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
    ];
    let fields = texts.into_iter().filter_map(|(key, text)| {
        Some((key.to_owned(), prost_types::Value::from(text?.to_owned())))
    });
    Struct { fields: fields.collect() }
}
