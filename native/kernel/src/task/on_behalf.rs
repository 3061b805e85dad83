//! Whether an agent shows the subject on whose behalf it acts, where no task names one: to leave the subject out must not leave
//! behind what restricts the agent for that subject.

use super::implicit::{implicit, implicit_id};
use std::sync::Arc;

use super::TaskView;
use super::start::Refused;
use super::taskless;
use super::{AgentName, RecordKey, Task, TaskKind, TaskStatus};
use crate::decision::{ReasonCode, Time};
use crate::history::Holder;
use crate::model::OnBehalf;
use crate::plan::Plan;

/// How long an agent that has acted for a subject must show one, in milliseconds: longer than anything is kept that it did for
/// the subject.
pub const ACTED_MS: i64 = 30 * 24 * 3_600 * 1_000;

/// Why an agent may not call for the subject that it shows, or without one; none where it may.
///
/// Args:
/// * `agent`: its SPIFFE id; `has_subject`: a subject is shown, or is that of the task.
/// * `has_acted`: tells whether the agent has acted for a subject; asked only where that makes a difference.
///
/// # Errors
/// Those of `has_acted`.
pub fn subject_refused<E>(
    plan: &Plan,
    agent: &str,
    has_subject: bool,
    has_acted: impl FnOnce() -> Result<bool, E>,
) -> Result<Option<Refused>, E> {
    let (reason, what) = match (plan.roles().subject_rule(agent), has_subject) {
        (Some(OnBehalf::Required), false) => (
            ReasonCode::NoCredential,
            "the token of the subject is missing, and the agent acts for one (`subject: required`)",
        ),
        (None, false) if has_acted()? => (
            ReasonCode::NoCredential,
            "the token of the subject is missing, and the agent has acted for one; a role may say `subject: optional`",
        ),
        (Some(OnBehalf::None), true) => (
            ReasonCode::ChainNotPermitted,
            "a subject is shown, and the agent acts for itself only (`subject: none`)",
        ),
        _ => return Ok(None),
    };
    Ok(Some(Refused { reason, message: what.to_owned() }))
}

/// Whether a session is that of an agent alone which may leave the subject out: what restricts its other sessions restricts it.
#[must_use]
pub fn is_alone(plan: &Plan, task: &Task) -> bool {
    !task.kind.is_started()
        && task.subject.is_none()
        && !task.agents.is_empty()
        && plan.roles().subject_rule(task.assignee()) == Some(OnBehalf::Optional)
}

/// A session of an agent alone that what restricts the agent in another session is carried over to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Alone {
    /// Id of that session.
    pub id: String,
    /// Denials in the other session count here: the agent made the calls, and no other agent gave it the task.
    pub counts_denials: bool,
}

/// The sessions of agents alone that what restricts a session with a subject is carried over to: of the agent that calls, and of
/// every agent above it, to which results come up. None of an agent that may not leave the subject out, and none where the
/// session has no subject itself.
#[must_use]
pub fn alones_of(plan: &Plan, task: &Task) -> Vec<Alone> {
    if task.subject.is_none() {
        return Vec::new();
    }
    let is_optional = |agent: &&AgentName| {
        plan.roles().subject_rule(&agent.spiffe_id) == Some(OnBehalf::Optional)
    };
    let acting = task.agents.last();
    let mut all: Vec<Alone> = Vec::new();
    for agent in task.agents.iter().rev().filter(is_optional) {
        let chain = [agent.principal()];
        let id = match task.kind {
            TaskKind::Implicit => implicit_id(&chain),
            TaskKind::None | TaskKind::Root | TaskKind::Child => {
                taskless(&chain, "").map(|alone| alone.id)
            }
        };
        let Some(id) = id.filter(|id| all.iter().all(|known| known.id != *id)) else { continue };
        let is_own = task.is_own() || task.by_user;
        let counts_denials = acting == Some(agent) && is_own;
        all.push(Alone { id, counts_denials });
    }
    all
}

/// The session of an agent alone. Rules and denials that restrict the agent's calls for a subject without a task are carried over
/// to it. `None` if the agent may not leave the subject out.
#[must_use]
pub fn alone_without_task(plan: &Plan, agent: AgentName) -> Option<(String, Arc<Task>)> {
    let is_optional = plan.roles().subject_rule(&agent.spiffe_id) == Some(OnBehalf::Optional);
    let alone = taskless(&[agent.principal()], "").filter(|_| is_optional)?;
    Some((alone.id.clone(), Arc::new(alone)))
}

/// The id of the session of an agent alone from which what was carried over counts in a task, too: the task has no subject, its
/// agent began it itself, and may leave the subject out. None of any other task.
#[must_use]
pub fn carrier_of(plan: &Plan, view: TaskView<'_>) -> Option<String> {
    let task = view.task;
    let may_leave_out = || plan.roles().subject_rule(task.assignee()) == Some(OnBehalf::Optional);
    let agent = task.agents.last().filter(|_| view.is_left_out() && may_leave_out())?;
    taskless(&[agent.principal()], "").map(|alone| alone.id)
}

/// What bounds the session of an agent alone, taken away because one of its other sessions was.
///
/// Args: `known`: as it is kept; `task`: of the other session.
#[must_use]
pub fn barred_alone(plan: &Plan, known: Option<&Task>, task: &Task, now: Time) -> Option<Task> {
    let agent = [task.agents.last()?.principal()];
    let known = known.cloned().or_else(|| implicit(plan, &agent, "", now).ok().flatten())?;
    Some(Task { status: TaskStatus::Revoked, ended_at: Some(now), ..known })
}

/// The record of the pair of an agent and nobody, which keeps for the agent's next task without a subject what its tasks for a
/// subject left; none where the agent may not leave the subject out.
#[must_use]
pub fn alone_pair(plan: &Plan, task: &Task) -> Option<RecordKey> {
    let may_leave_out = task.subject.is_some()
        && plan.roles().subject_rule(task.assignee()) == Some(OnBehalf::Optional);
    let agent = task.agents.last().filter(|_| may_leave_out)?;
    Holder::Pair.key(&[agent.principal()])
}
