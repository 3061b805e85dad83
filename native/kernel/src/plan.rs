//! A bundle, compiled: everything that a decision needs, immutable.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use authz_base::record::Session;
use authz_base::record::task::TaskView;

use crate::arguments::{ArgumentSchema, Arguments, Declared, Nulls};
use crate::decision::{PolicyEffect, Principal};
use crate::diagnostic::{Diagnostic, Diagnostics};
use crate::directories;
use crate::evaluate::met::Met;
use crate::evaluate::syntax::{ActionScope, Asks};
use crate::evaluate::{Base, Group, Known, Rule, Words};
use crate::history::{self, Budgets, Holder, Keeping, Memory, Recall, Remembering, Sequences};
use crate::mcp::Traffic;
use crate::mode::TierSet;
use crate::model::{
    Effect, Model, Operation, ParamType, Spelling, System, SystemKind, Template, Tier,
};
use crate::policy::{self, Cache, Catalog, Covered, Placed, Target};
use crate::reach::{self, Reach};
use crate::routes::RouteTable;
use crate::schema::{
    self, GIVE, GIVE_GROUP, Keys, NO_DESTINATION, Names, OWN_OPERATIONS, OWN_SYSTEM, START,
};
use crate::spelling;
use crate::stack::on_large_stack;
use crate::table::Table;

/// A compiled bundle.
#[derive(Debug)]
pub struct Plan {
    model: Model,
    warnings: Vec<Diagnostic>,
    pub(crate) policies: Vec<Placed>,
    cache: Cache,
    pub(crate) words: Words,
    met: Met,
    operations: Table<String, Prepared>,
    /// Our own operations stand beside the bundle's.
    own: Vec<Operation>,
    /// Labels of resources, by collection.
    labels: BTreeMap<String, Labels>,
    /// What the bundle asks of what was done before.
    pub(crate) recall: Recall,
    /// Rules over the order of events.
    pub(crate) sequences: Sequences,
    /// Counted limits.
    pub(crate) budgets: Budgets,
    /// What a request could have become that stopped before it was judged.
    pub(crate) reach: Reach,
}

/// The roles of a principal.
#[derive(Debug)]
pub struct Held(Arc<Known>);

impl Held {
    /// Their names.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = &str> {
        self.0.roles()
    }
}

/// Labels of one collection's resources.
#[derive(Debug, Default)]
struct Labels {
    every: Vec<String>,
    /// The collection as a whole: what any of its resources may carry.
    whole: Vec<String>,
    patterns: Vec<Pattern>,
}

/// Labels of the resources whose id matches.
#[derive(Debug)]
struct Pattern {
    /// It begins with `/`, and so matches only ids that do. Another one matches these, too: a label that is missed opens
    /// something, and one too many does not.
    is_rooted: bool,
    segments: Vec<String>,
    labels: Vec<String>,
}

impl Labels {
    fn of(model: &Model) -> BTreeMap<String, Self> {
        let of = |(name, collection): (&String, &crate::model::Collection)| {
            let mut labels =
                Self { every: collection.labels.iter().cloned().collect(), ..Self::default() };
            let mut whole = collection.labels.clone();
            for pattern in
                model.resource_patterns.iter().filter(|pattern| pattern.collection == *name)
            {
                whole.extend(pattern.labels.iter().cloned());
                let text = match collection.spelling {
                    Spelling::Exact => pattern.pattern.as_str().into(),
                    Spelling::Fold => spelling::fold(&pattern.pattern),
                };
                let is_rooted = text.starts_with('/');
                let segments = text.strip_prefix('/').unwrap_or(&text).split('/');
                let segments = segments.map(str::to_owned).collect();
                let added = pattern.labels.iter().cloned().collect();
                labels.patterns.push(Pattern { is_rooted, segments, labels: added });
            }
            labels.whole = whole.into_iter().collect();
            (name.clone(), labels)
        };
        model.collections.iter().map(of).collect()
    }
}

/// Whether an id matches a whole-segment pattern: `*` is one segment, a last `**` any number, also none.
fn matches(pattern: &Pattern, id: &str) -> bool {
    let body = match id.strip_prefix('/') {
        Some(body) => body,
        None if pattern.is_rooted => return false,
        None => id,
    };
    let mut segments = body.split('/');
    for (index, part) in pattern.segments.iter().enumerate() {
        if part == "**" && index.saturating_add(1) == pattern.segments.len() {
            return true;
        }
        match segments.next() {
            Some(segment) if part == "*" || part == segment => {}
            _ => return false,
        }
    }
    segments.next().is_none()
}

