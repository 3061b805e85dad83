//! Slices: the policies that can match an operation.

use std::collections::BTreeMap;
use std::sync::Arc;

use authz_bundle::pause::Pause;

use crate::evaluate::Rule;
use crate::evaluate::syntax::{ActionScope, Asks};
use crate::policy::{Catalog, Covered, Placed};
use crate::schema::Keys;

/// The policies that can match an operation: the union of those on any action, on each of its groups, and on itself.
#[derive(Clone, Debug, Default)]
pub(crate) struct Slice {
    /// Each list holds copies of its rules, which stand one after the other in memory.
    lists: Vec<Arc<[(u32, Rule)]>>,
    /// Context keys that they read together.
    pub(crate) keys: Keys,
    /// Context keys that the policies without `@mode("observe")` read together.
    pub(crate) enforced_keys: Keys,
    /// Entities that they can read from the store.
    pub(crate) store: Asks,
}

impl Slice {
    /// Each policy once: its position, and its rule.
    pub(crate) fn policies(&self) -> impl Iterator<Item = (usize, &Rule)> + '_ {
        self.lists.iter().flat_map(|list| list.iter()).map(|(index, rule)| (*index as usize, rule))
    }

    fn add(&mut self, part: &SlicePart) {
        if part.list.is_empty() {
            return;
        }
        self.lists.push(Arc::clone(&part.list));
        self.keys = self.keys.union(part.keys);
        self.enforced_keys = self.enforced_keys.union(part.enforced_keys);
        self.store = self.store.max(part.store);
    }
}

/// Policies of a bundle, with the operations that the scope of each covers.
pub(super) struct ScopedPolicies<'a> {
    pub(super) policies: &'a [Placed],
    /// `None` for a policy with an error.
    pub(super) covered: &'a [Option<Covered>],
    pub(super) catalog: &'a Catalog<'a>,
}

/// Rules of a part of a slice, and a summary of the facts that they read.
struct SlicePart {
    list: Arc<[(u32, Rule)]>,
    keys: Keys,
    enforced_keys: Keys,
    store: Asks,
}

/// Positions of policies, by the operations that they cover.
struct PoliciesByScope<'a> {
    any: Vec<u32>,
    by_group: BTreeMap<&'a str, Vec<u32>>,
    /// By position of the operation.
    by_operation: Vec<Vec<u32>>,
}

impl<'a> ScopedPolicies<'a> {
    /// The slice of each operation, by position.
    ///
    /// `groups`: action groups of each operation, by position.
    pub(super) fn slices(&self, groups: &[Vec<String>], pause: &mut Pause<'_>) -> Vec<Slice> {
        let PoliciesByScope { any, by_group, by_operation } = self.by_scope(groups.len(), pause);
        let any = self.part(any);
        let by_group: BTreeMap<&str, SlicePart> =
            by_group.into_iter().map(|(group, list)| (group, self.part(list))).collect();
        let slice = |(groups, own): (&Vec<String>, Vec<u32>)| {
            pause.rest();
            let own = self.part(own);
            let shared = groups.iter().filter_map(|group| by_group.get(group.as_str()));
            let mut slice = Slice::default();
            [&any].into_iter().chain(shared).chain([&own]).for_each(|part| slice.add(part));
            slice
        };
        groups.iter().zip(by_operation).map(slice).collect()
    }

    fn by_scope(&self, operations: usize, pause: &mut Pause<'_>) -> PoliciesByScope<'a> {
        let mut any: Vec<u32> = Vec::new();
        let mut by_group: BTreeMap<&str, Vec<u32>> = BTreeMap::new();
        let mut by_operation: Vec<Vec<u32>> = vec![Vec::new(); operations];
        for (index, (placed, covered)) in self.policies.iter().zip(self.covered).enumerate() {
            pause.rest();
            let Ok(index) = u32::try_from(index) else { continue };
            match (&placed.policy.reading.actions, covered) {
                (_, None) => {}
                (ActionScope::Any, _) | (_, Some(Covered::All)) => any.push(index),
                (ActionScope::Of(ids), Some(Covered::Of(list))) => match ids.as_slice() {
                    // One group: all its operations share its list.
                    [group] if self.catalog.groups.contains_key(group.as_str()) => {
                        by_group.entry(group).or_default().push(index);
                    }
                    // Several names may overlap: each operation gets the policy once.
                    _ => {
                        for position in list {
                            if let Some(own) = by_operation.get_mut(*position) {
                                own.push(index);
                            }
                        }
                    }
                },
            }
        }
        PoliciesByScope { any, by_group, by_operation }
    }

    fn part(&self, positions: Vec<u32>) -> SlicePart {
        let rule =
            |index: u32| Some((index, self.policies.get(index as usize)?.policy.rule.clone()));
        let list: Vec<(u32, Rule)> = positions.into_iter().filter_map(rule).collect();
        let keys_of = |is_counted: fn(&Rule) -> bool| {
            let rules = list.iter().map(|(_, rule)| rule).filter(|rule| is_counted(rule));
            rules.fold(Keys::default(), |keys, rule| keys.union(rule.keys))
        };
        SlicePart {
            keys: keys_of(|_| true),
            enforced_keys: keys_of(|rule| !rule.is_observed),
            store: list.iter().map(|(_, rule)| rule.store).max().unwrap_or_default(),
            list: list.into(),
        }
    }
}
