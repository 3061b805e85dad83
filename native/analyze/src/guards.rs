//! Questions about one operation and one type of principal, with the kernel's meaning of permits and forbids.
//!
//! A request is permitted only if a permit of the operation fires for each principal of the chain, and no forbid fires for any
//! of them. A forbid that fails to evaluate fires, a permit that fails does not. A forbid with `@stepup` is lifted where
//! `context.satisfied` has its kind, as its own condition says. The questions are about a single principal and destination, and
//! facts that depend on history are free: [`GuardAnswer::Unsatisfiable`] covers every chain, and a satisfiable answer shows that
//! the policies alone do not exclude the request.
//!
//! Every counterexample is judged again by the kernel. Where the kernel disagrees, the answer is unknown.

use std::collections::{BTreeMap, BTreeSet};
use std::str::FromStr as _;
use std::sync::{Arc, Mutex, PoisonError};

use authz_kernel::arguments::{ArgumentType, Member};
use authz_kernel::decision::{PolicyEffect, Verdict};
pub use authz_kernel::guards::PRINCIPAL_TYPES;
use authz_kernel::guards::{OperationGuard, PolicyGuard};
use authz_kernel::plan::Plan;
use authz_kernel::schema::{self, SchemaNames};
use cedar_policy::{
    Context, Entities, EntityId, EntityTypeName, EntityUid, EvalResult, Expression, Request,
    eval_expression,
};
use serde_json::{Map, Value, json};

use crate::solver::{Answer, Model, Prelude, Question, Relation, Solver};

/// Action of a question whose conditions do not depend on the action, so that equal questions of several operations are one.
const ANY_ACTION: &str = "operation";
/// Group of [`ANY_ACTION`].
const ANY_GROUP: &str = "operations";

/// One part of a conjunction.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Part {
    /// The policy at this position fires.
    Fires(usize),
    /// The policy at this position evaluates to false: it neither fires nor fails.
    Clear(usize),
    /// The scope of the policy at this position matches principal and resource.
    InScope(usize),
    /// A Cedar expression is true.
    Text(String),
}

/// Parts that all hold. A part that fails to evaluate does not hold.
pub type Conjunction = Vec<Part>;

/// A question about one operation and one type of principal.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GuardQuestion<'q> {
    /// Id of the operation.
    pub operation: &'q str,
    /// One of [`PRINCIPAL_TYPES`].
    pub principal_type: &'q str,
    /// Relation of the two lists.
    pub relation: Relation,
    /// At least one holds.
    pub first: Vec<Conjunction>,
    /// At least one holds, or none, as the relation says.
    pub second: Vec<Conjunction>,
}

/// A request that answers a question, as the kernel judged it.
#[derive(Clone, Debug)]
pub struct Counterexample {
    /// Operation that is requested.
    pub operation: String,
    /// The request.
    pub request: Request,
    /// Entities that it names.
    pub entities: Entities,
    /// The kernel's verdict on each policy of the operation, by position.
    pub verdicts: BTreeMap<usize, Verdict>,
    /// The request in Cedar's JSON forms. `any` lists the keys of its context that no condition of the question reads: the answer
    /// is the same for each of their values.
    pub document: Value,
}

/// Answer to a [`GuardQuestion`].
#[derive(Clone, Debug)]
pub enum GuardAnswer {
    /// This request answers it.
    Satisfiable(Box<Counterexample>),
    /// Proved: no request answers it.
    Unsatisfiable,
    /// Not decided, for this reason.
    Unknown(String),
}

/// Entities by type and id.
type EntityNames = BTreeSet<(String, String)>;

/// Policies and operations of a plan, with a solver for questions about them.
#[derive(Debug)]
pub struct Guards<'a> {
    plan: &'a Plan,
    solver: &'a dyn Solver,
    policies: Vec<PolicyGuard<'a>>,
    operations: BTreeMap<&'a str, OperationGuard<'a>>,
    names: SchemaNames,
    /// Schemas without actions, by the groups of entities that they keep.
    preludes: Mutex<BTreeMap<EntityNames, Arc<Prelude>>>,
    /// Declarations of actions: an operation has a question for each policy, and most of them keep the same arguments.
    declarations: Mutex<BTreeMap<DeclarationKey<'a>, String>>,
    /// Condition of each policy, by position.
    conditions: Vec<String>,
}

/// Operation, whether the declaration has the operation's own name, and the arguments that it keeps. `None`: all.
type DeclarationKey<'a> = (&'a str, bool, Option<BTreeSet<&'a str>>);

