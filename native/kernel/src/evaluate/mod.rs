//! Cedar policies, one by one: the only module that names `cedar_policy_core`, whose API is not stable.
//!
//! A decision needs to know of each policy whether it fired, did not, or failed; `Authorizer::is_authorized` answers
//! one question about all and skips failed ones. So each policy is cut at load into scope and body: the action part of
//! the scope is proved by the slice that it stands in, the rest is compared here, and the core's evaluator interprets the
//! body. A property test compares the outcome with that of `Authorizer`.

pub(crate) mod could;
pub(crate) mod met;
pub(crate) mod origins;
pub(crate) mod replay;
pub(crate) mod stated;
pub(crate) mod syntax;

use std::cell::OnceCell;
use std::collections::{BTreeMap, HashMap, HashSet};
use std::convert::Infallible;
use std::sync::{Arc, RwLock};

use authz_base::record::history::SessionHistory;
use authz_base::record::task::{SubjectProof, TaskKind};
use cedar_policy_core::ast::{
    Context, Eid, Entity, EntityReference, EntityType, EntityUID, EntityUIDEntry, Expr, Literal,
    Name, PartialValue, Policy, PrincipalOrResourceConstraint, Request, Set, SlotEnv, Value,
    ValueKind,
};
use cedar_policy_core::entities::{Entities, NoEntitiesSchema, TCComputation};
use cedar_policy_core::evaluator::{EvaluationError, Evaluator};
use cedar_policy_core::extensions::Extensions;
use smallvec::SmallVec;
use smol_str::SmolStr;

use crate::arguments;
use crate::decision::{PolicyEffect, Principal, PrincipalName, Subject, Verdict};
use crate::model::{EXCEPTION_TYPE, OriginSet, OriginSets, ValueRole};
use crate::rfc3339;
use crate::schema::{Key, Keys, NO_DESTINATION};
use crate::table::Table;

use syntax::Asks;

/// A policy ready to be judged.
#[derive(Clone, Debug)]
pub(crate) struct Rule {
    /// Stands here too, so that a policy that does not fire is not looked up.
    pub(crate) effect: PolicyEffect,
    principal: Scope,
    resource: Scope,
    /// The conditions, without source locations. `None` for a policy without conditions.
    body: Option<Arc<Expr>>,
    /// Scope or body mention the principal, so it is judged for each of the chain.
    pub(crate) per_principal: bool,
    /// What the body can ask the entity store for.
    pub(crate) store: Asks,
    /// Context keys that the body reads.
    pub(crate) keys: Keys,
    /// The policy has `@mode("observe")`. Its end decides whether it is still observed.
    pub(crate) is_observed: bool,
}

/// Attributes of a resource.
const ID: &str = "id";
const LABELS: &str = "labels";
/// Most sets of one kind that are kept ready.
const MAX_SETS: usize = 256;

/// What a scope says of the principal or the resource.
#[derive(Clone, Debug)]
enum Scope {
    Any,
    Eq(Arc<EntityUID>),
    In(Arc<EntityUID>),
    Is(Arc<EntityType>),
    IsIn(Arc<EntityType>, Arc<EntityUID>),
    /// A slot that nothing fills: matches nothing, and no such policy is loaded.
    Never,
}

impl Scope {
    fn new(constraint: &PrincipalOrResourceConstraint, shared: &mut SharedConditions) -> Self {
        let SharedConditions { uids, types, .. } = shared;
        match constraint {
            PrincipalOrResourceConstraint::Any => Self::Any,
            PrincipalOrResourceConstraint::Eq(EntityReference::EUID(uid)) => {
                Self::Eq(share(uids, uid.clone()))
            }
            PrincipalOrResourceConstraint::In(EntityReference::EUID(uid)) => {
                Self::In(share(uids, uid.clone()))
            }
            PrincipalOrResourceConstraint::Is(kind) => Self::Is(share(types, kind.clone())),
            PrincipalOrResourceConstraint::IsIn(kind, EntityReference::EUID(uid)) => {
                Self::IsIn(share(types, kind.clone()), share(uids, uid.clone()))
            }
            PrincipalOrResourceConstraint::Eq(EntityReference::Slot(_))
            | PrincipalOrResourceConstraint::In(EntityReference::Slot(_))
            | PrincipalOrResourceConstraint::IsIn(_, EntityReference::Slot(_)) => Self::Never,
        }
    }

    fn matches(&self, entity: &Known) -> bool {
        let within = |uid: &EntityUID| {
            same(uid, &entity.uid) || entity.ancestors.iter().any(|ancestor| same(uid, ancestor))
        };
        match self {
            Self::Any => true,
            Self::Eq(uid) => same(uid, &entity.uid),
            Self::In(uid) => within(uid),
            Self::Is(kind) => entity.uid.entity_type() == kind.as_ref(),
            Self::IsIn(kind, uid) => entity.uid.entity_type() == kind.as_ref() && within(uid),
            Self::Never => false,
        }
    }
}

/// Whether both name the same entity: the id first, since it differs more often than the type, and compares faster.
fn same(one: &EntityUID, other: &EntityUID) -> bool {
    one.eid() == other.eid() && one.entity_type() == other.entity_type()
}

/// Conditions and scope entities seen so far: equal ones share their memory, so that a large bundle of like policies
/// stays in the processor's cache.
#[derive(Debug, Default)]
pub(crate) struct SharedConditions {
    bodies: HashSet<Arc<Expr>>,
    uids: HashSet<Arc<EntityUID>>,
    types: HashSet<Arc<EntityType>>,
}

