//! Ways in which agents can come to act: each with its chain of principals and its task.
//!
//! One agent stands for all agents with the same roles, and one person for all people with the same roles.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use authz_kernel::decision::{Claim, Principal, Subject, Time};
use authz_kernel::examples::{example_agents, example_subjects, versatile_subjects};
use authz_kernel::model::{AgentMemory, Isolation, Model, OnBehalf, ParamType, Template};
use authz_kernel::plan::Plan;
use authz_kernel::schema::{GIVE, START};
use authz_kernel::task::{
    self, AgentName, Child, Names, Param, Root, SubjectProof, Task, TaskKind, TaskSubject,
};

use super::guard::{CallFacts, Conditions, PartialSet, PrincipalFacts, ResourceFacts};

/// Ways that are looked at. A bundle with more is not decided.
pub const MOST_WAYS: usize = 20_000;
/// Patterns of agents of which pairs are joined.
const MOST_PATTERNS: usize = 64;
/// Agents in a chain that are looked at. A bundle with longer chains is not decided.
const MOST_AGENTS: usize = 4;
/// Text of parameters of example tasks.
pub const EXAMPLE: &str = "example";

/// A principal that stands for all with the same roles.
#[derive(Clone, Debug)]
pub struct Party {
    /// The principal.
    pub principal: Principal,
    /// Facts for conditions.
    pub facts: PrincipalFacts,
    /// Memory of an agent.
    pub memory: AgentMemory,
    /// Calls of an agent that works without tasks name a subject.
    pub on_behalf: Option<OnBehalf>,
}

impl Party {
    /// SPIFFE id, or `<issuer alias>/<sub>`.
    #[must_use]
    pub fn name(&self) -> String {
        match &self.principal {
            Principal::Agent { spiffe_id, .. } => spiffe_id.clone(),
            Principal::User(subject) | Principal::Service(subject) => {
                format!("{}/{}", subject.issuer, subject.sub)
            }
        }
    }

    /// Issuer and `sub` of a subject.
    fn account(&self) -> Option<(&str, &str)> {
        match &self.principal {
            Principal::User(subject) | Principal::Service(subject) => {
                Some((&subject.issuer, &subject.sub))
            }
            Principal::Agent { .. } => None,
        }
    }

    /// `sub` of a subject.
    #[must_use]
    pub fn sub(&self) -> Option<&str> {
        self.account().map(|(_, sub)| sub)
    }

    /// Name of an agent.
    #[must_use]
    pub fn agent_name(&self) -> Option<AgentName> {
        match &self.principal {
            Principal::Agent { spiffe_id, trust_domain } => {
                Some(AgentName { spiffe_id: spiffe_id.clone(), trust_domain: trust_domain.clone() })
            }
            Principal::User(_) | Principal::Service(_) => None,
        }
    }
}

/// Agents and subjects of a bundle.
#[derive(Clone, Debug, Default)]
pub struct Parties {
    /// Agents.
    pub agents: Vec<Party>,
    /// People and services.
    pub subjects: Vec<Party>,
}

impl Parties {
    /// The parties of a plan.
    ///
    /// Services stand beside people where a policy tells them apart; without such a policy they act alike.
    #[must_use]
    pub fn new(plan: &Plan, conditions: &Conditions<'_>) -> Self {
        let model = plan.model();
        let has_services = conditions.name_kind_of_subject();
        let mut parties = Self::default();
        let mut seen = BTreeSet::new();
        let examples = example_agents(model).into_iter().map(|example| example.principal);
        for principal in examples.chain(joint_agents(model)).chain(unregistered(model)) {
            let party = party(plan, principal);
            if seen.insert(party.facts.roles.clone()) {
                parties.agents.push(party);
            }
        }
        let singles = example_subjects(model).into_iter().map(|example| example.principal);
        let mut seen = BTreeSet::new();
        for principal in singles.chain(versatile_subjects(model)).chain(strangers(model)) {
            let person = named(principal);
            let service = match &person {
                Principal::User(subject) if has_services => {
                    Some(Principal::Service(Arc::clone(subject)))
                }
                _ => None,
            };
            for principal in [Some(person), service].into_iter().flatten() {
                let party = party(plan, principal);
                let issuer = party.account().map(|(issuer, _)| issuer.to_owned());
                if seen.insert((issuer, party.facts.kind, party.facts.roles.clone())) {
                    parties.subjects.push(party);
                }
            }
        }
        parties
    }

