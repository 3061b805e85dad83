//! What a bundle says, as plain typed values: the seam between reading a bundle's files and compiling them.
//!
//! `source` makes a [`Model`]; `plan` compiles one. Nothing here knows YAML or Cedar.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use authz_base::hex::hex;
use authz_base::principal::Subject;
use authz_base::record::Declarations;
use authz_base::record::history::Holder;
use serde::Serialize;

use crate::catalog::{Digest, is_built_in};
use crate::destinations::Destinations;
use crate::diagnostic::Diagnostic;
use crate::directories::Entries;
use crate::members::Members;
use crate::mode::Modes;
use crate::routes::RouteTable;

pub use crate::location::{Declared, Location};
pub use authz_base::record::history::{Denials, MEMORY_MS};
pub use authz_base::tier::Tier;

/// A whole bundle, read and checked for form, not yet compiled.
#[derive(Clone, Debug, Default)]
pub struct Model {
    /// `name` of `bundle.yaml`.
    pub name: String,
    /// `revision` of `bundle.yaml`, else the first 12 hex digits of the digest.
    pub revision: String,
    /// SHA-256 over the files as they stand (before `vars` are filled in): one digest everywhere.
    pub digest: [u8; 32],
    /// SHA-256 over the files that are no policies.
    pub facts_digest: [u8; 32],
    /// The Cedar files, in path order.
    pub policies: Vec<PolicyFile>,
    /// Systems by id.
    pub systems: BTreeMap<String, System>,
    /// Operations, sorted by id.
    pub operations: Vec<Operation>,
    /// Operations that an argument divides into several, by id; they are not among `operations`.
    pub splits: BTreeMap<String, Split>,
    /// Operations of MCP systems that take a client's answers to what the server asked for, also those that are split.
    pub input_responses: BTreeSet<String>,
    /// Ids and globs that rules of `classify` match, of proposed ones too.
    pub classified: BTreeSet<String>,
    /// The tools of each MCP system, by the name that the server gives them.
    pub tools: BTreeMap<String, BTreeMap<String, Tool>>,
    /// Declared labels.
    pub labels: BTreeMap<String, Declared<LabelKind>>,
    /// Labels and destination classes that raise the tier of what has to do with them.
    pub raises: Raises,
    /// Labels that join by themselves, by name.
    pub derives: BTreeMap<String, Derive>,
    /// Declared collections and the labels of their resources.
    pub collections: BTreeMap<String, Collection>,
    /// Patterns over resource ids that add labels: within a collection, whole-segment patterns.
    pub resource_patterns: Vec<ResourcePattern>,
    /// Destination classes, by name.
    pub destinations: BTreeMap<String, DestinationClass>,
    /// Named sets of destinations that others keep, by name.
    pub directories: BTreeMap<String, DirectoryRule>,
    /// Roles and who holds them.
    pub roles: BTreeMap<String, RoleMembers>,
    /// What each tier requires, indexed by [`Tier`].
    pub tiers: [TierRequirements; 4],
    /// Systems whose denials may show `@reason` to the agent.
    pub show_reason: BTreeSet<String>,
    /// HTTP routes to operations.
    pub routes: RouteTable,
    /// How a call at an MCP endpoint is refused.
    pub deny_as: DenyAs,
    /// Rules over the order of events, by name.
    pub sequences: BTreeMap<String, Sequence>,
    /// Counted limits, by name.
    pub budgets: BTreeMap<String, Budget>,
    /// What follows where a task is refused again and again; none: nothing.
    pub denials: Option<Denials>,
    /// Whether denials are enforced.
    pub modes: Modes,
    /// Which operations need a task.
    pub tasks: TasksRule,
    /// What tasks are made from, by name.
    pub templates: BTreeMap<String, Template>,
    /// The bundle's own test files, by path.
    pub tests: BTreeMap<String, Vec<u8>>,
    /// What `${…}` stood for when the bundle was read.
    pub vars: BTreeMap<String, String>,
    /// What is odd, but no error.
    pub warnings: Vec<Diagnostic>,
    /// So many of those, the first, do not depend on when it was read.
    pub read_warnings: usize,
    /// Look-up tables over `roles` and `destinations`; see [`Model::build_index`].
    pub index: Index,
}