fn share<T: Eq + std::hash::Hash>(all: &mut HashSet<Arc<T>>, one: Arc<T>) -> Arc<T> {
    if let Some(known) = all.get(&one) {
        return Arc::clone(known);
    }
    all.insert(Arc::clone(&one));
    one
}

impl Rule {
    pub(crate) fn new(
        policy: &Policy,
        reading: &syntax::PolicyReading,
        shared: &mut SharedConditions,
    ) -> Self {
        let principal = Scope::new(policy.principal_constraint().as_inner(), shared);
        let resource = Scope::new(policy.resource_constraint().as_inner(), shared);
        // INVARIANT (depth): `bare` recurses, so a policy that is too deep is not copied; it is refused at load.
        let body = policy.non_scope_constraints().filter(|_| !reading.too_large);
        let body = body.map(|body| {
            let body = syntax::bare(body, &mut |_| None);
            share(&mut shared.bodies, Arc::new(body))
        });
        Self {
            effect: syntax::effect(policy),
            per_principal: reading.principal || !matches!(principal, Scope::Any),
            principal,
            resource,
            store: reading.store,
            keys: reading.keys,
            is_observed: false,
            body,
        }
    }

    /// The rule of a policy with or without `@mode("observe")`.
    pub(crate) fn observed(self, is_observed: bool) -> Self {
        Self { is_observed, ..self }
    }
}

/// A principal or resource of a request.
#[derive(Clone, Debug)]
pub(crate) struct Known {
    uid: Arc<EntityUID>,
    ancestors: Vec<EntityUID>,
    attributes: Attributes,
    /// Of an agent: the set of it alone, which is `context.chain.agents` of most calls.
    alone: Option<Value>,
}

/// Attributes wait as plain facts until a policy asks the store.
#[derive(Clone, Debug)]
enum Attributes {
    None,
    Texts([(&'static str, SmolStr); 2]),
    Resource { id: SmolStr, labels: Vec<EntityUID> },
}

impl Known {
    /// The roles that a principal holds: sorted, each once.
    pub(crate) fn roles(&self) -> impl ExactSizeIterator<Item = &str> {
        self.ancestors.iter().map(|role| role.eid().as_ref())
    }

    /// Kind and id of a principal, not escaped.
    pub(crate) fn name(&self) -> PrincipalName {
        let id: &str = self.uid.eid().as_ref();
        PrincipalName { kind: self.uid.entity_type().to_string(), id: id.to_owned() }
    }

    /// The uid in Cedar's form, `Type::"id"`.
    pub(crate) fn uid(&self) -> String {
        let id: &str = self.uid.eid().as_ref();
        // Cedar escapes character by character; these stand for themselves.
        let is_plain =
            |byte: u8| matches!(byte, b' '..=b'~') && !matches!(byte, b'"' | b'\'' | b'\\');
        match self.uid.entity_type() {
            EntityType::EntityType(name) if name.is_unqualified() && id.bytes().all(is_plain) => {
                [name.basename_as_ref().as_ref(), "::\"", id, "\""].concat()
            }
            _ => self.uid.to_string(),
        }
    }

    fn entity(&self) -> Entity {
        let value = |literal: Literal| PartialValue::Value(literal.into());
        let attributes: Vec<(SmolStr, PartialValue)> = match &self.attributes {
            Attributes::None => Vec::new(),
            Attributes::Texts(texts) => {
                let pair = |(name, text): &(&'static str, SmolStr)| {
                    (SmolStr::new_static(name), value(Literal::String(text.clone())))
                };
                texts.iter().map(pair).collect()
            }
            Attributes::Resource { id, labels } => {
                let labels = labels.iter().map(|uid| Literal::EntityUID(Arc::new(uid.clone())));
                vec![
                    (SmolStr::new_static(ID), value(Literal::String(id.clone()))),
                    (
                        SmolStr::new_static(LABELS),
                        PartialValue::Value(Value::set_of_lits(labels, None)),
                    ),
                ]
            }
        };
        Entity::new_with_attr_partial_value(
            self.uid.as_ref().clone(),
            attributes,
            HashSet::new(),
            self.ancestors.iter().cloned().collect(),
            [],
        )
    }
}

/// The entities that one operation always needs, made at load: its action and all its groups.
///
/// INVARIANT (closed): every ancestor stands in its descendants, so the store needs no closure per request. Without
/// these entities a policy on a group would silently not match.
#[derive(Clone, Debug)]
pub(crate) struct Base {
    action: Arc<EntityUID>,
    entities: Entities,
}

/// The entity of an action group.
#[derive(Clone, Debug)]
pub(crate) struct Group(Arc<Entity>);

/// The entities of an enumerated type, by their ids.
type EntityLiterals = Table<String, Literal>;

/// Cache of sets, by their members. Making a set takes longer than reading the rest of a session.
#[derive(Debug, Default)]
struct Sets(RwLock<HashMap<String, Value>>);

impl Sets {
    /// The set of these members.
    ///
    /// Args: `make`: makes it, where it was not met; true beside it: all in it are words of the bundle, and it is kept.
    fn of<E>(
        &self,
        members: &[&str],
        make: impl FnOnce() -> Result<(Value, bool), E>,
    ) -> Result<Value, E> {
        if members.is_empty() {
            return make().map(|(set, _)| set);
        }
        // No word of the bundle has a line feed in it.
        let key = members.join("\n");
        let met = self.0.read().ok().and_then(|sets| sets.get(&key).cloned());
        if let Some(set) = met {
            return Ok(set);
        }
        let (set, is_kept) = make()?;
        if is_kept
            && let Ok(mut sets) = self.0.write()
            && sets.len() < MAX_SETS
        {
            sets.insert(key, set.clone());
        }
        Ok(set)
    }
}

/// The words of a bundle as Cedar entities, made at load.
#[derive(Debug)]
pub(crate) struct Words {
    types: Types,
    kinds: EntityLiterals,
    classes: EntityLiterals,
    methods: EntityLiterals,
    labels: EntityLiterals,
    sequences: EntityLiterals,
    budgets: EntityLiterals,
    exceptions: EntityLiterals,
    task_kinds: EntityLiterals,
    templates: EntityLiterals,
    /// The task of a request without one.
    no_task: Value,
    /// The destination of a request without one; none where the bundle has no word for it.
    nowhere: Option<Value>,
    proofs: EntityLiterals,
    /// Sets of origins, by [`OriginSet::index`].
    origin_sets: Box<[Value]>,
    /// The set of nothing.
    empty: Value,
    label_sets: Sets,
    sequence_sets: Sets,
    none: SlotEnv,
    datetime: Name,
    decimal: Name,
}

/// The types of entities that are made per request or per operation.
#[derive(Debug)]
struct Types {
    action: EntityType,
    agent: EntityType,
    user: EntityType,
    service: EntityType,
    resource: EntityType,
    role: EntityType,
    label: EntityType,
    system: EntityType,
    collection: EntityType,
    template: EntityType,
}

fn uid(kind: &EntityType, id: &str) -> EntityUID {
    EntityUID::from_components(kind.clone(), Eid::new(id), None)
}

/// Facts that policies may read of the caller, its task and the time: those that are known before a request is made.
///
/// INVARIANT (no forgotten fact): neither this nor [`ContextFacts`] has a default. A fact that nobody fills would look as if
/// the request brought nothing, and a forbid that reads it would not fire.
#[derive(Clone, Copy, Debug)]
pub(crate) struct CallerFacts<'a> {
    pub(crate) depth: i64,
    pub(crate) chain: &'a [Arc<Known>],
    pub(crate) subject: bool,
    pub(crate) task: Option<TaskFacts<'a>>,
    /// How it was proved on whose behalf the caller acts.
    pub(crate) subject_proof: SubjectProof,
    pub(crate) enforcer: &'a str,
    pub(crate) method: &'static str,
    pub(crate) bound: bool,
    pub(crate) age: i64,
    pub(crate) acr: &'a str,
    pub(crate) time: i64,
}

/// Facts that policies may read, gathered before any is judged.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ContextFacts<'a> {
    pub(crate) caller: CallerFacts<'a>,
    pub(crate) input: &'a [(SmolStr, arguments::ArgumentValue)],
    pub(crate) tier: i64,
    pub(crate) confidence: i64,
    pub(crate) class: &'a str,
    pub(crate) host: &'a str,
    pub(crate) destination: bool,
    pub(crate) trusted: bool,
    /// Origins of the values of the call.
    pub(crate) origins: OriginSets,
    /// Mailboxes, hosts and IBANs in the texts of the call that are neither named nor known.
    pub(crate) unknown_literals: i64,
    pub(crate) satisfied: &'a [String],
    /// History of the session. `None`: the session did nothing before.
    pub(crate) session: Option<&'a SessionHistory>,
    /// Labels beside the session's that count where data goes out: remembered ones, and labels that are told of the call.
    pub(crate) along: &'a [&'a str],
    /// Labels that the agent remembers of other tasks.
    pub(crate) remembered: &'a [&'a str],
    /// Labels that the destination is not cleared for.
    pub(crate) uncleared_labels: &'a [&'a str],
    /// Rules over the order of events that this one would complete.
    pub(crate) sequences: &'a [&'a str],
    /// Budgets that this event would exceed.
    pub(crate) budgets: &'a [&'a str],
    /// Standing exceptions that cover the call.
    pub(crate) exceptions: &'a [&'a str],
}

