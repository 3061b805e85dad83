//! Members of the record of a call, each filled in by one stage.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use authz_kernel::decision::{Principal, Time};
use authz_kernel::mcp::Envelope;
use authz_kernel::model::Tier;
use authz_kernel::task::{RevocationTarget, Task};
use authz_state::Ticket;
use authz_token::{AgentFacts, ConfidenceFacts, VerifiedFacts};
use serde::Serialize;

use crate::metrics::{ApprovalEvent, SystemId};
use crate::recalled::Recalled;
use crate::request_form::RequestForm;

/// Verified identity of the caller, and the labels that its enforcer declares.
#[derive(Clone, Debug, Default)]
pub(crate) struct CallerIdentity {
    pub(crate) facts: VerifiedFacts,
    /// Subject first, the caller last; empty until verified.
    pub(crate) chain: Vec<Principal>,
    /// The agent whose own credential is good, of a call that was refused before its caller was known. For the audit record
    /// only.
    pub(crate) refused_agent: Option<Arc<AgentFacts>>,
    /// Labels that the enforcer says the call carries.
    pub(crate) declared_labels: Vec<String>,
    /// Step-up kinds that people have met for the call, as a test states them; always empty for a served call.
    pub(crate) satisfied: Vec<String>,
    /// Confidence in the call, as a test states it; always 0 for a served call.
    pub(crate) confidence: u8,
    /// Statement of a guard that came with the call.
    pub(crate) guard: Option<GuardStatement>,
    /// Task credential that the call presents, issues or revokes.
    pub(crate) credential: Option<CredentialNote>,
    /// Duration of the verification.
    pub(crate) verify_time: Option<Duration>,
}

/// Statement of a guard that came with a call.
#[derive(Clone, Debug)]
pub(crate) enum GuardStatement {
    /// A guard of the configuration made it.
    Verified(ConfidenceFacts),
    /// It is not believed; the text says why, and quotes nothing of it.
    Refused(String),
}

impl GuardStatement {
    /// Confidence that the statement gives a call of this task, before its operation and arguments are known.
    ///
    /// Args: `task`: id of the task that the call names; empty without one.
    pub(crate) fn about_task(&self, task: &str) -> Option<&ConfidenceFacts> {
        match self {
            Self::Verified(facts) if facts.task == task => Some(facts),
            Self::Verified(_) | Self::Refused(_) => None,
        }
    }
}

/// The operation that a request asks for, or what is known of the request where it asks for none.
#[derive(Debug, Default)]
pub(crate) struct ResolvedOperation {
    /// Operation id; empty unless the catalog has it.
    pub(crate) operation: String,
    pub(crate) system: SystemId,
    pub(crate) tier: Option<Tier>,
    /// Index of the matched route.
    pub(crate) route: Option<usize>,
    /// The message that came to an MCP endpoint.
    pub(crate) mcp: Option<Envelope>,
    /// The system that is asked for an operation which it does not have; empty otherwise.
    pub(crate) unknown_in: String,
    /// Systems that the request may be for, where neither operation nor system was found; an empty id stands for a system
    /// that the bundle does not have.
    pub(crate) may_be_for: Vec<String>,
    /// The request may be for an operation or a system that is revoked, so `mode` does not let it through.
    pub(crate) may_be_revoked: bool,
    /// The proxy cut the body off.
    pub(crate) is_cut_off: bool,
    /// Form of the request, where no operation was found.
    pub(crate) asked: Option<RequestForm>,
    /// Write that makes the call's proofs of possession unusable for another call. A permit waits for it besides its record.
    pub(crate) proved: Option<Ticket>,
}

/// The task of a call and its history.
#[derive(Debug, Default)]
pub(crate) struct TaskContext {
    /// The task that the call is made in, or is about.
    pub(crate) task: Option<Arc<Task>>,
    /// The chain is that of `task`, which the request names. The caller of an implicit task may have left its subject out.
    pub(crate) is_in_named_task: bool,
    /// History of the task's session, of the agent, and of the object.
    pub(crate) recalled: Recalled,
}

