//! The task of a request: whether the request needs a task, whether its task may be used, and the scope of the task.

use smallvec::SmallVec;

use super::granted::GrantCover;
use super::resolve::Resolved;
use super::{RequestRefusal, TierFacts, rules};
use crate::decision::{DecidingRule, Facts, ReasonCode, Request, RuleKind, Time};
use crate::evaluate::TaskFacts;
use crate::history::Holder;
use crate::mcp::{self, ServerTask, Traffic};
use crate::model::{Operation, Tier};
use crate::plan::{Plan, Prepared};
use crate::schema::{GIVE, OWN_SYSTEM, START};
use crate::task::{self, Acts, Dimension, Miss, SubjectProof, Task, TaskStatus, TaskView};

/// Refuses a task in which nothing may be done now, or not by the caller.
///
/// INVARIANT (before what `mode` may soften): this runs before the operation and its arguments are looked at, so that no
/// defect of theirs hides that the task has ended.
pub(super) fn standing(
    facts: &Facts<'_>,
    operation: &str,
    now: Time,
) -> Result<(), RequestRefusal> {
    // Tasks bound calls of other systems, not requests for this server's own operations.
    if is_own(operation) {
        return Ok(());
    }
    let Some(view) = facts.task else { return Ok(()) };
    let refuse = |reason, what: &str| Err(RequestRefusal::new(reason, what));
    let names = view.ancestors.iter().map(|task| task.id.as_str());
    if !names.eq(view.task.ancestors.iter().map(String::as_str)) {
        return refuse(ReasonCode::Unavailable, "the tasks above the task are not at hand");
    }
    for task in view.path() {
        match task.status_at(now) {
            TaskStatus::Active => {}
            TaskStatus::Revoked => {
                return refuse(ReasonCode::Revoked, "the task, or one above it, is revoked");
            }
            TaskStatus::Completed | TaskStatus::Aborted | TaskStatus::Expired => {
                return refuse(ReasonCode::TaskEnded, "the task, or one above it, has ended");
            }
        }
    }
    let is_assignees = || facts.chain.last().is_some_and(|caller| view.task.is_assignee(caller));
    if view.real().is_some() && !is_assignees() {
        return refuse(ReasonCode::NotAssignee, "the task was given to another agent");
    }
    if !view.task.is_chain(facts.chain) {
        return refuse(ReasonCode::TaskConflict, "the chain is not that of the task");
    }
    Ok(())
}

/// Refuses a request without a task where it needs one, and one of a template that is gone.
///
/// Args: `traffic`: what the call moves between client and server.
pub(super) fn locate(
    plan: &Plan,
    facts: &Facts<'_>,
    operation: &Operation,
    traffic: Traffic,
) -> Result<(), RequestRefusal> {
    if operation.system == OWN_SYSTEM {
        return Ok(());
    }
    let Some(view) = facts.task.and_then(TaskView::real) else {
        return without(plan, facts, operation, traffic);
    };
    if view.task.kind.is_started() && plan.roles().is_implicit(view.task.assignee()) {
        let what = "the bundle lets the agent work without tasks, and so gives it none";
        return Err(RequestRefusal::new(ReasonCode::OutOfScope, what));
    }
    if view.path().any(|task| plan.template(&task.template).is_none()) {
        let what = format!("{}: the bundle no longer has it", Dimension::Template);
        return Err(RequestRefusal::new(ReasonCode::OutOfScope, what));
    }
    Ok(())
}

/// Whether an operation is one of our own.
fn is_own(operation: &str) -> bool {
    let system = operation.split_once('.').map(|(system, _)| system);
    system == Some(OWN_SYSTEM) || operation.starts_with(START) || operation.starts_with(GIVE)
}

/// A call that runs as a task of an MCP server's own is noted in the task, so that what asks for its result later is covered
/// by the call's permit: by no other task's, and of no other server's.
pub(super) fn server_task(
    facts: &Facts<'_>,
    request: &Request<'_>,
    operation: &Operation,
) -> Result<(), RequestRefusal> {
    let refuse = |reason, what: &str| Err(RequestRefusal::new(reason, what));
    let of_system =
        |call: &String| call.split_once('.').is_some_and(|(system, _)| system == operation.system);
    match (request.server_task, facts.task.and_then(TaskView::real)) {
        (ServerTask::None, _) | (ServerTask::Begins, Some(_)) => Ok(()),
        (_, None) => refuse(
            ReasonCode::NoTask,
            "a call that runs as a task of the server, and whatever follows it, needs a task",
        ),
        (ServerTask::Follows, Some(view)) if view.task.server_calls.iter().any(of_system) => Ok(()),
        (ServerTask::Follows, Some(_)) => refuse(
            ReasonCode::OutOfScope,
            "no call of the task was permitted that runs as a task of the server",
        ),
    }
}

