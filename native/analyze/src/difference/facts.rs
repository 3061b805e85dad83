//! Facts of a bundle beside its policies: which of them changed.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Debug;

use authz_kernel::decision::PolicyEffect;
use authz_kernel::plan::Plan;
use serde::Serialize;

use super::PolicyPair;

/// A fact that differs between two bundles and that the proof does not cover.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct ChangedFact {
    /// Part of the bundle, for example `roles`.
    pub section: &'static str,
    /// Name within the part; empty for a part without names.
    pub name: String,
    /// `added`, `removed` or `changed`.
    pub change: &'static str,
    /// How the fact can change decisions.
    pub effect: &'static str,
}

/// Compares the facts of two bundles, without places.
pub(super) fn changed(
    old: &Plan,
    new: &Plan,
    policies: &BTreeMap<&str, PolicyPair<'_>>,
) -> Vec<ChangedFact> {
    let (before, after) = (sections(old), sections(new));
    let mut all = Vec::new();
    for (section, effect, entries) in &after {
        let before = before.iter().find(|(name, ..)| name == section);
        let none = BTreeMap::new();
        let before = before.map_or(&none, |(_, _, entries)| entries);
        let names: BTreeSet<&String> = before.keys().chain(entries.keys()).collect();
        for name in names {
            let change = match (before.get(name), entries.get(name)) {
                (None, Some(_)) => "added",
                (Some(_), None) => "removed",
                (Some(one), Some(other)) if one != other => "changed",
                _ => continue,
            };
            all.push(ChangedFact { section, name: name.clone(), change, effect });
        }
    }
    // A new operation is asked about by itself, and one that is gone permits nothing.
    all.retain(|fact| fact.section != OPERATIONS || fact.change == "changed");
    all.extend(policies.iter().filter_map(|(id, pair)| annotations(id, pair)));
    all.extend(policies.iter().filter_map(|(id, pair)| observed(id, pair)));
    all.sort();
    all
}

const OPERATIONS: &str = "operations";

type Section = (&'static str, &'static str, BTreeMap<String, String>);

/// Facts of a bundle as texts without places: section, effect on decisions, and entries by name.
fn sections(plan: &Plan) -> Vec<Section> {
    let model = plan.model();
    // The sections leave out the arguments in the schema and the action groups, which the proof covers.
    let operations = model.operations.iter().chain(model.splits.values().map(|one| &one.operation));
    let operations = operations.map(|one| (one.id.clone(), text(one))).collect();
    vec![
        (OPERATIONS, "tier, labels, resource, destination or arguments of its calls", operations),
        ("splits", "operation that a call becomes", of(&model.splits)),
        ("systems", "requests that reach its operations", of(&model.systems)),
        ("tools", "operation that a tool becomes", of(&model.tools)),
        ("routes", "operation that an HTTP request becomes", one(&model.routes)),
        ("labels", "labels of sessions and resources", of(&model.labels)),
        ("derives", "labels of sessions", of(&model.derives)),
        ("raises", "tier of a call", one(&model.raises)),
        ("collections", "labels of resources", of(&model.collections)),
        ("resources", "labels of resources", one(&model.resource_patterns)),
        ("destinations", "class, clearance and trust of a destination", of(&model.destinations)),
        ("recipient_lists", "class and trust of a destination", of(&model.recipient_lists)),
        ("roles", "principals that hold the role", of(&model.roles)),
        ("tiers", "step-up that a tier requires", one(&model.tiers)),
        ("sequences", "sequences that a call completes", of(&model.sequences)),
        ("budgets", "budgets that a call exceeds", of(&model.budgets)),
        ("exceptions", "calls that an exception covers", of(&model.exceptions)),
        ("exception_days", "time for which an exception lasts", one(&model.exception_days)),
        ("denials", "consequences of repeated denials", one(&model.denials)),
        ("approvals", "people who can lift a step-up", one(&model.approvals)),
        ("mode", "denials that are not enforced", one(&model.modes)),
        ("tasks", "calls without a task", one(&model.tasks)),
        ("templates", "operations that a task may call", of(&model.templates)),
        ("input_responses", "answers to requests of an MCP server", one(&model.input_responses)),
    ]
}

/// A value as text without places.
fn text(value: &impl Debug) -> String {
    format!("{value:#?}")
}

fn of<T: Debug>(entries: &BTreeMap<String, T>) -> BTreeMap<String, String> {
    entries.iter().map(|(name, value)| (name.clone(), text(value))).collect()
}

fn one(value: &impl Debug) -> BTreeMap<String, String> {
    BTreeMap::from([(String::new(), text(value))])
}

/// A forbid with `@mode("observe")` that the new bundle lacks, narrows, or observes until another time. At its end it would have
/// denied requests, and the proof leaves observed policies out.
fn observed(id: &str, (old, new): &PolicyPair<'_>) -> Option<ChangedFact> {
    let old = old.filter(|old| old.effect == PolicyEffect::Forbid)?;
    old.observed_until_ms?;
    let change = match new {
        None => "removed",
        Some(new) => {
            let is_same = new.effect == old.effect
                && new.condition() == old.condition()
                && (new.observed_until_ms.is_none()
                    || new.observed_until_ms == old.observed_until_ms);
            if is_same {
                return None;
            }
            "changed"
        }
    };
    Some(ChangedFact {
        section: "policies",
        name: id.to_owned(),
        change,
        effect: "requests that the forbid denies after the end of its `@mode`",
    })
}

/// Annotations that change a decision beside the policy's condition.
fn annotations(id: &str, (old, new): &PolicyPair<'_>) -> Option<ChangedFact> {
    let (old, new) = (old.as_ref()?, new.as_ref()?);
    let is_same =
        old.stepup == new.stepup && old.obligations == new.obligations && old.covers == new.covers;
    (!is_same).then(|| ChangedFact {
        section: "policies",
        name: id.to_owned(),
        change: "changed",
        effect: "obligations of a permit, or step-up that lifts a forbid",
    })
}
