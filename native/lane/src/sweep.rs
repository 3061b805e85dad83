//! Ends records whose time is up: tasks expire, permits without a report count as done, ended trees are removed.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use authz_kernel::decision::Time;
use authz_kernel::history::Event;
use authz_kernel::task::approval::{Approval, ApprovalStatus};
use authz_kernel::task::{Record, RecordKey, RecordKind, Reservation, Session, Task, TaskStatus};
use authz_state::store::{Page, Query, StoreError, Survives, Transaction};
use serde::Serialize;

use crate::approvals::{ApprovalChange, close, held_queues, open_approvals, tallies_of};
use crate::ending::{self, after};
use crate::engine::Engine;
use crate::giving;
use crate::history;
use crate::keeper::Wait;
use crate::metrics::{ApprovalEvent, CredentialEvent};
use crate::origin_records;
use crate::permits;
use crate::record::{ExpiredNote, NodeNote};
use crate::refusal::CallRefusal;
use crate::settings::Lane;

/// Records that one call looks at.
const BATCH: usize = 256;
/// Pages of one agent's tasks that are forgotten early at once.
const EARLY_PAGES: usize = 8;
/// Agents that are looked at together, and pages of them, to find the one that has most tasks.
const HOLDERS: usize = 1_000;
const HOLDER_PAGES: usize = 100;
/// Longest wait of one call for the store.
const PATIENCE: Duration = Duration::from_secs(5);

/// Work of one call.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Swept {
    /// Permits that count as done without a report.
    pub committed: u64,
    /// Permits that were given back, since nobody redeemed their credential.
    pub released: u64,
    /// Task credentials that are no longer kept.
    pub credentials: u64,
    /// Tasks whose time was up, with those below them.
    pub expired: u64,
    /// Task trees that are no longer kept.
    pub forgotten: u64,
    /// More is due: ask again at once.
    pub more: bool,
    /// Error of the store. Empty: the store did not fail.
    pub error: String,
}

impl Engine {
    /// Ends a bounded number of due records. Decisions do not depend on it: it only keeps the store small.
    #[must_use]
    pub fn sweep(&self) -> Swept {
        self.write_due_sums();
        let mut swept = Swept::default();
        if let Err(refused) = self.try_sweep(&mut swept) {
            swept.error = refused.message;
            swept.more = false;
        }
        self.count_swept(&swept);
        swept
    }

    fn count_swept(&self, swept: &Swept) {
        self.metrics.committed(swept.committed);
        self.metrics.released(swept.released);
        self.metrics.credentials_were(CredentialEvent::Expired, swept.credentials);
        self.metrics.tasks_ended(TaskStatus::Expired, swept.expired);
        self.metrics.trees_forgotten(swept.forgotten);
        if !swept.error.is_empty() {
            self.metrics.sweep_failed();
        }
    }