/// Look-up tables of a model; empty until [`Model::build_index`].
#[derive(Clone, Debug, Default)]
pub struct Index {
    /// Roles by agent and subject.
    pub members: Members,
    /// Classes by destination.
    pub destinations: Destinations,
}

impl Declarations for Model {
    fn is_trust_label(&self, label: &str) -> Option<bool> {
        self.labels.get(label).map(|label| label.value == LabelKind::Trust)
    }

    fn roles_of_subject(&self, subject: &Subject) -> Vec<&str> {
        self.subject_roles(subject).into_vec()
    }
}

impl Model {
    /// Whether an operation is one that every MCP system has beside its tools.
    #[must_use]
    pub fn is_built_in(&self, operation: &Operation) -> bool {
        let kind = self.systems.get(&operation.system).map(|system| system.kind);
        kind == Some(SystemKind::Mcp) && is_built_in(&operation.name)
    }

    /// Who tells what came of an operation.
    #[must_use]
    pub fn reports(&self, operation: &str) -> Reports {
        let system = operation.split_once('.').and_then(|(system, _)| self.systems.get(system));
        system.map_or(Reports::Never, |system| system.reports)
    }

    /// Builds the look-up tables anew from `roles` and `destinations`.
    ///
    /// `source::load` has done so; a model made or changed by hand has no roles and only the least trusted destination
    /// class until this is called.
    pub fn build_index(&mut self) {
        self.index = Index {
            members: Members::compile(&self.roles),
            destinations: Destinations::compile(&self.destinations),
        };
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

/// What a label speaks of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LabelKind {
    /// Who may see the data.
    Confidentiality,
    /// How far the data may be believed.
    Trust,
}

/// When a label joins by itself: harmless parts make a whole that is none.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Derive {
    /// The label that is gathered.
    pub from: String,
    /// What is told apart.
    pub distinct: Distinct,
    /// Of so many it joins.
    pub least: u32,
}

/// What a derived label tells apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Distinct {
    /// Collections and systems.
    Sources,
    /// Resources; a collection as a whole is one.
    Resources,
}

/// What raises the tier of an operation, by name.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Raises {
    /// While a session carries the label.
    pub labels: BTreeMap<String, Tier>,
    /// Where data goes to the class.
    pub classes: BTreeMap<String, Tier>,
}

/// An MCP server or API.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct System {
    /// What kind of interface it has.
    pub kind: SystemKind,
    /// `https://host[:port]`, without path; empty where none is needed.
    pub origin: String,
    /// Headers, sorted, that requests may bring to it beside a static secret, and beside those that every request may bring.
    pub headers: Vec<String>,
    /// Who tells what came of its operations.
    pub reports: Reports,
    /// Where it stands.
    pub at: Location,
}

/// Who tells what came of the permitted operations of a system.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Reports {
    /// Nobody: what is permitted counts as done, and its results as all that they may be.
    #[default]
    Never,
    /// The enforcer that asked, by `Report`.
    Sdk,
    /// The proxy that asked, by its access log, which names no labels.
    AccessLog,
}

/// The kind of a system's interface.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SystemKind {
    /// A plain HTTP API, or one that is asked about over gRPC only.
    Http,
    /// An MCP server.
    Mcp,
}

/// How a call at an MCP endpoint is refused.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum DenyAs {
    /// As the result of the tool, with `isError`.
    #[default]
    ToolResult,
    /// As a JSON-RPC error.
    JsonrpcError,
    /// By the HTTP status.
    Http,
}

/// A tool of an MCP server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tool {
    /// The id of its operation.
    pub operation: String,
    /// What it is now: see [`crate::catalog::Tool::digest`].
    pub digest: Digest,
    /// What it was when somebody reviewed it; none where nobody has.
    pub accepted: Option<Digest>,
    /// The headers that repeat its arguments.
    pub headers: Vec<crate::mcp::ParameterHeader>,
}

