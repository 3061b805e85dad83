//! Operations of a system, their effects, and operations that an argument splits.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use authz_base::tier::Tier;

use super::{DestinationKind, OriginRules, Spelling, ValueRole};
use crate::location::Location;

/// One thing a system can do.
#[derive(Clone, Debug)]
pub struct Operation {
    /// `<system>.<name>`; the first dot splits.
    pub id: String,
    /// The part before the first dot.
    pub system: String,
    /// The part after it.
    pub name: String,
    /// Effects; empty until a `classify` rule gives them.
    pub effects: BTreeSet<Effect>,
    /// Static tier.
    pub tier: Tier,
    /// False if no `classify` rule covers the operation, or if it is an MCP tool that no one accepted: every request is
    /// refused as UNREVIEWED_OPERATION.
    pub reviewed: bool,
    /// True if the tool differs from the accepted one: every request is refused as CATALOG_DRIFT.
    pub drifted: bool,
    /// Labels that the results carry: at least the first set, at most the second.
    pub yields: (BTreeSet<String>, BTreeSet<String>),
    /// Resource that the operation acts on. Default: the system.
    pub resource: Option<ResourceRule>,
    /// Destination of its data. Default: it sends data nowhere.
    pub destination: Option<DestinationRule>,
    /// Origins of its arguments, and of values in its results. Default: it says nothing about them.
    pub origins: OriginRules,
    /// JSON Schema of its arguments, an object schema.
    pub input: Arc<serde_json::Value>,
    /// A failed call had no effect.
    pub abortable: bool,
    /// Place in the catalog.
    pub at: Location,
}

/// An operation that an argument splits into several: one for each value of the argument.
#[derive(Clone, Debug)]
pub struct Split {
    /// The operation that callers name. Its tier is the highest of its cases; it has no other meaning of its own.
    pub operation: Operation,
    /// JSON pointer (RFC 6901) to the argument.
    pub on: String,
    /// The operation of each value.
    pub cases: BTreeMap<String, String>,
    /// The operation of a request without the argument. Default: such a request is refused.
    pub when_absent: Option<String>,
}

/// Effect of an operation.
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

    /// The tier of an operation with this effect whose rule names none. Of several effects the highest tier counts.
    #[must_use]
    pub const fn default_tier(self) -> Tier {
        match self {
            Self::Read | Self::Write => Tier::Standard,
            Self::Delete | Self::Export | Self::Execute => Tier::High,
            Self::Grant => Tier::Critical,
        }
    }
}

/// Rule that finds the resource of a call.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ResourceRule {
    /// A declared collection.
    pub collection: String,
    /// JSON pointer (RFC 6901) to the argument that holds the id. Default: the collection as a whole.
    pub id: Option<String>,
    /// Comparison of the collection's ids.
    pub spelling: Spelling,
}

/// Rule that finds the destinations of a call.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DestinationRule {
    /// JSON pointers (RFC 6901) to the arguments that name destinations.
    pub from: Vec<String>,
    /// Written form of the destinations, which determines their canonical form.
    pub kind: DestinationKind,
    /// Authority that the destinations carry.
    pub role: ValueRole,
    /// Class of a call that names no destination. Default: the least trusted class (the smallest clearance).
    pub when_absent: String,
}
