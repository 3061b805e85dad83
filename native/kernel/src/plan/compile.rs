//! Compiles a bundle into a plan.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use authz_bundle::bundle::Bundle;
use authz_bundle::pause::Pause;

use super::catalog::{
    all_groups, catalog, groups_of, is_of_mcp, own_operations, reauth_kinds, schema_texts,
    takes_uri,
};
use super::labels::CollectionLabels;
use super::slices::{ScopedPolicies, Slice};
use super::{Case, Plan, Prepared};
use crate::arguments::{ArgumentSchema, Nulls};
use crate::decision::{PolicyEffect, Time};
use crate::diagnostic::Diagnostics;
use crate::evaluate::met::Met;
use crate::evaluate::{Group, Unready, Words};
use crate::history::{
    self, Budgets, Holders, Keeping, Memory, MemoryRules, Recall, SequenceStep, Sequences,
};
use crate::model::{Effect, Location, Model, Operation};
use crate::policy::{self, Cache, Catalog, Covered, Placed, SchemaTexts};
use crate::reach::{self, Reach};
use crate::recipient_lists;
use crate::schema::{GIVE, Keys, NO_DESTINATION, OWN_SYSTEM, SchemaNames};
use crate::stack::on_large_stack;
use crate::table::Table;
use crate::work::CompileProgress;

/// A compiler of bundles.
///
/// ```ignore
/// let plan = PlanCompiler::new().after(serving).pausing(&mut callback).compile(bundle)?;
/// ```
#[derive(Debug, Default)]
pub struct PlanCompiler<'a> {
    previous: Option<&'a Plan>,
    without: Option<&'a str>,
    now: Option<Time>,
    pause: Pause<'a>,
}

impl<'a> PlanCompiler<'a> {
    /// A compiler without a previous plan and without pauses.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Reuses the plan that serves now: unchanged parts are not parsed and validated again.
    #[must_use]
    pub const fn after(mut self, previous: Option<&'a Plan>) -> Self {
        self.previous = previous;
        self
    }

    /// Leaves out the policy with an id, for a tool that asks what the policy changes. No server serves such a plan.
    #[must_use]
    pub const fn without(mut self, policy: Option<&'a str>) -> Self {
        self.without = policy;
        self
    }

    /// Checks the ends of observed policies at the time of loading. Default: they are not checked.
    #[must_use]
    pub const fn at(mut self, now: Time) -> Self {
        self.now = Some(now);
        self
    }

    /// Makes a callback between pieces of work.
    #[must_use]
    pub fn pausing(mut self, callback: &'a mut (dyn FnMut() + Send)) -> Self {
        self.pause = Pause::by(callback);
        self
    }

    /// Compiles a bundle.
    ///
    /// # Errors
    /// All defects, with places. A warning of Cedar's validator is a defect too.
    pub fn compile(self, bundle: Bundle) -> Result<Plan, Diagnostics> {
        let Self { previous, without, now, pause } = self;
        on_large_stack("bundle.yaml", move || {
            let work = CompileProgress { found: Diagnostics::new(), pause };
            Compilation { bundle: &bundle, model: bundle.model(), previous, without, now, work }
                .run()
                .map(|parts| parts.into_plan(bundle))
        })?
    }
}

/// One run of a compiler. Its steps are in the order of [`Compilation::run`].
struct Compilation<'a, 'p> {
    bundle: &'a Bundle,
    model: &'a Model,
    previous: Option<&'a Plan>,
    /// Id of the policy that is left out.
    without: Option<&'a str>,
    now: Option<Time>,
    work: CompileProgress<'p>,
}

/// Policies that were parsed.
struct ParsedPolicies {
    cache: Cache,
    policies: Vec<Placed>,
}

/// Operations of the bundle and of Authz, by position.
struct Operations<'a> {
    all: Vec<&'a Operation>,
    /// Action groups of each.
    groups: Vec<Vec<String>>,
    /// Argument schema of each.
    schemas: Vec<Arc<ArgumentSchema>>,
}

