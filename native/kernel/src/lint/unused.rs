//! Roles, labels and collections that have no effect, and issuers that the configuration lacks.

use std::collections::BTreeSet;

use super::{LintFacts, warn};
use crate::diagnostic::{Diagnostics, unknown};
use crate::model::{AgentMemory, Model, RoleMembers, Tier, ValueSpace};
use crate::plan::Plan;

pub(super) fn check(plan: &Plan, facts: &LintFacts, found: &mut Diagnostics) {
    let model = plan.model();
    roles(plan, found);
    collections(model, found);
    labels(model, found);
    exceptions(plan, found);
    if facts.has_guards == Some(false) {
        confidence(model, found);
    }
    if let Some(issuers) = &facts.issuers {
        unknown_issuers(model, issuers, found);
    }
}

/// Roles that no policy names, and that have no other effect.
fn roles(plan: &Plan, found: &mut Diagnostics) {
    let model = plan.model();
    let names = plan.policies.iter().flat_map(|placed| &placed.policy.reading.names);
    let mut named: BTreeSet<&str> = names
        .filter_map(|name| match name.kind.as_str() {
            "Role" => Some(name.id.as_str()),
            "Kind" => name.id.strip_prefix("approve:"),
            _ => None,
        })
        .collect();
    let stepups = plan.policies.iter().filter_map(|placed| placed.policy.stepup.as_deref());
    named.extend(stepups.filter_map(|kind| kind.strip_prefix("approve:")));
    let beyond = model.templates.values().filter_map(|one| one.beyond.as_deref());
    named.extend(beyond.filter_map(|kind| kind.strip_prefix("approve:")));
    named.extend(model.templates.values().flat_map(|one| &one.starters).map(String::as_str));
    named.extend(model.modes.agents.keys().map(String::as_str));
    let unused = model
        .roles
        .iter()
        .filter(|(name, members)| !named.contains(name.as_str()) && !has_settings(members));
    for (name, members) in unused {
        let (code, whose) = match members.agents.is_empty() {
            true => ("unused-role", "people"),
            false => ("unused-agents", "agents"),
        };
        let what = format!("no policy names the role `{name}`, so it gives its {whose} nothing");
        let fix = format!(
            "Name it in a policy, for example `permit (principal in Role::\"{name}\", …)`, or remove it."
        );
        warn(found, code, &members.at, what, fix);
    }
}

/// Whether a role does something beside being named by policies.
fn has_settings(members: &RoleMembers) -> bool {
    members.harness
        || members.is_implicit
        || members.subject.is_some()
        || members.has_controls
        || members.memory != AgentMemory::default()
}

/// Collections that no operation acts on, and whose ids no argument has either.
fn collections(model: &Model, found: &mut Diagnostics) {
    let rules = model.operations.iter().filter_map(|operation| operation.resource.as_ref());
    let used: BTreeSet<&str> = rules.map(|rule| rule.collection.as_str()).collect();
    let objects = model.operations.iter().flat_map(|operation| &operation.origins.objects);
    let namespaces: BTreeSet<&str> = objects
        .filter_map(|rule| match &rule.space {
            ValueSpace::Collection { name, .. } => Some(name.as_str()),
            ValueSpace::Destination(_) | ValueSpace::Role(_) => None,
        })
        .collect();
    let has_labels = |name: &str, labels: &BTreeSet<String>| {
        !labels.is_empty() || model.resource_patterns.iter().any(|one| one.collection == name)
    };
    for (name, collection) in &model.collections {
        // Labels of a collection apply to resources alone; its ids are a namespace of arguments, too.
        let is_namespace =
            namespaces.contains(name.as_str()) && !has_labels(name, &collection.labels);
        if used.contains(name.as_str()) || is_namespace {
            continue;
        }
        let what = format!(
            "no operation acts on the collection `{name}`, so its labels and policies never apply"
        );
        let fix = format!(
            "Add `resource: {{collection: {name}, id: /ARGUMENT}}` to the `classify` rules of the operations that act on it, or \
             remove it."
        );
        warn(found, "unused-collection", &collection.at, what, fix);
    }
}

/// Labels that no data of the bundle carries.
fn labels(model: &Model, found: &mut Diagnostics) {
    let operations = model.operations.iter();
    let mut brought: BTreeSet<&str> = operations
        .flat_map(|one| one.yields.0.iter().chain(&one.yields.1))
        .map(String::as_str)
        .collect();
    brought.extend(model.collections.values().flat_map(|one| &one.labels).map(String::as_str));
    brought.extend(model.resource_patterns.iter().flat_map(|one| &one.labels).map(String::as_str));
    // A derived label needs the label that it is derived from, which may be derived itself.
    for _ in 0..model.derives.len() {
        let derived = model.derives.iter().filter(|(_, rule)| brought.contains(rule.from.as_str()));
        let derived: Vec<&str> = derived.map(|(name, _)| name.as_str()).collect();
        brought.extend(derived);
    }
    for (name, label) in model.labels.iter().filter(|(name, _)| !brought.contains(name.as_str())) {
        let (what, fix) = match model.derives.get(name) {
            Some(rule) => (
                format!("the label `{name}` is derived from `{}`, which nothing brings", rule.from),
                format!(
                    "Add `{}` to the `yields` of an operation, or to the labels of a collection.",
                    rule.from
                ),
            ),
            None => (
                format!(
                    "no operation and no collection brings the label `{name}`, so no data ever carries it"
                ),
                format!(
                    "Add it to the `yields` of an operation, for example `yields: [{name}]`, or to the labels of a collection."
                ),
            ),
        };
        warn(found, "unyielded-label", &label.at, what, fix);
    }
}

/// Exceptions that no policy accepts.
fn exceptions(plan: &Plan, found: &mut Diagnostics) {
    let names = plan.policies.iter().flat_map(|placed| placed.policy.exceptions());
    let accepted: BTreeSet<&str> = names.collect();
    let exceptions = plan.model().exceptions.iter();
    for (name, exception) in exceptions.filter(|(name, _)| !accepted.contains(name.as_str())) {
        let what = format!("no policy accepts the exception `{name}`, so it permits nothing");
        let fix = format!(
            "Add `when {{ context.exception.contains(Exception::\"{name}\") }}` to a permit, or remove the exception."
        );
        warn(found, "unused-exception", &exception.at, what, fix);
    }
}

/// Tiers that require a confidence which no guard of the node states.
fn confidence(model: &Model, found: &mut Diagnostics) {
    let required = Tier::ALL.into_iter().zip(&model.tiers).filter(|(_, one)| one.confidence > 0);
    for (tier, requirements) in required {
        let Some(at) = model.places.tiers.get(&tier) else { continue };
        let what = format!(
            "tier `{}` requires confidence {}, and no guard states any: its calls stay held",
            tier.as_str(),
            requirements.confidence
        );
        let fix = "Declare a guard under `guards` of the configuration, or remove `confidence`.";
        warn(found, "no-guard", at, what, fix);
    }
}

/// Roles of people of an issuer that the node does not trust.
fn unknown_issuers(model: &Model, issuers: &BTreeSet<String>, found: &mut Diagnostics) {
    for (role, members) in &model.roles {
        for member in members.subjects.iter().filter(|one| !issuers.contains(&one.issuer)) {
            let declared = issuers.iter().map(|issuer| (issuer.as_str(), None));
            let (what, fix) = unknown("issuer", &member.issuer, declared);
            let what = format!("{what}: nobody gets the role `{role}` here");
            let fix = fix.and("Issuers are declared under `trust.issuers` of the configuration.");
            warn(found, "unknown-issuer", &member.at, what, fix);
        }
    }
}
