//! Answers an approval.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use authz_kernel::decision::{Given, Request, Subject, Time};
use authz_kernel::hex::hex;
use authz_kernel::history::ValueFingerprint;
use authz_kernel::reason::ReasonCode;
use authz_kernel::task::approval::{
    Approval, ApprovalAnswer, ApprovalStatus, CONFIRM, RememberedAnswer,
};
use authz_kernel::task::{
    EndorsedValue, Endorsement, MAX_ENDORSED, Record, RecordKey, RecordKind, SubjectProof, Task,
    TaskStatus,
};
use authz_state::store::{StoreError, Survives, Transaction};
use prost::Message as _;

use super::approver::approve_arguments;
use super::passkeys::passkey_key;
use super::person::Person;
use super::{APPROVE_OPERATION, answered_tallies, check_generation, error_of, unknown, wire_form};
use crate::api_call::{ApiCaller, ApiOutcome, GrantedChange, WithRecord as _};
use crate::approvals::{AnswerMethod, ApprovalChange, close, rule_label, status_of, tallies_of};
use crate::engine::{Engine, own};
use crate::judgement::{
    AnswerNote, ApiNotes, ApiRecord, ApprovalNote, AssertionNote, CallerIdentity,
};
use crate::keeper::ChangeError;
use crate::limits;
use crate::metrics::{ApprovalEvent, HeldQueue};
use crate::proto::authz::v1 as wire;
use crate::refusal::{CallRefusal, Step};
use crate::request::{check_id, check_length};
use crate::revoke;
use crate::settings::Surface;
use crate::transport::{ApiError, Transport};
use crate::world::Loaded;

/// Time in which an answer can be used, in milliseconds.
const GOOD_MS: i64 = 10 * 60 * 1_000;
/// Length of a SHA-256, in bytes.
const DIGEST: usize = 32;

/// Answer of a person.
struct GivenAnswer {
    key: RecordKey,
    generation: u64,
    approves: bool,
    /// The person endorses the values of the call, too.
    endorses: bool,
    digest: String,
    card_digest: String,
    comment: String,
    reject_reason: String,
    /// Queue that the person answers for. If it is empty, the only queue that the person may answer.
    queue: String,
}

impl GivenAnswer {
    fn read(message: &wire::ResolveRequest) -> Result<Self, CallRefusal> {
        check_id("approval_id", &message.approval_id)?;
        check_id("queue", &message.queue)?;
        check_id("reject_reason", &message.reject_reason)?;
        check_length("comment", &message.comment, limits::REASON)?;
        let approves = match wire::ApprovalStatus::try_from(message.status) {
            Ok(wire::ApprovalStatus::Approved) => true,
            Ok(wire::ApprovalStatus::Rejected) => false,
            _ => return Err(CallRefusal::input("`status` is not APPROVED or REJECTED")),
        };
        for (name, digest) in [("digest", &message.digest), ("card_digest", &message.card_digest)] {
            if digest.len() != DIGEST {
                return Err(CallRefusal::input(format!("`{name}` is not a SHA-256: 32 bytes")));
            }
        }
        if approves && !message.reject_reason.is_empty() {
            return Err(CallRefusal::input("`reject_reason` is only valid with REJECTED"));
        }
        if message.endorse && !approves {
            return Err(CallRefusal::input("`endorse` goes with APPROVED"));
        }
        let (key, generation) = Approval::parse_id(&message.approval_id).ok_or_else(unknown)?;
        Ok(Self {
            key,
            generation,
            approves,
            endorses: message.endorse,
            digest: hex(&message.digest),
            card_digest: hex(&message.card_digest),
            comment: message.comment.clone(),
            reject_reason: message.reject_reason.clone(),
            queue: message.queue.clone(),
        })
    }
}

/// Answer of a stated person.
#[derive(Clone, Copy, Debug)]
pub struct StatedAnswer<'a> {
    /// False: the person rejects the call.
    pub approves: bool,
    /// The person endorses the values of the call, too.
    pub endorses: bool,
    /// Queue that the person answers for; empty: the only one that the person may answer.
    pub queue: &'a str,
    /// Of a rejection: a name of the bundle's `reject_reasons`; may be empty.
    pub reason: &'a str,
    /// True: the person uses a passkey. False: the person logs in.
    pub has_passkey: bool,
}

/// An answered approval, and its event.
struct Answered {
    approval: Arc<Approval>,
    event: ApprovalEvent,
    /// Queue that the person answered for, with its rules.
    held: HeldQueue,
    decided_in_ms: i64,
    /// The values of the call are endorsed from now on.
    endorsed: bool,
}

