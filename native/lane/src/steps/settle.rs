//! Settle: which stored records does the verdict change?

use std::collections::BTreeMap;
use std::sync::Arc;

use authz_kernel::decision::{Decision, Given, Outcome, Time};
use authz_kernel::hex::hex;
use authz_kernel::history::{HistoryChanges, Holder, pair_digest, pair_keys};
use authz_kernel::model::Tier;
use authz_kernel::plan::Plan;
use authz_kernel::reason::ReasonCode;
use authz_kernel::task::{
    self, Detail, Idempotency, Record, RecordKey, RecordKind, Reservation, Task, TaskKind,
    TaskStatus, alone_pair,
};
use authz_state::store::{StoreError, Survives, Transaction};
use prost::Message;
use sha2::{Digest, Sha256};
use smallvec::SmallVec;

use crate::answer;
use crate::ask::{Refused, Step};
use crate::ending::{self, Ended, after};
use crate::engine::Engine;
use crate::history;
use crate::judgement::{Judgement, name_of};
use crate::keeper::Wait;
use crate::locate::{self, Located};
use crate::metrics::CredentialEvent;
use crate::presented::{self, Presented};
use crate::proto::authz::v1 as wire;
use crate::revoke;
use crate::shown;
use crate::speaker;
use crate::steps::judge::{JudgedCall, Judging};
use crate::steps::locate::{CallTask, renewed};
use crate::steps::record::{Changing, Kept, Stop};
use crate::steps::{Call, EndedCall, Staged};
use crate::tasks::is_due_for_touch;
use crate::world::Loaded;

/// How long an enforcer's key is remembered.
const KEY_MS: u64 = 120_000;

/// Effects of a verdict on what is stored.
#[derive(Debug, Default)]
pub(crate) struct Settlement {
    /// The encoded answer to the same request under the same idempotency key, which this answer repeats.
    pub(crate) repeats: Option<Vec<u8>>,
    /// The permit is open until its outcome is reported.
    pub(crate) is_open: bool,
}

/// Settles a judged call: writes what its verdict changes, in one transaction with its record.
///
/// The call is judged again on what the transaction reads, where that is not what it was judged on before.
///
/// # Errors
/// The call as refused: the store failed, a share of it is full, or an idempotency key was used for another request.
pub fn settle<'a>(
    engine: &Engine,
    call: &Call<'_, 'a>,
    judged: JudgedCall<'a>,
) -> Staged<'a, EndedCall<'a>> {
    let JudgedCall { mut record, evidence, world, matched, task, is_nobody, wait } = judged;
    let request = matched.request(call.ask);
    let judging = Judging::of(engine, call, &world, &request, is_nobody);
    let changing = Changing { evidence: &evidence, recorded: call.recorded, wait };
    let named = call.ask.task.or(matched.task_in_body());
    match settle_record(engine, call, judging, &changing, task, named, &mut record) {
        Ok(kept) => Ok(EndedCall { record: Box::new(record), evidence, kept }),
        Err(refused) => Err(EndedCall::refused(record, evidence, refused)),
    }
}

/// Args: `record`: value of this stage; its verdict may change with what is read anew.
fn settle_record(
    engine: &Engine,
    call: &Call<'_, '_>,
    judging: Judging<'_>,
    changing: &Changing<'_>,
    task: CallTask,
    named: Option<&str>,
    record: &mut Judgement,
) -> Result<Option<Kept>, Refused> {
    let (plan, now, wait) = (&judging.world.plan, record.arrival.now(), changing.wait);
    // What a task credential does not cover changes nothing.
    let is_beyond = record.is_beyond_credential();
    let task = match is_beyond || call.is_dry() || task.begins() {
        true => task,
        false => engine.note_call(record, judging.world, task, wait)?,
    };
    if record.outcome() == Outcome::Permit && record.lacks_secret() {
        return Err(Refused::new(
            ReasonCode::Unavailable,
            Step::Judge,
            "the secret that the system is reached with cannot be read",
        ));
    }
    if call.is_dry() {
        return Ok(None);
    }
    // A call that was judged, or let through unjudged, shows that the agent acts for its subject.
    let is_judged = record.evaluated().is_some_and(|decision| decision.is_judged);
    if !is_beyond && (is_judged || record.passage().is_some()) {
        engine.note_subject(&record.caller, now, plan, wait)?;
    }
    let key = engine.key_of(record, call.ask.idempotency_key, &judging, named)?;
    engine.write_changes(record, &Judging { key, ..judging }, changing, &task)
}

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
struct Charge<'s> {
    judging: &'s Judging<'s>,
    call: &'s Changing<'s>,
    task: &'s CallTask,
    located: &'s Located,
}