/// One thing a system can do.
#[derive(Clone, Debug)]
pub struct Operation {
    /// `<system>.<name>`; the first dot splits.
    pub id: String,
    /// The part before the first dot.
    pub system: String,
    /// The part after it.
    pub name: String,
    /// What it does; empty until classified.
    pub effects: BTreeSet<Effect>,
    /// Static tier.
    pub tier: Tier,
    /// False where no `classify` rule decides about it, or where it is a tool of an MCP server that nobody accepted:
    /// every request is refused as UNREVIEWED_OPERATION.
    pub reviewed: bool,
    /// True where its tool is not the one that was accepted: every request is refused as CATALOG_DRIFT.
    pub drifted: bool,
    /// Labels that its results carry (minimum, maximum ⊇ minimum).
    pub yields: (BTreeSet<String>, BTreeSet<String>),
    /// What it acts on.
    pub resource: Option<ResourceRule>,
    /// Where its data goes.
    pub destination: Option<DestinationRule>,
    /// JSON Schema of its arguments, an object schema.
    pub input: Arc<serde_json::Value>,
    /// May be undone after a failure.
    pub abortable: bool,
    /// Where the catalog names it.
    pub at: Location,
}

/// An operation that is as many as an argument has values.
#[derive(Clone, Debug)]
pub struct Split {
    /// What callers name. Its tier is the highest of its cases; it has no other meaning of its own.
    pub operation: Operation,
    /// JSON pointer (RFC 6901) to the argument.
    pub on: String,
    /// The operation of each value.
    pub cases: BTreeMap<String, String>,
    /// The operation where the argument is absent; none: such a request is refused.
    pub when_absent: Option<String>,
}

/// A rule over the order of events: some come before another, or must not.
#[derive(Clone, Debug)]
pub struct Sequence {
    /// What comes before, in this order; each step is any of its events. At most 16.
    pub steps: Vec<Vec<Event>>,
    /// What the rule is about: any of these.
    pub last: Vec<Event>,
    /// `last` needs what comes before; otherwise it must not come after it.
    pub requires: bool,
    /// What `last` needs counts once it is reported as done; otherwise as soon as it is permitted.
    pub counts_done: bool,
    /// How long what came before counts; none: as long as the session. Only with one step.
    pub within: Option<Duration>,
    /// What the events must have in common.
    pub key: Option<CorrelationKey>,
    /// Whose events are looked at.
    pub scope: RuleScope,
    /// Where it stands.
    pub at: Location,
}

impl Sequence {
    /// What it says, so that two say the same where this is the same.
    #[must_use]
    pub fn canonical(&self) -> String {
        let events = |events: &[Event]| {
            let names: BTreeSet<String> = events.iter().map(Event::canonical).collect();
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
    /// What is counted.
    pub counts: Counts,
    /// Of which operations.
    pub of: Vec<Event>,
    /// What it may come to.
    pub most: i64,
    /// Within which time; none: as long as the session.
    pub within: Option<Duration>,
    /// Whose calls count.
    pub scope: RuleScope,
    /// What would exceed it is denied; otherwise only policies that read it say what follows.
    pub denies: bool,
    /// Where it stands.
    pub at: Location,
}

impl Budget {
    /// What it counts, so that two count the same where this is the same: what they may come to is no part of it.
    #[must_use]
    pub fn canonical(&self) -> String {
        let names: BTreeSet<String> = self.of.iter().map(Event::canonical).collect();
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

/// What a budget counts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Counts {
    /// Calls.
    Count,
    /// The sum of the argument of this JSON pointer.
    Sum(String),
    /// Different values of the argument of this JSON pointer.
    Distinct(String),
}

/// Something that happens: an operation is let through, or denied.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event {
    /// Which operations.
    pub of: EventOf,
    /// It is denied when policy is asked.
    pub is_denied: bool,
}

/// Which operations an event is of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum EventOf {
    /// This one, or those that a glob matches.
    Operations(Glob),
    /// All of an effect, but for what every MCP system has beside its tools.
    Effect(Effect),
    /// All of a system.
    System(String),
}

/// A pattern over operation ids.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Glob(pub authz_base::pattern::Glob, pub String);

impl Event {
    /// Whether it is one of the operation.
    ///
    /// Args:
    /// * `is_built_in`: every MCP system has it beside its tools.
    #[must_use]
    pub fn matches(&self, operation: &Operation, is_built_in: bool) -> bool {
        match &self.of {
            EventOf::Operations(Glob(glob, _)) => glob.matches(&operation.id),
            EventOf::Effect(effect) => !is_built_in && operation.effects.contains(effect),
            EventOf::System(system) => operation.system == *system,
        }
    }

