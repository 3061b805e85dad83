//! Step 3: the task that a request is made in.

use std::sync::Arc;

use authz_kernel::decision::Time;
use authz_kernel::reason::ReasonCode;
use authz_kernel::task::{
    Record, RecordKey, RecordKind, Revocations, Task, TaskKind, TaskStatus, TaskSubject, TaskView,
    taskless,
};
use authz_state::store::{StoreError, Transaction};
use authz_token::VerifiedFacts;

use crate::judgement::CallerIdentity;
use crate::keeper::{Keeper, Wait, refused};
use crate::refusal::{CallRefusal, Step};
use crate::revoke;

/// A task, and all above it.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Located {
    pub(crate) task: Arc<Task>,
    /// The root first.
    pub(crate) ancestors: Vec<Arc<Task>>,
}

impl Located {
    pub(crate) fn view(&self) -> TaskView<'_> {
        TaskView { task: &self.task, ancestors: &self.ancestors }
    }

    /// Session of a caller without a task. `None`: the caller is not verified.
    pub(crate) fn taskless(caller: &CallerIdentity) -> Option<Self> {
        let acr = caller.facts.subject.as_ref().and_then(|subject| subject.acr.as_deref());
        let task = taskless(&caller.chain, acr.unwrap_or_default())?;
        Some(Self { task: Arc::new(task), ancestors: Vec::new() })
    }

    /// True if the call is made without a task.
    pub(crate) fn is_taskless(&self) -> bool {
        self.task.kind == TaskKind::None
    }

    /// The same, with another record of its root.
    pub(crate) fn with_root(self, root: Arc<Task>) -> Self {
        let Self { task, mut ancestors } = self;
        match ancestors.first_mut() {
            Some(first) => *first = root,
            None => return Self { task: root, ancestors },
        }
        Self { task, ancestors }
    }

    /// From the root down.
    pub(crate) fn path(&self) -> impl Iterator<Item = &Arc<Task>> {
        self.ancestors.iter().chain([&self.task])
    }
}

/// Finds a task as this node knows it.
pub(crate) fn find(keeper: &Keeper, id: &str, wait: Wait) -> Result<Located, CallRefusal> {
    let mut read = |id: &str| keeper.task(id, wait);
    located(id, &mut read)
}

/// Finds a task that a caller names, as this node knows it. The session of an agent that works without tasks is not a task.
pub(crate) fn find_task(keeper: &Keeper, id: &str, wait: Wait) -> Result<Located, CallRefusal> {
    let found = find(keeper, id, wait)?;
    if found.task.kind == TaskKind::Implicit {
        return Err(unknown());
    }
    Ok(found)
}

/// Finds a task inside a transaction.
pub(crate) fn find_in(transaction: &mut dyn Transaction, id: &str) -> Result<Located, CallRefusal> {
    let mut read = |id: &str| match get(transaction, id) {
        Ok(task) => Ok(task),
        Err(error) => Err(refused(&error)),
    };
    located(id, &mut read)
}

fn get(transaction: &mut dyn Transaction, id: &str) -> Result<Option<Arc<Task>>, StoreError> {
    match transaction.get(&RecordKey::new(RecordKind::Task, id))? {
        Some(Record::Task(task)) => Ok(Some(task)),
        _ => Ok(None),
    }
}

type ReadTask<'a> = dyn FnMut(&str) -> Result<Option<Arc<Task>>, CallRefusal> + 'a;

fn located(id: &str, read: &mut ReadTask<'_>) -> Result<Located, CallRefusal> {
    let Some(task) = read(id)? else {
        return Err(unknown());
    };
    let mut ancestors = Vec::with_capacity(task.ancestors.len());
    for id in &task.ancestors {
        // A tree is forgotten as a whole, some time after all of it has ended.
        let Some(ancestor) = read(id)? else {
            return Err(locating(ReasonCode::TaskEnded, "a task above it is no longer kept"));
        };
        ancestors.push(ancestor);
    }
    Ok(Located { task, ancestors })
}

/// Refuses a task in which nothing may be done now, or not by the caller.
///
/// Args: `facts`: who the caller is, as it proved.
pub(crate) fn usable(
    located: &Located,
    revoked: &Revocations,
    facts: &VerifiedFacts,
    now: Time,
) -> Result<(), CallRefusal> {
    live(located, revoked, now)?;
    if located.is_taskless() {
        return Ok(());
    }
    let assignee = located.task.assignee();
    if facts.agent.as_ref().is_none_or(|agent| agent.spiffe_id != assignee) {
        return Err(locating(ReasonCode::NotAssignee, "the task was given to another agent"));
    }
    match (&facts.subject, &located.task.subject) {
        (None, _) => Ok(()),
        (Some(proved), Some(subject)) if is_subject(subject, proved) => Ok(()),
        (Some(_), _) => Err(locating(
            ReasonCode::TaskConflict,
            "the task is not on behalf of the subject that is proved",
        )),
    }
}

/// Refuses a task that has ended, or is revoked.
pub(crate) fn live(located: &Located, revoked: &Revocations, now: Time) -> Result<(), CallRefusal> {
    revoke::of_tasks(revoked, located.path())?;
    for task in located.path() {
        match task.status_at(now) {
            TaskStatus::Active => {}
            TaskStatus::Revoked => {
                return Err(CallRefusal::new(
                    ReasonCode::Revoked,
                    Step::Locate,
                    "the task, or one above it, is revoked",
                ));
            }
            TaskStatus::Completed | TaskStatus::Aborted | TaskStatus::Expired => {
                return Err(locating(
                    ReasonCode::TaskEnded,
                    "the task, or one above it, has ended",
                ));
            }
        }
    }
    Ok(())
}

/// True if a proved subject is the subject of a task.
pub(crate) fn is_subject(subject: &TaskSubject, proved: &authz_token::SubjectFacts) -> bool {
    let is_service = proved.kind == authz_token::SubjectKind::Service;
    subject.issuer == proved.issuer && subject.sub == proved.sub && subject.is_service == is_service
}

/// Nothing that a caller may name is a task of that id.
pub(crate) fn unknown() -> CallRefusal {
    locating(ReasonCode::UnknownTask, "there is no such task")
}

fn locating(reason: ReasonCode, message: &str) -> CallRefusal {
    CallRefusal::new(reason, Step::Locate, message)
}

/// Whether the last use of a task is to be written anew.
pub(crate) fn is_due_for_touch(task: &Task, now: Time) -> bool {
    task.idle_timeout_ms
        .is_some_and(|most| now.0.saturating_sub(task.last_used.0) >= most.div_euclid(10).max(1))
}