/// Rules about the history, compiled.
struct HistoryRules {
    recall: Recall,
    /// Parts of the history that the bundle depends on without its observed policies.
    enforced_recall: Recall,
    sequences: Sequences,
    budgets: Budgets,
    /// Relation of each operation to the sequences, by id.
    named: BTreeMap<String, Vec<SequenceStep>>,
    /// Budgets that each operation spends, by id.
    spent: BTreeMap<String, Vec<u32>>,
    /// Collections that agents write into, and how long written data keeps its labels.
    written: BTreeMap<String, Keeping>,
}

/// A plan without its bundle.
struct PlanParts {
    parsed: ParsedPolicies,
    warnings: Diagnostics,
    words: Words,
    operations: Table<String, Prepared>,
    own: Vec<Operation>,
    labels: BTreeMap<String, CollectionLabels>,
    history: HistoryRules,
    reach: Reach,
}

impl PlanParts {
    fn into_plan(self, bundle: Bundle) -> Plan {
        let ParsedPolicies { cache, policies } = self.parsed;
        let HistoryRules { recall, enforced_recall, sequences, budgets, .. } = self.history;
        Plan {
            bundle,
            warnings: self.warnings.iter().cloned().collect(),
            policies,
            cache,
            words: self.words,
            met: Met::default(),
            operations: self.operations,
            own: self.own,
            labels: self.labels,
            recall,
            enforced_recall,
            sequences,
            budgets,
            reach: self.reach,
        }
    }
}

/// Compiled parts from which operations are prepared.
struct Preparation<'a> {
    words: &'a Words,
    labels: &'a BTreeMap<String, CollectionLabels>,
    history: &'a HistoryRules,
    policies: &'a [Placed],
    /// Entities of the action groups.
    groups: BTreeMap<&'a str, Group>,
}

