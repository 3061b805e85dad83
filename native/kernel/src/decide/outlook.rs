//! Outlook of an operation for a chain: the best outcome that a call could have, and the rules that could make it worse.
//!
//! It answers "who can do what" for people. A decision about a real call is [`super::decide`]'s alone.

use smallvec::SmallVec;

use super::could::{Prospects, Weighed};
use super::verdict::reason_of;
use super::{TierFacts, known, located, requirements, rules};
use crate::decision::{DecidingRule, Given, Outcome, ReasonCode, Request, RuleKind};
use crate::evaluate::could::Could;
use crate::history::Carried;
use crate::mcp::Traffic;
use crate::model::{Operation, Tier};
use crate::plan::{Plan, Prepared};
use crate::policy::Placed;
use crate::schema::{Key, OWN_SYSTEM};
use crate::soften::CallPlace;
use crate::task::{ScopeEntry, Task, TaskView};

/// Step-up kinds that a caller meets by itself, with a better proof.
const PROOFS: [&str; 3] = ["bound_token", "confidence", "fresh_credential"];

/// The best outcome that a call of an operation could have.
#[derive(Clone, Debug)]
pub struct Outlook {
    /// The outcome.
    pub outcome: Outcome,
    /// Why.
    pub reason: ReasonCode,
    /// Tier of the operation. A label or a destination may raise it.
    pub tier: Tier,
    /// Step-up kinds that every call needs, sorted.
    pub kinds: Vec<String>,
    /// Proofs that every call needs of its caller, sorted.
    pub proofs: Vec<String>,
    /// Rules that determine the outcome.
    pub rules: Vec<DecidingRule>,
    /// Rules that make the outcome worse for some calls.
    pub conditions: Vec<OutlookCondition>,
    /// `mode` lets a call through that would not be permitted.
    pub is_observed: bool,
}

/// A rule that makes the outcome worse for some arguments, times or histories.
#[derive(Clone, Debug)]
pub struct OutlookCondition {
    /// The rule.
    pub rule: DecidingRule,
    /// The worse outcome.
    pub outcome: Outcome,
    /// Step-up kind that lifts the rule; empty where none does.
    pub kind: String,
    /// The rule is a permit: a call for which it does not hold has the worse outcome.
    pub is_needed: bool,
}

impl Prospects<'_, '_> {
    /// The outlook of an operation. The proof of the caller and the time count as unknown. `None`: the catalog lacks the
    /// operation.
    #[must_use]
    pub fn outlook(&self, id: &str) -> Option<Outlook> {
        let (operation, prepared) = self.plan.prepared(id)?;
        let mut outlook = match self.refusal(operation) {
            Some((reason, rules)) => denied(operation, reason, rules),
            None => self.judged(operation, prepared),
        };
        let place = CallPlace::Judged { system: &operation.system, tier: operation.tier };
        outlook.is_observed =
            outlook.outcome != Outcome::Permit && self.softens(place, outlook.reason);
        Some(outlook)
    }

    /// Why every call is refused before the policies are judged.
    fn refusal(&self, operation: &Operation) -> Option<(ReasonCode, Vec<DecidingRule>)> {
        let traffic = match self.plan.is_protocol(operation) {
            true => Traffic::LEAST,
            false => Traffic::OPERATION,
        };
        let check = || {
            known(operation)?;
            located::standing(self.facts, &operation.id, self.now)?;
            located::locate(self.plan, self.facts, operation, traffic)
        };
        let reason = check().err()?.reason;
        let request = Request::new(&operation.id, Given::Json(b""));
        Some((reason, vec![rules::of_refusal(self.plan, self.facts, &request, reason)]))
    }

