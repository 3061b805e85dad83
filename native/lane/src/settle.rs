//! Steps 5 and 6: the decision, and what its answer changes.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Instant;

use authz_kernel::decide::{decide, decide_traced};
use authz_kernel::decision::{Decision, Facts, Given, Request, Time};
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
use crate::engine::{Changing, Engine, Kept, Stop, kernel_facts};
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
use crate::tasks::is_due_for_touch;
use crate::world::Loaded;

/// How long an enforcer's key is remembered.
const KEY_MS: u64 = 120_000;

/// What is judged.
pub(crate) struct Judging<'a> {
    pub(crate) world: &'a Loaded,
    pub(crate) request: &'a Request<'a>,
    /// Nobody is known to act.
    pub(crate) is_nobody: bool,
    /// The permit is kept, so that a credential can be issued of it.
    pub(crate) wants_credential: bool,
    /// The task credential that is presented.
    pub(crate) presented: Option<Presented>,
    /// The key of the enforcer that it is asked under.
    pub(crate) key: Option<EnforcerKey>,
    pub(crate) explain: bool,
    /// Key of the literals of tasks.
    pub(crate) secret: [u8; 32],
}

impl Judging<'_> {
    /// Asks policy; the answer is the judgement's.
    pub(crate) fn decide(&self, judgement: &mut Judgement, located: Option<&Located>) {
        self.decide_with(judgement, located, self.presented.as_ref());
    }

    /// As [`Judging::decide`], by the credential as it stands now.
    fn decide_with(
        &self,
        judgement: &mut Judgement,
        located: Option<&Located>,
        presented: Option<&Presented>,
    ) {
        let chain = std::mem::take(&mut judgement.caller.chain);
        let known = if self.is_nobody { &[] } else { chain.as_slice() };
        let view = located.map(Located::view);
        let granted = presented.map(Presented::grants);
        let granted = granted.as_deref();
        let history = judgement.context.recalled.view();
        let directories = Some(&self.world.directories);
        let facts = Facts {
            granted,
            history,
            directories,
            ..kernel_facts(judgement, known, view, Some(&self.secret))
        };
        let now = judgement.arrival.now();
        let plan = &self.world.plan;
        let decision = if self.explain {
            decide_traced(plan, &facts, self.request, now)
        } else {
            decide(plan, &facts, self.request, now)
        };
        judgement.caller.chain = chain;
        let detail = decision.redeems.zip(presented);
        let of = detail.and_then(|(detail, one)| one.decision_id(detail));
        if let Some(note) = &mut judgement.caller.credential {
            of.unwrap_or_default().clone_into(&mut note.decision_id);
        }
        judgement.decided(decision);
    }
}

/// Which records of agent, subject and pair a call locks besides its session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum LockedParties {
    /// Records that the decision changes.
    Changed,
    /// Records that the decision reads or changes.
    Recalled,
    /// The decision was made again under the locks, and changes a record that is not among them.
    TooFew,
}

/// The session of an agent that works without tasks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Implied {
    /// It begins with the decision.
    New,
    /// It stands in the store already.
    Kept,
}

/// The key of an enforcer that executes at most once a key.
pub(crate) struct EnforcerKey {
    id: String,
    digest: String,
}

/// The call is permitted as a task of the MCP server's own, which its task must note.
fn notes_call(judgement: &Judgement) -> bool {
    judgement.permit().is_some_and(|permit| permit.decision().server_call)
}

impl Engine {
    /// The session of an agent that works without tasks: that of the pair of agent and subject, whatever else the caller
    /// sends. None of any other agent.
    pub(crate) fn implied(
        &self,
        judgement: &mut Judgement,
        plan: &Plan,
        wait: Wait,
    ) -> Result<Option<(Located, Implied)>, Refused> {
        let Some(agent) = &judgement.caller.facts.agent else { return Ok(None) };
        if !plan.model().is_implicit(&agent.spiffe_id) {
            return Ok(None);
        }
        let now = judgement.arrival.now();
        let Some(id) = task::implicit_id(&judgement.caller.chain) else { return Ok(None) };
        if let Some(task) = self.keeper.task(&id, wait)?
            && (task.status_at(now) == TaskStatus::Active || task.is_barred(now))
        {
            let Some(task) = renewed(plan, &task)? else { return Ok(None) };
            judgement.context.task = Some(Arc::clone(&task));
            let located = Located { task, ancestors: Vec::new() };
            self.usable(&located, judgement, now)?;
            return Ok(Some((located, Implied::Kept)));
        }
        let acr =
            judgement.caller.facts.subject.as_ref().and_then(|subject| subject.acr.as_deref());
        let task = task::implicit(plan, &judgement.caller.chain, acr.unwrap_or_default(), now)
            .map_err(|refused| Refused::new(refused.reason, Step::Locate, refused.message))?;
        let Some(mut task) = task else { return Ok(None) };
        shown::begin(judgement, &mut task);
        history::may_begin(&self.keeper, &task, (now, wait))?;
        let located = Located { task: Arc::new(task), ancestors: Vec::new() };
        let revoked = self.keeper.revocations()?;
        revoke::of_tasks(&revoked, located.path())?;
        Ok(Some((located, Implied::New)))
    }

