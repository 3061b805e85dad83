//! Conditions of policies, evaluated with facts that are known and others that are not.
//!
//! INVARIANT (over, never under): an unknown fact counts as the one that lets a call be permitted. An expression that fails to
//! evaluate denies in any case (a permit has not fired, a forbid has), so evaluation here ignores failures: where a permit is
//! never true it does not fire, and where a forbid is always true it denies.

use std::collections::{BTreeMap, BTreeSet};

use authz_kernel::decision::PolicyEffect;
use authz_kernel::guards::{OperationGuard, PolicyGuard};
use authz_kernel::model::BREAKGLASS;
use authz_kernel::plan::Plan;
use cedar_policy::{Policy, PolicyId};
use serde_json::Value;

/// Result of a condition.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Fires {
    /// For no request with the known facts.
    Never,
    /// For some, perhaps.
    Perhaps,
    /// For each.
    Always,
}

/// A principal, as far as conditions ask about it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct PrincipalFacts {
    /// `Agent`, `User` or `Service`.
    pub kind: &'static str,
    /// Id of its Cedar entity.
    pub id: String,
    /// Roles that it holds.
    pub roles: BTreeSet<String>,
}

/// A set of names of which some are known to be in it, and some not to be.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct PartialSet {
    /// Names in the set.
    pub has: BTreeSet<String>,
    /// Names that are not in the set.
    pub lacks: BTreeSet<String>,
    /// All other names are not in the set.
    pub is_closed: bool,
}

impl PartialSet {
    /// The empty set.
    #[must_use]
    pub fn empty() -> Self {
        Self { is_closed: true, ..Self::default() }
    }

    fn contains(&self, name: &str) -> Option<bool> {
        if self.has.contains(name) {
            return Some(true);
        }
        (self.is_closed || self.lacks.contains(name)).then_some(false)
    }
}

/// Resource of a call, as far as conditions ask about it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum ResourceFacts {
    /// A resource of a collection, with any id.
    Collection(String),
    /// The system itself.
    #[default]
    System,
    /// An agent that gets a task, with its roles.
    Agent(BTreeSet<String>),
    /// Any resource.
    Any,
}

/// Facts of a call. Facts that are not listed count as unknown.
#[derive(Clone, Debug, Default)]
pub struct CallFacts {
    /// Resource.
    pub resource: ResourceFacts,
    /// Template of the task; `None`: unknown.
    pub template: Option<String>,
    /// Kind of the task; `None`: unknown.
    pub task_kind: Option<&'static str>,
    /// Number of principals in the chain; `None`: unknown.
    pub depth: Option<i64>,
    /// Whether the chain begins with a subject; `None`: unknown.
    pub has_subject: Option<bool>,
    /// Least and greatest effective tier.
    pub tiers: (i64, i64),
    /// Whether the operation has a destination.
    pub has_destination: bool,
    /// Class of the destination; `None`: unknown.
    pub class: Option<String>,
    /// Labels of the session.
    pub carried: PartialSet,
    /// Labels that the destination is not cleared for.
    pub uncleared: PartialSet,
    /// Labels that the agent remembers.
    pub remembered: PartialSet,
    /// Step-up kinds that are met.
    pub satisfied: PartialSet,
    /// Sequences that the call completes.
    pub sequences: PartialSet,
    /// Exceptions that cover the call.
    pub exceptions: PartialSet,
}

/// Policies of a plan, ready to be evaluated.
#[derive(Debug)]
pub struct Conditions<'a> {
    policies: Vec<PolicyGuard<'a>>,
    /// Each policy in Cedar's JSON form.
    documents: Vec<Option<Value>>,
    operations: BTreeMap<&'a str, OperationGuard<'a>>,
}

impl<'a> Conditions<'a> {
    /// Reads the policies of a plan. A policy that cannot be read counts as one whose result is not known.
    #[must_use]
    pub fn new(plan: &'a Plan) -> Self {
        let policies = plan.policy_guards();
        let documents = policies
            .iter()
            .map(|guard| {
                let policy = Policy::parse(Some(PolicyId::new("p")), guard.text).ok()?;
                policy.to_json().ok()
            })
            .collect();
        let operations = plan
            .operation_guards()
            .into_iter()
            .map(|one| (one.operation.id.as_str(), one))
            .collect();
        Self { policies, documents, operations }
    }

