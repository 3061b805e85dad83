//! Named sets of destinations that others keep.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::build::{Build, duration};
use super::ids;
use super::types::DirectoryEntry;
use super::yaml::{At, Entries as Said, Many, Mark};
use crate::diagnostic::{clip, unknown};
use crate::directories::{Entries, MAX_DIRECTORIES};
use crate::model::DirectoryRule;

/// Bytes of a column's name.
const LONGEST_COLUMN: usize = 256;

/// Takes over `directories`.
///
/// Args: `files`: the files of the bundle, by path.
pub(super) fn apply(
    build: &mut Build<'_>,
    file: &str,
    said: &Said<DirectoryEntry>,
    files: &BTreeMap<String, Vec<u8>>,
) {
    for (name, entry) in &said.0 {
        let Some(at) = build.declare(file, "directory", name, ids::refuse) else { continue };
        if build.model.directories.len() >= MAX_DIRECTORIES {
            let what = format!("more than {MAX_DIRECTORIES} directories");
            return build.found.error(&at, what, "Join some of them.");
        }
        build.later(file, "url", entry.url.as_ref());
        let column = entry.column.as_ref().and_then(|column| {
            let fits = (1..=LONGEST_COLUMN).contains(&column.value.len());
            if !fits {
                let what = format!("`{}` is no name of a column", clip(&column.value));
                build.found.error(&column.at.within(file), what, "Write 1 to 256 bytes.");
            }
            fits.then_some(column.value.as_str())
        });
        let max_age = entry.max_age.as_ref().and_then(|text| {
            let span = duration(&text.value);
            if span.is_none() {
                let what = format!("`{}` is no duration", clip(&text.value));
                build.found.error(&text.at.within(file), what, "Write 30s, 15m, 24h or 7d.");
            }
            span
        });
        let Some(path) = &entry.file else {
            let what = format!("the directory `{}` comes from nowhere", name.value);
            build.found.error(&at, what, "Add `file: data/<name>.csv`.");
            continue;
        };
        let place = path.at.within(file);
        let Some(bytes) = files.get(&path.value).filter(|_| path.value.starts_with("data/")) else {
            let what = format!("the bundle has no file `{}` under data/", clip(&path.value));
            build.found.error(&place, what, "Add it.");
            continue;
        };
        match Entries::read(bytes, column) {
            Ok(entries) => {
                if entries.odd() > 0 {
                    let what = format!(
                        "{} of the entries of `{}` can be no destination, whatever its type",
                        entries.odd(),
                        clip(&path.value)
                    );
                    build.found.warning(
                        &place,
                        what,
                        "Write one mailbox, host, IBAN, account or path each.",
                    );
                }
                let rule = DirectoryRule {
                    file: path.value.clone(),
                    entries: Arc::new(entries),
                    max_age,
                    trusted: entry.trusted.unwrap_or(true),
                    at,
                };
                build.model.directories.insert(name.value.clone(), rule);
            }
            Err(defect) => {
                let at = Mark { line: line(defect.line), column: 0 }.within(&path.value);
                let what = format!("the directory `{}`: {}", name.value, defect.what);
                build.found.error(&at, what, "Mend the file.");
            }
        }
    }
}

fn line(number: usize) -> u32 {
    u32::try_from(number).unwrap_or(0)
}

impl Build<'_> {
    /// The directories of a destination class, once all are known.
    pub(super) fn directories(&mut self, file: &str, said: &Many<At<String>>) -> BTreeSet<String> {
        let mut found = BTreeSet::new();
        for name in &said.0 {
            if self.model.directories.contains_key(&name.value) {
                found.insert(name.value.clone());
                continue;
            }
            let declared = self.model.directories.iter();
            let declared = declared.map(|(name, rule)| (name.as_str(), Some(&rule.at)));
            let (what, mend) = unknown("directory", &name.value, declared);
            self.found.error(&name.at.within(file), what, mend);
        }
        found
    }
}