    /// Whether a subject has an account with the same `sub` at another issuer.
    #[must_use]
    pub fn has_other_account(&self, subject: usize) -> bool {
        let Some((issuer, sub)) = self.subjects.get(subject).and_then(Party::account) else {
            return false;
        };
        let mut accounts = self.subjects.iter().filter_map(Party::account);
        accounts.any(|(other, same)| other != issuer && same == sub)
    }
}

/// Agents that two patterns could match together, so that they hold the roles of both. Some match one of them only.
fn joint_agents(model: &Model) -> impl Iterator<Item = Principal> {
    let patterns = model.roles.values().flat_map(|members| &members.agents);
    let patterns: BTreeSet<&str> = patterns.map(|agent| agent.value.as_str()).collect();
    let patterns: Vec<&str> = patterns.into_iter().take(MOST_PATTERNS).collect();
    let mut ids: BTreeSet<String> = BTreeSet::new();
    for (at, one) in patterns.iter().enumerate() {
        for other in patterns.iter().skip(at).filter(|other| *other != one) {
            if one.contains('*') && other.contains('*') {
                ids.extend(joint_ids(one, other));
            }
        }
    }
    ids.into_iter().filter_map(|spiffe_id| {
        let domain = spiffe_id.strip_prefix("spiffe://")?.split('/').next()?;
        let trust_domain = domain.to_owned();
        (!domain.contains('*')).then_some(Principal::Agent { spiffe_id, trust_domain })
    })
}

/// Ids that two patterns could match: the patterns joined segment by segment, and the longer begin with the longer end.
fn joint_ids(one: &str, other: &str) -> Vec<String> {
    let join = |(a, b): (&str, &str)| match (a.contains('*'), b.contains('*')) {
        (false, _) => a.to_owned(),
        (true, false) => b.to_owned(),
        (true, true) => a.replace('*', &b.replace('*', EXAMPLE)),
    };
    let mut ids = Vec::new();
    if one.split('/').count() == other.split('/').count() {
        let segments: Vec<String> = one.split('/').zip(other.split('/')).map(join).collect();
        ids.push(segments.join("/"));
    }
    let ends = |pattern: &str| {
        let begin = pattern.split('*').next().unwrap_or_default().to_owned();
        let end = pattern.rsplit('*').next().unwrap_or_default().to_owned();
        (begin, end)
    };
    let longer = |a: String, b: String| if a.len() >= b.len() { a } else { b };
    let (begin, end) = ends(one);
    let (other_begin, other_end) = ends(other);
    ids.push(format!("{}{EXAMPLE}{}", longer(begin, other_begin), longer(end, other_end)));
    ids
}

/// An agent of a known trust domain that holds no role.
fn unregistered(model: &Model) -> Option<Principal> {
    let agents = model.roles.values().flat_map(|members| &members.agents);
    let domain =
        agents.filter_map(|agent| agent.value.strip_prefix("spiffe://")?.split('/').next());
    let domain = domain.filter(|domain| !domain.contains('*')).min()?;
    Some(Principal::Agent {
        spiffe_id: format!("spiffe://{domain}/unregistered"),
        trust_domain: domain.to_owned(),
    })
}

/// A person of each issuer without claims.
fn strangers(model: &Model) -> impl Iterator<Item = Principal> {
    let subjects = model.roles.values().flat_map(|members| &members.subjects);
    let issuers: BTreeSet<&str> = subjects.map(|one| one.issuer.as_str()).collect();
    issuers.into_iter().map(|issuer| {
        let (issuer, sub) = (issuer.to_owned(), "stranger".to_owned());
        Principal::User(Arc::new(Subject { issuer, sub, ..Subject::default() }))
    })
}