impl Engine {
    /// Approves or rejects an approval for a person.
    ///
    /// `person` is JSON, and `request` an `authz.v1.ResolveRequest`. The answer is an `authz.v1.ResolveResponse`. Each call, also a
    /// refused one, has an audit record.
    ///
    /// # Errors
    /// The person or the way of authentication may not answer the approval, the approval is not open, a digest is not that of the call,
    /// or the store failed.
    pub fn approval_resolve(&self, person: &[u8], request: &[u8]) -> Result<Vec<u8>, ApiError> {
        let resolve = || self.resolve_approval(person, request);
        catch_unwind(AssertUnwindSafe(resolve)).unwrap_or_else(|_| Err(self.failed_inside()))
    }

    fn resolve_approval(&self, person: &[u8], request: &[u8]) -> Result<Vec<u8>, ApiError> {
        let person = Person::read(person).map_err(error_of)?;
        let message: wire::ResolveRequest =
            self.decode(request, "the bytes are no ResolveRequest").map_err(error_of)?;
        let Some(person) = person else {
            let message = "the owner of the administration socket cannot answer. Map the user to a person under `approvals.people` of the configuration";
            return Err(error_of(CallRefusal::new(
                ReasonCode::NotPermitted,
                Step::Identify,
                message,
            )));
        };
        let answered = self.answer_for(&person, &message)?;
        let rules = self.host_world().map_err(error_of)?;
        let rules = &rules.plan.model().approvals;
        let approval = wire_form::whole(&answered.approval, rules, Time(self.clock.now_ms()));
        Ok(wire::ResolveResponse { approval: Some(approval) }.encode_to_vec())
    }

    /// Answers an approval for the person of a test step, who counts as having seen the call.
    pub(crate) fn answer_stated(
        &self,
        subject: Subject,
        approval_id: &str,
        answer: StatedAnswer<'_>,
    ) -> Result<(), ApiError> {
        let StatedAnswer { approves, endorses, queue, reason, has_passkey } = answer;
        let method = if has_passkey { AnswerMethod::Passkey } else { AnswerMethod::Login };
        let person = Person::stated(subject, method, Time(self.clock.now_ms()));
        let known = self.find_approval(approval_id, self.host_wait()).map_err(error_of)?;
        let status = match approves {
            true => wire::ApprovalStatus::Approved,
            false => wire::ApprovalStatus::Rejected,
        };
        let message = wire::ResolveRequest {
            approval_id: approval_id.to_owned(),
            status: status as i32,
            digest: wire_form::bytes_of(&known.digest),
            card_digest: vec![0; DIGEST],
            queue: queue.to_owned(),
            endorse: endorses,
            reject_reason: reason.to_owned(),
            ..wire::ResolveRequest::default()
        };
        self.answer_for(&person, &message).map(drop)
    }

    /// Answers an approval for a person and writes the audit record.
    fn answer_for(
        &self,
        person: &Person,
        message: &wire::ResolveRequest,
    ) -> Result<Answered, ApiError> {
        let world = self.host_world().map_err(error_of)?;
        let transport = Transport::at("", self.clock.monotonic());
        let caller = ApiCaller {
            arrival: self.arrival(Surface::ApprovalResolve, Some(Arc::clone(&world)), &transport),
            world,
            identity: CallerIdentity {
                chain: vec![person.principal.clone()],
                ..CallerIdentity::default()
            },
            evidence: Vec::new(),
            is_owner: false,
            transport: &transport,
            line: self.recorded(&transport),
            wait: self.host_wait(),
            operation: APPROVE_OPERATION,
        };
        let outcome = self.answer_approval(message, person, &caller);
        let (record, answered) = self.conclude_call(caller, outcome);
        let answered = self
            .answer_of(&record, answered)
            .inspect_err(|_| self.metrics.approval(&[], ApprovalEvent::Refused))?;
        let held = std::slice::from_ref(&answered.held);
        self.metrics.approval(held, answered.event);
        if answered.endorsed {
            self.metrics.approval(held, ApprovalEvent::Endorsed);
        }
        self.metrics.approval_decided(&answered.held, answered.decided_in_ms);
        self.approval_changes.add(ApprovalChange::of(&answered.approval));
        Ok(answered)
    }

