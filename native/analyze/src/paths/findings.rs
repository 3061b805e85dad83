//! Rules about paths: assertions of the bundle, and those that every bundle has.

use std::collections::{BTreeMap, BTreeSet};

use authz_kernel::decision::{PolicyEffect, ReasonCode};
use authz_kernel::model::{
    Assertion, CallPattern, DestinationPattern, Effect, LabelKind, Location, Model, PERSON,
};
use authz_kernel::schema::OWN_SYSTEM;

use super::guard::Fires;
use super::runner::{Event, Trace};
use super::search::{Searched, Target};
use super::taint::{Flow, Goal, Mark, Taints};
use super::ways::{Beginning, Way};
use super::{Analysis, OracleAnswer};
use crate::report::ASSERTION;

/// Ways of one operation for which a trace is searched.
const MOST_TRIED: usize = 8;

/// One rule: the calls that it is about.
#[derive(Clone, Debug)]
pub struct PathRule {
    /// Name of the rule, `assertion:<id>` or that of a built-in one.
    pub name: String,
    /// The calls.
    pub pattern: CallPattern,
    /// Labels that the data of the call must have beside those of the pattern.
    pub also: BTreeSet<String>,
    /// Label that Authz must have lost.
    pub lost: Option<String>,
    /// The task must have been started by an agent that could never make the call itself.
    pub is_deputy: bool,
    /// Place in the bundle.
    pub at: Location,
}

impl PathRule {
    /// The rule of an assertion.
    #[must_use]
    pub fn of(assertion: &Assertion) -> Self {
        Self {
            name: format!("{ASSERTION}{}", assertion.id),
            pattern: assertion.never.clone(),
            also: BTreeSet::new(),
            lost: None,
            is_deputy: false,
            at: assertion.at.clone(),
        }
    }

    /// The labels that the data of a call must have.
    #[must_use]
    pub fn data(&self) -> BTreeSet<String> {
        let own = self.pattern.label.iter().chain(&self.pattern.after);
        own.chain(&self.also).cloned().collect()
    }
}

/// Result of a rule for one operation.
#[derive(Clone, Debug)]
pub enum RuleResult {
    /// A trace that the engine permits.
    Path(Box<(Target, Trace)>),
    /// Neither proved nor found.
    Open(String),
    /// No call can be the rule's.
    Closed,
}

/// The rules that every bundle has, and that are about paths.
#[must_use]
pub fn built_in(model: &Model) -> Vec<PathRule> {
    let plain = |name: &str| PathRule {
        name: name.to_owned(),
        pattern: CallPattern::default(),
        also: BTreeSet::new(),
        lost: None,
        is_deputy: false,
        at: Location::default(),
    };
    let of_kind = |kind: LabelKind| {
        let all = model.labels.iter().filter(move |(_, one)| one.value == kind);
        all.map(|(name, one)| (name.clone(), one.at.clone()))
    };
    let mut rules = Vec::new();
    for (secret, at) in of_kind(LabelKind::Confidentiality) {
        for (class, rule) in &model.destinations {
            if rule.clearance.contains(&secret) {
                continue;
            }
            let pattern = CallPattern {
                label: Some(secret.clone()),
                destination: Some(DestinationPattern::Class(class.clone())),
                ..CallPattern::default()
            };
            for (stranger, _) in of_kind(LabelKind::Trust) {
                rules.push(PathRule {
                    pattern: CallPattern {
                        after: Some(stranger),
                        without: [PERSON.to_owned()].into(),
                        ..pattern.clone()
                    },
                    at: at.clone(),
                    ..plain("toxic-combination")
                });
            }
            rules.push(PathRule {
                pattern,
                lost: Some(secret.clone()),
                at: at.clone(),
                ..plain("label-lost")
            });
        }
    }
    rules.push(PathRule { is_deputy: true, ..plain("confused-deputy") });
    rules
}