/// One operation, ready to be decided.
#[derive(Debug)]
pub(crate) struct Prepared {
    /// Position in the model's operations; beyond them, in our own.
    position: usize,
    pub(crate) arguments: Arc<ArgumentSchema>,
    pub(crate) base: Base,
    pub(crate) slice: Slice,
    /// What it has to do with what was done before.
    pub(crate) memory: Memory,
    /// For a case of a split operation: which.
    pub(crate) case: Option<Case>,
    /// Tiers that its calls may have.
    pub(crate) tiers: TierSet,
    /// JSON pointers to the arguments that rules and budgets tell events apart by; that of the resource id is not among them.
    pub(crate) keys: Box<[String]>,
    /// JSON pointer to the argument that is a URI by MCP's word.
    pub(crate) uri: Option<&'static str>,
}

/// A case of a split operation.
#[derive(Debug)]
pub(crate) struct Case {
    /// Id of the operation that is split.
    pub(crate) of: String,
    /// The value of the argument; one case may stand for its absence too.
    pub(crate) value: String,
}

/// The policies that can match an operation: the union of those on any action, on each of its groups, and on itself.
#[derive(Clone, Debug, Default)]
pub(crate) struct Slice {
    /// A copy of each rule stands in its list: one after the other in memory.
    lists: Vec<Arc<[(u32, Rule)]>>,
    /// Context keys that they read together.
    pub(crate) keys: Keys,
    /// What they can ask the entity store for.
    pub(crate) store: Asks,
}

impl Slice {
    /// Each policy once: its position, and its rule.
    pub(crate) fn policies(&self) -> impl Iterator<Item = (usize, &Rule)> + '_ {
        self.lists.iter().flat_map(|list| list.iter()).map(|(index, rule)| (*index as usize, rule))
    }
}

impl Plan {
    /// Compiles a bundle.
    ///
    /// Args:
    /// * `previous`: the plan that serves now; what did not change is not parsed and validated again.
    ///
    /// # Errors
    /// Everything that is wrong, with places. A warning of Cedar's validator refuses too.
    pub fn compile(model: Model, previous: Option<&Self>) -> Result<Self, Diagnostics> {
        Self::compile_beside(model, previous, &mut || ())
    }

    /// As [`Plan::compile`], while something else goes on that must not wait.
    ///
    /// Args:
    /// * `rest`: called again and again; it may wait.
    ///
    /// # Errors
    /// As [`Plan::compile`].
    pub fn compile_beside(
        model: Model,
        previous: Option<&Self>,
        rest: &mut (dyn FnMut() + Send),
    ) -> Result<Self, Diagnostics> {
        on_large_stack("bundle.yaml", || Self::compile_here(model, previous, rest))?
    }