impl<'a> Compilation<'a, '_> {
    fn run(mut self) -> Result<PlanParts, Diagnostics> {
        for warning in &self.model.warnings {
            self.work.found.push(warning.clone());
        }
        refuse_reserved_names(self.model, &mut self.work.found);
        let mut parsed = self.parse_policies();
        let names = SchemaNames::of(self.model, &reauth_kinds(&parsed.policies));
        let own = own_operations(self.model);
        let operations = self.list_operations(&own);
        let catalog = catalog(&operations.all, &operations.groups, &operations.schemas);
        let covered = self.check_policies(&parsed.policies, &catalog, &names);
        let (modes, found) = (&self.model.modes, &mut self.work.found);
        policy::check_observed(&parsed.policies, modes, self.now, found);
        let schema = self.schema_texts(&names, &catalog, &operations);
        policy::validate(&mut parsed.policies, &covered, &catalog, &schema, &mut self.work);
        let words = Words::new(&names).map_err(|unready| self.no_vocabulary(&unready))?;
        self.work.pause.rest();
        let history = self.history_rules(&parsed.policies, &covered);
        self.check_rules(&parsed.policies, &covered, &catalog, &history);
        let scoped =
            ScopedPolicies { policies: &parsed.policies, covered: &covered, catalog: &catalog };
        let slices = scoped.slices(&operations.groups, &mut self.work.pause);
        drop(catalog);
        let labels = CollectionLabels::compile(self.model);
        let groups = all_groups(&operations.groups);
        let preparation = Preparation {
            words: &words,
            labels: &labels,
            history: &history,
            policies: &parsed.policies,
            groups: groups.into_iter().map(|group| (group, words.group(group))).collect(),
        };
        let prepared = self.prepare_operations(&operations, slices, &preparation)?;
        let parts = PlanParts {
            parsed,
            warnings: self.work.found.clone(),
            operations: prepared,
            reach: Reach::of(self.model, &self.bundle.tables().routes),
            words,
            own,
            labels,
            history,
        };
        self.work.found.finish(parts)
    }

    /// Parses the policies that the previous plan does not have.
    fn parse_policies(&mut self) -> ParsedPolicies {
        let kept = self.previous.map(|plan| (&plan.cache, plan.policies.as_slice()));
        let (cache, mut policies) = policy::read(&self.model.policies, kept, &mut self.work);
        let Some(left_out) = self.without else { return ParsedPolicies { cache, policies } };
        policies.retain(|placed| placed.policy.id != left_out);
        // The cache names policies by their positions, which have changed.
        ParsedPolicies { cache: Cache::default(), policies }
    }

    /// Lists all operations, with their groups and argument schemas.
    fn list_operations<'o>(&mut self, own: &'o [Operation]) -> Operations<'o>
    where
        'a: 'o,
    {
        let model: &'o Model = self.model;
        let all: Vec<&Operation> = model.operations.iter().chain(own).collect();
        let schemas = self.argument_schemas(&all);
        let groups = all.iter().map(|operation| groups_of(operation)).collect();
        self.work.pause.rest();
        Operations { all, groups, schemas }
    }

    /// The argument schema of each operation. A schema that the previous plan has is reused, and equal schemas are shared.
    fn argument_schemas(&mut self, all: &[&Operation]) -> Vec<Arc<ArgumentSchema>> {
        let mut shared: HashMap<(String, Nulls), Arc<ArgumentSchema>> = HashMap::new();
        let mut schemas = Vec::with_capacity(all.len());
        for operation in all {
            self.work.pause.rest();
            let nulls = nulls_of(self.model, operation);
            if let Some(kept) = self.kept_schema(operation, nulls) {
                schemas.push(kept);
                continue;
            }
            let compiled =
                shared.entry((operation.input.to_string(), nulls)).or_insert_with(|| {
                    let schema =
                        ArgumentSchema::compile(&operation.input).unwrap_or_else(|error| {
                            self.work.found.error(
                                &operation.at,
                                format!("operation `{}`: {error}", operation.id),
                                "Correct the operation's `input`.",
                            );
                            ArgumentSchema::none()
                        });
                    Arc::new(schema.with_nulls(nulls))
                });
            schemas.push(Arc::clone(compiled));
        }
        schemas
    }

    /// The schema of the previous plan, if the operation has the same input there.
    fn kept_schema(&self, operation: &Operation, nulls: Nulls) -> Option<Arc<ArgumentSchema>> {
        let (old, prepared) = self.previous?.prepared(&operation.id)?;
        (old.input == operation.input && prepared.arguments.nulls() == nulls)
            .then(|| Arc::clone(&prepared.arguments))
    }

    /// Checks each policy. Returns the operations that its scope covers; `None` for a policy with an error.
    fn check_policies(
        &mut self,
        policies: &[Placed],
        catalog: &Catalog<'_>,
        names: &SchemaNames,
    ) -> Vec<Option<Covered>> {
        let check = |placed| {
            self.work.pause.rest();
            policy::check(placed, catalog, names, self.bundle, &mut self.work.found)
        };
        policies.iter().map(check).collect()
    }

    /// The Cedar schema of the bundle, in parts.
    fn schema_texts(
        &mut self,
        names: &SchemaNames,
        catalog: &Catalog<'_>,
        operations: &Operations<'_>,
    ) -> SchemaTexts {
        let all = operations.all.iter().copied().zip(catalog.inputs.iter().copied());
        schema_texts(names, &operations.groups, all.inspect(|_| self.work.pause.rest()))
    }

    /// The diagnostics so far, with the error that Cedar's vocabulary cannot be made.
    fn no_vocabulary(&mut self, unready: &Unready) -> Diagnostics {
        let mut found = std::mem::take(&mut self.work.found);
        let at = Location { file: "bundle.yaml".to_owned(), line: 0, column: 0 };
        found.error(&at, format!("the bundle gives no vocabulary: {}", unready.0), "");
        found
    }

    /// Compiles the rules about the history.
    fn history_rules(&self, policies: &[Placed], covered: &[Option<Covered>]) -> HistoryRules {
        let mut recall = Recall::of(self.model, policies, |_| true);
        let mut enforced_recall = Recall::of(self.model, policies, is_enforced);
        let written = written_collections(self.model, recall);
        recall.is_read |= !written.is_empty();
        enforced_recall.is_read |= !written_collections(self.model, enforced_recall).is_empty();
        let (sequences, named) = Sequences::of(self.model);
        let (mut budgets, mut spent) = Budgets::of(self.model);
        // Uses of a permit that permits nothing are not counted.
        for (placed, covered) in
            policies.iter().zip(covered).filter(|(placed, _)| is_enforced(placed))
        {
            let Some((most, covered)) = placed.policy.max_uses().zip(covered.as_ref()) else {
                continue;
            };
            recall.is_read = true;
            enforced_recall.is_read = true;
            let index = budgets.add_uses(&placed.policy.id, most);
            let operations = self.model.operations.iter().enumerate();
            for (_, operation) in operations.filter(|(position, _)| covered.contains(*position)) {
                spent.entry(operation.id.clone()).or_default().push(index);
            }
        }
        HistoryRules { recall, enforced_recall, sequences, budgets, named, spent, written }
    }

    /// Reports rules that have no effect, or another effect than before.
    fn check_rules(
        &mut self,
        policies: &[Placed],
        covered: &[Option<Covered>],
        catalog: &Catalog<'_>,
        history: &HistoryRules,
    ) {
        let (model, found) = (self.model, &mut self.work.found);
        let before = self.previous;
        let budgets = before.map(|plan| &plan.budgets);
        history::recounted(model, budgets, &history.budgets, found);
        let sequences = before.map(|plan| &plan.sequences);
        history::changed(model, sequences, &history.sequences, found);
        history::check(model, policies, history.recall, found);
        recipient_lists::check(model, policies, found);
        warn_ungiven_templates(model, policies, covered, catalog, found);
        self.work.pause.rest();
    }

    /// Prepares each operation for decisions.
    fn prepare_operations(
        &mut self,
        operations: &Operations<'_>,
        slices: Vec<Slice>,
        preparation: &Preparation<'_>,
    ) -> Result<Table<String, Prepared>, Diagnostics> {
        let Operations { all, groups, schemas } = operations;
        let mut prepared = Table::with_capacity_and_hasher(all.len(), Default::default());
        let parts = all.iter().zip(groups).zip(schemas).zip(slices).enumerate();
        for (position, (((operation, groups), schema), slice)) in parts {
            self.work.pause.rest();
            let entities = groups.iter().filter_map(|group| preparation.groups.get(group.as_str()));
            let base = preparation.words.base(&operation.id, entities);
            let base = base.map_err(|unready| self.no_vocabulary(&unready))?;
            let memory = preparation.memory(self.model, operation, slice.keys);
            let is_free =
                preparation.is_free_of_history(self.model, operation, slice.enforced_keys);
            let one = Prepared {
                position,
                arguments: Arc::clone(schema),
                base,
                keys: preparation.keys(operation, &memory),
                memory,
                is_free,
                case: None,
                tiers: reach::tiers_of(self.model, operation),
                masks: self.masks(operation, &slice, preparation.policies),
                uri: takes_uri(self.model, operation).then_some("/uri"),
                slice,
            };
            prepared.insert(operation.id.clone(), one);
        }
        for (of, split) in &self.model.splits {
            for (value, id) in &split.cases {
                if let Some(prepared) = prepared.get_mut(id) {
                    prepared.case = Some(Case { of: of.clone(), value: value.clone() });
                }
            }
        }
        Ok(prepared)
    }
}

