//! Labels, and the collections whose resources carry them.

use std::collections::{BTreeMap, BTreeSet};

use authz_base::tier::Tier;

use crate::location::Location;

/// Kind of a label.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LabelKind {
    /// The label says who may see the data.
    Confidentiality,
    /// The label says how far the data can be trusted.
    Trust,
}

/// Rule that derives a label: many harmless parts together can be harmful.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Derive {
    /// The label that is counted.
    pub from: String,
    /// Unit of the count.
    pub distinct: Distinct,
    /// Count from which the derived label applies.
    pub least: u32,
}

/// Unit in which a derived label counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Distinct {
    /// Collections and systems.
    Sources,
    /// Resources; a collection as a whole counts as one.
    Resources,
}

/// Labels and destination classes that raise the tier of a call, by name.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Raises {
    /// Tier of calls in a session that carries the label.
    pub labels: BTreeMap<String, Tier>,
    /// Tier of calls that send data to the class.
    pub classes: BTreeMap<String, Tier>,
}

/// A named set of resources.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Collection {
    /// Labels of every resource in it.
    pub labels: BTreeSet<String>,
    /// How long data that agents wrote into it keeps the labels that the agents carried, in milliseconds. `None`: not at all.
    pub keeps_ms: Option<i64>,
    /// Place of that key in the bundle. `None`: the bundle leaves it out.
    pub keeps_at: Option<Location>,
    /// Comparison of its ids.
    pub spelling: Spelling,
    /// Place in the bundle.
    pub at: Location,
}

/// Comparison of the ids of a collection.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Spelling {
    /// Byte by byte: each id has one spelling.
    #[default]
    Exact,
    /// Without case: all spellings of an id share one case-folded key.
    Fold,
}

/// Pattern over the resource ids of a collection that adds labels.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ResourcePattern {
    /// A declared collection.
    pub collection: String,
    /// Whole-segment pattern over the id (`*` one segment, a last `**` any number).
    pub pattern: String,
    /// The added labels.
    pub labels: BTreeSet<String>,
}
