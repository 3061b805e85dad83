//! Approvals of calls that stepped up: their digest, records, bounds and changes.
//!
//! [`StepUpCall`] is a call whose step-up people can answer: its queues, and the records that it reads and writes. `digest` hashes a
//! call, so that an answer covers exactly that call. `draft` makes the record of a new approval, `tally` bounds the number of open
//! approvals, and `changes` passes changes to waiting callers. The stage *settle* uses all of them under its locks.

mod changes;
mod digest;
mod draft;
mod guards;
mod method;
mod tally;

use authz_kernel::decision::{Outcome, Principal, StepUpGround, Time};
use authz_kernel::digest::short;
use authz_kernel::hex::hex_start;
use authz_kernel::history::pair_digest;
use authz_kernel::model::{ApprovalRules, Model};
use authz_kernel::reason::ReasonCode;
use authz_kernel::routes::Body;
use authz_kernel::task::approval::{
    Approval, ApprovalGround, ApprovalStatus, CONFIRM, IgnoredValue, is_person_kind,
};
use authz_kernel::task::{RecordKey, RecordKind, hmac};

use crate::judgement::{Judgement, name_of};
use crate::locate::Located;
use crate::refusal::{CallRefusal, Step};
use crate::request::{CallRequest, RequestTarget};
use crate::world::Loaded;

pub use self::changes::ApprovalChange;
pub(crate) use self::changes::ApprovalChanges;
pub(crate) use self::draft::{NewApproval, ignored_parts, needs_passkey};
pub use self::guards::Guard;
pub(crate) use self::guards::holds;
#[cfg(feature = "test-support")]
pub use self::guards::remove_guard;
pub(crate) use self::method::AnswerMethod;
pub(crate) use self::tally::{
    close, confirm_tally, earlier_values, held_queues, open_approvals, remember_values, rule_label,
    tallies_of, tally_ids,
};

/// Members of the request of a call that approvals read.
#[derive(Clone, Copy, Debug)]
pub(crate) struct AskedCall<'s> {
    /// Id of the approval that the call presents. Empty if it presents none.
    pub(crate) approval_id: &'s str,
    /// Labels that the enforcer reports for the call.
    pub(crate) labels: &'s [&'s str],
    /// Path and body of an HTTP request.
    pub(crate) http: Option<(&'s str, Body<'s>)>,
}

impl<'s> AskedCall<'s> {
    pub(crate) fn of(request: &'s CallRequest<'_>) -> Self {
        let http = match &request.target {
            RequestTarget::Http { path, body, .. } => Some((*path, *body)),
            RequestTarget::Operation { .. } => None,
        };
        Self { approval_id: request.approval_id, labels: &request.labels, http }
    }
}

/// Domain of the keyed hash that names the record of a call.
const RECORD_DOMAIN: &[u8] = b"authz approval 1";
/// Domain of the keyed hash that names the calls that a rejection covers.
const REJECT_DOMAIN: &[u8] = b"authz rejection 1";
/// Domain of the keyed hash that names the last approved call of an operation.
const APPROVED_DOMAIN: &[u8] = b"authz approved call 1";

/// Returns whether a call stepped up and people can answer the step-up.
pub(crate) fn asks_people(judgement: &Judgement) -> bool {
    judgement.outcome() == Outcome::StepUp
        && judgement.softened().is_none()
        && !judgement.is_beyond_credential()
        && judgement.decision().is_some_and(|decision| {
            decision.is_judged
                && decision.step_up.is_some()
                && decision.kinds.iter().any(|kind| is_person_kind(kind))
        })
}

/// A call whose step-up people can answer.
#[derive(Clone, Debug)]
pub(crate) struct StepUpCall {
    /// Record of its approval.
    pub(crate) approval: RecordKey,
    /// Record of a rejection that covers the call.
    pub(crate) rejected: RecordKey,
    /// Record of the last approved call of the same pair and operation.
    pub(crate) approved: RecordKey,
    /// Tallies of its queues, its task and its agent.
    pub(crate) tallies: Vec<RecordKey>,
    /// SHA-256 of the call.
    pub(crate) digest: [u8; 32],
    /// Queues that people answer, sorted.
    pub(crate) queues: Vec<String>,
    /// Digest of the pair of agent and subject.
    pub(crate) pair: String,
    /// Parts of the HTTP request that its route ignores.
    pub(crate) ignored: Vec<IgnoredValue>,
}

impl StepUpCall {
    /// Returns the call of a judgement, or `None` if it did not step up or no person can answer the step-up.
    ///
    /// `secret` is the key of the store.
    pub(crate) fn of(
        judgement: &Judgement,
        located: &Located,
        request: &AskedCall<'_>,
        world: &Loaded,
        secret: &[u8; 32],
    ) -> Option<Self> {
        if !asks_people(judgement) {
            return None;
        }
        let decision = judgement.decision()?;
        let step_up = decision.step_up.as_deref()?;
        let chain = &judgement.caller.chain;
        let model = world.plan.model();
        let queues = queues_of(&decision.kinds, chain, &model.approvals);
        let ignored = ignored_parts(judgement, request, model);
        let digest = digest::of_call(decision, request, &ignored);
        let approval = approval_key(secret, located, chain, &digest);
        let pair = pair_digest(chain);
        let rejected = record_id(secret, REJECT_DOMAIN, |add| {
            add(pair.as_bytes());
            add(decision.operation.as_bytes());
            add(decision.resource.as_bytes());
            add(&step_up.destinations.len().to_be_bytes());
            step_up.destinations.iter().for_each(|one| add(one.value.as_bytes()));
            for object in &step_up.objects {
                add(object.role.as_str().as_bytes());
                add(object.pointer.as_bytes());
                add(object.value.as_bytes());
            }
            // Without declared destinations and objects, a rejection covers only calls with the same arguments.
            if step_up.destinations.is_empty() && step_up.objects.is_empty() {
                add(&decision.arguments_digest.unwrap_or_default());
            }
        });
        let approved = record_id(secret, APPROVED_DOMAIN, |add| {
            add(pair.as_bytes());
            add(decision.operation.as_bytes());
        });
        let tallies = tally_ids(
            &queues,
            located.task.subject.as_ref(),
            located.task.kind.is_started().then_some(located.task.id.as_str()),
            chain.last().map(|caller| name_of(caller)).unwrap_or_default().as_ref(),
        );
        let tallies = tallies.into_iter().map(|id| RecordKey::new(RecordKind::ApprovalQueue, id));
        Some(Self {
            approval,
            rejected: remembered("rejected", &rejected),
            approved: remembered("approved", &approved),
            tallies: tallies.collect(),
            digest,
            queues,
            pair,
            ignored,
        })
    }

