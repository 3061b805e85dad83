//! Scope of a task: entries by operation, and the uses of each.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::hash::{DefaultHasher, Hasher as _};
use std::sync::OnceLock;

use serde::{Deserialize, Serialize};

use super::Task;
use crate::spelling::Misspelling;

/// Most entries of one scope.
pub const MAX_SCOPE: usize = 1_000;
/// Most values in one set of a scope.
pub const MAX_TEXTS: usize = 1_000;
/// Most bytes of one value in a scope, or of a parameter.
pub const MAX_TEXT: usize = 1_024;

/// One operation in the scope of a task.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ScopeEntry {
    /// Operation id.
    pub operation: String,
    /// Resources on which the task may do it.
    #[serde(default)]
    pub resources: Selector,
    /// Limits on arguments, by JSON pointer (RFC 6901).
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub arguments: BTreeMap<String, Limit>,
    /// Limit of uses. `None`: no limit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub uses: Option<u32>,
}

/// Conjunction over resources; an absent field restricts nothing.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Selector {
    /// Any of these collections.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub collections: Option<BTreeSet<String>>,
    /// Any of these ids.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ids: Option<BTreeSet<String>>,
    /// Ids that begin with these whole segments.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub path_prefix: Option<String>,
    /// The only labels that a resource may have.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub label_ceiling: Option<BTreeSet<String>>,
}

/// Limit of one argument.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Limit {
    /// One of these texts.
    OneOf(BTreeSet<String>),
    /// A whole number from the first to the second.
    Range(i64, i64),
    /// A text with this prefix.
    Prefix(String),
}

/// Checks that a text can be a value in a scope.
///
/// # Errors
/// The text is empty, too long, or has control characters.
pub fn check_text(text: &str) -> Result<(), Misspelling> {
    if text.is_empty() || text.len() > MAX_TEXT {
        let what = "it is empty, or longer than 1,024 bytes";
        return Err(Misspelling { what, fix: "Write 1 to 1,024 bytes." });
    }
    if text.contains(char::is_control) {
        let what = "it holds control characters";
        return Err(Misspelling { what, fix: "Write 1 to 1,024 bytes." });
    }
    Ok(())
}

/// Index of a scope: the position of the first entry of each operation. The entries of many tasks fit into no processor
/// cache, and a binary search reads several of them; the index reads one.
///
/// It adds nothing to the scope: any two are equal, and none is stored.
#[derive(Clone, Default)]
pub struct ScopeIndex(OnceLock<Box<[u16]>>);

/// A shorter scope has a binary search.
const INDEXED: usize = 8;

impl ScopeIndex {
    /// The position of the first entry of an operation, or of no entry.
    fn first(&self, scope: &[ScopeEntry], operation: &str) -> usize {
        if scope.len() < INDEXED || scope.len() >= usize::from(u16::MAX) {
            return scope.partition_point(|entry| entry.operation.as_str() < operation);
        }
        let slots = self.0.get_or_init(|| Self::build(scope));
        let mut slot = slot(operation, slots.len());
        // At most half of the slots are taken, so an empty one ends every search.
        while let Some(position) = slots.get(slot).filter(|position| **position > 0) {
            let position = usize::from(position.saturating_sub(1));
            if scope.get(position).is_some_and(|entry| entry.operation == operation) {
                return position;
            }
            slot = next(slot, slots.len());
        }
        scope.len()
    }

    fn build(scope: &[ScopeEntry]) -> Box<[u16]> {
        let mut slots = vec![0_u16; scope.len().saturating_mul(2).next_power_of_two()];
        let mut before: Option<&str> = None;
        for (position, entry) in scope.iter().enumerate() {
            let is_first = before.is_none_or(|before| before < entry.operation.as_str());
            before = Some(&entry.operation);
            let Ok(position) = u16::try_from(position.saturating_add(1)) else { break };
            let mut slot = slot(&entry.operation, slots.len());
            while is_first && slots.get(slot).is_some_and(|taken| *taken > 0) {
                slot = next(slot, slots.len());
            }
            if let Some(free) = slots.get_mut(slot).filter(|_| is_first) {
                *free = position;
            }
        }
        slots.into_boxed_slice()
    }
}

fn slot(operation: &str, slots: usize) -> usize {
    let mut hasher = DefaultHasher::new();
    hasher.write(operation.as_bytes());
    usize::try_from(hasher.finish() % (slots.max(1) as u64)).unwrap_or(0)
}

const fn next(slot: usize, slots: usize) -> usize {
    let next = slot.saturating_add(1);
    if next < slots { next } else { 0 }
}

impl PartialEq for ScopeIndex {
    fn eq(&self, _: &Self) -> bool {
        true
    }
}

impl Eq for ScopeIndex {}

impl fmt::Debug for ScopeIndex {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ScopeIndex")
    }
}

impl Task {
    /// Entries of an operation, and the position of the first.
    ///
    /// INVARIANT (sorted): a scope is sorted by operation. Where it is not, entries are missed, which denies.
    #[must_use]
    pub fn entries(&self, operation: &str) -> (usize, &[ScopeEntry]) {
        let first = self.index.first(&self.scope, operation);
        let rest = self.scope.get(first..).unwrap_or_default();
        let count = rest.iter().take_while(|entry| entry.operation == operation).count();
        (first, rest.get(..count).unwrap_or_default())
    }

    /// Counts what a permit was charged on this task; other tasks' charges are passed over.
    pub fn charge(&mut self, charged: &[(String, u32)]) {
        self.count(charged, |uses| uses.saturating_add(1));
    }

    /// Takes back what [`Task::charge`] counted.
    pub fn release(&mut self, charged: &[(String, u32)]) {
        self.count(charged, |uses| uses.saturating_sub(1));
    }

    fn count(&mut self, charged: &[(String, u32)], change: fn(u64) -> u64) {
        for (_, entry) in charged.iter().filter(|(task, _)| *task == self.id) {
            let Ok(index) = usize::try_from(*entry) else { continue };
            if index >= self.scope.len() {
                continue;
            }
            if self.uses.len() < self.scope.len() {
                self.uses.resize(self.scope.len(), 0);
            }
            if let Some(uses) = self.uses.get_mut(index) {
                *uses = change(*uses);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn entry(operation: String) -> ScopeEntry {
        ScopeEntry { operation, ..ScopeEntry::default() }
    }

    proptest! {
        /// A scope of any length is looked through as if entry by entry.
        #[test]
        fn the_index_finds_what_looking_at_all_finds(
            mut names in proptest::collection::vec("[a-c]{1,3}\\.[a-c]{0,2}", 0..60),
            asked in "[a-c]{1,3}\\.[a-c]{0,2}",
        ) {
            names.sort();
            let scope: Vec<ScopeEntry> = names.into_iter().map(entry).collect();
            let index = ScopeIndex::default();
            for operation in scope.iter().map(|entry| entry.operation.as_str()).chain([asked.as_str()]) {
                let slow = scope.iter().position(|entry| entry.operation == operation);
                let fast = index.first(&scope, operation);
                let found = scope.get(fast).is_some_and(|entry| entry.operation == operation);
                prop_assert_eq!(slow, found.then_some(fast));
            }
        }
    }
}
