//! Principal that began a task, whose history the task begins with.
//!
//! No agent leaves its history behind by a task that it begins itself, or that another agent gives it: only the subject alone
//! or a front end lets it begin anew. And no agent stops another by a task that the other one did not ask for.

use super::{Task, TaskKind, TaskView};
use crate::record::Party;
use crate::time::Time;

/// Principal that began a task.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TaskOrigin<'a> {
    /// Its agent, or a caller that presented only the subject's token, which the agent may hold. Calls without a task are the
    /// agent's own, too.
    Agent,
    /// Another agent gave it to its agent: the SPIFFE id of the giver.
    Giver(&'a str),
    /// The subject alone, or a front end.
    User,
}

impl Task {
    /// Principal that began the task.
    #[must_use]
    pub fn origin(&self) -> TaskOrigin<'_> {
        match self.kind {
            TaskKind::Root if self.by_user => TaskOrigin::User,
            TaskKind::Root if !self.starter.starts_with("spiffe://") => TaskOrigin::Agent,
            TaskKind::Root | TaskKind::Child if self.is_given() => TaskOrigin::Giver(&self.starter),
            TaskKind::Root | TaskKind::Child | TaskKind::Implicit | TaskKind::None => {
                TaskOrigin::Agent
            }
        }
    }

    /// Returns whether its agent may have begun it.
    #[must_use]
    pub fn is_own(&self) -> bool {
        self.origin() == TaskOrigin::Agent
    }

    /// Returns whether its session begins with the history of its agent's earlier tasks for the subject. Only a session
    /// that the subject alone or a front end began does not.
    #[must_use]
    pub fn inherits(&self) -> bool {
        match self.kind {
            TaskKind::Root => self.origin() != TaskOrigin::User,
            TaskKind::Implicit => true,
            TaskKind::Child | TaskKind::None => false,
        }
    }
}

impl<'a> TaskView<'a> {
    /// The task by which its agent came to act: the task itself, or the topmost of those from which the agent delegated to
    /// itself. A task that an agent gives to itself is the same work under another id.
    #[must_use]
    pub fn entry(self) -> &'a Task {
        let mut entry = self.task;
        for above in self.ancestors.iter().rev() {
            if entry.is_given() {
                break;
            }
            entry = above;
        }
        entry
    }

    /// Returns whether the history of its agent's earlier tasks for the subject counts in it.
    #[must_use]
    pub fn inherits(self) -> bool {
        self.entry().origin() != TaskOrigin::User
    }
}

/// Bar of an agent from tasks of its own for a subject, after denials ended one of them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Bar {
    /// End of the last task that denials ended. `None`: the subject alone, a front end or an administrator let the agent
    /// begin anew.
    pub denied_at: Option<Time>,
    /// Tasks that the agent began before this time stay refused.
    pub ended_before: Option<Time>,
}

impl Bar {
    /// Bar of a pair whose task denials end now.
    #[must_use]
    pub const fn new(now: Time) -> Self {
        Self { denied_at: Some(now), ended_before: Some(now) }
    }

    /// Returns whether the bar refuses every call of the agent in a task.
    #[must_use]
    pub fn holds_in(self, task: TaskView<'_>) -> bool {
        let entry = task.entry();
        let is_old =
            self.ended_before.is_some_and(|at| entry.kind.is_started() && entry.started_at < at);
        entry.is_own() && (self.denied_at.is_some() || is_old)
    }
}

impl Party {
    /// Of a pair: the bar of its agent.
    #[must_use]
    pub const fn bar(&self) -> Bar {
        Bar { denied_at: self.denied_at, ended_before: self.ended_before }
    }

    /// Lets its agent begin new tasks.
    pub const fn lift_bar(&mut self) {
        self.denied_at = None;
    }

    /// Sets the bar of its agent.
    pub const fn set_bar(&mut self, bar: Bar) {
        (self.denied_at, self.ended_before) = (bar.denied_at, bar.ended_before);
    }
}

impl TaskView<'_> {
    /// Returns whether the agent of a task without a subject began the task's tree itself, and so left the subject out. A
    /// task without a subject that another principal gave it, as for batch work, is different.
    #[must_use]
    pub fn is_left_out(self) -> bool {
        let task = self.task;
        task.kind.is_started() && task.subject.is_none() && self.root().starter == task.assignee()
    }
}
