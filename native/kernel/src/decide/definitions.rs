//! Definitions from which facts of a call follow, compared between the bundle that judged the call and another one.

use std::collections::BTreeMap;

use crate::model::{Model, Operation};
use crate::plan::Plan;

/// Knowledge about the bundle in which the facts of a record were found.
#[derive(Clone, Copy, Debug)]
pub enum Definitions<'a> {
    /// Everything but the policies is the same in both bundles.
    Same,
    /// The bundle is at hand.
    Of(&'a Plan),
    /// The bundle is not at hand, and differs in more than its policies.
    Unknown,
}

/// Parts of a bundle that mean the same in both.
#[derive(Clone, Copy, Debug)]
pub(super) struct SameParts {
    /// Everything but the policies.
    pub(super) all: bool,
    /// The schema, the resource rule and the classification of the operation.
    pub(super) operation: bool,
    pub(super) destinations: bool,
    pub(super) origins: bool,
    pub(super) sequences: bool,
    pub(super) budgets: bool,
    /// Labels of resources.
    pub(super) resources: bool,
    /// Tier of the operation, and everything that raises it.
    pub(super) tiers: bool,
    /// Conditions on the claims of subjects.
    pub(super) subjects: bool,
}

impl SameParts {
    /// Compares the parts that concern one operation.
    pub(super) fn of(plan: &Plan, definitions: Definitions<'_>, operation: &Operation) -> Self {
        match definitions {
            Definitions::Same => Self::every(true),
            Definitions::Unknown => Self::every(false),
            Definitions::Of(other) if other.model().facts_digest == plan.model().facts_digest => {
                Self::every(true)
            }
            Definitions::Of(other) => {
                let (one, two) = (plan.model(), other.model());
                match other.operation(&operation.id) {
                    Some(before) => Self::compared((one, operation), (two, before)),
                    None => Self::every(false),
                }
            }
        }
    }

    const fn every(is_same: bool) -> Self {
        Self {
            all: is_same,
            operation: is_same,
            destinations: is_same,
            origins: is_same,
            sequences: is_same,
            budgets: is_same,
            resources: is_same,
            tiers: is_same,
            subjects: is_same,
        }
    }

    fn compared(
        (one, operation): (&Model, &Operation),
        (two, before): (&Model, &Operation),
    ) -> Self {
        let resources = labels_of_resources(one, two);
        let destinations = operation.destination == before.destination
            && same_destinations(one, two)
            && operation.origins.objects == before.origins.objects;
        let same_operation = operation.resource == before.resource
            && operation.input == before.input
            && operation.origins.coerces == before.origins.coerces
            && operation.reviewed == before.reviewed
            && operation.drifted == before.drifted;
        Self {
            all: false,
            operation: same_operation,
            destinations,
            origins: destinations && same_operation && names_of_templates(one, two),
            sequences: canonical_sequences(one) == canonical_sequences(two),
            budgets: canonical_budgets(one) == canonical_budgets(two),
            resources,
            tiers: resources
                && destinations
                && operation.tier == before.tier
                && one.raises == two.raises
                && one.denials == two.denials,
            subjects: conditions_on_subjects(one) == conditions_on_subjects(two),
        }
    }
}

fn same_destinations(one: &Model, two: &Model) -> bool {
    let classes = |model: &Model| -> Vec<_> {
        let parts = model.destinations.iter();
        parts
            .map(|(name, class)| {
                (name.clone(), class.patterns.clone(), class.recipient_lists.clone())
            })
            .collect()
    };
    let lists = |model: &Model| -> Vec<_> {
        let lists = model.recipient_lists.iter();
        lists
            .map(|(name, list)| {
                let rule = (list.from.clone(), list.column.clone(), list.alias.clone());
                (name.clone(), rule, list.max_age, list.trusted)
            })
            .collect()
    };
    classes(one) == classes(two) && lists(one) == lists(two)
}

fn labels_of_resources(one: &Model, two: &Model) -> bool {
    let collections = |model: &Model| -> Vec<_> {
        let all = model.collections.iter();
        all.map(|(name, of)| (name.clone(), of.labels.clone(), of.keeps_ms, of.spelling)).collect()
    };
    collections(one) == collections(two) && one.resource_patterns == two.resource_patterns
}

fn names_of_templates(one: &Model, two: &Model) -> bool {
    let names = |model: &Model| -> BTreeMap<_, _> {
        let all = model.templates.iter();
        all.map(|(name, template)| (name.clone(), template.names.clone())).collect()
    };
    names(one) == names(two)
}

fn canonical_sequences(model: &Model) -> BTreeMap<&str, String> {
    model.sequences.iter().map(|(name, rule)| (name.as_str(), rule.canonical())).collect()
}

fn canonical_budgets(model: &Model) -> BTreeMap<&str, (String, i64, bool)> {
    let all = model.budgets.iter();
    all.map(|(name, rule)| (name.as_str(), (rule.canonical(), rule.most, rule.denies))).collect()
}

/// Conditions of each role on subjects, without their places.
fn conditions_on_subjects(model: &Model) -> BTreeMap<&str, Vec<String>> {
    let all = model.roles.iter();
    all.map(|(name, members)| {
        let one = |one: &crate::model::SubjectMatch| format!("{} {:?}", one.issuer, one.test);
        (name.as_str(), members.subjects.iter().map(one).collect())
    })
    .collect()
}
