//! Whether an agent shows the subject on whose behalf it acts, where no task names one: to leave the subject out must not leave
//! behind what restricts the agent for that subject.

use super::implicit::{implicit, implicit_id};
use super::record::{RecordKey, Task, TaskKind, TaskStatus};
use super::start::Refused;
use super::taskless::taskless;
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
    let (reason, what) = match (plan.model().subject_rule(agent), has_subject) {
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
        && plan.model().subject_rule(task.assignee()) == Some(OnBehalf::Optional)
}

/// The id of the session of an agent alone that what restricts this session is carried over to; none where the agent may not
/// leave the subject out, and for a session without one.
#[must_use]
pub fn alone_of(plan: &Plan, task: &Task) -> Option<String> {
    let is_carried = !task.kind.is_started()
        && task.subject.is_some()
        && plan.model().subject_rule(task.assignee()) == Some(OnBehalf::Optional);
    let agent = [task.agents.last().filter(|_| is_carried)?.principal()];
    match task.kind {
        TaskKind::Implicit => implicit_id(&agent),
        TaskKind::None => taskless(&agent, "").map(|alone| alone.id),
        TaskKind::Root | TaskKind::Child => None,
    }
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
        && plan.model().subject_rule(task.assignee()) == Some(OnBehalf::Optional);
    let agent = task.agents.last().filter(|_| may_leave_out)?;
    Holder::Pair.key(&[agent.principal()])
}
