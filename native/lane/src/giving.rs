//! Tasks that one agent gives to another: what the giver may have told the agent counts for it at once, and the task itself
//! only once the agent used it.
//!
//! A task that is delegated shares the session of its tree, so both sides may tell each other what was read there. The record
//! of the agent that gets the task therefore names the session until the task is over, and takes the session's labels over
//! then. Agents above a task remember what is read in it by `history`. An agent that ends a task as ABORTED before any call
//! in it declines the task: then nothing of it counts.

use std::collections::BTreeMap;
use std::sync::Arc;

use authz_kernel::decision::{Principal, Time};
use authz_kernel::history::{
    Carrier, HistoryView, Holder, LabelOrigin, Remembering, SessionHistory,
};
use authz_kernel::model::Isolation;
use authz_kernel::reason::ReasonCode;
use authz_kernel::roles::RoleIndex;
use authz_kernel::task::{Party, Record, RecordKey, RecordKind, SharedSession, Task, TaskStatus};
use authz_state::store::{Commit, Page, Query, StoreError, Survives, Transaction};

use crate::engine::Engine;
use crate::history::{counted_in, known_party, merge_labels, session, shared_labels, told_of};
use crate::keeper::ChangeError;
use crate::keeper::Wait;
use crate::locate::Located;
use crate::refusal::{CallRefusal, Step};

/// Tasks from others that the record of one agent names: about half of what a record holds, so that labels have room.
const MOST: usize = 512;
/// Sessions whose labels one change of a record takes over, where their tasks are over.
const MERGED_AT_ONCE: usize = 16;
/// Tasks that are read at once.
const PAGE: usize = 256;

/// The labels that an agent remembers of other tasks when it gives a task, and where each comes from: the agent may put such
/// data into the task's parameters.
///
/// Args:
/// * `giver`: the chain of the agent that gives the task.
/// * `path`: the task that the given one is below, and those above it.
/// * `read`: gives records.
pub(crate) fn remembered_by<'a, E>(
    roles: &RoleIndex,
    giver: &[Principal],
    path: impl Iterator<Item = &'a Arc<Task>>,
    now: Time,
    mut read: impl FnMut(&RecordKey) -> Result<Option<Record>, E>,
) -> Result<BTreeMap<String, LabelOrigin>, E> {
    let mut labels = BTreeMap::new();
    let mut session = "";
    for task in path {
        merge_labels(&mut labels, told_of(task));
        session = &task.session;
    }
    let Some(Principal::Agent { spiffe_id, .. }) = giver.last() else { return Ok(labels) };
    let (Some(agent), Some(pair)) = (Holder::Agent.key(giver), Holder::Pair.key(giver)) else {
        return Ok(labels);
    };
    let memory = roles.memory_of(spiffe_id);
    let agent = known_party(read(&agent)?, &agent, now);
    let pair = known_party(read(&pair)?, &pair, now);
    let shared = shared_labels(&agent, giver, session, memory, now, read)?;
    let nothing = SessionHistory::new();
    let view = HistoryView {
        agent: Some(&agent.history),
        pair: Some(&pair.history),
        shared: Some(&shared),
        remembering: Remembering { holder: None, ms: memory.ms },
        ..HistoryView::new(&nothing)
    };
    let remembered = view.remembered(now).map(|(label, from)| (label, from.origin()));
    merge_labels(&mut labels, remembered);
    Ok(labels)
}

/// Records of agents that a change of given tasks locks.
pub(crate) fn agent_key(task: &Task) -> Option<RecordKey> {
    Holder::Agent.key(&task.chain())
}

/// Lets the record of a task's agent name the session that it shares with others from now on.
///
/// # Errors
/// The giver gave the agent too many tasks, or the agent shares too many sessions.
pub(crate) fn share(
    transaction: &mut dyn Transaction,
    roles: &RoleIndex,
    task: &Task,
    now: Time,
) -> Result<(), ChangeError> {
    let memory = roles.memory_of(task.assignee());
    let (Some(key), Some(pair)) = (agent_key(task), Holder::Pair.key(&task.chain())) else {
        return Ok(());
    };
    if memory.isolated == Isolation::PerTask {
        return Ok(());
    }
    let mut party = Party::clone(&*known_party(transaction.get(&key)?, &key, now));
    let mut merged = 0;
    for id in party.shared.keys().cloned().collect::<Vec<String>>() {
        if merged >= MERGED_AT_ONCE {
            break;
        }
        merged = merged.saturating_add(usize::from(merge(transaction, &mut party, &id, now)?));
    }
    // A giver has at most as many as are left free to others.
    let by_giver = party.shared.values().filter(|one| one.is_by(&task.starter)).count();
    if by_giver >= MOST.saturating_sub(party.shared.len()) {
        return Err(ChangeError::Refused(CallRefusal::new(
            ReasonCode::Overloaded,
            Step::Record,
            format!(
                "the agent keeps {by_giver} tasks of this giver that are live, or that it may still decline, and takes no \
                 more of this giver"
            ),
        )));
    }
    party.shared.insert(task.id.clone(), SharedSession::of(task, &pair.id));
    let kept_until = roles.remembering(task).kept_until(task.deadline);
    party.expires_at = party.expires_at.max(kept_until);
    transaction.put(Record::Agent(Arc::new(party)));
    Ok(())
}

