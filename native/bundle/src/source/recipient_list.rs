//! Reads `recipient_lists`: destinations that another party lists.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::build::{ModelBuilder, duration};
use super::types::RecipientListEntry;
use super::yaml::{At, Entries, Many, Mark};
use crate::canonical::canonical;
use crate::diagnostic::{clip, unknown};
use crate::ids;
use crate::model::{DestinationKind, RecipientListRule, RecipientListSource};
use crate::recipient_lists::{Columns, MAX_RECIPIENT_LISTS, RecipientListEntries};

/// Bytes of a column's name.
const LONGEST_COLUMN: usize = 256;
/// Bytes of a URL.
const LONGEST_URL: usize = 2_048;

/// Takes over `recipient_lists`.
///
/// `files`: the files of the bundle, by path.
pub(super) fn apply(
    build: &mut ModelBuilder<'_>,
    file: &str,
    said: &Entries<RecipientListEntry>,
    files: &BTreeMap<String, Vec<u8>>,
) {
    for (name, entry) in &said.0 {
        let Some(at) = build.declare(file, "recipient list", name, ids::refuse) else { continue };
        if build.model.recipient_lists.len() >= MAX_RECIPIENT_LISTS {
            let what = format!("more than {MAX_RECIPIENT_LISTS} recipient lists");
            return build.found.error(&at, what, "Join some of them.");
        }
        let column = build.column(file, entry.column.as_ref());
        let alias = build.column(file, entry.alias.as_ref());
        if let (Some(alias), None) = (&entry.alias, &entry.column) {
            let what = format!("the recipient list `{}` has `alias` but no `column`", name.value);
            build.found.error(&alias.at.within(file), what, "Add `column`, or remove `alias`.");
        }
        let columns = Columns { entry: column, alias };
        let max_age = entry.max_age.as_ref().and_then(|text| {
            let span = duration(&text.value);
            if span.is_none() {
                let what = format!("`{}` is no duration", clip(&text.value));
                build.found.error(&text.at.within(file), what, "Write 30s, 15m, 24h or 7d.");
            }
            span
        });
        let from = match (&entry.file, &entry.url) {
            (Some(path), None) => build.listed(file, name, path, columns, files),
            (None, Some(url)) => build.fetched(file, name, url, entry.max_age.is_some()),
            (None, None) => {
                let what = format!("the recipient list `{}` comes from nowhere", name.value);
                build.found.error(&at, what, "Add `file: data/<name>.csv`, or `url: https://…`.");
                None
            }
            (Some(_), Some(url)) => {
                let what = format!("the recipient list `{}` comes from two places", name.value);
                build.found.error(&url.at.within(file), what, "Remove `file` or `url`.");
                None
            }
        };
        let Some(from) = from else { continue };
        let trusted = entry.trusted.unwrap_or(true);
        let (column, alias) = (column.map(str::to_owned), alias.map(str::to_owned));
        let rule = RecipientListRule { from, column, alias, max_age, trusted, at };
        build.model.recipient_lists.insert(name.value.clone(), rule);
    }
}

fn line(number: usize) -> u32 {
    u32::try_from(number).unwrap_or(0)
}

impl ModelBuilder<'_> {
    /// The name of a column. None, with an error, where it is too long.
    fn column<'a>(&mut self, file: &str, column: Option<&'a At<String>>) -> Option<&'a str> {
        let column = column?;
        let fits = (1..=LONGEST_COLUMN).contains(&column.value.len());
        if !fits {
            let what = format!("`{}` is no name of a column", clip(&column.value));
            self.found.error(&column.at.within(file), what, "Write 1 to 256 bytes.");
        }
        fits.then_some(column.value.as_str())
    }

    /// A recipient list that is a file of the bundle.
    fn listed(
        &mut self,
        file: &str,
        name: &At<String>,
        path: &At<String>,
        columns: Columns<'_>,
        files: &BTreeMap<String, Vec<u8>>,
    ) -> Option<RecipientListSource> {
        let place = path.at.within(file);
        let Some(bytes) = files.get(&path.value).filter(|_| path.value.starts_with("data/")) else {
            let what = format!("the bundle has no file `{}` under data/", clip(&path.value));
            self.found.error(&place, what, "Add it.");
            return None;
        };
        match RecipientListEntries::read(bytes, columns) {
            Ok(entries) => {
                if entries.odd() > 0 {
                    let what = format!(
                        "{} of the entries of `{}` can be no destination, whatever its type",
                        entries.odd(),
                        clip(&path.value)
                    );
                    let fix = "Write one mailbox, host, IBAN, account or path each.";
                    self.found.warning(&place, what, fix);
                }
                self.recipient_list_files.insert(name.value.clone(), Arc::new(entries));
                Some(RecipientListSource::File(path.value.clone()))
            }
            Err(defect) => {
                let at = Mark { line: line(defect.line), column: 0 }.within(&path.value);
                let what = format!("the recipient list `{}`: {}", name.value, defect.what);
                self.found.error(&at, what, "Fix the file.");
                None
            }
        }
    }

    /// A recipient list that the server fetches. The configuration limits which URLs it may fetch.
    ///
    /// `has_max_age`: the recipient list has `max_age`.
    fn fetched(
        &mut self,
        file: &str,
        name: &At<String>,
        url: &At<String>,
        has_max_age: bool,
    ) -> Option<RecipientListSource> {
        let at = url.at.within(file);
        if !has_max_age {
            let what = format!("the recipient list `{}` would never be too old", name.value);
            let fix = "Say how long what was fetched last may count: `max_age: 24h`.";
            self.found.error(&at, what, fix);
            return None;
        }
        let is_host = canonical(DestinationKind::UrlHost, &url.value).is_ok();
        let is_url = url.value.len() <= LONGEST_URL
            && url.value.bytes().all(|byte| byte.is_ascii_graphic())
            && !url.value.contains(['@', '#']);
        if !(is_host && is_url && url.value.starts_with("https://")) {
            // It may hold a password.
            let what =
                format!("what the recipient list `{}` has as `url` is no https URL", name.value);
            let fix = "Write `https://host/path`, without a user or a fragment.";
            self.found.error(&at, what, fix);
            return None;
        }
        Some(RecipientListSource::Url(url.value.clone()))
    }

    /// The recipient lists of a destination class, once all are known.
    pub(super) fn recipient_lists(
        &mut self,
        file: &str,
        said: &Many<At<String>>,
    ) -> BTreeSet<String> {
        let mut found = BTreeSet::new();
        for name in &said.0 {
            if self.model.recipient_lists.contains_key(&name.value) {
                found.insert(name.value.clone());
                continue;
            }
            let declared = self.model.recipient_lists.iter();
            let declared = declared.map(|(name, rule)| (name.as_str(), Some(&rule.at)));
            let (what, fix) = unknown("recipient list", &name.value, declared);
            self.found.error(&name.at.within(file), what, fix);
        }
        found
    }
}