    fn judged(&self, operation: &Operation, prepared: &Prepared) -> Outlook {
        let Some(weighed) = self.weigh(operation, prepared) else {
            return denied(operation, ReasonCode::Unavailable, vec![rules::check("state")]);
        };
        if let Some((reason, rules)) =
            self.denials(operation, &weighed).into_iter().min_by_key(|(reason, _)| *reason)
        {
            return denied(operation, reason, rules);
        }
        let unmet = requirements(self.plan, self.facts, operation.tier).kinds;
        let (proofs, approvals): (Vec<&str>, Vec<&str>) =
            unmet.into_iter().partition(|kind| PROOFS.contains(kind));
        let certain = weighed.stepups.iter().filter(|(_, could)| *could == Could::Always);
        let certain: Vec<&Placed> = certain.map(|(placed, _)| *placed).collect();
        let by_policy = certain.iter().filter_map(|placed| placed.policy.stepup.as_deref());
        let beyond = self.held_beyond(operation);
        let by_scope = beyond.iter().flat_map(|(kinds, _)| kinds.iter().copied());
        let mut kinds: Vec<String> =
            by_policy.chain(approvals.iter().copied()).chain(by_scope).map(str::to_owned).collect();
        kinds.sort_unstable();
        kinds.dedup();
        let mut decisive: Vec<DecidingRule> = certain.into_iter().map(of_policy).collect();
        if !approvals.is_empty() || !proofs.is_empty() {
            decisive.push(rules::tier_requirement(self.plan, operation.tier));
        }
        decisive.extend(beyond.into_iter().map(|(_, rule)| rule));
        let reason = kinds.iter().map(|kind| reason_of(kind)).min();
        if reason.is_none() {
            decisive.extend(weighed.permits.iter().map(|(placed, _)| of_policy(placed)));
        }
        Outlook {
            outcome: if reason.is_some() { Outcome::StepUp } else { Outcome::Permit },
            reason: reason.unwrap_or(ReasonCode::Permitted),
            tier: operation.tier,
            kinds,
            proofs: proofs.into_iter().map(str::to_owned).collect(),
            rules: decisive,
            conditions: self.conditions(operation, &weighed),
            is_observed: false,
        }
    }

    /// Every reason for which all calls are denied, with its rules.
    fn denials(
        &self,
        operation: &Operation,
        weighed: &Weighed<'_>,
    ) -> Vec<(ReasonCode, Vec<DecidingRule>)> {
        let mut denials = self.beyond_task(operation);
        let forbids: Vec<DecidingRule> = weighed.certain_forbids().map(of_policy).collect();
        if !forbids.is_empty() {
            denials.push((ReasonCode::Forbidden, forbids));
        }
        let caller = self.chain.len().saturating_sub(1);
        let default = || vec![rules::default_deny(self.plan, operation)];
        denials.extend(weighed.without_permit().map(|position| {
            let is_caller = position == caller;
            let reason =
                if is_caller { ReasonCode::NotPermitted } else { ReasonCode::ChainNotPermitted };
            (reason, default())
        }));
        if !self.hopeless(operation).is_empty() {
            let rule = rules::tier_requirement(self.plan, operation.tier);
            denials.push((ReasonCode::TierRequirement, vec![rule]));
        }
        denials
    }

    fn tasks(&self, operation: &Operation) -> impl Iterator<Item = &Task> {
        let task = self.facts.task.and_then(TaskView::real);
        let task = task.filter(|_| operation.system != OWN_SYSTEM);
        task.into_iter().flat_map(|view| view.path().collect::<SmallVec<[&Task; 2]>>())
    }

    /// Bounds of the task that every call of the operation is beyond.
    fn beyond_task(&self, operation: &Operation) -> Vec<(ReasonCode, Vec<DecidingRule>)> {
        let tier = TierFacts {
            tier: operation.tier,
            destinations: &[],
            carried: Carried::of(None, &[], &[]),
        };
        let mut denials = Vec::new();
        for task in self.tasks(operation) {
            if operation.tier > task.tier_cap {
                let origin = rules::tier_origin(self.plan, operation, tier);
                let rules = vec![rules::tier_cap(self.plan, task), origin];
                denials.push((ReasonCode::OutOfScope, rules));
            }
            if !crate::task::could(task, operation, self.plan.is_protocol(operation))
                && !self.could_beyond(task, operation)
            {
                let rule = rules::scope(self.plan, RuleKind::Scope, task, &operation.id);
                denials.push((ReasonCode::OutOfScope, vec![rule]));
            }
        }
        denials
    }

    /// Whether calls beyond the scope of a task could be held for a step-up.
    fn could_beyond(&self, task: &Task, operation: &Operation) -> bool {
        let view = self.facts.task.and_then(TaskView::real);
        view.is_some_and(|view| located::holds_beyond(self.plan, view))
            && crate::task::could_beyond(task, operation)
    }

    /// Step-up kinds by which scopes hold every call of the operation, each with its rule.
    fn held_beyond(&self, operation: &Operation) -> Vec<(SmallVec<[&str; 2]>, DecidingRule)> {
        let greets = self.plan.is_protocol(operation);
        let beyond = self
            .tasks(operation)
            .filter(|task| !crate::task::could(task, operation, greets))
            .filter(|task| self.could_beyond(task, operation));
        let held = beyond.filter_map(|task| {
            Some((located::kinds_beyond(self.plan, task)?, rules::beyond(self.plan, task)))
        });
        held.collect()
    }