impl Analysis<'_, '_> {
    /// Judges a rule for one operation.
    pub fn judge(&mut self, rule: &PathRule, index: usize) -> RuleResult {
        let taints = self.taints;
        let Some(flow) = taints.flows.get(index) else { return RuleResult::Closed };
        let Some(operation) = taints.operation(flow) else { return RuleResult::Closed };
        let pattern = &rule.pattern;
        let is_of = pattern.operation.as_ref().is_none_or(|glob| glob.0.matches(&operation.id))
            && pattern.effect.is_none_or(|effect| operation.effects.contains(&effect));
        if !is_of {
            return RuleResult::Closed;
        }
        let classes: Vec<Option<String>> = match &pattern.destination {
            None if flow.classes.is_empty() => vec![None],
            None => flow.classes.iter().cloned().map(Some).collect(),
            Some(DestinationPattern::Any) => flow.classes.iter().cloned().map(Some).collect(),
            Some(DestinationPattern::Class(class)) => {
                flow.classes.iter().filter(|one| *one == class).cloned().map(Some).collect()
            }
        };
        if classes.is_empty() {
            return RuleResult::Closed;
        }
        if taints.ways.is_cut {
            return RuleResult::Open(super::cut_ways());
        }
        let mut open = None;
        let mut tried = 0_usize;
        for (at, way) in taints.ways.all.iter().enumerate() {
            if !self.is_of_way(rule, way, index) {
                continue;
            }
            if !taints.open(at).any(|one| one.operation == flow.operation) {
                continue;
            }
            for class in &classes {
                for goal in self.goals(rule, way, flow, class.as_deref()) {
                    if !taints.could(way, flow, &goal) {
                        continue;
                    }
                    let event = Event { way: at, flow: index, class: class.clone(), repeats: 1 };
                    // The label makes a difference only where a policy would stop the call if Authz had the label.
                    let marked = rule.lost.iter().cloned().collect();
                    if rule.lost.is_some()
                        && taints.could(way, flow, &Goal { marked, ..goal.clone() })
                    {
                        continue;
                    }
                    if tried >= MOST_TRIED {
                        return RuleResult::Open(open.unwrap_or_else(|| {
                            "more ways reach the operation than are searched".to_owned()
                        }));
                    }
                    tried = tried.saturating_add(1);
                    if !self.is_searching {
                        match self.ask(way, flow, &goal) {
                            OracleAnswer::No => continue,
                            OracleAnswer::Yes(_) | OracleAnswer::Unknown => {
                                return RuleResult::Open("no trace is searched".to_owned());
                            }
                        }
                    }
                    let target = Target {
                        event,
                        data: rule.data(),
                        lost: rule.lost.clone(),
                        tier: pattern.tier,
                        pattern: pattern.clone(),
                    };
                    let mut searched = self.searcher.search(&target);
                    if let Searched::NotFound(_) = searched {
                        // A trace needs no solver.
                        match self.ask(way, flow, &goal) {
                            OracleAnswer::No => continue,
                            OracleAnswer::Unknown => {}
                            OracleAnswer::Yes(inputs) => {
                                let conditions = self.searcher.conditions;
                                self.searcher.runner.suggest(conditions, &target.event, &inputs);
                                searched = self.searcher.search(&target);
                            }
                        }
                    }
                    match searched {
                        Searched::Found(trace) => {
                            return RuleResult::Path(Box::new((target, *trace)));
                        }
                        Searched::NotFound(reason) => open = open.or(Some(reason)),
                    }
                }
            }
        }
        open.map_or(RuleResult::Closed, RuleResult::Open)
    }

    /// Whether calls of a way can be those of a rule.
    fn is_of_way(&self, rule: &PathRule, way: &Way, index: usize) -> bool {
        let parties = self.taints.parties;
        let holds = |party: Option<&super::ways::Party>, role: &String| {
            party.is_some_and(|party| party.facts.roles.contains(role))
        };
        let agent = parties.agents.get(way.agent());
        let subject = way.subject.and_then(|at| parties.subjects.get(at));
        let is_of = rule.pattern.agent.as_ref().is_none_or(|role| holds(agent, role))
            && rule.pattern.subject.as_ref().is_none_or(|role| holds(subject, role));
        is_of && (!rule.is_deputy || self.is_deputy(way, index))
    }

    /// Whether the way's task was given by an agent that is not in its chain, and that could never make the call itself.
    fn is_deputy(&self, way: &Way, index: usize) -> bool {
        let root = self.taints.ways.all.get(way.root);
        let Some(Beginning::ByAgent(starter)) = root.map(|root| root.beginning.clone()) else {
            return false;
        };
        let is_in_chain = way.agents.contains(&starter);
        !is_in_chain && !self.direct.get(starter).is_some_and(|all| all.contains(&index))
    }

