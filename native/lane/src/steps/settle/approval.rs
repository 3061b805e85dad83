//! Makes, repeats or uses up the approval of a step-up that people can answer, under the locks of the call.

use std::sync::Arc;

use authz_kernel::decision::{Outcome, Time};
use authz_kernel::history::ValueFingerprint;
use authz_kernel::model::{ApprovalRules, Tier};
use authz_kernel::reason::ReasonCode;
use authz_kernel::task::approval::{
    Approval, ApprovalAnswer, ApprovalStatus, RememberedAnswer, is_person_kind,
};
use authz_kernel::task::{EndorsedCall, Record, RecordKey};
use authz_state::store::{StoreError, Transaction};

use crate::approvals::{
    AnswerMethod, ApprovalChange, Guard, NewApproval, StepUpCall, asks_people, close, covers,
    earlier_values, held_queues, holds, mismatch, needs_passkey, remember_values, status_of,
};
use crate::credential_use::PresentedCredential;
use crate::engine::Engine;
use crate::judgement::{ApprovalNote, Challenge, EndorsedNote, Judgement};
use crate::keeper::ChangeError;
use crate::locate::Located;
use crate::metrics::ApprovalEvent;
use crate::refusal::{CallRefusal, Step};
use crate::revoke;
use crate::steps::settle::charge::{Charge, judge_again};
use crate::world::Loaded;

/// Time for which the last approved call of an operation is kept for the comparison with the next call, in milliseconds.
const LAST_APPROVED_MS: i64 = 30 * 24 * 3_600 * 1_000;

/// Result of the search for the approval of a call.
#[derive(Debug)]
pub(super) enum ApprovalStep {
    /// The call did not step up, or no person can answer the step-up.
    NotAsked,
    /// The call waits for people: the verdict stays STEP_UP.
    Asked(Option<ApprovalChange>),
    /// People approved the call, or the call whose task credential this call presents. The verdict is that of the call with their
    /// answers.
    Lifted(Option<ApprovalChange>),
    /// The call needs records that are not locked.
    HasTooFewLocks(StepUpCall),
}

impl Engine {
    /// Returns the records of the call's approval. They are empty if the call needs no person.
    pub(super) fn step_up_call(
        &self,
        judgement: &Judgement,
        charge: Charge<'_>,
        located: &Located,
    ) -> Option<StepUpCall> {
        let secret = self.keeper.store().secret();
        StepUpCall::of(judgement, located, &charge.asked, charge.judging.world, &secret)
    }

    /// Refuses a presented approval that is not an approval of this call.
    pub(super) fn check_presented_approval(
        &self,
        judgement: &Judgement,
        charge: Charge<'_>,
    ) -> Result<(), CallRefusal> {
        let presented = charge.asked.approval_id;
        if presented.is_empty() || judgement.outcome() == Outcome::Deny {
            return Ok(());
        }
        let secret = self.keeper.store().secret();
        let model = charge.judging.world.plan.model();
        let key = StepUpCall::key_of(judgement, charge.located, &charge.asked, model, &secret);
        match (key, Approval::parse_id(presented)) {
            (Some(key), Some((of, _))) if key == of => Ok(()),
            _ => Err(mismatch()),
        }
    }

