//! Which operations could be permitted: never a decision, and never less than a decision would permit.

use std::sync::Arc;

use authz_base::principal::MAX_CHAIN;

use super::{caller_facts, has_subject, located, requirements, satisfied};
use crate::decision::{Facts, PolicyEffect, ReasonCode, Time};
use crate::evaluate::could::{Could, Prospect, said};
use crate::evaluate::{self, ContextFacts, Known};
use crate::mcp::{self, Traffic};
use crate::model::{Operation, Tier};
use crate::plan::{Plan, Prepared};
use crate::schema::OWN_SYSTEM;
use crate::soften::{CallPlace, RefusedCall};
use crate::task::{self, SubjectProof, TaskView};

/// The chain of one caller, against every operation.
#[derive(Debug)]
pub struct Prospects<'a> {
    plan: &'a Plan,
    facts: &'a Facts<'a>,
    now: Time,
    chain: Vec<Arc<Known>>,
}

impl<'a> Prospects<'a> {
    /// Prepares to judge every operation for one chain. Where the chain is empty, only what is merely observed could be
    /// permitted.
    #[must_use]
    pub fn new(plan: &'a Plan, facts: &'a Facts<'a>, now: Time) -> Self {
        let chain = if facts.chain.len() > MAX_CHAIN { &[] } else { facts.chain };
        let chain = chain.iter().map(|principal| plan.principal(principal)).collect();
        Self { plan, facts, now, chain }
    }

    /// Whether the operation could be permitted, with some arguments and after some step-up.
    ///
    /// True where for every principal some permit could fire and no forbid fires whatever the arguments, or where `mode`
    /// would let a denial through. Of an operation that is split: whether any of its cases could.
    #[must_use]
    pub fn could(&self, id: &str) -> bool {
        let model = self.plan.model();
        if let Some(split) = model.splits.get(id) {
            return split.cases.values().any(|case| case != id && self.could_one(case));
        }
        self.could_one(id)
    }

    fn could_one(&self, id: &str) -> bool {
        let Some((operation, prepared)) = self.plan.prepared(id) else { return false };
        let located = || {
            located::standing(self.facts, &operation.id, self.now)?;
            // Some message of the protocol may move less than another.
            let traffic = match self.plan.is_protocol(operation) {
                true => Traffic::LEAST,
                false => Traffic::OPERATION,
            };
            located::locate(self.plan, self.facts, operation, traffic)
        };
        let stopped = |reason| self.softens(CallPlace::Operation(id), reason);
        match super::known(operation) {
            Err(refusal) => return stopped(refusal.reason),
            Ok(()) if self.chain.is_empty() => return stopped(ReasonCode::NoCredential),
            Ok(()) => {}
        }
        if let Err(refusal) = located() {
            return stopped(refusal.reason);
        }
        if self.is_within(operation) && self.is_open(operation, prepared) {
            return true;
        }
        // Some arguments may give it another tier than its own.
        prepared.tiers.iter().flatten().any(|tier| {
            let place = CallPlace::Judged { system: &operation.system, tier };
            self.softens(place, ReasonCode::NotPermitted)
        })
    }

    /// Whether `mode` would let a denial through.
    fn softens(&self, place: CallPlace<'_>, reason: ReasonCode) -> bool {
        let chain = if self.chain.is_empty() { &[] } else { self.facts.chain };
        let has_task = self.facts.task.and_then(TaskView::real).is_some();
        let refused = RefusedCall { chain, has_task, place, reason, understood: true };
        self.plan.softens(&refused, self.now)
    }

    /// Whether the task and all above it could allow the operation.
    fn is_within(&self, operation: &Operation) -> bool {
        let task = self.facts.task.and_then(TaskView::real);
        let Some(view) = task.filter(|_| operation.system != OWN_SYSTEM) else {
            return true;
        };
        let model = self.plan.model();
        let greets = operation.name == mcp::OWN && model.is_built_in(operation);
        view.path()
            .all(|task| operation.tier <= task.tier_cap && task::could(task, operation, greets))
    }

    /// Whether nothing stands against the operation, whatever its arguments.
    fn is_open(&self, operation: &Operation, prepared: &Prepared) -> bool {
        let (plan, facts, chain) = (self.plan, self.facts, self.chain.as_slice());
        let proof = located::subject_proof(facts, has_subject(facts));
        let hopeless = !requirements(plan, facts, operation.tier).hopeless.is_empty();
        if hopeless || (operation.tier >= Tier::High && proof == SubjectProof::Asserted) {
            return false;
        }
        let words = &plan.words;
        let satisfied = satisfied(plan, facts, operation.tier);
        let context = words.context(
            said(prepared.slice.keys),
            &ContextFacts {
                tier: i64::from(operation.tier as u8),
                satisfied: &satisfied,
                ..caller_facts(facts, chain, self.now)
            },
        );
        let collection = operation.resource.as_ref().map(|rule| rule.collection.as_str());
        let aim = words.aim(&operation.system, collection);
        let system = words.system(&operation.system);
        let store = prepared.slice.store;
        let (Ok(context), Ok(entities)) =
            (context, evaluate::store(store, &prepared.base, chain, &system))
        else {
            return false;
        };
        let prospect = Prospect::new(words, &prepared.base, chain, &aim, &context, &entities)
            .with_tier_open(plan.may_raise(operation));
        let mut permitted = vec![false; chain.len()];
        for (index, rule) in prepared.slice.policies() {
            let Some(placed) = plan.policies.get(index) else { return false };
            // What a step-up lifts stands against nothing.
            if rule.effect == PolicyEffect::Forbid && placed.policy.stepup.is_some() {
                continue;
            }
            for (position, permitted) in permitted.iter_mut().enumerate() {
                match (rule.effect, prospect.judge(rule, position)) {
                    (PolicyEffect::Permit, Could::Perhaps | Could::Always) => *permitted = true,
                    (PolicyEffect::Forbid, Could::Always) => return false,
                    (PolicyEffect::Permit, Could::Never)
                    | (PolicyEffect::Forbid, Could::Never | Could::Perhaps) => {}
                }
            }
        }
        permitted.into_iter().all(|permitted| permitted)
    }
}

impl Plan {
    /// Ids of operations and of those that are split, sorted, after one of them.
    ///
    /// Args:
    /// * `system`: only those of this system; empty: all.
    /// * `after`: empty: from the start.
    #[must_use]
    pub fn ids_after<'a>(&'a self, system: &str, after: &str) -> Vec<&'a str> {
        let model = self.model();
        let operations = self.operations().iter().map(|operation| operation.id.as_str());
        let mut ids: Vec<&str> = operations
            .chain(model.splits.keys().map(String::as_str))
            .filter(|id| *id > after)
            .filter(|id| {
                system.is_empty() || id.split_once('.').is_some_and(|(first, _)| first == system)
            })
            .collect();
        ids.sort_unstable();
        ids.dedup();
        ids
    }
}
