//! Labels of sessions that an agent shares with others.

use std::collections::BTreeMap;

use authz_kernel::decision::{Principal, Time};
use authz_kernel::history::{Holder, LabelOrigin};
use authz_kernel::model::{AgentMemory, Isolation};
use authz_kernel::task::{Party, Record, RecordKey, RecordKind, SharedSession, Task};

/// Labels of sessions that an agent shares with others, with the origin of each. They count for other tasks of the agent.
///
/// `own_session` is the session of the call, whose labels count anyhow. `read` gives records.
pub(crate) fn shared_labels<E>(
    agent: &Party,
    chain: &[Principal],
    own_session: &str,
    memory: AgentMemory,
    now: Time,
    mut read: impl FnMut(&RecordKey) -> Result<Option<Record>, E>,
) -> Result<BTreeMap<String, LabelOrigin>, E> {
    let mut labels = BTreeMap::new();
    if memory.isolated == Isolation::PerTask {
        return Ok(labels);
    }
    let pair = Holder::Pair.key(chain);
    let is_its_pair = |shared: &SharedSession| match memory.isolated {
        Isolation::PerSubject => pair.as_ref().is_some_and(|pair| shared.is_of_pair(&pair.id)),
        Isolation::None | Isolation::PerTask => true,
    };
    let mut sessions: BTreeMap<&str, Time> = BTreeMap::new();
    for (id, shared) in agent.shared.iter().filter(|(_, shared)| is_its_pair(shared)) {
        if shared.told
            && let Some(Record::Task(task)) = read(&RecordKey::new(RecordKind::Task, id))?
        {
            merge_labels(&mut labels, told_of(&task));
        }
        if shared.session == own_session {
            continue;
        }
        let until = sessions.entry(&shared.session).or_insert(shared.deadline);
        *until = shared.deadline.max(*until);
    }
    for (id, deadline) in sessions {
        let key = RecordKey::new(RecordKind::Session, id);
        // A session that is no longer kept has left its labels with the agent.
        let Some(Record::Session(session)) = read(&key)? else { continue };
        let carried = session.history.carried_until(deadline.min(now));
        merge_labels(&mut labels, carried.map(|(label, from)| (label, from.origin())));
    }
    Ok(labels)
}

/// Labels that a task's giver remembered when it gave the task.
pub(crate) fn told_of(task: &Task) -> impl Iterator<Item = (&str, LabelOrigin)> {
    task.told.iter().map(|(label, origin)| (label.as_str(), origin.clone()))
}

/// Adds labels to others. If a label is among both, the later origin counts.
pub(crate) fn merge_labels<'a>(
    labels: &mut BTreeMap<String, LabelOrigin>,
    more: impl Iterator<Item = (&'a str, LabelOrigin)>,
) {
    for (label, origin) in more {
        if labels.get(label).is_none_or(|known| known.at < origin.at) {
            labels.insert(label.to_owned(), origin);
        }
    }
}