/// A subject whose claim `sub` is its name.
fn named(principal: Principal) -> Principal {
    let Principal::User(subject) = &principal else { return principal };
    match subject.claims.get("sub") {
        Some(Claim::Text(sub)) => {
            let mut claims = subject.claims.clone();
            claims.remove("sub");
            let (issuer, sub) = (subject.issuer.clone(), sub.clone());
            Principal::User(Arc::new(Subject { issuer, sub, claims, narrowed: Vec::new() }))
        }
        _ => principal,
    }
}

fn party(plan: &Plan, principal: Principal) -> Party {
    let roles: BTreeSet<String> = plan.roles_of(&principal).iter().map(str::to_owned).collect();
    let members = roles.iter().filter_map(|role| plan.model().roles.get(role));
    let memory = members.map(|members| members.memory).reduce(AgentMemory::join);
    let (kind, id) = match &principal {
        Principal::Agent { spiffe_id, .. } => ("Agent", spiffe_id.clone()),
        Principal::User(subject) => ("User", format!("{}/{}", subject.issuer, subject.sub)),
        Principal::Service(subject) => ("Service", format!("{}/{}", subject.issuer, subject.sub)),
    };
    let on_behalf = match &principal {
        Principal::Agent { spiffe_id, .. } => plan.roles().subject_rule(spiffe_id),
        Principal::User(_) | Principal::Service(_) => None,
    };
    Party {
        facts: PrincipalFacts { kind, id, roles },
        memory: memory.unwrap_or_default(),
        principal,
        on_behalf,
    }
}

/// How a way begins.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Beginning {
    /// The agent works without tasks.
    Implicit,
    /// Tasks are optional, and none is named.
    Taskless,
    /// The call names no task although calls need one: only few operations are open.
    NoTask,
    /// The subject starts a task for the agent.
    BySubject,
    /// An agent starts a task, for itself or for another agent: its position.
    ByAgent(usize),
    /// The agent of another way delegates a task: the position of that way.
    Delegated(usize),
}

/// A way to act.
#[derive(Clone, Debug)]
pub struct Way {
    /// Position in [`Ways::all`].
    pub position: usize,
    /// Subject, by position.
    pub subject: Option<usize>,
    /// Agents of the chain, by position; the acting one is the last.
    pub agents: Vec<usize>,
    /// Template; empty without a task.
    pub template: String,
    /// Beginning.
    pub beginning: Beginning,
    /// The task; none without one.
    pub task: Option<Arc<Task>>,
    /// Tasks above it.
    pub ancestors: Vec<Arc<Task>>,
    /// Position of the way that begins the tree of this one.
    pub root: usize,
    /// Facts of the chain for conditions.
    pub chain: Vec<PrincipalFacts>,
    /// Principals of the chain.
    pub principals: Vec<Principal>,
}

/// Principal of a chain, by position.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum WayMember {
    Subject(usize),
    Agent(usize),
}

impl Way {
    /// The principals of the chain, in its order.
    fn members(&self) -> impl Iterator<Item = WayMember> {
        let subject = self.subject.map(WayMember::Subject);
        subject.into_iter().chain(self.agents.iter().copied().map(WayMember::Agent))
    }

    /// Position of the acting agent.
    #[must_use]
    pub fn agent(&self) -> usize {
        self.agents.last().copied().unwrap_or_default()
    }

    /// Whether a task is started before calls.
    #[must_use]
    pub const fn is_started(&self) -> bool {
        matches!(
            self.beginning,
            Beginning::BySubject | Beginning::ByAgent(_) | Beginning::Delegated(_)
        )
    }

