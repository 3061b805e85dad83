//! The rules that make an answer, beside Cedar policies: each with its place in the bundle.

use super::TierFacts;
use crate::decision::{DecidingRule, Facts, ReasonCode, Request, RuleKind};
use crate::model::{Location, Model, Operation, Tier};
use crate::plan::Plan;
use crate::task::{Task, TaskView};

/// A place in a file as a whole.
fn whole(file: &str) -> Location {
    Location { file: file.to_owned(), line: 1, column: 1 }
}

fn rule(kind: RuleKind, name: &str, at: Option<&Location>) -> DecidingRule {
    DecidingRule { kind, name: name.to_owned(), at: at.cloned().unwrap_or_default() }
}

/// The `classify` rule of an operation; without one, its entry in the catalog.
fn meaning<'a>(model: &'a Model, operation: &'a Operation) -> &'a Location {
    model.places.meanings.get(&operation.id).unwrap_or(&operation.at)
}

/// The default of every request: nothing permits it.
pub(super) fn default_deny(plan: &Plan, operation: &Operation) -> DecidingRule {
    rule(RuleKind::DefaultDeny, &operation.id, Some(meaning(plan.model(), operation)))
}

/// The entry of `tiers` that states requirements. Default requirements have no place.
pub(super) fn tier_requirement(plan: &Plan, tier: Tier) -> DecidingRule {
    rule(RuleKind::TierRequirement, tier.as_str(), plan.model().places.tiers.get(&tier))
}

/// What gives a call its tier: the operation, a destination class, a label, or a run of denials.
pub(super) fn tier_origin(
    plan: &Plan,
    operation: &Operation,
    facts: TierFacts<'_>,
) -> DecidingRule {
    let model = plan.model();
    if operation.tier >= facts.tier {
        return rule(RuleKind::Tier, &operation.id, Some(meaning(model, operation)));
    }
    let gives = |tier: Option<&Tier>| tier.is_some_and(|tier| *tier >= facts.tier);
    let mut classes = facts.destinations.iter().map(|placed| placed.class);
    if let Some(class) = classes.find(|class| gives(model.raises.classes.get(*class))) {
        let at = model.destinations.get(class).map(|class| &class.at);
        return rule(RuleKind::Tier, class, at);
    }
    let mut labels = facts.carried.labels();
    if let Some(label) = labels.find(|label| gives(model.raises.labels.get(*label))) {
        return rule(RuleKind::Tier, label, model.labels.get(label).map(|label| &label.at));
    }
    rule(RuleKind::Tier, "denials", model.places.denials.as_ref())
}

/// The cap that a task got from its template, or from `implicit_tasks`.
pub(super) fn tier_cap(plan: &Plan, task: &Task) -> DecidingRule {
    let model = plan.model();
    let implicit = model.tasks.implicit.as_ref().filter(|_| !task.kind.is_started());
    let template = model.templates.get(&task.template);
    let is_lowered = template.is_some_and(|template| task.tier_cap < template.tier_cap);
    if implicit.is_some() && is_lowered {
        return rule(RuleKind::TierCap, "implicit_tasks", model.places.implicit.as_ref());
    }
    let at = model.places.tier_caps.get(&task.template);
    rule(RuleKind::TierCap, &task.template, at.or(template.map(|template| &template.at)))
}

/// The entry of a template's scope that names an operation; without one, the template.
pub(super) fn scope(plan: &Plan, kind: RuleKind, task: &Task, operation: &str) -> DecidingRule {
    let model = plan.model();
    let template = model.templates.get(&task.template).map(|template| &template.at);
    let entry = model.places.scope_entry(&task.template, operation);
    rule(kind, &task.template, entry.or(template))
}

/// `beyond` of a template, which holds calls beyond its scope.
pub(super) fn beyond(plan: &Plan, task: &Task) -> DecidingRule {
    rule(RuleKind::Scope, &task.template, plan.model().places.beyonds.get(&task.template))
}

pub(super) fn budget(plan: &Plan, name: &str) -> DecidingRule {
    rule(RuleKind::Budget, name, plan.model().budgets.get(name).map(|budget| &budget.at))
}

pub(super) fn sequence(plan: &Plan, name: &str) -> DecidingRule {
    rule(RuleKind::Sequence, name, plan.model().sequences.get(name).map(|one| &one.at))
}

/// The number of uses of a permit.
pub(super) fn uses_of_permit(plan: &Plan, id: &str) -> DecidingRule {
    let placed = plan.policies.iter().find(|placed| placed.policy.id == id);
    rule(RuleKind::Uses, id, placed.map(|placed| &placed.at))
}

/// A standing exception.
pub(super) fn exception(plan: &Plan, name: &str) -> DecidingRule {
    rule(RuleKind::Exception, name, plan.model().exceptions.get(name).map(|one| &one.at))
}

/// A bound of Authz itself.
pub(super) fn check(name: &str) -> DecidingRule {
    rule(RuleKind::Check, name, None)
}

/// The rule behind a refusal that came before the policies were judged.
pub(super) fn of_refusal(
    plan: &Plan,
    facts: &Facts<'_>,
    request: &Request<'_>,
    reason: ReasonCode,
) -> DecidingRule {
    let model = plan.model();
    let operation = plan.operation(request.operation);
    let tasks = || model.places.tasks.clone().unwrap_or_else(|| whole("bundle.yaml"));
    match (reason, operation) {
        (ReasonCode::UnknownOperation, known) => {
            let system = request.operation.split_once('.').map_or("", |(system, _)| system);
            let split = known.map(|operation| &operation.at);
            let at = split.or(model.systems.get(system).map(|system| &system.at));
            let at = at.cloned().unwrap_or_else(|| whole("bundle.yaml"));
            let name = if model.systems.contains_key(system) { system } else { "catalog" };
            rule(RuleKind::Catalog, name, Some(&at))
        }
        (ReasonCode::UnreviewedOperation | ReasonCode::CatalogDrift, Some(operation)) => {
            rule(RuleKind::Catalog, &operation.id, Some(&operation.at))
        }
        (ReasonCode::BadInput | ReasonCode::AmbiguousRequest, Some(operation)) => {
            rule(RuleKind::Input, &operation.id, Some(&operation.at))
        }
        (ReasonCode::NoTask, _) => rule(RuleKind::Tasks, "tasks", Some(&tasks())),
        (ReasonCode::OutOfScope, _) if facts.granted.is_none() => {
            let task = facts.task.and_then(TaskView::real);
            let is_implicit =
                task.is_some_and(|view| plan.roles().is_implicit(view.task.assignee()));
            match is_implicit {
                true => rule(RuleKind::Tasks, "implicit_tasks", model.places.implicit.as_ref()),
                false => check("template"),
            }
        }
        (ReasonCode::OutOfScope | ReasonCode::UsesExhausted, _) => check("task_credential"),
        (
            ReasonCode::TaskEnded
            | ReasonCode::Revoked
            | ReasonCode::NotAssignee
            | ReasonCode::TaskConflict
            | ReasonCode::TooDeep,
            _,
        ) => check("task"),
        (ReasonCode::NoCredential, _) => check("identity"),
        (ReasonCode::StateUnavailable | ReasonCode::Unavailable, _) => check("state"),
        _ => check("request"),
    }
}