impl Compilation<'_, '_> {
    /// JSON pointers to the arguments of an operation of which no record shows anything: those of its policies and exceptions.
    fn masks(&self, operation: &Operation, slice: &Slice, policies: &[Placed]) -> Box<[String]> {
        let placed = slice.policies().filter_map(|(index, _)| policies.get(index));
        let of_policies = placed.flat_map(|placed| placed.policy.masks());
        let exceptions = self.model.exceptions.values();
        let covering = exceptions
            .filter(|one| one.operations.iter().any(|glob| glob.0.matches(&operation.id)));
        let of_exceptions =
            covering.flat_map(|one| &one.obligations).filter_map(|one| policy::mask_of(one));
        let masks: BTreeSet<&str> = of_policies.chain(of_exceptions).collect();
        masks.into_iter().map(str::to_owned).collect()
    }
}

impl Preparation<'_> {
    /// The relation of an operation to the history.
    ///
    /// `keys`: context keys that its policies read.
    fn memory(&self, model: &Model, operation: &Operation, keys: Keys) -> Memory {
        let HistoryRules { recall, sequences, budgets, named, spent, written, .. } = self.history;
        let collection = operation.resource.as_ref().map(|rule| rule.collection.as_str());
        let labels = collection.and_then(|name| self.labels.get(name));
        let named = named.get(&operation.id).cloned().unwrap_or_default();
        let spent = spent.get(&operation.id).cloned().unwrap_or_default();
        let rules = MemoryRules {
            recall: *recall,
            keys,
            has_labels: labels.is_some_and(CollectionLabels::has_any),
            keeping: collection.and_then(|name| written.get(name).copied()),
            holders: sequences.holders(&named).union(budgets.holders(&spent)),
            named,
            budgets: spent,
        };
        Memory::of(model, operation, rules)
    }

    /// Whether an operation has nothing to do with the history, its observed policies aside.
    ///
    /// `enforced_keys`: context keys that its other policies read.
    fn is_free_of_history(
        &self,
        model: &Model,
        operation: &Operation,
        enforced_keys: Keys,
    ) -> bool {
        let recall = self.history.enforced_recall;
        let collection = operation.resource.as_ref().map(|rule| rule.collection.as_str());
        let labels = collection.and_then(|name| self.labels.get(name));
        let named = self.history.named.get(&operation.id).cloned().unwrap_or_default();
        let budgets = self.history.spent.get(&operation.id).cloned().unwrap_or_default();
        let is_followed = recall.follows_labels && !model.labels.is_empty();
        let written = &self.history.written;
        let rules = MemoryRules {
            recall,
            keys: enforced_keys,
            has_labels: labels.is_some_and(CollectionLabels::has_any),
            keeping: collection.filter(|_| is_followed).and_then(|name| written.get(name).copied()),
            holders: Holders::default(),
            named,
            budgets,
        };
        Memory::of(model, operation, rules).is_none()
    }

    /// JSON pointers to the arguments by which rules and budgets tell events apart, without that of the resource id.
    fn keys(&self, operation: &Operation, memory: &Memory) -> Box<[String]> {
        let HistoryRules { sequences, budgets, .. } = self.history;
        let keys: BTreeSet<&str> =
            sequences.keys(&memory.named).chain(budgets.keys(&memory.budgets)).collect();
        let id = operation.resource.as_ref().and_then(|rule| rule.id.as_deref());
        keys.into_iter().filter(|key| Some(*key) != id).map(str::to_owned).collect()
    }
}

