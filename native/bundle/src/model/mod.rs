//! A bundle as plain typed values.
//!
//! `source` reads a [`Model`] from files. `tables` compiles its look-up tables, and the kernel compiles its policies.
//! Nothing here knows YAML or Cedar, and nothing here is compiled.

mod analysis;
mod approvals;
mod destination;
mod exception;
mod history;
mod mode;
mod operation;
mod origin;
mod places;
mod resource;
mod role;
mod route;
mod step_up;
mod system;
mod template;
mod tier;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use crate::built_in::is_built_in;
use crate::diagnostic::Diagnostic;

pub use crate::location::{Declared, Location};
pub use analysis::{
    ANALYSIS_RULES, AnalysisRules, Assertion, CallPattern, DestinationPattern, PERSON,
    SuppressedFindings, Suppression,
};
pub use approvals::{ApprovalRules, QueueRule};
pub use authz_base::record::history::{Denials, MEMORY_MS};
pub use authz_base::tier::Tier;
pub use destination::{DestinationClass, DestinationKind, RecipientListRule, RecipientListSource};
pub use exception::{
    BREAKGLASS, BREAKGLASS_TIER, EXCEPTION_TYPE, ExceptionHolder, ExceptionResources,
    StandingException,
};
pub use history::{
    Budget, CorrelationKey, Counts, EventOf, EventPattern, OperationGlob, RuleScope, Sequence,
};
pub use mode::{Mode, ModeRule, Modes};
pub use operation::{DestinationRule, Effect, Operation, ResourceRule, Split};
pub use origin::{
    Coercion, CoercionRule, CreatesRule, IntroducedBy, IntroducesRule, ObjectRule, Origin,
    OriginRules, OriginSet, OriginSets, PairsRule, ResultPointer, ResultToken, ValueRole,
    ValueSpace,
};
pub use places::{Places, ScopePlace};
pub use resource::{Collection, Derive, Distinct, LabelKind, Raises, ResourcePattern, Spelling};
pub use role::{AgentMemory, ClaimTest, Isolation, OnBehalf, RoleMembers, SubjectMatch};
pub use route::{ArgumentSource, IgnoredPart, RouteSpec, RouteTarget};
pub use step_up::BUILT_IN_KINDS;
pub(crate) use step_up::is_step_up_kind;
pub use system::{DenyAs, ParameterHeader, Reports, System, SystemKind, Tool, ToolDigest};
pub use template::{
    ImplicitRule, LimitRule, ParamType, ScopeRule, SelectorRule, Slot, TasksRule, Template,
};
pub use tier::{TierApproval, TierRequirements};

/// A whole bundle, read and checked for form.
#[derive(Clone, Debug, Default)]
pub struct Model {
    /// `name` of `bundle.yaml`.
    pub name: String,
    /// `revision` of `bundle.yaml`. Default: the first 12 hex digits of the digest.
    pub revision: String,
    /// SHA-256 over the files before `vars` are filled in: a bundle has the same digest everywhere.
    pub digest: [u8; 32],
    /// SHA-256 over the files that are not policies.
    pub facts_digest: [u8; 32],
    /// The Cedar files, in path order.
    pub policies: Vec<PolicyFile>,
    /// Systems by id.
    pub systems: BTreeMap<String, System>,
    /// Operations, sorted by id.
    pub operations: Vec<Operation>,
    /// Operations that an argument splits into several, by id; they are not among `operations`.
    pub splits: BTreeMap<String, Split>,
    /// Operations of MCP systems, also split ones, that take a client's answers to requests of the server.
    pub input_responses: BTreeSet<String>,
    /// Ids and globs that rules of `classify` match, also of proposed rules.
    pub classified: BTreeSet<String>,
    /// The tools of each MCP system, by their name at the server.
    pub tools: BTreeMap<String, BTreeMap<String, Tool>>,
    /// Declared labels.
    pub labels: BTreeMap<String, Declared<LabelKind>>,
    /// Labels and destination classes that raise the tier of a call.
    pub raises: Raises,
    /// Labels that are derived from several others, by name.
    pub derives: BTreeMap<String, Derive>,
    /// Declared collections and the labels of their resources.
    pub collections: BTreeMap<String, Collection>,
    /// Patterns over resource ids that add labels.
    pub resource_patterns: Vec<ResourcePattern>,
    /// Destination classes, by name.
    pub destinations: BTreeMap<String, DestinationClass>,
    /// Recipient lists: destinations that another party lists, by name.
    pub recipient_lists: BTreeMap<String, RecipientListRule>,
    /// Roles and their members.
    pub roles: BTreeMap<String, RoleMembers>,
    /// Requirements of each tier, indexed by [`Tier`].
    pub tiers: [TierRequirements; 4],
    /// Systems whose denials may show `@reason` to the agent.
    pub show_reason: BTreeSet<String>,
    /// Systems whose calls have their texts in the audit.
    pub record_texts: BTreeSet<String>,
    /// HTTP routes, in the order of files and lines.
    pub routes: Vec<RouteSpec>,
    /// Form of a refusal at an MCP endpoint.
    pub deny_as: DenyAs,
    /// Rules over the order of events, by name.
    pub sequences: BTreeMap<String, Sequence>,
    /// Counted limits, by name.
    pub budgets: BTreeMap<String, Budget>,
    /// Standing exceptions, by name.
    pub exceptions: BTreeMap<String, StandingException>,
    /// Most days that an exception may last from the time of loading. Default: [`MOST_DAYS`].
    ///
    /// [`MOST_DAYS`]: crate::exceptions::MOST_DAYS
    pub exception_days: Option<u16>,
    /// Consequences of repeated refusals in a task. Default: no consequences.
    pub denials: Option<Denials>,
    /// Rules about approvals.
    pub approvals: ApprovalRules,
    /// Assertions about the bundle, and findings that are accepted for a time. They decide about no call.
    pub analysis: AnalysisRules,
    /// Rules that say whether denials are enforced.
    pub modes: Modes,
    /// Operations that need a task.
    pub tasks: TasksRule,
    /// Task templates, by name.
    pub templates: BTreeMap<String, Template>,
    /// The bundle's own test files, by path.
    pub tests: BTreeMap<String, Vec<u8>>,
    /// Values of `${…}` when the bundle was read.
    pub vars: BTreeMap<String, String>,
    /// Places of parts whose own type has none.
    pub places: Places,
    /// Warnings of the reader.
    pub warnings: Vec<Diagnostic>,
    /// Number of warnings, the first ones, that do not depend on the time of reading.
    pub read_warnings: usize,
}

