//! The changes of a call in a task: uses, reservations, history, and the end of a task that was denied too much.

use std::sync::Arc;

use authz_kernel::decision::Time;
use authz_kernel::history::{HistoryChanges, Holder, pair_keys};
use authz_kernel::plan::Plan;
use authz_kernel::reason::ReasonCode;
use authz_kernel::task::{
    self, Record, RecordKey, RecordKind, Task, TaskKind, TaskStatus, alone_pair,
};
use authz_state::store::{StoreError, Transaction};
use smallvec::SmallVec;

use crate::approvals::{ApprovalChange, AskedCall, StepUpCall};
use crate::credential_use::{self, PresentedCredential};
use crate::ending::{self, Ended};
use crate::engine::Engine;
use crate::history;
use crate::judgement::Judgement;
use crate::keeper::ChangeError;
use crate::locate::{self, Located};
use crate::metrics::CredentialEvent;
use crate::refusal::{CallRefusal, Step};
use crate::revoke;
use crate::shown;
use crate::steps::judge::PolicyQuery;
use crate::steps::locate::{CallTask, renewed};
use crate::steps::record::{ChangeContext, KeptRecord};
use crate::steps::settle::approval::ApprovalStep;
use crate::steps::settle::key::EnforcerKey;
use crate::steps::settle::survives;

/// Records of agent, subject and pair that a call locks besides its session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum LockedParties {
    /// Records that the decision changes.
    Changed,
    /// Records that the decision reads or changes.
    Recalled,
}

/// A call in a task whose changes are to be written.
#[derive(Clone, Copy)]
pub(super) struct Charge<'s> {
    pub(super) judging: &'s PolicyQuery<'s>,
    pub(super) call: &'s ChangeContext<'s>,
    pub(super) asked: AskedCall<'s>,
    pub(super) task: &'s CallTask,
    pub(super) key: Option<&'s EnforcerKey>,
    pub(super) located: &'s Located,
}

/// Records that are locked while changes are written.
struct Locks {
    keys: Vec<RecordKey>,
    holders: SmallVec<[Holder; 3]>,
    /// Records of pairs that a later task inherits from, and of agents above the task.
    pairs: Vec<RecordKey>,
    has_pairs: bool,
    /// The call, if people can answer its step-up.
    step_up: Option<StepUpCall>,
}

impl Locks {
    /// True if a decision that was made under the locks changes a record that is not locked.
    fn are_too_few(&self, judgement: &Judgement, plan: &Plan, current: &Located) -> bool {
        let Some(changes) = history::changes(judgement) else { return false };
        let lacks = |holder: &Holder| changes.concern(*holder) && !self.holders.contains(holder);
        let above = history::above(plan, current, changes, judgement.arrival.now());
        Holder::PARTIES.iter().any(lacks)
            || (changes.pass_on() && !self.has_pairs)
            || above.iter().any(|one| !self.pairs.contains(&one.key))
    }
}

/// The task of a call as a transaction reads it.
struct Current {
    located: Located,
    /// True if the task's record is written whether or not the decision charges it: the task begins, or the bundle or the subject
    /// has changed it.
    is_new: bool,
}

/// Result of writing the changes of a call.
#[derive(Default)]
struct Charged {
    /// The session of the call began.
    began: bool,
    /// Tasks that ended because too much was denied in them.
    ended: Ended,
    /// The call was judged again under the locks, and now changes a record that is not locked.
    has_too_few_locks: bool,
    /// The call, if people can answer its step-up.
    step_up: Option<StepUpCall>,
    /// Change of its approval.
    change: Option<ApprovalChange>,
}

/// Judges a call again, on the records that a transaction reads.
pub(super) fn judge_again(
    engine: &Engine,
    judgement: &mut Judgement,
    judging: &PolicyQuery<'_>,
    current: &Located,
    presented: Option<&PresentedCredential>,
) {
    if !current.is_taskless() {
        judgement.context.task = Some(Arc::clone(&current.task));
        judgement.caller.chain =
            shown::chain_in(&judgement.caller, judgement.arrival.now(), current);
    }
    let answer = judging.ask(engine, judgement, Some(current), presented);
    judgement.judge_by(answer);
    judgement.soften();
    judging.compare_shadow(engine, judgement, Some(current), presented);
}