impl<'a> ContextFacts<'a> {
    /// Facts before a request is made: its own have the values of a request that brings nothing. No policy that reads one of
    /// them may be judged by these facts.
    pub(crate) const fn before_request(caller: CallerFacts<'a>) -> Self {
        Self {
            caller,
            input: &[],
            tier: 0,
            confidence: 0,
            class: NO_DESTINATION,
            host: "",
            destination: false,
            trusted: false,
            origins: OriginSets::EMPTY,
            unknown_literals: 0,
            satisfied: &[],
            session: None,
            along: &[],
            remembered: &[],
            uncleared_labels: &[],
            sequences: &[],
            budgets: &[],
            exceptions: &[],
        }
    }
}

impl ContextFacts<'_> {
    /// Labels that the session carries, or that its agent brings along.
    pub(crate) fn carried(&self) -> impl Iterator<Item = &str> {
        let labels = self.session.into_iter().flat_map(SessionHistory::carried);
        labels.map(|(label, _)| label).chain(self.along.iter().copied())
    }

    pub(crate) fn sources(&self) -> i64 {
        let count = self.session.map_or(0, SessionHistory::count_sources);
        i64::try_from(count).unwrap_or(i64::MAX)
    }

    pub(crate) fn calls(&self) -> i64 {
        i64::try_from(self.session.map_or(0, |session| session.calls)).unwrap_or(i64::MAX)
    }
}

/// What policies may read of a task.
#[derive(Clone, Copy, Debug)]
pub(crate) struct TaskFacts<'a> {
    pub(crate) kind: TaskKind,
    pub(crate) template: &'a str,
    pub(crate) purpose: &'a str,
    pub(crate) depth: i64,
    pub(crate) age: i64,
}

/// Something that the evaluator's own vocabulary lacks; no bundle or request leads there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Unready(pub(crate) String);