    fn try_sweep(&self, swept: &mut Swept) -> Result<(), CallRefusal> {
        let begun = self.clock.monotonic();
        let until = begun.checked_add(PATIENCE).unwrap_or(begun);
        let wait = Wait { until, lane: Lane::Python };
        // A node whose clock is wrong ends nothing: it would be the other nodes', too.
        self.keeper.check_clock()?;
        let now = Time(self.clock.now_ms());
        self.exchange_heads(wait)?;
        self.open_permits.sweep(now);
        self.count_approvals(wait, now)?;
        let page = Page { after: String::new(), most: BATCH };
        let due = self.keeper.find(&Query::DueBefore(now.0), &page, wait)?;
        swept.more = due.len() >= BATCH;
        let mut reservations = Vec::new();
        let mut credentials = (Vec::new(), Vec::new());
        let mut origins = (Vec::new(), Vec::new());
        let mut others = Vec::new();
        for record in due {
            match &record {
                Record::Reservation(one) => reservations.push(Arc::clone(one)),
                Record::Task(task) => {
                    let mut expired = 0;
                    self.swept_in(&task.session, wait, &mut |transaction| {
                        expired = self.expire(transaction, &task.session, &task.id, now)?;
                        Ok(expired > 0)
                    })?;
                    swept.expired = swept.expired.saturating_add(expired);
                    if expired > 0 {
                        self.record_note(NodeNote::Expired(ExpiredNote {
                            session: &task.session,
                            task: &task.id,
                            tasks: expired,
                            approval: "",
                            queues: &[],
                            was_approved: false,
                        }));
                    }
                }
                Record::Session(session) => {
                    let mut forgot = false;
                    let mut locks = self.agents_of(&session.id, wait)?;
                    locks.push(record.key());
                    self.swept_under(&locks, wait, &mut |transaction| {
                        forgot = self.forget(transaction, &session.id, now)?;
                        Ok(true)
                    })?;
                    swept.forgotten = swept.forgotten.saturating_add(u64::from(forgot));
                }
                Record::Idempotency(one) => {
                    let key = RecordKey::new(RecordKind::Idempotency, &one.id);
                    self.delete_due(
                        std::slice::from_ref(&key),
                        std::slice::from_ref(&key),
                        wait,
                        now,
                    )?;
                }
                Record::Credential(one) => {
                    credentials.0.push(record.key());
                    credentials.1.push(RecordKey::new(RecordKind::Session, &one.session));
                }
                Record::Words(one) => {
                    origins.0.push(record.key());
                    origins.1.push(RecordKey::new(RecordKind::Session, &one.session));
                }
                Record::Values(one) => {
                    origins.0.push(record.key());
                    origins.1.push(RecordKey::new(RecordKind::Session, &one.session));
                }
                Record::Proof(_) | Record::SigningKey(_) => others.push(record.key()),
                Record::Revocation(_) | Record::Lease(_) | Record::TrustDomain(_) => {}
                Record::Approval(one) if is_waiting(one) => self.expire_approval(one, wait, now)?,
                // Another call may be adding to the record, so it is removed under its own lock.
                _ => {
                    let key = record.key();
                    self.delete_due(
                        std::slice::from_ref(&key),
                        std::slice::from_ref(&key),
                        wait,
                        now,
                    )?;
                }
            }
        }
        // Nobody who brings one of those proofs again is waited for: it is refused by its time.
        self.delete_due(&others, &[], wait, now)?;
        let (keys, locks) = origins;
        self.delete_due(&keys, &locks, wait, now)?;
        let (keys, locks) = credentials;
        swept.credentials = self.delete_due(&keys, &locks, wait, now)?;
        (swept.released, swept.committed) = self.settle_due(&reservations, wait, now)?;
        self.make_room(swept, wait, now)?;
        Ok(())
    }

    /// Counts open approvals.
    fn count_approvals(&self, wait: Wait, now: Time) -> Result<(), CallRefusal> {
        self.metrics.set_open_approvals(open_approvals(&self.keeper, wait, now)?);
        Ok(())
    }

    /// Forgets ended task trees before their time where the store is nearly full: those of the agent that has most. What an
    /// administrator or denials ended stays, and so do revocations and the records of agents and pairs.
    fn make_room(&self, swept: &mut Swept, wait: Wait, now: Time) -> Result<(), CallRefusal> {
        if !self.is_nearly_full() {
            return Ok(());
        }
        let Some(agent) = self.largest_holder(wait, now)? else { return Ok(()) };
        let query = Query::TasksOf(agent);
        let mut after = String::new();
        for _ in 0..EARLY_PAGES {
            let found = self.keeper.find(&query, &Page { after, most: BATCH }, wait)?;
            let Some(last) = found.last() else { return Ok(()) };
            after = last.key().id.to_string();
            let ended = found.iter().filter_map(|record| match record {
                Record::Task(task) if may_go_early(task) => Some(task.session.clone()),
                _ => None,
            });
            let sessions: BTreeSet<String> = ended.collect();
            for session in sessions {
                let mut is_forgotten = false;
                let mut locks = self.agents_of(&session, wait)?;
                locks.push(RecordKey::new(RecordKind::Session, &session));
                self.swept_under(&locks, wait, &mut |transaction| {
                    is_forgotten = forget_early(transaction, &session, now)?;
                    Ok(is_forgotten)
                })?;
                swept.forgotten = swept.forgotten.saturating_add(u64::from(is_forgotten));
            }
            if !self.is_nearly_full() {
                return Ok(());
            }
        }
        Ok(())
    }

    /// True if the store holds four fifths of the tasks that it may hold.
    pub(crate) fn is_nearly_full(&self) -> bool {
        let (most, kept) = (self.keeper.settings().max_tasks, self.keeper.store().health().tasks);
        kept.saturating_mul(5) >= most.saturating_mul(4)
    }

