//! Tasks that one agent gives to another: what the giver may have told the agent counts for it at once, and the task itself
//! only once the agent used it.
//!
//! A task that is delegated shares the session of its tree, so both sides may tell each other what was read there. The record
//! of the agent that gets the task therefore names the session until the task is over, and takes the session's labels over
//! then. Agents above a task remember what is read in it by `history`. An agent that ends a task as ABORTED before any call
//! in it declines the task: then nothing of it counts.

use std::collections::BTreeMap;
use std::sync::Arc;

use authz_kernel::decision::Time;
use authz_kernel::history::{Holder, Origin, SessionHistory};
use authz_kernel::model::{AgentMemory, Isolation, Model};
use authz_kernel::reason::ReasonCode;
use authz_kernel::task::{Party, Record, RecordKey, RecordKind, SharedSession, Task, TaskStatus};
use authz_state::store::{Page, Query, StoreError, Survives, Transaction};

use crate::ask::{Refused, Step};
use crate::ending;
use crate::engine::{Changing, Engine, Kept, Stop};
use crate::history::{counted_in, known_party, session};
use crate::judgement::Judgement;
use crate::keeper::Wait;
use crate::locate::{self, Located};

/// Live tasks that one giver may have given an agent whose memory outlives them.
const MOST_BY_GIVER: usize = 256;
/// Sessions that the record of one agent names.
const MOST: usize = 1_024;
/// Sessions whose labels one change of a record takes over, where their tasks are over.
const MERGED_AT_ONCE: usize = 16;
/// Tasks that are read at once.
const PAGE: usize = 256;

/// The labels of sessions that an agent shares with others, and where each comes from. They count for other tasks of the
/// agent.
///
/// Args: `read`: gives records.
pub(crate) fn shared_labels<E>(
    agent: &Party,
    task: &Task,
    memory: AgentMemory,
    now: Time,
    mut read: impl FnMut(&RecordKey) -> Result<Option<Record>, E>,
) -> Result<BTreeMap<String, Origin>, E> {
    let mut labels = BTreeMap::new();
    if memory.isolated == Isolation::PerTask {
        return Ok(labels);
    }
    let pair = Holder::Pair.key(&task.chain());
    let is_its_pair = |shared: &SharedSession| match memory.isolated {
        Isolation::PerSubject => pair.as_ref().is_some_and(|pair| *pair.id == shared.pair),
        Isolation::None | Isolation::PerTask => true,
    };
    let mut sessions: BTreeMap<&str, Time> = BTreeMap::new();
    for shared in agent.shared.values().filter(|shared| is_its_pair(shared)) {
        if shared.session == task.session {
            continue;
        }
        let until = sessions.entry(&shared.session).or_insert(shared.deadline);
        *until = shared.deadline.max(*until);
    }
    for (id, deadline) in sessions {
        let key = RecordKey::new(RecordKind::Session, id);
        // One that is not kept any more left its labels with the agent.
        let Some(Record::Session(session)) = read(&key)? else { continue };
        for (label, from) in session.history.carried_until(deadline.min(now)) {
            let known = labels.get(label).is_some_and(|known: &Origin| known.at >= from.at);
            if !known {
                labels.insert(label.to_owned(), from.origin());
            }
        }
    }
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
    model: &Model,
    task: &Task,
    now: Time,
) -> Result<(), Stop> {
    let memory = model.memory_of(task.assignee());
    let (Some(key), Some(pair)) = (agent_key(task), Holder::Pair.key(&task.chain())) else {
        return Ok(());
    };
    if memory.isolated == Isolation::PerTask {
        return Ok(());
    }
    let mut party = Party::clone(&*known_party(transaction.get(&key)?, &key, now));
    let oldest: Vec<String> = party.shared.keys().take(MERGED_AT_ONCE).cloned().collect();
    for id in oldest {
        merge(transaction, &mut party, &id, now)?;
    }
    let by_giver = party.shared.values().filter(|one| one.giver == task.starter).count();
    let refuse =
        |what: String| Err(Stop::Refused(Refused::new(ReasonCode::Overloaded, Step::Record, what)));
    if by_giver >= MOST_BY_GIVER {
        return refuse(format!(
            "the agent has {MOST_BY_GIVER} live tasks of this giver, and takes no more of it"
        ));
    }
    if party.shared.len() >= MOST {
        return refuse(format!("the agent shares {MOST} sessions with others, and no more"));
    }
    let shared = SharedSession {
        giver: task.starter.clone(),
        session: task.session.clone(),
        pair: pair.id.to_string(),
        deadline: task.deadline,
    };
    party.shared.insert(task.id.clone(), shared);
    let kept_until = model.remembering(task).kept_until(task.deadline);
    party.expires_at = party.expires_at.max(kept_until);
    transaction.put(Record::Agent(Arc::new(party)));
    Ok(())
}

