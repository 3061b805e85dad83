//! Progress of rules when one bundle follows another.

use std::collections::BTreeMap;

use serde::Serialize;

use super::{Budgets, Sequences};

/// Sequences and budgets of a bundle compared with the bundle before, each as `sequences.NAME` or `budgets.NAME`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Renewal {
    /// Number of rules that mean the same as before: their progress goes on.
    pub carried: usize,
    /// Rules that mean something else: earlier events of live sessions do not count for them.
    pub changed: Vec<String>,
    /// New rules.
    pub added: Vec<String>,
    /// Rules that the new bundle lacks. Their progress is kept, and counts again if the same rule comes back.
    pub removed: Vec<String>,
}

/// Names under which the progress of each rule is stored, by `sequences.NAME` or `budgets.NAME`.
pub(crate) struct StoredRules<'a>(BTreeMap<String, &'a str>);

impl<'a> StoredRules<'a> {
    /// The rules of one bundle.
    pub(crate) fn of(sequences: &'a Sequences, budgets: &'a Budgets) -> Self {
        let of = |kind: &'static str| move |(name, stored)| (format!("{kind}.{name}"), stored);
        let sequences = sequences.stored().into_iter().map(of("sequences"));
        Self(sequences.chain(budgets.stored().into_iter().map(of("budgets"))).collect())
    }
}

impl Renewal {
    /// Compares the rules of a bundle with those of the bundle before.
    pub(crate) fn of(before: &StoredRules<'_>, after: &StoredRules<'_>) -> Self {
        let mut renewal = Self::default();
        for (name, stored) in &after.0 {
            match before.0.get(name) {
                Some(known) if known == stored => {
                    renewal.carried = renewal.carried.saturating_add(1);
                }
                Some(_) => renewal.changed.push(name.clone()),
                None => renewal.added.push(name.clone()),
            }
        }
        let removed = before.0.keys().filter(|name| !after.0.contains_key(*name));
        renewal.removed = removed.cloned().collect();
        renewal
    }
}