    fn compile_here(
        model: Model,
        previous: Option<&Self>,
        rest: &mut (dyn FnMut() + Send),
    ) -> Result<Self, Diagnostics> {
        let mut diagnostics = Diagnostics::new();
        for warning in &model.warnings {
            diagnostics.push(warning.clone());
        }
        reserved(&model, &mut diagnostics);
        let kept = previous.map(|plan| (&plan.cache, plan.policies.as_slice()));
        let (cache, mut policies) = policy::read(&model.policies, kept, rest, &mut diagnostics);
        let names = Names::of(&model, &reauth_kinds(&policies));
        let starts = model.templates.iter().flat_map(|(name, template)| {
            [START, GIVE].map(|prefix| operation_of(prefix, name, template))
        });
        let own: Vec<Operation> =
            OWN_OPERATIONS.iter().map(|name| own_operation(name)).chain(starts).collect();
        let all: Vec<&Operation> = model.operations.iter().chain(&own).collect();
        // A server may read null as something else than an absent argument, so its own schema says where null may stand.
        let nulls = |operation: &Operation| match is_of_mcp(&model, operation) {
            true => Nulls::Refused,
            false => Nulls::Absent,
        };
        let arguments = arguments(&all, &nulls, previous, rest, &mut diagnostics);
        let groups: Vec<Vec<String>> = all.iter().map(|operation| groups_of(operation)).collect();
        rest();
        let catalog = catalog(&all, &groups, &arguments);

        let covered: Vec<Option<Covered>> = policies
            .iter()
            .map(|placed| {
                rest();
                policy::check(placed, &catalog, &names, &model, &mut diagnostics)
            })
            .collect();
        let mut prelude = names.prelude();
        for group in catalog.groups.keys() {
            prelude.push_str(&schema::group(group));
        }
        let actions: Vec<String> = all
            .iter()
            .zip(&groups)
            .zip(&catalog.inputs)
            .map(|((operation, groups), input)| {
                rest();
                schema::action(&operation.id, groups, resource_type(operation), input)
            })
            .collect();
        policy::validate(
            &mut policies,
            &covered,
            &catalog,
            &prelude,
            &actions,
            rest,
            &mut diagnostics,
        );

        let words = match Words::new(&names) {
            Ok(words) => words,
            Err(unready) => return Err(internal(diagnostics, &unready.0)),
        };
        rest();
        let labels = Labels::of(&model);
        let mut recall = Recall::of(&model, &policies);
        let written = written(&model, &recall);
        recall.is_read |= !written.is_empty();
        let (sequences, mut named) = Sequences::of(&model);
        let (budgets, mut spent) = Budgets::of(&model);
        history::recounted(&model, previous.map(|plan| &plan.budgets), &budgets, &mut diagnostics);
        history::changed(
            &model,
            previous.map(|plan| &plan.sequences),
            &sequences,
            &mut diagnostics,
        );
        history::check(&model, &policies, recall, &mut diagnostics);
        directories::check(&model, &policies, &mut diagnostics);
        ungiven(&model, &policies, &covered, &catalog, &mut diagnostics);
        rest();
        let slices = slices(&policies, &covered, &catalog, all.len(), &groups, rest);
        drop(catalog);
        let shared: BTreeMap<&str, Group> =
            all_groups(&groups).into_iter().map(|group| (group, words.group(group))).collect();
        let mut operations = Table::with_capacity_and_hasher(all.len(), Default::default());
        let prepared = all.iter().zip(&groups).zip(arguments).zip(slices).enumerate();
        for (position, (((operation, groups), arguments), slice)) in prepared {
            rest();
            let entities = groups.iter().filter_map(|group| shared.get(group.as_str()));
            let base = match words.base(&operation.id, entities) {
                Ok(base) => base,
                Err(unready) => return Err(internal(diagnostics, &unready.0)),
            };
            let collection = operation.resource.as_ref().map(|rule| rule.collection.as_str());
            let labelled = collection
                .and_then(|name| labels.get(name))
                .is_some_and(|labels| !labels.whole.is_empty());
            let named = (
                named.remove(&operation.id).unwrap_or_default(),
                spent.remove(&operation.id).unwrap_or_default(),
            );
            let own = (sequences.holders(&named.0), budgets.holders(&named.1));
            let keys: BTreeSet<&str> =
                sequences.keys(&named.0).chain(budgets.keys(&named.1)).collect();
            let id = operation.resource.as_ref().and_then(|rule| rule.id.as_deref());
            let keys = keys.into_iter().filter(|key| Some(*key) != id).map(str::to_owned).collect();
            let uri = takes_uri(&model, operation).then_some("/uri");
            let memory = Memory::of(
                &model,
                recall,
                operation,
                slice.keys,
                (labelled, collection.and_then(|name| written.get(name).copied())),
                named,
                own.0.union(own.1),
            );
            let tiers = reach::tiers_of(&model, operation);
            let case = None;
            let prepared =
                Prepared { position, arguments, base, slice, memory, case, tiers, keys, uri };
            operations.insert(operation.id.clone(), prepared);
        }
        for (of, split) in &model.splits {
            for (value, id) in &split.cases {
                if let Some(prepared) = operations.get_mut(id) {
                    prepared.case = Some(Case { of: of.clone(), value: value.clone() });
                }
            }
        }
        drop(all);
        let warnings = diagnostics.iter().cloned().collect();
        diagnostics.finish(())?;
        Ok(Self {
            reach: Reach::of(&model),
            model,
            warnings,
            policies,
            cache,
            words,
            met: Met::default(),
            operations,
            own,
            labels,
            recall,
            sequences,
            budgets,
        })
    }

    /// Frees it, while something else goes on that must not wait.
    ///
    /// Args:
    /// * `rest`: called again and again; it may wait.
    pub fn free_beside(self, rest: &mut (dyn FnMut() + Send)) {
        let Self { model, policies, cache, operations, .. } = self;
        let Model { operations: declared, policies: texts, .. } = model;
        // Each is freed where the next is asked for.
        cache.into_files().for_each(|_| rest());
        texts.into_iter().for_each(|_| rest());
        policies.into_iter().for_each(|_| rest());
        operations.into_iter().for_each(|_| rest());
        declared.into_iter().for_each(|_| rest());
    }

