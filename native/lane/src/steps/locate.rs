//! Locate: in which task is the call made, and what did that task's session do before?

use std::sync::Arc;

use authz_kernel::task::Task;

use crate::history::Recalled;

/// The task of a call and its history.
#[derive(Debug, Default)]
pub(crate) struct TaskContext {
    /// The task that the call is made in, or is about.
    pub(crate) task: Option<Arc<Task>>,
    /// The chain is that of `task`, which the request names. The caller of an implicit task may have left its subject out.
    pub(crate) is_in_named_task: bool,
    /// History of the task's session, of the agent, and of the object.
    pub(crate) recalled: Recalled,
}