    /// Makes an approval for a call that stepped up, or uses the answer of people.
    ///
    /// INVARIANT (judged twice): the verdict of `judgement` is that of the call without any answer, judged under the locks. An answer
    /// counts only if the approval has each rule that needs the answer. Its use is written together with the changes of the permit.
    pub(super) fn lift(
        &self,
        transaction: &mut dyn Transaction,
        judgement: &mut Judgement,
        charge: Charge<'_>,
        current: &Located,
        presented: Option<&PresentedCredential>,
        locked: Option<&StepUpCall>,
    ) -> Result<ApprovalStep, ChangeError> {
        judgement.settlement.forget_approval();
        #[cfg(feature = "test-support")]
        self.lift_unjudged(transaction, judgement, charge, current)?;
        if !asks_people(judgement) {
            return Ok(ApprovalStep::NotAsked);
        }
        if self.lift_by_credential(judgement, charge, current, presented) {
            return Ok(ApprovalStep::Lifted(None));
        }
        let Some(call) = self.step_up_call(judgement, charge, current) else {
            return Ok(ApprovalStep::NotAsked);
        };
        if !locked.is_some_and(|locked| call.is_locked_by(locked)) {
            return Ok(ApprovalStep::HasTooFewLocks(call));
        }
        let revoked = self.keeper.revocations()?;
        revoke::of_operation(&revoked, &judgement.resolved.operation)?;
        let now = judgement.arrival.now();
        if let Some(rejected) = remembered(transaction, &call.rejected, now)?
            && holds(Guard::Rejections)
        {
            let reasons = &charge.judging.world.plan.model().approvals.reject_reasons;
            let text = reasons.get(&rejected.reject_reason).cloned();
            judgement.settlement.reject_text = text.unwrap_or_default();
            return Err(refused(
                judgement,
                ReasonCode::ApprovalRejected,
                &rejected.approval_id,
                "a person rejected this call, or one of the same operation, destinations and values",
            ));
        }
        let known = match transaction.get(&call.approval)? {
            Some(Record::Approval(known)) => Some(known),
            _ => None,
        };
        check_generation(judgement, charge, &call, known.as_deref())?;
        let Some(known) = known else {
            if self.lift_by_endorsement(judgement, charge, current, presented) {
                return Ok(ApprovalStep::Lifted(None));
            }
            return self.ask(transaction, judgement, charge, current, &call, None, "");
        };
        let stands = judgement
            .decision()
            .and_then(|decision| decision.step_up.as_deref())
            .is_some_and(|step_up| covers(&known.grounds, &step_up.grounds));
        let has_same_queues = known.queues == call.queues;
        let is_proved = has_needed_passkeys(&known, judgement, charge.judging.world);
        let is_answered = status_of(&known, now) == ApprovalStatus::Approved && stands && is_proved;
        if !is_answered && self.lift_by_endorsement(judgement, charge, current, presented) {
            return Ok(ApprovalStep::Lifted(None));
        }
        match status_of(&known, now) {
            ApprovalStatus::Open if stands && has_same_queues && is_proved => {
                self.repeat(judgement, &known, &charge.judging.world.plan.model().approvals);
                Ok(ApprovalStep::Asked(None))
            }
            ApprovalStatus::Approved if stands && is_proved => {
                self.use_approval(transaction, judgement, charge, current, &call, &known)
            }
            ApprovalStatus::Open | ApprovalStatus::Approved => {
                let why = match is_proved {
                    true => "another rule needs a step-up now",
                    false => "the call needs a passkey now",
                };
                self.ask(transaction, judgement, charge, current, &call, Some(&known), why)
            }
            ApprovalStatus::Rejected | ApprovalStatus::Expired | ApprovalStatus::Consumed => {
                self.ask(transaction, judgement, charge, current, &call, Some(&known), "")
            }
        }
    }

    /// Permits a call that policy denies now, because people approved it before. Only tests that disable the rule reach this.
    #[cfg(feature = "test-support")]
    fn lift_unjudged(
        &self,
        transaction: &mut dyn Transaction,
        judgement: &mut Judgement,
        charge: Charge<'_>,
        current: &Located,
    ) -> Result<(), ChangeError> {
        if holds(Guard::SecondJudgement) || judgement.outcome() != Outcome::Deny {
            return Ok(());
        }
        let model = charge.judging.world.plan.model();
        let secret = self.keeper.store().secret();
        let key = StepUpCall::key_of(judgement, current, &charge.asked, model, &secret);
        let Some(key) = key else { return Ok(()) };
        let now = judgement.arrival.now();
        if let Some(Record::Approval(known)) = transaction.get(&key)?
            && known.status_at(now) == ApprovalStatus::Approved
            && let Some(decision) = judgement.decision().cloned()
        {
            judgement.decided(Box::new(authz_kernel::decision::Decision {
                outcome: Outcome::Permit,
                reason: ReasonCode::Permitted,
                ..decision
            }));
        }
        Ok(())
    }