/// Effects of a verdict on stored records.
#[derive(Debug, Default)]
pub(crate) struct Settlement {
    /// The encoded answer to the same request under the same idempotency key, which this answer repeats.
    pub(crate) repeats: Option<Vec<u8>>,
    /// The permit is open until its outcome is reported.
    pub(crate) is_open: bool,
    /// Approval that the call made, repeated or used, or that was refused.
    pub(crate) approval: Option<ApprovalNote>,
    /// Challenge of a step-up that people can answer.
    pub(crate) challenge: Option<Challenge>,
    /// Identities of the rules that the approval of the call lifts.
    pub(crate) lifted: Vec<String>,
    /// Text of the reason of a rejection. Empty without a reason.
    pub(crate) reject_text: String,
}

impl Settlement {
    /// Drops the results of an earlier search for the approval of the call.
    pub(crate) fn forget_approval(&mut self) {
        self.approval = None;
        self.challenge = None;
        self.lifted.clear();
        self.reject_text.clear();
    }
}

/// Challenge of a step-up, for the caller.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Challenge {
    /// Id of the approval.
    pub(crate) id: String,
    /// URL of the page on which a person answers. Empty without a page.
    pub(crate) url: String,
    /// End of the approval.
    pub(crate) expires_at: Time,
}

/// Members of the record that calls about tasks, reports and administration add.
#[derive(Clone, Debug, Default)]
pub(crate) struct ApiNotes {
    /// Speaker of the call's prompt, and its names.
    pub(crate) prompt: Option<PromptNote>,
    /// Revocation that the call writes or lifts.
    pub(crate) revoked: Option<RevocationNote>,
    /// Records that an administrator has forgotten.
    pub(crate) forgotten: Option<ForgetNote>,
    /// Report of a permit's outcome.
    pub(crate) reported: Option<ReportNote>,
    /// Answer of a person to an approval.
    pub(crate) approval: Option<ApprovalNote>,
}

/// Members of its record that an API call finds out, besides its arrival and its caller.
///
/// Each function of a call fills in the members that it knows, and its caller adds the others ([`ApiRecord::or`]).
#[derive(Clone, Debug, Default)]
pub(crate) struct ApiRecord {
    /// Operation that the call is about; empty if none is known.
    pub(crate) operation: String,
    pub(crate) system: SystemId,
    pub(crate) tier: Option<Tier>,
    /// The task that the call is about.
    pub(crate) task: Option<Arc<Task>>,
    /// Chain that the call acts as. Default: the chain of the caller.
    pub(crate) chain: Option<Vec<Principal>>,
    /// Task credential that the call issues, reads or revokes. Default: the one that the caller presents.
    pub(crate) credential: Option<CredentialNote>,
    pub(crate) notes: ApiNotes,
}

impl ApiRecord {
    /// The record of a call about a task.
    pub(crate) fn of_task(task: &Arc<Task>) -> Self {
        Self { task: Some(Arc::clone(task)), ..Self::default() }
    }

    /// The record of a call about an operation of a permit.
    pub(crate) fn of_operation(operation: &str, system: SystemId, tier: Tier) -> Self {
        Self { operation: operation.to_owned(), system, tier: Some(tier), ..Self::default() }
    }

    /// These members, and those of `earlier` that are missing here.
    pub(crate) fn or(self, earlier: &Self) -> Self {
        let (operation, system) = match self.operation.is_empty() {
            true => (earlier.operation.clone(), earlier.system),
            false => (self.operation, self.system),
        };
        Self {
            operation,
            system,
            tier: self.tier.or(earlier.tier),
            task: self.task.or_else(|| earlier.task.clone()),
            chain: self.chain.or_else(|| earlier.chain.clone()),
            credential: self.credential.or_else(|| earlier.credential.clone()),
            notes: ApiNotes {
                prompt: self.notes.prompt.or(earlier.notes.prompt),
                revoked: self.notes.revoked.or_else(|| earlier.notes.revoked.clone()),
                forgotten: self.notes.forgotten.or_else(|| earlier.notes.forgotten.clone()),
                reported: self.notes.reported.or_else(|| earlier.notes.reported.clone()),
                approval: self.notes.approval.or_else(|| earlier.notes.approval.clone()),
            },
        }
    }
}

/// Names that came with a call, for its audit record.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct PromptNote {
    /// Speaker of the prompt.
    pub(crate) said_by: &'static str,
    /// Number of names that count as the user's.
    pub(crate) named: usize,
    /// Number of names that an agent claims.
    pub(crate) claimed: usize,
}