    /// Policies in the order of the bundle.
    #[must_use]
    pub fn policies(&self) -> &[PolicyGuard<'a>] {
        &self.policies
    }

    /// Positions of the policies that can match an operation.
    #[must_use]
    pub fn slice(&self, operation: &str) -> &[usize] {
        self.operations.get(operation).map_or(&[], |one| &one.policies)
    }

    /// Whether a policy names `User` or `Service`, so that it can tell services from people. True if a policy cannot be read.
    #[must_use]
    pub fn name_kind_of_subject(&self) -> bool {
        self.documents.iter().any(|document| document.as_ref().is_none_or(names_kind_of_subject))
    }

    /// Whether a policy of an operation asks who chose a value of the call, so that the prompt of a task can decide. True if a
    /// policy cannot be read.
    #[must_use]
    pub fn ask_for_origins(&self, operation: &str) -> bool {
        self.slice(operation).iter().any(|at| {
            let document = self.documents.get(*at).and_then(Option::as_ref);
            document.is_none_or(reads_origins)
        })
    }

    /// Whether a policy of an operation depends on break-glass. True if a policy cannot be read.
    #[must_use]
    pub fn depend_on_breakglass(&self, operation: &str) -> bool {
        self.slice(operation).iter().any(|at| {
            let document = self.documents.get(*at).and_then(Option::as_ref);
            document.is_none_or(depends_on_breakglass)
        })
    }

    /// Texts and numbers that policies of an operation compare with.
    #[must_use]
    pub fn literals(&self, operation: &str) -> Literals {
        let mut literals = Literals::default();
        for at in self.slice(operation) {
            if let Some(Some(document)) = self.documents.get(*at)
                && let Some(conditions) = document.get("conditions")
            {
                literals.gather(conditions);
            }
        }
        literals
    }

    /// Whether a policy fires for a principal.
    #[must_use]
    pub fn fires(
        &self,
        policy: usize,
        operation: &str,
        principal: &PrincipalFacts,
        facts: &CallFacts,
    ) -> Fires {
        let Some(Some(document)) = self.documents.get(policy) else { return Fires::Perhaps };
        let groups = self.operations.get(operation);
        let evaluator = Evaluator {
            operation,
            system: operation.split_once('.').map_or("authz", |(system, _)| system),
            groups: groups.map_or(&[], |one| &one.groups),
            principal,
            facts,
        };
        let scope = evaluator.scope(document);
        let body = document.get("conditions").and_then(Value::as_array);
        body.into_iter().flatten().fold(scope, |so_far, condition| {
            if so_far == Fires::Never {
                return so_far;
            }
            let is_when = condition.get("kind").and_then(Value::as_str) == Some("when");
            let value = evaluator.condition(condition.get("body").unwrap_or(&Value::Null));
            so_far.min(if is_when { value } else { value.negated() })
        })
    }

    /// Whether the policies could permit a call to a chain of principals.
    ///
    /// Every principal needs a permit that could fire, and no forbid may fire for certain.
    #[must_use]
    pub fn could_permit(
        &self,
        operation: &str,
        chain: &[PrincipalFacts],
        facts: &CallFacts,
    ) -> bool {
        let mut permitted = vec![false; chain.len()];
        for at in self.slice(operation) {
            let Some(guard) = self.policies.get(*at) else { continue };
            for (principal, permitted) in chain.iter().zip(&mut permitted) {
                let fires = self.fires(*at, operation, principal, facts);
                match guard.effect {
                    PolicyEffect::Permit => *permitted |= fires != Fires::Never,
                    PolicyEffect::Forbid if fires == Fires::Always => return false,
                    PolicyEffect::Forbid => {}
                }
            }
        }
        permitted.iter().all(|permitted| *permitted)
    }