    /// Judges a call with the answers that its task credential rests on. Returns whether the call is permitted.
    fn lift_by_credential(
        &self,
        judgement: &mut Judgement,
        charge: Charge<'_>,
        current: &Located,
        presented: Option<&PresentedCredential>,
    ) -> bool {
        let Some(decision) = judgement.decision() else { return false };
        let permit = decision.redeems.zip(presented);
        let permit = permit.and_then(|(detail, presented)| presented.reservation(detail));
        let Some(permit) = permit.filter(|permit| !permit.lifted.is_empty()) else { return false };
        let Some(step_up) = decision.step_up.as_deref() else { return false };
        if !step_up.grounds.iter().all(|ground| permit.lifted.contains(&ground.identity)) {
            return false;
        }
        let kinds: Vec<String> =
            decision.kinds.iter().filter(|kind| is_person_kind(kind)).cloned().collect();
        judge_with(self, judgement, charge, current, presented, &kinds);
        if judgement.permit().is_some() {
            return true;
        }
        judge_again(self, judgement, charge.judging, current, presented);
        false
    }

    /// Judges a call with the values that people endorsed in its task. Returns whether that permits it.
    ///
    /// INVARIANT (no more than shown): an endorsement counts for a call within its operations, tier, labels and time, and only if each
    /// rule that holds the call stood in the approval.
    fn lift_by_endorsement(
        &self,
        judgement: &mut Judgement,
        charge: Charge<'_>,
        current: &Located,
        presented: Option<&PresentedCredential>,
    ) -> bool {
        let task = &current.task;
        if task.endorsements.is_empty() || !task.kind.is_started() {
            return false;
        }
        let Some((decision, step_up)) = judgement
            .decision()
            .and_then(|decision| Some((decision, decision.step_up.as_deref()?)))
        else {
            return false;
        };
        let rules: Vec<&str> =
            step_up.grounds.iter().map(|ground| ground.identity.as_str()).collect();
        let call = EndorsedCall {
            operation: &decision.operation,
            tier: decision.tier.unwrap_or(Tier::Critical),
            labels: &step_up.labels,
            rules: &rules,
            needs_passkey: needs_passkey(judgement, &charge.judging.world.plan),
            now: judgement.arrival.now(),
        };
        let endorsed = step_up.unnamed.iter().filter_map(|value| {
            let endorsement = task.endorsement(value.fingerprint, &call)?;
            let note = EndorsedNote {
                approval_id: endorsement.approval_id.clone(),
                role: value.role.as_str(),
                collection: value.collection.clone(),
            };
            Some((value.fingerprint, endorsement.by.clone(), note))
        });
        let endorsed: Vec<(ValueFingerprint, Vec<String>, EndorsedNote)> = endorsed.collect();
        let Some((_, _, first)) = endorsed.first() else { return false };
        let mut note = ApprovalNote::new(first.approval_id.clone(), ApprovalEvent::Relied);
        let lifted: Vec<String> = rules.into_iter().map(str::to_owned).collect();
        judgement.settlement.endorsed = endorsed.iter().map(|(value, _, _)| *value).collect();
        judge_again(self, judgement, charge.judging, current, presented);
        judgement.settlement.endorsed.clear();
        if judgement.permit().is_none() {
            judge_again(self, judgement, charge.judging, current, presented);
            return false;
        }
        judgement.settlement.lifted = lifted;
        for (value, by, one) in endorsed {
            judgement.settlement.relies_on.push((one.approval_id.clone(), value));
            note.by.extend(by);
            note.endorsed.push(one);
        }
        note.by.sort_unstable();
        note.by.dedup();
        judgement.settlement.approval = Some(note);
        true
    }