impl Engine {
    /// Writes what a call in a task changes: uses, reservation, history.
    pub(super) fn charge(
        &self,
        judgement: &mut Judgement,
        charge: Charge<'_>,
    ) -> Result<Option<KeptRecord>, CallRefusal> {
        // In a shared store, another node may have changed any record that the call reads.
        let first = match self.keeper.store().is_remote() {
            true => LockedParties::Recalled,
            false => LockedParties::Changed,
        };
        let mut step_up = self.step_up_call(judgement, charge, charge.located);
        // The call may need the locks of its approval first, and then those of the permit that the approval gives it.
        for locked in [first, LockedParties::Recalled, LockedParties::Recalled] {
            let charged = self.charge_under(judgement, charge, locked, step_up.take());
            if charged.is_err() {
                self.count_approval(judgement, None);
            }
            let (kept, charged) = charged?;
            if charged.has_too_few_locks {
                step_up = charged.step_up;
                continue;
            }
            if kept.is_some() {
                self.count_charged(judgement, &charged);
            }
            return Ok(kept);
        }
        Err(CallRefusal::new(
            ReasonCode::Unavailable,
            Step::Record,
            "what the call depends on changed meanwhile; ask again",
        ))
    }

    fn count_charged(&self, judgement: &Judgement, charged: &Charged) {
        if charged.began {
            self.metrics.task_started(TaskKind::Implicit);
        }
        self.metrics.tasks_ended(TaskStatus::Revoked, u64::from(charged.ended.ended));
        self.metrics.tasks_ended(TaskStatus::Expired, u64::from(charged.ended.expired));
        if judgement.redeems() {
            self.metrics.credential(CredentialEvent::Redeemed);
        }
        self.count_approval(judgement, charged.change.as_ref());
    }

    /// Counts the event of a call's approval and wakes its watchers.
    fn count_approval(&self, judgement: &Judgement, change: Option<&ApprovalChange>) {
        if let Some(note) = &judgement.settlement.approval {
            self.metrics.approval(&note.held, note.event);
        }
        if let Some(change) = change {
            self.approval_changes.add(change.clone());
        }
    }

    /// The records of agent, subject and pair that a call locks.
    fn party_locks(
        judgement: &Judgement,
        Charge { judging, located, task, .. }: Charge<'_>,
        locked: LockedParties,
    ) -> Vec<(Holder, RecordKey)> {
        let (plan, operation) = (&judging.world.plan, judgement.resolved.operation.as_str());
        let chain = || located.task.chain();
        let carries = !judging.request.labels.is_empty();
        if locked == LockedParties::Changed && task.presented.is_none() {
            let changes = history::changes(judgement);
            return history::changed_parties(plan, operation, changes, chain);
        }
        let remembering = judgement.context.recalled.remembering();
        history::parties(plan, operation, carries, remembering, chain)
    }

    /// The records of pairs that a call locks because a later task inherits from them, and of agents above its task.
    fn pair_locks(
        judgement: &Judgement,
        Charge { judging, located, .. }: Charge<'_>,
        has_pairs: bool,
    ) -> Vec<RecordKey> {
        let changes = history::changes(judgement);
        let mut locks = match has_pairs {
            true => pair_keys(&located.task.chain()),
            false => Vec::new(),
        };
        locks.extend(alone_pair(&judging.world.plan, &located.task).filter(|_| !locks.is_empty()));
        let now = judgement.arrival.now();
        if let Some(changes) = changes {
            let above = history::above(&judging.world.plan, located, changes, now);
            locks.extend(above.into_iter().map(|one| one.key));
        }
        locks
    }

    /// As [`Engine::charge`], under one choice of locks.
    fn charge_under(
        &self,
        judgement: &mut Judgement,
        charge: Charge<'_>,
        locked: LockedParties,
        step_up: Option<StepUpCall>,
    ) -> Result<(Option<KeptRecord>, Charged), CallRefusal> {
        let locks = Self::locks(judgement, charge, locked, step_up);
        let mut charged = Charged::default();
        let survives = survives(judgement);
        let kept = self.change(
            judgement,
            charge.call,
            &locks.keys,
            survives,
            &mut |transaction, judgement| {
                charged = self.charge_in(transaction, judgement, charge, &locks)?;
                match charged.has_too_few_locks {
                    true => Err(ChangeError::Unchanged),
                    false => Ok(()),
                }
            },
        )?;
        Ok((kept, charged))
    }