    /// Permits that could fire for some principal of a chain.
    pub fn permits<'s>(
        &'s self,
        operation: &'s str,
        chain: &'s [PrincipalFacts],
        facts: &'s CallFacts,
    ) -> impl Iterator<Item = usize> + 's {
        self.slice(operation).iter().copied().filter(move |at| {
            let is_permit =
                self.policies.get(*at).is_some_and(|one| one.effect == PolicyEffect::Permit);
            is_permit
                && chain.iter().any(|one| self.fires(*at, operation, one, facts) != Fires::Never)
        })
    }
}

/// Whether an expression or constraint names one of the types of subjects.
// Recursion is bounded by the depth of a policy's conditions, which is bounded at load.
fn names_kind_of_subject(value: &Value) -> bool {
    match value {
        Value::Object(members) => members.iter().any(|(name, member)| match member {
            Value::String(text) => {
                matches!(name.as_str(), "type" | "entity_type")
                    && matches!(text.as_str(), "User" | "Service")
            }
            _ => names_kind_of_subject(member),
        }),
        Value::Array(items) => items.iter().any(names_kind_of_subject),
        _ => false,
    }
}

/// Whether an expression reads `context.origins`, `context.literals` or `context.destination.trusted`.
// Recursion is bounded by the depth of a policy's conditions, which is bounded at load.
fn reads_origins(value: &Value) -> bool {
    match value {
        Value::Object(members) => members.iter().any(|(name, member)| match member {
            Value::String(text) => {
                name == "attr" && matches!(text.as_str(), "origins" | "literals" | "trusted")
            }
            _ => reads_origins(member),
        }),
        Value::Array(items) => items.iter().any(reads_origins),
        _ => false,
    }
}

/// Whether an expression depends on break-glass: it reads `context.exception`, except to look for an exception of the bundle.
// Recursion is bounded by the depth of a policy's conditions, which is bounded at load.
fn depends_on_breakglass(value: &Value) -> bool {
    let is_exceptions = |value: &Value| {
        let of = value.get(".");
        let left = of.and_then(|of| of.get("left")).and_then(|left| left.get("Var"));
        left.and_then(Value::as_str) == Some("context")
            && of.and_then(|of| of.get("attr")).and_then(Value::as_str) == Some("exception")
    };
    if is_exceptions(value) {
        return true;
    }
    if let Some(of) = value.get("contains")
        && of.get("left").is_some_and(is_exceptions)
    {
        let named = of.get("right").and_then(|right| right.get("Value")).and_then(entity);
        return named.is_none_or(|(_, id)| id == BREAKGLASS);
    }
    match value {
        Value::Object(members) => members.values().any(depends_on_breakglass),
        Value::Array(items) => items.iter().any(depends_on_breakglass),
        _ => false,
    }
}

/// Texts and numbers.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Literals {
    /// Texts.
    pub texts: BTreeSet<String>,
    /// Whole numbers.
    pub numbers: BTreeSet<i64>,
}

/// Literals of one kind that are kept.
const MOST_LITERALS: usize = 12;

impl Literals {
    // Recursion is bounded by the depth of a policy's conditions, which is bounded at load.
    fn gather(&mut self, value: &Value) {
        match value {
            Value::Object(members) => {
                if let Some(pattern) = members.get("like").and_then(|like| like.get("pattern")) {
                    self.text(filled(pattern));
                }
                // The name of an entity is not an argument.
                let is_entity = |name: &str| matches!(name, "__entity" | "attr" | "pattern");
                for (name, member) in members {
                    match member {
                        Value::String(text) if name == "Value" => self.text(text.clone()),
                        Value::Number(number) if name == "Value" => {
                            if let Some(number) =
                                number.as_i64().filter(|_| self.numbers.len() < MOST_LITERALS)
                            {
                                self.numbers.insert(number);
                            }
                        }
                        _ if is_entity(name) => {}
                        _ => self.gather(member),
                    }
                }
            }
            Value::Array(items) => items.iter().for_each(|item| self.gather(item)),
            _ => {}
        }
    }

    fn text(&mut self, text: String) {
        if self.texts.len() < MOST_LITERALS && text.len() <= 256 {
            self.texts.insert(text);
        }
    }
}