impl<'a> Guards<'a> {
    /// Reads the policies and operations of a plan.
    #[must_use]
    pub fn new(plan: &'a Plan, solver: &'a dyn Solver) -> Self {
        Self::with_names(plan, solver, &plan.schema_names())
    }

    /// Reads the policies and operations of a plan, for questions that name entities of another plan too.
    ///
    /// Args: `names`: all names that the questions may have.
    #[must_use]
    pub fn with_names(plan: &'a Plan, solver: &'a dyn Solver, names: &SchemaNames) -> Self {
        let operations = plan.operation_guards();
        let operations = operations.into_iter().map(|one| (one.operation.id.as_str(), one));
        let policies = plan.policy_guards();
        Self {
            plan,
            solver,
            conditions: policies.iter().map(PolicyGuard::condition).collect(),
            policies,
            operations: operations.collect(),
            names: names.clone(),
            preludes: Mutex::default(),
            declarations: Mutex::default(),
        }
    }

    /// The plan.
    #[must_use]
    pub const fn plan(&self) -> &'a Plan {
        self.plan
    }

    /// Name and version of the solver; `None` without one.
    #[must_use]
    pub fn solver_name(&self) -> Option<(String, String)> {
        self.solver.name()
    }

    /// Policies in the order of the bundle; positions count from 0.
    #[must_use]
    pub fn policies(&self) -> &[PolicyGuard<'a>] {
        &self.policies
    }

    /// Operations by id: those of the bundle, and those of Authz itself.
    #[must_use]
    pub const fn operations(&self) -> &BTreeMap<&'a str, OperationGuard<'a>> {
        &self.operations
    }

    /// Positions of the policies of one effect that can match an operation.
    #[must_use]
    pub fn slice(&self, operation: &str, effect: PolicyEffect) -> Vec<usize> {
        let slice = self.operations.get(operation).map_or(&[][..], |one| &one.policies);
        let is_of = |at: &&usize| self.policies.get(**at).is_some_and(|one| one.effect == effect);
        slice.iter().filter(is_of).copied().collect()
    }

    /// Conjunctions that hold for the requests that the policies of an operation permit: one for each permit.
    #[must_use]
    pub fn permitted(&self, operation: &str) -> Vec<Conjunction> {
        let clear: Vec<Part> =
            self.slice(operation, PolicyEffect::Forbid).into_iter().map(Part::Clear).collect();
        let permits = self.slice(operation, PolicyEffect::Permit).into_iter();
        permits.map(|permit| [vec![Part::Fires(permit)], clear.clone()].concat()).collect()
    }

    /// Asks whether the policies of an operation can permit a request of one type of principal.
    ///
    /// Args:
    /// * `constraint`: Cedar expression over `principal`, `resource` and `context` that the request satisfies too, for example
    ///   `[Label::"pii"].containsAll(context.session.labels)`. Empty: none.
    #[must_use]
    pub fn can_be_permitted(
        &self,
        operation: &str,
        principal_type: &str,
        constraint: &str,
    ) -> GuardAnswer {
        self.ask(&self.permission(operation, principal_type, constraint))
    }

    /// The question of [`Self::can_be_permitted`], for [`Self::ask_all`].
    #[must_use]
    pub fn permission<'q>(
        &self,
        operation: &'q str,
        principal_type: &'q str,
        constraint: &str,
    ) -> GuardQuestion<'q> {
        let permits = self.slice(operation, PolicyEffect::Permit).into_iter();
        let forbids = self.slice(operation, PolicyEffect::Forbid).into_iter();
        let constraint = (!constraint.is_empty()).then(|| Part::Text(constraint.to_owned()));
        GuardQuestion {
            operation,
            principal_type,
            relation: Relation::Both,
            first: permits.map(|permit| vec![Part::Fires(permit)]).collect(),
            second: vec![forbids.map(Part::Clear).chain(constraint).collect()],
        }
    }

    /// Asks one question.
    #[must_use]
    pub fn ask(&self, question: &GuardQuestion<'_>) -> GuardAnswer {
        let answer = self.ask_all(std::slice::from_ref(question)).pop();
        answer.unwrap_or_else(|| GuardAnswer::Unknown("the question was lost".to_owned()))
    }

    /// Asks several questions at once; equal ones once.
    #[must_use]
    pub fn ask_all(&self, questions: &[GuardQuestion<'_>]) -> Vec<GuardAnswer> {
        self.ask_each(questions).collect()
    }

    /// Like [`Self::ask_all`]. The kernel judges the request of an answer when the answer is taken, which is most of the time
    /// where answers are kept.
    pub fn ask_each<'s>(
        &'s self,
        questions: &'s [GuardQuestion<'_>],
    ) -> impl Iterator<Item = GuardAnswer> + 's {
        let texts: Vec<Result<Question, GuardAnswer>> =
            questions.iter().map(|question| self.text(question)).collect();
        let open: Vec<Question> =
            texts.iter().filter_map(|text| text.as_ref().ok()).cloned().collect();
        let mut answers = self.solver.ask_all(&open).into_iter();
        questions.iter().zip(texts).map(move |(question, text)| {
            match text.map(|_| answers.next()) {
                Err(known) => known,
                Ok(None) => GuardAnswer::Unknown("the question was lost".to_owned()),
                Ok(Some(Answer::Unsatisfiable)) => GuardAnswer::Unsatisfiable,
                Ok(Some(Answer::Unknown(reason))) => GuardAnswer::Unknown(reason),
                Ok(Some(Answer::Satisfiable(model))) => self.confirm(question, &model),
            }
        })
    }

    /// The question as text, or its answer where no solver is needed.
    fn text(&self, question: &GuardQuestion<'_>) -> Result<Question, GuardAnswer> {
        let unknown = |text: String| GuardAnswer::Unknown(text);
        let GuardQuestion { operation, principal_type, relation, first, second } = question;
        if first.is_empty() || (*relation == Relation::Both && second.is_empty()) {
            return Err(GuardAnswer::Unsatisfiable);
        }
        let guard = self
            .operations
            .get(operation)
            .ok_or_else(|| unknown(format!("there is no operation `{operation}`")))?;
        let reads = self.reads(first.iter().chain(second).flatten());
        let facts = self.facts(guard, principal_type, &reads);
        let render = |list: &[Conjunction], with_facts: bool| {
            let facts = if with_facts { facts.as_slice() } else { &[] };
            list.iter().map(|parts| self.conjunction(parts, facts)).collect::<Vec<String>>()
        };
        let (action, groups) = if reads.action {
            let actions = self.actions(guard, &reads);
            (guard.operation.id.as_str(), actions.into_iter().map(schema::group).collect())
        } else {
            (ANY_ACTION, schema::group(ANY_GROUP))
        };
        let declaration = groups + &self.declaration(guard, &reads);
        Ok(Question {
            prelude: self.prelude(guard, &reads),
            declaration,
            principal_type: (*principal_type).to_owned(),
            action: action.to_owned(),
            resource_type: guard.resource_type.to_owned(),
            relation: *relation,
            first: render(first, *relation == Relation::OnlyFirst),
            second: render(second, *relation == Relation::Both),
        })
    }

    /// Declaration of the action of a question, without its groups.
    fn declaration(&self, guard: &OperationGuard<'a>, reads: &Reads<'a>) -> String {
        let id = guard.operation.id.as_str();
        let key = (id, reads.action, reads.inputs.clone());
        let mut declarations = self.declarations.lock().unwrap_or_else(PoisonError::into_inner);
        let made = declarations.entry(key).or_insert_with(|| match reads.action {
            true => guard.declaration(id, reads.inputs.as_ref()),
            false => {
                let any = OperationGuard { groups: vec![ANY_GROUP.to_owned()], ..guard.clone() };
                any.declaration(ANY_ACTION, reads.inputs.as_ref())
            }
        });
        made.clone()
    }

    /// Groups of an operation and other actions that the conditions name. Those need no more than a declaration: the operation
    /// is not one of them, and is in none of them.
    fn actions<'g>(
        &'g self,
        guard: &'g OperationGuard<'_>,
        reads: &Reads<'g>,
    ) -> BTreeSet<&'g str> {
        let mut actions: BTreeSet<&str> = guard.groups.iter().map(String::as_str).collect();
        actions.extend(reads.names_of("Action"));
        if reads.any_action {
            for (id, other) in &self.operations {
                actions.insert(id);
                actions.extend(other.groups.iter().map(String::as_str));
            }
        }
        actions.remove(guard.operation.id.as_str());
        actions
    }

    /// Schema without actions, whose roles and collections are those that the conditions name.
    ///
    /// A role or collection occurs in a request as a parent alone, so that no condition depends on one that it does not name.
    /// The solver takes longer with each, and a new one would make all kept answers useless.
    fn prelude(&self, guard: &OperationGuard<'_>, reads: &Reads<'_>) -> Arc<Prelude> {
        let is_parent = |(kind, _): &&(&str, &str)| PARENTS.contains(kind);
        let kept = reads.names.iter().filter(is_parent);
        let mut kept: EntityNames =
            kept.map(|(kind, name)| ((*kind).to_owned(), (*name).to_owned())).collect();
        if let Some(rule) = guard.operation.resource.as_ref().filter(|_| reads.resource) {
            kept.insert(("Collection".to_owned(), rule.collection.clone()));
        }
        let mut preludes = self.preludes.lock().unwrap_or_else(PoisonError::into_inner);
        let made = preludes.entry(kept).or_insert_with_key(|kept| {
            let mut text = self.names.prelude();
            for kind in PARENTS {
                let all = self.names.members(kind).into_iter().flatten().map(String::as_str);
                let named =
                    kept.iter().filter(|(own, _)| own == kind).map(|(_, name)| name.as_str());
                let named: Vec<&str> = named.collect();
                // Cedar has no empty enumeration.
                let named = if named.is_empty() { vec!["(none)"] } else { named };
                text = text.replace(&enumeration(kind, all), &enumeration(kind, named.into_iter()));
            }
            Arc::new(Prelude::new(text))
        });
        Arc::clone(made)
    }

    /// Parts as one Cedar expression.
    fn conjunction(&self, parts: &[Part], facts: &[String]) -> String {
        let condition = |at: &usize| self.conditions.get(*at).map_or("", String::as_str);
        let scope = |at: &usize| self.policies.get(*at).map_or("", |one| &one.scope);
        let render = |part: &Part| match part {
            Part::Fires(at) => format!("({})", condition(at)),
            Part::Clear(at) => format!("!({})", condition(at)),
            Part::InScope(at) => format!("({})", scope(at)),
            Part::Text(text) => format!("({text})"),
        };
        let facts = facts.iter().map(|fact| format!("({fact})"));
        let parts: Vec<String> = facts.chain(parts.iter().map(render)).collect();
        if parts.is_empty() { "true".to_owned() } else { parts.join(" && ") }
    }

    fn reads<'p>(&self, parts: impl Iterator<Item = &'p Part>) -> Reads<'a> {
        let mut reads = Reads { inputs: Some(BTreeSet::new()), ..Reads::default() };
        for part in parts {
            match part {
                Part::Fires(at) | Part::Clear(at) | Part::InScope(at) => {
                    let Some(policy) = self.policies.get(*at) else { continue };
                    reads.action |= policy.reads_action;
                    reads.resource |= policy.reads_resource;
                    reads.keys.extend(&policy.keys);
                    reads.names.extend(&policy.names);
                    reads.inputs = match (reads.inputs, &policy.inputs) {
                        (Some(all), Some(own)) => Some(all.union(own).copied().collect()),
                        _ => None,
                    };
                }
                // The text comes from this crate or from an assertion. It counts as reading all that it could read.
                Part::Text(text) => {
                    reads.any_action |= text.contains("action");
                    reads.action |= reads.any_action;
                    reads.resource |= text.contains("resource");
                    let is_named = |key: &&schema::Key| text.contains(key.as_str());
                    reads
                        .keys
                        .extend(schema::Key::ALL.iter().filter(is_named).map(|key| key.as_str()));
                    if text.contains("input") {
                        reads.inputs = None;
                    }
                    let model = self.plan.model();
                    let kinds: [(&str, Vec<&String>); 3] = [
                        ("Role", model.roles.keys().collect()),
                        ("Collection", model.collections.keys().collect()),
                        ("System", model.systems.keys().collect()),
                    ];
                    for (kind, names) in kinds.into_iter().filter(|(kind, _)| text.contains(kind)) {
                        reads.names.extend(names.into_iter().map(|name| (kind, name.as_str())));
                    }
                }
            }
        }
        reads
    }

    /// Facts that hold for every request that the kernel judges: ranges of numbers, and the resource and the roles that the
    /// bundle declares.
    fn facts(&self, guard: &OperationGuard<'_>, principal: &str, reads: &Reads<'_>) -> Vec<String> {
        let of_key = |range: &&Range| reads.keys.contains(range.key());
        let mut facts: Vec<String> = RANGES.iter().filter(of_key).map(Range::fact).collect();
        if principal == "Agent" && reads.keys.contains("chain") {
            facts.push("context.chain.agents.contains(principal)".to_owned());
        }
        let roles = &self.plan.model().roles;
        for name in reads.names_of("Role") {
            let is_held = roles.get(name).is_some_and(|role| match principal {
                "Agent" => !role.agents.is_empty(),
                _ => !role.subjects.is_empty(),
            });
            if !is_held {
                facts.push(format!("!(principal in {})", entity("Role", name)));
            }
        }
        if reads.resource {
            facts.extend(resource_facts(guard, reads));
        }
        facts
    }

    /// Judges the solver's request by the kernel. The answer stands only where the kernel agrees.
    fn confirm(&self, question: &GuardQuestion<'_>, model: &Model) -> GuardAnswer {
        let spurious = |text: String| {
            GuardAnswer::Unknown(format!(
                "the kernel does not confirm the solver's request: {text}"
            ))
        };
        let example = match self.replay(question, model) {
            Ok(example) => example,
            Err(text) => return spurious(text),
        };
        let holds = |list: &[Conjunction]| {
            list.iter().any(|parts| parts.iter().all(|part| self.holds(part, &example)))
        };
        let is_confirmed = holds(&question.first)
            && match question.relation {
                Relation::Both => holds(&question.second),
                Relation::OnlyFirst => !holds(&question.second),
            };
        if is_confirmed {
            GuardAnswer::Satisfiable(Box::new(example))
        } else {
            spurious("its policies judge it otherwise".to_owned())
        }
    }

    /// Judges a solver's request by the kernel.
    fn replay(
        &self,
        question: &GuardQuestion<'_>,
        model: &Model,
    ) -> Result<Counterexample, String> {
        let GuardQuestion { operation, principal_type, first, second, .. } = question;
        let guard = self.operations.get(operation).ok_or("there is no such operation")?;
        let principal = uid(principal_type, &model.principal)?;
        let resource = uid(guard.resource_type, &model.resource)?;
        let action = uid("Action", operation)?;
        let mut context = model.context.clone();
        if let Some(Value::Object(input)) = context.get_mut("input") {
            fill(input, guard.inputs);
        }
        let reads = self.reads(first.iter().chain(second).flatten());
        // The question has no facts about these keys, so that the solver may choose a value that no request has.
        for range in RANGES.iter().filter(|range| !reads.keys.contains(range.key())) {
            range.clamp(&mut context);
        }
        let any = context.as_object().into_iter().flat_map(Map::keys);
        let any: Vec<&String> = any.filter(|key| !reads.keys.contains(key.as_str())).collect();
        let entities = Entities::from_json_value(model.entities.clone(), None)
            .map_err(|error| format!("its entities: {error}"))?;
        let document = json!({
            "principal": principal.to_string(),
            "action": action.to_string(),
            "resource": resource.to_string(),
            "context": context,
            "any": any,
            "entities": model.entities,
        });
        let context = Context::from_json_value(context, None)
            .map_err(|error| format!("its context: {error}"))?;
        let request = Request::new(principal, action, resource, context, None)
            .map_err(|error| error.to_string())?;
        let verdicts = self.plan.judge_stated(operation, &request, &entities)?;
        Ok(Counterexample {
            operation: (*operation).to_owned(),
            request,
            entities,
            verdicts,
            document,
        })
    }

    fn holds(&self, part: &Part, example: &Counterexample) -> bool {
        let is_true = |text: &str| {
            let Ok(expression) = Expression::from_str(text) else { return false };
            matches!(
                eval_expression(&example.request, &example.entities, &expression),
                Ok(EvalResult::Bool(true))
            )
        };
        match part {
            Part::Fires(at) => example.verdicts.get(at) == Some(&Verdict::Fired),
            Part::Clear(at) => example.verdicts.get(at) == Some(&Verdict::NotFired),
            Part::InScope(at) => self.policies.get(*at).is_some_and(|one| is_true(&one.scope)),
            Part::Text(text) => is_true(text),
        }
    }
}

