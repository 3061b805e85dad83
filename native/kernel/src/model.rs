//! What a bundle says, as plain typed values: the seam between reading a bundle's files and compiling them.
//!
//! `source` makes a [`Model`]; `plan` compiles one. Nothing here knows YAML or Cedar.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::catalog::{Digest, is_built_in};
use crate::destinations::Destinations;
use crate::diagnostic::Diagnostic;
use crate::members::Members;
use crate::mode::Modes;
use crate::routes::RouteTable;

/// Where something stands in a bundle, for messages.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Location {
    /// Path relative to the bundle folder.
    pub file: String,
    /// Line, from 1; 0 where unknown.
    pub line: u32,
    /// Column, from 1; 0 where unknown.
    pub column: u32,
}

/// A whole bundle, read and checked for form, not yet compiled.
#[derive(Clone, Debug, Default)]
pub struct Model {
    /// `name` of `bundle.yaml`.
    pub name: String,
    /// `revision` of `bundle.yaml`, else the first 12 hex digits of the digest.
    pub revision: String,
    /// SHA-256 over the files as they stand (before `vars` are filled in): one digest everywhere.
    pub digest: [u8; 32],
    /// The Cedar files, in path order.
    pub policies: Vec<PolicyFile>,
    /// Systems by id.
    pub systems: BTreeMap<String, System>,
    /// Operations, sorted by id.
    pub operations: Vec<Operation>,
    /// Operations that an argument divides into several, by id; they are not among `operations`.
    pub splits: BTreeMap<String, Split>,
    /// The tools of each MCP system, by the name that the server gives them.
    pub tools: BTreeMap<String, BTreeMap<String, Tool>>,
    /// Declared labels.
    pub labels: BTreeMap<String, Declared<LabelKind>>,
    /// Declared collections and the labels of their resources.
    pub collections: BTreeMap<String, Collection>,
    /// Patterns over resource ids that add labels: within a collection, whole-segment patterns.
    pub resource_patterns: Vec<ResourcePattern>,
    /// Destination classes, by name.
    pub destinations: BTreeMap<String, DestinationClass>,
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
    /// Whether denials are enforced.
    pub modes: Modes,
    /// The bundle's own test files, by path.
    pub tests: BTreeMap<String, Vec<u8>>,
    /// What `${…}` stood for when the bundle was read.
    pub vars: BTreeMap<String, String>,
    /// What is odd, but no error.
    pub warnings: Vec<Diagnostic>,
    /// Look-up tables over `roles` and `destinations`; see [`Model::build_index`].
    pub index: Index,
}

/// Look-up tables of a model; empty until [`Model::build_index`].
#[derive(Clone, Debug, Default)]
pub struct Index {
    pub(crate) members: Members,
    pub(crate) destinations: Destinations,
}

impl Model {
    /// Whether an operation is one that every MCP system has beside its tools.
    #[must_use]
    pub fn is_built_in(&self, operation: &Operation) -> bool {
        let kind = self.systems.get(&operation.system).map(|system| system.kind);
        kind == Some(SystemKind::Mcp) && is_built_in(&operation.name)
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
    pub text: String,
}

/// A value with the place where it was declared.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Declared<T> {
    /// The value.
    pub value: T,
    /// Where it stands.
    pub at: Location,
}

/// What a label speaks of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LabelKind {
    /// Who may see the data.
    Confidentiality,
    /// How far the data may be believed.
    Trust,
}

/// An MCP server or API.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct System {
    /// What kind of interface it has.
    pub kind: SystemKind,
    /// `https://host[:port]`, without path; empty where none is needed.
    pub origin: String,
    /// Where it stands.
    pub at: Location,
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
    pub input: serde_json::Value,
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

/// How much an operation can hurt, from 0 to 3.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
#[serde(rename_all = "snake_case")]
pub enum Tier {
    /// Public reads.
    #[default]
    Low = 0,
    /// Everyday operations.
    Standard = 1,
    /// Hard to undo.
    High = 2,
    /// Changes who may do what, or cannot be undone.
    Critical = 3,
}

impl Tier {
    /// All tiers, in order.
    pub const ALL: [Self; 4] = [Self::Low, Self::Standard, Self::High, Self::Critical];

    /// The word used in bundles, metrics and audit.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Low => "low",
            Self::Standard => "standard",
            Self::High => "high",
            Self::Critical => "critical",
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
    /// Confidentiality labels that may go there.
    pub clearance: BTreeSet<String>,
    /// Where it stands.
    pub at: Location,
}

/// A named set of resources.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Collection {
    /// Labels of every resource in it.
    pub labels: BTreeSet<String>,
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
    /// Conditions on verified subject claims, any of which suffices.
    pub subjects: Vec<SubjectMatch>,
    /// Where the role is first named.
    pub at: Location,
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