    fn canonical(&self) -> String {
        let of = match &self.of {
            EventOf::Operations(Glob(_, text)) => text.clone(),
            EventOf::Effect(effect) => format!("effect:{}", effect.as_str()),
            EventOf::System(system) => format!("system:{system}"),
        };
        if self.is_denied { format!("denied({of})") } else { of }
    }
}

/// What the events of a rule must have in common.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CorrelationKey {
    /// The argument of this JSON pointer.
    Argument(String),
    /// The resource that they act on.
    Resource,
}

/// Whose events a rule looks at.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum RuleScope {
    /// Those of one task.
    Task,
    /// Those of a task and all tasks of its tree.
    #[default]
    Session,
    /// Those of an agent, whatever its tasks.
    Agent,
    /// Those on behalf of a subject, whatever the tasks and the agents.
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

    /// Whose record keeps what it looks at.
    #[must_use]
    pub const fn holder(self) -> Holder {
        match self {
            Self::Task | Self::Session => Holder::Session,
            Self::Agent => Holder::Agent,
            Self::Subject => Holder::Subject,
        }
    }
}

/// Which operations need a task.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TasksRule {
    /// Without a task, policy alone decides.
    pub optional: bool,
    /// Stateless operations up to this tier need none either.
    pub taskless_tier: Option<Tier>,
    /// Agents that work without tasks, and what they may do.
    pub implicit: Option<ImplicitRule>,
}

/// Agents that work without tasks, and what they may do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ImplicitRule {
    /// A template without parameters.
    pub template: String,
    /// [`Template::digest`] of it.
    pub template_digest: String,
    /// No operation above this tier; at most the template's.
    pub tier_cap: Tier,
}

/// What tasks are made from.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Template {
    /// What its tasks are for.
    pub purpose: String,
    /// What a starter says, by name; all are needed.
    pub params: BTreeMap<String, ParamType>,
    /// How long its tasks live at the longest.
    pub deadline: Duration,
    /// How long they may lie idle.
    pub idle_timeout: Option<Duration>,
    /// How deep tasks below a root of it may be; 0: it may have no children.
    pub max_depth: u32,
    /// No operation above this tier.
    pub tier_cap: Tier,
    /// Roles of agents that may start a root of it; subjects need none.
    pub starters: BTreeSet<String>,
    /// What its tasks may do: one operation an entry, sorted by it.
    pub scope: Vec<ScopeRule>,
    /// Destinations that count as named in its tasks, each as its kind and canonical form: `email:a@x.example`.
    #[serde(skip_serializing_if = "BTreeSet::is_empty")]
    pub names: BTreeSet<String>,
    /// Where it stands.
    #[serde(skip)]
    pub at: Location,
}

impl Template {
    /// Whether an agent of these roles may start a root of it.
    #[must_use]
    pub fn is_started_by(&self, roles: &[&str]) -> bool {
        roles.iter().any(|role| self.starters.contains(*role))
    }

