//! Members of the record of a call, each filled in by one stage.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use authz_kernel::decision::{Principal, Time};
use authz_kernel::history::ValueFingerprint;
use authz_kernel::mcp::Envelope;
use authz_kernel::model::Tier;
use authz_kernel::task::{Breakglass, RevocationTarget, Task};
use authz_state::Ticket;
use authz_token::{AgentFacts, ConfidenceFacts, VerifiedFacts};
use serde::Serialize;

use crate::metrics::{ApprovalEvent, HeldQueue, SystemId};
use crate::proto::authz::v1 as wire;
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
    /// It is not believed; the text gives the reason, and quotes no part of the credential.
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
    /// Identities of the rules that the used approval, or the endorsements, lift.
    pub(crate) lifted: Vec<String>,
    /// Fingerprints of values that count as `named` while the call is judged with the endorsements of its task.
    pub(crate) endorsed: Vec<ValueFingerprint>,
    /// Endorsements that the permit relies on: the approval and the value of each. Each loses one use.
    pub(crate) relies_on: Vec<(String, ValueFingerprint)>,
    /// Text of the reason with which a person rejected the call; empty if there is none.
    pub(crate) reject_text: String,
}

impl Settlement {
    /// Drops the results of an earlier search for the approval of the call.
    pub(crate) fn forget_approval(&mut self) {
        self.approval = None;
        self.challenge = None;
        self.lifted.clear();
        self.endorsed.clear();
        self.relies_on.clear();
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
    /// Texts of the audit log that an administrator erases.
    pub(crate) erasure: Option<ErasureNote>,
    /// Report of a permit's outcome.
    pub(crate) reported: Option<ReportNote>,
    /// Answer of a person to an approval.
    pub(crate) approval: Option<ApprovalNote>,
    /// Request for break-glass that the call opens, confirms or ends.
    pub(crate) breakglass: Option<BreakglassNote>,
    /// Security event of an identity provider.
    pub(crate) security_event: Option<SecurityEventNote>,
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
                erasure: self.notes.erasure.or_else(|| earlier.notes.erasure.clone()),
                reported: self.notes.reported.or_else(|| earlier.notes.reported.clone()),
                approval: self.notes.approval.or_else(|| earlier.notes.approval.clone()),
                breakglass: self.notes.breakglass.or_else(|| earlier.notes.breakglass.clone()),
                security_event: self
                    .notes
                    .security_event
                    .or_else(|| earlier.notes.security_event.clone()),
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

/// Security event of an identity provider, for the audit record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct SecurityEventNote {
    /// Name of the transmitter in the configuration.
    pub(crate) transmitter: String,
    /// Id of the event's token.
    pub(crate) jti: String,
    /// Type of the event.
    pub(crate) event: String,
    /// What Authz does with it: `end`, `record` or `ignore`.
    pub(crate) action: &'static str,
    /// Why it does so.
    pub(crate) reason: String,
    /// The subject, `<issuer alias>/<sub>`; empty if its issuer is not in the configuration.
    pub(crate) subject: String,
    /// Time of the event.
    pub(crate) at: Time,
}

/// Labels that an administrator has forgotten, for the audit record.
#[derive(Clone, Debug)]
pub(crate) struct ForgetNote {
    pub(crate) target: &'static str,
    pub(crate) value: String,
    pub(crate) denials: bool,
    pub(crate) reason: String,
}

/// Texts of the audit log that an administrator erases, for the audit record.
#[derive(Clone, Debug)]
pub(crate) struct ErasureNote {
    pub(crate) selection: String,
    pub(crate) texts: u64,
    pub(crate) records: u64,
    pub(crate) reason: String,
    pub(crate) by: String,
}

/// Request for break-glass that a call opens, confirms or ends, for the audit record.
///
/// Members that are not known are empty.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct BreakglassNote {
    /// `open`, `confirm` or `end`.
    pub(crate) action: &'static str,
    pub(crate) id: String,
    pub(crate) system: String,
    pub(crate) agent: String,
    pub(crate) duration_seconds: i64,
    pub(crate) reason: String,
    pub(crate) ticket: String,
    /// People who opened, confirmed and ended it.
    pub(crate) opened_by: String,
    pub(crate) confirmed_by: String,
    pub(crate) ended_by: String,
    /// Time from which it is no longer in force. `None`: nobody has confirmed it.
    pub(crate) ends_at: Option<Time>,
}