impl Model {
    /// An operation by id, also one that is split.
    #[must_use]
    pub fn operation(&self, id: &str) -> Option<&Operation> {
        let index = self.operations.binary_search_by(|operation| operation.id.as_str().cmp(id));
        let whole = index.ok().and_then(|index| self.operations.get(index));
        whole.or_else(|| self.splits.get(id).map(|split| &split.operation))
    }

    /// True if the audit has the texts of an operation's calls in clear.
    #[must_use]
    pub fn records_texts_of(&self, operation: &str) -> bool {
        let system = operation.split_once('.').map_or("", |(system, _)| system);
        self.record_texts.contains(system)
    }

    /// Whether every MCP system has the operation beside its tools.
    #[must_use]
    pub fn is_built_in(&self, operation: &Operation) -> bool {
        let kind = self.systems.get(&operation.system).map(|system| system.kind);
        kind == Some(SystemKind::Mcp) && is_built_in(&operation.name)
    }

    /// Whether an operation is that of a tool, by the exact name that the tool has at its MCP server.
    ///
    /// INVARIANT (exact names): two tools never share an operation because their names are spelled alike. In a system that is
    /// not an MCP server the name of a tool is the operation's own.
    #[must_use]
    pub fn is_tool(&self, tool: &str, operation: &str) -> bool {
        let Some((id, name)) = operation.split_once('.') else { return false };
        match self.systems.get(id).map(|system| system.kind) {
            Some(SystemKind::Mcp) => {
                let declared = self.tools.get(id).and_then(|tools| tools.get(tool));
                declared.is_some_and(|declared| declared.operation == operation)
            }
            Some(SystemKind::Http) => name == tool,
            None => false,
        }
    }

    /// Who reports the results of an operation.
    #[must_use]
    pub fn reports(&self, operation: &str) -> Reports {
        let system = operation.split_once('.').and_then(|(system, _)| self.systems.get(system));
        system.map_or(Reports::Never, |system| system.reports)
    }

    /// Roles of harnesses, sorted.
    pub fn harnesses(&self) -> impl Iterator<Item = &str> {
        self.roles.iter().filter(|(_, members)| members.harness).map(|(name, _)| name.as_str())
    }

    /// The destination class with the smallest clearance. Among several, the class that matches every destination comes first,
    /// then the first by name.
    #[must_use]
    pub fn least_trusted(&self) -> Option<&str> {
        let matches_all = |class: &DestinationClass| class.patterns.iter().any(|p| p == "*");
        self.destinations
            .iter()
            .min_by_key(|(name, class)| (class.clearance.len(), !matches_all(class), *name))
            .map(|(name, _)| name.as_str())
    }
}

/// One Cedar file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PolicyFile {
    /// Path relative to the bundle folder.
    pub file: String,
    /// Its text, `${vars}` filled in.
    pub text: Arc<str>,
}