    /// Facts of a call that the way alone gives.
    #[must_use]
    pub fn facts(&self) -> CallFacts {
        let kind = match self.beginning {
            Beginning::Implicit => "implicit",
            Beginning::Taskless | Beginning::NoTask => "none",
            Beginning::BySubject | Beginning::ByAgent(_) => "root",
            Beginning::Delegated(_) => "child",
        };
        let template = if self.template.is_empty() { "none" } else { &self.template };
        CallFacts {
            template: Some(template.to_owned()),
            task_kind: Some(kind),
            depth: i64::try_from(self.principals.len()).ok(),
            has_subject: Some(self.subject.is_some()),
            tiers: (0, 3),
            exceptions: PartialSet::default(),
            ..CallFacts::default()
        }
    }

    /// Key of the memory that the agent has in the way. An agent that keeps its subjects apart also keeps its runs without a subject
    /// apart, as the records of Authz do.
    #[must_use]
    pub fn recalled_key(&self, parties: &Parties, agent: usize) -> (usize, Option<usize>) {
        match parties.agents.get(agent).map(|party| party.memory.isolated) {
            Some(Isolation::PerSubject) => (agent, self.subject),
            Some(Isolation::None | Isolation::PerTask) | None => (agent, None),
        }
    }

    /// Key of the memory in which the agent keeps data of the way for other tasks. `None`: it keeps none.
    #[must_use]
    pub fn memory_key(&self, parties: &Parties, agent: usize) -> Option<(usize, Option<usize>)> {
        let memory = parties.agents.get(agent)?.memory;
        let is_own = matches!(self.beginning, Beginning::ByAgent(starter) if starter == agent);
        match memory.isolated {
            Isolation::None => Some((agent, None)),
            Isolation::PerSubject => Some((agent, self.subject)),
            Isolation::PerTask => is_own.then_some((agent, None)),
        }
    }
}

/// All ways of a bundle.
#[derive(Clone, Debug, Default)]
pub struct Ways {
    /// The ways; a delegated one stands after the one that it is below.
    pub all: Vec<Way>,
    /// There are more than are looked at.
    pub is_cut: bool,
}

impl Ways {
    /// The ways of a plan.
    #[must_use]
    pub fn new(plan: &Plan, conditions: &Conditions<'_>, parties: &Parties, now: Time) -> Self {
        let mut builder = WayBuilder { plan, conditions, parties, now, ways: Self::default() };
        builder.without_tasks();
        builder.roots();
        builder.children();
        builder.ways
    }
}

struct WayBuilder<'a> {
    plan: &'a Plan,
    conditions: &'a Conditions<'a>,
    parties: &'a Parties,
    now: Time,
    ways: Ways,
}