/// Takes over the labels of a shared session, where the task that it is shared for is over. They stay named where the record
/// has no room for them, and where the agent may still decline the task.
///
/// Returns true if the labels were taken over.
fn merge(
    transaction: &mut dyn Transaction,
    party: &mut Party,
    id: &str,
    now: Time,
) -> Result<bool, StoreError> {
    let Some(shared) = party.shared.get(id).cloned() else { return Ok(false) };
    let task = match transaction.get(&RecordKey::new(RecordKind::Task, id))? {
        Some(Record::Task(task)) => Some(task),
        _ => None,
    };
    let is_over = |task: &Arc<Task>| !task.unused && task.status_at(now) != TaskStatus::Active;
    if !task.as_ref().is_none_or(is_over) {
        return Ok(false);
    }
    let ended_at = task.as_ref().and_then(|task| task.ended_at).unwrap_or(shared.deadline);
    if let Some(session) = session(transaction, &shared.session)? {
        let until = ended_at.min(shared.deadline);
        if !party.history.inherit_labels(session.history.carried_until(until)) {
            return Ok(false);
        }
    }
    if let Some(task) = task
        && !party.history.inherit_labels(carriers(&task))
    {
        return Ok(false);
    }
    party.shared.remove(id);
    Ok(true)
}

/// The labels that a task's giver remembered, as a record takes them over.
fn carriers(task: &Task) -> impl Iterator<Item = (&str, Carrier<'_>)> {
    task.told.iter().map(|(label, origin)| (label.as_str(), origin.carrier()))
}

/// Hands the labels of a session that is to be forgotten over to the agents that shared it.
///
/// `tasks` are the tasks of the session.
pub(crate) fn hand_over(
    transaction: &mut dyn Transaction,
    history: &SessionHistory,
    tasks: &[Arc<Task>],
    now: Time,
) -> Result<(), StoreError> {
    for task in tasks {
        let Some(key) = agent_key(task) else { continue };
        let known = known_party(transaction.get(&key)?, &key, now);
        let Some(shared) = known.shared.get(&task.id) else { continue };
        let until = task.ended_at.unwrap_or(shared.deadline).min(shared.deadline);
        let mut party = Party::clone(&known);
        // A label that finds no room is dropped: the record is full of labels already.
        party.history.inherit_labels(history.carried_until(until));
        party.history.inherit_labels(carriers(task));
        party.shared.remove(&task.id);
        transaction.put(Record::Agent(Arc::new(party)));
    }
    Ok(())
}

impl Engine {
    /// The records of the agents that have tasks in a session.
    pub(crate) fn agents_of(
        &self,
        session: &str,
        wait: Wait,
    ) -> Result<Vec<RecordKey>, CallRefusal> {
        let query = Query::Session(session.to_owned());
        let mut keys = Vec::new();
        let mut after = String::new();
        loop {
            let found = self.keeper.find(&query, &Page { after, most: PAGE }, wait)?;
            // A tree is bounded when its tasks are started.
            let Some(last) = found.last() else { break };
            after = last.key().id.to_string();
            keys.extend(found.iter().filter_map(|record| match record {
                Record::Task(task) => agent_key(task),
                _ => None,
            }));
        }
        keys.sort();
        keys.dedup();
        Ok(keys)
    }

    /// A task as its agent uses it: from now on it counts against the agent. The records that it is counted in are locked.
    pub(crate) fn claim(
        &self,
        transaction: &mut dyn Transaction,
        task: &Arc<Task>,
        now: Time,
    ) -> Result<Arc<Task>, ChangeError> {
        if !task.unused {
            return Ok(Arc::clone(task));
        }
        let used = Arc::new(Task { unused: false, ..Task::clone(task) });
        if used.by_user {
            // The task counts for the subject, used or not.
        } else if task.counted_chain() == used.counted_chain() {
            self.check_live_tasks(transaction, (task.assignee(), None), now)?;
        } else {
            self.admit_task(transaction, &used, now)?;
        }
        transaction.put(Record::Task(Arc::clone(&used)));
        Ok(used)
    }

    /// Counts a task that was given to its agent against the agent's share, once the agent uses it.
    ///
    /// Returns the task as it is used now, and the commit of this change. After a crash before the commit is durable, the agent
    /// may decline the task although it used it.
    pub(crate) fn note_use(
        &self,
        located: Located,
        now: Time,
        wait: Wait,
    ) -> Result<(Located, Commit), CallRefusal> {
        if !located.task.unused {
            return Ok((located, Commit::Done));
        }
        let key = RecordKey::new(RecordKind::Task, &located.task.id);
        let mut locks = vec![RecordKey::new(RecordKind::Session, &located.task.session)];
        locks.extend(counted_in(&located.task.chain()));
        let mut refused = None;
        let mut current = None;
        let mut work = |transaction: &mut dyn Transaction| {
            let Some(Record::Task(task)) = transaction.get(&key)? else { return Ok(false) };
            match self.claim(transaction, &task, now) {
                Ok(used) => current = Some(used),
                Err(ChangeError::Store(error)) => return Err(error),
                Err(ChangeError::Refused(full)) => refused = Some(full),
                Err(ChangeError::Unchanged) => {}
            }
            Ok(current.is_some() && task.unused)
        };
        let commit = self.keeper.transact(&locks, Survives::Crash, wait, &mut work)?;
        if let Some(refused) = refused {
            return Err(refused);
        }
        let located = match current {
            Some(task) => Located { task, ..located },
            None => located,
        };
        Ok((located, commit))
    }
}
