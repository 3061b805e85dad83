//! Which operations could be permitted: never a decision, and never less than a decision would permit.

use std::sync::Arc;

use authz_base::principal::MAX_CHAIN;
use smallvec::SmallVec;
use smol_str::SmolStr;

use super::{UNPROVED_SUBJECT, caller_facts, exceptions, has_subject, located, requirements};
use crate::arguments::ArgumentValue;
use crate::decision::{Facts, PolicyEffect, ReasonCode, Time};
use crate::evaluate::could::{Could, Prospect, said};
use crate::evaluate::{self, ContextFacts, Known};
use crate::mcp::{self, Traffic};
use crate::model::{Operation, Tier};
use crate::plan::{Plan, Prepared};
use crate::policy::Placed;
use crate::schema::{Key, Keys, OWN_SYSTEM};
use crate::soften::{CallPlace, RefusedCall};
use crate::task::{self, SubjectProof, TaskView};

/// The chain of one caller, against every operation.
#[derive(Debug)]
pub struct Prospects<'p, 'f> {
    pub(super) plan: &'p Plan,
    pub(super) facts: &'f Facts<'f>,
    pub(super) now: Time,
    pub(super) chain: Vec<Arc<Known>>,
    /// Context keys that count as unknown although the facts tell them.
    pub(super) open: Keys,
    /// Facts that the operation alone tells count as known: its collection, and the history that it cannot have.
    pub(super) is_precise: bool,
    /// Arguments that count as known. `None`: no argument is.
    pub(super) input: Option<&'f [(SmolStr, ArgumentValue)]>,
}

impl<'p, 'f> Prospects<'p, 'f> {
    /// Prepares to judge every operation for one chain. Where the chain is empty, only what is merely observed could be
    /// permitted.
    #[must_use]
    pub fn new(plan: &'p Plan, facts: &'f Facts<'f>, now: Time) -> Self {
        let chain = if facts.chain.len() > MAX_CHAIN { &[] } else { facts.chain };
        let chain = chain.iter().map(|principal| plan.principal(principal)).collect();
        Self { plan, facts, now, chain, open: Keys::default(), is_precise: false, input: None }
    }

    /// Prepares to judge every operation for one chain in any task, at any time, with any proof. A condition on the resource's
    /// collection counts as one that may hold: its author intends to take some operations from everybody.
    pub(crate) fn anyhow(plan: &'p Plan, facts: &'f Facts<'f>) -> Self {
        let mut open = Keys::default();
        let told = Key::ALL.into_iter().filter(|key| key.is_known_before_request());
        told.for_each(|key| open.insert(key));
        Self { open, ..Self::new(plan, facts, Time(0)) }
    }

    /// Judges the operation with these arguments.
    pub(crate) fn with_input(self, input: Option<&'f [(SmolStr, ArgumentValue)]>) -> Self {
        Self { input, ..self }
    }

    /// Whether the operation could be permitted, with some arguments and after some step-up.
    ///
    /// True if for every principal a permit could fire and no forbid fires for all arguments, or if `mode`
    /// would let a denial through. For an operation that is split: whether any of its cases could be permitted.
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
    pub(super) fn softens(&self, place: CallPlace<'_>, reason: ReasonCode) -> bool {
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
        let holds = located::holds_beyond(self.plan, view);
        view.path().all(|task| {
            operation.tier <= task.tier_cap
                && (task::could(task, operation, greets)
                    || (holds && task::could_beyond(task, operation)))
        })
    }

    /// Whether no rule denies the operation for all arguments.
    fn is_open(&self, operation: &Operation, prepared: &Prepared) -> bool {
        self.hopeless(operation).is_empty()
            && self.weigh(operation, prepared).is_some_and(|weighed| weighed.is_open())
    }