/// A text that a pattern of `like` matches.
fn filled(pattern: &Value) -> String {
    let part = |part: &Value| match part {
        Value::String(_) => "x".to_owned(),
        other => other.get("Literal").and_then(Value::as_str).unwrap_or_default().to_owned(),
    };
    match pattern {
        Value::Array(parts) => parts.iter().map(part).collect(),
        other => other.as_str().unwrap_or_default().replace('*', "x"),
    }
}

impl Fires {
    fn of(known: Option<bool>) -> Self {
        match known {
            None => Self::Perhaps,
            Some(true) => Self::Always,
            Some(false) => Self::Never,
        }
    }

    fn known(self) -> Option<bool> {
        match self {
            Self::Perhaps => None,
            Self::Always => Some(true),
            Self::Never => Some(false),
        }
    }

    fn negated(self) -> Self {
        Self::of(self.known().map(|known| !known))
    }
}

/// Value of an expression.
#[derive(Clone, Debug, PartialEq)]
enum Known {
    Bool(bool),
    Long(i64),
    /// A number within bounds.
    Within(i64, i64),
    Text(String),
    Entity(String, String),
    Set(Vec<Known>),
    /// An attribute below `context`, or a variable.
    Place(Vec<String>),
    Unknown,
}

struct Evaluator<'e> {
    operation: &'e str,
    system: &'e str,
    groups: &'e [String],
    principal: &'e PrincipalFacts,
    facts: &'e CallFacts,
}