/// Range of a number of the context. It holds by the kernel's construction.
#[derive(Debug)]
struct Range {
    /// Key of the context, and the member in its record. No member: the key is a number.
    path: &'static [&'static str],
    least: i64,
    most: Option<i64>,
}

const RANGES: [Range; 8] = [
    Range { path: &["tier"], least: 0, most: Some(3) },
    Range { path: &["confidence"], least: 0, most: Some(100) },
    Range { path: &["literals", "unknown"], least: 0, most: Some(256) },
    Range { path: &["session", "calls"], least: 0, most: None },
    Range { path: &["session", "sources"], least: 0, most: None },
    Range { path: &["chain", "depth"], least: 1, most: None },
    Range { path: &["task", "depth"], least: 0, most: None },
    Range { path: &["proof", "age"], least: 0, most: None },
];

impl Range {
    fn key(&self) -> &'static str {
        self.path.first().copied().unwrap_or_default()
    }

    /// The range as a Cedar expression.
    fn fact(&self) -> String {
        let path = self.path.join(".");
        let least = format!("context.{path} >= {}", self.least);
        match self.most {
            None => least,
            Some(most) => format!("{least} && context.{path} <= {most}"),
        }
    }

    /// Moves the number of a context into the range.
    fn clamp(&self, context: &mut Value) {
        let number = self.path.iter().try_fold(context, |value, name| value.get_mut(*name));
        let Some(number) = number else { return };
        if let Some(value) = number.as_i64() {
            *number = value.max(self.least).min(self.most.unwrap_or(i64::MAX)).into();
        }
    }
}

