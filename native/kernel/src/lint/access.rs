//! Operations that nobody can ever call, and tasks that nobody can start.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use smol_str::SmolStr;

use crate::arguments::ArgumentValue;
use crate::decide::{Prospects, Weighed};
use crate::decision::{CallerProof, Facts, PolicyEffect, Principal, ProofMethod};
use crate::diagnostic::{Diagnostic, Diagnostics};
use crate::evaluate::syntax::ActionScope;
use crate::examples::{ExamplePrincipal, example_agents, example_subjects, versatile_subjects};
use crate::model::{Location, Model, OnBehalf, Operation, Template, Tier};
use crate::plan::Plan;
use crate::policy::Placed;
use crate::schema::START;
use crate::task::WordRecords;

/// Chains of principals for which operations are judged, in all.
const MOST_JUDGED: usize = 50_000;
/// Operations that a message lists.
const SHOWN: usize = 3;

pub(super) fn check(plan: &Plan, found: &mut Diagnostics) {
    let mut access = Access::new(plan);
    access.tasks(found);
    access.operations(found);
    entries_above_cap(plan.model(), found);
    if access.judged >= MOST_JUDGED {
        let at = Location { file: "bundle.yaml".to_owned(), line: 0, column: 0 };
        let what = "the bundle has too many roles and operations to look for every operation that nobody can call";
        found.push(Diagnostic::warning(&at, what, "").with_code("not-checked"));
    }
}

/// Why nobody can call an operation. Operations of one system with the same cause share a warning.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Cause {
    /// No template has it in its scope.
    NoScope,
    /// The scope of these templates has it, and its tier is above the cap of each.
    AboveCap(Vec<String>),
    /// No permit covers it.
    NoPermit,
    /// Permits cover it, and no agent has one.
    NoPermitForAgents,
    /// Permits cover it, and no person has one on whose behalf an agent could act.
    NoPermitForPeople,
    /// A forbid fires for everybody, by its id and place.
    Forbidden(String, String, u32),
}

/// Who could call what.
pub(super) struct Access<'a> {
    plan: &'a Plan,
    model: &'a Model,
    agents: Vec<ExamplePrincipal>,
    people: Vec<Principal>,
    /// Chains that were judged so far.
    judged: usize,
}

impl<'a> Access<'a> {
    pub(super) fn new(plan: &'a Plan) -> Self {
        let model = plan.model();
        let people = example_subjects(model).into_iter().map(|one| one.principal);
        let people = people.chain(versatile_subjects(model)).collect();
        Self { plan, model, agents: example_agents(model), people, judged: 0 }
    }