impl Evaluator<'_> {
    fn scope(&self, document: &Value) -> Fires {
        let principal = self.constraint(document.get("principal"), "principal");
        let resource = self.constraint(document.get("resource"), "resource");
        // The slice of the operation has only policies whose scope matches its action.
        principal.min(resource)
    }

    fn constraint(&self, constraint: Option<&Value>, variable: &str) -> Fires {
        let Some(constraint) = constraint else { return Fires::Always };
        let op = constraint.get("op").and_then(Value::as_str).unwrap_or_default();
        let within = |value: Option<&Value>| match value.and_then(entity) {
            Some((kind, id)) => self.within(variable, kind, id),
            None => None,
        };
        match op {
            "All" => Fires::Always,
            "==" => Fires::of(match constraint.get("entity").and_then(entity) {
                Some((kind, id)) => self.equals(variable, kind, id),
                None => None,
            }),
            "in" => Fires::of(within(constraint.get("entity"))),
            "is" => {
                let kind =
                    constraint.get("entity_type").and_then(Value::as_str).unwrap_or_default();
                let is_kind = Fires::of(self.is_kind(variable, kind));
                match constraint.get("in").and_then(|within| within.get("entity")) {
                    None => is_kind,
                    Some(entity) => is_kind.min(Fires::of(within(Some(entity)))),
                }
            }
            _ => Fires::Perhaps,
        }
    }

    fn condition(&self, expr: &Value) -> Fires {
        Fires::of(self.truth(expr))
    }

    fn truth(&self, expr: &Value) -> Option<bool> {
        match self.value(expr) {
            Known::Bool(known) => Some(known),
            _ => None,
        }
    }

    /// Whether principal, action or resource is an entity or lies below it.
    fn within(&self, variable: &str, kind: &str, id: &str) -> Option<bool> {
        if self.equals(variable, kind, id) == Some(true) {
            return Some(true);
        }
        match (variable, kind) {
            ("principal", "Role") => Some(self.principal.roles.contains(id)),
            ("principal", _) => self.equals(variable, kind, id),
            ("action", "Action") => {
                Some(self.operation == id || self.groups.iter().any(|group| group == id))
            }
            ("resource", _) => match (&self.facts.resource, kind) {
                (ResourceFacts::Any, _) => None,
                (ResourceFacts::Agent(roles), "Role") => Some(roles.contains(id)),
                (ResourceFacts::Collection(name), "Collection") => Some(name == id),
                (ResourceFacts::Collection(_) | ResourceFacts::System, "System") => {
                    Some(self.system == id)
                }
                (ResourceFacts::Collection(_), "Resource") => None,
                (ResourceFacts::Agent(_), "Agent") => None,
                _ => Some(false),
            },
            _ => None,
        }
    }

    fn equals(&self, variable: &str, kind: &str, id: &str) -> Option<bool> {
        match variable {
            "principal" => Some(self.principal.kind == kind && self.principal.id == id),
            "action" => Some(kind == "Action" && self.operation == id),
            _ => match &self.facts.resource {
                ResourceFacts::System => Some(kind == "System" && id == self.system),
                ResourceFacts::Collection(_) if kind == "Resource" => None,
                ResourceFacts::Collection(_) => Some(false),
                ResourceFacts::Agent(_) if kind == "Agent" => None,
                ResourceFacts::Agent(_) => Some(false),
                ResourceFacts::Any => None,
            },
        }
    }

    fn is_kind(&self, variable: &str, kind: &str) -> Option<bool> {
        match variable {
            "principal" => Some(self.principal.kind == kind),
            "resource" => match self.facts.resource {
                ResourceFacts::System => Some(kind == "System"),
                ResourceFacts::Collection(_) => Some(kind == "Resource"),
                ResourceFacts::Agent(_) => Some(kind == "Agent"),
                ResourceFacts::Any => None,
            },
            _ => None,
        }
    }

    // Recursion is bounded by the depth of a policy's conditions, which is bounded at load.
    fn value(&self, expr: &Value) -> Known {
        let Some((op, of)) = expr.as_object().and_then(|members| members.iter().next()) else {
            return Known::Unknown;
        };
        let left = || of.get("left").map_or(Known::Unknown, |side| self.value(side));
        let right = || of.get("right").map_or(Known::Unknown, |side| self.value(side));
        let truth_of = |name: &str| of.get(name).and_then(|side| self.truth(side));
        let known = |known: Option<bool>| known.map_or(Known::Unknown, Known::Bool);
        match op.as_str() {
            "Value" => literal(of),
            "Var" => Known::Place(vec![of.as_str().unwrap_or_default().to_owned()]),
            "Set" => {
                let items = of.as_array().map(Vec::as_slice).unwrap_or_default();
                Known::Set(items.iter().map(|item| self.value(item)).collect())
            }
            "." => {
                let name = of.get("attr").and_then(Value::as_str).unwrap_or_default();
                match left() {
                    Known::Place(mut place) => {
                        place.push(name.to_owned());
                        self.read(place)
                    }
                    _ => Known::Unknown,
                }
            }
            "has" => {
                let name = of.get("attr").and_then(Value::as_str).unwrap_or_default();
                match left() {
                    // The context is total: its keys are always there.
                    Known::Place(place) if place == ["context"] => Known::Bool(true),
                    Known::Place(place) if place.first().is_some_and(|one| one == "context") => {
                        match place.get(1).is_some_and(|key| key == "input") {
                            true => Known::Unknown,
                            false => Known::Bool(!name.is_empty()),
                        }
                    }
                    _ => Known::Unknown,
                }
            }
            "&&" => known(match (truth_of("left"), truth_of("right")) {
                (Some(false), _) | (_, Some(false)) => Some(false),
                (Some(true), Some(true)) => Some(true),
                _ => None,
            }),
            "||" => known(match (truth_of("left"), truth_of("right")) {
                (Some(true), _) | (_, Some(true)) => Some(true),
                (Some(false), Some(false)) => Some(false),
                _ => None,
            }),
            "!" => known(truth_of("arg").map(|value| !value)),
            "if-then-else" => {
                let branch =
                    |name: &str| of.get(name).map_or(Known::Unknown, |side| self.value(side));
                match truth_of("if") {
                    Some(true) => branch("then"),
                    Some(false) => branch("else"),
                    None => {
                        let (then, other) = (branch("then"), branch("else"));
                        if then == other { then } else { Known::Unknown }
                    }
                }
            }
            "==" => known(self.same(&left(), &right())),
            "!=" => known(self.same(&left(), &right()).map(|same| !same)),
            "<" => known(compared(
                &left(),
                &right(),
                |a, b| a < b,
                |a, b| a.1 < b.0,
                |a, b| a.0 >= b.1,
            )),
            "<=" => known(compared(
                &left(),
                &right(),
                |a, b| a <= b,
                |a, b| a.1 <= b.0,
                |a, b| a.0 > b.1,
            )),
            ">" => known(compared(
                &left(),
                &right(),
                |a, b| a > b,
                |a, b| a.0 > b.1,
                |a, b| a.1 <= b.0,
            )),
            ">=" => known(compared(
                &left(),
                &right(),
                |a, b| a >= b,
                |a, b| a.0 >= b.1,
                |a, b| a.1 < b.0,
            )),
            "in" => known(self.is_in(&left(), &right())),
            "is" => {
                let kind = of.get("entity_type").and_then(Value::as_str).unwrap_or_default();
                let is_kind = match left() {
                    Known::Place(place) => match place.as_slice() {
                        [variable] => self.is_kind(variable, kind),
                        _ => None,
                    },
                    Known::Entity(of, _) => Some(of == kind),
                    _ => None,
                };
                match of.get("in") {
                    None => known(is_kind),
                    Some(within) => {
                        known(match (is_kind, self.is_in(&left(), &self.value(within))) {
                            (Some(false), _) | (_, Some(false)) => Some(false),
                            (Some(true), Some(true)) => Some(true),
                            _ => None,
                        })
                    }
                }
            }
            "contains" => known(self.contains(&left(), &right())),
            "containsAll" => known(match right() {
                Known::Set(items) => {
                    let of = left();
                    all(items.iter().map(|item| self.contains(&of, item)))
                }
                _ => None,
            }),
            "containsAny" => known(match right() {
                Known::Set(items) => {
                    let of = left();
                    all(items.iter().map(|item| self.contains(&of, item).map(|known| !known)))
                        .map(|none| !none)
                }
                _ => None,
            }),
            "isEmpty" => known(match of.get("arg").map(|arg| self.value(arg)) {
                Some(Known::Set(items)) => Some(items.is_empty()),
                Some(Known::Place(place)) => match self.set(&place) {
                    Some(set) if !set.has.is_empty() => Some(false),
                    Some(set) if set.is_closed => Some(true),
                    _ => None,
                },
                _ => None,
            }),
            _ => Known::Unknown,
        }
    }

    /// The set at a place of the context. `None`: the place has no set that is known in part.
    fn set(&self, place: &[String]) -> Option<&PartialSet> {
        let names: Vec<&str> = place.iter().map(String::as_str).collect();
        match names.as_slice() {
            ["context", "session", "labels"] => Some(&self.facts.carried),
            ["context", "uncleared_labels"] => Some(&self.facts.uncleared),
            ["context", "remembered"] => Some(&self.facts.remembered),
            ["context", "satisfied"] => Some(&self.facts.satisfied),
            ["context", "sequences"] => Some(&self.facts.sequences),
            ["context", "exception"] => Some(&self.facts.exceptions),
            _ => None,
        }
    }

    /// The value at a place.
    fn read(&self, place: Vec<String>) -> Known {
        let names: Vec<&str> = place.iter().map(String::as_str).collect();
        let facts = self.facts;
        let entity = |kind: &str, id: &str| Known::Entity(kind.to_owned(), id.to_owned());
        match names.as_slice() {
            ["context", "task", "template"] => {
                facts.template.as_ref().map_or(Known::Unknown, |name| entity("Template", name))
            }
            ["context", "task", "kind"] => {
                facts.task_kind.map_or(Known::Unknown, |kind| entity("TaskKind", kind))
            }
            ["context", "chain", "depth"] => facts.depth.map_or(Known::Unknown, Known::Long),
            ["context", "chain", "subject"] => {
                facts.has_subject.map_or(Known::Unknown, Known::Bool)
            }
            ["context", "tier"] => Known::Within(facts.tiers.0, facts.tiers.1),
            ["context", "destination", "present"] => Known::Bool(facts.has_destination),
            ["context", "destination", "class"] => match (&facts.class, facts.has_destination) {
                (_, false) => entity("DestinationClass", "none"),
                (Some(class), true) => entity("DestinationClass", class),
                (None, true) => Known::Unknown,
            },
            ["context", "destination", "trusted"] if !facts.has_destination => Known::Unknown,
            _ => Known::Place(place),
        }
    }

    fn same(&self, left: &Known, right: &Known) -> Option<bool> {
        match (left, right) {
            (Known::Bool(a), Known::Bool(b)) => Some(a == b),
            (Known::Long(a), Known::Long(b)) => Some(a == b),
            (Known::Text(a), Known::Text(b)) => Some(a == b),
            (Known::Within(low, high), Known::Long(n))
            | (Known::Long(n), Known::Within(low, high)) => match n {
                n if n < low || n > high => Some(false),
                n if low == high && n == low => Some(true),
                _ => None,
            },
            (Known::Entity(a, b), Known::Entity(c, d)) => Some(a == c && b == d),
            (Known::Place(place), Known::Entity(kind, id))
            | (Known::Entity(kind, id), Known::Place(place)) => match place.as_slice() {
                [variable] => self.equals(variable, kind, id),
                _ => None,
            },
            _ => None,
        }
    }

    fn is_in(&self, left: &Known, right: &Known) -> Option<bool> {
        match right {
            Known::Set(items) => {
                // In none of them, or in one of them.
                all(items.iter().map(|item| self.is_in(left, item).map(|known| !known)))
                    .map(|none| !none)
            }
            Known::Entity(kind, id) => match left {
                Known::Place(place) => match place.as_slice() {
                    [variable] => self.within(variable, kind, id),
                    _ => None,
                },
                Known::Entity(of, name) if of == kind && name == id => Some(true),
                _ => None,
            },
            _ => None,
        }
    }

    fn contains(&self, set: &Known, item: &Known) -> Option<bool> {
        match (set, item) {
            (Known::Place(place), Known::Entity(_, id)) => self.set(place)?.contains(id),
            (Known::Set(items), item) => {
                all(items.iter().map(|one| self.same(one, item).map(|known| !known)))
                    .map(|none| !none)
            }
            _ => None,
        }
    }
}

