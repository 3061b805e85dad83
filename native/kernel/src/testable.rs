//! Parts of a bundle that its tests can reach.

use std::collections::BTreeMap;

use authz_base::record::approval::{APPROVE, CONFIRM, TWO_PERSON};
use serde::Serialize;

use crate::decision::PolicyEffect;
use crate::model::{Location, Tier, TierApproval, TierRequirements};
use crate::plan::Plan;

/// Kinds of parts of a bundle that tests can reach.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum PartKind {
    /// A policy; its name is its `@id`.
    Policy,
    /// An operation of the catalog; of one that is split, its cases.
    Operation,
    /// A rule over the order of events.
    Sequence,
    /// A budget.
    Budget,
    /// A task template.
    Template,
    /// A tier that `tiers` describes, or that an operation has.
    Tier,
    /// A step-up kind of a policy, a template, or one of those tiers.
    StepUpKind,
    /// A destination class.
    Destination,
    /// A standing exception.
    Exception,
}

/// One part of a bundle that tests can reach.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TestablePart {
    /// Kind of the part.
    pub kind: PartKind,
    /// Its name in the bundle.
    pub name: String,
    /// Its place; of a step-up kind or a tier the first place that names it. The file is empty where no file does.
    pub at: Location,
    /// Effect of a policy.
    pub effect: Option<PolicyEffect>,
}

impl Plan {
    /// Parts of the bundle that its tests can reach, by kind and name, each once.
    #[must_use]
    pub fn testable_parts(&self) -> Vec<TestablePart> {
        let model = self.model();
        let part = |kind, name: &str, at: &Location| TestablePart {
            kind,
            name: name.to_owned(),
            at: at.clone(),
            effect: None,
        };
        let mut parts: Vec<TestablePart> = self
            .policies
            .iter()
            .map(|placed| TestablePart {
                effect: Some(placed.policy.effect),
                ..part(PartKind::Policy, &placed.policy.id, &placed.at)
            })
            .collect();
        let operations = model.operations.iter().filter(|one| !model.is_built_in(one));
        parts.extend(operations.map(|one| part(PartKind::Operation, &one.id, &one.at)));
        let sequences = model.sequences.iter();
        parts.extend(sequences.map(|(name, one)| part(PartKind::Sequence, name, &one.at)));
        let budgets = model.budgets.iter();
        parts.extend(budgets.map(|(name, one)| part(PartKind::Budget, name, &one.at)));
        let templates = model.templates.iter();
        parts.extend(templates.map(|(name, one)| part(PartKind::Template, name, &one.at)));
        let destinations = model.destinations.iter();
        parts.extend(destinations.map(|(name, one)| part(PartKind::Destination, name, &one.at)));
        let exceptions = model.exceptions.iter();
        parts.extend(exceptions.map(|(name, one)| part(PartKind::Exception, name, &one.at)));
        let tiers = self.testable_tiers();
        let named = tiers.iter().map(|(tier, at)| part(PartKind::Tier, tier.as_str(), at));
        parts.extend(named);
        let kinds = self.testable_kinds(&tiers);
        parts.extend(kinds.iter().map(|(kind, at)| part(PartKind::StepUpKind, kind, at)));
        parts.sort_by(|one, other| (one.kind, &one.name).cmp(&(other.kind, &other.name)));
        parts
    }

    /// Tiers that `tiers` describes or that an operation has, with their places.
    fn testable_tiers(&self) -> BTreeMap<Tier, Location> {
        let model = self.model();
        let mut tiers = model.places.tiers.clone();
        for operation in model.operations.iter().filter(|one| !model.is_built_in(one)) {
            let meaning = model.places.meanings.get(&operation.id);
            let at = meaning.unwrap_or(&operation.at);
            tiers.entry(operation.tier).or_insert_with(|| at.clone());
        }
        tiers
    }

    /// Step-up kinds of policies, templates and tiers, each with the first place that names it.
    fn testable_kinds(&self, tiers: &BTreeMap<Tier, Location>) -> BTreeMap<String, Location> {
        let model = self.model();
        let mut kinds: BTreeMap<String, Location> = BTreeMap::new();
        let mut add = |kind: &str, at: &Location| {
            kinds.entry(kind.to_owned()).or_insert_with(|| at.clone());
        };
        for placed in &self.policies {
            if let Some(kind) = &placed.policy.stepup {
                add(kind, &placed.at);
            }
        }
        for (name, template) in &model.templates {
            if let Some(kind) = &template.beyond {
                add(kind, model.places.beyonds.get(name).unwrap_or(&template.at));
            }
        }
        for (tier, at) in tiers {
            for kind in model.tiers.get(*tier as usize).into_iter().flat_map(kinds_of) {
                add(kind, at);
            }
        }
        kinds
    }
}

/// Step-up kinds that a tier can require.
fn kinds_of(tier: &TierRequirements) -> impl Iterator<Item = &'static str> {
    let approval = match tier.approval {
        TierApproval::None => None,
        TierApproval::Confirm => Some(CONFIRM),
        TierApproval::Approve => Some(APPROVE),
        TierApproval::TwoPerson => Some(TWO_PERSON),
    };
    let bound = tier.bound.then_some("bound_token");
    let fresh = tier.max_age.is_some().then_some("fresh_credential");
    let confidence = (tier.confidence > 0).then_some("confidence");
    [bound, fresh, confidence, approval].into_iter().flatten()
}
