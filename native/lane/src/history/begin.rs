//! Begins the sessions of tasks, with the denials and rules that earlier tasks of the agent for the subject left.

use std::sync::Arc;

use authz_kernel::decision::{Principal, Time};
use authz_kernel::history::{Holder, SessionHistory};
use authz_kernel::plan::Plan;
use authz_kernel::task::{Party, Record, RecordKey, Session, Task, is_alone};
use authz_state::store::{StoreError, Transaction};

use super::denials::{not_barred, not_denied};
use super::records::{key, known_party, pair_of, record_of, session};
use crate::ending::after;
use crate::keeper::ChangeError;
use crate::locate::Located;

/// Counts a new task in the records of its agent and of its pair, which are locked.
///
/// The task counts against the share of `chain` until `kept_until`, when it is forgotten at the latest. `free` is the number of
/// further tasks that the store has room for; `None`: so many that no share can be full.
///
/// Returns false if the share of the pair, or of the agent over all its pairs, is full. An agent has at most as many tasks as are
/// left free to others, and each of its pairs has at most as many as are left to the agent.
pub(crate) fn count_task(
    transaction: &mut dyn Transaction,
    chain: &[Principal],
    now: Time,
    kept_until: Time,
    free: Option<u64>,
) -> Result<bool, StoreError> {
    let mut held = Vec::with_capacity(2);
    for holder in [Holder::Agent, Holder::Pair] {
        if let Some(key) = holder.key(chain) {
            held.push((holder, Party::clone(&*known_party(transaction.get(&key)?, &key, now))));
        }
    }
    let counts = held.iter().map(|(_, party)| party.count_tasks(now));
    if let (Some(free), [agent, pair]) = (free, counts.collect::<Vec<u64>>().as_slice())
        && *pair >= free.saturating_sub(*agent)
    {
        return Ok(false);
    }
    for (holder, mut party) in held {
        party.add_task(kept_until, now);
        transaction.put(record_of(holder, party));
    }
    Ok(true)
}

/// Records in which a new task is counted.
pub(crate) fn counted_in(chain: &[Principal]) -> impl Iterator<Item = RecordKey> {
    let keys = [Holder::Agent, Holder::Pair].map(|holder| holder.key(chain));
    keys.into_iter().flatten()
}

/// Lets the session of a task that one agent starts for another take over the restricting rules that are complete for the giver.
pub(crate) fn inherit_from_giver<E>(
    session: &mut Session,
    giver: &[Principal],
    task: &Task,
    now: Time,
    read: impl FnOnce(&RecordKey) -> Result<Option<Record>, E>,
) -> Result<(), E> {
    let Some(key) = Holder::Pair.key(giver) else { return Ok(()) };
    let pair = known_party(read(&key)?, &key, now);
    session.history.inherit_rules(&pair.history, &task.id, now);
    Ok(())
}

/// Begins a child in the session of its tree, with the denials and rules that earlier tasks of the agent above it left for the
/// subject. An agent that denials bar does not delegate from its own tasks, and gets no task by delegation. The records of both
/// pairs are locked.
pub(crate) fn begin_child(
    transaction: &mut dyn Transaction,
    parent: &Located,
    child: &Task,
    now: Time,
) -> Result<(), ChangeError> {
    let above = pair_of(&parent.task, now, |key| transaction.get(key))?;
    not_barred(above.as_deref(), parent.view())?;
    if !child.is_given() {
        return Ok(());
    }
    not_denied(pair_of(child, now, |key| transaction.get(key))?.as_deref())?;
    let rules = above.filter(|pair| parent.view().inherits() && !pair.history.rules.is_empty());
    if let Some(pair) = rules
        && let Some(mut session) = session(transaction, &parent.task.session)?
    {
        Arc::make_mut(&mut session).history.inherit_rules(&pair.history, &child.id, now);
        transaction.put(Record::Session(session));
    }
    Ok(())
}

/// Records of pairs that are locked while a child begins.
pub(crate) fn pairs_of_child(parent: &Task, child: &Task) -> impl Iterator<Item = RecordKey> {
    [parent, child].map(|task| Holder::Pair.key(&task.chain())).into_iter().flatten()
}

/// Begins the session of a root task, with the denials and rules that earlier tasks of its agent left for its subject. The
/// pair's record is locked.
///
/// `by_agent` is true if an agent starts the task: only a subject alone or a front end begins anew after denials.
pub(crate) fn begin(
    transaction: &mut dyn Transaction,
    task: &Task,
    by_agent: bool,
    now: Time,
    retention_ms: u64,
) -> Result<Session, ChangeError> {
    let pair = pair_of(task, now, |key| transaction.get(key))?;
    if by_agent {
        not_denied(pair.as_deref())?;
    } else if let Some(pair) = &pair
        && (pair.denied_at.is_some() || !pair.history.denials.is_empty())
    {
        let mut pair = Party::clone(pair);
        pair.lift_bar();
        pair.history.forget_denials();
        transaction.put(Record::Pair(Arc::new(pair)));
    }
    Ok(begun(task, pair.as_deref(), now, retention_ms))
}

/// Session of a root task that begins now. `pair` is the record of the task's agent and subject.
pub(super) fn begun(task: &Task, pair: Option<&Party>, now: Time, retention_ms: u64) -> Session {
    let pair = pair.filter(|_| task.inherits());
    let history = pair.map(|pair| SessionHistory::inherited(&pair.history, &task.id, now));
    Session {
        id: task.session.clone(),
        root: task.id.clone(),
        tasks: 1,
        started_at: now,
        expires_at: after(task.deadline, retention_ms),
        ended_at: None,
        denied: false,
        agent: None,
        history: history.unwrap_or_default(),
        rest: Default::default(),
    }
}

/// Session of an agent alone that begins now. It keeps the history that was carried over to the stored session of the same
/// id, `known`.
pub(super) fn with_carried(
    plan: &Plan,
    mut session: Session,
    known: Option<Record>,
    task: &Task,
    now: Time,
) -> Session {
    if let Some(Record::Session(known)) = known
        && known.lasts(now)
        && is_alone(plan, task)
    {
        session.history = plan.carried_over(&known.history, now);
        session.expires_at = session.expires_at.max(known.expires_at);
    }
    session
}

/// Begins the session of an agent that works without tasks. The records of the session and of the pair are locked.
pub(crate) fn begin_unstarted(
    transaction: &mut dyn Transaction,
    plan: &Plan,
    task: &Task,
    now: Time,
    retention_ms: u64,
) -> Result<Session, ChangeError> {
    let session = begin(transaction, task, true, now, retention_ms)?;
    let known = transaction.get(&key(&task.session))?;
    Ok(with_carried(plan, session, known, task, now))
}