/// Records that are locked while changes are written.
struct Locks {
    keys: Vec<RecordKey>,
    holders: SmallVec<[Holder; 3]>,
    /// Records of pairs that a later task inherits from, and of agents above the task.
    pairs: Vec<RecordKey>,
    has_pairs: bool,
}

impl Locks {
    /// Whether a decision that was made under the locks changes a record that is not locked.
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
    /// The task's record is to be written whatever the decision charges: it begins, or the bundle or the subject says
    /// otherwise now.
    is_new: bool,
}

/// What writing the changes of a call came to.
#[derive(Default)]
struct Charged {
    /// The session of the call began.
    began: bool,
    /// Tasks that ended because too much was denied in them.
    ended: Ended,
    /// The decision was made again under the locks, and changes a record that is not locked.
    has_too_few_locks: bool,
}

/// Idempotency key of an enforcer, which executes at most once a key.
pub(crate) struct EnforcerKey {
    id: String,
    digest: String,
}

/// Judges a call anew, on what a transaction reads.
fn judge_again(
    engine: &Engine,
    judgement: &mut Judgement,
    judging: &Judging<'_>,
    current: &Located,
    presented: Option<&Presented>,
) {
    let started = engine.clock.monotonic();
    if !current.is_taskless() {
        judgement.context.task = Some(Arc::clone(&current.task));
        judgement.caller.chain =
            shown::chain_in(&judgement.caller, judgement.arrival.now(), current);
    }
    judging.decide(judgement, Some(current), presented);
    judgement.add_decide_time(engine.took(started));
    judgement.soften();
}

/// The call is permitted as a task of the MCP server's own, which its task must note.
fn notes_call(judgement: &Judgement) -> bool {
    judgement.permit().is_some_and(|permit| permit.decision().server_call)
}

impl Engine {
    /// Notes in the task of a call that its agent used it, and the subject token that a task credential was presented with.
    fn note_call(
        &self,
        record: &Judgement,
        world: &Loaded,
        task: CallTask,
        wait: Wait,
    ) -> Result<CallTask, Refused> {
        let CallTask { located: Some(found), unnoted, .. } = task else { return Ok(task) };
        let now = record.arrival.now();
        if let Some(unnoted) = unnoted {
            drop(self.note_token(&record.caller, now, world, unnoted, false, wait)?);
        }
        let located = Some(self.note_use(found, now, wait)?);
        Ok(CallTask { located, unnoted: None, ..task })
    }

