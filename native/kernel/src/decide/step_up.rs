//! What a person is shown of a call that needs a step-up: destinations and values that carry authority, with their origins.
//!
//! Looked up only where the outcome is STEP_UP, so that permits and denials do not pay for it.

use std::collections::BTreeMap;

use super::TierFacts;
use super::origin::{MAX_VALUES, OriginFacts, TypedValue, form_of, origin_of, values_at};
use super::resolve::{Resolved, named_destinations};
use crate::canonical::canonical;
use crate::decision::{
    Facts, Request, StepUp, StepUpDestination, StepUpObject, Time, UnnamedValue,
};
use crate::json::Value as Json;
use crate::model::{Operation, Origin, ValueSpace};
use crate::plan::Plan;
use crate::recipient_lists::{RecipientListAnswer, RecipientListQuery};
use crate::values::counts_made;

/// Adds destinations, values and labels of a call to its step-up.
pub(super) fn describe(
    plan: &Plan,
    facts: &Facts<'_>,
    request: &Request<'_>,
    operation: &Operation,
    resolved: &Resolved<'_>,
    (tier, now): (TierFacts<'_>, Time),
    step_up: &mut StepUp,
) {
    let sources = OriginFacts::of(plan, facts, (now, tier.tier), counts_made(operation));
    let mut left = MAX_VALUES;
    let sends = resolved.traffic.sends || !request.destinations.is_empty();
    if let Some(rule) = operation.destination.as_ref().filter(|_| sends) {
        let space = ValueSpace::Destination(rule.kind);
        let mut shown: BTreeMap<String, StepUpDestination> = BTreeMap::new();
        for written in named_destinations(rule, &resolved.arguments, request).unwrap_or_default() {
            let Ok(destination) = canonical(rule.kind, written) else { continue };
            let query =
                RecipientListQuery::new(facts.recipient_lists, rule.kind, &destination.text, now);
            let has_lists = !plan.model().recipient_lists.is_empty();
            let classes = plan.destinations().classes(
                rule.kind,
                &destination.text,
                has_lists.then_some(&query),
            );
            let listed = plan
                .model()
                .recipient_lists
                .keys()
                .find(|name| query.ask(name) == RecipientListAnswer::Listed);
            let typed = TypedValue::of_destination(&space, rule.kind, written).in_role(rule.role);
            let origin = origin_of(&typed, &sources);
            add_unnamed(&typed, origin, facts, &mut step_up.unnamed);
            let one = StepUpDestination {
                value: destination.text.clone(),
                class: classes.first().copied().unwrap_or_default().to_owned(),
                host: destination.host,
                recipient_list: listed.cloned().unwrap_or_default(),
                origin,
            };
            // INVARIANT (worst shown): of two spellings of one destination, the person sees the worse origin.
            let known = shown.entry(destination.text).or_insert_with(|| one.clone());
            known.origin = known.origin.max(one.origin);
        }
        step_up.destinations = shown.into_values().collect();
    }
    for rule in &operation.origins.objects {
        let currency =
            rule.currency.as_deref().and_then(|pointer| resolved.arguments.json().pointer(pointer));
        let currency = match currency {
            Some(Json::String(currency)) => Some(currency.as_str()),
            _ => None,
        };
        for pointer in &rule.from {
            for value in values_at(&resolved.arguments, pointer) {
                let Some(rest) = left.checked_sub(1) else {
                    step_up.is_cut = true;
                    break;
                };
                left = rest;
                let typed = TypedValue::of_object(&operation.system, rule, value, currency);
                let origin =
                    typed.as_ref().map_or(Origin::Unknown, |typed| origin_of(typed, &sources));
                if let Some(typed) = &typed {
                    add_unnamed(typed, origin, facts, &mut step_up.unnamed);
                }
                let mut text = String::new();
                value.write(&mut text);
                step_up.objects.push(StepUpObject {
                    role: rule.role,
                    pointer: pointer.clone(),
                    collection: match &rule.space {
                        ValueSpace::Collection { name, .. } => name.clone(),
                        ValueSpace::Destination(kind) => form_of(*kind).to_owned(),
                        ValueSpace::Role(_) => String::new(),
                    },
                    value: text,
                    currency: currency.unwrap_or_default().to_owned(),
                    origin,
                });
            }
        }
    }
    let mut labels: Vec<String> = tier.carried.labels().map(str::to_owned).collect();
    labels.sort_unstable();
    labels.dedup();
    step_up.labels = labels;
}

/// Adds a value that a person could endorse.
fn add_unnamed(
    typed: &TypedValue<'_>,
    origin: Origin,
    facts: &Facts<'_>,
    unnamed: &mut Vec<UnnamedValue>,
) {
    if origin == Origin::Named {
        return;
    }
    let value = facts.value_key.and_then(|key| typed.endorsable(key));
    unnamed.extend(value.filter(|value| !unnamed.contains(value)));
}
