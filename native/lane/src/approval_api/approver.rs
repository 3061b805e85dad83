//! Judges `authz.approve`: whether the policies let a person approve a call.

use authz_kernel::decision::{
    CallerProof, Facts, Given, Outcome, ProofMethod, ReasonCode, Request, Time,
};
use authz_kernel::task::approval::{Approval, CONFIRM};
use authz_kernel::task::{SubjectProof, WordRecords};

use super::APPROVE_OPERATION;
use super::person::Person;
use crate::engine::own;
use crate::world::Loaded;

/// Returns the arguments of `authz.approve` for a queue of an approval, as JSON.
pub(super) fn approve_arguments(approval: &Approval, queue: &str) -> String {
    let system = approval.operation.split_once('.').map_or("", |(system, _)| system);
    serde_json::json!({
        "operation": approval.operation, "system": system, "queue": queue,
        "tier": approval.tier.as_str(),
    })
    .to_string()
}

/// Returns whether the policies let a person of a queue answer there. No policy is evaluated for the queue `confirm`, which only
/// the subject of the call belongs to.
///
/// A person without a permit cannot read the arguments of a call either, because a queue such as `approve` has no
/// role.
pub(super) fn policies_permit(
    person: &Person,
    approval: &Approval,
    queue: &str,
    world: &Loaded,
    now: Time,
) -> bool {
    if queue == CONFIRM {
        return true;
    }
    let arguments = approve_arguments(approval, queue);
    let request =
        Request { arguments: Given::Json(arguments.as_bytes()), ..own(APPROVE_OPERATION) };
    let proof =
        CallerProof { method: ProofMethod::Jwt, bound: false, age: None, acr: "", satisfied: &[] };
    let facts = Facts {
        enforcer: "",
        chain: std::slice::from_ref(&person.principal),
        proof,
        confidence: 0,
        task: None,
        subject_proof: Some(SubjectProof::Verified),
        history: None,
        literal_key: None,
        words: WordRecords::default(),
        value_key: None,
        endorsed: &[],
        recipient_lists: None,
        granted: None,
        breakglass: None,
    };
    let decision = world.decide_own(&facts, &request, now);
    decision.outcome == Outcome::Permit && decision.reason == ReasonCode::Permitted
}
