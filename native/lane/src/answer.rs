//! Builds the answers. Each starts as a denial; only a permit, or a proof that `mode` softens, turns one into a permit.

use std::collections::BTreeMap;

use authz_kernel::decision::{
    DecidingRule, Judged, ObservedPolicy, Outcome, PolicyEffect, Verdict,
};
use authz_kernel::history::SessionHistory;
use authz_kernel::history::ValueTerms;
use authz_kernel::model::Tier;
use authz_kernel::reason::{PublicCode, ReasonCode};
use authz_kernel::rfc3339;
use prost::Message;

use crate::judgement::{Challenge, Judgement, Softened, name_of};
use crate::message::public_message;
use crate::proto::authz::v1 as wire;
use crate::protobuf::timestamp;

/// Decision of a check, or the earlier decision that it repeats.
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
        decided_at: Some(timestamp(judgement.arrival.now())),
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
    }
    answer.shown_reason = shown_reason(judgement).unwrap_or_default();
    if let Some(challenge) = challenge(judgement) {
        answer.challenge = Some(wire::Challenge {
            approval_id: challenge.id.clone(),
            url: challenge.url.clone(),
            expires_at: Some(timestamp(challenge.expires_at)),
        });
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
    // A failure of Authz is not a secret, and the caller may have to explain it.
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
    answer.observed_policies = judgement.observed_policies().map(observed_policy).collect();
    if let Some(world) = judgement.awaits_report() {
        answer.reservation_id.clone_from(&judgement.arrival.id);
        answer.yields = world.plan.may_yield(&judgement.resolved.operation).cloned().collect();
        let counts = |terms: &ValueTerms| terms.creates || terms.introduces;
        let values = judgement.evaluated().and_then(|decision| decision.values.as_ref());
        if values.is_some_and(counts) {
            answer.report_values = world.plan.report_values(&judgement.resolved.operation);
        }
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
        rules: judgement.rules().into_iter().map(deciding_rule).collect(),
    }
}

fn observed_policy(policy: &ObservedPolicy) -> wire::ObservedPolicy {
    let would_be = policy.outcome.map_or(wire::Outcome::Unspecified, outcome);
    wire::ObservedPolicy { policy_id: policy.policy.clone(), outcome: would_be as i32 }
}

fn deciding_rule(rule: DecidingRule) -> wire::DecidingRule {
    let DecidingRule { kind, name, at } = rule;
    wire::DecidingRule { kind: kind.as_str().to_owned(), name, file: at.file, line: at.line }
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
        observed: judged.is_observed,
    }
}

const fn outcome(outcome: Outcome) -> wire::Outcome {
    match outcome {
        Outcome::Permit => wire::Outcome::Permit,
        Outcome::StepUp => wire::Outcome::StepUp,
        Outcome::Deny => wire::Outcome::Deny,
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

/// The challenge of a step-up that people lift.
pub(crate) fn challenge(judgement: &Judgement) -> Option<&Challenge> {
    let stands = judgement.outcome() == Outcome::StepUp;
    judgement.settlement.challenge.as_ref().filter(|_| stands)
}

/// The id and the public triple, and the approval that a step-up waits for.
pub(crate) fn public(judgement: &Judgement) -> serde_json::Map<String, serde_json::Value> {
    let row = judgement.reason().row();
    let mut public = serde_json::Map::new();
    let mut put = |key: &str, value: &str| public.insert(key.to_owned(), value.into());
    put("decision_id", &judgement.arrival.id);
    put("public_code", row.public_code.as_str());
    put("next_action", row.next_action.as_str());
    put("retry", row.retry.as_str());
    if let Some(challenge) = challenge(judgement) {
        let mut approval = serde_json::json!({
            "id": challenge.id, "expires_at": rfc3339::millis(challenge.expires_at.0),
        });
        if let Some(members) = approval.as_object_mut().filter(|_| !challenge.url.is_empty()) {
            members.insert("url".to_owned(), challenge.url.as_str().into());
        }
        public.insert("approval".to_owned(), approval);
    }
    public
}

/// Reason of the person who rejected the call, or of the policy if the bundle shows it.
pub(crate) fn shown_reason(judgement: &Judgement) -> Option<String> {
    let reject_text = &judgement.settlement.reject_text;
    if judgement.reason() == ReasonCode::ApprovalRejected && !reject_text.is_empty() {
        return Some(format!("A person rejected it: {reject_text}"));
    }
    judgement.decision().and_then(|decision| decision.shown_reason.clone())
}
