//! The truth of conditions that only compare what is known of a request, as most do.
//!
//! Cedar's evaluator asks a context, a record of records, and a store of entities, which would have to be made first, and
//! makes a value of every step on the way: `context`, `context.input`, `context.input.amount`. A condition is translated at
//! load instead, so that the facts are compared where they stand. Nothing is decided that could be an error: whatever is
//! missing, of another type, or not one of the few forms below is left to the evaluator. A property test holds both equal.

use std::sync::Arc;

use cedar_policy_core::ast::{BinaryOp, EntityUID, Expr, ExprKind, Literal, UnaryOp, Var};
use smol_str::SmolStr;

use super::{Attributes, ContextFacts, ID, Known, LABELS, Members, NOW, Words, same};
use crate::arguments;
use crate::schema::Key;

/// A condition, as far as it compares facts.
#[derive(Clone, Debug)]
pub(super) enum Test {
    Both(Box<[Self; 2]>),
    Either(Box<[Self; 2]>),
    Not(Box<Self>),
    Equal(Part, Part),
    Less(Part, Part),
    AtMost(Part, Part),
    Contains(Part, Part),
    IsEmpty(Part),
    /// Whether an argument is there.
    Has(Path),
    /// What is true or false itself.
    Holds(Part),
    /// What the evaluator must tell.
    Other,
}

/// What is compared.
#[derive(Clone, Debug)]
pub(super) enum Part {
    Literal(Literal),
    Input(Path),
    Fact(Fact),
    /// Attributes of the resource.
    Id,
    Labels,
}

/// The name of an argument, and of what within it.
#[derive(Clone, Debug)]
pub(super) struct Path {
    first: SmolStr,
    rest: Box<[SmolStr]>,
}

/// What policies read of a request besides its arguments.
#[derive(Clone, Copy, Debug)]
pub(super) enum Fact {
    Now,
    Tier,
    TaskKind,
    TaskTemplate,
    TaskPurpose,
    TaskDepth,
    TaskAge,
    SubjectProof,
    Depth,
    Agents,
    Subject,
    Enforcer,
    Confidence,
    Class,
    Trusted,
    Host,
    Present,
    Method,
    Bound,
    ProofAge,
    Acr,
    Satisfied,
    SessionLabels,
    Sources,
    Calls,
    Excess,
    Remembered,
    Sequences,
    Budgets,
}

impl Fact {
    /// None: the evaluator must read it.
    fn of(key: &str, member: Option<&str>) -> Option<Self> {
        if key == NOW && member.is_none() {
            return Some(Self::Now);
        }
        let key = Key::ALL.into_iter().find(|known| known.as_str() == key)?;
        Some(match (key, member) {
            (Key::Tier, None) => Self::Tier,
            (Key::Task, Some("kind")) => Self::TaskKind,
            (Key::Task, Some("template")) => Self::TaskTemplate,
            (Key::Task, Some("purpose")) => Self::TaskPurpose,
            (Key::Task, Some("depth")) => Self::TaskDepth,
            (Key::Task, Some("age")) => Self::TaskAge,
            (Key::SubjectProof, None) => Self::SubjectProof,
            (Key::Chain, Some("depth")) => Self::Depth,
            (Key::Chain, Some("agents")) => Self::Agents,
            (Key::Chain, Some("subject")) => Self::Subject,
            (Key::Enforcer, None) => Self::Enforcer,
            (Key::Confidence, None) => Self::Confidence,
            (Key::Destination, Some("class")) => Self::Class,
            (Key::Destination, Some("trusted")) => Self::Trusted,
            (Key::Destination, Some("host")) => Self::Host,
            (Key::Destination, Some("present")) => Self::Present,
            (Key::Proof, Some("method")) => Self::Method,
            (Key::Proof, Some("bound")) => Self::Bound,
            (Key::Proof, Some("age")) => Self::ProofAge,
            (Key::Proof, Some("acr")) => Self::Acr,
            (Key::Satisfied, None) => Self::Satisfied,
            (Key::Session, Some("labels")) => Self::SessionLabels,
            (Key::Session, Some("sources")) => Self::Sources,
            (Key::Session, Some("calls")) => Self::Calls,
            (Key::Excess, None) => Self::Excess,
            (Key::Remembered, None) => Self::Remembered,
            (Key::Sequences, None) => Self::Sequences,
            (Key::Budgets, None) => Self::Budgets,
            _ => return None,
        })
    }
}