    /// SHA-256 of what it says, in hex.
    #[must_use]
    pub fn digest(&self) -> String {
        // A template holds nothing that JSON cannot say.
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

/// One thing that the tasks of a template may do.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ScopeRule {
    /// Operation id.
    pub operation: String,
    /// On which resources.
    pub resources: SelectorRule,
    /// Limits on arguments, by JSON pointer (RFC 6901).
    pub arguments: BTreeMap<String, LimitRule>,
    /// How often; none: without limit.
    pub uses: Option<u32>,
}

/// A conjunction over resources; a field that is none restricts nothing.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct SelectorRule {
    /// Any of these collections.
    pub collections: Option<BTreeSet<String>>,
    /// Any of these ids.
    pub ids: Option<BTreeSet<Slot>>,
    /// Ids that begin with these whole segments.
    pub path_prefix: Option<Slot>,
    /// No labels but these.
    pub label_ceiling: Option<BTreeSet<String>>,
}

/// A limit on one argument.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub enum LimitRule {
    /// One of these.
    OneOf(BTreeSet<Slot>),
    /// A whole number from the first to the second.
    Range(i64, i64),
    /// A text that begins so.
    Prefix(Slot),
}

/// A text, or the parameter that gives it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub enum Slot {
    /// A text.
    Text(String),
    /// The value of a parameter.
    Param(String),
}

/// What an operation does to the world.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Effect {
    /// Returns data.
    Read,
    /// Changes data.
    Write,
    /// Removes data.
    Delete,
    /// Carries data out.
    Export,
    /// Runs code.
    Execute,
    /// Gives rights.
    Grant,
}

impl Effect {
    /// All effects, in order.
    pub const ALL: [Self; 6] =
        [Self::Read, Self::Write, Self::Delete, Self::Export, Self::Execute, Self::Grant];

    /// The word used in bundles and in `Action::"effect:…"`.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Read => "read",
            Self::Write => "write",
            Self::Delete => "delete",
            Self::Export => "export",
            Self::Execute => "execute",
            Self::Grant => "grant",
        }
    }
}

/// Which resource an operation acts on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ResourceRule {
    /// A declared collection.
    pub collection: String,
    /// JSON pointer (RFC 6901) to the argument that holds the id; none: the collection as a whole.
    pub id: Option<String>,
    /// How the collection's ids are compared.
    pub spelling: Spelling,
}

/// How the ids of a collection are compared.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Spelling {
    /// Byte by byte: each id has one spelling.
    #[default]
    Exact,
    /// Without case: all spellings of an id share one case-folded key.
    Fold,
}

/// Where an operation sends data.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DestinationRule {
    /// JSON pointers (RFC 6901) to the arguments that name destinations.
    pub from: Vec<String>,
    /// How a destination is written, and so its canonical form.
    pub kind: DestinationKind,
    /// Class where no argument names one; default the least trusted (the smallest clearance).
    pub when_absent: String,
}

/// How a destination is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DestinationKind {
    /// RFC 5321 mailbox; canonical: domain in lower case.
    Email,
    /// URL; canonical: the host in lower case.
    UrlHost,
    /// IBAN; canonical: upper case without spaces, checked.
    Iban,
    /// An opaque account name.
    Account,
    /// A `/`-separated path without dot segments.
    Path,
}

/// A class of destinations.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DestinationClass {
    /// `*`-patterns over canonical destinations; the most specific one wins, ties are refused at load.
    pub patterns: Vec<String>,
    /// Directories whose entries are of the class.
    pub directories: BTreeSet<String>,
    /// Confidentiality labels that may go there.
    pub clearance: BTreeSet<String>,
    /// Where it stands.
    pub at: Location,
}

/// Where a directory comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum DirectorySource {
    /// A file of the bundle, and who is in it.
    File(String, Arc<Entries>),
    /// A URL that others fetch it from: who is in it, the bundle does not say.
    Url(String),
}

/// A named set of destinations that others keep.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DirectoryRule {
    /// Where it comes from.
    pub from: DirectorySource,
    /// The column of a CSV file; none: each line is an entry.
    pub column: Option<String>,
    /// How old it may be.
    pub max_age: Option<Duration>,
    /// What is in it is trusted.
    pub trusted: bool,
    /// Where it stands.
    pub at: Location,
}

