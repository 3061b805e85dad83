//! Rules about history that would say less than they seem to.

use std::collections::BTreeSet;

use crate::decision::PolicyEffect;
use crate::diagnostic::Diagnostics;
use crate::evaluate::syntax::{ActionScope, PolicyReading};
use crate::history::{Budgets, Recall, Sequences};
use crate::model::{Budget, Effect, LabelKind, Model, Operation};
use crate::policy::Placed;
use crate::schema::Key;

/// Refuses a flow rule with a hole, and warns of labels that nothing reads or keeps.
pub(crate) fn check(
    model: &Model,
    policies: &[Placed],
    recall: Recall,
    diagnostics: &mut Diagnostics,
) {
    for placed in policies {
        narrow(placed, diagnostics);
    }
    idle(model, policies, diagnostics);
    // Beside an error it would be noise.
    if !diagnostics.has_errors() {
        unread(model, policies, diagnostics);
        unkept(model, recall, diagnostics);
    }
}

/// Reports what happens to the progress of changed rules.
pub(crate) fn changed(
    model: &Model,
    before: Option<&Sequences>,
    after: &Sequences,
    diagnostics: &mut Diagnostics,
) {
    let Some(before) = before else { return };
    let after = after.stored();
    for (name, stored) in before.stored() {
        let (Some(now), Some(sequence)) = (after.get(name), model.sequences.get(name)) else {
            continue;
        };
        if *now != stored {
            diagnostics.warning(
                &sequence.at,
                format!("the sequence `{name}` is another than before: in live sessions it begins anew"),
                "Give it another name, and keep the old one beside it until those sessions have ended.",
            );
        }
    }
}

/// Reports what happens to the use of changed budgets.
pub(crate) fn recounted(
    model: &Model,
    before: Option<&Budgets>,
    after: &Budgets,
    diagnostics: &mut Diagnostics,
) {
    let Some(before) = before else { return };
    let after = after.stored();
    for (name, stored) in before.stored() {
        let (Some(now), Some(budget)) = (after.get(name), model.budgets.get(name)) else {
            continue;
        };
        if *now != stored {
            diagnostics.warning(
                &budget.at,
                format!("the budget `{name}` counts something else than before: in live sessions it begins anew"),
                "Give it another name, and keep the old one beside it until those sessions have ended.",
            );
        }
    }
}

/// A rule that no policy reads changes no decision.
fn idle(model: &Model, policies: &[Placed], diagnostics: &mut Diagnostics) {
    let readings = || policies.iter().map(|placed| &placed.policy.reading);
    let names = |reading: &'_ PolicyReading| {
        reading
            .names
            .iter()
            .filter(|name| name.kind == "Sequence")
            .map(|name| name.id.clone())
            .collect()
    };
    let mut read: BTreeSet<String> = BTreeSet::new();
    for reading in readings().filter(|reading| reading.keys.contains(Key::Sequences)) {
        let named: BTreeSet<String> = names(reading);
        if named.is_empty() {
            // It reads whether there is any.
            read.extend(model.sequences.keys().cloned());
        }
        read.extend(named);
    }
    let spent: BTreeSet<&str> = readings()
        .filter(|reading| reading.keys.contains(Key::Budgets))
        .flat_map(|reading| &reading.names)
        .filter(|name| name.kind == "Budget")
        .map(|name| name.id.as_str())
        .collect();
    let idle =
        |(name, budget): &(&String, &Budget)| !budget.denies && !spent.contains(name.as_str());
    for (name, budget) in model.budgets.iter().filter(idle) {
        diagnostics.error(
            &budget.at,
            format!("no policy reads the budget `{name}`, so it changes nothing"),
            "Leave `then: policy` out, and what would exceed it is denied.",
        );
    }
    for (name, sequence) in model.sequences.iter().filter(|(name, _)| !read.contains(*name)) {
        diagnostics.error(
            &sequence.at,
            format!("no policy reads the sequence `{name}`, so it changes nothing"),
            format!("Let one forbid when `context.sequences.contains(Sequence::\"{name}\")`, or remove it."),
        );
    }
}