    /// Judges a call with the answers of its approval, and uses the approval up if that permits the call.
    fn use_approval(
        &self,
        transaction: &mut dyn Transaction,
        judgement: &mut Judgement,
        charge: Charge<'_>,
        current: &Located,
        call: &StepUpCall,
        known: &Arc<Approval>,
    ) -> Result<ApprovalStep, ChangeError> {
        let now = judgement.arrival.now();
        let presented = charge.task.presented.as_ref();
        let kinds: Vec<String> =
            known.kinds.iter().filter(|kind| is_person_kind(kind)).cloned().collect();
        judge_with(self, judgement, charge, current, presented, &kinds);
        if asks_people(judgement) {
            judge_again(self, judgement, charge.judging, current, presented);
            let why = "the answer does not lift every rule";
            return self.ask(transaction, judgement, charge, current, call, Some(known), why);
        }
        let rules = &charge.judging.world.plan.model().approvals;
        match judgement.outcome() {
            Outcome::Permit => {}
            // The call still lacks a proof of its own. The answer stays usable until the call has it.
            Outcome::StepUp => {
                self.repeat(judgement, known, rules);
                return Ok(ApprovalStep::Asked(None));
            }
            Outcome::Deny => return Ok(ApprovalStep::NotAsked),
        }
        let by: Vec<String> = known.answers.iter().map(|answer| answer.person.clone()).collect();
        let mut used = Approval::clone(known);
        used.status = ApprovalStatus::Consumed;
        judgement.settlement.lifted =
            used.grounds.iter().map(|ground| ground.identity.clone()).collect();
        let mut note = note_of(&used, ApprovalEvent::Consumed, rules);
        note.by.clone_from(&by);
        judgement.settlement.approval = Some(note);
        transaction.put(Record::RememberedAnswer(Arc::new(RememberedAnswer {
            id: call.approved.id.to_string(),
            approval_id: used.approval_id(),
            at: used.answers.last().map_or(now, |answer| answer.at),
            by,
            arguments: used.arguments.clone(),
            reject_reason: String::new(),
            expires_at: Time(now.0.saturating_add(LAST_APPROVED_MS)),
            rest: Default::default(),
        })));
        remember_values(transaction, &used, &call.tallies)?;
        let change = ApprovalChange::of(&used);
        if holds(Guard::Consumption) {
            transaction.put(Record::Approval(Arc::new(used)));
        }
        Ok(ApprovalStep::Lifted(Some(change)))
    }

    /// Makes a new approval. `why` is the reason why an earlier answer does not count. It is empty without an earlier answer.
    #[expect(clippy::too_many_arguments, reason = "they are the call, its records and its reason")]
    fn ask(
        &self,
        transaction: &mut dyn Transaction,
        judgement: &mut Judgement,
        charge: Charge<'_>,
        current: &Located,
        call: &StepUpCall,
        before: Option<&Arc<Approval>>,
        why: &'static str,
    ) -> Result<ApprovalStep, ChangeError> {
        let (world, now) = (charge.judging.world, judgement.arrival.now());
        let last = remembered(transaction, &call.approved, now)?;
        let resource = judgement
            .decision()
            .and_then(|decision| world.plan.resource_of(decision, charge.judging.request));
        let new = NewApproval {
            call,
            judgement,
            located: current,
            world,
            resource,
            before: before.map(AsRef::as_ref),
            last: last.as_deref(),
            earlier_values: earlier_values(transaction, &call.tallies)?,
        };
        let Some(approval) = new.record(now) else { return Ok(ApprovalStep::NotAsked) };
        if let Some(before) = before.filter(|before| before.status == ApprovalStatus::Open) {
            // The queues are those of the call, unless the bundle changed. Then other tallies drop the approval when it expires.
            close(transaction, before, &call.tallies, now)?;
        }
        let rules = &world.plan.model().approvals;
        if let Err(error) = call.open(transaction, rules, &approval, now) {
            let mut note = note_of(&approval, ApprovalEvent::Refused, rules);
            note.id.clear();
            judgement.settlement.approval = Some(note);
            return Err(error);
        }
        let mut note = note_of(&approval, ApprovalEvent::Made, rules);
        note.why = why;
        judgement.settlement.approval = Some(note);
        judgement.settlement.challenge = Some(self.challenge(&approval));
        let change = ApprovalChange::of(&approval);
        transaction.put(Record::Approval(Arc::new(approval)));
        Ok(ApprovalStep::Asked(Some(change)))
    }

    /// Answers with an approval that is there already.
    fn repeat(&self, judgement: &mut Judgement, known: &Approval, rules: &ApprovalRules) {
        judgement.settlement.approval = Some(note_of(known, ApprovalEvent::Repeated, rules));
        judgement.settlement.challenge = Some(self.challenge(known));
    }