impl BreakglassNote {
    /// The note of a request that was not opened yet.
    pub(crate) fn of_request(message: &wire::OpenBreakglassRequest) -> Self {
        Self {
            action: "open",
            system: message.system.clone(),
            agent: message.agent.clone(),
            duration_seconds: message.duration_seconds.into(),
            reason: message.reason.clone(),
            ticket: message.ticket.clone(),
            ..Self::default()
        }
    }

    /// The note of a call about a request that was not found yet.
    pub(crate) fn of_id(action: &'static str, id: &str) -> Self {
        Self { action, id: id.to_owned(), ..Self::default() }
    }

    /// The note of a request after the call.
    pub(crate) fn of_record(action: &'static str, record: &Breakglass) -> Self {
        let (confirmed, ended) = (record.confirmed.as_ref(), record.ended.as_ref());
        Self {
            action,
            id: record.id.clone(),
            system: record.system.clone(),
            agent: record.agent.clone().unwrap_or_default(),
            duration_seconds: record.duration_ms.div_euclid(1_000),
            reason: record.reason.clone(),
            ticket: record.ticket.clone(),
            opened_by: record.opened_by.name.clone(),
            confirmed_by: confirmed.map(|one| one.by.name.clone()).unwrap_or_default(),
            ended_by: ended.map(|one| one.by.clone()).unwrap_or_default(),
            ends_at: confirmed.map(|_| record.live_until()),
        }
    }
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
    /// SHA-256 of the call that people answer, in hex. Empty if no approval was made.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub(crate) digest: String,
    /// SHA-256 of the cards that the people saw who approved a used approval, in hex.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(crate) card_digests: Vec<String>,
    /// Queues of the approval, or the queue of an answer.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(crate) queues: Vec<String>,
    /// Values that count as `named`, and the approval that endorsed each.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(crate) endorsed: Vec<EndorsedNote>,
    /// The same queues with their rules, for metrics.
    #[serde(skip)]
    pub(crate) held: Vec<HeldQueue>,
    #[serde(flatten, skip_serializing_if = "Option::is_none")]
    pub(crate) answer: Option<AnswerNote>,
}

/// Signature of a passkey over an answer (WebAuthn §7.2), each member in base64url.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct AssertionNote {
    pub(crate) authenticator_data: String,
    /// JSON of the client data, whose challenge is over the answer.
    pub(crate) client_data: String,
    pub(crate) signature: String,
    /// COSE key of the passkey.
    pub(crate) public_key: String,
}

/// A value that counts as `named` for a call because a person endorsed it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct EndorsedNote {
    pub(crate) approval_id: String,
    pub(crate) role: &'static str,
    /// Collection, or form of destination.
    pub(crate) collection: String,
}

impl ApprovalNote {
    pub(crate) const fn new(id: String, event: ApprovalEvent) -> Self {
        Self {
            id,
            event,
            by: Vec::new(),
            why: "",
            digest: String::new(),
            card_digests: Vec::new(),
            queues: Vec::new(),
            held: Vec::new(),
            endorsed: Vec::new(),
            answer: None,
        }
    }

    /// The note with the queues that the event counts in.
    pub(crate) fn with_queues(mut self, held: Vec<HeldQueue>) -> Self {
        self.queues = held.iter().map(|one| one.queue.clone()).collect();
        self.held = held;
        self
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
    /// SHA-256 of the card that the person was shown.
    pub(crate) card_digest: String,
    /// Signature of the passkey.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) assertion: Option<AssertionNote>,
    /// Time from the first look to the answer.
    pub(crate) decided_in_ms: i64,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub(crate) reject_reason: String,
    /// The person endorsed the values of the call.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub(crate) endorses: bool,
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
