//! Shadow: a second bundle beside the serving bundle. It judges the same calls on the same facts, and no answer depends on it.
//!
//! INVARIANT (honest gaps): the records of sessions follow the rules of the bundle that serves. A call whose shadow decision
//! would need other records, or other facts, is not compared, and never counts as equal.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use authz_bundle::bundle::RecipientListFiles;

use crate::decision::{Facts, Time};
use crate::model::{LabelKind, Model, RecipientListSource};
use crate::plan::{Plan, Prepared};
use crate::recipient_lists::RecipientLists;
use crate::schema::{Key, OWN_SYSTEM};
use crate::task::{TaskKind, TaskView};

/// A bundle that judges beside the serving bundle.
#[derive(Debug)]
pub struct ShadowPlan {
    plan: Arc<Plan>,
    /// Its recipient lists.
    recipient_lists: RecipientLists,
    /// The state of one of its recipient lists is not known.
    lacks_lists: bool,
    /// Labels, or what brings them, are declared otherwise.
    has_other_labels: bool,
    /// A request may have another route.
    has_other_routes: bool,
}

/// Why a call is not compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ShadowGap {
    /// The call was refused before a policy was judged.
    NotJudged,
    /// The shadow bundle lacks the system.
    System,
    /// The bundles route requests differently, and the call came by a route.
    Routes,
    /// The template of the task, or the tasks of agents that work without tasks, are declared otherwise.
    Task,
    /// People approved the call, under the rules of the bundle that serves.
    Approval,
    /// The shadow decision depends on labels that the bundles declare, or bring into sessions, differently.
    Labels,
    /// The shadow decision depends on a history that the bundle that serves does not keep.
    History,
    /// The shadow decision depends on a recipient list that this node does not have.
    RecipientLists,
    /// The shadow decision failed.
    Failed,
}

impl ShadowGap {
    /// All causes.
    pub const ALL: [Self; 9] = [
        Self::NotJudged,
        Self::System,
        Self::Routes,
        Self::Task,
        Self::Approval,
        Self::Labels,
        Self::History,
        Self::RecipientLists,
        Self::Failed,
    ];

    /// The word in metrics.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::NotJudged => "not_judged",
            Self::System => "system",
            Self::Routes => "routes",
            Self::Task => "task",
            Self::Approval => "approval",
            Self::Labels => "labels",
            Self::History => "history",
            Self::RecipientLists => "recipient_lists",
            Self::Failed => "failed",
        }
    }
}

/// A call, as the comparison of two bundles needs it.
#[derive(Clone, Copy, Debug)]
pub struct ShadowCall<'a> {
    /// Operation that the bundle that serves resolved.
    pub operation: &'a str,
    /// The operation was found by a route.
    pub is_routed: bool,
}

impl ShadowPlan {
    /// Compares a bundle with the serving bundle.
    ///
    /// Args:
    /// * `fetched`, `as_of`: as of [`Plan::aged_recipient_lists`], for the bundle that serves.
    #[must_use]
    pub fn new(
        plan: Arc<Plan>,
        serving: &Plan,
        fetched: &RecipientListFiles,
        as_of: &BTreeMap<String, Time>,
    ) -> Self {
        let (own, other) = (plan.model(), serving.model());
        let lacks = |(name, rule): (&String, &crate::model::RecipientListRule)| {
            let is_same = other.recipient_lists.get(name).is_some_and(|served| {
                (&served.from, &served.column, &served.alias)
                    == (&rule.from, &rule.column, &rule.alias)
            });
            let is_fetched = matches!(rule.from, RecipientListSource::Url(_));
            !is_same && (is_fetched || rule.max_age.is_some())
        };
        Self {
            recipient_lists: plan.aged_recipient_lists(fetched, as_of),
            lacks_lists: own.recipient_lists.iter().any(lacks),
            has_other_labels: LabelFacts::of(own) != LabelFacts::of(other),
            has_other_routes: routes_of(own) != routes_of(other),
            plan,
        }
    }

    /// The bundle.
    #[must_use]
    pub const fn plan(&self) -> &Arc<Plan> {
        &self.plan
    }

    /// The bundle's recipient lists.
    #[must_use]
    pub const fn recipient_lists(&self) -> &RecipientLists {
        &self.recipient_lists
    }

    /// Why the decision of this bundle about a call cannot be compared with that of the bundle that serves. `None`: it can.
    #[must_use]
    pub fn gap(
        &self,
        serving: &Plan,
        facts: &Facts<'_>,
        call: ShadowCall<'_>,
    ) -> Option<ShadowGap> {
        let (model, id) = (self.plan.model(), call.operation);
        let system = id.split_once('.').map_or("", |(system, _)| system);
        if system != OWN_SYSTEM && !model.systems.contains_key(system) {
            return Some(ShadowGap::System);
        }
        if call.is_routed && self.has_other_routes {
            return Some(ShadowGap::Routes);
        }
        if self.has_other_task(serving, facts) {
            return Some(ShadowGap::Task);
        }
        if !facts.proof.satisfied.is_empty() {
            return Some(ShadowGap::Approval);
        }
        let own: Vec<&Prepared> = match model.splits.get(id) {
            Some(split) => split.cases.values().filter_map(|case| self.prepared(case)).collect(),
            None => self.prepared(id).into_iter().collect(),
        };
        let has_gap = |test: &dyn Fn(&Prepared) -> bool| own.iter().any(|own| test(own));
        if has_gap(&|own| self.needs_other_labels(serving, own)) {
            return Some(ShadowGap::Labels);
        }
        if has_gap(&|own| self.needs_other_history(serving, id, own)) {
            return Some(ShadowGap::History);
        }
        let reads_lists = |own: &Prepared| {
            let keys = own.slice.keys;
            keys.contains(Key::Destination)
                || keys.contains(Key::UnclearedLabels)
                || keys.contains(Key::Origins)
                || keys.contains(Key::Literals)
                || !model.raises.classes.is_empty()
        };
        (self.lacks_lists && has_gap(&reads_lists)).then_some(ShadowGap::RecipientLists)
    }