    /// The agent that has most tasks, live and ended.
    fn largest_holder(&self, wait: Wait, now: Time) -> Result<Option<String>, CallRefusal> {
        let query = Query::Kind(RecordKind::Agent);
        let mut largest: Option<(u64, String)> = None;
        let mut after = String::new();
        for _ in 0..HOLDER_PAGES {
            let found = self.keeper.find(&query, &Page { after, most: HOLDERS }, wait)?;
            let Some(last) = found.last() else { break };
            after = last.key().id.to_string();
            for record in &found {
                let Record::Agent(party) = record else { continue };
                let count = party.count_tasks(now);
                if count > 0 && largest.as_ref().is_none_or(|(most, _)| count > *most) {
                    largest = Some((count, party.id.clone()));
                }
            }
        }
        Ok(largest.map(|(_, id)| id))
    }

    /// Lets permits of which nobody told count as done, and gives back those whose credential nobody redeemed in time.
    ///
    /// Returns: how many were given back, and how many count as done.
    fn settle_due(
        &self,
        permits: &[Arc<Reservation>],
        wait: Wait,
        now: Time,
    ) -> Result<(u64, u64), CallRefusal> {
        let (mut released, mut committed) = (0_u64, 0_u64);
        if permits.is_empty() {
            return Ok((released, committed));
        }
        let mut work = |transaction: &mut dyn Transaction| {
            for permit in permits {
                let key = RecordKey::new(RecordKind::Reservation, &permit.decision_id);
                let Some(Record::Reservation(permit)) = transaction.get(&key)? else { continue };
                if permit.due >= now {
                    continue;
                }
                if permit.is_unused() {
                    permits::release(transaction, &permit, now)?;
                    released = released.saturating_add(1);
                } else {
                    permits::settle_unreported(transaction, &permit, Event::Unreported, now)?;
                    transaction.delete(key);
                    committed = committed.saturating_add(1);
                }
            }
            Ok(released > 0 || committed > 0)
        };
        let survives = Survives::Crash;
        let commit = self.keeper.transact(&sessions_of(permits), survives, wait, &mut work)?;
        self.keeper.kept(commit, wait)?;
        Ok((released, committed))
    }

    fn swept_in(
        &self,
        session: &str,
        wait: Wait,
        work: &mut dyn FnMut(&mut dyn Transaction) -> Result<bool, StoreError>,
    ) -> Result<(), CallRefusal> {
        self.swept_under(&[RecordKey::new(RecordKind::Session, session)], wait, work)
    }

    fn swept_under(
        &self,
        locks: &[RecordKey],
        wait: Wait,
        work: &mut dyn FnMut(&mut dyn Transaction) -> Result<bool, StoreError>,
    ) -> Result<(), CallRefusal> {
        let commit = self.keeper.transact(locks, Survives::Crash, wait, work)?;
        self.keeper.kept(commit, wait)
    }

    /// Writes that an approval expired, and tells callers that wait for it.
    fn expire_approval(
        &self,
        approval: &Approval,
        wait: Wait,
        now: Time,
    ) -> Result<(), CallRefusal> {
        let key = RecordKey::new(RecordKind::Approval, &approval.id);
        let tallies = tallies_of(approval);
        let mut locks = tallies.clone();
        locks.push(key.clone());
        let mut ended = None;
        self.swept_under(&locks, wait, &mut |transaction| {
            ended = None;
            let Some(Record::Approval(known)) = transaction.get(&key)? else { return Ok(false) };
            // People may have answered it, or a newer one may replace it, meanwhile.
            let is_same = known.generation == approval.generation && is_waiting(&known);
            if !is_same || known.status_at(now) != ApprovalStatus::Expired {
                return Ok(false);
            }
            close(transaction, &known, &tallies, now)?;
            let event = match known.status {
                ApprovalStatus::Approved => ApprovalEvent::Unused,
                _ => ApprovalEvent::Expired,
            };
            let expired =
                Arc::new(Approval { status: ApprovalStatus::Expired, ..Approval::clone(&known) });
            transaction.put(Record::Approval(Arc::clone(&expired)));
            ended = Some((expired, event));
            Ok(true)
        })?;
        if let Some((expired, event)) = ended {
            let rules = self.world.load_full();
            let rules = rules.as_ref().map(|world| world.plan.model().approvals.clone());
            let waits: Vec<String> = match event {
                ApprovalEvent::Expired => {
                    expired.waits_for().into_iter().map(str::to_owned).collect()
                }
                _ => expired.queues.clone(),
            };
            let held = held_queues(&expired, &waits, &rules.unwrap_or_default());
            self.metrics.approval(&held, event);
            self.record_note(NodeNote::Expired(ExpiredNote {
                session: &expired.session,
                task: "",
                tasks: 0,
                approval: &expired.approval_id(),
                queues: &waits,
                was_approved: event == ApprovalEvent::Unused,
            }));
            self.approval_changes.add(ApprovalChange::of(&expired));
        }
        Ok(())
    }

