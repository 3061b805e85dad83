//! Who can do what: the outlook of every operation for example principals, for `authz can`.

use std::collections::BTreeMap;

use authz_kernel::decide::{Outlook, OutlookCondition, Prospects};
use authz_kernel::decision::{
    CallerProof, DecidingRule, Facts, Outcome, Principal, ProofMethod, Time,
};
use authz_kernel::examples::{ExamplePrincipal, example_agents, example_subjects};
use authz_kernel::model::{Effect, Model, OnBehalf, Operation, ParamType, Template};
use authz_kernel::plan::Plan;
use authz_kernel::task::{
    self, AgentName, Names, Param, SubjectProof, Task, TaskKind, TaskSubject, TaskView, WordRecords,
};
use serde::{Deserialize, Serialize};

use crate::case_file::OutcomeWord;
use crate::eval::EvalSubject;

/// Chains of one table.
const MOST_CHAINS: usize = 100;

/// The principals that are asked about. Without agents and subjects: one of each role.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct CanQuery {
    /// SPIFFE ids, or roles of agents.
    #[serde(default)]
    agents: Vec<String>,
    /// Roles of people.
    #[serde(default)]
    subject_roles: Vec<String>,
    /// People with claims.
    #[serde(default)]
    subjects: Vec<EvalSubject>,
    /// Only tasks of this template.
    template: Option<String>,
}

/// Operations by chain.
#[derive(Serialize)]
struct CanTable<'a> {
    chains: Vec<ChainRows<'a>>,
}

/// The outlook of every operation for one chain.
#[derive(Serialize)]
struct ChainRows<'a> {
    agent: Option<ListedPrincipal>,
    subject: Option<ListedPrincipal>,
    rows: Vec<CanRow<'a>>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
struct ListedPrincipal {
    /// The role that was asked for; empty where a principal was.
    role: String,
    /// SPIFFE id, or `<issuer alias>/<sub>`.
    id: String,
}

#[derive(Serialize)]
struct CanRow<'a> {
    operation: &'a str,
    system: &'a str,
    effects: Vec<&'static str>,
    tier: &'static str,
    /// Template of the task in which the outcome is the best; empty: without a task.
    template: String,
    outcome: &'static str,
    reason_code: &'static str,
    observed: bool,
    step_up_kinds: Vec<String>,
    proofs: Vec<String>,
    rules: Vec<DecidingRule>,
    conditions: Vec<ConditionRow>,
}

#[derive(Serialize)]
struct ConditionRow {
    outcome: &'static str,
    step_up_kind: String,
    /// The rule is a permit, and must hold.
    needed: bool,
    rule: DecidingRule,
}

/// A principal of the table.
#[derive(Clone)]
struct CanPrincipal {
    role: String,
    principal: Principal,
}

/// Tells the outlook of every operation for each agent on behalf of each subject, as JSON.
///
/// Args: `query`: JSON of `{agents, subject_roles, subjects, template}`, all optional.
///
/// # Errors
/// The query names a role or a template that the bundle lacks, or has too many chains.
pub fn can(plan: &Plan, query: &[u8], now_ms: i64) -> Result<Vec<u8>, String> {
    let query: CanQuery = serde_json::from_slice(query).map_err(|error| error.to_string())?;
    let model = plan.model();
    let table = CanTableBuilder { plan, now: Time(now_ms), template: query.template.as_deref() };
    if let Some(template) = table.template.filter(|name| !model.templates.contains_key(*name)) {
        return Err(unknown("template", template, model.templates.keys()));
    }
    let agents = query.agents(model)?;
    let subjects = query.subjects(model)?;
    let is_narrowed = !query.subjects.is_empty() || !query.subject_roles.is_empty();
    let mut pairs: Vec<(Option<&CanPrincipal>, Option<&CanPrincipal>)> = Vec::new();
    for agent in &agents {
        let alone = [None].into_iter().filter(|_| !is_narrowed && acts_alone(plan, agent));
        pairs.extend(subjects.iter().map(Some).chain(alone).map(|subject| (Some(agent), subject)));
    }
    pairs.extend(subjects.iter().filter(|_| query.agents.is_empty()).map(|one| (None, Some(one))));
    if pairs.len() > MOST_CHAINS {
        return Err(format!(
            "more than {MOST_CHAINS} pairs of agent and subject; name one with --agent or --subject"
        ));
    }
    let chains = pairs.into_iter().map(|(agent, subject)| table.rows(agent, subject)).collect();
    let table = CanTable { chains };
    serde_json::to_vec(&table).map_err(|error| error.to_string())
}