/// A named set of resources.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Collection {
    /// Labels of every resource in it.
    pub labels: BTreeSet<String>,
    /// How long what agents wrote into it keeps the labels that they carried, in milliseconds; none: it keeps none.
    pub keeps_ms: Option<i64>,
    /// Where the bundle says so; none: it does not.
    pub keeps_at: Option<Location>,
    /// How ids in it are compared.
    pub spelling: Spelling,
    /// Where it stands.
    pub at: Location,
}

/// Resources of a collection whose id matches a pattern carry more labels.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ResourcePattern {
    /// A declared collection.
    pub collection: String,
    /// Whole-segment pattern over the id (`*` one segment, a last `**` any number).
    pub pattern: String,
    /// The labels that it adds.
    pub labels: BTreeSet<String>,
}

/// Who holds a role.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RoleMembers {
    /// SPIFFE ids or whole-segment patterns (`spiffe://td/ns/*/sa/bot`).
    pub agents: Vec<Declared<String>>,
    /// What its agents remember of ended tasks.
    pub memory: AgentMemory,
    /// Its agents are their users' front ends too.
    pub harness: bool,
    /// Its agents work without tasks.
    pub is_implicit: bool,
    /// On whose behalf its agents act where no task says so; none: its agents may leave the subject out until they have acted
    /// for one.
    pub subject: Option<OnBehalf>,
    /// Conditions on verified subject claims, any of which suffices.
    pub subjects: Vec<SubjectMatch>,
    /// Where the role is first named.
    pub at: Location,
}

/// How far the runs of an agent are kept apart from each other. The least isolated comes first.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Isolation {
    /// What one task reads, the agent may use in any later task.
    #[default]
    None,
    /// What is read for one subject, the agent uses for no other subject.
    PerSubject,
    /// Nothing outlives a task that somebody else started.
    PerTask,
}

/// What an agent remembers of tasks that ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AgentMemory {
    /// How far its runs are kept apart.
    pub isolated: Isolation,
    /// How long a label counts after the last read that brought it, in milliseconds.
    pub ms: i64,
}

impl Default for AgentMemory {
    fn default() -> Self {
        Self { isolated: Isolation::None, ms: MEMORY_MS }
    }
}

impl AgentMemory {
    /// Of two roles of one agent, the less isolated one counts, and the longer memory.
    #[must_use]
    pub fn join(self, other: Self) -> Self {
        Self { isolated: self.isolated.min(other.isolated), ms: self.ms.max(other.ms) }
    }
}

/// On whose behalf the agents of a role act where no task says so. Of several roles of an agent the first of these counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum OnBehalf {
    /// Each call shows the token of a subject.
    Required,
    /// The agents act for themselves, and show no subject.
    None,
    /// A call may leave the subject out.
    Optional,
}

/// A condition on a verified subject token.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SubjectMatch {
    /// Alias of the issuer in the configuration.
    pub issuer: String,
    /// What the claims must say.
    pub test: ClaimTest,
    /// Where it stands.
    pub at: Location,
}

/// What a claim must say.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ClaimTest {
    /// Every subject of the issuer.
    Any,
    /// The claim equals the text (also `sub`).
    Equals(String, String),
    /// The claim, a list of texts, contains the text.
    Contains(String, String),
}

/// What a tier requires beyond policy.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TierRequirements {
    /// The caller's credential must be bound to a key that the caller proved.
    pub bound: bool,
    /// The caller's credential must be at most this old.
    pub max_age: Option<Duration>,
    /// Least confidence, 0–100.
    pub confidence: u8,
    /// Who must agree.
    pub approval: Approval,
    /// A verified subject must stand in the chain.
    pub subject: bool,
}

/// Who must agree before an operation of a tier.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Approval {
    /// Nobody.
    #[default]
    None,
    /// The subject.
    Confirm,
    /// Another person.
    Approve,
    /// Two other persons.
    TwoPerson,
}
