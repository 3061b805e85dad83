//! Places of parts of a bundle, for messages.

use std::collections::{BTreeMap, BTreeSet};

use authz_base::tier::Tier;

use crate::location::Location;

/// Places of parts whose own type has none.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Places {
    /// The `classify` rule of each operation, by the operation's id.
    pub meanings: BTreeMap<String, Location>,
    /// Operations whose rule says `yields`, also as an empty list.
    pub yields: BTreeSet<String>,
    /// Operations whose rule says `objects`, also as an empty list.
    pub objects: BTreeSet<String>,
    /// Entries of `tiers`.
    pub tiers: BTreeMap<Tier, Location>,
    /// `tier_cap` of each template that states one.
    pub tier_caps: BTreeMap<String, Location>,
    /// `beyond` of each template that has it.
    pub beyonds: BTreeMap<String, Location>,
    /// Entries of the scope of each template, in the order of the file.
    pub scopes: BTreeMap<String, Vec<ScopePlace>>,
    /// `tasks` of `bundle.yaml`.
    pub tasks: Option<Location>,
    /// `denials`.
    pub denials: Option<Location>,
    /// `implicit_tasks` of `bundle.yaml`.
    pub implicit: Option<Location>,
}

/// Place of one entry of a scope.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ScopePlace {
    /// Ids of the operations that the entry allows.
    pub operations: Vec<String>,
    /// The place.
    pub at: Location,
}

impl Places {
    /// The place of the first entry of a template's scope that allows an operation.
    #[must_use]
    pub fn scope_entry(&self, template: &str, operation: &str) -> Option<&Location> {
        let entries = self.scopes.get(template)?.iter();
        let mut fitting =
            entries.filter(|entry| entry.operations.iter().any(|one| one == operation));
        fitting.next().map(|entry| &entry.at)
    }
}
