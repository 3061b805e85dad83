//! A task in its tree.

use std::sync::Arc;

use super::{Task, TaskKind};

/// Task with all tasks above it.
#[derive(Clone, Copy, Debug)]
pub struct TaskView<'a> {
    /// The task.
    pub task: &'a Task,
    /// The tasks above it, the root first; empty for a root.
    pub ancestors: &'a [Arc<Task>],
}

impl<'a> TaskView<'a> {
    /// All tasks from the root to the task itself.
    pub fn path(self) -> impl Iterator<Item = &'a Task> {
        self.ancestors.iter().map(AsRef::as_ref).chain([self.task])
    }

    /// The view of a real task. `None` if it stands for calls without a task, which give no authority.
    #[must_use]
    pub fn real(self) -> Option<Self> {
        (self.task.kind != TaskKind::None).then_some(self)
    }

    /// The root of the tree.
    #[must_use]
    pub fn root(self) -> &'a Task {
        self.ancestors.first().map_or(self.task, AsRef::as_ref)
    }
}
