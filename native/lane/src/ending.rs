//! Ends tasks: each with all tasks below it, in one transaction of their session.

use std::sync::Arc;

use authz_kernel::decision::Time;
use authz_kernel::task::{
    BARRED_MS, Record, RecordKey, RecordKind, Task, TaskStatus, is_implicit_id,
};
use authz_state::store::{Page, Query, StoreError, Transaction};

/// Tasks that are read at once.
const PAGE: usize = 256;

/// The tasks of a session, live and ended.
pub(crate) fn of_session(
    transaction: &mut dyn Transaction,
    session: &str,
) -> Result<Vec<Arc<Task>>, StoreError> {
    let query = Query::Session(session.to_owned());
    let mut all: Vec<Arc<Task>> = Vec::new();
    loop {
        let after = all.last().map_or_else(String::new, |task| task.id.clone());
        let found = transaction.find(&query, &Page { after, most: PAGE })?;
        // A tree is bounded when its tasks are started.
        if found.is_empty() {
            return Ok(all);
        }
        all.extend(found.into_iter().filter_map(|record| match record {
            Record::Task(task) => Some(task),
            _ => None,
        }));
    }
}

/// Number of tasks that were written as ended.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Ended {
    /// Those that lived until then.
    pub(crate) ended: u32,
    /// Those whose time was up before.
    pub(crate) expired: u32,
}

/// Ends what is live of a tree from a task down.
///
/// `top` is that task; `None`: the whole tree. The tree is kept for `retention_ms` after its last live task. A task that has expired
/// already, anywhere in the tree, is written as expired.
pub(crate) fn end(
    transaction: &mut dyn Transaction,
    session: &str,
    top: Option<&str>,
    status: TaskStatus,
    now: Time,
    retention_ms: u64,
) -> Result<Ended, StoreError> {
    let mut count = Ended::default();
    let (mut any_lives, mut is_taken) = (false, false);
    for task in of_session(transaction, session)? {
        let is_below =
            top.is_none_or(|top| task.id == top || task.ancestors.iter().any(|id| id == top));
        if task.status != TaskStatus::Active {
            continue;
        }
        let is_live = task.status_at(now) == TaskStatus::Active;
        if is_live && !is_below {
            any_lives = true;
            continue;
        }
        let status = if is_live { status } else { TaskStatus::Expired };
        is_taken |= status == TaskStatus::Revoked;
        let counted = if is_live { &mut count.ended } else { &mut count.expired };
        *counted = counted.saturating_add(1);
        transaction.put(Record::Task(Arc::new(Task {
            status,
            ended_at: Some(now),
            ..Task::clone(&task)
        })));
    }
    if !any_lives {
        forget_later(transaction, session, is_taken, now, retention_ms)?;
    }
    Ok(count)
}

/// Lets a tree in which nothing lives be forgotten after a while; what somebody does without a task ends by that.
fn forget_later(
    transaction: &mut dyn Transaction,
    session: &str,
    is_taken: bool,
    now: Time,
    retention_ms: u64,
) -> Result<(), StoreError> {
    let key = RecordKey::new(RecordKind::Session, session);
    if let Some(Record::Session(mut session)) = transaction.get(&key)? {
        let ended = Arc::make_mut(&mut session);
        if ended.is_taskless() {
            ended.end(now);
        } else if is_implicit_id(&ended.id) {
            // The pair must not begin anew because what was taken away is forgotten.
            let until = after(now, if is_taken { BARRED_MS } else { retention_ms });
            ended.expires_at = ended.expires_at.max(until);
            ended.ended_at = None;
        } else {
            ended.expires_at = after(now, retention_ms);
        }
        transaction.put(Record::Session(session));
    }
    Ok(())
}

/// A time later by so many milliseconds.
pub(crate) fn after(now: Time, ms: u64) -> Time {
    Time(now.0.saturating_add(i64::try_from(ms).unwrap_or(i64::MAX)))
}