    /// Results of the rules of an operation for one chain.
    fn weigh(&mut self, chain: &[Principal], id: &str) -> Option<Weighed<'a>> {
        self.weigh_call(chain, id, None)
    }

    /// Results of the rules of an operation for one principal and these arguments. `None`: too many were judged.
    pub(super) fn weigh_with(
        &mut self,
        principal: &Principal,
        id: &str,
        input: &[(SmolStr, ArgumentValue)],
    ) -> Option<Weighed<'a>> {
        if self.judged >= MOST_JUDGED {
            return None;
        }
        self.weigh_call(std::slice::from_ref(principal), id, Some(input))
    }

    /// Agents that may act on nobody's behalf.
    pub(super) fn agents_alone(&self) -> Vec<ExamplePrincipal> {
        self.agents.iter().filter(|agent| self.acts_alone(&agent.role)).cloned().collect()
    }

    fn weigh_call(
        &mut self,
        chain: &[Principal],
        id: &str,
        input: Option<&[(SmolStr, ArgumentValue)]>,
    ) -> Option<Weighed<'a>> {
        self.judged = self.judged.saturating_add(1);
        let proof = CallerProof {
            method: ProofMethod::JwtSvid,
            bound: true,
            age: Some(0),
            acr: "",
            satisfied: &[],
        };
        // All keys of the context are open, so nothing but the chain is read.
        let facts = Facts {
            enforcer: "",
            chain,
            proof,
            confidence: 0,
            task: None,
            subject_proof: None,
            history: None,
            words: WordRecords::default(),
            literal_key: None,
            value_key: None,
            endorsed: &[],
            recipient_lists: None,
            granted: None,
            breakglass: None,
        };
        let (operation, prepared) = self.plan.prepared(id)?;
        Prospects::anyhow(self.plan, &facts).with_input(input).weigh(operation, prepared)
    }

    pub(super) fn is_open(&mut self, chain: &[Principal], id: &str) -> bool {
        // Beyond the bound nothing is said, so nothing is warned about.
        self.judged >= MOST_JUDGED || self.weigh(chain, id).is_none_or(|weighed| weighed.is_open())
    }

    /// Warns about templates whose tasks nobody can start.
    fn tasks(&mut self, found: &mut Diagnostics) {
        let implicit = self.model.tasks.implicit.as_ref().map(|rule| rule.template.as_str());
        let delegated = self.model.templates.values().any(|template| template.max_depth > 0);
        // A task of any template may be delegated below a task that allows it.
        if delegated {
            return;
        }
        let model = self.model;
        for (name, template) in &model.templates {
            if implicit == Some(name.as_str()) || self.is_startable(name, template) {
                continue;
            }
            let id = format!("{START}{name}");
            let what = format!("nobody can start a task of `{name}`: no policy permits `{id}`");
            let role = model.roles.iter().find(|(_, members)| !members.subjects.is_empty());
            let role = role.map_or("ROLE", |(role, _)| role.as_str());
            let fix = format!(
                "Write, for example: @id(\"start-{name}\") permit (principal in Role::\"{role}\", action == Action::\"{id}\", resource); \
                 with the role of the people who may start it."
            );
            found.push(Diagnostic::warning(&template.at, what, fix).with_code("unstartable-task"));
        }
    }

    fn is_startable(&mut self, name: &str, template: &Template) -> bool {
        let id = format!("{START}{name}");
        let people = self.people.clone();
        let starters: Vec<Principal> = self
            .agents
            .iter()
            .filter(|agent| template.starters.contains(&agent.role))
            .map(|agent| agent.principal.clone())
            .collect();
        let alone = people.iter().chain(&starters);
        if alone.into_iter().any(|one| self.is_open(std::slice::from_ref(one), &id)) {
            return true;
        }
        let pairs = people.iter().flat_map(|one| starters.iter().map(move |agent| [one, agent]));
        pairs.into_iter().any(|pair| self.is_open(&pair.map(Principal::clone), &id))
    }

    /// Warns about operations that nobody can call.
    fn operations(&mut self, found: &mut Diagnostics) {
        let mut causes: BTreeMap<(Cause, &'a str), Vec<&'a Operation>> = BTreeMap::new();
        let model = self.model;
        for operation in &model.operations {
            // What nobody reviewed is refused until somebody does; `authz catalog` lists it.
            let is_judged = operation.reviewed && !operation.drifted;
            if !is_judged || self.plan.is_protocol(operation) {
                continue;
            }
            if let Some(cause) = self.cause(operation) {
                causes.entry((cause, &operation.system)).or_default().push(operation);
            }
        }
        for ((cause, system), operations) in &causes {
            found.push(self.warning(cause, system, operations));
        }
    }

    fn cause(&mut self, operation: &Operation) -> Option<Cause> {
        if let Some(cause) = self.no_task(operation) {
            return Some(cause);
        }
        let plan = self.plan;
        let (_, prepared) = plan.prepared(&operation.id)?;
        let covering = prepared.slice.policies().filter_map(|(index, _)| plan.policies.get(index));
        if !covering.into_iter().any(is_permit) {
            return Some(Cause::NoPermit);
        }
        self.no_chain(&operation.id)
    }

    /// Whether no task of any template allows the operation.
    fn no_task(&self, operation: &Operation) -> Option<Cause> {
        let (model, tasks) = (self.model, &self.model.tasks);
        let is_taskless = tasks.taskless_tier.is_some_and(|tier| {
            operation.tier <= tier && self.plan.is_stateless(&operation.id, None)
        });
        if tasks.optional || is_taskless || model.templates.is_empty() {
            return None;
        }
        let allows = |template: &&Template| {
            template.beyond.is_some()
                || template.scope.iter().any(|rule| rule.operation == operation.id)
        };
        let allowing = model.templates.iter().filter(|(_, template)| allows(template));
        let allowing: Vec<(&String, Tier)> =
            allowing.map(|(name, template)| (name, self.cap_of(name, template))).collect();
        if allowing.is_empty() {
            return Some(Cause::NoScope);
        }
        let is_above = allowing.iter().all(|(_, cap)| operation.tier > *cap);
        is_above
            .then(|| Cause::AboveCap(allowing.into_iter().map(|(name, _)| name.clone()).collect()))
    }

    /// The highest tier of a template. Where every agent works without tasks, `implicit_tasks` bounds it.
    fn cap_of(&self, name: &str, template: &Template) -> Tier {
        let is_every_agent_implicit = self
            .model
            .roles
            .values()
            .filter(|members| !members.agents.is_empty())
            .all(|members| members.is_implicit);
        match &self.model.tasks.implicit {
            Some(rule) if rule.template == *name && is_every_agent_implicit => {
                rule.tier_cap.min(template.tier_cap)
            }
            _ => template.tier_cap,
        }
    }

    /// Whether no chain of principals is permitted an operation, and why.
    fn no_chain(&mut self, id: &str) -> Option<Cause> {
        let (agents, people) = (self.agents.clone(), self.people.clone());
        if self.model.tasks.optional || self.model.tasks.taskless_tier.is_some() {
            let is_open =
                |access: &mut Self, one: &Principal| access.is_open(std::slice::from_ref(one), id);
            if people.iter().any(|one| is_open(self, one)) {
                return None;
            }
        }
        let (mut is_agent_permitted, mut is_agent_free) = (false, false);
        let mut forbids: Vec<(String, String, u32)> = Vec::new();
        for agent in &agents {
            if self.judged >= MOST_JUDGED {
                return None;
            }
            let weighed = self.weigh(std::slice::from_ref(&agent.principal), id)?;
            if weighed.without_permit().next().is_none() {
                is_agent_permitted = true;
                // A forbid of a whole effect is intended, so nothing is warned about.
                if weighed.certain_forbids().any(is_of_effect) {
                    return None;
                }
                is_agent_free |= weighed.certain_forbids().next().is_none();
                let certain = weighed.certain_forbids();
                forbids.extend(certain.map(|placed| {
                    (placed.policy.id.clone(), placed.at.file.clone(), placed.at.line)
                }));
            }
            if weighed.is_open() && self.acts_alone(&agent.role) {
                return None;
            }
            for one in &people {
                if self.is_open(&[one.clone(), agent.principal.clone()], id) {
                    return None;
                }
            }
        }
        match forbids.into_iter().next().filter(|_| !is_agent_free) {
            Some((policy, file, line)) => Some(Cause::Forbidden(policy, file, line)),
            None if is_agent_permitted => Some(Cause::NoPermitForPeople),
            None => Some(Cause::NoPermitForAgents),
        }
    }

    /// Whether an agent of a role may act on nobody's behalf.
    fn acts_alone(&self, role: &str) -> bool {
        let members = self.model.roles.get(role);
        if members.is_some_and(|members| members.subject == Some(OnBehalf::Required)) {
            return false;
        }
        let is_implicit = members.is_some_and(|members| members.is_implicit);
        let starts = self.model.templates.values().any(|one| one.starters.contains(role));
        self.model.tasks.optional || is_implicit || starts
    }

    fn warning(&self, cause: &Cause, system: &str, operations: &[&Operation]) -> Diagnostic {
        let first = operations.first().map_or_else(Location::default, |one| self.place(one));
        let listed = self.listed(operations, system);
        let (code, at, what, fix) = match cause {
            Cause::NoScope => {
                let mut names: Vec<String> = Vec::new();
                for (name, template) in self.model.templates.iter().take(SHOWN) {
                    names.push(format!("`{name}` ({}:{})", template.at.file, template.at.line));
                }
                let what = format!("no task can call {listed}: no template has it in its scope");
                let fix = format!(
                    "Add `{{system: {system}}}` or `{{operation: …}}` to the `scope` of {}.",
                    names.join(" or ")
                );
                ("no-rule", first, what, fix)
            }
            Cause::AboveCap(templates) => return self.above_cap(templates, operations),
            Cause::NoPermit => {
                let what = format!("nobody can call {listed}: no permit covers it");
                let fix = format!(
                    "Write a permit for the agents and one for the people, for example: @id(\"may-{system}\") permit (principal in \
                     Role::\"{}\", action in Action::\"system:{system}\", resource);",
                    self.some_role()
                );
                ("no-rule", first, what, fix)
            }
            Cause::NoPermitForAgents => {
                let what = format!("nobody can call {listed}: no permit can fire for an agent");
                let fix = "Every principal of the chain needs a permit: write one that names a role of agents.";
                ("no-rule", first, what, fix.to_owned())
            }
            Cause::NoPermitForPeople => {
                let what = format!(
                    "nobody can call {listed}: agents act for people here, and no permit can fire for a person"
                );
                let fix = "Every principal of the chain needs a permit: write one that names a role of people.";
                ("no-rule", first, what, fix.to_owned())
            }
            Cause::Forbidden(policy, file, line) => {
                let what = format!(
                    "nobody can call {listed}: the forbid `{policy}` fires for every caller, whatever the arguments"
                );
                let fix = "Give the forbid a condition, or remove the operation from the scope of the templates.";
                let at = Location { file: file.clone(), line: *line, column: 1 };
                ("no-rule", at, what, fix.to_owned())
            }
        };
        Diagnostic::warning(&at, what, fix).with_code(code)
    }

    /// The warning about operations above the cap of every template that has them in its scope.
    fn above_cap(&self, templates: &[String], operations: &[&Operation]) -> Diagnostic {
        let declared = templates.iter().filter_map(|name| {
            let template = self.model.templates.get(name)?;
            let cap = self.cap_of(name, template);
            let (said, at) = cap_said(self.model, name, template, cap);
            Some((format!("{said} of the template `{name}`"), cap, at))
        });
        let caps: Vec<(String, Tier, Location)> = declared.collect();
        let Some((first, cap, at)) = caps.first() else {
            return Diagnostic::warning(&Location::default(), "", "");
        };
        let others = caps.iter().skip(1).take(SHOWN.saturating_sub(1));
        let mut said = first.clone();
        for (other, _, at) in others {
            let _written = write!(said, ", {other} ({}:{})", at.file, at.line);
        }
        match caps.len().saturating_sub(SHOWN) {
            0 => {}
            more => drop(write!(said, " and of {more} more templates")),
        }
        let verb = if caps.len() == 1 { "is" } else { "are" };
        let listed: Vec<String> =
            operations.iter().take(SHOWN).map(|one| self.with_tier(one)).collect();
        let more = match operations.len().saturating_sub(SHOWN) {
            0 => String::new(),
            more => format!(" and {more} more"),
        };
        let highest = operations.iter().map(|one| one.tier).max().unwrap_or(*cap);
        let what = format!("no task can call {}{more}: {said} {verb} lower", listed.join(", "));
        let fix = format!(
            "Raise `tier_cap` to {}, lower the tier of the operations, or remove them from the scope.",
            highest.as_str()
        );
        Diagnostic::warning(at, what, fix).with_code("cap-below-scope")
    }

    fn with_tier(&self, operation: &Operation) -> String {
        let at = self.place(operation);
        format!("`{}` (tier {}, {}:{})", operation.id, operation.tier.as_str(), at.file, at.line)
    }

    /// The `classify` rule of an operation.
    fn place(&self, operation: &Operation) -> Location {
        self.model.places.meanings.get(&operation.id).unwrap_or(&operation.at).clone()
    }

    /// Names of operations, as a message lists them.
    fn listed(&self, operations: &[&Operation], system: &str) -> String {
        let of_system = self.model.operations.iter().filter(|one| one.system == system);
        let mut text = String::new();
        for (index, operation) in operations.iter().take(SHOWN).enumerate() {
            let separator = if index == 0 { "" } else { ", " };
            let _written = write!(text, "{separator}`{}`", operation.id);
        }
        match operations.len() {
            count if count <= SHOWN => {}
            count if count == of_system.count() => {
                let _written = write!(text, " and the other operations of `{system}`");
            }
            count => {
                let _written =
                    write!(text, " and {} more of `{system}`", count.saturating_sub(SHOWN));
            }
        }
        text
    }

    /// A role that a permit names already.
    fn some_role(&self) -> &str {
        let permits = self.plan.policies.iter().filter(|placed| is_permit(placed));
        let mut names = permits.flat_map(|placed| &placed.policy.reading.names);
        names.find(|name| name.kind == "Role").map_or("ROLE", |name| name.id.as_str())
    }
}

