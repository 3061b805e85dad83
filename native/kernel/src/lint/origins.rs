//! Operations whose results or values have no origin that a policy could read.

use std::collections::BTreeMap;

use super::warn;
use crate::diagnostic::Diagnostics;
use crate::model::{
    Effect, IntroducedBy, LabelKind, Location, Model, Operation, Reports, ValueRole,
};
use crate::plan::Plan;
use crate::schema::Key;

/// Operations that a message lists.
const SHOWN: usize = 3;

pub(super) fn check(plan: &Plan, found: &mut Diagnostics) {
    let model = plan.model();
    // A bundle that was written before there were origins has no new warnings.
    if uses_origins(plan) {
        unlabelled(model, found);
        without_objects(model, found);
    }
    introduced_by_outsiders(model, found);
    never_reported(model, found);
}

fn reviewed(model: &Model) -> impl Iterator<Item = &Operation> {
    model.operations.iter().filter(|operation| operation.reviewed && !model.is_built_in(operation))
}

fn place<'a>(model: &'a Model, operation: &'a Operation) -> &'a Location {
    model.places.meanings.get(&operation.id).unwrap_or(&operation.at)
}

/// Whether a bundle asks for origins anywhere.
fn uses_origins(plan: &Plan) -> bool {
    let reads = |key| plan.policies.iter().any(|placed| placed.policy.reading.keys.contains(key));
    reads(Key::Origins) || plan.model().operations.iter().any(|one| !one.origins.objects.is_empty())
}

fn is_trust(model: &Model, label: &str) -> bool {
    model.labels.get(label).is_some_and(|declared| declared.value == LabelKind::Trust)
}

/// Operations that return something, and whose results carry no label, in a bundle with labels of trust. The operations of one
/// rule share a warning.
fn unlabelled(model: &Model, found: &mut Diagnostics) {
    if !model.labels.keys().any(|label| is_trust(model, label)) {
        return;
    }
    let mut by_rule: BTreeMap<(&str, u32, u32), Vec<&Operation>> = BTreeMap::new();
    for operation in reviewed(model).filter(|operation| is_unlabelled(model, operation)) {
        let at = place(model, operation);
        by_rule.entry((&at.file, at.line, at.column)).or_default().push(operation);
    }
    for operations in by_rule.values() {
        let Some(first) = operations.first() else { continue };
        let ids = listed(operations);
        let what = format!(
            "{ids} may return text, and `yields` is missing: results carry no label of trust"
        );
        let fix = "Add the label of what others may have written there, or `yields: []` if nobody else writes it.";
        warn(found, "unlabelled-result", place(model, first), what, fix);
    }
}

fn is_unlabelled(model: &Model, operation: &Operation) -> bool {
    // A write that declares its results returns some.
    let origins = &operation.origins;
    let declares =
        !origins.creates.is_empty() || !origins.introduces.is_empty() || !origins.pairs.is_empty();
    let returns = [Effect::Read, Effect::Execute].iter().any(|one| operation.effects.contains(one));
    let collection = operation.resource.as_ref().map(|rule| rule.collection.as_str());
    let declared = collection.and_then(|name| model.collections.get(name));
    let patterns =
        model.resource_patterns.iter().filter(|one| Some(one.collection.as_str()) == collection);
    let has_labels = declared.is_some_and(|one| !one.labels.is_empty())
        || patterns.into_iter().any(|one| !one.labels.is_empty());
    (returns || declares) && !has_labels && !model.places.yields.contains(&operation.id)
}

fn listed(operations: &[&Operation]) -> String {
    let ids: Vec<String> =
        operations.iter().take(SHOWN).map(|one| format!("`{}`", one.id)).collect();
    match operations.len().saturating_sub(SHOWN) {
        0 => ids.join(", "),
        more => format!("{} and {more} more", ids.join(", ")),
    }
}

/// Operations that delete, grant or run something that `objects` does not name.
fn without_objects(model: &Model, found: &mut Diagnostics) {
    for operation in reviewed(model) {
        let effect = [Effect::Delete, Effect::Grant, Effect::Execute]
            .into_iter()
            .find(|effect| operation.effects.contains(effect));
        let goes_there =
            operation.destination.as_ref().is_some_and(|rule| rule.role != ValueRole::Recipient);
        let Some(effect) =
            effect.filter(|_| !model.places.objects.contains(&operation.id) && !goes_there)
        else {
            continue;
        };
        let role = if effect == Effect::Execute { "command" } else { "target" };
        let what = format!(
            "`{}` has the effect `{}`, and no `objects`: no policy can ask who chose its {role}",
            operation.id,
            effect.as_str()
        );
        let fix = format!(
            "Add `objects: {{from: [/argument], role: {role}, …}}`, or `objects: []` if no argument chooses it."
        );
        warn(found, "no-objects", place(model, operation), what, fix);
    }
}

/// Values of results that nobody reports.
fn never_reported(model: &Model, found: &mut Diagnostics) {
    for operation in reviewed(model).filter(|one| model.reports(&one.id) == Reports::Never) {
        let origins = &operation.origins;
        let keys = [
            ("creates", origins.creates.is_empty()),
            ("introduces", origins.introduces.is_empty()),
            ("pairs", origins.pairs.is_empty()),
        ];
        let Some((key, _)) = keys.into_iter().find(|(_, is_empty)| !is_empty) else { continue };
        let what = format!(
            "`{}` has `{key}`, but nobody reports the results of `{}`: their values stay unknown",
            operation.id, operation.system
        );
        let fix = format!(
            "Write `reports: sdk` for the system `{}`, or remove `{key}`.",
            operation.system
        );
        warn(found, "unreported-values", place(model, operation), what, fix);
    }
}

/// Fields of results that are said to be the owner's, though outsiders write into those results.
fn introduced_by_outsiders(model: &Model, found: &mut Diagnostics) {
    for operation in reviewed(model) {
        let Some(label) = operation.yields.1.iter().find(|label| is_trust(model, label)) else {
            continue;
        };
        let of_owner =
            operation.origins.introduces.iter().filter(|rule| rule.by == IntroducedBy::Owner);
        for rule in of_owner {
            let what = format!(
                "`{}` yields `{label}`, and `{}` of its results counts as the owner's",
                operation.id, rule.from
            );
            let fix = "Check that no outsider can write the field. Otherwise name its `author`, or write `by: anybody`.";
            warn(found, "introduced-by-outsiders", place(model, operation), what, fix);
        }
    }
}