    /// Writes that a task expired, and all below it.
    fn expire(
        &self,
        transaction: &mut dyn Transaction,
        session: &str,
        id: &str,
        now: Time,
    ) -> Result<u64, StoreError> {
        let key = RecordKey::new(RecordKind::Task, id);
        let Some(Record::Task(task)) = transaction.get(&key)? else { return Ok(0) };
        // It may have been used, or ended, meanwhile.
        if task.status != TaskStatus::Active || task.status_at(now) == TaskStatus::Active {
            return Ok(0);
        }
        let retention = self.keeper.settings().retention_ms;
        let status = TaskStatus::Expired;
        let count = ending::end(transaction, session, Some(id), status, now, retention)?;
        Ok(u64::from(count.ended).saturating_add(u64::from(count.expired)))
    }

    /// Removes a tree in which nothing lives.
    fn forget(
        &self,
        transaction: &mut dyn Transaction,
        id: &str,
        now: Time,
    ) -> Result<bool, StoreError> {
        let key = RecordKey::new(RecordKind::Session, id);
        let Some(Record::Session(session)) = transaction.get(&key)? else { return Ok(false) };
        if session.expires_at > now {
            return Ok(false);
        }
        let tasks = ending::of_session(transaction, id)?;
        let last = tasks.iter().filter(|task| task.status_at(now) == TaskStatus::Active);
        if let Some(deadline) = last.map(|task| task.deadline).max() {
            let expires_at = after(deadline, self.keeper.settings().retention_ms);
            let session = Session { expires_at, ..Session::clone(&session) };
            transaction.put(Record::Session(Arc::new(session)));
            return Ok(false);
        }
        giving::hand_over(transaction, &session.history, &tasks, now)?;
        for task in tasks {
            origin_records::forget_words(transaction, &task)?;
            transaction.delete(RecordKey::new(RecordKind::Task, &task.id));
        }
        origin_records::forget_values(transaction, &session)?;
        transaction.delete(key);
        Ok(true)
    }

    /// Removes records that are still due.
    fn delete_due(
        &self,
        keys: &[RecordKey],
        locks: &[RecordKey],
        wait: Wait,
        now: Time,
    ) -> Result<u64, CallRefusal> {
        if keys.is_empty() {
            return Ok(0);
        }
        let mut deleted = 0_u64;
        let mut work = |transaction: &mut dyn Transaction| {
            for key in keys {
                if transaction.get(key)?.and_then(|one| one.due()).is_some_and(|due| due < now.0) {
                    transaction.delete(key.clone());
                    deleted = deleted.saturating_add(1);
                }
            }
            Ok(deleted > 0)
        };
        let commit = self.keeper.transact(locks, Survives::Crash, wait, &mut work)?;
        self.keeper.kept(commit, wait)?;
        Ok(deleted)
    }
}

/// True if an approval waits for an answer, or for the use of its answer.
fn is_waiting(approval: &Approval) -> bool {
    matches!(approval.status, ApprovalStatus::Open | ApprovalStatus::Approved)
}

/// True if an ended task may be forgotten before its time.
fn may_go_early(task: &Task) -> bool {
    matches!(task.status, TaskStatus::Completed | TaskStatus::Aborted | TaskStatus::Expired)
}

/// Removes a tree whose tasks have all ended by themselves. Returns whether it did.
fn forget_early(
    transaction: &mut dyn Transaction,
    id: &str,
    now: Time,
) -> Result<bool, StoreError> {
    let tasks = ending::of_session(transaction, id)?;
    if tasks.is_empty() || !tasks.iter().all(|task| may_go_early(task)) {
        return Ok(false);
    }
    if let Some(session) = history::session(transaction, id)? {
        giving::hand_over(transaction, &session.history, &tasks, now)?;
        origin_records::forget_values(transaction, &session)?;
    }
    for task in tasks {
        origin_records::forget_words(transaction, &task)?;
        transaction.delete(RecordKey::new(RecordKind::Task, &task.id));
    }
    transaction.delete(RecordKey::new(RecordKind::Session, id));
    Ok(true)
}

/// The sessions of permits, each once.
fn sessions_of(permits: &[Arc<Reservation>]) -> Vec<RecordKey> {
    let mut locks: Vec<RecordKey> =
        permits.iter().map(|one| RecordKey::new(RecordKind::Session, &one.session)).collect();
    locks.sort();
    locks.dedup();
    locks
}