fn without(
    plan: &Plan,
    facts: &Facts<'_>,
    operation: &Operation,
    traffic: Traffic,
) -> Result<(), RequestRefusal> {
    if facts.granted.is_some() {
        return Err(RequestRefusal::new(ReasonCode::NoTask, "a task credential is of a task"));
    }
    let rule = &plan.model().tasks;
    if plan.only_connects(operation, traffic) {
        return Ok(());
    }
    let is_within = |tier: Tier| operation.tier <= tier && plan.is_stateless(&operation.id, None);
    if rule.taskless_tier.is_some_and(is_within) {
        return Ok(());
    }
    if rule.optional {
        // What must be remembered is at hand, as that of no task.
        if facts.task.is_some() || !plan.recalls_taskless(&operation.id, false) {
            return Ok(());
        }
        let what =
            format!("`{}` depends on what was done before, which is not at hand", operation.id);
        return Err(RequestRefusal::new(ReasonCode::StateUnavailable, what));
    }
    Err(RequestRefusal::new(ReasonCode::NoTask, format!("`{}` needs a task", operation.id)))
}

/// Facts of the task that policies may read. `None` without a task.
pub(super) fn facts_of(view: TaskView<'_>, now: Time) -> Option<TaskFacts<'_>> {
    let task = view.real()?.task;
    Some(TaskFacts {
        kind: task.kind,
        template: &task.template,
        purpose: &task.purpose,
        depth: i64::from(task.depth()),
        age: now.0.saturating_sub(task.started_at.0).max(0).div_euclid(1_000),
    })
}

/// How it was proved on whose behalf the caller acts.
pub(super) fn subject_proof(facts: &Facts<'_>, subject: bool) -> SubjectProof {
    let by_chain = if subject { SubjectProof::Verified } else { SubjectProof::Itself };
    facts.task.map(|view| view.task.subject_proof).or(facts.subject_proof).unwrap_or(by_chain)
}

/// Refuses labels that would have to be remembered, where nothing remembers.
pub(super) fn labels(
    plan: &Plan,
    facts: &Facts<'_>,
    request: &Request<'_>,
) -> Result<(), RequestRefusal> {
    if request.labels.is_empty() || facts.task.is_some() || !plan.enforced_recall.is_read {
        return Ok(());
    }
    let what = "labels are told of the call, and what keeps them is not at hand";
    Err(RequestRefusal::new(ReasonCode::StateUnavailable, what))
}

/// Refuses a request that depends on the history of the task's session, if the history was not recalled.
pub(super) fn recalled(
    facts: &Facts<'_>,
    request: &Request<'_>,
    prepared: &Prepared,
) -> Result<(), RequestRefusal> {
    let refuse = |whose: &str| {
        let what = format!("what the {whose} did before is not at hand");
        Err(RequestRefusal::new(ReasonCode::StateUnavailable, what))
    };
    let memory = &prepared.memory;
    let carries = !request.labels.is_empty();
    let is_recalled = memory.is_recalled() || carries;
    if facts.task.is_none() || !is_recalled {
        return Ok(());
    }
    let Some(view) = facts.history else { return refuse("session") };
    for holder in Holder::PARTIES {
        let keeps = carries && view.remembering.holder == Some(holder);
        if (keeps || memory.recalls(holder, view.remembering)) && view.of(holder).is_none() {
            return refuse(holder.as_str());
        }
    }
    if memory.remembers && view.shared.is_none() {
        return refuse("agent's shared sessions");
    }
    if memory.objects && view.object.is_none() {
        let what = "what was written into the resource before is not at hand";
        return Err(RequestRefusal::new(ReasonCode::StateUnavailable, what));
    }
    Ok(())
}

/// What the task allows.
#[derive(Debug, Default)]
pub(super) struct TaskBounds<'a> {
    /// Why the request is beyond it.
    pub(super) refused: Option<BoundRefusal>,
    /// Entries that it counts on.
    counted: SmallVec<[(&'a str, u32); 4]>,
    /// Scopes beyond which the request is, and that hold it for a step-up.
    pub(super) held: SmallVec<[Hold<'a>; 1]>,
}

/// Scope that holds a request beyond it for a step-up.
#[derive(Debug)]
pub(super) struct Hold<'a> {
    /// Step-up kinds that are not met.
    pub(super) kinds: SmallVec<[&'a str; 2]>,
    /// Id of the task whose scope it is.
    pub(super) task: &'a str,
    pub(super) message: String,
    pub(super) rule: DecidingRule,
}

/// Step-up kinds by which the scope of a task holds calls beyond it: as its template says now, and as it said when the task
/// started. `None`: one of the two denies such calls.
pub(super) fn kinds_beyond<'a>(plan: &'a Plan, task: &'a Task) -> Option<SmallVec<[&'a str; 2]>> {
    let started = task.beyond.as_deref()?;
    let now = plan.template(&task.template)?.beyond.as_deref()?;
    let mut kinds = SmallVec::from_slice(&[started, now]);
    kinds.dedup();
    Some(kinds)
}

/// Whether calls beyond the scope of a task, or of one above it, are held for a step-up.
///
/// INVARIANT (delegation only narrows): every task on the path must say so. Otherwise a child could do after a step-up what its
/// parent must not do at all.
pub(super) fn holds_beyond(plan: &Plan, view: TaskView<'_>) -> bool {
    view.path().all(|task| kinds_beyond(plan, task).is_some())
}

/// Refusal by a bound of the task or of its history.
#[derive(Debug)]
pub(super) struct BoundRefusal {
    pub(super) reason: ReasonCode,
    pub(super) message: String,
    pub(super) rules: Vec<DecidingRule>,
}

impl BoundRefusal {
    pub(super) fn new(reason: ReasonCode, message: String, rule: DecidingRule) -> Self {
        Self { reason, message, rules: vec![rule] }
    }
}

impl TaskBounds<'_> {
    /// Refuses the request, unless a weightier reason does so already.
    pub(super) fn refuse(&mut self, refusal: BoundRefusal) {
        if self.refused.as_ref().is_none_or(|known| refusal.reason < known.reason) {
            self.refused = Some(refusal);
        }
    }

    pub(super) fn charges(&self) -> Vec<(String, u32)> {
        self.counted.iter().map(|(task, entry)| ((*task).to_owned(), *entry)).collect()
    }
}

/// Holds the request against the scope, the uses and the tier of the task and of all above it. What the permit counted that
/// the presented credential was issued of is not counted again.
///
/// Args: `satisfied`: step-up kinds that are met.
pub(super) fn bounds<'a>(
    plan: &'a Plan,
    facts: &Facts<'a>,
    operation: &Operation,
    tier: TierFacts<'_>,
    resolved: &Resolved<'_>,
    satisfied: &[String],
    grant: GrantCover<'_>,
) -> TaskBounds<'a> {
    let mut bounds = TaskBounds::default();
    let charged = grant.map_or(&[][..], |(_, grant)| grant.charged);
    let task = facts.task.and_then(TaskView::real);
    let Some(view) = task.filter(|_| operation.system != OWN_SYSTEM) else { return bounds };
    let greets = operation.name == mcp::OWN && plan.model().is_built_in(operation);
    let acts = Acts {
        operation: &operation.id,
        greets: greets.then_some(operation.system.as_str()),
        collection: resolved.collection,
        id: &resolved.id.key,
        labels: &resolved.labels,
        arguments: resolved.arguments.json(),
    };
    let holds = holds_beyond(plan, view);
    for task in view.path() {
        let whose = if task.id == view.task.id { "the task" } else { "a task above it" };
        let beyond = |what: String| format!("{what}: beyond what {whose} allows");
        if tier.tier > task.tier_cap {
            let origin = rules::tier_origin(plan, operation, tier);
            let cap = rules::tier_cap(plan, task);
            let what = format!(
                "{}: tier {} of {} is above {} of {}",
                Dimension::TierCap,
                tier.tier.as_str(),
                origin.subject(),
                task.tier_cap.as_str(),
                cap.subject()
            );
            let mut refusal = BoundRefusal::new(ReasonCode::OutOfScope, beyond(what), cap);
            refusal.rules.push(origin);
            bounds.refuse(refusal);
        }
        let refuse = |reason, kind, dimension: Dimension<'_>| {
            let rule = rules::scope(plan, kind, task, &operation.id);
            BoundRefusal::new(reason, beyond(dimension.to_string()), rule)
        };
        match task::fit(task, &acts, charged) {
            Ok(None) => {}
            Ok(Some(entry)) => bounds.counted.push((&task.id, entry)),
            Err(Miss::Beyond(dimension)) => {
                let kinds = kinds_beyond(plan, task).filter(|_| holds);
                let held = kinds.map(|kinds| (kinds, task::fit_beyond(task, &acts, charged)));
                match held {
                    Some((mut kinds, Ok(entry))) => {
                        kinds.retain(|kind| !satisfied.iter().any(|met| met == kind));
                        bounds.counted.extend(entry.map(|entry| (task.id.as_str(), entry)));
                        let message = beyond(dimension.to_string());
                        let rule = rules::beyond(plan, task);
                        bounds.held.push(Hold { kinds, task: &task.id, message, rule });
                    }
                    Some((_, Err(Miss::Exhausted))) => {
                        let dimension = Dimension::Uses;
                        bounds.refuse(refuse(ReasonCode::UsesExhausted, RuleKind::Uses, dimension));
                    }
                    Some((_, Err(Miss::Beyond(ceiling)))) => {
                        bounds.refuse(refuse(ReasonCode::OutOfScope, RuleKind::Scope, ceiling));
                    }
                    None => {
                        bounds.refuse(refuse(ReasonCode::OutOfScope, RuleKind::Scope, dimension));
                    }
                }
            }
            Err(Miss::Exhausted) => {
                bounds.refuse(refuse(ReasonCode::UsesExhausted, RuleKind::Uses, Dimension::Uses));
            }
        }
    }
    bounds
}
