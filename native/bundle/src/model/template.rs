//! Task templates.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use authz_base::hex::hex;
use authz_base::tier::Tier;
use serde::Serialize;

use crate::location::Location;

/// Operations that need a task.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TasksRule {
    /// Policy alone decides about calls without a task.
    pub optional: bool,
    /// Stateless operations up to this tier need no task.
    pub taskless_tier: Option<Tier>,
    /// Agents that work without tasks, and the scope of their calls.
    pub implicit: Option<ImplicitRule>,
}

/// Agents that work without tasks, and the scope of their calls.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ImplicitRule {
    /// A template without parameters.
    pub template: String,
    /// [`Template::digest`] of that template.
    pub template_digest: String,
    /// Highest tier of an operation; at most the template's.
    pub tier_cap: Tier,
}

/// Contract of a kind of task.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Template {
    /// Purpose of its tasks.
    pub purpose: String,
    /// Parameters, by name. A starter gives all of them.
    pub params: BTreeMap<String, ParamType>,
    /// Longest lifetime of its tasks.
    pub deadline: Duration,
    /// Longest time for which a task can be idle.
    pub idle_timeout: Option<Duration>,
    /// Greatest depth of tasks below a root task; 0: a task has no children.
    pub max_depth: u32,
    /// Highest tier of an operation in its tasks.
    pub tier_cap: Tier,
    /// Roles of agents that may start a root task. Subjects need no role.
    pub starters: BTreeSet<String>,
    /// Scope of its tasks: one operation an entry, sorted by operation.
    pub scope: Vec<ScopeRule>,
    /// Step-up kind by which a call beyond the scope is held. Default: such a call is denied.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub beyond: Option<String>,
    /// Destinations that count as named in its tasks, each as kind and canonical form: `email:a@x.example`.
    #[serde(skip_serializing_if = "BTreeSet::is_empty")]
    pub names: BTreeSet<String>,
    /// Place in the bundle.
    #[serde(skip)]
    pub at: Location,
}

impl Template {
    /// Whether an agent with these roles may start a root task.
    #[must_use]
    pub fn is_started_by(&self, roles: &[&str]) -> bool {
        roles.iter().any(|role| self.starters.contains(*role))
    }

    /// SHA-256 of the template as JSON, in hex.
    #[must_use]
    pub fn digest(&self) -> String {
        // Every member of a template has a JSON form.
        let text = serde_json::to_string(self).unwrap_or_default();
        hex(&authz_base::digest::sha256(text.as_bytes()))
    }
}

/// The type of a parameter.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub enum ParamType {
    /// A text.
    String,
    /// A whole number.
    Long,
    /// True or false.
    Bool,
}

impl ParamType {
    /// The word used in bundles.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::String => "String",
            Self::Long => "Long",
            Self::Bool => "Bool",
        }
    }
}

/// One entry of the scope of a template.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ScopeRule {
    /// Operation id.
    pub operation: String,
    /// Resources of the operation.
    pub resources: SelectorRule,
    /// Limits on arguments, by JSON pointer (RFC 6901).
    pub arguments: BTreeMap<String, LimitRule>,
    /// Number of uses. Default: no limit.
    pub uses: Option<u32>,
}

/// Selector of resources. All conditions must hold; a condition that is `None` restricts nothing.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct SelectorRule {
    /// The collection is one of these.
    pub collections: Option<BTreeSet<String>>,
    /// The id is one of these.
    pub ids: Option<BTreeSet<Slot>>,
    /// The id begins with these whole segments.
    pub path_prefix: Option<Slot>,
    /// The resource has only labels of this set.
    pub label_ceiling: Option<BTreeSet<String>>,
}

/// A limit on one argument.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub enum LimitRule {
    /// One of these.
    OneOf(BTreeSet<Slot>),
    /// A whole number from the first to the second.
    Range(i64, i64),
    /// A text with this prefix.
    Prefix(Slot),
}

/// A text of a template, or the parameter that gives the text.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub enum Slot {
    /// A text.
    Text(String),
    /// The value of a parameter.
    Param(String),
}