/// Entity types that occur as parents alone.
const PARENTS: [&str; 2] = ["Role", "Collection"];

/// Declaration of an enumerated entity type, as [`SchemaNames::prelude`] writes it.
fn enumeration<'n>(kind: &str, names: impl Iterator<Item = &'n str>) -> String {
    let quoted = names.map(schema::quote);
    format!("entity {kind} enum [{}];\n", quoted.collect::<Vec<_>>().join(", "))
}

/// Parts of a request that the conditions of a question read.
#[derive(Debug, Default)]
struct Reads<'a> {
    action: bool,
    /// A text may name any action.
    any_action: bool,
    resource: bool,
    keys: BTreeSet<&'a str>,
    names: BTreeSet<(&'a str, &'a str)>,
    /// Arguments. `None`: all.
    inputs: Option<BTreeSet<&'a str>>,
}

impl<'a> Reads<'a> {
    fn names_of(&self, kind: &str) -> impl Iterator<Item = &'a str> {
        self.names.iter().filter(move |(own, _)| *own == kind).map(|(_, name)| *name)
    }
}

/// Facts about the resource of an operation, and about the collections and systems that the conditions name.
fn resource_facts(guard: &OperationGuard<'_>, reads: &Reads<'_>) -> Vec<String> {
    let operation = guard.operation;
    let Some(rule) = &operation.resource else {
        return match guard.resource_type {
            "System" => vec![format!("resource == {}", entity("System", &operation.system))],
            "Template" => {
                let name = operation.id.strip_prefix(schema::START).unwrap_or_default();
                vec![format!("resource == {}", entity("Template", name))]
            }
            _ => Vec::new(),
        };
    };
    let own = [("Collection", rule.collection.as_str()), ("System", operation.system.as_str())];
    let mut facts = Vec::new();
    for (kind, own) in own {
        facts.push(format!("resource in {}", entity(kind, own)));
        let others = reads.names_of(kind).filter(|name| *name != own);
        facts.extend(others.map(|name| format!("!(resource in {})", entity(kind, name))));
    }
    facts
}

