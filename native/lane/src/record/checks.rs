//! Results of the checks beside policies, so that another bundle can judge the call from its record.

use authz_kernel::decision::RecordedCheckResults;
use authz_kernel::reason::ReasonCode;
use authz_kernel::task::SubjectProof;
use serde::Serialize;

use crate::judgement::Judgement;

/// Results of a judged call.
#[derive(Serialize)]
pub(super) struct ChecksMember<'a> {
    /// Step-up kinds that are met.
    #[serde(skip_serializing_if = "<[String]>::is_empty")]
    satisfied: &'a [String],
    /// Age of the caller's credential in seconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    age: Option<i64>,
    #[serde(skip_serializing_if = "is_zero")]
    confidence: u8,
    #[serde(skip_serializing_if = "Option::is_none")]
    subject_proof: Option<&'a str>,
    /// Reason for which the bounds of the task, or a budget, refuse the call.
    #[serde(skip_serializing_if = "Option::is_none")]
    refused: Option<&'a str>,
    /// Step-up kinds by which the scope of the task holds the call.
    #[serde(skip_serializing_if = "<[String]>::is_empty")]
    held: &'a [String],
    /// Obligation that the enforcer cannot carry out.
    #[serde(skip_serializing_if = "str::is_empty")]
    unsupported: &'a str,
}

impl<'a> ChecksMember<'a> {
    /// `None` if no policy was judged.
    pub(super) fn of(judgement: &'a Judgement) -> Option<Self> {
        let checks: &RecordedCheckResults = &judgement.evaluated()?.facts.as_deref()?.checks;
        let asserted = checks.subject_proof == SubjectProof::Asserted;
        Some(Self {
            satisfied: &checks.satisfied,
            age: checks.age,
            confidence: checks.confidence,
            subject_proof: asserted.then(|| checks.subject_proof.as_str()),
            refused: checks.refused.map(ReasonCode::as_str),
            held: &checks.held,
            unsupported: &checks.unsupported,
        })
    }
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde asks for it")]
const fn is_zero(number: &u8) -> bool {
    *number == 0
}