    /// `name` of `bundle.yaml`.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.model.name
    }

    /// The bundle's revision.
    #[must_use]
    pub fn revision(&self) -> &str {
        &self.model.revision
    }

    /// SHA-256 over the bundle's files.
    #[must_use]
    pub const fn digest(&self) -> [u8; 32] {
        self.model.digest
    }

    /// What deserves attention but refuses nothing.
    #[must_use]
    pub fn warnings(&self) -> &[Diagnostic] {
        &self.warnings
    }

    /// An operation of the bundle, also one that is split, or one of our own (`authz.…`).
    #[must_use]
    pub fn operation(&self, id: &str) -> Option<&Operation> {
        match self.operations.get(id) {
            Some(prepared) => self.source(prepared),
            None => self.model.splits.get(id).map(|split| &split.operation),
        }
    }

    /// What the schema of an operation, also of one that is split, declares of its arguments.
    #[must_use]
    pub fn declared(&self, id: &str) -> Option<&Declared> {
        let own = self.operations.get(id).or_else(|| {
            // Its cases have its schema.
            let case = self.model.splits.get(id)?.cases.values().next()?;
            self.operations.get(case)
        });
        own.map(|prepared| prepared.arguments.declared())
    }

    /// A principal with the roles that it holds.
    pub(crate) fn principal(&self, principal: &Principal) -> Arc<Known> {
        self.met.principal(&self.words, &self.model, principal)
    }

    /// The roles of a principal: sorted, each once.
    #[must_use]
    pub fn roles_of(&self, principal: &Principal) -> Held {
        Held(self.principal(principal))
    }

    /// A template of the bundle.
    #[must_use]
    pub fn template(&self, name: &str) -> Option<&Template> {
        self.model.templates.get(name)
    }

    /// Whether deciding about an operation reads and changes nothing but the task: it only reads, what it returns
    /// carries no label, it has no destination, what came before makes no difference to it, and no task of the view
    /// counts it. An operation that is split is stateless where all its cases are.
    ///
    /// Args:
    /// * `task`: the task that it is asked for in; none: without a task.
    #[must_use]
    pub fn is_stateless(&self, id: &str, task: Option<&TaskView<'_>>) -> bool {
        if let Some(split) = self.model.splits.get(id) {
            return split.cases.values().all(|case| self.is_stateless_one(case, task));
        }
        self.is_stateless_one(id, task)
    }

    /// Whether a permit of an operation leaves nothing behind that something later could depend on.
    ///
    /// Args:
    /// * `task`: the task that it is asked for in; none: without a task.
    #[must_use]
    pub fn leaves_nothing(&self, id: &str, task: Option<&TaskView<'_>>) -> bool {
        match self.model.splits.get(id) {
            Some(split) => split.cases.values().all(|case| self.leaves_nothing_one(case, task)),
            None => self.leaves_nothing_one(id, task),
        }
    }

    fn is_stateless_one(&self, id: &str, task: Option<&TaskView<'_>>) -> bool {
        let is_fresh = self
            .prepared(id)
            .is_none_or(|(_, own)| own.memory.is_none() && (task.is_none() || !own.memory.denials));
        is_fresh && self.leaves_nothing_one(id, task)
    }

    fn leaves_nothing_one(&self, id: &str, task: Option<&TaskView<'_>>) -> bool {
        let Some((operation, prepared)) = self.prepared(id) else { return false };
        let reads = operation.effects.len() == 1 && operation.effects.contains(&Effect::Read);
        let counted = |view: &TaskView<'_>| {
            view.path().any(|task| task.entries(id).1.iter().any(|entry| entry.uses.is_some()))
        };
        reads
            && !prepared.memory.changes
            && operation.destination.is_none()
            && !task.is_some_and(counted)
    }

    /// Whether an operation has to do with what its session did before, or does so later: then that must be recalled.
    #[must_use]
    pub fn recalls(&self, id: &str) -> bool {
        let one = |id: &str| self.prepared(id).is_some_and(|(_, own)| own.memory.is_recalled());
        match self.model.splits.get(id) {
            Some(split) => split.cases.values().any(|case| one(case)),
            None => one(id),
        }
    }

    /// Whether an operation has to do with what one holder's record keeps.
    #[must_use]
    pub fn recalls_of(&self, id: &str, holder: Holder, remembering: Remembering) -> bool {
        self.any_case(id, |memory| memory.recalls(holder, remembering))
    }

    /// Whether rules or budgets that name an operation are kept in one holder's record.
    #[must_use]
    pub fn counts_in(&self, id: &str, holder: Holder) -> bool {
        self.any_case(id, |memory| memory.counts_in(holder))
    }

    /// Whether what its agent remembers of other tasks matters to an operation.
    #[must_use]
    pub fn remembers(&self, id: &str) -> bool {
        self.any_case(id, |memory| memory.remembers)
    }

    /// Whether something holds of an operation, or of any case of one that is split.
    fn any_case(&self, id: &str, holds: impl Fn(&Memory) -> bool) -> bool {
        let one = |id: &str| self.prepared(id).is_some_and(|(_, own)| holds(&own.memory));
        match self.model.splits.get(id) {
            Some(split) => split.cases.values().any(|case| one(case)),
            None => one(id),
        }
    }

    /// What a new session of an agent alone begins with, of one that was kept because something was carried over to it.
    #[must_use]
    pub fn carried_over(
        &self,
        known: &history::SessionHistory,
        now: crate::decision::Time,
    ) -> history::SessionHistory {
        known.carried_over(&self.model, &|stored| self.sequences.restricts(stored), now)
    }

    /// Forgets what restricts an agent without a task, as an administrator asks: labels of strangers that were carried over to
    /// the session of the agent alone; with `denials`, also denials, steps of restricting rules, and the end that denials
    /// brought. What was revoked stays so.
    ///
    /// Returns: whether something was forgotten.
    pub fn forget_restrictions(&self, session: &mut Session, denials: bool) -> bool {
        let before = session.history.clone();
        let restricting = |stored: &str| self.sequences.restricts(stored);
        let of = (session.agent.is_none(), denials);
        session.history.forget_restrictions(&self.model, &restricting, of);
        let is_lifted = denials && session.lift_denials();
        is_lifted || session.history != before
    }

    /// What a task of an agent without a subject did, with what was carried over to the session of the agent alone.
    ///
    /// Args:
    /// * `known`: the history of the agent alone; `from`, `to`: ids of its session, and of the task.
    #[must_use]
    pub fn with_carried(
        &self,
        history: &history::SessionHistory,
        known: &history::SessionHistory,
        (from, to): (&str, &str),
        now: crate::decision::Time,
    ) -> history::SessionHistory {
        let mut joined = history.clone();
        joined.take_over(&self.carried_over(known, now), from, to);
        joined
    }

    /// Whether an operation stands for the messages of MCP that are neither a tool nor a resource nor a prompt.
    pub(crate) fn is_protocol(&self, operation: &Operation) -> bool {
        operation.name == crate::mcp::OWN && self.model.is_built_in(operation)
    }

    /// What a call of an operation moves between client and server, as far as its arguments say.
    pub(crate) fn traffic(&self, operation: &Operation, arguments: &Arguments) -> Traffic {
        match self.is_protocol(operation) {
            true => Traffic::of(arguments.json()),
            false => Traffic::OPERATION,
        }
    }

    /// Whether a message only connects to an MCP server (`initialize`, `ping`, listings): it needs no task. One that brings
    /// labels, carries data out, or counts, as the bundle says, needs one.
    pub(crate) fn only_connects(&self, operation: &Operation, traffic: Traffic) -> bool {
        self.is_protocol(operation)
            && traffic.connects
            && (!traffic.brings || operation.yields.1.is_empty())
            && (!traffic.sends || operation.destination.is_none())
            && self.prepared(&operation.id).is_some_and(|(_, own)| !own.memory.is_named())
    }

    /// Whether an operation without a task has to do with what its caller did so before, or does so later.
    ///
    /// Args:
    /// * `carries`: labels are told of the call.
    #[must_use]
    pub fn recalls_taskless(&self, id: &str, carries: bool) -> bool {
        self.model.tasks.optional && self.recall.is_read && (carries || self.recalls(id))
    }

    /// Holds that the results of an operation may carry labels.
    ///
    /// # Errors
    /// One that they may not.
    pub fn may_carry(&self, id: &str, labels: &BTreeSet<String>) -> Result<(), String> {
        let yields = self.operation(id).map(|operation| &operation.yields.1);
        let beyond =
            labels.iter().find(|label| !yields.is_some_and(|yields| yields.contains(*label)));
        match beyond {
            None => Ok(()),
            Some(label) => {
                let label = crate::diagnostic::clip(label);
                Err(format!("`{id}` does not yield the label `{label}`"))
            }
        }
    }

    /// The labels that the results of an operation carry at most, in order.
    pub fn may_yield(&self, id: &str) -> impl Iterator<Item = &String> {
        self.operation(id).into_iter().flat_map(|operation| &operation.yields.1)
    }

    /// Whether nothing happens when an operation fails.
    #[must_use]
    pub fn is_abortable(&self, id: &str) -> bool {
        self.operation(id).is_some_and(|operation| operation.abortable)
    }

    /// Whether what came before can change how an operation is judged.
    #[must_use]
    pub fn reads_history(&self, id: &str) -> bool {
        self.prepared(id).is_some_and(|(_, own)| own.memory.reads || own.memory.denials)
    }

    /// Whether a label, a destination or denials can raise the tier of an operation.
    pub(crate) fn may_raise(&self, operation: &Operation) -> bool {
        let raises = &self.model.raises;
        let mut tiers = raises.labels.values().chain(raises.classes.values());
        operation.system != OWN_SYSTEM
            && (self.model.denials.is_some() || tiers.any(|tier| *tier > operation.tier))
    }

    /// The bundle's operations, sorted by id; without our own.
    #[must_use]
    pub fn operations(&self) -> &[Operation] {
        &self.model.operations
    }

    /// The bundle's HTTP routes.
    #[must_use]
    pub const fn routes(&self) -> &RouteTable {
        &self.model.routes
    }

    /// The bundle's systems.
    #[must_use]
    pub const fn systems(&self) -> &BTreeMap<String, System> {
        &self.model.systems
    }

    /// What the bundle says.
    #[must_use]
    pub const fn model(&self) -> &Model {
        &self.model
    }

    /// The Cedar schema that the bundle's policies are validated against, in Cedar's own syntax.
    #[must_use]
    pub fn cedar_schema(&self) -> String {
        let names = Names::of(&self.model, &reauth_kinds(&self.policies));
        let all: Vec<&Operation> = self.model.operations.iter().chain(&self.own).collect();
        let groups: Vec<Vec<String>> = all.iter().map(|operation| groups_of(operation)).collect();
        let mut text = names.prelude();
        for group in all_groups(&groups) {
            text.push_str(&schema::group(group));
        }
        for (operation, groups) in all.iter().zip(&groups) {
            if let Some(prepared) = self.operations.get(&operation.id) {
                let members = prepared.arguments.members();
                text.push_str(&schema::action(
                    &operation.id,
                    groups,
                    resource_type(operation),
                    members,
                ));
            }
        }
        text
    }

    /// How many policies there are.
    #[must_use]
    pub const fn policy_count(&self) -> usize {
        self.policies.len()
    }

    /// Labels of a resource.
    ///
    /// Args:
    /// * `id`: canonical; empty for the collection as a whole, which carries what any of its resources may carry.
    pub(crate) fn labels(&self, collection: &str, id: &str) -> std::borrow::Cow<'_, [String]> {
        let Some(labels) = self.labels.get(collection) else { return Vec::new().into() };
        if id.is_empty() {
            return labels.whole.as_slice().into();
        }
        let mut all = std::borrow::Cow::Borrowed(labels.every.as_slice());
        for pattern in &labels.patterns {
            if matches(pattern, id) {
                all.to_mut().extend(pattern.labels.iter().cloned());
            }
        }
        all
    }

    pub(crate) fn prepared(&self, id: &str) -> Option<(&Operation, &Prepared)> {
        let prepared = self.operations.get(id)?;
        Some((self.source(prepared)?, prepared))
    }

    fn source(&self, prepared: &Prepared) -> Option<&Operation> {
        let list = &self.model.operations;
        list.get(prepared.position)
            .or_else(|| self.own.get(prepared.position.checked_sub(list.len())?))
    }
}