    /// Requirements of the operation's own tier that nothing lifts.
    pub(crate) fn hopeless(&self, operation: &Operation) -> Vec<&'static str> {
        let facts = self.facts;
        let mut hopeless = requirements(self.plan, facts, operation.tier).hopeless;
        let proof = located::subject_proof(facts, has_subject(facts));
        if operation.tier >= Tier::High && proof == SubjectProof::Asserted {
            hopeless.push(UNPROVED_SUBJECT);
        }
        hopeless
    }

    /// Context keys with a value that is not known.
    fn unsaid_keys(&self, operation: &Operation, prepared: &Prepared) -> Keys {
        let memory = &prepared.memory;
        // Facts that an operation can never have are empty, as in `ContextFacts::before_request`.
        let is_never = |key: Key| match key {
            Key::Destination | Key::UnclearedLabels => operation.destination.is_none(),
            Key::Origins => operation.destination.is_none() && operation.origins.objects.is_empty(),
            Key::Sequences => memory.named.is_empty(),
            Key::Budgets => memory.budgets.is_empty(),
            _ => false,
        };
        // Who may hold an exception is known before the arguments are, in every case.
        let caller = self.facts.chain.last().zip(self.chain.last().map(AsRef::as_ref));
        let is_uncovered =
            !exceptions::could_cover(self.plan, self.facts, operation, caller, self.now);
        let mut unsaid = self.open;
        let before = Key::ALL.into_iter().filter(|key| !key.is_known_before_request());
        let before = before.filter(|key| *key != Key::Exception || !is_uncovered);
        let before = before.filter(|key| *key != Key::Input || self.input.is_none());
        before.filter(|key| !self.is_precise || !is_never(*key)).for_each(|key| unsaid.insert(key));
        if self.plan.may_raise(operation) {
            unsaid.insert(Key::Tier);
        }
        unsaid
    }

    /// Results of all rules of an operation, before its arguments are known. `None`: the facts have no form that policies can
    /// read.
    pub(crate) fn weigh(&self, operation: &Operation, prepared: &Prepared) -> Option<Weighed<'p>> {
        let (plan, facts, chain) = (self.plan, self.facts, self.chain.as_slice());
        let words = &plan.words;
        let known = ContextFacts {
            tier: i64::from(operation.tier as u8),
            input: self.input.unwrap_or_default(),
            ..ContextFacts::before_request(caller_facts(facts, chain, self.now))
        };
        let unsaid = self.unsaid_keys(operation, prepared);
        let context = |unsaid| words.context(said(prepared.slice.keys, unsaid), &known).ok();
        let collection = operation.resource.as_ref().map(|rule| rule.collection.as_str());
        let aim = words.aim(&operation.system, collection);
        let system = words.system(&operation.system);
        // An outlook has no step-up, so a rule that only a step-up lifts fires. A list has the operations that could be
        // permitted after any step-up, so it judges none of these rules.
        let of_stepups = match self.is_precise {
            true => {
                let unsaid = unsaid.without(Key::Satisfied);
                Some((context(unsaid)?, unsaid))
            }
            false => None,
        };
        let context = context(unsaid)?;
        let entities =
            evaluate::store(prepared.slice.store, &prepared.base, chain, &system).ok()?;
        let prospect = |context, unsaid| {
            Prospect::new(words, &prepared.base, chain, &aim, context, &entities)
                .with_unsaid(unsaid)
                .with_precision(self.is_precise)
        };
        let plain = prospect(&context, unsaid);
        let of_stepups = of_stepups.as_ref().map(|(context, unsaid)| prospect(context, *unsaid));
        let mut weighed = Weighed::new(chain.len());
        for (index, rule) in prepared.slice.policies() {
            let placed = plan.policies.get(index)?;
            if rule.is_observed && placed.is_observed(&plan.model().modes, self.now) {
                continue;
            }
            let is_lifted = rule.effect == PolicyEffect::Forbid && placed.policy.stepup.is_some();
            let prospect = match (&of_stepups, is_lifted) {
                (None, true) => continue,
                (Some(of_stepups), true) => of_stepups,
                (_, false) => &plain,
            };
            weighed.count(placed, rule.effect, |position| prospect.judge(rule, position));
        }
        Some(weighed)
    }
}

/// Results of the rules of one operation, before its arguments are known.
pub(crate) struct Weighed<'a> {
    /// The best permit of each principal.
    permitted: SmallVec<[Could; 4]>,
    /// Permits that could fire for a principal.
    pub(crate) permits: SmallVec<[(&'a Placed, Could); 4]>,
    /// Forbids that could fire for a principal and that nothing lifts.
    pub(crate) forbids: SmallVec<[(&'a Placed, Could); 4]>,
    /// Forbids that could fire for a principal and that a step-up lifts.
    pub(crate) stepups: SmallVec<[(&'a Placed, Could); 4]>,
}

impl<'a> Weighed<'a> {
    fn new(principals: usize) -> Self {
        Self {
            permitted: SmallVec::from_elem(Could::Never, principals),
            permits: SmallVec::new(),
            forbids: SmallVec::new(),
            stepups: SmallVec::new(),
        }
    }

    fn count(&mut self, placed: &'a Placed, effect: PolicyEffect, judge: impl Fn(usize) -> Could) {
        let mut worst = Could::Never;
        for (position, permitted) in self.permitted.iter_mut().enumerate() {
            let result = judge(position);
            worst = worst.max(result);
            if effect == PolicyEffect::Permit {
                *permitted = result.max(*permitted);
            }
        }
        if worst == Could::Never {
            return;
        }
        let list = match (effect, &placed.policy.stepup) {
            (PolicyEffect::Permit, _) => &mut self.permits,
            (PolicyEffect::Forbid, Some(_)) => &mut self.stepups,
            (PolicyEffect::Forbid, None) => &mut self.forbids,
        };
        list.push((placed, worst));
    }

    /// Positions of the principals without a permit that could fire.
    pub(crate) fn without_permit(&self) -> impl Iterator<Item = usize> {
        let all = self.permitted.iter().enumerate();
        all.filter(|(_, best)| **best == Could::Never).map(|(position, _)| position)
    }

    /// Whether a permit fires for every principal and all arguments.
    pub(crate) fn is_surely_permitted(&self) -> bool {
        self.permitted.iter().all(|best| *best == Could::Always)
    }

    /// Forbids that fire for all arguments, and that no step-up lifts.
    pub(crate) fn certain_forbids(&self) -> impl Iterator<Item = &'a Placed> {
        let certain = self.forbids.iter().filter(|(_, could)| *could == Could::Always);
        certain.map(|(placed, _)| *placed)
    }

    /// Whether no rule denies the operation. A rule that a step-up lifts does not count.
    pub(crate) fn is_open(&self) -> bool {
        self.without_permit().next().is_none() && self.certain_forbids().next().is_none()
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