impl WayBuilder<'_> {
    fn add(&mut self, way: Way) {
        let way = Way { position: self.ways.all.len(), ..way };
        if self.ways.all.len() >= MOST_WAYS {
            self.ways.is_cut = true;
            return;
        }
        self.ways.all.push(way);
    }

    fn chain(
        &self,
        subject: Option<usize>,
        agents: &[usize],
    ) -> (Vec<PrincipalFacts>, Vec<Principal>) {
        let subject = subject.and_then(|at| self.parties.subjects.get(at));
        let agents = agents.iter().filter_map(|at| self.parties.agents.get(*at));
        let members: Vec<&Party> = subject.into_iter().chain(agents).collect();
        let facts = members.iter().map(|one| one.facts.clone()).collect();
        (facts, members.iter().map(|one| one.principal.clone()).collect())
    }

    /// Subjects on whose behalf an agent may call, and none.
    fn subjects(&self, agent: usize) -> Vec<Option<usize>> {
        let rule = self.parties.agents.get(agent).and_then(|party| party.on_behalf);
        let all = (0..self.parties.subjects.len()).map(Some);
        match rule {
            Some(OnBehalf::None) => vec![None],
            Some(OnBehalf::Required) => all.collect(),
            Some(OnBehalf::Optional) | None => all.chain([None]).collect(),
        }
    }

    fn without_tasks(&mut self) {
        for agent in 0..self.parties.agents.len() {
            for subject in self.subjects(agent) {
                let (chain, principals) = self.chain(subject, &[agent]);
                let implicit = task::implicit(self.plan, &principals, "", self.now).ok().flatten();
                let (beginning, task) = match implicit {
                    Some(task) => (Beginning::Implicit, Some(task)),
                    None if self.plan.model().tasks.optional => {
                        (Beginning::Taskless, task::taskless(&principals, ""))
                    }
                    None => (Beginning::NoTask, None),
                };
                let template = match beginning {
                    Beginning::Implicit => task.as_ref().map_or("", |task| &task.template),
                    _ => "",
                };
                let root = self.ways.all.len();
                self.add(Way {
                    position: 0,
                    subject,
                    agents: vec![agent],
                    template: template.to_owned(),
                    beginning,
                    task: task.map(Arc::new),
                    ancestors: Vec::new(),
                    root,
                    chain,
                    principals,
                });
            }
        }
    }

    /// Root tasks that subjects and agents start.
    fn roots(&mut self) {
        let plan = self.plan;
        for (name, template) in &plan.model().templates {
            for agent in 0..self.parties.agents.len() {
                for subject in 0..self.parties.subjects.len() {
                    let (starter, _) = self.chain(Some(subject), &[]);
                    if self.may_start(name, &starter) && self.may_give(name, &starter, agent) {
                        self.root(name, template, (Some(subject), agent), Beginning::BySubject);
                    }
                }
                for starter in 0..self.parties.agents.len() {
                    let roles: Vec<&str> =
                        self.parties.agents.get(starter).map_or_else(Vec::new, |party| {
                            party.facts.roles.iter().map(String::as_str).collect()
                        });
                    if !template.is_started_by(&roles) {
                        continue;
                    }
                    let subjects = (0..self.parties.subjects.len()).map(Some).chain([None]);
                    for subject in subjects {
                        let (chain, _) = self.chain(subject, &[starter]);
                        let is_given = starter == agent || self.may_give(name, &chain, agent);
                        if is_given && self.may_start(name, &chain) {
                            let beginning = Beginning::ByAgent(starter);
                            self.root(name, template, (subject, agent), beginning);
                        }
                    }
                }
            }
        }
    }

    fn root(
        &mut self,
        name: &str,
        template: &Template,
        (subject, agent): (Option<usize>, usize),
        beginning: Beginning,
    ) {
        let (chain, principals) = self.chain(subject, &[agent]);
        let Some(assignee) = self.parties.agents.get(agent).and_then(Party::agent_name) else {
            return;
        };
        let params = params(template);
        let of_subject = subject.and_then(|at| self.parties.subjects.get(at));
        let of_subject = of_subject.and_then(|party| TaskSubject::of(&party.principal, ""));
        let subject_proof =
            if of_subject.is_some() { SubjectProof::Verified } else { SubjectProof::Itself };
        let root = self.ways.all.len();
        let task = task::start(
            self.plan,
            Root {
                template: name,
                params: &params,
                scope: &[],
                kind: TaskKind::Root,
                assignee,
                subject: of_subject,
                subject_proof,
                starter: String::new(),
                deadline: None,
                tier_cap: None,
                names: Names::default(),
                now: self.now,
                id: format!("way-{root}"),
                session: format!("way-{root}"),
            },
        );
        // The kernel refuses the task, so nobody has it.
        let Ok(task) = task else { return };
        self.add(Way {
            position: 0,
            subject,
            agents: vec![agent],
            template: name.to_owned(),
            beginning,
            task: Some(Arc::new(task)),
            ancestors: Vec::new(),
            root,
            chain,
            principals,
        });
    }

    /// Tasks below others, level by level.
    fn children(&mut self) {
        let mut at = 0;
        let names: Vec<String> = self.plan.model().templates.keys().cloned().collect();
        let mut seen: BTreeSet<(usize, Vec<usize>, String)> = BTreeSet::new();
        let mut given: BTreeMap<(WayMember, usize, usize), bool> = BTreeMap::new();
        while let Some(parent) = self.ways.all.get(at).cloned() {
            let Some(task) = parent.task.clone().filter(|_| parent.is_started()) else {
                at += 1;
                continue;
            };
            if task.depth() < task.max_depth {
                for agent in 0..self.parties.agents.len() {
                    for (position, name) in names.iter().enumerate() {
                        // Policies judge each principal of a chain alone, and most chains share their principals with others.
                        let may_give =
                            parent.members().zip(&parent.chain).all(|(member, facts)| {
                                let asked = given.entry((member, position, agent));
                                let alone = std::slice::from_ref(facts);
                                *asked.or_insert_with(|| self.may_give(name, alone, agent))
                            });
                        if !may_give {
                            continue;
                        }
                        let mut agents = parent.agents.clone();
                        agents.push(agent);
                        if !seen.insert((parent.root, agents.clone(), name.clone())) {
                            continue;
                        }
                        if agents.len() > MOST_AGENTS {
                            self.ways.is_cut = true;
                            continue;
                        }
                        self.child((at, &parent, &task), agents, name);
                    }
                }
            }
            at += 1;
        }
    }

    fn child(
        &mut self,
        (at, parent, above): (usize, &Way, &Arc<Task>),
        agents: Vec<usize>,
        name: &str,
    ) {
        let agent = agents.last().and_then(|at| self.parties.agents.get(*at));
        let Some(assignee) = agent.and_then(Party::agent_name) else { return };
        let is_same = name == parent.template;
        let params: BTreeMap<String, Param> = match self.plan.template(name) {
            Some(template) if !is_same => params(template),
            _ => BTreeMap::new(),
        };
        let id = format!("way-{}", self.ways.all.len());
        let child = Child {
            template: (!is_same).then_some(name),
            params: &params,
            scope: &[],
            assignee,
            starter: String::new(),
            deadline: None,
            now: self.now,
            id,
        };
        let Ok(task) = task::delegate(self.plan, above, child) else { return };
        let (chain, principals) = self.chain(parent.subject, &agents);
        let mut ancestors = parent.ancestors.clone();
        ancestors.push(Arc::clone(above));
        self.add(Way {
            position: 0,
            subject: parent.subject,
            agents,
            template: name.to_owned(),
            beginning: Beginning::Delegated(at),
            task: Some(Arc::new(task)),
            ancestors,
            root: parent.root,
            chain,
            principals,
        });
    }

    /// Whether policies could let a chain start tasks of a template.
    fn may_start(&self, template: &str, chain: &[PrincipalFacts]) -> bool {
        let facts =
            CallFacts { resource: ResourceFacts::Any, tiers: (0, 3), ..CallFacts::default() };
        let operation = format!("{START}{template}");
        self.conditions.could_permit(&operation, chain, &facts)
    }

    /// Whether policies could let a chain give tasks of a template to an agent.
    fn may_give(&self, template: &str, chain: &[PrincipalFacts], agent: usize) -> bool {
        let roles = self.parties.agents.get(agent).map(|party| party.facts.roles.clone());
        let resource = roles.map_or(ResourceFacts::Any, ResourceFacts::Agent);
        let facts = CallFacts { resource, tiers: (0, 3), ..CallFacts::default() };
        let operation = format!("{GIVE}{template}");
        self.conditions.could_permit(&operation, chain, &facts)
    }
}

/// Parameters of an example task.
#[must_use]
pub fn params(template: &Template) -> BTreeMap<String, Param> {
    let example = |(name, kind): (&String, &ParamType)| {
        let value = match kind {
            ParamType::String => Param::Text(EXAMPLE.to_owned()),
            ParamType::Long => Param::Long(1),
            ParamType::Bool => Param::Bool(true),
        };
        (name.clone(), value)
    };
    template.params.iter().map(example).collect()
}