impl Words {
    pub(crate) fn new(names: &crate::schema::SchemaNames) -> Result<Self, Unready> {
        let name = |text: &str| {
            Name::parse_unqualified_name(text)
                .map_err(|error| Unready(format!("`{text}`: {error}")))
        };
        let kind = |text: &str| name(text).map(EntityType::EntityType);
        let member = |kind: &EntityType, id: &str| Literal::EntityUID(Arc::new(uid(kind, id)));
        let members = |text: &str| {
            let kind = kind(text)?;
            let ids = names.members(text).into_iter().flatten();
            Ok(ids.map(|id| (id.clone(), member(&kind, id))).collect())
        };
        let origin = kind("Origin")?;
        let no_task_kind = member(&kind("TaskKind")?, "none");
        let no_template = member(&kind("Template")?, "none");
        let classes: EntityLiterals = members("DestinationClass")?;
        let nowhere = classes.get(NO_DESTINATION).map(|class| {
            record([
                ("class", class.clone().into()),
                ("trusted", boolean(false)),
                ("host", text("")),
                ("present", boolean(false)),
            ])
        });
        Ok(Self {
            types: Types {
                action: kind("Action")?,
                agent: kind("Agent")?,
                user: kind("User")?,
                service: kind("Service")?,
                resource: kind("Resource")?,
                role: kind("Role")?,
                label: kind("Label")?,
                system: kind("System")?,
                collection: kind("Collection")?,
                template: kind("Template")?,
            },
            kinds: members("Kind")?,
            classes,
            nowhere,
            methods: members("ProofMethod")?,
            labels: members("Label")?,
            sequences: members("Sequence")?,
            budgets: members("Budget")?,
            exceptions: members(EXCEPTION_TYPE)?,
            task_kinds: members("TaskKind")?,
            templates: members("Template")?,
            no_task: record([
                ("kind", no_task_kind.into()),
                ("template", no_template.into()),
                ("purpose", text("")),
                ("depth", long(0)),
                ("age", long(0)),
            ]),
            proofs: members("SubjectProof")?,
            origin_sets: OriginSet::all().map(|set| origin_set(&origin, set)).collect(),
            empty: Value::empty_set(None),
            label_sets: Sets::default(),
            sequence_sets: Sets::default(),
            none: SlotEnv::new(),
            datetime: name("datetime")?,
            decimal: name("decimal")?,
        })
    }

    /// The entity of an action group.
    pub(crate) fn group(&self, name: &str) -> Group {
        Group(Arc::new(Entity::with_uid(uid(&self.types.action, name))))
    }