    /// Reads an enforcer's key. A caller that asks about itself executes nothing, and an agent must not choose what is
    /// repeated.
    pub(crate) fn key_of(
        &self,
        judgement: &Judgement,
        key: &str,
        judging: &Judging<'_>,
        task: Option<&str>,
    ) -> Result<Option<EnforcerKey>, Refused> {
        if key.is_empty() {
            return Ok(None);
        }
        let Some(enforcer) = &judgement.arrival.asker.enforcer else {
            return Err(Refused::input("only an enforcer gives an `idempotency_key`"));
        };
        let mut hash = Sha256::new();
        let mut add = |part: &str| {
            hash.update((part.len() as u64).to_be_bytes());
            hash.update(part);
        };
        add(&enforcer.name);
        // The chain names the subject, and the assignee last: no caller meets an answer that another one was given.
        add(&judgement.caller.chain.len().to_string());
        for principal in &judgement.caller.chain {
            add(&name_of(principal));
        }
        // A token that an agent may hold meets no answer of the subject alone.
        add(if speaker::alone(&judgement.caller.facts).is_some() { "alone" } else { "" });
        add(key);
        let id = format!("check/{}", hex(&hash.finalize()));
        let request = judging.request;
        let mut digest = Sha256::new();
        let mut add = |part: &[u8]| {
            digest.update((part.len() as u64).to_be_bytes());
            digest.update(part);
        };
        add(task.unwrap_or_default().as_bytes());
        let credential = judgement.caller.facts.credential.as_ref();
        add(credential.map_or("", |credential| credential.jti.as_str()).as_bytes());
        add(request.operation.as_bytes());
        match judgement.evaluated().and_then(|decision| decision.arguments_digest) {
            Some(canonical) => add(&canonical),
            None => match request.arguments {
                Given::Json(bytes) => add(bytes),
                Given::Read(value) => {
                    let mut text = String::new();
                    value.write(&mut text);
                    add(text.as_bytes());
                }
            },
        }
        add(request.resource.unwrap_or_default().as_bytes());
        // How many come first, so that no destination can be taken for a label.
        for texts in [request.destinations, request.labels, request.supported_obligations] {
            add(&(texts.len() as u64).to_be_bytes());
            texts.iter().for_each(|text| add(text.as_bytes()));
        }
        add(judgement.context.recalled.context().as_bytes());
        add(&[u8::from(judging.wants_credential)]);
        Ok(Some(EnforcerKey { id, digest: hex(&digest.finalize()) }))
    }

    /// Writes what the verdict changes, in one transaction with its record.
    ///
    /// Args: `judgement`: the record, whose verdict may change with what is read anew.
    ///
    /// Returns: none where nothing changed: then the record is still to be written.
    fn write_changes(
        &self,
        judgement: &mut Judgement,
        judging: &Judging<'_>,
        call: &Changing<'_>,
        task: &CallTask,
    ) -> Result<Option<Kept>, Refused> {
        let CallTask { located, presented, .. } = task;
        let is_new = task.begins();
        let key = judging.key.as_ref();
        if let Some(key) = key
            && let Some(kept) = self.repeated(judgement, call, key)?
        {
            return Ok(Some(kept));
        }
        let plan = &judging.world.plan;
        // What another node has just done may not be known here yet: what depends on it is judged on what the store says.
        let is_to_be_read = located.is_some()
            && self.keeper.store().is_remote()
            && plan.reads_history(&judgement.resolved.operation);
        // A denial that a rule asks for is remembered too.
        let is_remembered = located.is_some() && history::changes(judgement).is_some();
        if judgement.passage().is_none() && !is_to_be_read && !is_remembered {
            return Ok(None);
        }
        let leaves = |located: &Located| {
            (judgement.permit().is_some() || judgement.redeems())
                && (judging.wants_credential
                    || presented.is_some()
                    || notes_call(judgement)
                    || !plan.leaves_nothing(&judgement.resolved.operation, Some(&located.view())))
        };
        let is_stateful = is_to_be_read || located.as_ref().is_some_and(leaves) || is_remembered;
        if !is_stateful && !is_new && key.is_none() {
            if let Some(located) = &located {
                self.touch(judgement, call, located);
            }
            return Ok(None);
        }
        let kept = match &located {
            Some(located) => self.charge(judgement, Charge { judging, call, task, located }),
            None => self.keep_key(judgement, call, key),
        };
        let kept = match (kept, key) {
            (Err(refused), Some(key)) if refused == met() => {
                return self.repeated(judgement, call, key);
            }
            (kept, _) => kept?,
        };
        if kept.is_none() {
            // What was read anew is judged anew, and may be let through by `mode` alone.
            judgement.soften();
        }
        Ok(kept)
    }

