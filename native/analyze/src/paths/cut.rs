//! Smallest sets of changes that remove a path: an exact minimum hitting set over the paths that are found one after the other.

use std::collections::{BTreeMap, BTreeSet};

/// Changes of the largest set that is looked for.
pub const MOST_CHANGES: usize = 12;

/// Finds a smallest set that has an element of each of these sets. `None`: each has more than [`MOST_CHANGES`] elements.
///
/// Among sets of equal size the first in the order of its elements wins.
#[must_use]
pub fn hitting_set<T: Ord + Clone>(sets: &[BTreeSet<T>]) -> Option<BTreeSet<T>> {
    (0..=MOST_CHANGES).find_map(|size| of_size(sets, size, &BTreeSet::new()))
}

/// A hitting set with at most `size` elements beside those that are chosen.
// Recursion is bounded by `size`.
fn of_size<T: Ord + Clone>(
    sets: &[BTreeSet<T>],
    size: usize,
    chosen: &BTreeSet<T>,
) -> Option<BTreeSet<T>> {
    let missed: Vec<&BTreeSet<T>> = sets.iter().filter(|set| set.is_disjoint(chosen)).collect();
    // Branch on the set with the fewest elements: one of them must be chosen.
    let Some(smallest) = missed.iter().min_by_key(|set| set.len()) else {
        return Some(chosen.clone());
    };
    if size == 0 || bound(&missed) > size {
        return None;
    }
    smallest.iter().find_map(|element| {
        let mut longer = chosen.clone();
        longer.insert(element.clone());
        of_size(sets, size.saturating_sub(1), &longer)
    })
}

/// Elements that any hitting set needs: one for each of some sets that have nothing in common.
fn bound<T: Ord>(sets: &[&BTreeSet<T>]) -> usize {
    let mut apart: Vec<&BTreeSet<T>> = Vec::new();
    for set in sets {
        if apart.iter().all(|other| set.is_disjoint(other)) {
            apart.push(set);
        }
    }
    apart.len()
}

/// Files of a bundle after changes.
///
/// Args: `files`: the files; Cedar files with their variables filled in. `removed`: texts of policies to remove, by file;
/// `added`: policies to add.
#[must_use]
pub fn changed_files(
    files: &BTreeMap<String, Vec<u8>>,
    removed: &[(String, String)],
    added: &[String],
) -> Option<BTreeMap<String, Vec<u8>>> {
    let mut changed = files.clone();
    for (file, text) in removed {
        let content = changed.get(file).and_then(|bytes| String::from_utf8(bytes.clone()).ok())?;
        let at = content.find(text.as_str())?;
        let end = at.checked_add(text.len())?;
        let before = content.get(..at)?;
        let after = content.get(end..)?;
        changed.insert(file.clone(), format!("{before}{after}").into_bytes());
    }
    if !added.is_empty() {
        changed
            .insert("policies/authz-analyze-cut.cedar".to_owned(), added.join("\n").into_bytes());
    }
    Some(changed)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sets(all: &[&[u32]]) -> Vec<BTreeSet<u32>> {
        all.iter().map(|set| set.iter().copied().collect()).collect()
    }

    #[test]
    fn the_smallest_set_hits_all() {
        for (all, size) in [
            (&[][..], Some(0)),
            (&[&[1][..], &[1, 2], &[1, 3]], Some(1)),
            (&[&[1, 2], &[2, 3], &[3, 1]], Some(2)),
            (&[&[1], &[2], &[3]], Some(3)),
            (&[&[]], None),
        ] {
            let found = hitting_set(&sets(all));
            assert_eq!(size, found.as_ref().map(BTreeSet::len), "{all:?}: {found:?}");
            for set in sets(all) {
                assert!(found.as_ref().is_none_or(|found| !found.is_disjoint(&set)), "{all:?}");
            }
        }
    }

    #[test]
    fn a_greedy_choice_would_be_larger() {
        // Greedy takes 1, which is in most sets, and then needs two more.
        let all = sets(&[&[1, 2], &[1, 2], &[1, 3], &[1, 3], &[2, 4], &[3, 5]]);
        assert_eq!(hitting_set(&all).map(|found| found.len()), Some(2));
    }

    #[test]
    fn thirteen_changes_are_too_many() {
        let all: Vec<BTreeSet<u32>> = (0..13).map(|n| BTreeSet::from([n])).collect();
        assert_eq!(hitting_set(&all), None);
        assert_eq!(hitting_set(all.get(1..).unwrap_or_default()).map(|set| set.len()), Some(12));
    }
}