    /// The base store of an operation.
    ///
    /// Args:
    /// * `groups`: all groups that the action is in; operations share them.
    pub(crate) fn base<'a>(
        &self,
        operation: &str,
        groups: impl Iterator<Item = &'a Group> + Clone,
    ) -> Result<Base, Unready> {
        let action = uid(&self.types.action, operation);
        let parents: HashSet<EntityUID> =
            groups.clone().map(|group| group.0.uid().clone()).collect();
        let own =
            Entity::new_with_attr_partial_value(action.clone(), [], HashSet::new(), parents, []);
        let entities = Entities::new()
            .add_entities(
                [Arc::new(own)].into_iter().chain(groups.map(|group| Arc::clone(&group.0))),
                None::<&NoEntitiesSchema>,
                // INVARIANT (closed): groups have no parents.
                TCComputation::AssumeAlreadyComputed,
                Extensions::all_available(),
            )
            .map_err(|error| Unready(error.to_string()))?;
        Ok(Base { action: Arc::new(action), entities })
    }

    /// A principal with the roles that it holds.
    pub(crate) fn principal(&self, principal: &Principal, roles: &[&str]) -> Known {
        let (kind, id, attributes) = match principal {
            Principal::Agent { spiffe_id, trust_domain } => (
                &self.types.agent,
                SmolStr::new(spiffe_id),
                [
                    ("spiffe_id", SmolStr::new(spiffe_id)),
                    ("trust_domain", SmolStr::new(trust_domain)),
                ],
            ),
            Principal::User(subject) => {
                (&self.types.user, uid_of(subject), subject_attributes(subject))
            }
            Principal::Service(subject) => {
                (&self.types.service, uid_of(subject), subject_attributes(subject))
            }
        };
        let uid = Arc::new(uid(kind, &id));
        let is_agent = matches!(principal, Principal::Agent { .. });
        Known {
            alone: is_agent.then(|| self.set(vec![Literal::EntityUID(Arc::clone(&uid))])),
            uid,
            ancestors: roles.iter().map(|role| self::uid(&self.types.role, role)).collect(),
            attributes: Attributes::Texts(attributes),
        }
    }

    /// A system as resource, for an operation that acts on no collection.
    pub(crate) fn system(&self, system: &str) -> Known {
        Known {
            uid: Arc::new(uid(&self.types.system, system)),
            ancestors: Vec::new(),
            attributes: Attributes::None,
            alone: None,
        }
    }

    /// A template as resource, for the operation that starts its tasks.
    pub(crate) fn template(&self, name: &str) -> Known {
        Known {
            uid: Arc::new(uid(&self.types.template, name)),
            ancestors: Vec::new(),
            attributes: Attributes::None,
            alone: None,
        }
    }

    /// A resource of a collection.
    ///
    /// Args:
    /// * `id`: empty for the collection as a whole.
    pub(crate) fn resource<'a>(
        &self,
        system: &str,
        collection: &str,
        id: &str,
        labels: impl Iterator<Item = &'a str>,
    ) -> Known {
        let name = if id.is_empty() { collection } else { &[collection, "/", id].concat() };
        Known {
            uid: Arc::new(uid(&self.types.resource, name)),
            ancestors: vec![
                uid(&self.types.collection, collection),
                uid(&self.types.system, system),
            ],
            attributes: Attributes::Resource {
                id: SmolStr::new(id),
                labels: labels.map(|label| uid(&self.types.label, label)).collect(),
            },
            alone: None,
        }
    }

    /// The context, of only the keys that the slice reads.
    pub(crate) fn context(&self, keys: Keys, facts: &ContextFacts<'_>) -> Result<Context, Unready> {
        let caller = &facts.caller;
        let mut map: BTreeMap<SmolStr, Value> = BTreeMap::new();
        for key in Key::ALL {
            if !keys.contains(key) {
                continue;
            }
            let value = match key {
                Key::Input => self.record_of(facts.input)?,
                Key::Tier => long(facts.tier),
                Key::Task => match &caller.task {
                    None => self.no_task.clone(),
                    Some(task) => record([
                        ("kind", known(&self.task_kinds, task.kind.as_str())?.into()),
                        ("template", known(&self.templates, task.template)?.into()),
                        ("purpose", text(task.purpose)),
                        ("depth", long(task.depth)),
                        ("age", long(task.age)),
                    ]),
                },
                Key::SubjectProof => known(&self.proofs, caller.subject_proof.as_str())?.into(),
                Key::Chain => {
                    let agents: SmallVec<[&Arc<Known>; 4]> = agents(caller.chain).collect();
                    let alone = match agents.as_slice() {
                        [agent] => agent.alone.clone(),
                        _ => None,
                    };
                    let several = || {
                        let uids = agents.iter().map(|known| Literal::EntityUID(known.uid.clone()));
                        self.set(uids.collect())
                    };
                    record([
                        ("depth", long(caller.depth)),
                        ("agents", alone.unwrap_or_else(several)),
                        ("subject", boolean(caller.subject)),
                    ])
                }
                Key::Enforcer => text(caller.enforcer),
                Key::Confidence => long(facts.confidence),
                Key::Destination => {
                    self.destination(facts.class, facts.host, facts.destination, facts.trusted)?
                }
                Key::Origins => record(ValueRole::ALL.map(|role| {
                    let set = self.origin_sets.get(facts.origins.of(role).index());
                    (role.as_str(), set.unwrap_or(&self.empty).clone())
                })),
                Key::Literals => record([("unknown", long(facts.unknown_literals))]),
                Key::Proof => record([
                    ("method", known(&self.methods, caller.method)?.into()),
                    ("bound", boolean(caller.bound)),
                    ("age", long(caller.age)),
                    ("acr", text(caller.acr)),
                ]),
                Key::Satisfied => {
                    let kinds = facts.satisfied.iter().filter_map(|kind| self.kinds.get(kind));
                    self.set(kinds.cloned().collect())
                }
                Key::Time => call(&self.datetime, &[text(&rfc3339::millis(caller.time))])?,
                Key::Session => record([
                    ("labels", self.label_set(facts.carried())),
                    ("sources", long(facts.sources())),
                    ("calls", long(facts.calls())),
                ]),
                Key::UnclearedLabels => self.label_set(facts.uncleared_labels.iter().copied()),
                Key::Remembered => self.label_set(facts.remembered.iter().copied()),
                Key::Sequences => self.sequence_sets.of(facts.sequences, || {
                    Ok((self.set(all_known(&self.sequences, facts.sequences)?), true))
                })?,
                Key::Budgets => self.set(all_known(&self.budgets, facts.budgets)?),
                Key::Exception => self.set(all_known(&self.exceptions, facts.exceptions)?),
            };
            put(&mut map, key.as_str(), value);
        }
        Ok(Context::Value(Arc::new(map)))
    }

    /// A set of labels; one that another revision of the bundle brought equals none of this one's.
    fn label_set<'a>(&self, labels: impl Iterator<Item = &'a str>) -> Value {
        let labels: SmallVec<[&str; 16]> = labels.collect();
        let member = |label: &&str| match self.labels.get(*label) {
            Some(known) => known.clone(),
            None => Literal::EntityUID(Arc::new(uid(&self.types.label, label))),
        };
        let Ok(set) = self.label_sets.of(&labels, || {
            let set = self.set(labels.iter().map(member).collect());
            Ok::<_, Infallible>((set, labels.iter().all(|label| self.labels.contains_key(*label))))
        });
        set
    }

    /// A set. Cedar's own constructors hash every member anew each time that the set grows, or sort what they have just
    /// shuffled.
    fn set(&self, members: Vec<Literal>) -> Value {
        if members.is_empty() { self.empty.clone() } else { set_of(members) }
    }

    fn destination(
        &self,
        class: &str,
        host: &str,
        present: bool,
        trusted: bool,
    ) -> Result<Value, Unready> {
        if let Some(nowhere) = &self.nowhere
            && (class, host, present, trusted) == (NO_DESTINATION, "", false, false)
        {
            return Ok(nowhere.clone());
        }
        Ok(record([
            ("class", known(&self.classes, class)?.into()),
            ("trusted", boolean(trusted)),
            ("host", text(host)),
            ("present", boolean(present)),
        ]))
    }

    // Recursion is bounded by the depth limit of the argument reader.
    fn value(&self, argument: &arguments::ArgumentValue) -> Result<Value, Unready> {
        Ok(match argument {
            arguments::ArgumentValue::Long(number) => long(*number),
            arguments::ArgumentValue::Text(string) => Literal::String(string.clone()).into(),
            arguments::ArgumentValue::Bool(value) => boolean(*value),
            arguments::ArgumentValue::Opaque => Value::empty_record(None),
            arguments::ArgumentValue::Set(items) => {
                let items =
                    items.iter().map(|item| self.value(item)).collect::<Result<Vec<_>, _>>()?;
                Value::set(items, None)
            }
            arguments::ArgumentValue::Record(members) => self.record_of(members)?,
            arguments::ArgumentValue::Decimal(number) => {
                let sign = if *number < 0 { "-" } else { "" };
                let (whole, part) =
                    (number.unsigned_abs() / 10_000, number.unsigned_abs() % 10_000);
                call(&self.decimal, &[text(&format!("{sign}{whole}.{part:04}"))])?
            }
        })
    }

    fn record_of(&self, members: &[(SmolStr, arguments::ArgumentValue)]) -> Result<Value, Unready> {
        let mut record: BTreeMap<SmolStr, Value> = BTreeMap::new();
        for (name, member) in members {
            record.insert(name.clone(), self.value(member)?);
        }
        Ok(Value::record_arc(Arc::new(record), None))
    }
}