    fn answer_approval(
        &self,
        message: &wire::ResolveRequest,
        person: &Person,
        caller: &ApiCaller<'_>,
    ) -> ApiOutcome<Answered> {
        let mut refused = ApprovalNote::new(message.approval_id.clone(), ApprovalEvent::Refused);
        refused.by.push(person.name.clone());
        refused.id.truncate(64);
        let notes = ApiNotes { approval: Some(refused), ..ApiNotes::default() };
        let record = ApiRecord { notes, ..ApiRecord::default() };
        self.write_answer(message, person, caller, &record).with_record(&record)
    }

    fn write_answer(
        &self,
        message: &wire::ResolveRequest,
        person: &Person,
        caller: &ApiCaller<'_>,
        record: &ApiRecord,
    ) -> ApiOutcome<Answered> {
        let answer = GivenAnswer::read(message)?;
        let revoked = self.keeper.revocations()?;
        let (issuer, sub) = (&person.subject.issuer, &person.subject.sub);
        revoke::of_person(&revoked, issuer, sub, person.authenticated_at)?;
        let known = self.find_approval(&message.approval_id, caller.wait)?;
        let tallies = tallies_of(&known);
        let rejected = RecordKey::new(RecordKind::RememberedAnswer, &known.rejects);
        let passkey = person.passkey.as_ref().map(|one| {
            passkey_key(&person.subject.issuer, &person.subject.sub, &one.credential_id)
        });
        let mut locks = vec![answer.key.clone(), rejected.clone()];
        // Endorsements are kept in the task.
        if known.in_task && (answer.endorses || !answer.approves) {
            locks.push(RecordKey::new(RecordKind::Session, &known.session));
        }
        locks.extend(tallies.iter().cloned());
        locks.extend(passkey.clone());
        self.change_granted(caller, record, &locks, Survives::PowerLoss, &mut |transaction| {
            let known = match transaction.get(&answer.key)? {
                Some(Record::Approval(known)) => known,
                _ => return Err(unknown().into()),
            };
            check_generation(&known, answer.generation)?;
            let public_key = match &passkey {
                None => String::new(),
                Some(key) => match transaction.get(key)? {
                    Some(Record::Passkey(stored)) => stored.public_key.clone(),
                    _ => {
                        return Err(not_permitted("the passkey is not one of the person's").into());
                    }
                },
            };
            let queue = self.check_answer(caller, person, &known, &answer)?;
            let mut answered =
                answered(&known, person, &answer, &queue, &caller.world, caller.now());
            let is_open = answered.approval.status == ApprovalStatus::Open;
            let closed =
                if is_open { answered_tallies(&answered.approval) } else { tallies.clone() };
            close(transaction, &answered.approval, &closed, caller.now())?;
            if answered.event == ApprovalEvent::Rejected {
                remember_rejection(transaction, &rejected, &answered.approval, caller.now());
                forget_endorsed(transaction, &answered.approval)?;
            }
            if answered.event == ApprovalEvent::Approved && answered.approval.is_endorsed() {
                let approval = Arc::make_mut(&mut answered.approval);
                endorse(transaction, approval, caller.now())?;
                answered.endorsed = true;
            }
            transaction.put(Record::Approval(Arc::clone(&answered.approval)));
            let notes = ApiNotes {
                approval: Some(note_of(&answered, person, &answer, public_key)),
                ..ApiNotes::default()
            };
            let (tier, task) = (Some(answered.approval.tier), None);
            let record = ApiRecord { notes, tier, task, ..ApiRecord::default() };
            let what = answered.event.as_str();
            Ok(GrantedChange::new(answered, format!("the person's answer: {what}"))
                .with_record(record))
        })
    }