impl Test {
    /// Translates a condition.
    // Recursion is bounded by the depth limit of policies.
    pub(super) fn of(expr: &Expr) -> Self {
        let both = |one: &Expr, other: &Expr| Box::new([Self::of(one), Self::of(other)]);
        match expr.expr_kind() {
            ExprKind::And { left, right } => Self::Both(both(left, right)),
            ExprKind::Or { left, right } => Self::Either(both(left, right)),
            ExprKind::UnaryApp { op: UnaryOp::Not, arg } => Self::Not(Box::new(Self::of(arg))),
            ExprKind::UnaryApp { op: UnaryOp::IsEmpty, arg } => {
                Part::of(arg).map_or(Self::Other, Self::IsEmpty)
            }
            ExprKind::HasAttr { expr, attr } => {
                input(expr).map_or(Self::Other, |path| Self::Has(Path::of(path, attr)))
            }
            ExprKind::BinaryApp { op, arg1, arg2 } => {
                let (Some(one), Some(other)) = (Part::of(arg1), Part::of(arg2)) else {
                    return Self::Other;
                };
                match op {
                    BinaryOp::Eq => Self::Equal(one, other),
                    BinaryOp::Less => Self::Less(one, other),
                    BinaryOp::LessEq => Self::AtMost(one, other),
                    BinaryOp::Contains => Self::Contains(one, other),
                    _ => Self::Other,
                }
            }
            _ => Part::of(expr).map_or(Self::Other, Self::Holds),
        }
    }

    /// Whether the condition holds; none where the evaluator must tell.
    // Recursion is bounded by the depth limit of policies.
    pub(super) fn truth<'a>(&'a self, seen: &Seen<'a>) -> Option<bool> {
        match self {
            Self::Both(parts) => {
                let [left, right] = parts.as_ref();
                if left.truth(seen)? { right.truth(seen) } else { Some(false) }
            }
            Self::Either(parts) => {
                let [left, right] = parts.as_ref();
                if left.truth(seen)? { Some(true) } else { right.truth(seen) }
            }
            Self::Not(test) => test.truth(seen).map(|holds| !holds),
            Self::Equal(one, other) => seen.find(one)?.is(&seen.find(other)?),
            Self::Less(one, other) => match (seen.find(one)?, seen.find(other)?) {
                (Found::Long(one), Found::Long(other)) => Some(one < other),
                _ => None,
            },
            Self::AtMost(one, other) => match (seen.find(one)?, seen.find(other)?) {
                (Found::Long(one), Found::Long(other)) => Some(one <= other),
                _ => None,
            },
            Self::Contains(set, item) => seen.contains(&seen.find(set)?, &seen.find(item)?),
            Self::IsEmpty(set) => seen.is_empty(&seen.find(set)?),
            Self::Has(path) => seen.has(path),
            Self::Holds(part) => match seen.find(part)? {
                Found::Bool(holds) => Some(holds),
                _ => None,
            },
            Self::Other => None,
        }
    }
}

impl Part {
    fn of(expr: &Expr) -> Option<Self> {
        let (of, attr) = match expr.expr_kind() {
            ExprKind::Lit(literal) => return Some(Self::Literal(literal.clone())),
            ExprKind::GetAttr { expr, attr } => (expr, attr),
            _ => return None,
        };
        if let ExprKind::Var(var) = of.expr_kind() {
            return match (var, attr.as_str()) {
                (Var::Resource, ID) => Some(Self::Id),
                (Var::Resource, LABELS) => Some(Self::Labels),
                (Var::Context, key) => Fact::of(key, None).map(Self::Fact),
                _ => None,
            };
        }
        if let Some(path) = input(of) {
            return Some(Self::Input(Path::of(path, attr)));
        }
        let ExprKind::GetAttr { expr: of, attr: key } = of.expr_kind() else { return None };
        let is_context = matches!(of.expr_kind(), ExprKind::Var(Var::Context));
        Fact::of(key, Some(attr)).filter(|_| is_context).map(Self::Fact)
    }
}

impl Path {
    fn of(mut names: Vec<SmolStr>, last: &SmolStr) -> Self {
        names.push(last.clone());
        let first = names.remove(0);
        Self { first, rest: names.into_boxed_slice() }
    }
}