/// Collections that agents write into, and how what is written keeps labels; none where the bundle has no labels, or nothing
/// depends on them.
fn written<'a>(model: &'a Model, recall: &Recall) -> BTreeMap<&'a str, Keeping> {
    // Also what nothing of the bundle brings an enforcer may say.
    if model.labels.is_empty() || !recall.follows_labels {
        return BTreeMap::new();
    }
    let writes = |operation: &&Operation| operation.effects.contains(&Effect::Write);
    let written = model.operations.iter().filter(writes).filter_map(|one| one.resource.as_ref());
    let kept = written.filter_map(|rule| {
        let collection = model.collections.get(&rule.collection)?;
        Some((rule.collection.as_str(), collection.keeps_ms?))
    });
    let kept: BTreeMap<&str, i64> = kept.collect();
    let keeping = |(name, ms)| (name, Keeping::shared(ms, kept.len()));
    kept.iter().map(|(name, ms)| keeping((*name, *ms))).collect()
}

/// Whether an operation names a resource of an MCP server by its URI: `resources/read`, and a subscription.
fn takes_uri(model: &Model, operation: &Operation) -> bool {
    let name = operation
        .id
        .strip_prefix(operation.system.as_str())
        .and_then(|rest| rest.strip_prefix('.'));
    is_of_mcp(model, operation) && matches!(name, Some(crate::mcp::READ | crate::mcp::OWN))
}