/// Whether all are true: false where one is not, unknown where one may not be.
fn all(items: impl Iterator<Item = Option<bool>>) -> Option<bool> {
    let mut result = Some(true);
    for item in items {
        match item {
            Some(false) => return Some(false),
            None => result = None,
            Some(true) => {}
        }
    }
    result
}

type Bounds = (i64, i64);

fn compared(
    left: &Known,
    right: &Known,
    exact: fn(i64, i64) -> bool,
    is_true: fn(Bounds, Bounds) -> bool,
    is_false: fn(Bounds, Bounds) -> bool,
) -> Option<bool> {
    let bounds = |value: &Known| match value {
        Known::Long(n) => Some((*n, *n)),
        Known::Within(low, high) => Some((*low, *high)),
        _ => None,
    };
    let (left, right) = (bounds(left)?, bounds(right)?);
    if left.0 == left.1 && right.0 == right.1 {
        return Some(exact(left.0, right.0));
    }
    if is_true(left, right) {
        return Some(true);
    }
    is_false(left, right).then_some(false)
}

fn entity(value: &Value) -> Option<(&str, &str)> {
    let of = value.get("__entity").unwrap_or(value);
    let text = |name: &str| of.get(name).and_then(Value::as_str);
    Some((text("type")?, text("id")?))
}

fn literal(value: &Value) -> Known {
    match value {
        Value::Bool(known) => Known::Bool(*known),
        Value::Number(number) => number.as_i64().map_or(Known::Unknown, Known::Long),
        Value::String(text) => Known::Text(text.clone()),
        Value::Array(items) => Known::Set(items.iter().map(literal).collect()),
        Value::Object(_) => {
            let known = entity(value);
            known.map_or(Known::Unknown, |(kind, id)| Known::Entity(kind.to_owned(), id.to_owned()))
        }
        Value::Null => Known::Unknown,
    }
}
