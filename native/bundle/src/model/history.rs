//! Rules over what happened before: sequences and budgets.

use std::collections::BTreeSet;
use std::time::Duration;

use authz_base::record::history::Holder;

use super::{Effect, Operation};
use crate::location::Location;

/// A rule over the order of events: some come before another, or must not.
#[derive(Clone, Debug)]
pub struct Sequence {
    /// Earlier events, in this order; any of the events of a step completes it. At most 16 steps.
    pub steps: Vec<Vec<EventPattern>>,
    /// The last event of the rule: any of these.
    pub last: Vec<EventPattern>,
    /// True: `last` requires the steps before it. False: `last` is forbidden after them.
    pub requires: bool,
    /// True: a required step counts once it is reported as done. False: it counts as soon as it is permitted.
    pub counts_done: bool,
    /// Time for which the step counts. Default: as long as the session. Only rules with one step have it.
    pub within: Option<Duration>,
    /// Key that the events have in common.
    pub key: Option<CorrelationKey>,
    /// Holder of the events that count.
    pub scope: RuleScope,
    /// Place in the bundle.
    pub at: Location,
}

impl Sequence {
    /// Canonical text: two rules mean the same if their texts are equal.
    #[must_use]
    pub fn canonical(&self) -> String {
        let events = |events: &[EventPattern]| {
            let names: BTreeSet<String> = events.iter().map(EventPattern::canonical).collect();
            names.into_iter().collect::<Vec<_>>().join("|")
        };
        let steps: Vec<String> = self.steps.iter().map(|step| events(step)).collect();
        let key = match &self.key {
            None => String::new(),
            Some(CorrelationKey::Resource) => "resource".to_owned(),
            Some(CorrelationKey::Argument(pointer)) => pointer.clone(),
        };
        let within = self.within.map_or(0, |within| within.as_millis());
        let (requires, scope) = (self.requires, self.scope.as_str());
        let done = if self.counts_done { " done" } else { "" };
        format!(
            "{requires} {scope} {within} {key:?} {} > {}{done}",
            steps.join(","),
            events(&self.last)
        )
    }
}

/// A counted limit.
#[derive(Clone, Debug)]
pub struct Budget {
    /// Measure of the budget.
    pub counts: Counts,
    /// Events that count.
    pub of: Vec<EventPattern>,
    /// The limit.
    pub most: i64,
    /// Window of the count. Default: as long as the session.
    pub within: Option<Duration>,
    /// Holder of the calls that count.
    pub scope: RuleScope,
    /// True: a call that would exceed the budget is denied. False: only policies that read the budget decide.
    pub denies: bool,
    /// Place in the bundle.
    pub at: Location,
}

impl Budget {
    /// Canonical text without the limit: two budgets count the same if their texts are equal.
    #[must_use]
    pub fn canonical(&self) -> String {
        let names: BTreeSet<String> = self.of.iter().map(EventPattern::canonical).collect();
        let names = names.into_iter().collect::<Vec<_>>().join("|");
        let within = self.within.map_or(0, |within| within.as_millis());
        let what = match &self.counts {
            Counts::Count => "count".to_owned(),
            Counts::Sum(pointer) => format!("sum {pointer:?}"),
            Counts::Distinct(pointer) => format!("distinct {pointer:?}"),
        };
        format!("{what} {} {within} {names}", self.scope.as_str())
    }
}

/// Measure of a budget.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Counts {
    /// Calls.
    Count,
    /// The sum of the argument of this JSON pointer.
    Sum(String),
    /// Different values of the argument of this JSON pointer.
    Distinct(String),
}

/// An event: an operation is permitted or denied.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EventPattern {
    /// Operations of the event.
    pub of: EventOf,
    /// True: policy denies the operation.
    pub is_denied: bool,
}

impl EventPattern {
    /// Whether an operation can cause the event.
    ///
    /// `is_built_in`: every MCP system has the operation beside its tools.
    #[must_use]
    pub fn matches(&self, operation: &Operation, is_built_in: bool) -> bool {
        match &self.of {
            EventOf::Operations(OperationGlob(glob, _)) => glob.matches(&operation.id),
            EventOf::Effect(effect) => !is_built_in && operation.effects.contains(effect),
            EventOf::System(system) => operation.system == *system,
        }
    }

    fn canonical(&self) -> String {
        let of = match &self.of {
            EventOf::Operations(OperationGlob(_, text)) => text.clone(),
            EventOf::Effect(effect) => format!("effect:{}", effect.as_str()),
            EventOf::System(system) => format!("system:{system}"),
        };
        if self.is_denied { format!("denied({of})") } else { of }
    }
}

/// Operations of an event.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum EventOf {
    /// The operations that a glob matches.
    Operations(OperationGlob),
    /// All operations with an effect, except those that every MCP system has beside its tools.
    Effect(Effect),
    /// All operations of a system.
    System(String),
}

/// A pattern over operation ids.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OperationGlob(pub authz_base::pattern::Glob, pub String);

/// What the events of a rule must have in common.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CorrelationKey {
    /// The argument of this JSON pointer.
    Argument(String),
    /// The resource of the calls.
    Resource,
}

/// Holder of the events of a rule.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum RuleScope {
    /// Events of one task.
    Task,
    /// Events of a task and all tasks of its tree.
    #[default]
    Session,
    /// Events of an agent in all its tasks.
    Agent,
    /// Events on behalf of a subject, in all tasks and of all agents.
    Subject,
}

impl RuleScope {
    /// The word used in bundles.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Task => "task",
            Self::Session => "session",
            Self::Agent => "agent",
            Self::Subject => "subject",
        }
    }

    /// Record that keeps the events.
    #[must_use]
    pub const fn holder(self) -> Holder {
        match self {
            Self::Task | Self::Session => Holder::Session,
            Self::Agent => Holder::Agent,
            Self::Subject => Holder::Subject,
        }
    }
}