    /// Counts the uses, keeps a reservation, and what else a permit in a task leaves behind.
    fn charge(
        &self,
        judgement: &mut Judgement,
        charge: Charge<'_>,
    ) -> Result<Option<Kept>, Refused> {
        // Another node may have changed each record that the call reads.
        let first = match self.keeper.store().is_remote() {
            true => LockedParties::Recalled,
            false => LockedParties::Changed,
        };
        for locked in [first, LockedParties::Recalled] {
            let (kept, charged) = self.charge_under(judgement, charge, locked)?;
            if charged.has_too_few_locks {
                continue;
            }
            if kept.is_some() {
                self.count_charged(judgement, &charged);
            }
            return Ok(kept);
        }
        Err(Refused::new(
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
    }

    /// The records of agent, subject and pair that a call is settled under.
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
        history::parties(plan, (operation, carries), remembering, chain)
    }

    /// The records of the pairs that a call is settled under because a later task inherits from them.
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
    ) -> Result<(Option<Kept>, Charged), Refused> {
        let locks = Self::locks(judgement, charge, locked);
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
                    true => Err(Stop::Unchanged),
                    false => Ok(()),
                }
            },
        )?;
        Ok((kept, charged))
    }

    /// The records that a call is settled under.
    fn locks(judgement: &Judgement, charge: Charge<'_>, locked: LockedParties) -> Locks {
        let Charge { judging, task, located, .. } = charge;
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
        keys.extend(judging.key.as_ref().map(EnforcerKey::record));
        let parties = Self::party_locks(judgement, charge, locked);
        let holders = parties.iter().map(|(holder, _)| *holder).collect();
        keys.extend(parties.into_iter().map(|(_, record)| record));
        let passes = history::changes(judgement).is_some_and(HistoryChanges::pass_on);
        let has_pairs = passes || task.begins() || locked == LockedParties::Recalled;
        let pairs = Self::pair_locks(judgement, charge, has_pairs);
        keys.extend(pairs.iter().cloned());
        keys.extend(judgement.context.recalled.object_keys());
        // What restricts a pair restricts the agent that leaves the subject out.
        let alones = task::alones_of(plan, &located.task);
        let carrier = task::carrier_of(plan, located.view());
        keys.extend(alones.iter().map(|alone| &alone.id).chain(&carrier).map(session));
        Locks { keys, holders, pairs, has_pairs }
    }

    /// Writes the changes of a call, whose records are locked.
    fn charge_in(
        &self,
        transaction: &mut dyn Transaction,
        judgement: &mut Judgement,
        charge: Charge<'_>,
        locks: &Locks,
    ) -> Result<Charged, Stop> {
        let Charge { judging, located, task, .. } = charge;
        let (plan, now) = (&judging.world.plan, judgement.arrival.now());
        if let Some(key) = &judging.key {
            key.refuse_known(transaction, now)?;
        }
        let Current { located: current, is_new } = self.current(transaction, charge, now)?;
        let begins = task.begins() && Arc::ptr_eq(&current.task, &located.task);
        self.usable(&current, &judgement.caller, now)?;
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
            Some(facts) => Some(presented::find_in(transaction, facts, now)?),
            None => None,
        };
        let recalled = &judgement.context.recalled;
        let (recalled, has_more) =
            history::recall_in(transaction, plan, recalled, now, &current, begun.clone())?;
        judgement.context.recalled = recalled;
        if has_more || current != *located || presented != task.presented {
            judge_again(self, judgement, judging, &current, presented.as_ref());
        }
        if locks.are_too_few(judgement, plan, &current) {
            return Ok(Charged { has_too_few_locks: true, ..Charged::default() });
        }
        let revoked = self.keeper.revocations()?;
        revoke::of_operation(&revoked, &judgement.resolved.operation)?;
        let is_passed = judgement.passage().is_some();
        if !is_passed && history::changes(judgement).is_none() {
            return Err(Stop::Unchanged);
        }
        judgement.settlement.is_open = false;
        if let Some(one) = presented.as_ref().filter(|_| is_passed) {
            let by = (&current, one);
            judgement.settlement.is_open |= self.redeem(transaction, judgement, judging, by, now);
        }
        if is_passed || is_new {
            let is_presented = task.presented.is_some();
            judgement.settlement.is_open |= self.reserve(
                transaction,
                judgement,
                judging,
                &current,
                (is_new, is_presented),
                now,
            )?;
        }
        if let Some(session) = begun {
            transaction.put(Record::Session(session));
        }
        let ended =
            self.write_history(transaction, judgement, charge, (&current, presented.as_ref()))?;
        if let Some(key) = judging.key.as_ref().filter(|_| is_passed) {
            key.keep(transaction, judgement, now);
        }
        Ok(Charged { began: begins, ended, has_too_few_locks: false })
    }

    /// The task of a call as the transaction reads it.
    fn current(
        &self,
        transaction: &mut dyn Transaction,
        charge: Charge<'_>,
        now: Time,
    ) -> Result<Current, Stop> {
        let Charge { judging, located, task, .. } = charge;
        match located.task.kind {
            // It is nowhere kept as a task.
            TaskKind::None => Ok(Current { located: located.clone(), is_new: false }),
            TaskKind::Implicit => {
                self.unstarted(transaction, &judging.world.plan, located, (task.begins(), now))
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
        (current, presented): (&Located, Option<&Presented>),
    ) -> Result<Ended, Stop> {
        let (plan, now) = (&judging.world.plan, judgement.arrival.now());
        let is_passed = judgement.passage().is_some();
        let is_held = judgement.settlement.is_open || history::changes(judgement).is_some();
        if current.is_taskless() && is_held {
            let room = |all: &mut dyn Transaction| self.room_taskless(all, &current.task);
            history::hold(transaction, &current.task, (is_passed, now), room)?;
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
        history::carry(transaction, plan, judgement, current, (&alones, bars))?;
        if let Some(alone) = task::carrier_of(plan, located.view()) {
            history::end_carried_run(transaction, judgement, &alone)?;
        }
        Ok(ended)
    }

    /// Ends a task that was denied too much, with all below it.
    ///
    /// Args: `task`: of the call; `top`: the topmost task of its run.
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
            // The subject may let the pair begin anew, which it may not where somebody else took it away.
            Arc::make_mut(&mut session).ended_at = Some(now);
            transaction.put(Record::Session(session));
        }
        Ok(ended)
    }

    /// Writes that what a task credential permits is performed now: nothing else says that it was redeemed.
    ///
    /// Returns: whether it is open what comes of it.
    fn redeem(
        &self,
        transaction: &mut dyn Transaction,
        judgement: &Judgement,
        judging: &Judging<'_>,
        (current, presented): (&Located, &Presented),
        now: Time,
    ) -> bool {
        let Some(decision) = judgement.evaluated() else { return false };
        let detail = decision.redeems;
        let Some(permit) = detail.and_then(|detail| presented.reservation(detail)) else {
            return false;
        };
        let performed = self.reservation(judgement, judging, current, decision, now);
        let mut performed = Reservation {
            charged: permit.charged.clone(),
            permitted_at: permit.permitted_at,
            credential: permit.credential.clone(),
            wants_credential: permit.wants_credential,
            redeemed: true,
            remembered_in: performed
                .remembered_in
                .iter()
                .chain(&permit.remembered_in)
                .cloned()
                .collect(),
            rest: permit.rest.clone(),
            ..performed
        };
        let is_reported = judgement.is_reported();
        if is_reported {
            // Whoever performs it knows the decision that let it, and reports that one.
            transaction.delete(RecordKey::new(RecordKind::Reservation, &permit.decision_id));
        } else {
            performed.decision_id.clone_from(&permit.decision_id);
        }
        transaction.put(Record::Reservation(Arc::new(performed)));
        is_reported
    }

    /// Writes the tasks as they are after a permit, and the reservation, unless a task credential brought one along; true
    /// where there is one.
    fn reserve(
        &self,
        transaction: &mut dyn Transaction,
        judgement: &Judgement,
        judging: &Judging<'_>,
        current: &Located,
        (is_new, is_presented): (bool, bool),
        now: Time,
    ) -> Result<bool, Stop> {
        let charges = judgement.permit().map_or(&[][..], |permit| &permit.decision().charges);
        for task in current.path() {
            let is_charged = charges.iter().any(|(id, _)| *id == task.id);
            let is_touched = is_due_for_touch(task, now);
            let is_noted = notes_call(judgement) && task.id == current.task.id;
            if !is_charged && !is_touched && !is_new && !is_noted {
                continue;
            }
            let mut task = Task::clone(task);
            task.charge(charges);
            if is_noted {
                task.note_call(&judgement.resolved.operation);
            }
            if is_touched {
                task.last_used = now;
            }
            transaction.put(Record::Task(Arc::new(task)));
        }
        let view = current.view();
        let leaves_nothing =
            judging.world.plan.leaves_nothing(&judgement.resolved.operation, Some(&view));
        let is_kept = !is_presented && (judging.wants_credential || !leaves_nothing);
        // What `mode` lets through is reported as if it were permitted.
        let is_open = history::changes(judgement).is_some_and(HistoryChanges::is_open);
        let softened = judgement.decision().filter(|_| judgement.softened().is_some() && is_open);
        let permitted = judgement.permit().map(|permit| permit.decision()).filter(|_| is_kept);
        let wants_credential = judging.wants_credential && permitted.is_some();
        let Some(decision) = permitted.or(softened) else { return Ok(false) };
        let reservation = Reservation {
            charged: charges.to_vec(),
            wants_credential,
            ..self.reservation(judgement, judging, current, decision, now)
        };
        self.room_open(&reservation, now)?;
        self.metrics.reserved();
        self.open_permits.add(&reservation);
        transaction.put(Record::Reservation(Arc::new(reservation)));
        Ok(true)
    }

    /// Refuses one more open permit of an agent or of its subject where its share of the store is full.
    pub(crate) fn room_open(&self, reservation: &Reservation, now: Time) -> Result<(), Stop> {
        let most = self.keeper.most_reservations();
        let kept = || self.keeper.store().health().reservations;
        let of = (reservation.agent.as_str(), reservation.pair.as_str());
        if self.open_permits.has_room(of, now, most, kept) {
            return Ok(());
        }
        Err(Stop::Refused(Refused::new(
            ReasonCode::Overloaded,
            Step::Record,
            "the agent has as many permits for this subject whose outcome is not reported yet as its share of the store allows",
        )))
    }

    /// What is kept of a decision by which something is performed now, charged to nothing.
    fn reservation(
        &self,
        judgement: &Judgement,
        judging: &Judging<'_>,
        current: &Located,
        decision: &Decision,
        now: Time,
    ) -> Reservation {
        let agent = judgement.caller.facts.agent.as_ref();
        let Detail { decision_id, resource, arguments_digest, destinations, .. } =
            detail_of(judging, &judgement.arrival.id, decision);
        Reservation {
            decision_id,
            task: current.task.id.clone(),
            session: current.task.session.clone(),
            operation: judgement.resolved.operation.clone(),
            charged: Vec::new(),
            enforcer: judgement.arrival.asker.name().to_owned(),
            permitted_at: now,
            due: after(now, self.keeper.settings().report_within_ms),
            resource,
            arguments_digest,
            destinations,
            tier: decision.tier.unwrap_or_default(),
            agent: agent.map(|agent| agent.spiffe_id.clone()).unwrap_or_default(),
            pair: pair_digest(&judgement.caller.chain),
            credential: None,
            wants_credential: false,
            redeemed: false,
            remembered_in: history::changes(judgement)
                .map(|changes| {
                    let plan = &judging.world.plan;
                    judgement.context.recalled.memories_of(plan, current, changes, now)
                })
                .unwrap_or_default(),
            subject_until: shown::ends(&judgement.caller),
            idempotency: judging.key.as_ref().map(|key| key.id.clone()),
            rest: BTreeMap::new(),
        }
    }

    /// The session of an agent that works without tasks, as it is now: another call may have been faster.
    fn unstarted(
        &self,
        transaction: &mut dyn Transaction,
        plan: &Plan,
        located: &Located,
        (begins, now): (bool, Time),
    ) -> Result<Current, Stop> {
        let key = RecordKey::new(RecordKind::Task, &located.task.id);
        if let Some(Record::Task(known)) = transaction.get(&key)?
            && (known.status_at(now) == TaskStatus::Active || known.is_barred(now))
        {
            let task = renewed(plan, &known)?.ok_or_else(locate::unknown)?;
            let is_new = !Arc::ptr_eq(&task, &known);
            return Ok(Current { located: Located { task, ancestors: Vec::new() }, is_new });
        }
        if begins {
            self.room(transaction, &located.task, now)?;
        }
        Ok(Current { located: located.clone(), is_new: begins })
    }

    /// A permit without a task, whose enforcer wants the same answer to the same key.
    fn keep_key(
        &self,
        judgement: &mut Judgement,
        call: &Changing<'_>,
        key: Option<&EnforcerKey>,
    ) -> Result<Option<Kept>, Refused> {
        let Some(key) = key else { return Ok(None) };
        let now = judgement.arrival.now();
        let locks = [key.record()];
        self.change(judgement, call, &locks, survives(judgement), &mut |transaction, judgement| {
            key.refuse_known(transaction, now)?;
            key.keep(transaction, judgement, now);
            Ok(())
        })
    }

    /// The answer that the same request got under the same key.
    fn repeated(
        &self,
        judgement: &mut Judgement,
        call: &Changing<'_>,
        key: &EnforcerKey,
    ) -> Result<Option<Kept>, Refused> {
        let now = judgement.arrival.now();
        let Some(Record::Idempotency(known)) = self.keeper.peek(&key.record(), call.wait)? else {
            return self.admit_key(judgement);
        };
        if known.expires_at <= now {
            return self.admit_key(judgement);
        }
        key.check(&known)?;
        // Read within a transaction, so that it is durable before it is told again.
        let locks = [key.record()];
        self.change(judgement, call, &locks, Survives::Crash, &mut |transaction, judgement| {
            let known = match transaction.get(&key.record())? {
                Some(Record::Idempotency(known)) if known.expires_at > now => known,
                _ => return Err(Stop::Refused(met())),
            };
            key.check(&known)?;
            let decision = wire::Decision::decode(known.answer.as_slice())
                .map_err(|_| Stop::Refused(met()))?;
            judgement.arrival.id.clone_from(&decision.decision_id);
            judgement.grant("the same request was answered so before, under the same key");
            judgement.settlement.repeats = Some(known.answer.clone());
            Ok(())
        })
    }

    /// One more key of an enforcer, if it has not used too many: each has its share.
    fn admit_key(&self, judgement: &Judgement) -> Result<Option<Kept>, Refused> {
        if self.keys.admit(judgement.arrival.asker.name(), self.clock.monotonic()) {
            return Ok(None);
        }
        Err(Refused::new(
            ReasonCode::Overloaded,
            Step::Record,
            "the enforcer uses more idempotency keys than it may",
        ))
    }

    /// Notes at a grain that a task is not idle. Where that fails the task only ends sooner.
    fn touch(&self, judgement: &Judgement, call: &Changing<'_>, located: &Located) {
        let now = judgement.arrival.now();
        if !located.path().any(|task| is_due_for_touch(task, now)) {
            return;
        }
        let locks = [RecordKey::new(RecordKind::Session, &located.task.session)];
        let mut work = |transaction: &mut dyn Transaction| {
            let Ok(current) = locate::find_in(transaction, &located.task.id) else {
                return Ok(false);
            };
            let lives = current.path().all(|task| task.status_at(now) == TaskStatus::Active);
            Ok(lives && self.touch_all(transaction, &current, now))
        };
        drop(self.keeper.transact(&locks, Survives::Crash, call.wait, &mut work));
    }
}