    /// Refuses an answer that the person may not give. Returns the queue of the answer.
    fn check_answer(
        &self,
        caller: &ApiCaller<'_>,
        person: &Person,
        known: &Approval,
        answer: &GivenAnswer,
    ) -> Result<String, CallRefusal> {
        let (world, now) = (&caller.world, caller.now());
        if known.digest != answer.digest {
            return Err(CallRefusal::new(
                ReasonCode::ApprovalMismatch,
                Step::Judge,
                "`digest` is not that of the call: show the approval again",
            ));
        }
        match status_of(known, now) {
            ApprovalStatus::Open => {}
            ApprovalStatus::Expired => return Err(ended("the approval has expired")),
            ApprovalStatus::Approved | ApprovalStatus::Rejected | ApprovalStatus::Consumed => {
                return Err(ended("the approval was answered already"));
            }
        }
        if person.has_answered(known) {
            return Err(not_permitted("the person has answered this approval already"));
        }
        let roles = person.roles(world);
        let waits = known.waits_for();
        let mut mine = waits.into_iter().filter(|queue| {
            (answer.queue.is_empty() || *queue == answer.queue)
                && person.is_of_queue(known, queue, &roles, world, now)
        });
        let Some(queue) = mine.next() else {
            return Err(not_permitted(match person.is_subject_of(known) {
                true => "the subject of a call cannot approve it",
                false => "the person belongs to no queue that waits for an answer",
            }));
        };
        if mine.next().is_some() {
            return Err(CallRefusal::input(
                "the person may answer for several queues; name one as `queue`",
            ));
        }
        if !person.is_proved_for(known) {
            return Err(not_permitted(match known.needs_passkey {
                true => {
                    "the call is answered with a passkey: its tier is high, or its agent controls a browser, a desktop or a shell"
                }
                false => "the person logged in before the call was made; log in again",
            }));
        }
        if !answer.approves {
            let reasons = &world.plan.model().approvals.reject_reasons;
            if !answer.reject_reason.is_empty() && !reasons.contains_key(&answer.reject_reason) {
                return Err(CallRefusal::input(
                    "`reject_reason` is not a name of the bundle's `approvals.reject_reasons`",
                ));
            }
        } else if !known.cannot_be_shown.is_empty() {
            return Err(CallRefusal::input(format!(
                "the call cannot be shown whole ({}), so it can only be rejected",
                known.cannot_be_shown
            )));
        }
        if answer.endorses && known.endorses.is_none() {
            return Err(CallRefusal::input(
                "`endorse`: the rules that hold the call let nobody endorse its values; approve this call only",
            ));
        }
        if queue != CONFIRM {
            self.check_approver(caller, person, known, queue)?;
        }
        Ok(queue.to_owned())
    }

    /// Refuses a person without a permit for `authz.approve`.
    fn check_approver(
        &self,
        caller: &ApiCaller<'_>,
        person: &Person,
        known: &Approval,
        queue: &str,
    ) -> Result<(), CallRefusal> {
        let arguments = approve_arguments(known, queue);
        let request =
            Request { arguments: Given::Json(arguments.as_bytes()), ..own(APPROVE_OPERATION) };
        let chain = std::slice::from_ref(&person.principal);
        self.check_permitted(caller, chain, Some(SubjectProof::Verified), &request)
    }
}

/// Returns the approval after an answer.
fn answered(
    known: &Approval,
    person: &Person,
    answer: &GivenAnswer,
    queue: &str,
    world: &Loaded,
    now: Time,
) -> Answered {
    let mut approval = known.clone();
    let reasons = &world.plan.model().approvals.reject_reasons;
    approval.shown_at = approval.shown_at.or(Some(now));
    approval.answers.push(ApprovalAnswer {
        queue: queue.to_owned(),
        approved: answer.approves,
        endorses: answer.endorses,
        person: person.name.clone(),
        roles: person.roles(world),
        method: person.method.as_str().to_owned(),
        acr: person.acr.clone(),
        authenticated_at: person.authenticated_at,
        at: now,
        card_digest: answer.card_digest.clone(),
        passkey: person.passkey.clone().filter(|_| person.method == AnswerMethod::Passkey),
        reject_reason: answer.reject_reason.clone(),
        reject_text: reasons.get(&answer.reject_reason).cloned().unwrap_or_default(),
        comment: answer.comment.clone(),
    });
    let event = if !answer.approves {
        approval.status = ApprovalStatus::Rejected;
        ApprovalEvent::Rejected
    } else if approval.waits_for().is_empty() {
        approval.status = ApprovalStatus::Approved;
        approval.good_until = Some(Time(now.0.saturating_add(GOOD_MS)));
        ApprovalEvent::Approved
    } else {
        ApprovalEvent::Answered
    };
    let shown_at = approval.shown_at.unwrap_or(now);
    let rules = &world.plan.model().approvals;
    let held = HeldQueue { queue: queue.to_owned(), rule: rule_label(&approval, queue, rules) };
    Answered {
        decided_in_ms: now.0.saturating_sub(shown_at.0).max(0),
        approval: Arc::new(approval),
        event,
        held,
        endorsed: false,
    }
}

/// Stores a rejection for the `memory` of the agent and subject.
fn remember_rejection(
    transaction: &mut dyn Transaction,
    key: &RecordKey,
    approval: &Approval,
    now: Time,
) {
    let rejection = approval.rejection();
    transaction.put(Record::RememberedAnswer(Arc::new(RememberedAnswer {
        id: key.id.to_string(),
        approval_id: approval.approval_id(),
        at: now,
        by: rejection.map(|one| one.person.clone()).into_iter().collect(),
        arguments: String::new(),
        reject_reason: rejection.map(|one| one.reject_reason.clone()).unwrap_or_default(),
        expires_at: Time(now.0.saturating_add(approval.memory_ms)),
        rest: Default::default(),
    })));
}