fn is_of_mcp(model: &Model, operation: &Operation) -> bool {
    let system = model.systems.get(&operation.system);
    system.is_some_and(|system| system.kind == SystemKind::Mcp)
}

fn internal(mut diagnostics: Diagnostics, what: &str) -> Diagnostics {
    let at = crate::model::Location { file: "bundle.yaml".to_owned(), line: 0, column: 0 };
    diagnostics.error(&at, format!("the bundle gives no vocabulary: {what}"), "");
    diagnostics
}

/// Names that are ours.
fn reserved(model: &Model, diagnostics: &mut Diagnostics) {
    if let Some(system) = model.systems.get(OWN_SYSTEM) {
        diagnostics.error(
            &system.at,
            format!("the system `{OWN_SYSTEM}` is this server"),
            "Use another name.",
        );
    }
    if let Some(class) = model.destinations.get(NO_DESTINATION) {
        diagnostics.error(
            &class.at,
            format!("the destination class `{NO_DESTINATION}` stands for an operation without destination"),
            "Use another name.",
        );
    }
}

/// Warns of templates whose tasks are meant to be given to another agent, where no policy permits to give them.
fn ungiven(
    model: &Model,
    policies: &[Placed],
    covered: &[Option<Covered>],
    catalog: &Catalog<'_>,
    diagnostics: &mut Diagnostics,
) {
    let implicit = model.tasks.implicit.as_ref().map(|rule| rule.template.as_str());
    for (name, template) in &model.templates {
        let id = format!("{GIVE}{name}");
        let Some(position) = catalog.operations.get(id.as_str()) else { continue };
        let may_be_given = policies.iter().zip(covered).any(|(placed, covered)| {
            placed.policy.effect == PolicyEffect::Permit
                && covered.as_ref().is_none_or(|covered| covered.contains(*position))
        });
        // A subject that starts a task gives it to an agent; so does whoever delegates.
        let is_meant_to_be = template.max_depth > 0 || template.starters.is_empty();
        if may_be_given || !is_meant_to_be || implicit == Some(name.as_str()) {
            continue;
        }
        diagnostics.warning(
            &template.at,
            format!("no policy permits `{id}`, so nobody gives a task of `{name}` to another agent: neither a subject that starts it nor an agent that delegates it"),
            format!("Write, for example: @id(\"give-{name}\") permit(principal, action == Action::\"{id}\", resource in Role::\"ROLE\"); with the role of the agents that may get it, and who may give it."),
        );
    }
}