/// The names after `context.input` in an expression that is it, or a member within it.
// Recursion is bounded by the depth limit of policies.
fn input(expr: &Expr) -> Option<Vec<SmolStr>> {
    let ExprKind::GetAttr { expr, attr } = expr.expr_kind() else { return None };
    if matches!(expr.expr_kind(), ExprKind::Var(Var::Context)) {
        return (attr == Key::Input.as_str()).then(Vec::new);
    }
    let mut names = input(expr)?;
    names.push(attr.clone());
    Some(names)
}

/// What a condition is told from.
///
/// What the principal has is not among it: two principals may have one uid, of which the store has the first.
pub(super) struct Seen<'a> {
    pub(super) words: &'a Words,
    pub(super) facts: &'a ContextFacts<'a>,
    pub(super) resource: &'a Attributes,
}

/// What stands where a part leads.
enum Found<'a> {
    Long(i64),
    Bool(bool),
    Text(&'a str),
    Entity(&'a EntityUID),
    /// Items of an argument.
    Items(&'a [arguments::Value]),
    Labels(&'a [EntityUID]),
    /// The agents among them.
    Agents(&'a [Arc<Known>]),
    /// Labels, by their names.
    LabelNames(&'a [&'a str]),
    /// Other words of the bundle, by their names; of those that the bundle does not have the evaluator must tell.
    Names(&'a Members, &'a [&'a str]),
    /// Step-up kinds; those that the bundle does not have do not count.
    Kinds(&'a [String]),
    /// What the session carries, and its agent brings along.
    Carried,
}

impl Found<'_> {
    /// Whether both are one; none where either is no single thing.
    fn is(&self, other: &Self) -> Option<bool> {
        match (self, other) {
            (Self::Long(one), Self::Long(other)) => Some(one == other),
            (Self::Bool(one), Self::Bool(other)) => Some(one == other),
            (Self::Text(one), Self::Text(other)) => Some(one == other),
            (Self::Entity(one), Self::Entity(other)) => Some(same(one, other)),
            // To compare two types is no error in Cedar.
            (one, other) => (one.is_single() && other.is_single()).then_some(false),
        }
    }

    const fn is_single(&self) -> bool {
        matches!(self, Self::Long(_) | Self::Bool(_) | Self::Text(_) | Self::Entity(_))
    }
}

impl<'a> Seen<'a> {
    fn find(&self, part: &'a Part) -> Option<Found<'a>> {
        match part {
            Part::Literal(Literal::Long(number)) => Some(Found::Long(*number)),
            Part::Literal(Literal::Bool(value)) => Some(Found::Bool(*value)),
            Part::Literal(Literal::String(text)) => Some(Found::Text(text)),
            Part::Literal(Literal::EntityUID(uid)) => Some(Found::Entity(uid)),
            Part::Input(path) => match self.argument(path)?? {
                arguments::Value::Long(number) => Some(Found::Long(*number)),
                arguments::Value::Text(text) => Some(Found::Text(text)),
                arguments::Value::Bool(value) => Some(Found::Bool(*value)),
                arguments::Value::Set(items) => Some(Found::Items(items)),
                arguments::Value::Decimal(_)
                | arguments::Value::Record(_)
                | arguments::Value::Opaque => None,
            },
            Part::Fact(fact) => self.fact(*fact),
            Part::Id => match self.resource {
                Attributes::Resource { id, .. } => Some(Found::Text(id)),
                _ => None,
            },
            Part::Labels => match self.resource {
                Attributes::Resource { labels, .. } => Some(Found::Labels(labels)),
                _ => None,
            },
        }
    }

    fn fact(&self, fact: Fact) -> Option<Found<'a>> {
        let Self { words, facts, .. } = *self;
        let task = facts.task.as_ref();
        Some(match fact {
            Fact::Now => Found::Long(facts.time),
            Fact::Tier => Found::Long(facts.tier),
            Fact::TaskKind => match task {
                None => entity(&words.no_task_kind)?,
                Some(task) => entity(words.task_kinds.get(task.kind.as_str())?)?,
            },
            Fact::TaskTemplate => match task {
                None => entity(&words.no_template)?,
                Some(task) => entity(words.templates.get(task.template)?)?,
            },
            Fact::TaskPurpose => Found::Text(task.map_or("", |task| task.purpose)),
            Fact::TaskDepth => Found::Long(task.map_or(0, |task| task.depth)),
            Fact::TaskAge => Found::Long(task.map_or(0, |task| task.age)),
            Fact::SubjectProof => entity(words.proofs.get(facts.subject_proof.as_str())?)?,
            Fact::Depth => Found::Long(facts.depth),
            Fact::Agents => Found::Agents(facts.chain),
            Fact::Subject => Found::Bool(facts.subject),
            Fact::Enforcer => Found::Text(facts.enforcer),
            Fact::Confidence => Found::Long(facts.confidence),
            Fact::Class => entity(words.classes.get(facts.class)?)?,
            Fact::Trusted => Found::Bool(facts.trusted),
            Fact::Host => Found::Text(facts.host),
            Fact::Present => Found::Bool(facts.destination),
            Fact::Method => entity(words.methods.get(facts.method)?)?,
            Fact::Bound => Found::Bool(facts.bound),
            Fact::ProofAge => Found::Long(facts.age),
            Fact::Acr => Found::Text(facts.acr),
            Fact::Satisfied => Found::Kinds(facts.satisfied),
            Fact::SessionLabels => Found::Carried,
            Fact::Sources => Found::Long(facts.sources()),
            Fact::Calls => Found::Long(facts.calls()),
            Fact::Excess => Found::LabelNames(facts.excess),
            Fact::Remembered => Found::LabelNames(facts.remembered),
            Fact::Sequences => Found::Names(&words.sequences, facts.sequences),
            Fact::Budgets => Found::Names(&words.budgets, facts.budgets),
        })
    }

    /// An argument: none within where it is absent; none at all where something on the way to it is absent, or has no members.
    fn argument(&self, path: &Path) -> Option<Option<&'a arguments::Value>> {
        let mut found = member(self.facts.input, &path.first);
        for name in &path.rest {
            let arguments::Value::Record(members) = found? else { return None };
            found = member(members, name);
        }
        Some(found)
    }

    fn has(&self, path: &Path) -> Option<bool> {
        self.argument(path).map(|found| found.is_some())
    }

    /// Whether a set has an item; none where the first is no set of single things, or the second none of these.
    fn contains(&self, set: &Found<'_>, item: &Found<'_>) -> Option<bool> {
        if !item.is_single() {
            return None;
        }
        if let Found::Items(items) = set {
            let mut found = false;
            for one in *items {
                found |= match one {
                    arguments::Value::Long(number) => Found::Long(*number).is(item)?,
                    arguments::Value::Text(text) => Found::Text(text).is(item)?,
                    arguments::Value::Bool(value) => Found::Bool(*value).is(item)?,
                    _ => return None,
                };
            }
            return Some(found);
        }
        // All others are of entities.
        let Found::Entity(item) = *item else { return self.is_empty(set).map(|_| false) };
        let id: &str = item.eid().as_ref();
        let is_label = || *item.entity_type() == self.words.types.label;
        let is_known = |members: &Members| {
            members.get(id).and_then(entity).and_then(|known| known.is(&Found::Entity(item)))
                == Some(true)
        };
        match set {
            Found::Labels(labels) => Some(labels.iter().any(|label| same(label, item))),
            Found::Agents(chain) => Some(agents(chain).any(|agent| same(&agent.uid, item))),
            Found::LabelNames(names) => Some(names.contains(&id) && is_label()),
            Found::Names(members, names) => {
                self.is_empty(set)?;
                Some(names.contains(&id) && is_known(members))
            }
            Found::Kinds(kinds) => {
                Some(kinds.iter().any(|kind| kind == id) && is_known(&self.words.kinds))
            }
            Found::Carried => Some(self.facts.carried().any(|label| label == id) && is_label()),
            Found::Items(_)
            | Found::Long(_)
            | Found::Bool(_)
            | Found::Text(_)
            | Found::Entity(_) => None,
        }
    }

    fn is_empty(&self, set: &Found<'_>) -> Option<bool> {
        match set {
            Found::Items(items) => Some(items.is_empty()),
            Found::Labels(labels) => Some(labels.is_empty()),
            Found::Agents(chain) => Some(agents(chain).next().is_none()),
            Found::LabelNames(names) => Some(names.is_empty()),
            Found::Names(members, names) => {
                names.iter().all(|name| members.contains_key(*name)).then_some(names.is_empty())
            }
            Found::Kinds(kinds) => {
                Some(!kinds.iter().any(|kind| self.words.kinds.contains_key(kind)))
            }
            Found::Carried => Some(self.facts.carried().next().is_none()),
            Found::Long(_) | Found::Bool(_) | Found::Text(_) | Found::Entity(_) => None,
        }
    }
}

fn entity(literal: &Literal) -> Option<Found<'_>> {
    match literal {
        Literal::EntityUID(uid) => Some(Found::Entity(uid)),
        _ => None,
    }
}

fn member<'a>(
    members: &'a [(SmolStr, arguments::Value)],
    name: &str,
) -> Option<&'a arguments::Value> {
    let at = members.binary_search_by(|(known, _)| known.as_str().cmp(name)).ok()?;
    members.get(at).map(|(_, value)| value)
}

/// The agents of a chain.
pub(super) fn agents(chain: &[Arc<Known>]) -> impl Iterator<Item = &Arc<Known>> {
    chain.iter().filter(|known| known.alone.is_some())
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]

    use std::collections::BTreeSet;

    use cedar_policy_core::ast::{
        Eid, EntityType, EntityUIDEntry, Name, Request, SlotEnv, ValueKind,
    };
    use cedar_policy_core::entities::Entities;
    use cedar_policy_core::evaluator::Evaluator;
    use cedar_policy_core::extensions::Extensions;
    use proptest::prelude::*;

    use super::*;
    use crate::decision::Principal;
    use crate::evaluate::tests::nothing;
    use crate::evaluate::{Asks, Base, Constants, TaskFacts, syntax};
    use crate::history::SessionHistory;
    use crate::model::{Declared, LabelKind, Location, Model};
    use crate::schema::Names;
    use crate::task::{SubjectProof, TaskKind};

    fn uid(kind: &str, id: &str) -> EntityUID {
        let kind = EntityType::EntityType(Name::parse_unqualified_name(kind).unwrap());
        EntityUID::from_components(kind, Eid::new(id), None)
    }

    fn entity(kind: &str, id: &str) -> Literal {
        Literal::EntityUID(Arc::new(uid(kind, id)))
    }

    /// A bundle's words, and what two requests bring.
    struct Bench {
        words: Words,
        session: SessionHistory,
        chain: [Arc<Known>; 2],
        input: Vec<(SmolStr, arguments::Value)>,
        satisfied: [String; 2],
    }

    impl Bench {
        fn new() -> Self {
            let declared = || Declared { value: LabelKind::Trust, at: Location::default() };
            let labels = ["a", "b", "pii"].map(|label| (label.to_owned(), declared()));
            let model = Model { labels: labels.into(), ..Model::default() };
            let mut words = Words::new(&Names::of(&model, &BTreeSet::new())).unwrap();
            words.sequences.insert("a".to_owned(), entity("Sequence", "a"));
            words.budgets.insert("b".to_owned(), entity("Budget", "b"));
            let origin = serde_json::json!({ "decision_id": "d", "operation": "o.p", "at": 0 });
            let session = serde_json::json!({
                "calls": 3, "labels": { "a": origin, "strange": origin }, "sources": ["s", "t"],
            });
            let bot = Principal::Agent { spiffe_id: "a".to_owned(), trust_domain: "t".to_owned() };
            let (issuer, sub) = ("i".to_owned(), "b".to_owned());
            let user = crate::decision::Subject { issuer, sub, ..Default::default() };
            let user = Principal::User(Arc::new(user));
            let text = |text: &str| arguments::Value::Text(text.into());
            let record =
                vec![("long".into(), arguments::Value::Long(3)), ("text".into(), text("a"))];
            let mixed = vec![arguments::Value::Long(2), text("a"), arguments::Value::Bool(true)];
            let input = [
                ("bool", arguments::Value::Bool(true)),
                ("decimal", arguments::Value::Decimal(20_000)),
                ("long", arguments::Value::Long(2)),
                ("mixed", arguments::Value::Set(mixed)),
                ("none", arguments::Value::Set(Vec::new())),
                ("opaque", arguments::Value::Opaque),
                ("record", arguments::Value::Record(record)),
                ("sets", arguments::Value::Set(vec![arguments::Value::Set(Vec::new())])),
                ("text", text("a")),
            ];
            Self {
                session: serde_json::from_value(session).unwrap(),
                chain: [user, bot].map(|one| Arc::new(words.principal(&one, &[]))),
                words,
                input: input.map(|(name, value)| (name.into(), value)).into(),
                satisfied: ["confirm".to_owned(), "strange".to_owned()],
            }
        }

        /// Of a request that brings little, one that brings much, and one that the bundle has no words for.
        fn facts(&self) -> [ContextFacts<'_>; 3] {
            let little = ContextFacts { input: &self.input, tier: 2, time: 2, ..nothing() };
            let task = TaskFacts {
                kind: TaskKind::Root,
                template: "none",
                purpose: "a",
                depth: 2,
                age: 3,
            };
            let much = ContextFacts {
                depth: 2,
                chain: &self.chain,
                subject: true,
                task: Some(task),
                subject_proof: SubjectProof::Verified,
                enforcer: "a",
                confidence: 2,
                host: "a",
                destination: true,
                trusted: true,
                method: "jwt-svid",
                bound: true,
                age: 2,
                acr: "a",
                satisfied: &self.satisfied,
                time: 3,
                session: Some(&self.session),
                along: &["pii"],
                excess: &["a", "strange"],
                remembered: &["pii", "strange"],
                sequences: &["a"],
                budgets: &["b"],
                ..little
            };
            let strange = ContextFacts {
                task: Some(TaskFacts { template: "strange", ..task }),
                class: "strange",
                method: "strange",
                sequences: &["strange"],
                budgets: &["strange"],
                ..much
            };
            [little, much, strange]
        }

        /// A resource with attributes, one whose attributes hold nothing, and one that has none.
        fn resources(&self) -> [Known; 3] {
            let of =
                |id, labels: &[&str]| self.words.resource("s", "c", id, labels.iter().copied());
            [of("a", &["a", "b"]), of("", &[]), self.words.system("s")]
        }

        fn told(&self, expr: &Expr, facts: &ContextFacts<'_>, resource: &Known) -> Option<bool> {
            let resource = &resource.attributes;
            Test::of(expr).truth(&Seen { words: &self.words, facts, resource })
        }

        /// What Cedar makes of it; none: an error, or no truth value.
        fn judged(&self, expr: &Expr, facts: &ContextFacts<'_>, resource: &Known) -> Option<bool> {
            let entry = |uid| EntityUIDEntry::Known { euid: Arc::new(uid), loc: None };
            let context = self.words.context(syntax::keys(expr), &Constants::default(), facts);
            let request = Request::new_unchecked(
                entry(uid("Agent", "p")),
                entry(uid("Action", "do")),
                entry(resource.uid.as_ref().clone()),
                Some(context.ok()?),
            );
            let base = Base { action: Arc::new(uid("Action", "do")), entities: Entities::new() };
            let entities = crate::evaluate::store(Asks::Resource, &base, &[], resource).unwrap();
            let evaluator = Evaluator::new(request, &entities, Extensions::all_available());
            match evaluator.interpret(expr, &SlotEnv::new()).ok()?.value {
                ValueKind::Lit(Literal::Bool(holds)) => Some(holds),
                _ => None,
            }
        }
    }

    /// A condition as Cedar writes it.
    fn condition(text: &str) -> Expr {
        let text = format!("permit(principal, action, resource) when {{ {text} }};");
        let policy = syntax::parse("a.cedar", &text).unwrap().remove(0).policy;
        let body = policy.non_scope_constraints().unwrap();
        syntax::bare(body, &mut |expr| super::super::rewritten(expr, &mut Vec::new()))
    }

    const PATHS: [&str; 46] = [
        "context",
        "context.tier",
        "context.tier.member",
        "context.task",
        "context.task.kind",
        "context.task.template",
        "context.task.purpose",
        "context.task.depth",
        "context.task.age",
        "context.subject_proof",
        "context.chain",
        "context.chain.depth",
        "context.chain.agents",
        "context.chain.subject",
        "context.enforcer",
        "context.confidence",
        "context.destination",
        "context.destination.class",
        "context.destination.trusted",
        "context.destination.host",
        "context.destination.present",
        "context.proof.method",
        "context.proof.bound",
        "context.proof.age",
        "context.proof.acr",
        "context.proof.missing",
        "context.satisfied",
        "context.session",
        "context.session.labels",
        "context.session.sources",
        "context.session.calls",
        "context.excess",
        "context.remembered",
        "context.sequences",
        "context.budgets",
        "context.time",
        "context.missing",
        "resource",
        "resource.id",
        "resource.labels",
        "resource.missing",
        "principal",
        "principal.id",
        "action",
        "context[\"#now\"]",
        "context[\"#constants\"]",
    ];

    const INPUTS: [&str; 14] = [
        "context.input",
        "context.input.bool",
        "context.input.decimal",
        "context.input.long",
        "context.input.mixed",
        "context.input.none",
        "context.input.opaque",
        "context.input.record",
        "context.input.record.long",
        "context.input.record.missing",
        "context.input.record.text.long",
        "context.input.missing.long",
        "context.input.sets",
        "context.input.text",
    ];

    fn any_expr() -> impl Strategy<Value = Expr> {
        let kinds = [
            "Agent",
            "Label",
            "Kind",
            "TaskKind",
            "Template",
            "SubjectProof",
            "DestinationClass",
            "ProofMethod",
            "Sequence",
            "Budget",
        ];
        let ids = ["a", "b", "pii", "none", "confirm", "root", "jwt-svid", "verified", "strange"];
        let entities = (prop::sample::select(kinds.to_vec()), prop::sample::select(ids.to_vec()));
        let literals = prop_oneof![
            (0_i64..5).prop_map(Expr::val),
            any::<bool>().prop_map(Expr::val),
            prop_oneof![Just("a"), Just("")].prop_map(|text| Expr::val(SmolStr::new(text))),
            entities.prop_map(|(kind, id)| Expr::val(entity(kind, id))),
        ];
        let leaves = prop_oneof![
            4 => literals,
            4 => prop::sample::select(PATHS.to_vec()).prop_map(condition),
            3 => prop::sample::select(INPUTS.to_vec()).prop_map(condition),
        ];
        let names = || prop::sample::select(vec!["long", "text", "kind", "id", "input", "missing"]);
        leaves.prop_recursive(4, 24, 3, move |inner| {
            let two = (inner.clone(), inner.clone());
            let ops = prop::sample::select(vec![
                BinaryOp::Less,
                BinaryOp::LessEq,
                BinaryOp::Eq,
                BinaryOp::Eq,
                BinaryOp::Contains,
                BinaryOp::Contains,
                BinaryOp::ContainsAny,
                BinaryOp::Add,
            ]);
            prop_oneof![
                2 => two.clone().prop_map(|(one, other)| Expr::and(one, other)),
                2 => two.clone().prop_map(|(one, other)| Expr::or(one, other)),
                1 => inner.clone().prop_map(Expr::not),
                1 => inner.clone().prop_map(Expr::is_empty),
                6 => (ops, two).prop_map(|(op, (one, other))| Expr::binary_app(op, one, other)),
                1 => (inner.clone(), inner.clone(), inner.clone())
                    .prop_map(|(test, then, other)| Expr::ite(test, then, other)),
                2 => (inner, names())
                    .prop_map(|(expr, name)| Expr::has_attr(expr, SmolStr::new(name))),
            ]
        })
    }

    /// Each path beside each literal, and alone: where something is told, Cedar's evaluator tells the same.
    #[test]
    fn each_fact_is_what_cedar_finds() {
        let bench = Bench::new();
        let literals = [
            "2",
            "true",
            "\"a\"",
            "\"\"",
            "Agent::\"a\"",
            "Label::\"a\"",
            "Label::\"pii\"",
            "Label::\"strange\"",
            "Kind::\"confirm\"",
            "Kind::\"strange\"",
            "TaskKind::\"none\"",
            "TaskKind::\"root\"",
            "Template::\"none\"",
            "SubjectProof::\"verified\"",
            "DestinationClass::\"none\"",
            "ProofMethod::\"none\"",
            "ProofMethod::\"jwt-svid\"",
            "Sequence::\"a\"",
            "Budget::\"b\"",
        ];
        let mut told = BTreeSet::new();
        for path in PATHS.iter().chain(&INPUTS) {
            let mut texts = vec![(*path).to_owned(), format!("{path}.isEmpty()")];
            texts.extend(["long", "kind", "a"].map(|name| format!("{path} has {name}")));
            for literal in literals {
                let forms = ["{p} == {l}", "{l} < {p}", "{p} <= {l}", "{p}.contains({l})"];
                texts.extend(forms.map(|form| form.replace("{p}", path).replace("{l}", literal)));
            }
            for text in texts {
                let expr = condition(&text);
                for facts in bench.facts().iter().take(2) {
                    for resource in &bench.resources() {
                        let Some(holds) = bench.told(&expr, facts, resource) else { continue };
                        told.insert(*path);
                        let judged = bench.judged(&expr, facts, resource);
                        assert_eq!(Some(holds), judged, "{text}");
                    }
                }
            }
        }
        let untold: Vec<&str> =
            PATHS.iter().chain(&INPUTS).copied().filter(|path| !told.contains(path)).collect();
        let expected = [
            "context",
            "context.tier.member",
            "context.task",
            "context.chain",
            "context.destination",
            "context.proof.missing",
            "context.session",
            "context.time",
            "context.missing",
            "resource",
            "resource.missing",
            "principal",
            "principal.id",
            "action",
            "context[\"#constants\"]",
            "context.input.decimal",
            "context.input.opaque",
            "context.input.record.missing",
            "context.input.record.text.long",
            "context.input.missing.long",
        ];
        assert_eq!(expected.as_slice(), untold);
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(4096))]

        /// Where something is told here, Cedar's evaluator tells the same.
        #[test]
        fn what_is_told_is_what_cedar_tells(expr in any_expr()) {
            let bench = Bench::new();
            for facts in bench.facts().iter().take(2) {
                for resource in &bench.resources() {
                    if let Some(holds) = bench.told(&expr, facts, resource) {
                        let judged = bench.judged(&expr, facts, resource);
                        prop_assert_eq!(Some(holds), judged, "{}", expr);
                    }
                }
            }
        }
    }

    /// What is told here, and what is left to Cedar's evaluator.
    #[test]
    fn simple_comparisons_are_told() {
        let bench = Bench::new();
        let [little, much, strange] = bench.facts();
        let [resource, without, bare] = bench.resources();
        for (text, told) in [
            ("context.input.long < 3", Some(true)),
            ("3 < context.input.long", Some(false)),
            ("context.input.mixed.contains(\"a\")", Some(true)),
            ("context.input.mixed.contains(3)", Some(false)),
            ("context.input.sets.contains(3)", None),
            ("context.input has long && context.input.long == 2", Some(true)),
            ("context.input has missing && context.input.missing == 2", Some(false)),
            ("context.input.record has long", Some(true)),
            ("context.input.text has long", None),
            ("context.input.missing < 3", None),
            ("context.input.text < 3", None),
            ("context.input.long", None),
            ("true && context.input.long", None),
            ("context.input.bool || context.input.missing", Some(true)),
            ("false && context.input.missing", Some(false)),
            ("context.input.bool && context.input.missing", None),
            ("context.chain.agents.contains(Agent::\"a\")", Some(true)),
            ("!context.chain.agents.contains(Agent::\"b\")", Some(true)),
            ("context.session.labels.contains(Label::\"pii\")", Some(true)),
            ("context.session.labels.isEmpty()", Some(false)),
            ("context.satisfied.contains(Kind::\"strange\")", Some(false)),
            ("context.satisfied == context.satisfied", None),
            ("resource.id == \"a\"", Some(true)),
            ("resource.id == 2", Some(false)),
            ("resource.labels.contains(Label::\"a\")", Some(true)),
            ("resource.labels.isEmpty()", Some(false)),
            ("resource.labels.contains(2)", Some(false)),
            ("principal.id == \"a\"", None),
            ("principal == Agent::\"a\"", None),
        ] {
            let expr = condition(text);
            assert_eq!(told, bench.told(&expr, &much, &resource), "{text}");
            if told.is_some() {
                assert_eq!(told, bench.judged(&expr, &much, &resource), "{text}");
            }
        }
        let empty = condition("resource.labels.isEmpty()");
        assert_eq!(Some(true), bench.told(&empty, &little, &without));
        assert_eq!(None, bench.told(&empty, &little, &bare));
        // What the bundle has no word for is an error of the context, and never told.
        for text in [
            "context.destination.class == DestinationClass::\"none\"",
            "context.proof.method == ProofMethod::\"none\"",
            "context.task.template == Template::\"none\"",
            "context.sequences.contains(Sequence::\"a\")",
            "context.sequences.isEmpty()",
            "context.budgets.contains(2)",
        ] {
            let expr = condition(text);
            assert_eq!(None, bench.told(&expr, &strange, &resource), "{text}");
            assert_eq!(None, bench.judged(&expr, &strange, &resource), "{text}");
        }
    }
}