/// Takes over the labels of a shared session, where the task that it is shared for is over. They stay named where the record
/// has no room for them.
fn merge(
    transaction: &mut dyn Transaction,
    party: &mut Party,
    id: &str,
    now: Time,
) -> Result<(), StoreError> {
    let Some(shared) = party.shared.get(id).cloned() else { return Ok(()) };
    let task = match transaction.get(&RecordKey::new(RecordKind::Task, id))? {
        Some(Record::Task(task)) => Some(task),
        _ => None,
    };
    let is_over = task.as_ref().is_none_or(|task| task.status_at(now) != TaskStatus::Active);
    if !is_over {
        return Ok(());
    }
    let ended_at = task.and_then(|task| task.ended_at).unwrap_or(shared.deadline);
    if let Some(session) = session(transaction, &shared.session)? {
        let until = ended_at.min(shared.deadline);
        if !party.history.inherit_labels(session.history.carried_until(until)) {
            return Ok(());
        }
    }
    party.shared.remove(id);
    Ok(())
}

/// Hands the labels of a session that is to be forgotten over to the agents that shared it.
///
/// Args: `tasks`: those of the session.
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
        // What finds no room is not worth keeping the whole tree for: the record is full of labels already.
        party.history.inherit_labels(history.carried_until(until));
        party.shared.remove(&task.id);
        transaction.put(Record::Agent(Arc::new(party)));
    }
    Ok(())
}

impl Engine {
    /// The records of the agents that have tasks in a session.
    pub(crate) fn agents_of(&self, session: &str, wait: Wait) -> Result<Vec<RecordKey>, Refused> {
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
    ) -> Result<Arc<Task>, Stop> {
        if !task.unused {
            return Ok(Arc::clone(task));
        }
        let used = Arc::new(Task { unused: false, ..Task::clone(task) });
        if used.by_user {
            // It counts for the subject, used or not.
        } else if task.counted_chain() == used.counted_chain() {
            self.room_live(transaction, (task.assignee(), None), now)?;
        } else {
            self.room(transaction, &used, now)?;
        }
        transaction.put(Record::Task(Arc::clone(&used)));
        Ok(used)
    }

    /// Counts a task that was given to its agent against the agent's share, once a call in it is decided.
    pub(crate) fn note_use(
        &self,
        judgement: &Judgement,
        located: Located,
        wait: Wait,
    ) -> Result<Located, Refused> {
        if !located.task.unused {
            return Ok(located);
        }
        let now = Time(judgement.now_ms);
        let key = RecordKey::new(RecordKind::Task, &located.task.id);
        let mut locks = vec![RecordKey::new(RecordKind::Session, &located.task.session)];
        locks.extend(counted_in(&located.task.chain()));
        let mut refused = None;
        let mut current = None;
        let mut work = |transaction: &mut dyn Transaction| {
            let Some(Record::Task(task)) = transaction.get(&key)? else { return Ok(false) };
            match self.claim(transaction, &task, now) {
                Ok(used) => current = Some(used),
                Err(Stop::Store(error)) => return Err(error),
                Err(Stop::Refused(full)) => refused = Some(full),
                Err(Stop::Unchanged) => {}
            }
            Ok(current.is_some() && task.unused)
        };
        // Not awaited: the call's own change is durable no earlier, and a crash only lets the task count as unused again.
        drop(self.keeper.transact(&locks, Survives::Crash, wait, &mut work)?);
        if let Some(refused) = refused {
            return Err(refused);
        }
        Ok(match current {
            Some(task) => Located { task, ..located },
            None => located,
        })
    }

    /// Ends a task whose agent declines it: nothing of it counts for the agent.
    pub(crate) fn decline(
        &self,
        judgement: &mut Judgement,
        call: &Changing<'_>,
        task: &Task,
        ended: &mut u32,
    ) -> Result<Option<Kept>, Refused> {
        let now = Time(judgement.now_ms);
        let retention = self.keeper.settings().retention_ms;
        let mut locks = vec![RecordKey::new(RecordKind::Session, &task.session)];
        let agent = agent_key(task);
        locks.extend(agent.clone());
        let status = TaskStatus::Aborted;
        let mut count = ending::Ended::default();
        let kept = self.change(
            judgement,
            call,
            &locks,
            Survives::PowerLoss,
            &mut |transaction, judgement| {
                let current = locate::find_in(transaction, &task.id)?.task;
                let is_declined = current.unused && current.status_at(now) == TaskStatus::Active;
                let top = Some(task.id.as_str());
                count = ending::end(transaction, &task.session, top, status, now, retention)?;
                *ended = count.ended;
                if !is_declined {
                    judgement.grant(format!("{ended} tasks ended"));
                    return Ok(());
                }
                if let Some(key) = &agent {
                    let known = known_party(transaction.get(key)?, key, now);
                    if known.shared.contains_key(&task.id) {
                        let mut party = Party::clone(&known);
                        party.shared.remove(&task.id);
                        transaction.put(Record::Agent(Arc::new(party)));
                    }
                }
                let ended_task = locate::find_in(transaction, &task.id)?.task;
                let declined = Arc::new(Task { declined: true, ..Task::clone(&ended_task) });
                transaction.put(Record::Task(Arc::clone(&declined)));
                judgement.task = Some(declined);
                judgement.grant("the task is declined");
                Ok(())
            },
        )?;
        self.metrics.tasks_ended(status, u64::from(*ended));
        self.metrics.tasks_ended(TaskStatus::Expired, u64::from(count.expired));
        Ok(kept)
    }
}