fn unknown<'a>(kind: &str, name: &str, declared: impl Iterator<Item = &'a String>) -> String {
    let declared = declared.map(|name| (name.as_str(), None));
    let (what, fix) = authz_kernel::diagnostic::unknown(kind, name, declared);
    format!("{what}. {fix}").trim_end().to_owned()
}

impl CanQuery {
    fn agents(&self, model: &Model) -> Result<Vec<CanPrincipal>, String> {
        let examples = example_agents(model);
        if self.agents.is_empty() {
            return Ok(one_of_each_role(examples));
        }
        let member = |name: &String| {
            if !name.contains("://") {
                let roles = model.roles.iter().filter(|(_, members)| !members.agents.is_empty());
                let example = examples.iter().find(|one| one.role == *name);
                return example
                    .map(|one| CanPrincipal {
                        role: one.role.clone(),
                        principal: one.principal.clone(),
                    })
                    .ok_or_else(|| unknown("role of agents", name, roles.map(|(name, _)| name)));
            }
            let name = AgentName::parse(name).map_err(|error| format!("`{name}`: {error}"))?;
            Ok(CanPrincipal { role: String::new(), principal: name.principal() })
        };
        self.agents.iter().map(member).collect()
    }

    fn subjects(&self, model: &Model) -> Result<Vec<CanPrincipal>, String> {
        let examples = example_subjects(model);
        if self.subjects.is_empty() && self.subject_roles.is_empty() {
            return Ok(one_of_each_role(examples));
        }
        let mut members = Vec::new();
        for name in &self.subject_roles {
            let example = examples.iter().find(|one| one.role == *name);
            let roles = model.roles.iter().filter(|(_, members)| !members.subjects.is_empty());
            let example = example
                .ok_or_else(|| unknown("role of people", name, roles.map(|(name, _)| name)))?;
            members.push(CanPrincipal { role: name.clone(), principal: example.principal.clone() });
        }
        for subject in &self.subjects {
            let principal = subject.principal()?;
            members.push(CanPrincipal { role: String::new(), principal });
        }
        Ok(members)
    }
}

fn one_of_each_role(examples: Vec<ExamplePrincipal>) -> Vec<CanPrincipal> {
    let mut members: Vec<CanPrincipal> = Vec::new();
    for ExamplePrincipal { role, principal } in examples {
        if members.last().is_none_or(|last| last.role != role) {
            members.push(CanPrincipal { role, principal });
        }
    }
    members
}

/// Whether an agent may act on nobody's behalf.
fn acts_alone(plan: &Plan, agent: &CanPrincipal) -> bool {
    match &agent.principal {
        Principal::Agent { spiffe_id, .. } => {
            plan.roles().subject_rule(spiffe_id) != Some(OnBehalf::Required)
        }
        Principal::User(_) | Principal::Service(_) => true,
    }
}

fn name_of(principal: &Principal) -> String {
    match principal {
        Principal::Agent { spiffe_id, .. } => spiffe_id.clone(),
        Principal::User(subject) | Principal::Service(subject) => {
            format!("{}/{}", subject.issuer, subject.sub)
        }
    }
}

struct CanTableBuilder<'a> {
    plan: &'a Plan,
    now: Time,
    template: Option<&'a str>,
}