    /// All records that a call locks.
    fn locks(
        judgement: &Judgement,
        charge: Charge<'_>,
        locked: LockedParties,
        step_up: Option<StepUpCall>,
    ) -> Locks {
        let Charge { judging, task, key, located, .. } = charge;
        let plan = &judging.world.plan;
        let chain = || located.task.chain();
        let session = |id: &String| RecordKey::new(RecordKind::Session, id);
        let mut keys = vec![session(&located.task.session)];
        if task.begins() {
            keys.push(RecordKey::new(RecordKind::Agent, located.task.assignee()));
            keys.extend(history::counted_in(&chain()));
        }
        if located.is_taskless() && judgement.context.recalled.is_new() {
            keys.extend(Holder::Agent.key(&chain()));
        }
        keys.extend(key.map(EnforcerKey::record));
        let parties = Self::party_locks(judgement, charge, locked);
        let holders = parties.iter().map(|(holder, _)| *holder).collect();
        keys.extend(parties.into_iter().map(|(_, record)| record));
        let passes = history::changes(judgement).is_some_and(HistoryChanges::pass_on);
        let has_pairs = passes || task.begins() || locked == LockedParties::Recalled;
        let pairs = Self::pair_locks(judgement, charge, has_pairs);
        keys.extend(pairs.iter().cloned());
        keys.extend(judgement.context.recalled.object_keys());
        // Restrictions of a pair also restrict the agent that leaves the subject out.
        let alones = task::alones_of(plan, &located.task);
        let carrier = task::carrier_of(plan, located.view());
        keys.extend(alones.iter().map(|alone| &alone.id).chain(&carrier).map(session));
        keys.extend(step_up.iter().flat_map(StepUpCall::locks).cloned());
        Locks { keys, holders, pairs, has_pairs, step_up }
    }

    /// Writes the changes of a call, whose records are locked.
    fn charge_in(
        &self,
        transaction: &mut dyn Transaction,
        judgement: &mut Judgement,
        charge: Charge<'_>,
        locks: &Locks,
    ) -> Result<Charged, ChangeError> {
        let Charge { judging, located, task, key, .. } = charge;
        let (plan, now) = (&judging.world.plan, judgement.arrival.now());
        if let Some(key) = key {
            key.refuse_known(transaction, now)?;
        }
        let Current { located: current, is_new } = self.current(transaction, charge, now)?;
        let begins = task.begins() && Arc::ptr_eq(&current.task, &located.task);
        self.check_usable(&current, &judgement.caller, now)?;
        let begun = match begins {
            true => {
                let retention = self.keeper.settings().retention_ms;
                let task = &current.task;
                let begun = history::begin_unstarted(transaction, plan, task, now, retention)?;
                Some(Arc::new(begun))
            }
            false => None,
        };
        let presented = match &judgement.caller.facts.credential {
            Some(facts) => Some(credential_use::find_in(transaction, facts, now)?),
            None => None,
        };
        let recalled = &judgement.context.recalled;
        let (recalled, has_more) =
            history::recall_in(transaction, plan, recalled, now, &current, begun.clone())?;
        judgement.context.recalled = recalled;
        // The verdict of an earlier round may rest on an answer that this one must look for again.
        let is_about_people = locks.step_up.is_some();
        if has_more || current != *located || presented != task.presented || is_about_people {
            judge_again(self, judgement, judging, &current, presented.as_ref());
        }
        let by_credential = presented.as_ref();
        let change = match self.lift(
            transaction,
            judgement,
            charge,
            &current,
            by_credential,
            locks.step_up.as_ref(),
        )? {
            ApprovalStep::NotAsked => None,
            ApprovalStep::Lifted(change) => change,
            ApprovalStep::Asked(change) => return Ok(Charged { change, ..Charged::default() }),
            ApprovalStep::HasTooFewLocks(call) => {
                let step_up = Some(call);
                return Ok(Charged { has_too_few_locks: true, step_up, ..Charged::default() });
            }
        };
        if locks.are_too_few(judgement, plan, &current) {
            let step_up = locks.step_up.clone();
            return Ok(Charged { has_too_few_locks: true, step_up, ..Charged::default() });
        }
        let revoked = self.keeper.revocations()?;
        revoke::of_operation(&revoked, &judgement.resolved.operation)?;
        let is_passed = judgement.passage().is_some();
        if !is_passed && history::changes(judgement).is_none() {
            return Err(ChangeError::Unchanged);
        }
        judgement.settlement.is_open = false;
        if let Some(one) = presented.as_ref().filter(|_| is_passed) {
            judgement.settlement.is_open |=
                self.redeem(transaction, judgement, charge, &current, one);
        }
        if is_passed || is_new {
            judgement.settlement.is_open |=
                self.reserve(transaction, judgement, charge, &current, is_new)?;
        }
        if let Some(session) = begun {
            transaction.put(Record::Session(session));
        }
        let ended =
            self.write_history(transaction, judgement, charge, &current, presented.as_ref())?;
        if let Some(key) = key.filter(|_| is_passed) {
            key.keep(transaction, judgement, now);
        }
        Ok(Charged { began: begins, ended, change, ..Charged::default() })
    }