#[expect(clippy::mutable_key_type, reason = "so Cedar's own sets are, and no literal changes")]
fn set_of(members: Vec<Literal>) -> Value {
    let authoritative = members.iter().cloned().map(Value::from).collect();
    // INVARIANT (FastRepr, of Cedar's): it is there, as all members are literals.
    let fast = Some(Arc::new(members.into_iter().collect()));
    Value::new(ValueKind::Set(Set { authoritative: Arc::new(authoritative), fast }), None)
}

/// Args: `kind`: the entity type of origins.
fn origin_set(kind: &EntityType, set: OriginSet) -> Value {
    let members = set.origins().map(|origin| uid(kind, origin.as_str()));
    set_of(members.map(|uid| Literal::EntityUID(Arc::new(uid))).collect())
}

/// The agents of a chain.
fn agents(chain: &[Arc<Known>]) -> impl Iterator<Item = &Arc<Known>> {
    chain.iter().filter(|known| known.alone.is_some())
}

fn known(members: &EntityLiterals, id: &str) -> Result<Literal, Unready> {
    members.get(id).cloned().ok_or_else(|| Unready(format!("`{id}` is not declared")))
}

fn all_known(members: &EntityLiterals, ids: &[&str]) -> Result<Vec<Literal>, Unready> {
    let mut all = Vec::with_capacity(ids.len());
    for id in ids {
        all.push(known(members, id)?);
    }
    Ok(all)
}

fn uid_of(subject: &Subject) -> SmolStr {
    format!("{}/{}", subject.issuer, subject.sub).into()
}