    /// Goals that a call of the way reaches if it is the rule's: one for each way in which the data can be marked. Empty if the
    /// data cannot come there.
    fn goals(&self, rule: &PathRule, way: &Way, flow: &Flow, class: Option<&str>) -> Vec<Goal> {
        let carried = self.taints.carried(way);
        let mut goals = vec![Goal {
            class: class.map(str::to_owned),
            unmet: self.unmet(&rule.pattern),
            tier: rule.pattern.tier,
            ..Goal::default()
        }];
        for label in rule.data() {
            let is_marked = carried.contains(&(label.clone(), Mark::Marked));
            // Data of the call itself is not read before the call.
            let is_sent = rule.pattern.after.as_ref() != Some(&label);
            let is_of_resource = is_sent && flow.resource_labels.contains(&label);
            let is_unmarked = carried.contains(&(label.clone(), Mark::Unmarked))
                || (is_sent && flow.yields_sent.contains(&label));
            let is_lost = rule.lost.as_ref() == Some(&label);
            let mut next = Vec::new();
            for goal in goals {
                if is_marked && !is_lost {
                    let mut marked = goal.marked.clone();
                    // Without a destination, labels that the agent remembers of other tasks do not join the session.
                    if !flow.classes.is_empty() {
                        marked.insert(label.clone());
                    }
                    next.push(Goal { marked, ..goal.clone() });
                }
                if is_of_resource && !is_lost {
                    let mut of_resource = goal.of_resource.clone();
                    of_resource.insert(label.clone());
                    next.push(Goal { of_resource, ..goal.clone() });
                }
                if is_unmarked {
                    next.push(goal);
                }
            }
            goals = next;
        }
        goals.dedup();
        goals
    }

    /// Step-up kinds that make a call of the pattern fine.
    fn unmet(&self, pattern: &CallPattern) -> BTreeSet<String> {
        let roles = self.searcher.model.roles.keys().map(|role| format!("approve:{role}"));
        let kinds = ["confirm", "approve", "two_person"].map(str::to_owned);
        kinds.into_iter().chain(roles).filter(|kind| pattern.is_lifted_by(kind)).collect()
    }

    /// Asks the solver whether policies permit such a call to each principal of the chain.
    fn ask(&self, way: &Way, flow: &Flow, goal: &Goal) -> OracleAnswer {
        let Some(operation) = self.taints.operation(flow) else { return OracleAnswer::Unknown };
        // A call that `mode` lets through needs no permit.
        if self.taints.is_let_through(way, operation, goal, ReasonCode::NotPermitted) {
            return OracleAnswer::Unknown;
        }
        let mut suggested = Vec::new();
        for principal in &way.chain {
            let constraint = constraint(goal, principal, self.searcher.model);
            match self.oracle.can_be_permitted(&operation.id, principal.kind, &constraint) {
                OracleAnswer::No => return OracleAnswer::No,
                OracleAnswer::Yes(inputs) => suggested.extend(inputs),
                OracleAnswer::Unknown => {}
            }
        }
        if suggested.is_empty() { OracleAnswer::Unknown } else { OracleAnswer::Yes(suggested) }
    }

    /// Permits of the bundle that no way of any agent uses.
    #[must_use]
    pub fn unused(&self) -> Vec<usize> {
        let conditions = self.searcher.conditions;
        let mut used: BTreeSet<usize> = BTreeSet::new();
        let mut of_operations: BTreeSet<usize> = BTreeSet::new();
        for flow in &self.taints.flows {
            if let Some(operation) = self.taints.operation(flow) {
                of_operations.extend(conditions.slice(&operation.id));
            }
        }
        for (at, way) in self.taints.ways.all.iter().enumerate() {
            for flow in self.taints.open(at) {
                let Some(operation) = self.taints.operation(flow) else { continue };
                if !self.taints.could(way, flow, &Goal::default()) {
                    continue;
                }
                let facts = self.taints.facts(way, flow, operation, &Goal::default());
                used.extend(conditions.permits(&operation.id, &way.chain, &facts));
            }
        }
        let is_own = |at: &usize| {
            // A permit that also covers Authz's own operations is used by people, who are not looked at here.
            self.searcher.conditions.policies().get(*at).is_some_and(|one| {
                self.own.iter().any(|own| conditions.slice(own).contains(at))
                    || one.effect != PolicyEffect::Permit
            })
        };
        of_operations.into_iter().filter(|at| !used.contains(at) && !is_own(at)).collect()
    }