    /// The task of a call as the transaction reads it.
    fn current(
        &self,
        transaction: &mut dyn Transaction,
        charge: Charge<'_>,
        now: Time,
    ) -> Result<Current, ChangeError> {
        let Charge { judging, located, task, .. } = charge;
        match located.task.kind {
            // The store has no record of it.
            TaskKind::None => Ok(Current { located: located.clone(), is_new: false }),
            TaskKind::Implicit => {
                self.unstarted(transaction, &judging.world.plan, located, task.begins(), now)
            }
            TaskKind::Root | TaskKind::Child => {
                let located = locate::find_in(transaction, &located.task.id)?;
                Ok(Current { located, is_new: false })
            }
        }
    }

    /// Adds what the verdict changes to the history of the session and of others, and ends a task that was denied too much.
    fn write_history(
        &self,
        transaction: &mut dyn Transaction,
        judgement: &Judgement,
        Charge { judging, located, .. }: Charge<'_>,
        current: &Located,
        presented: Option<&PresentedCredential>,
    ) -> Result<Ended, ChangeError> {
        let (plan, now) = (&judging.world.plan, judgement.arrival.now());
        let is_passed = judgement.passage().is_some();
        let is_held = judgement.settlement.is_open || history::changes(judgement).is_some();
        if current.is_taskless() && is_held {
            let room = |all: &mut dyn Transaction| self.check_taskless_sessions(all, &current.task);
            history::hold(transaction, &current.task, is_passed, now, room)?;
        }
        let redeemed = presented
            .filter(|_| is_passed)
            .and_then(|one| one.decision_id(judgement.evaluated()?.redeems?));
        let wants = judging.wants_credential;
        history::remember(transaction, plan, judgement, current, wants, redeemed)?;
        let changes = history::changes(judgement);
        let ended = match changes.and_then(HistoryChanges::ended_task) {
            Some(top) => self.end_denied(transaction, &current.task, top, now)?,
            None => Ended::default(),
        };
        let bars = changes.is_some_and(HistoryChanges::bars_agent);
        let alones = task::alones_of(plan, &located.task);
        history::carry(transaction, plan, judgement, current, &alones, bars)?;
        if let Some(alone) = task::carrier_of(plan, located.view()) {
            history::end_carried_run(transaction, judgement, &alone)?;
        }
        Ok(ended)
    }

    /// Ends a task that was denied too much, with all below it.
    ///
    /// `task` is the task of the call, and `top` the topmost task of its run.
    pub(crate) fn end_denied(
        &self,
        transaction: &mut dyn Transaction,
        task: &Task,
        top: &str,
        now: Time,
    ) -> Result<Ended, StoreError> {
        let retention = self.keeper.settings().retention_ms;
        let status = TaskStatus::Revoked;
        let before = history::session(transaction, &task.session)?;
        let ended = ending::end(transaction, &task.session, Some(top), status, now, retention)?;
        if task.kind == TaskKind::None
            && let Some(mut session) = history::session(transaction, &task.session)?
        {
            // An administrator who forgets the denials gives it back, which nobody does where it was revoked.
            let is_revoked = before.is_some_and(|before| before.is_revoked());
            Arc::make_mut(&mut session).denied = !is_revoked && session.ended_at.is_some();
            transaction.put(Record::Session(session));
        }
        if task.kind == TaskKind::Implicit
            && let Some(mut session) = history::session(transaction, &task.session)?
        {
            // After denials the subject may let the pair begin anew; after a revocation only the administrator may.
            Arc::make_mut(&mut session).ended_at = Some(now);
            transaction.put(Record::Session(session));
        }
        Ok(ended)
    }

    /// The session of an agent that works without tasks, as the transaction reads it: another call may have begun it.
    fn unstarted(
        &self,
        transaction: &mut dyn Transaction,
        plan: &Plan,
        located: &Located,
        begins: bool,
        now: Time,
    ) -> Result<Current, ChangeError> {
        let key = RecordKey::new(RecordKind::Task, &located.task.id);
        if let Some(Record::Task(known)) = transaction.get(&key)?
            && (known.status_at(now) == TaskStatus::Active || known.is_barred(now))
        {
            let task = renewed(plan, &known)?.ok_or_else(locate::unknown)?;
            let is_new = !Arc::ptr_eq(&task, &known);
            return Ok(Current { located: Located { task, ancestors: Vec::new() }, is_new });
        }
        if begins {
            self.admit_task(transaction, &located.task, now)?;
        }
        Ok(Current { located: located.clone(), is_new: begins })
    }
}