fn reauth_kinds(policies: &[Placed]) -> BTreeSet<String> {
    let kinds = policies.iter().filter_map(|placed| placed.policy.stepup.as_ref());
    let named = kinds.filter(|kind| {
        kind.strip_prefix("reauth:").is_some_and(|acr| {
            !acr.is_empty() && acr.len() <= 256 && !acr.contains(char::is_control)
        })
    });
    named.cloned().collect()
}

fn own_operation(name: &str) -> Operation {
    Operation {
        id: format!("{OWN_SYSTEM}.{name}"),
        system: OWN_SYSTEM.to_owned(),
        name: name.to_owned(),
        effects: BTreeSet::from([Effect::Read]),
        tier: Tier::Low,
        reviewed: true,
        drifted: false,
        yields: (BTreeSet::new(), BTreeSet::new()),
        resource: None,
        destination: None,
        input: Arc::new(serde_json::json!({"type": "object", "properties": {}})),
        abortable: false,
        at: crate::model::Location::default(),
    }
}

/// The operation that starts, or that gives, the tasks of a template; its arguments are the template's parameters.
fn operation_of(prefix: &str, name: &str, template: &Template) -> Operation {
    let kind = |kind: &ParamType| match kind {
        ParamType::String => "string",
        ParamType::Long => "integer",
        ParamType::Bool => "boolean",
    };
    let properties: serde_json::Map<String, serde_json::Value> = template
        .params
        .iter()
        .map(|(name, of)| (name.clone(), serde_json::json!({"type": kind(of)})))
        .collect();
    let required: Vec<&String> = template.params.keys().collect();
    Operation {
        id: format!("{prefix}{name}"),
        name: format!("{prefix}{name}"),
        input: Arc::new(serde_json::json!({
            "type": "object", "required": required, "properties": properties,
            "additionalProperties": false,
        })),
        at: template.at.clone(),
        ..own_operation("")
    }
}

/// The schema of each operation, taken from the previous plan where it is the same; equal ones are shared.
fn arguments(
    all: &[&Operation],
    nulls: &dyn Fn(&Operation) -> Nulls,
    previous: Option<&Plan>,
    rest: &mut (dyn FnMut() + Send),
    diagnostics: &mut Diagnostics,
) -> Vec<Arc<ArgumentSchema>> {
    let mut shared: HashMap<(String, bool), Arc<ArgumentSchema>> = HashMap::new();
    let kept = |operation: &Operation, nulls: Nulls| {
        let (old, prepared) = previous?.prepared(&operation.id)?;
        (old.input == operation.input && prepared.arguments.nulls() == nulls)
            .then(|| Arc::clone(&prepared.arguments))
    };
    let mut of = |operation: &&Operation| {
        rest();
        let nulls = nulls(operation);
        if let Some(kept) = kept(operation, nulls) {
            return kept;
        }
        let key = (operation.input.to_string(), nulls == Nulls::Refused);
        if let Some(known) = shared.get(&key) {
            return Arc::clone(known);
        }
        let schema = ArgumentSchema::compile(&operation.input).unwrap_or_else(|error| {
            diagnostics.error(
                &operation.at,
                format!("operation `{}`: {error}", operation.id),
                "Correct the operation's `input`.",
            );
            ArgumentSchema::none()
        });
        let schema = Arc::new(schema.with_nulls(nulls));
        shared.insert(key, Arc::clone(&schema));
        schema
    };
    all.iter().map(&mut of).collect()
}

