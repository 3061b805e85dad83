//! A compiled bundle: everything that a decision needs, immutable.
//!
//! [`PlanCompiler`] makes a [`Plan`] from a bundle.

mod catalog;
mod compile;
mod labels;
mod schema_text;
mod slices;

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::Arc;

use authz_base::record::Session;
use authz_base::record::approval::{APPROVE, CONFIRM, TWO_PERSON, is_person_kind};
use authz_base::record::task::TaskView;
use authz_bundle::bundle::{Bundle, RecipientListFiles};
use authz_bundle::pause::Pause;

use crate::arguments::{ArgumentSchema, Arguments, DeclaredMembers};
use crate::decision::{Principal, Time};
use crate::destinations::DestinationIndex;
use crate::diagnostic::{Diagnostic, Diagnostics};
use crate::evaluate::met::Met;
use crate::evaluate::{Base, Known, Words};
use crate::history::{
    self, Budgets, Holder, Memory, Recall, Remembering, Renewal, Sequences, StoredRules,
};
use crate::mcp::Traffic;
use crate::mode::{ObservingRule, TierSet};
use crate::model::{BREAKGLASS, Effect, Model, Operation, System, Template, TierApproval};
use crate::policy::{Cache, Placed, SchemaTexts};
use crate::reach::Reach;
use crate::recipient_lists::{RecipientListSummary, RecipientLists};
use crate::roles::RoleIndex;
use crate::routes::RouteTable;
use crate::schema::{Key, OWN_SYSTEM, SchemaNames};
use crate::table::Table;

pub(crate) use catalog::{groups_of, resource_type};
use catalog::{reauth_kinds, schema_texts};
use labels::CollectionLabels;
use slices::Slice;

pub use compile::PlanCompiler;

/// A compiled bundle.
#[derive(Debug)]
pub struct Plan {
    bundle: Bundle,
    warnings: Vec<Diagnostic>,
    pub(crate) policies: Vec<Placed>,
    cache: Cache,
    pub(crate) words: Words,
    met: Met,
    operations: Table<String, Prepared>,
    /// Authz's own operations, which stand beside the bundle's.
    own: Vec<Operation>,
    /// Labels of resources, by collection.
    labels: BTreeMap<String, CollectionLabels>,
    /// Parts of the history that the bundle depends on.
    pub(crate) recall: Recall,
    /// Parts of the history that the bundle depends on without its observed policies.
    pub(crate) enforced_recall: Recall,
    /// Rules over the order of events.
    pub(crate) sequences: Sequences,
    /// Counted limits.
    pub(crate) budgets: Budgets,
    /// Systems and tiers that a request may have that stopped before it was judged.
    pub(crate) reach: Reach,
}

/// The roles of a principal.
#[derive(Debug)]
pub struct HeldRoles(Arc<Known>);

impl HeldRoles {
    /// Their names.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = &str> {
        self.0.roles()
    }
}

/// A label that the results of an operation may not carry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LabelError {
    operation: String,
    label: String,
}

impl fmt::Display for LabelError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "`{}` does not yield the label `{}`", self.operation, self.label)
    }
}

impl std::error::Error for LabelError {}

/// One operation, ready to be decided.
#[derive(Debug)]
pub(crate) struct Prepared {
    /// Position in the model's operations; beyond them, in Authz's own.
    position: usize,
    pub(crate) arguments: Arc<ArgumentSchema>,
    pub(crate) base: Base,
    pub(crate) slice: Slice,
    /// Relation of the operation to the history.
    pub(crate) memory: Memory,
    /// The operation has nothing to do with the history, its observed policies aside. Those make no call need a task.
    pub(crate) is_free: bool,
    /// The case, if it is one of a split operation.
    pub(crate) case: Option<Case>,
    /// Tiers that its calls may have.
    pub(crate) tiers: TierSet,
    /// JSON pointers to the arguments by which rules and budgets tell events apart, without that of the resource id.
    pub(crate) keys: Box<[String]>,
    /// JSON pointers to the arguments of which no record shows anything.
    pub(crate) masks: Box<[String]>,
    /// JSON pointer to the argument that MCP defines as a URI.
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

impl Plan {
    /// Compiles a bundle with [`PlanCompiler`], without pauses.
    ///
    /// `previous`: the plan that serves now; unchanged parts are not parsed and validated again.
    ///
    /// # Errors
    /// All defects, with places. A warning of Cedar's validator is a defect too.
    pub fn compile(bundle: Bundle, previous: Option<&Self>) -> Result<Self, Diagnostics> {
        PlanCompiler::new().after(previous).compile(bundle)
    }