    /// Rules that make the outcome worse for some calls.
    fn conditions(&self, operation: &Operation, weighed: &Weighed<'_>) -> Vec<OutlookCondition> {
        let mut conditions: Vec<OutlookCondition> =
            weighed.forbids.iter().map(|(placed, _)| denying(of_policy(placed))).collect();
        let perhaps = weighed.stepups.iter().filter(|(_, could)| *could != Could::Always);
        conditions.extend(perhaps.map(|(placed, _)| OutlookCondition {
            rule: of_policy(placed),
            outcome: Outcome::StepUp,
            kind: placed.policy.stepup.clone().unwrap_or_default(),
            is_needed: false,
        }));
        if !weighed.is_surely_permitted() {
            let permits = weighed.permits.iter().filter(|(_, could)| *could == Could::Perhaps);
            conditions.extend(permits.map(|(placed, _)| OutlookCondition {
                is_needed: true,
                ..denying(of_policy(placed))
            }));
        }
        conditions.extend(self.limited(operation));
        conditions
    }

    /// Entries of scopes and budgets that bound some calls.
    fn limited(&self, operation: &Operation) -> Vec<OutlookCondition> {
        let (plan, model) = (self.plan, self.plan.model());
        let mut limited: Vec<OutlookCondition> =
            self.tasks(operation).flat_map(|task| self.limited_by(task, operation)).collect();
        let built_in = model.is_built_in(operation);
        let budgets = model.budgets.iter().filter(|(_, budget)| {
            budget.denies && budget.of.iter().any(|event| event.matches(operation, built_in))
        });
        limited.extend(budgets.map(|(name, _)| denying(rules::budget(plan, name))));
        limited
    }

    /// Conditions of the scope of a task, where each of its entries for the operation bounds some calls.
    fn limited_by(&self, task: &Task, operation: &Operation) -> SmallVec<[OutlookCondition; 2]> {
        let entries = task.entries(&operation.id).1;
        let is_narrow = |entry: &ScopeEntry| {
            let resources = &entry.resources;
            !entry.arguments.is_empty()
                || resources.ids.is_some()
                || resources.path_prefix.is_some()
        };
        let is_fixed =
            |entry: &ScopeEntry| entry.uses.is_some() || entry.resources.label_ceiling.is_some();
        let is_every = |test: &dyn Fn(&ScopeEntry) -> bool| entries.iter().all(test);
        let mut conditions = SmallVec::new();
        if entries.is_empty() || !is_every(&|entry| is_narrow(entry) || is_fixed(entry)) {
            return conditions;
        }
        let kinds = located::kinds_beyond(self.plan, task)
            .filter(|_| self.could_beyond(task, operation) && is_every(&is_narrow));
        if let Some(kinds) = &kinds {
            conditions.extend(kinds.iter().map(|kind| OutlookCondition {
                rule: rules::beyond(self.plan, task),
                outcome: Outcome::StepUp,
                kind: (*kind).to_owned(),
                is_needed: false,
            }));
        }
        if kinds.is_none() || is_every(&is_fixed) {
            let rule = rules::scope(self.plan, RuleKind::Scope, task, &operation.id);
            conditions.push(denying(rule));
        }
        conditions
    }

    /// Takes the proof of the caller and the time for unknown.
    #[must_use]
    pub fn with_any_proof(mut self) -> Self {
        self.open.insert(Key::Proof);
        self.open.insert(Key::Time);
        self.is_precise = true;
        self
    }
}

impl Plan {
    /// Ids of the operations that `authz can` lists: those of the bundle, then the starts of tasks. Messages that only connect to
    /// an MCP server, and operations of servers that nobody gave a meaning, are left out.
    pub fn listed_operations(&self) -> impl Iterator<Item = &Operation> {
        let model = self.model();
        let has_meaning =
            |operation: &&Operation| !model.is_built_in(operation) || operation.reviewed;
        let own = model.operations.iter().filter(has_meaning);
        let own = own.filter(|operation| !self.is_protocol(operation));
        let starts = model
            .templates
            .keys()
            .filter_map(|name| self.operation(&format!("{}{name}", crate::schema::START)));
        own.chain(starts)
    }
}

fn denied(operation: &Operation, reason: ReasonCode, rules: Vec<DecidingRule>) -> Outlook {
    Outlook {
        outcome: Outcome::Deny,
        reason,
        tier: operation.tier,
        kinds: Vec::new(),
        proofs: Vec::new(),
        rules,
        conditions: Vec::new(),
        is_observed: false,
    }
}

/// A condition under which a call is denied.
fn denying(rule: DecidingRule) -> OutlookCondition {
    OutlookCondition { rule, outcome: Outcome::Deny, kind: String::new(), is_needed: false }
}

fn of_policy(placed: &Placed) -> DecidingRule {
    let (kind, name) = (RuleKind::Policy, placed.policy.id.clone());
    DecidingRule { kind, name, at: placed.at.clone() }
}