/// A forbid on flow must not be limited to some effects: an operation with a destination carries data out, also if its effect
/// is, for example, `read`.
fn narrow(placed: &Placed, diagnostics: &mut Diagnostics) {
    let reading = &placed.policy.reading;
    if placed.policy.effect != PolicyEffect::Forbid || !reading.keys.contains(Key::UnclearedLabels)
    {
        return;
    }
    let of_effect = |id: &&String| id.starts_with("effect:");
    let in_scope = match &reading.actions {
        ActionScope::Of(ids) => ids.iter().find(of_effect),
        ActionScope::Any => None,
    };
    let Some(effect) = in_scope.or_else(|| reading.body_actions.iter().find(of_effect)) else {
        return;
    };
    let named = reading.names.iter().find(|name| name.kind == "Action" && name.id == *effect);
    let at = named.map_or_else(|| placed.at.clone(), |name| placed.place(name.offset));
    diagnostics.error(
        &at,
        format!(
            "the forbid reads `context.uncleared_labels`, but speaks of `{effect}` only: any operation with a destination \
             carries data out, also one that reads"
        ),
        "Write `action` alone: `uncleared_labels` is empty where an operation has no destination.",
    );
}

/// A label that nothing reads changes no decision.
fn unread(model: &Model, policies: &[Placed], diagnostics: &mut Diagnostics) {
    let readings = || policies.iter().map(|placed| &placed.policy.reading);
    let flows = readings().any(|reading| reading.keys.contains(Key::UnclearedLabels));
    let named: BTreeSet<&str> = readings()
        .flat_map(|reading| &reading.names)
        .filter(|name| name.kind == "Label")
        .map(|name| name.id.as_str())
        .collect();
    let scopes = || model.templates.values().flat_map(|template| &template.scope);
    let has_ceiling = scopes().any(|rule| rule.resources.label_ceiling.is_some());
    for (name, label) in &model.labels {
        let is_read = named.contains(name.as_str())
            || (flows && label.value == LabelKind::Confidentiality)
            || model.raises.labels.contains_key(name)
            || model.derives.values().any(|rule| rule.from == *name)
            || has_ceiling;
        if !is_read {
            diagnostics.warning(
                &label.at,
                format!("nothing reads the label `{name}`: it changes no decision"),
                "Let a policy read it, for instance `context.session.labels`, or remove it.",
            );
        }
    }
}

/// `keeps_written` where nothing is written, where nothing depends on labels, or where nothing reads what is kept.
fn unkept(model: &Model, recall: Recall, diagnostics: &mut Diagnostics) {
    let acted_on = |effects: &[Effect]| -> BTreeSet<&str> {
        let fits = |one: &&Operation| effects.iter().any(|effect| one.effects.contains(effect));
        let all = model.operations.iter().filter(fits);
        all.filter_map(|operation| Some(operation.resource.as_ref()?.collection.as_str())).collect()
    };
    let written = acted_on(&[Effect::Write]);
    let read = acted_on(&[Effect::Read, Effect::Execute]);
    let is_followed = recall.follows_labels && !model.labels.is_empty();
    for (name, collection) in &model.collections {
        let Some(at) = &collection.keeps_at else { continue };
        let name = name.as_str();
        let (why, fix) = if !written.contains(name) {
            (
                "no operation with the effect `write` acts on it",
                "Classify one that does, with its `resource`, or remove it.",
            )
        } else if collection.keeps_ms.is_none() {
            continue;
        } else if !is_followed {
            (
                "nothing depends on which labels are carried",
                "Let a policy read them, for instance `context.session.labels`, or remove it.",
            )
        } else if !recall.asks_resource && !read.contains(name) {
            (
                "no operation reads what is written there",
                "Classify the one that does, with its `resource`, or say `keeps_written: none`.",
            )
        } else {
            continue;
        };
        let what = format!("`keeps_written` of the collection `{name}` changes nothing: {why}");
        diagnostics.warning(at, what, fix);
    }
}