/// Keeps the values of an approved call in its task as endorsed.
///
/// # Errors
/// The task has ended, or has as many endorsed values as it may.
fn endorse(
    transaction: &mut dyn Transaction,
    approval: &mut Approval,
    now: Time,
) -> Result<(), ChangeError> {
    let approval_id = approval.approval_id();
    let Some(offer) = &mut approval.endorses else { return Ok(()) };
    let task = task_of(transaction, &approval.task)?;
    let Some(mut task) = task.filter(|task| task.status_at(now) == TaskStatus::Active) else {
        return Err(CallRefusal::new(
            ReasonCode::TaskEnded,
            Step::Locate,
            "`endorse`: the task has ended, and endorsements end with it",
        )
        .into());
    };
    let until = Time(now.0.saturating_add(offer.within_ms)).min(approval.expires_at);
    let values = approval
        .unnamed
        .iter()
        .map(|one| EndorsedValue { fingerprint: one.fingerprint, uses_left: offer.uses });
    let endorsement = Endorsement {
        approval_id,
        by: approval.answers.iter().map(|answer| answer.person.clone()).collect(),
        by_passkey: approval
            .answers
            .iter()
            .all(|answer| answer.method == AnswerMethod::Passkey.as_str()),
        operations: offer.operations.clone(),
        rules: approval.grounds.iter().map(|ground| ground.identity.clone()).collect(),
        tier: approval.tier,
        labels: approval.labels.clone(),
        until,
        values: values.collect(),
    };
    offer.until = Some(until);
    if !Arc::make_mut(&mut task).endorse(endorsement, now) {
        return Err(CallRefusal::new(
            ReasonCode::Overloaded,
            Step::Judge,
            format!("`endorse`: the task has as many endorsed values as it may, {MAX_ENDORSED}; approve this call only"),
        )
        .into());
    }
    transaction.put(Record::Task(task));
    Ok(())
}

/// Forgets endorsements of the values of a rejected call.
fn forget_endorsed(
    transaction: &mut dyn Transaction,
    approval: &Approval,
) -> Result<(), StoreError> {
    if !approval.in_task {
        return Ok(());
    }
    let values: Vec<ValueFingerprint> =
        approval.unnamed.iter().map(|one| one.fingerprint).collect();
    if let Some(mut task) = task_of(transaction, &approval.task)?
        && Arc::make_mut(&mut task).forget_endorsed(&values)
    {
        transaction.put(Record::Task(task));
    }
    Ok(())
}

fn task_of(transaction: &mut dyn Transaction, id: &str) -> Result<Option<Arc<Task>>, StoreError> {
    Ok(match transaction.get(&RecordKey::new(RecordKind::Task, id))? {
        Some(Record::Task(task)) => Some(task),
        _ => None,
    })
}

fn note_of(
    answered: &Answered,
    person: &Person,
    answer: &GivenAnswer,
    public_key: String,
) -> ApprovalNote {
    let approval = &answered.approval;
    let assertion = person.passkey.as_ref().map(|one| AssertionNote {
        authenticator_data: one.authenticator_data.clone(),
        client_data: one.client_data_json.clone(),
        signature: one.signature.clone(),
        public_key,
    });
    let mut note = ApprovalNote::new(approval.approval_id(), answered.event)
        .with_queues(vec![answered.held.clone()]);
    note.by.push(person.name.clone());
    note.digest.clone_from(&approval.digest);
    note.answer = Some(AnswerNote {
        method: person.method.as_str().to_owned(),
        acr: person.acr.clone(),
        passkey: person.passkey.as_ref().map(|one| one.credential_id.clone()).unwrap_or_default(),
        card_digest: answer.card_digest.clone(),
        assertion,
        decided_in_ms: answered.decided_in_ms,
        reject_reason: answer.reject_reason.clone(),
        endorses: answer.endorses,
    });
    note
}

fn not_permitted(message: &str) -> CallRefusal {
    CallRefusal::new(ReasonCode::NotPermitted, Step::Judge, message)
}

fn ended(message: &str) -> CallRefusal {
    CallRefusal::new(ReasonCode::ApprovalExpired, Step::Judge, message)
}