    /// Pairs of sequences that contradict each other for an operation: one requires a step that the other forbids before it.
    #[must_use]
    pub fn contradictions(&self) -> Vec<(String, String, String)> {
        let model = self.searcher.model;
        let conditions = self.searcher.conditions;
        let mut found = Vec::new();
        // Without all ways nothing is known of each call.
        if self.taints.ways.is_cut {
            return found;
        }
        for flow in &self.taints.flows {
            let Some(operation) = self.taints.operation(flow) else { continue };
            let is_built_in = model.is_built_in(operation);
            let ends = model.sequences.iter().filter(|(_, rule)| {
                rule.last.iter().any(|event| event.matches(operation, is_built_in))
            });
            let (requiring, forbidding): (Vec<_>, Vec<_>) =
                ends.partition(|(_, rule)| rule.requires);
            for (required, one) in &requiring {
                for (forbidden, other) in &forbidding {
                    // The forbidden step must cover each event that the required one accepts, for as long, and without a key.
                    let covers = one.steps.iter().flatten().all(|event| {
                        let [step] = other.steps.as_slice() else { return false };
                        step.contains(event)
                    });
                    let is_wide = other.key.is_none()
                        && other.scope.holder() == one.scope.holder()
                        && match (one.within, other.within) {
                            (_, None) => true,
                            (Some(one), Some(other)) => one <= other,
                            (None, Some(_)) => false,
                        };
                    let denies = |name: &str| {
                        self.taints.ways.all.iter().all(|way| {
                            let goal =
                                Goal { sequences: [name.to_owned()].into(), ..Goal::default() };
                            let facts = self.taints.facts(way, flow, operation, &goal);
                            let reason = ReasonCode::Forbidden;
                            let is_enforced =
                                !self.taints.is_let_through(way, operation, &goal, reason);
                            is_enforced
                                && way.chain.iter().any(|principal| {
                                    conditions.slice(&operation.id).iter().any(|at| {
                                        conditions.policies().get(*at).is_some_and(|one| {
                                            one.effect == PolicyEffect::Forbid
                                                && one.stepup.is_none()
                                        }) && conditions.fires(
                                            *at,
                                            &operation.id,
                                            principal,
                                            &facts,
                                        ) == Fires::Always
                                    })
                                })
                        })
                    };
                    if covers && is_wide && denies(required) && denies(forbidden) {
                        let names = ((*required).clone(), (*forbidden).clone());
                        found.push((operation.id.clone(), names.0, names.1));
                    }
                }
            }
        }
        found
    }
}

/// Operations that each agent could be permitted in some way in which it acts itself.
#[must_use]
pub fn direct(taints: &Taints<'_>) -> Vec<BTreeSet<usize>> {
    let mut all = vec![BTreeSet::new(); taints.parties.agents.len()];
    let index: BTreeMap<usize, usize> =
        taints.flows.iter().enumerate().map(|(at, flow)| (flow.operation, at)).collect();
    for (at, way) in taints.ways.all.iter().enumerate() {
        for flow in taints.open(at) {
            let (Some(known), Some(index)) = (all.get_mut(way.agent()), index.get(&flow.operation))
            else {
                continue;
            };
            if !known.contains(index) && taints.could(way, flow, &Goal::default()) {
                known.insert(*index);
            }
        }
    }
    all
}

/// Facts of a goal as a Cedar expression.
fn constraint(goal: &Goal, principal: &super::guard::PrincipalFacts, model: &Model) -> String {
    let quote = authz_kernel::schema::quote;
    let mut parts: Vec<String> = Vec::new();
    for role in model.roles.keys() {
        let holds = principal.roles.contains(role);
        let not = if holds { "" } else { "!" };
        parts.push(format!("{not}(principal in Role::{})", quote(role)));
    }
    if let Some(class) = &goal.class {
        parts.push(format!("context.destination.class == DestinationClass::{}", quote(class)));
        let clearance = model.destinations.get(class).map(|one| one.clearance.clone());
        for label in goal.marked.iter().chain(&goal.of_resource) {
            let kind = model.labels.get(label).map(|one| one.value);
            let is_cleared = clearance.as_ref().is_some_and(|labels| labels.contains(label));
            if kind == Some(LabelKind::Confidentiality) && !is_cleared {
                parts.push(format!("context.uncleared_labels.contains(Label::{})", quote(label)));
            }
        }
    }
    for label in &goal.marked {
        parts.push(format!("context.session.labels.contains(Label::{})", quote(label)));
    }
    for kind in &goal.unmet {
        parts.push(format!("!context.satisfied.contains(Kind::{})", quote(kind)));
    }
    if parts.is_empty() { "true".to_owned() } else { parts.join(" && ") }
}

/// Whether an operation hurts where an exception opens it: it carries data out, changes rights, deletes, or is of a high tier.
#[must_use]
pub fn is_grave(operation: &authz_kernel::model::Operation) -> bool {
    let grave = [Effect::Export, Effect::Grant, Effect::Delete];
    operation.system != OWN_SYSTEM
        && (operation.destination.is_some()
            || operation.tier >= authz_kernel::model::Tier::High
            || grave.iter().any(|effect| operation.effects.contains(effect)))
}

/// Operations by id.
#[must_use]
pub fn ids(analysis: &Analysis<'_, '_>) -> BTreeMap<String, usize> {
    let flows = analysis.taints.flows.iter().enumerate();
    flows.filter_map(|(at, flow)| Some((analysis.taints.operation(flow)?.id.clone(), at))).collect()
}