    fn prepared(&self, id: &str) -> Option<&Prepared> {
        self.plan.prepared(id).map(|(_, prepared)| prepared)
    }

    /// Whether the call's task, or its session without a task, would be another one under this bundle.
    fn has_other_task(&self, serving: &Plan, facts: &Facts<'_>) -> bool {
        let (own, other) = (self.plan.model(), serving.model());
        let Some(view) = facts.task.and_then(TaskView::real) else {
            return own.tasks.implicit != other.tasks.implicit;
        };
        if view.task.kind == TaskKind::Implicit && own.tasks.implicit != other.tasks.implicit {
            return true;
        }
        let digest = |model: &Model, name: &str| model.templates.get(name).map(|one| one.digest());
        view.path().any(|task| digest(own, &task.template) != digest(other, &task.template))
    }

    /// Whether the decision depends on carried labels, and sessions would carry other labels under this bundle.
    fn needs_other_labels(&self, serving: &Plan, own: &Prepared) -> bool {
        let keys = own.slice.keys;
        let model = self.plan.model();
        let reads = [Key::Session, Key::UnclearedLabels, Key::Remembered];
        let reads_labels = reads.into_iter().any(|key| keys.contains(key))
            || !model.raises.labels.is_empty()
            || own.memory.objects;
        let (mine, theirs) = (self.plan.recall, serving.recall);
        reads_labels && (self.has_other_labels || (mine.follows_labels && !theirs.follows_labels))
    }

    /// Whether the decision depends on counts or events that the bundle that serves does not keep, or keeps for another rule.
    fn needs_other_history(&self, serving: &Plan, id: &str, own: &Prepared) -> bool {
        let keys = own.slice.keys;
        let (mine, theirs) = (self.plan.recall, serving.recall);
        let reads_values = keys.contains(Key::Origins) || keys.contains(Key::Literals);
        let (denials, served) = (self.plan.model().denials, serving.model().denials);
        (keys.contains(Key::Session) && mine.counts_calls && !theirs.counts_calls)
            || (reads_values && !serving.reads_origins(id))
            || (reads_values && mine.knows_values && !theirs.knows_values)
            || denials != served
            || !serving.sequences.has_all(self.plan.sequences.kept_as(&own.memory.named))
            || !serving.budgets.has_all(self.plan.budgets.kept_as(&own.memory.budgets))
    }
}

/// Declarations of one operation that determine which labels its calls bring.
#[derive(PartialEq, Eq)]
struct OperationLabels<'a> {
    id: &'a str,
    yields: &'a (BTreeSet<String>, BTreeSet<String>),
    collection: Option<&'a str>,
}

/// Declarations that determine which labels sessions, agents and written objects carry.
#[derive(PartialEq, Eq)]
struct LabelFacts<'a> {
    kinds: BTreeMap<&'a str, LabelKind>,
    derives: &'a BTreeMap<String, crate::model::Derive>,
    patterns: &'a [crate::model::ResourcePattern],
    collections: BTreeMap<&'a str, (&'a BTreeSet<String>, Option<i64>)>,
    operations: Vec<OperationLabels<'a>>,
    memory: Vec<(Vec<&'a str>, crate::model::AgentMemory)>,
}

impl<'a> LabelFacts<'a> {
    fn of(model: &'a Model) -> Self {
        let operations = model.operations.iter().map(|one| OperationLabels {
            id: &one.id,
            yields: &one.yields,
            collection: one.resource.as_ref().map(|rule| rule.collection.as_str()),
        });
        let memory = model.roles.values().filter(|role| !role.agents.is_empty()).map(|role| {
            (role.agents.iter().map(|agent| agent.value.as_str()).collect(), role.memory)
        });
        Self {
            kinds: model.labels.iter().map(|(name, one)| (name.as_str(), one.value)).collect(),
            derives: &model.derives,
            patterns: &model.resource_patterns,
            collections: model
                .collections
                .iter()
                .map(|(name, one)| (name.as_str(), (&one.labels, one.keeps_ms)))
                .collect(),
            operations: operations.collect(),
            memory: memory.collect(),
        }
    }
}

/// The routes of a bundle without their places, as text.
fn routes_of(model: &Model) -> Vec<String> {
    let route = |route: &crate::model::RouteSpec| {
        let host = route.host.as_ref().map(|host| host.value.as_str());
        let headers: Vec<(&str, &str)> = route
            .headers
            .iter()
            .map(|(name, value)| (name.value.as_str(), value.as_str()))
            .collect();
        let arguments: Vec<_> =
            route.arguments.iter().map(|(name, source)| (name, &source.value)).collect();
        let ignored: Vec<_> = route.ignore.iter().map(|part| &part.value).collect();
        let types: Vec<_> = route.content_types.iter().map(|kind| &kind.value).collect();
        format!(
            "{:?}",
            (
                (
                    host,
                    route.path.value.as_str(),
                    route.method(),
                    route.operation_id(),
                    route.is_mcp()
                ),
                (headers, arguments, ignored, types),
            )
        )
    };
    model.routes.iter().map(route).collect()
}