/// Whether the scope of a policy names an effect.
fn is_of_effect(placed: &Placed) -> bool {
    match &placed.policy.reading.actions {
        ActionScope::Of(ids) => ids.iter().any(|id| id.starts_with("effect:")),
        ActionScope::Any => false,
    }
}

fn is_permit(placed: &Placed) -> bool {
    placed.policy.effect == PolicyEffect::Permit
}

/// How a template's cap is said, and where.
fn cap_said(model: &Model, name: &str, template: &Template, cap: Tier) -> (String, Location) {
    let places = &model.places;
    if cap < template.tier_cap
        && let Some(at) = &places.implicit
    {
        return (format!("`tier_cap: {}` of `implicit_tasks`", cap.as_str()), at.clone());
    }
    match places.tier_caps.get(name) {
        Some(at) => (format!("`tier_cap: {}`", cap.as_str()), at.clone()),
        None => (format!("the default `tier_cap: {}`", cap.as_str()), template.at.clone()),
    }
}

/// Warns about entries of a scope that name an operation above the template's cap.
fn entries_above_cap(model: &Model, found: &mut Diagnostics) {
    for (name, entries) in &model.places.scopes {
        let Some(template) = model.templates.get(name) else { continue };
        for entry in entries {
            // An entry of a whole system has what the cap leaves of it.
            let [id] = entry.operations.as_slice() else { continue };
            let Some(operation) = model.operation(id).filter(|one| one.tier > template.tier_cap)
            else {
                continue;
            };
            let (said, at) = cap_said(model, name, template, template.tier_cap);
            let meaning = model.places.meanings.get(id).unwrap_or(&operation.at);
            let tier = operation.tier.as_str();
            let what = format!(
                "a task of `{name}` can never call `{id}`: its tier is {tier} ({}:{}), above {said} ({}:{})",
                meaning.file, meaning.line, at.file, at.line
            );
            let fix = format!("Write `tier_cap: {tier}`, or remove the entry.");
            found.push(Diagnostic::warning(&entry.at, what, fix).with_code("cap-below-scope"));
        }
    }
}