impl<'a> CanTableBuilder<'a> {
    fn rows(&self, agent: Option<&CanPrincipal>, subject: Option<&CanPrincipal>) -> ChainRows<'a> {
        let members = subject.into_iter().chain(agent);
        let chain: Vec<Principal> = members.map(|member| member.principal.clone()).collect();
        let tasks = self.tasks(&chain);
        let views: Vec<Option<TaskView<'_>>> = match tasks.is_empty() {
            true => vec![None],
            false => tasks.iter().map(|task| Some(TaskView { task, ancestors: &[] })).collect(),
        };
        let mut rows = Vec::new();
        for operation in self.plan.listed_operations() {
            // A person alone starts tasks; where tasks are optional, it may call operations, too.
            let is_start = operation.id.starts_with(authz_kernel::schema::START);
            if agent.is_none() && !is_start && !self.plan.model().tasks.optional {
                continue;
            }
            rows.extend(self.row(operation, &chain, &views, is_start));
        }
        let member = |member: &CanPrincipal| ListedPrincipal {
            role: member.role.clone(),
            id: name_of(&member.principal),
        };
        ChainRows { agent: agent.map(member), subject: subject.map(member), rows }
    }

    /// The best outlook of an operation over all tasks in which it may be called.
    fn row(
        &self,
        operation: &'a Operation,
        chain: &[Principal],
        views: &[Option<TaskView<'_>>],
        is_start: bool,
    ) -> Option<CanRow<'a>> {
        // A task is started without one.
        let views = if is_start { &[None][..] } else { views };
        let proof = CallerProof {
            method: ProofMethod::JwtSvid,
            bound: false,
            age: None,
            acr: "",
            satisfied: &[],
        };
        let outlooks = views.iter().filter_map(|task| {
            let facts = Facts {
                enforcer: "",
                chain,
                proof,
                confidence: 0,
                task: *task,
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
            let prospects = Prospects::new(self.plan, &facts, self.now).with_any_proof();
            let template = task.map_or("", |view| view.task.template.as_str());
            Some((prospects.outlook(&operation.id)?, template.to_owned()))
        });
        let (outlook, template) = outlooks.min_by_key(|(outlook, _)| rank(outlook))?;
        // The template lets this caller start no task.
        let is_open = |name: &str, template: &Template| self.starts(chain, name, template);
        let name = operation.id.strip_prefix(authz_kernel::schema::START).unwrap_or_default();
        let template_of_start = self.plan.template(name);
        if is_start && template_of_start.is_some_and(|template| !is_open(name, template)) {
            return None;
        }
        Some(CanRow {
            operation: &operation.id,
            system: &operation.system,
            effects: operation.effects.iter().map(|effect| Effect::as_str(*effect)).collect(),
            tier: outlook.tier.as_str(),
            template,
            outcome: OutcomeWord::from(outlook.outcome).as_str(),
            reason_code: outlook.reason.as_str(),
            observed: outlook.is_observed,
            step_up_kinds: outlook.kinds,
            proofs: outlook.proofs,
            rules: outlook.rules,
            conditions: outlook.conditions.into_iter().map(condition).collect(),
        })
    }

    /// Whether the template lets the caller start a task. A person needs no role for it, an agent one of `starters`.
    fn starts(&self, chain: &[Principal], name: &str, template: &Template) -> bool {
        let is_implicit_only = self
            .plan
            .model()
            .tasks
            .implicit
            .as_ref()
            .is_some_and(|rule| rule.template == name && template.starters.is_empty());
        match chain.last() {
            Some(agent @ Principal::Agent { .. }) => {
                let roles = self.plan.roles_of(agent);
                roles.iter().any(|role| template.starters.contains(role))
            }
            _ => !is_implicit_only,
        }
    }

    /// The tasks in which a chain may call operations.
    fn tasks(&self, chain: &[Principal]) -> Vec<Task> {
        if let Ok(Some(task)) = task::implicit(self.plan, chain, "", self.now) {
            return vec![task];
        }
        // Authz remembers the calls of a caller without a task as those of a task.
        if self.plan.model().tasks.optional
            && let Some(alone) = task::taskless(chain, "")
        {
            return vec![alone];
        }
        let templates = self.plan.model().templates.iter();
        let asked = templates.filter(|(name, _)| self.template.is_none_or(|only| only == *name));
        asked.filter_map(|(name, template)| self.task(chain, name, template)).collect()
    }

    fn task(&self, chain: &[Principal], name: &str, template: &Template) -> Option<Task> {
        let Principal::Agent { spiffe_id, trust_domain } = chain.last()? else { return None };
        let example = |(name, kind): (&String, &ParamType)| {
            let value = match kind {
                ParamType::String => Param::Text("example".to_owned()),
                ParamType::Long => Param::Long(0),
                ParamType::Bool => Param::Bool(false),
            };
            (name.clone(), value)
        };
        let params: BTreeMap<String, Param> = template.params.iter().map(example).collect();
        let subject = chain.first().and_then(|first| TaskSubject::of(first, ""));
        let is_for_subject = subject.is_some();
        let root = task::Root {
            template: name,
            params: &params,
            scope: &[],
            kind: TaskKind::Root,
            assignee: AgentName {
                spiffe_id: spiffe_id.clone(),
                trust_domain: trust_domain.clone(),
            },
            subject,
            subject_proof: if is_for_subject {
                SubjectProof::Verified
            } else {
                SubjectProof::Itself
            },
            starter: String::new(),
            deadline: None,
            tier_cap: None,
            names: Names::default(),
            now: self.now,
            id: "example".to_owned(),
            session: "example".to_owned(),
        };
        task::start(self.plan, root).ok()
    }
}

/// A better outlook has a lower rank.
fn rank(outlook: &Outlook) -> (u8, usize) {
    let outcome = match outlook.outcome {
        Outcome::Permit => 0,
        Outcome::StepUp => 1,
        Outcome::Deny => 2,
    };
    (outcome, outlook.conditions.len())
}

fn condition(condition: OutlookCondition) -> ConditionRow {
    ConditionRow {
        outcome: OutcomeWord::from(condition.outcome).as_str(),
        step_up_kind: condition.kind,
        needed: condition.is_needed,
        rule: condition.rule,
    }
}