    fn challenge(&self, approval: &Approval) -> Challenge {
        let id = approval.approval_id();
        let url = match self.settings.approvals.url.trim_end_matches('/') {
            "" => String::new(),
            base => format!("{base}/a/{id}"),
        };
        Challenge { id, url, expires_at: approval.ends_at() }
    }
}

/// Whether an approval was made for answers with a passkey, or has no other ones, where its call needs passkeys now: the tier of the
/// call may have risen, and a reload may have changed what its agents control.
fn has_needed_passkeys(known: &Approval, judgement: &Judgement, world: &Loaded) -> bool {
    let is_by_passkey = |answer: &ApprovalAnswer| answer.method == AnswerMethod::Passkey.as_str();
    let is_answered = known.status == ApprovalStatus::Approved;
    known.needs_passkey
        || (is_answered && known.answers.iter().all(is_by_passkey))
        || !needs_passkey(judgement, &world.plan)
}

/// Notes an event of an approval in all of its queues.
fn note_of(approval: &Approval, event: ApprovalEvent, rules: &ApprovalRules) -> ApprovalNote {
    let held = held_queues(approval, &approval.queues, rules);
    let mut note = ApprovalNote::new(approval.approval_id(), event).with_queues(held);
    note.digest.clone_from(&approval.digest);
    if event == ApprovalEvent::Consumed {
        let cards = approval.answers.iter().map(|answer| answer.card_digest.clone());
        note.card_digests = cards.filter(|digest| !digest.is_empty()).collect();
    }
    note
}

/// Judges a call again, as if these step-up kinds were met.
fn judge_with(
    engine: &Engine,
    judgement: &mut Judgement,
    charge: Charge<'_>,
    current: &Located,
    presented: Option<&PresentedCredential>,
    kinds: &[String],
) {
    let stated = judgement.caller.satisfied.clone();
    judgement.caller.satisfied.extend_from_slice(kinds);
    judge_again(engine, judgement, charge.judging, current, presented);
    judgement.caller.satisfied = stated;
}

/// Refuses a presented approval that is no longer valid.
fn check_generation(
    judgement: &mut Judgement,
    charge: Charge<'_>,
    call: &StepUpCall,
    known: Option<&Approval>,
) -> Result<(), ChangeError> {
    let presented = charge.asked.approval_id;
    if presented.is_empty() {
        return Ok(());
    }
    let generation = call.generation_of(presented)?;
    let Some(known) = known.filter(|known| known.generation >= generation) else {
        return Err(refused(
            judgement,
            ReasonCode::ApprovalMismatch,
            presented,
            "there is no such approval",
        ));
    };
    let (reason, message) = match status_of(known, judgement.arrival.now()) {
        _ if known.generation > generation => {
            (ReasonCode::ApprovalExpired, "a newer approval of the call replaces this one")
        }
        ApprovalStatus::Open | ApprovalStatus::Approved => return Ok(()),
        ApprovalStatus::Expired => (ReasonCode::ApprovalExpired, "the approval has expired"),
        ApprovalStatus::Consumed => {
            (ReasonCode::ApprovalExpired, "the approval was used: it permits one call")
        }
        ApprovalStatus::Rejected => {
            let text = known.rejection().map(|answer| answer.reject_text.clone());
            judgement.settlement.reject_text = text.unwrap_or_default();
            (ReasonCode::ApprovalRejected, "a person rejected the call")
        }
    };
    Err(refused(judgement, reason, presented, message))
}

/// Returns the refusal of a call, and writes it to the record of the call.
fn refused(
    judgement: &mut Judgement,
    reason: ReasonCode,
    approval_id: &str,
    message: &str,
) -> ChangeError {
    let note = ApprovalNote::new(approval_id.to_owned(), ApprovalEvent::Refused);
    judgement.settlement.approval = Some(note);
    let refused = CallRefusal::new(reason, Step::Judge, message);
    ChangeError::Refused(CallRefusal { understood: true, ..refused })
}

/// Returns a remembered answer that has not expired.
fn remembered(
    transaction: &mut dyn Transaction,
    key: &RecordKey,
    now: Time,
) -> Result<Option<Arc<RememberedAnswer>>, StoreError> {
    Ok(match transaction.get(key)? {
        Some(Record::RememberedAnswer(one)) if one.expires_at > now => Some(one),
        _ => None,
    })
}