/// An entity in Cedar's syntax.
fn entity(kind: &str, id: &str) -> String {
    uid(kind, id).map_or_else(|error| error, |uid| uid.to_string())
}

fn uid(kind: &str, id: &str) -> Result<EntityUid, String> {
    let kind = EntityTypeName::from_str(kind).map_err(|error| error.to_string())?;
    Ok(EntityUid::from_type_name_and_id(kind, EntityId::new(id)))
}

/// Adds the required arguments that the question left out, since no condition reads them.
fn fill(input: &mut Map<String, Value>, members: &BTreeMap<String, Member>) {
    for (name, member) in members {
        if member.required && !input.contains_key(name) {
            input.insert(name.clone(), example(&member.kind));
        }
    }
}

// Recursion is bounded by the depth limit of an argument schema.
fn example(kind: &ArgumentType) -> Value {
    match kind {
        ArgumentType::Long => json!(0),
        ArgumentType::Decimal => json!({"__extn": {"fn": "decimal", "arg": "0.0"}}),
        ArgumentType::Text => json!(""),
        ArgumentType::Bool => json!(false),
        ArgumentType::Opaque => json!({}),
        ArgumentType::Set(_) => json!([]),
        ArgumentType::Record(members) => {
            let mut record = Map::new();
            fill(&mut record, members);
            Value::Object(record)
        }
    }
}