/// Whether a policy has a part in answers: it has no `@mode`.
fn is_enforced(placed: &Placed) -> bool {
    !placed.policy.rule.is_observed
}

/// Treatment of nulls in the arguments of an operation. A server may read null as something else than an absent argument, so its
/// own schema says where null may stand.
fn nulls_of(model: &Model, operation: &Operation) -> Nulls {
    match is_of_mcp(model, operation) {
        true => Nulls::Refused,
        false => Nulls::Absent,
    }
}

/// Collections that agents write into, and how long written data keeps its labels. Empty if the bundle has no labels, or if
/// nothing depends on them.
fn written_collections(model: &Model, recall: Recall) -> BTreeMap<String, Keeping> {
    // An enforcer may also name labels that no operation of the bundle yields.
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
    let keeping = |ms| Keeping::shared(ms, kept.len());
    kept.iter().map(|(name, ms)| ((*name).to_owned(), keeping(*ms))).collect()
}

/// Refuses names that Authz uses itself.
fn refuse_reserved_names(model: &Model, diagnostics: &mut Diagnostics) {
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

/// Warns about templates whose tasks are meant to be given to another agent, if no policy permits to give them.
fn warn_ungiven_templates(
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
                && is_enforced(placed)
                && covered.as_ref().is_none_or(|covered| covered.contains(*position))
        });
        // A subject that starts a task gives it to an agent, and an agent that delegates does too.
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