impl EnforcerKey {
    fn record(&self) -> RecordKey {
        RecordKey::new(RecordKind::Idempotency, &self.id)
    }

    fn check(&self, known: &Idempotency) -> Result<(), Refused> {
        if known.digest == self.digest {
            return Ok(());
        }
        Err(Refused::new(
            ReasonCode::IdempotencyConflict,
            Step::Record,
            "the key was used for another request",
        ))
    }

    /// Refuses a key that another call has just used: its answer is told to whoever asks again.
    fn refuse_known(&self, transaction: &mut dyn Transaction, now: Time) -> Result<(), Stop> {
        match transaction.get(&self.record())? {
            Some(Record::Idempotency(known)) if known.expires_at > now => {
                self.check(&known)?;
                Err(Stop::Refused(met()))
            }
            _ => Ok(()),
        }
    }

    fn keep(&self, transaction: &mut dyn Transaction, judgement: &Judgement, now: Time) {
        transaction.put(Record::Idempotency(Arc::new(Idempotency {
            id: self.id.clone(),
            digest: self.digest.clone(),
            answer: answer::decision(judgement).encode_to_vec(),
            expires_at: after(now, KEY_MS),
        })));
    }
}

/// Forgets the answer that a permit is told again by, where nothing came of it: the same key is then judged anew.
///
/// INVARIANT (charged as often as performed): what a report gives back, no old answer lets through.
pub(crate) fn forget_answer(
    transaction: &mut dyn Transaction,
    permit: &Reservation,
) -> Result<(), StoreError> {
    let Some(id) = &permit.idempotency else { return Ok(()) };
    let key = RecordKey::new(RecordKind::Idempotency, id);
    let Some(Record::Idempotency(known)) = transaction.get(&key)? else { return Ok(()) };
    // The key may have been used again since.
    let is_its = wire::Decision::decode(known.answer.as_slice())
        .is_ok_and(|decision| decision.decision_id == permit.decision_id);
    if is_its {
        transaction.delete(key);
    }
    Ok(())
}

/// What a decision permits, as a credential says it.
pub(crate) fn detail_of(judging: &Judging<'_>, decision_id: &str, decision: &Decision) -> Detail {
    Detail {
        decision_id: decision_id.to_owned(),
        operation: decision.operation.clone(),
        resource: judging.world.plan.resource_of(decision, judging.request),
        arguments_digest: decision.arguments_digest.map(|digest| hex(&digest)),
        destinations: decision.destinations.clone(),
    }
}

/// Two calls with one key met.
fn met() -> Refused {
    Refused::new(
        ReasonCode::Unavailable,
        Step::Record,
        "another call with the same key was answered meanwhile; ask again",
    )
}

/// What a change must survive: that of a high tier, and the end of a task, a loss of power.
fn survives(judgement: &Judgement) -> Survives {
    if history::ends_task(judgement) {
        return Survives::PowerLoss;
    }
    judgement.resolved.tier.map_or(Survives::Crash, survives_of)
}

/// What a change of that tier must survive.
pub(crate) fn survives_of(tier: Tier) -> Survives {
    if tier >= Tier::High { Survives::PowerLoss } else { Survives::Crash }
}