fn subject_attributes(subject: &Subject) -> [(&'static str, SmolStr); 2] {
    [("issuer", SmolStr::new(&subject.issuer)), ("sub", SmolStr::new(&subject.sub))]
}

fn text(text: &str) -> Value {
    Literal::String(SmolStr::new(text)).into()
}

fn long(number: i64) -> Value {
    Literal::Long(number).into()
}

fn boolean(value: bool) -> Value {
    Literal::Bool(value).into()
}

fn record<const N: usize>(members: [(&'static str, Value); N]) -> Value {
    let mut record = BTreeMap::new();
    for (name, value) in members {
        put(&mut record, name, value);
    }
    Value::record_arc(Arc::new(record), None)
}

fn put(record: &mut BTreeMap<SmolStr, Value>, name: &'static str, value: Value) {
    record.insert(SmolStr::new_static(name), value);
}

fn call(function: &Name, arguments: &[Value]) -> Result<Value, Unready> {
    let unready = |error: EvaluationError| Unready(error.to_string());
    let function =
        Extensions::all_available().func(function).map_err(|error| Unready(error.to_string()))?;
    match function.call(arguments).map_err(unready)? {
        PartialValue::Value(value) => Ok(value),
        PartialValue::Residual(_) => {
            Err(Unready("an extension function left a residual".to_owned()))
        }
    }
}

/// Judges the rules of one slice for one request.
pub(crate) struct Judge<'a> {
    words: &'a Words,
    /// What the policies of the slice read.
    keys: Keys,
    store: &'a StoreFacts<'a>,
    facts: ContextFacts<'a>,
    /// Made when the first condition needs the evaluator, as is one evaluator for each principal.
    context: OnceCell<Result<Context, Unready>>,
    evaluators: SmallVec<[OnceCell<Box<Evaluator<'a>>>; 4]>,
}

/// What the store of one request holds, and the store itself once a condition needs it; most need none.
pub(crate) struct StoreFacts<'a> {
    asks: Asks,
    base: &'a Base,
    chain: &'a [Arc<Known>],
    resource: &'a Known,
    made: OnceCell<Result<Entities, Unready>>,
}

impl<'a> StoreFacts<'a> {
    /// Args:
    /// * `asks`: what the policies of the slice can ask for.
    pub(crate) const fn new(
        asks: Asks,
        base: &'a Base,
        chain: &'a [Arc<Known>],
        resource: &'a Known,
    ) -> Self {
        Self { asks, base, chain, resource, made: OnceCell::new() }
    }

    fn entities(&self) -> Result<&Entities, Unready> {
        let made = || store(self.asks, self.base, self.chain, self.resource);
        self.made.get_or_init(made).as_ref().map_err(Clone::clone)
    }
}

/// The store of one request, with all that its policies can ask for.
///
/// INVARIANT (nothing missing): an entity that is not there has no attributes and is in no group, so a policy that asks
/// for it could fail to match.
pub(crate) fn store(
    asks: Asks,
    base: &Base,
    chain: &[Arc<Known>],
    resource: &Known,
) -> Result<Entities, Unready> {
    let (entities, chain) = match asks {
        Asks::Nothing => return Ok(Entities::new()),
        Asks::Resource => (Entities::new(), [].as_slice()),
        Asks::Everything => (base.entities.clone(), chain),
    };
    let mut known: SmallVec<[&Known; 6]> = SmallVec::new();
    for one in chain.iter().map(Arc::as_ref).chain([resource]) {
        // A uid stands once in a store; the first is the subject's.
        if !known.iter().any(|other| other.uid == one.uid) {
            known.push(one);
        }
    }
    entities
        .add_entities(
            known.into_iter().map(|one| Arc::new(one.entity())),
            None::<&NoEntitiesSchema>,
            // INVARIANT (closed): roles, collections and systems have no parents.
            TCComputation::AssumeAlreadyComputed,
            Extensions::all_available(),
        )
        .map_err(|error| Unready(error.to_string()))
}

impl<'a> Judge<'a> {
    pub(crate) fn new(
        words: &'a Words,
        keys: Keys,
        store: &'a StoreFacts<'a>,
        facts: ContextFacts<'a>,
    ) -> Self {
        let evaluators = store.chain.iter().map(|_| OnceCell::new()).collect();
        Self { words, keys, store, facts, context: OnceCell::new(), evaluators }
    }

    /// Judges a rule for the principal at `index`.
    ///
    /// INVARIANT (slice): the caller has proved the rule's action scope.
    ///
    /// # Errors
    /// The context or the store that the rule's conditions ask cannot be made.
    pub(crate) fn judge(&self, rule: &Rule, index: usize) -> Result<Verdict, Unready> {
        let (Some(principal), Some(evaluator)) =
            (self.store.chain.get(index), self.evaluators.get(index))
        else {
            return Ok(Verdict::Failed("no such principal".to_owned()));
        };
        let resource = self.store.resource;
        if !rule.resource.matches(resource) || !rule.principal.matches(principal) {
            return Ok(Verdict::NotFired);
        }
        let Some(body) = &rule.body else { return Ok(Verdict::Fired) };
        let Self { words, facts, .. } = self;
        let made = || words.context(self.keys, facts);
        let context = self.context.get_or_init(made).as_ref().map_err(Clone::clone)?;
        let entities = self.store.entities()?;
        let made = || Box::new(self.evaluator(principal, context, entities));
        let evaluator = evaluator.get_or_init(made);
        Ok(stated::verdict(evaluator.interpret(body, &words.none)))
    }

    fn evaluator(
        &self,
        principal: &Known,
        context: &Context,
        entities: &'a Entities,
    ) -> Evaluator<'a> {
        let entry =
            |uid: &Arc<EntityUID>| EntityUIDEntry::Known { euid: Arc::clone(uid), loc: None };
        let request = Request::new_unchecked(
            entry(&principal.uid),
            entry(&self.store.base.action),
            entry(&self.store.resource.uid),
            Some(context.clone()),
        );
        Evaluator::new(request, entities, Extensions::all_available())
    }
}

/// Converts a parsed policy to the stable API's form under an id, for the validator.
pub(crate) fn for_validator(policy: &Policy, id: &str) -> cedar_policy::Policy {
    policy.new_id(cedar_policy_core::ast::PolicyID::from_string(id)).into()
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]
    use super::*;
    use crate::model::{Declared, LabelKind, Location, Model};
    use crate::schema::SchemaNames;

    const NOBODY: CallerFacts<'static> = CallerFacts {
        depth: 0,
        chain: &[],
        subject: false,
        task: None,
        subject_proof: SubjectProof::Itself,
        enforcer: "",
        method: "none",
        bound: false,
        age: 0,
        acr: "",
        time: 0,
    };

    const fn before(caller: CallerFacts<'_>) -> ContextFacts<'_> {
        ContextFacts::before_request(caller)
    }

    /// INVARIANT (closed sets): a context with an undeclared name would be compared with nothing, and a forbid not fire.
    #[test]
    fn an_undeclared_name_fails_the_context() {
        let names = SchemaNames::of(&Model::default(), &std::collections::BTreeSet::new());
        let words = Words::new(&names).unwrap();
        let task =
            TaskFacts { kind: TaskKind::Root, template: "strange", purpose: "", depth: 0, age: 0 };
        for (key, facts) in [
            (Key::Task, before(CallerFacts { task: Some(task), ..NOBODY })),
            (Key::Destination, ContextFacts { class: "strange", ..before(NOBODY) }),
            (Key::Proof, before(CallerFacts { method: "strange", ..NOBODY })),
            (Key::Sequences, ContextFacts { sequences: &["strange"], ..before(NOBODY) }),
            (Key::Budgets, ContextFacts { budgets: &["strange"], ..before(NOBODY) }),
            (Key::Exception, ContextFacts { exceptions: &["strange"], ..before(NOBODY) }),
        ] {
            let mut keys = Keys::default();
            keys.insert(key);
            assert!(words.context(keys, &before(NOBODY)).is_ok(), "{key:?}");
            let error = words.context(keys, &facts).unwrap_err();
            assert_eq!(Unready("`strange` is not declared".to_owned()), error, "{key:?}");
        }
    }

    /// The verdict of a policy in a store that lacks the request's entities.
    fn without_entities(text: &str) -> (Verdict, Asks) {
        let names = SchemaNames::of(&Model::default(), &std::collections::BTreeSet::new());
        let words = Words::new(&names).unwrap();
        let parsed = syntax::parse("a.cedar", text).unwrap().remove(0);
        let rule = Rule::new(
            &parsed.policy,
            &syntax::reading(&parsed.policy),
            &mut SharedConditions::default(),
        );
        let base = words.base("mail.send", [words.group("effect:export")].iter()).unwrap();
        let bot = Principal::Agent {
            spiffe_id: "spiffe://a.example/bot".to_owned(),
            trust_domain: "a.example".to_owned(),
        };
        let chain = [Arc::new(words.principal(&bot, &[]))];
        let system = words.system("authz");
        let facts = StoreFacts::new(Asks::Nothing, &base, &chain, &system);
        let judge = Judge::new(&words, Keys::default(), &facts, before(NOBODY));
        (judge.judge(&rule, 0).unwrap(), rule.store)
    }

    #[test]
    fn a_forbid_that_reads_a_missing_entity_fails_and_is_not_skipped() {
        let (verdict, store) = without_entities(
            "forbid(principal, action, resource) when { principal.trust_domain == \"a.example\" };",
        );
        assert!(matches!(verdict, Verdict::Failed(_)), "{verdict:?}");
        assert_eq!(Asks::Everything, store, "so a plan never judges it without a store");
    }

    #[test]
    fn names_are_as_cedar_writes_them() {
        let names = SchemaNames::of(&Model::default(), &std::collections::BTreeSet::new());
        let words = Words::new(&names).unwrap();
        for id in ["", "a/b", "it's", "\"quoted\"", "back\\slash", "\u{0}\u{e9}\u{202e}"] {
            let resource = words.resource("s", "c", id, std::iter::empty());
            assert_eq!(resource.uid.to_string(), resource.uid());
        }
        assert_eq!("Resource::\"c/a\"", words.resource("s", "c", "a", std::iter::empty()).uid());
    }

    /// A cached set equals a new one, the cache is bounded, and sets with names that the bundle lacks are not cached.
    #[test]
    fn sets_of_labels_are_kept_ready() {
        let declared = || Declared { value: LabelKind::Trust, at: Location::default() };
        let labels: BTreeMap<_, _> = (0..10).map(|one| (format!("l{one}"), declared())).collect();
        let model = Model { labels: labels.clone(), ..Model::default() };
        let names = SchemaNames::of(&model, &std::collections::BTreeSet::new());
        let words = Words::new(&names).unwrap();
        let kept = || words.label_sets.0.read().unwrap().len();
        assert_eq!(words.empty, words.label_set(std::iter::empty()));
        let strange = words.label_set(["l1", "strange"].into_iter());
        assert_eq!(0, kept());
        assert_ne!(strange, words.label_set(["l1"].into_iter()));
        for bits in 1..1024_u32 {
            let of_bits = || labels.keys().enumerate().filter(|(at, _)| bits >> at & 1 == 1);
            let labels = || of_bits().map(|(_, label)| label.as_str());
            let members = labels().map(|label| words.labels.get(label).unwrap().clone());
            let made = words.set(members.collect());
            assert_eq!(made, words.label_set(labels()));
            assert_eq!(made, words.label_set(labels()));
        }
        assert_eq!(MAX_SETS, kept());
    }

    /// Of the same members in the same order one set is made; none where a member is not declared.
    #[test]
    fn a_set_is_made_once() {
        let (sets, mut made) = (Sets::default(), 0);
        let mut of = |members: &[&str], result: Result<bool, Unready>| {
            sets.of(members, || {
                made += 1;
                result.map(|is_kept| (long(made), is_kept))
            })
        };
        assert!(of(&["a"], Err(Unready(String::new()))).is_err());
        assert_eq!(long(2), of(&["a"], Ok(true)).unwrap());
        assert_eq!(long(2), of(&["a"], Err(Unready(String::new()))).unwrap());
        assert_eq!(long(3), of(&["a", "b"], Ok(false)).unwrap());
        assert_eq!(long(4), of(&["a", "b"], Ok(true)).unwrap());
        assert_eq!(long(5), of(&["b", "a"], Ok(true)).unwrap());
        assert_eq!(long(6), of(&[], Ok(true)).unwrap());
        assert_eq!(long(7), of(&[], Ok(true)).unwrap());
    }

    #[test]
    fn what_asks_the_store_is_seen_to_ask_it() {
        for (body, asks) in [
            ("principal has trust_domain", Asks::Everything),
            ("action in Action::\"effect:export\"", Asks::Everything),
            ("resource == System::\"authz\"", Asks::Everything),
            ("resource in System::\"authz\"", Asks::Everything),
            ("Agent::\"x\".trust_domain == \"y\"", Asks::Everything),
            ("resource.labels.contains(Label::\"pii\")", Asks::Resource),
            ("resource has id && resource.id like \"a/*\"", Asks::Resource),
            (
                "resource.labels.contains(Label::\"pii\") || resource in System::\"a\"",
                Asks::Everything,
            ),
            ("resource.id == \"a\" && principal.trust_domain == \"b\"", Asks::Everything),
            // What the attribute holds could be an entity, here and in a later version.
            ("resource.owner.name == \"a\"", Asks::Everything),
            ("resource.owner in Role::\"a\"", Asks::Everything),
            ("resource has owner.name", Asks::Everything),
            ("(if context.tier > 1 then resource else resource) has id", Asks::Everything),
            ("context.chain.agents.contains(Agent::\"x\")", Asks::Nothing),
            ("context.input.to == \"y\" && context.tier > 1", Asks::Nothing),
            ("context has input.to && context.input has to", Asks::Nothing),
        ] {
            let text = format!("permit(principal, action, resource) when {{ {body} }};");
            assert_eq!(asks, without_entities(&text).1, "{body}");
        }
    }
}