    /// Returns the key of the record of a call's approvals, whether or not it stepped up. `None` if the call was not judged.
    pub(crate) fn key_of(
        judgement: &Judgement,
        located: &Located,
        request: &AskedCall<'_>,
        model: &Model,
        secret: &[u8; 32],
    ) -> Option<RecordKey> {
        let decision = judgement.decision().filter(|decision| decision.is_judged)?;
        let ignored = ignored_parts(judgement, request, model);
        let digest = digest::of_call(decision, request, &ignored);
        Some(approval_key(secret, located, &judgement.caller.chain, &digest))
    }

    /// Records that a transaction about the call locks.
    pub(crate) fn locks(&self) -> impl Iterator<Item = &RecordKey> {
        [&self.approval, &self.rejected, &self.approved].into_iter().chain(&self.tallies)
    }

    /// Returns whether the locks of another call cover this call.
    pub(crate) fn is_locked_by(&self, other: &Self) -> bool {
        self.locks().all(|key| other.locks().any(|held| held == key))
    }

    /// Refuses an approval of another call.
    ///
    /// `presented` is the id that the call presents. Returns the generation of the id.
    pub(crate) fn generation_of(&self, presented: &str) -> Result<u64, CallRefusal> {
        match Approval::parse_id(presented) {
            Some((key, generation)) if key == self.approval => Ok(generation),
            _ => Err(mismatch()),
        }
    }
}

/// Refusal of an approval that belongs to another call.
pub(crate) fn mismatch() -> CallRefusal {
    CallRefusal {
        understood: true,
        ..CallRefusal::new(
            ReasonCode::ApprovalMismatch,
            Step::Judge,
            "`approval_id` is not an approval of this call: task, chain, operation and arguments must be the same",
        )
    }
}

/// Returns whether an approval has every rule that needs the step-up.
pub(crate) fn covers(known: &[ApprovalGround], grounds: &[StepUpGround]) -> bool {
    let stands = |ground: &StepUpGround| known.iter().any(|one| one.identity == ground.identity);
    !holds(Guard::RuleIdentity) || grounds.iter().all(stands)
}

/// Returns the current status of an approval.
pub(crate) fn status_of(approval: &Approval, now: Time) -> ApprovalStatus {
    if holds(Guard::Expiry) { approval.status_at(now) } else { approval.status }
}

/// Returns the queues of the kinds of a step-up, sorted, each once.
fn queues_of(kinds: &[String], chain: &[Principal], rules: &ApprovalRules) -> Vec<String> {
    let has_person = matches!(chain.first(), Some(Principal::User(_)));
    let people = kinds.iter().filter(|kind| is_person_kind(kind));
    let mut queues: Vec<String> = people
        .map(|kind| match kind.as_str() {
            CONFIRM if !has_person => rules.confirm_without_person.clone(),
            kind => kind.to_owned(),
        })
        .collect();
    queues.sort_unstable();
    queues.dedup();
    queues
}

/// Returns the key of the record of a call's approvals.
fn approval_key(
    secret: &[u8; 32],
    located: &Located,
    chain: &[Principal],
    digest: &[u8; 32],
) -> RecordKey {
    let id = record_id(secret, RECORD_DOMAIN, |add| {
        add(located.task.id.as_bytes());
        add_chain(chain, add);
        add(digest);
    });
    RecordKey::new(RecordKind::Approval, id)
}

/// Returns the key of a remembered answer.
fn remembered(outcome: &str, id: &str) -> RecordKey {
    RecordKey::new(RecordKind::RememberedAnswer, format!("{outcome}/{id}"))
}

/// Returns the keyed hash of parts with their lengths, as 32 hex digits.
fn record_id(
    secret: &[u8; 32],
    domain: &[u8],
    parts: impl FnOnce(&mut dyn FnMut(&[u8])),
) -> String {
    let mut text = Vec::new();
    let mut add = |part: &[u8]| {
        text.extend((part.len() as u64).to_be_bytes());
        text.extend(part);
    };
    add(domain);
    parts(&mut add);
    hex_start(&hmac(secret, &[&text]), 16)
}

fn add_chain(chain: &[Principal], add: &mut dyn FnMut(&[u8])) {
    for principal in chain {
        add(match principal {
            Principal::Agent { .. } => b"agent",
            Principal::User(_) => b"user",
            Principal::Service(_) => b"service",
        });
        add(name_of(principal).as_bytes());
    }
}

/// Returns the name of a person or an agent in the id of a tally.
pub(crate) fn tally_name(name: &str) -> String {
    short(name)
}