    /// Frees the plan in pieces, with pauses between them.
    pub fn free(self, mut pause: Pause<'_>) {
        let Self { bundle, policies, cache, operations, .. } = self;
        let (model, tables) = bundle.into_parts();
        let Model { operations: declared, policies: texts, .. } = model;
        // An iterator frees each item when it moves on to the next one.
        cache.into_files().for_each(|_| pause.rest());
        texts.into_iter().for_each(|_| pause.rest());
        policies.into_iter().for_each(|_| pause.rest());
        operations.into_iter().for_each(|_| pause.rest());
        declared.into_iter().for_each(|_| pause.rest());
        drop(tables);
    }

    /// `name` of `bundle.yaml`.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.model().name
    }

    /// The bundle's revision.
    #[must_use]
    pub fn revision(&self) -> &str {
        &self.model().revision
    }

    /// SHA-256 over the bundle's files.
    #[must_use]
    pub const fn digest(&self) -> [u8; 32] {
        self.model().digest
    }

    /// Warnings about the bundle.
    #[must_use]
    pub fn warnings(&self) -> &[Diagnostic] {
        &self.warnings
    }

    /// An operation of the bundle, also one that is split, or one of our own (`authz.…`).
    #[must_use]
    pub fn operation(&self, id: &str) -> Option<&Operation> {
        match self.operations.get(id) {
            Some(prepared) => self.source(prepared),
            None => self.model().splits.get(id).map(|split| &split.operation),
        }
    }

    /// Arguments that the schema of an operation declares. The cases of a split operation have its schema.
    #[must_use]
    pub fn declared(&self, id: &str) -> Option<&DeclaredMembers> {
        let own = self.operations.get(id).or_else(|| {
            let case = self.model().splits.get(id)?.cases.values().next()?;
            self.operations.get(case)
        });
        own.map(|prepared| prepared.arguments.declared())
    }

    /// JSON pointers to the arguments of an operation of which no record shows anything; of one that is split, those of all its
    /// cases.
    #[must_use]
    pub fn masked_arguments(&self, id: &str) -> Vec<&str> {
        let of = |id: &str| self.operations.get(id).map_or(&[][..], |own| &own.masks);
        let masks: Vec<&String> = match self.model().splits.get(id) {
            Some(split) => split.cases.values().flat_map(|case| of(case)).collect(),
            None => of(id).iter().collect(),
        };
        masks.into_iter().map(String::as_str).collect()
    }

    /// A principal with the roles that it holds.
    pub(crate) fn principal(&self, principal: &Principal) -> Arc<Known> {
        self.met.principal(&self.words, self.roles(), principal)
    }

    /// The roles of a principal: sorted, each once.
    #[must_use]
    pub fn roles_of(&self, principal: &Principal) -> HeldRoles {
        HeldRoles(self.principal(principal))
    }

    /// A template of the bundle.
    #[must_use]
    pub fn template(&self, name: &str) -> Option<&Template> {
        self.model().templates.get(name)
    }

    /// Whether deciding about an operation reads and changes nothing but the task: it only reads, what it returns
    /// carries no label, it has no destination, what came before makes no difference to it, and no task of the view
    /// counts it. An operation that is split is stateless where all its cases are.
    ///
    /// Args:
    /// * `task`: the task of the request. `None`: without a task.
    #[must_use]
    pub fn is_stateless(&self, id: &str, task: Option<&TaskView<'_>>) -> bool {
        if let Some(split) = self.model().splits.get(id) {
            return split.cases.values().all(|case| self.is_stateless_one(case, task));
        }
        self.is_stateless_one(id, task)
    }