    /// What bounds a call of an agent that works without tasks, as the bundle says now.
    pub(crate) fn bounded_now(found: Located, plan: &Plan) -> Result<Located, Refused> {
        if found.task.kind != TaskKind::Implicit {
            return Ok(found);
        }
        let task = renewed(plan, &found.task)?.ok_or_else(locate::unknown)?;
        Ok(Located { task, ..found })
    }

    /// What the caller does without a task, where the request has to do with what it did so before.
    pub(crate) fn taskless(
        &self,
        judgement: &Judgement,
        plan: &Plan,
        request: &Request<'_>,
    ) -> Result<Option<Located>, Refused> {
        if !plan.recalls_taskless(request.operation, !request.labels.is_empty()) {
            return Ok(None);
        }
        let Some(located) = Located::taskless(judgement) else { return Ok(None) };
        self.usable(&located, judgement, judgement.arrival.now())?;
        Ok(Some(located))
    }

    /// Refuses a request that stopped early and is of no task, where what its caller may do without one was taken away.
    pub(crate) fn refuse_taken_away(
        &self,
        judgement: &Judgement,
        plan: &Plan,
        wait: Wait,
    ) -> Result<(), Refused> {
        if !plan.model().tasks.optional {
            return Ok(());
        }
        let Some(located) = Located::taskless(judgement) else { return Ok(()) };
        let now = judgement.arrival.now();
        self.usable(&located, judgement, now)?;
        history::refuse_taken_away(&self.keeper, &located.task, now, wait)
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

    /// Changes what the answer changes, in one transaction with its record.
    ///
    /// Returns: none where nothing changed: then the record is still to be written.
    pub(crate) fn settled(
        &self,
        judgement: &mut Judgement,
        judging: &Judging<'_>,
        call: &Changing<'_>,
        located: Option<Located>,
        implied: Option<Implied>,
    ) -> Result<Option<Kept>, Refused> {
        judgement.soften();
        let is_new = implied == Some(Implied::New);
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
                    || judging.presented.is_some()
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
            Some(located) => self.charge(judgement, judging, call, located, implied, key),
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
        judging: &Judging<'_>,
        call: &Changing<'_>,
        located: &Located,
        implied: Option<Implied>,
        key: Option<&EnforcerKey>,
    ) -> Result<Option<Kept>, Refused> {
        let begins = implied == Some(Implied::New);
        // Another node may have changed each record that the call reads.
        let mut locked = match self.keeper.store().is_remote() {
            true => LockedParties::Recalled,
            false => LockedParties::Changed,
        };
        let kept = self.charge_under(judgement, judging, call, located, begins, key, &mut locked);
        match locked {
            LockedParties::TooFew => {
                locked = LockedParties::Recalled;
                let again =
                    self.charge_under(judgement, judging, call, located, begins, key, &mut locked);
                match locked {
                    LockedParties::TooFew => Err(Refused::new(
                        ReasonCode::Unavailable,
                        Step::Record,
                        "what the call depends on changed meanwhile; ask again",
                    )),
                    LockedParties::Changed | LockedParties::Recalled => again,
                }
            }
            LockedParties::Changed | LockedParties::Recalled => kept,
        }
    }

    /// The records of agent, subject and pair that a call is settled under.
    fn party_locks(
        judgement: &Judgement,
        judging: &Judging<'_>,
        located: &Located,
        locked: LockedParties,
    ) -> Vec<(Holder, RecordKey)> {
        let (plan, operation) = (&judging.world.plan, judgement.resolved.operation.as_str());
        let chain = || located.task.chain();
        let carries = !judging.request.labels.is_empty();
        if locked == LockedParties::Changed && judging.presented.is_none() {
            let changes = history::changes(judgement);
            return history::changed_parties(plan, operation, changes, chain);
        }
        let remembering = judgement.context.recalled.remembering();
        history::parties(plan, (operation, carries), remembering, chain)
    }

    /// The records of the pairs that a call is settled under because a later task inherits from them.
    fn pair_locks(
        judgement: &Judgement,
        judging: &Judging<'_>,
        located: &Located,
        is_new: bool,
        locked: LockedParties,
    ) -> Vec<RecordKey> {
        let changes = history::changes(judgement);
        let passes = changes.is_some_and(HistoryChanges::pass_on);
        let mut locks = match passes || is_new || locked == LockedParties::Recalled {
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
    #[expect(clippy::too_many_arguments, reason = "what one call is settled by")]
    fn charge_under(
        &self,
        judgement: &mut Judgement,
        judging: &Judging<'_>,
        call: &Changing<'_>,
        located: &Located,
        begins: bool,
        key: Option<&EnforcerKey>,
        locked: &mut LockedParties,
    ) -> Result<Option<Kept>, Refused> {
        let now = judgement.arrival.now();
        let mut locks = vec![RecordKey::new(RecordKind::Session, &located.task.session)];
        if begins {
            locks.push(RecordKey::new(RecordKind::Agent, located.task.assignee()));
            locks.extend(history::counted_in(&located.task.chain()));
        }
        if located.is_taskless() && judgement.context.recalled.is_new() {
            locks.extend(Holder::Agent.key(&located.task.chain()));
        }
        locks.extend(key.map(EnforcerKey::record));
        let parties = Self::party_locks(judgement, judging, located, *locked);
        let holders: SmallVec<[Holder; 3]> = parties.iter().map(|(holder, _)| *holder).collect();
        locks.extend(parties.into_iter().map(|(_, record)| record));
        let passes = history::changes(judgement).is_some_and(HistoryChanges::pass_on);
        let pairs = Self::pair_locks(judgement, judging, located, begins, *locked);
        let locked_above = pairs.clone();
        let has_pairs = passes || begins || *locked == LockedParties::Recalled;
        locks.extend(pairs);
        locks.extend(judgement.context.recalled.object_keys());
        // What restricts a pair restricts the agent that leaves the subject out.
        let alones = task::alones_of(&judging.world.plan, &located.task);
        let carrier = task::carrier_of(&judging.world.plan, located.view());
        let carriers = alones.iter().map(|alone| &alone.id).chain(&carrier);
        locks.extend(carriers.map(|id| RecordKey::new(RecordKind::Session, id)));
        let survives = survives(judgement);
        let mut began = false;
        let mut ended = Ended::default();
        let kept =
            self.change(judgement, call, &locks, survives, &mut |transaction, judgement| {
                if let Some(key) = key {
                    key.refuse_known(transaction, now)?;
                }
                let plan = &judging.world.plan;
                // Whether what bounds the session is to be written: it begins, or the bundle or the subject says otherwise now.
                let mut is_new = false;
                let current = match located.task.kind {
                    // It is nowhere kept as a task.
                    TaskKind::None => located.clone(),
                    TaskKind::Implicit => {
                        self.unstarted(transaction, plan, located, (begins, now), &mut is_new)?
                    }
                    TaskKind::Root | TaskKind::Child => {
                        locate::find_in(transaction, &located.task.id)?
                    }
                };
                let is_begun = begins && Arc::ptr_eq(&current.task, &located.task);
                self.usable(&current, judgement, now)?;
                let begun = match is_begun {
                    true => {
                        let retention = self.keeper.settings().retention_ms;
                        let task = &current.task;
                        let begun =
                            history::begin_unstarted(transaction, plan, task, now, retention)?;
                        Some(Arc::new(begun))
                    }
                    false => None,
                };
                let presented = match &judgement.caller.facts.credential {
                    Some(facts) => Some(presented::find_in(transaction, facts, now)?),
                    None => None,
                };
                let has_more =
                    history::recall_in(transaction, plan, judgement, &current, begun.clone())?;
                if has_more || current != *located || presented != judging.presented {
                    let started = Instant::now();
                    if !current.is_taskless() {
                        judgement.context.task = Some(Arc::clone(&current.task));
                        judgement.caller.chain = shown::chain_in(judgement, &current);
                    }
                    judging.decide_with(judgement, Some(&current), presented.as_ref());
                    judgement.add_decide_time(started.elapsed());
                    judgement.soften();
                }
                let is_locked = |holder: &Holder| holders.contains(holder);
                let concerns = |holder: &Holder| {
                    history::changes(judgement).is_some_and(|changes| changes.concern(*holder))
                };
                let passes = history::changes(judgement).is_some_and(HistoryChanges::pass_on);
                let lacks = |holder: &Holder| concerns(holder) && !is_locked(holder);
                let above = history::changes(judgement)
                    .map(|changes| history::above(&judging.world.plan, &current, changes, now));
                let lacks_above = |one: &history::Above| !locked_above.contains(&one.key);
                let lacks_above = above.is_some_and(|above| above.iter().any(lacks_above));
                if Holder::PARTIES.iter().any(lacks) || (passes && !has_pairs) || lacks_above {
                    *locked = LockedParties::TooFew;
                    return Err(Stop::Unchanged);
                }
                let revoked = self.keeper.revocations()?;
                revoke::of_operation(&revoked, &judgement.resolved.operation)?;
                let is_passed = judgement.passage().is_some();
                if !is_passed && history::changes(judgement).is_none() {
                    return Err(Stop::Unchanged);
                }
                began = is_begun;
                judgement.settlement.is_open = false;
                if let Some(one) = presented.as_ref().filter(|_| is_passed) {
                    let by = (&current, one);
                    judgement.settlement.is_open |=
                        self.redeem(transaction, judgement, judging, by, now);
                }
                if is_passed || is_new {
                    judgement.settlement.is_open |=
                        self.reserve(transaction, judgement, judging, &current, is_new, now)?;
                }
                if let Some(session) = begun {
                    transaction.put(Record::Session(session));
                }
                let is_held = judgement.settlement.is_open || history::changes(judgement).is_some();
                if current.is_taskless() && is_held {
                    let room = |all: &mut dyn Transaction| self.room_taskless(all, &current.task);
                    history::hold(transaction, &current.task, (is_passed, now), room)?;
                }
                let redeemed = presented
                    .as_ref()
                    .filter(|_| is_passed)
                    .and_then(|one| one.decision_id(judgement.evaluated()?.redeems?));
                let wants = judging.wants_credential;
                history::remember(transaction, plan, judgement, &current, wants, redeemed)?;
                let changes = history::changes(judgement);
                if let Some(top) = changes.and_then(HistoryChanges::ended_task) {
                    ended = self.end_denied(transaction, &current.task, top, now)?;
                }
                let bars = changes.is_some_and(HistoryChanges::bars_agent);
                history::carry(transaction, plan, judgement, &current, (&alones, bars))?;
                if let Some(alone) = &carrier {
                    history::end_carried_run(transaction, judgement, alone)?;
                }
                if let Some(key) = key.filter(|_| is_passed) {
                    key.keep(transaction, judgement, now);
                }
                Ok(())
            })?;
        if kept.is_some() && began {
            self.metrics.task_started(TaskKind::Implicit);
        }
        if kept.is_some() {
            self.metrics.tasks_ended(TaskStatus::Revoked, u64::from(ended.ended));
            self.metrics.tasks_ended(TaskStatus::Expired, u64::from(ended.expired));
        }
        if kept.is_some() && judgement.redeems() {
            self.metrics.credential(CredentialEvent::Redeemed);
        }
        Ok(kept)
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
        let ended = ending::end(transaction, &task.session, Some(top), status, now, retention)?;
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
        is_new: bool,
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
        let is_kept = judging.presented.is_none() && (judging.wants_credential || !leaves_nothing);
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
            subject_until: shown::ends(judgement),
            idempotency: judging.key.as_ref().map(|key| key.id.clone()),
            rest: BTreeMap::new(),
        }
    }

    /// The session of an agent that works without tasks, as it is now: another call may have been faster.
    ///
    /// Args:
    /// * `is_new`: set where it is to be written whatever the decision charges.
    fn unstarted(
        &self,
        transaction: &mut dyn Transaction,
        plan: &Plan,
        located: &Located,
        (begins, now): (bool, Time),
        is_new: &mut bool,
    ) -> Result<Located, Stop> {
        let key = RecordKey::new(RecordKind::Task, &located.task.id);
        if let Some(Record::Task(known)) = transaction.get(&key)?
            && (known.status_at(now) == TaskStatus::Active || known.is_barred(now))
        {
            let task = renewed(plan, &known)?.ok_or_else(locate::unknown)?;
            *is_new = !Arc::ptr_eq(&task, &known);
            return Ok(Located { task, ancestors: Vec::new() });
        }
        if begins {
            *is_new = true;
            self.room(transaction, &located.task, now)?;
        }
        Ok(located.clone())
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
        if self.keys.admit(judgement.arrival.asker.name(), Instant::now()) {
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

/// What bounds the calls of an agent that works without tasks, as the bundle says now; none where the bundle no longer lets the
/// agent do so.
fn renewed(plan: &Plan, known: &Arc<Task>) -> Result<Option<Arc<Task>>, Refused> {
    task::renewed(plan, known)
        .map_err(|refused| Refused::new(refused.reason, Step::Locate, refused.message))
}
