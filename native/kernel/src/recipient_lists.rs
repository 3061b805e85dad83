//! Recipient lists of a bundle: unused ones, and a summary for people.

use authz_bundle::bundle::Bundle;
use serde::Serialize;

use crate::diagnostic::Diagnostics;
use crate::model::{Model, RecipientListSource};
use crate::policy::Placed;
use crate::schema::{Key, Keys};

pub use authz_bundle::recipient_lists::*;

/// Warns about recipient lists that change no decision.
pub(crate) fn check(model: &Model, policies: &[Placed], diagnostics: &mut Diagnostics) {
    // After an error, the warning would only distract.
    if diagnostics.has_errors() {
        return;
    }
    let mut readings = policies.iter().map(|placed| &placed.policy.reading);
    let reads_trust = |keys: Keys| {
        [Key::Destination, Key::Origins, Key::Literals].into_iter().any(|key| keys.contains(key))
    };
    let is_trust_read = readings.any(|reading| reads_trust(reading.keys));
    for (name, rule) in &model.recipient_lists {
        let is_class =
            model.destinations.values().any(|class| class.recipient_lists.contains(name));
        if !(is_class || rule.trusted && is_trust_read) {
            diagnostics.warning(
                &rule.at,
                format!("nothing reads the recipient list `{name}`: it changes no decision"),
                "Name it in `destinations`, let a policy read `context.destination.trusted`, or remove it.",
            );
        }
    }
}

/// A recipient list of a bundle, as shown to people.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct RecipientListSummary<'a> {
    /// Its name.
    name: &'a str,
    /// Its file in the bundle. `None`: the server fetches it.
    file: Option<&'a str>,
    /// URL that the server fetches.
    url: Option<&'a str>,
    /// The column of a CSV file. `None`: each line is an entry.
    column: Option<&'a str>,
    /// The column of aliases. `None`: its entries have none.
    alias: Option<&'a str>,
    /// Age at which it is stale. `None`: never.
    max_age_seconds: Option<u64>,
    /// Number of entries. `None`: the bundle does not have the entries.
    entries: Option<usize>,
    /// Its entries are trusted.
    trusted: bool,
}

impl<'a> RecipientListSummary<'a> {
    /// The recipient lists of a bundle, by name.
    pub(crate) fn all(bundle: &'a Bundle) -> impl Iterator<Item = Self> {
        let files = &bundle.tables().recipient_lists;
        bundle.model().recipient_lists.iter().map(|(name, rule)| {
            let (file, url) = match &rule.from {
                RecipientListSource::File(file) => (Some(&**file), None),
                RecipientListSource::Url(url) => (None, Some(&**url)),
            };
            RecipientListSummary {
                name,
                file,
                url,
                column: rule.column.as_deref(),
                alias: rule.alias.as_deref(),
                max_age_seconds: rule.max_age.map(|age| age.as_secs()),
                entries: files.get(name).map(|entries| entries.len()),
                trusted: rule.trusted,
            }
        })
    }
}