    /// Whether a permit of an operation leaves nothing behind that something later could depend on.
    ///
    /// Args:
    /// * `task`: the task of the request. `None`: without a task.
    #[must_use]
    pub fn leaves_nothing(&self, id: &str, task: Option<&TaskView<'_>>) -> bool {
        match self.model().splits.get(id) {
            Some(split) => split.cases.values().all(|case| self.leaves_nothing_one(case, task)),
            None => self.leaves_nothing_one(id, task),
        }
    }

    fn is_stateless_one(&self, id: &str, task: Option<&TaskView<'_>>) -> bool {
        let is_fresh = self
            .prepared(id)
            .is_none_or(|(_, own)| own.is_free && (task.is_none() || !own.memory.denials));
        is_fresh && self.is_passing(id, task)
    }

    fn leaves_nothing_one(&self, id: &str, task: Option<&TaskView<'_>>) -> bool {
        self.is_passing(id, task)
            && self.prepared(id).is_some_and(|(_, prepared)| !prepared.memory.changes)
    }

    /// Whether a call of an operation only reads, has no destination, and is not counted by a task of the view.
    fn is_passing(&self, id: &str, task: Option<&TaskView<'_>>) -> bool {
        let Some(operation) = self.prepared(id).map(|(operation, _)| operation) else {
            return false;
        };
        let reads = operation.effects.len() == 1 && operation.effects.contains(&Effect::Read);
        let counted = |view: &TaskView<'_>| {
            view.path().any(|task| task.entries(id).1.iter().any(|entry| entry.uses.is_some()))
        };
        reads && operation.destination.is_none() && !task.is_some_and(counted)
    }

    /// Whether an operation depends on the history of its session, or changes it. Then the history must be recalled.
    #[must_use]
    pub fn recalls(&self, id: &str) -> bool {
        let one = |id: &str| self.prepared(id).is_some_and(|(_, own)| own.memory.is_recalled());
        match self.model().splits.get(id) {
            Some(split) => split.cases.values().any(|case| one(case)),
            None => one(id),
        }
    }

    /// Whether the words of the task's prompts, and the values that the session knows, can matter to an operation: policies read
    /// where its values come from, or its result may introduce values.
    #[must_use]
    pub fn reads_origins(&self, id: &str) -> bool {
        let one = |id: &str| {
            self.prepared(id).is_some_and(|(operation, prepared)| {
                let keys = prepared.slice.keys;
                keys.contains(Key::Origins)
                    || keys.contains(Key::Literals)
                    || operation.origins.introduces_values()
            })
        };
        match self.model().splits.get(id) {
            Some(split) => split.cases.values().any(|case| one(case)),
            None => one(id),
        }
    }

    /// Whether policies of an operation, or of any case of one that is split, read `context.exception`.
    #[must_use]
    pub fn reads_exceptions(&self, id: &str) -> bool {
        let one = |id: &str| {
            self.prepared(id).is_some_and(|(_, own)| own.slice.keys.contains(Key::Exception))
        };
        match self.model().splits.get(id) {
            Some(split) => split.cases.values().any(|case| one(case)),
            None => one(id),
        }
    }

    /// Ids of the operations of a system for which a policy accepts break-glass.
    pub fn operations_with_breakglass<'a>(
        &'a self,
        system: &'a str,
    ) -> impl Iterator<Item = &'a str> {
        let accepts = |id: &str| {
            let slice = self.prepared(id).map(|(_, own)| &own.slice);
            let indexes = slice.into_iter().flat_map(|slice| slice.policies());
            let mut placed = indexes.filter_map(|(index, _)| self.policies.get(index));
            placed.any(|placed| placed.policy.exceptions().any(|name| name == BREAKGLASS))
        };
        let of_system = self.operations().iter().filter(move |one| one.system == system);
        of_system.map(|one| one.id.as_str()).filter(move |id| accepts(id))
    }

    /// Whether an operation depends on the record of one holder.
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
        match self.model().splits.get(id) {
            Some(split) => split.cases.values().any(|case| one(case)),
            None => one(id),
        }
    }

    /// What a new session of an agent alone begins with, of one that was kept because something was carried over to it.
    #[must_use]
    pub fn carried_over(
        &self,
        known: &history::SessionHistory,
        now: Time,
    ) -> history::SessionHistory {
        known.carried_over(&self.bundle, &|stored| self.sequences.restricts(stored), now)
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
        session.history.forget_restrictions(&self.bundle, &restricting, of);
        let is_lifted = denials && session.lift_denials();
        is_lifted || session.history != before
    }

    /// History of a task of an agent without a subject, together with the history that was carried over to the session of the
    /// agent alone.
    ///
    /// Args:
    /// * `known`: the history of the agent alone; `from`, `to`: ids of its session, and of the task.
    #[must_use]
    pub fn with_carried(
        &self,
        history: &history::SessionHistory,
        known: &history::SessionHistory,
        (from, to): (&str, &str),
        now: Time,
    ) -> history::SessionHistory {
        let mut joined = history.clone();
        joined.take_over(&self.carried_over(known, now), from, to);
        joined
    }

    /// Whether an operation stands for the messages of MCP that are neither a tool nor a resource nor a prompt.
    pub(crate) fn is_protocol(&self, operation: &Operation) -> bool {
        operation.name == crate::mcp::OWN && self.model().is_built_in(operation)
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

    /// Whether an operation without a task depends on the history of its caller without tasks, or changes it.
    ///
    /// Args:
    /// * `carries`: labels are told of the call.
    #[must_use]
    pub fn recalls_taskless(&self, id: &str, carries: bool) -> bool {
        self.model().tasks.optional && self.recall.is_read && (carries || self.recalls(id))
    }

    /// Checks that the results of an operation may carry labels.
    ///
    /// # Errors
    /// A label that they may not carry.
    pub fn may_carry(&self, id: &str, labels: &BTreeSet<String>) -> Result<(), LabelError> {
        let yields = self.operation(id).map(|operation| &operation.yields.1);
        let beyond =
            labels.iter().find(|label| !yields.is_some_and(|yields| yields.contains(*label)));
        match beyond {
            None => Ok(()),
            Some(label) => {
                let label = crate::diagnostic::clip(label).to_owned();
                Err(LabelError { operation: id.to_owned(), label })
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

    /// Whether earlier events can change the decision about an operation.
    #[must_use]
    pub fn reads_history(&self, id: &str) -> bool {
        self.prepared(id).is_some_and(|(_, own)| own.memory.reads || own.memory.denials)
    }

    /// Whether a label, a destination or denials can raise the tier of an operation.
    pub(crate) fn may_raise(&self, operation: &Operation) -> bool {
        let raises = &self.model().raises;
        let mut tiers = raises.labels.values().chain(raises.classes.values());
        operation.system != OWN_SYSTEM
            && (self.model().denials.is_some() || tiers.any(|tier| *tier > operation.tier))
    }

    /// The bundle's operations, sorted by id; without our own.
    #[must_use]
    pub fn operations(&self) -> &[Operation] {
        &self.model().operations
    }

    /// The bundle's HTTP routes.
    #[must_use]
    pub fn routes(&self) -> &RouteTable {
        &self.bundle.tables().routes
    }

    /// The bundle's roles by agent and subject.
    #[must_use]
    pub fn roles(&self) -> &RoleIndex {
        &self.bundle.tables().roles
    }

    /// The bundle's destination classes.
    #[must_use]
    pub fn destinations(&self) -> &DestinationIndex {
        &self.bundle.tables().destinations
    }

    /// The bundle's recipient lists that are files, all of them fresh.
    #[must_use]
    pub fn fresh_recipient_lists(&self) -> RecipientLists {
        self.bundle.fresh_recipient_lists()
    }

    /// The bundle's recipient lists at their age; see [`RecipientLists::aged`].
    #[must_use]
    pub fn aged_recipient_lists(
        &self,
        fetched: &RecipientListFiles,
        as_of: &BTreeMap<String, Time>,
    ) -> RecipientLists {
        let files = &self.bundle.tables().recipient_lists;
        RecipientLists::aged(self.model(), files, fetched, as_of)
    }

    /// The bundle's recipient lists, as shown to people, by name.
    pub fn recipient_lists(&self) -> impl Iterator<Item = RecipientListSummary<'_>> {
        RecipientListSummary::all(&self.bundle)
    }

    /// Compares the progress of this plan's rules with that of a plan before.
    #[must_use]
    pub fn renewal(&self, before: &Self) -> Renewal {
        Renewal::of(&before.stored_rules(), &self.stored_rules())
    }

    /// The names under which the progress of each rule is stored.
    fn stored_rules(&self) -> StoredRules<'_> {
        StoredRules::of(&self.sequences, &self.budgets)
    }

    /// The bundle's systems.
    #[must_use]
    pub fn systems(&self) -> &BTreeMap<String, System> {
        &self.model().systems
    }

    /// Step-up kinds of policies, tiers and templates that people lift.
    #[must_use]
    pub fn person_kinds(&self) -> BTreeSet<String> {
        let model = self.model();
        let policies = self.policies.iter().filter_map(|placed| placed.policy.stepup.as_deref());
        let tiers = model.tiers.iter().filter_map(|tier| match tier.approval {
            TierApproval::None => None,
            TierApproval::Confirm => Some(CONFIRM),
            TierApproval::Approve => Some(APPROVE),
            TierApproval::TwoPerson => Some(TWO_PERSON),
        });
        let templates = model.templates.values().filter_map(|one| one.beyond.as_deref());
        let kinds = policies.chain(tiers).chain(templates);
        kinds.filter(|kind| is_person_kind(kind)).map(str::to_owned).collect()
    }

    /// Entries of `mode` and policies that observe, also those that have ended.
    pub fn observing(&self) -> impl Iterator<Item = ObservingRule<'_>> {
        let modes = &self.model().modes;
        let policies = self.policies.iter().filter_map(|placed| placed.observing(modes));
        modes.observing().chain(policies)
    }

    /// Ids of the policies with `@mode("observe")`.
    pub fn observed_policies(&self) -> impl Iterator<Item = &str> {
        let observed = self.policies.iter().filter(|placed| placed.policy.rule.is_observed);
        observed.map(|placed| placed.policy.id.as_str())
    }

    /// The bundle as plain values.
    #[must_use]
    pub const fn model(&self) -> &Model {
        self.bundle.model()
    }

    /// The bundle: its model and its look-up tables.
    #[must_use]
    pub const fn bundle(&self) -> &Bundle {
        &self.bundle
    }

    /// The Cedar schema that the bundle's policies are validated against, in Cedar's own syntax.
    #[must_use]
    pub fn cedar_schema(&self) -> String {
        let names = SchemaNames::of(self.model(), &reauth_kinds(&self.policies));
        let all = self.model().operations.iter().chain(&self.own);
        let all = all.filter_map(|operation| {
            Some((operation, self.operations.get(&operation.id)?.arguments.members()))
        });
        let groups: Vec<Vec<String>> =
            all.clone().map(|(operation, _)| groups_of(operation)).collect();
        let SchemaTexts { prelude, actions } = schema_texts(&names, &groups, all);
        prelude + &actions.concat()
    }

    /// The bundle's operations, and those of Authz itself.
    pub(crate) fn all_operations(&self) -> impl Iterator<Item = &Operation> {
        self.model().operations.iter().chain(&self.own)
    }

    /// Step-up kinds `reauth:…` that policies name.
    pub(crate) fn reauth_kinds(&self) -> BTreeSet<String> {
        reauth_kinds(&self.policies)
    }

    /// How many policies there are.
    #[must_use]
    pub const fn policy_count(&self) -> usize {
        self.policies.len()
    }

    /// Labels of a resource.
    ///
    /// `id`: in canonical form; empty for the collection as a whole, which carries the labels of all its resources.
    pub(crate) fn labels(&self, collection: &str, id: &str) -> Cow<'_, [String]> {
        self.labels.get(collection).map_or_else(Cow::default, |labels| labels.of(id))
    }

    pub(crate) fn prepared(&self, id: &str) -> Option<(&Operation, &Prepared)> {
        let prepared = self.operations.get(id)?;
        Some((self.source(prepared)?, prepared))
    }

    fn source(&self, prepared: &Prepared) -> Option<&Operation> {
        let list = &self.model().operations;
        list.get(prepared.position)
            .or_else(|| self.own.get(prepared.position.checked_sub(list.len())?))
    }
}