pub(crate) fn groups_of(operation: &Operation) -> Vec<String> {
    let system = format!("system:{}", operation.system);
    // Our own operations do nothing to the world, so a policy on an effect is not meant for them.
    let effects = operation.effects.iter().filter(|_| operation.system != OWN_SYSTEM);
    let gives = operation.system == OWN_SYSTEM && operation.id.starts_with(GIVE);
    [system]
        .into_iter()
        .chain(gives.then(|| GIVE_GROUP.to_owned()))
        .chain(effects.map(|effect| format!("effect:{}", effect.as_str())))
        .collect()
}

fn resource_type(operation: &Operation) -> &'static str {
    match operation.resource {
        Some(_) => "Resource",
        None if operation.id.starts_with(START) => "Template",
        None if operation.id.starts_with(GIVE) => "Agent",
        None => "System",
    }
}

/// Every action group: those of effects always, also where no operation is in them.
fn all_groups(groups: &[Vec<String>]) -> BTreeSet<&str> {
    const EFFECTS: [&str; 6] = [
        "effect:read",
        "effect:write",
        "effect:delete",
        "effect:export",
        "effect:execute",
        "effect:grant",
    ];
    EFFECTS.into_iter().chain(groups.iter().flatten().map(String::as_str)).collect()
}

fn catalog<'a>(
    all: &[&'a Operation],
    groups: &'a [Vec<String>],
    arguments: &'a [Arc<ArgumentSchema>],
) -> Catalog<'a> {
    let mut catalog = Catalog::default();
    for group in all_groups(groups) {
        catalog.groups.insert(group, Vec::new());
    }
    for (position, (operation, groups)) in all.iter().zip(groups).enumerate() {
        catalog.operations.insert(&operation.id, position);
        for group in groups {
            catalog.groups.entry(group).or_default().push(position);
        }
    }
    let target = |operation: &&'a Operation| Target {
        system: &operation.system,
        is_given: operation.system == OWN_SYSTEM && operation.id.starts_with(GIVE),
        collection: operation.resource.as_ref().map(|rule| rule.collection.as_str()),
        destination: operation.destination.is_some(),
    };
    catalog.targets = all.iter().map(target).collect();
    catalog.inputs = arguments.iter().map(|schema| schema.members()).collect();
    let names = catalog.inputs.iter().flat_map(|input| input.keys());
    catalog.arguments = names.map(String::as_str).collect();
    catalog
}

fn slices(
    policies: &[Placed],
    covered: &[Option<Covered>],
    catalog: &Catalog<'_>,
    operations: usize,
    groups: &[Vec<String>],
    rest: &mut (dyn FnMut() + Send),
) -> Vec<Slice> {
    let mut any: Vec<u32> = Vec::new();
    let mut by_group: BTreeMap<&str, Vec<u32>> = BTreeMap::new();
    let mut own: Vec<Vec<u32>> = vec![Vec::new(); operations];
    for (index, (placed, covered)) in policies.iter().zip(covered).enumerate() {
        rest();
        let Ok(index) = u32::try_from(index) else { continue };
        match (&placed.policy.reading.actions, covered) {
            (_, None) => {}
            (ActionScope::Any, _) | (_, Some(Covered::All)) => any.push(index),
            (ActionScope::Of(ids), Some(Covered::Of(list))) => match ids.as_slice() {
                // One group: its list is shared by all its operations.
                [group] if catalog.groups.contains_key(group.as_str()) => {
                    by_group.entry(group).or_default().push(index);
                }
                // Several names may overlap: the policy goes to each operation once.
                _ => {
                    for position in list {
                        if let Some(own) = own.get_mut(*position) {
                            own.push(index);
                        }
                    }
                }
            },
        }
    }
    let summed = |list: Vec<u32>| {
        let rule = |index: u32| Some((index, policies.get(index as usize)?.policy.rule.clone()));
        let list: Vec<(u32, Rule)> = list.into_iter().filter_map(rule).collect();
        let keys = list.iter().fold(Keys::default(), |keys, (_, rule)| keys.union(rule.keys));
        let store = list.iter().map(|(_, rule)| rule.store).max().unwrap_or_default();
        (Arc::<[(u32, Rule)]>::from(list), keys, store)
    };
    let any = summed(any);
    let by_group: BTreeMap<&str, _> =
        by_group.into_iter().map(|(group, list)| (group, summed(list))).collect();
    groups
        .iter()
        .zip(own)
        .map(|(groups, own)| {
            rest();
            let own = summed(own);
            let shared = groups.iter().filter_map(|group| by_group.get(group.as_str()));
            let mut slice = Slice::default();
            for (list, keys, store) in [&any].into_iter().chain(shared).chain([&own]) {
                if list.is_empty() {
                    continue;
                }
                slice.lists.push(Arc::clone(list));
                slice.keys = slice.keys.union(*keys);
                slice.store = slice.store.max(*store);
            }
            slice
        })
        .collect()
}