/// Task credential of a call, for the audit record.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct CredentialNote {
    /// Id of the credential or of the lease.
    pub(crate) jti: String,
    /// Decision whose permit the credential was issued for; empty if there are several.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub(crate) decision_id: String,
    /// Member of `cnf` that binds the credential.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) binding: Option<&'static str>,
}

/// Revocation, or the lifting of one, for the audit record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct RevocationNote {
    pub(crate) target: RevocationTarget,
    pub(crate) value: String,
    /// Reason in the caller's words; empty if the caller gave none.
    pub(crate) reason: String,
    /// Name that the owner of the administration socket gives itself; empty if it gives none.
    pub(crate) by: String,
    /// The call lifts a revocation.
    pub(crate) undo: bool,
}

/// Labels that an administrator has forgotten, for the audit record.
#[derive(Clone, Debug)]
pub(crate) struct ForgetNote {
    pub(crate) target: &'static str,
    pub(crate) value: String,
    pub(crate) denials: bool,
    pub(crate) reason: String,
}

/// Report of a permit's outcome, for the audit record.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct ReportNote {
    /// The permit's decision.
    pub(crate) decision_id: String,
    pub(crate) result: &'static str,
    #[serde(skip_serializing_if = "BTreeSet::is_empty")]
    pub(crate) labels: BTreeSet<String>,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub(crate) actuals: BTreeMap<String, i64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) values: Option<ValuesNote>,
}

/// Approval of a call, for the audit record.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct ApprovalNote {
    /// Id of the approval. Empty if no approval was made.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub(crate) id: String,
    pub(crate) event: ApprovalEvent,
    /// People who answered.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(crate) by: Vec<String>,
    /// Reason why people are asked again.
    #[serde(skip_serializing_if = "str::is_empty")]
    pub(crate) why: &'static str,
    /// Queues of the approval, or the queue of an answer.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(crate) queues: Vec<String>,
    #[serde(flatten, skip_serializing_if = "Option::is_none")]
    pub(crate) answer: Option<AnswerNote>,
}

impl ApprovalNote {
    pub(crate) const fn new(id: String, event: ApprovalEvent) -> Self {
        Self { id, event, by: Vec::new(), why: "", queues: Vec::new(), answer: None }
    }
}

/// Answer of a person, for the audit record.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct AnswerNote {
    /// `login`, `passkey` or `socket`.
    pub(crate) method: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub(crate) acr: String,
    /// Passkey that signed the answer.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub(crate) passkey: String,
    /// SHA-256 of the call, and of the card that the person was shown.
    pub(crate) digest: String,
    pub(crate) card_digest: String,
    /// Time from the first look to the answer.
    pub(crate) decided_in_ms: i64,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub(crate) reject_reason: String,
}

/// Numbers of reported values, by what became of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct ValuesNote {
    /// The session knows them.
    pub(crate) kept: u32,
    /// Nothing speaks for them.
    pub(crate) unlifted: u32,
    /// They are not canonical, or their pointer was not asked for.
    pub(crate) invalid: u32,
    /// The session knows as many values as it may.
    pub(crate) full: u32,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn operation(operation: &str, tier: Option<Tier>) -> ApiRecord {
        ApiRecord { operation: operation.to_owned(), tier, ..ApiRecord::default() }
    }

    /// Members of the later step stand; members that it lacks come from the earlier one.
    #[test]
    fn a_later_step_overrules_an_earlier_one() {
        let earlier =
            ApiRecord { chain: Some(Vec::new()), ..operation("crm.search", Some(Tier::High)) };
        let later = ApiRecord {
            notes: ApiNotes {
                prompt: Some(PromptNote { said_by: "user", named: 1, claimed: 0 }),
                ..ApiNotes::default()
            },
            ..operation("crm.delete", None)
        };
        let record = later.or(&earlier);
        assert_eq!(("crm.delete", Some(Tier::High)), (record.operation.as_str(), record.tier));
        assert!(record.chain.is_some() && record.credential.is_none());
        assert_eq!(1, record.notes.prompt.map_or(0, |note| note.named));
    }

    /// A record without an operation has that of the earlier step.
    #[test]
    fn an_unknown_operation_overrules_none() {
        let record = operation("", None).or(&operation("crm.search", Some(Tier::Low)));
        assert_eq!(("crm.search", Some(Tier::Low)), (record.operation.as_str(), record.tier));
    }
}
