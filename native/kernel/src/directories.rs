//! Directories in the bundle that is served: which ones policies read, and how each stands.

use serde::Serialize;

use crate::diagnostic::Diagnostics;
use crate::model::{DirectorySource, Model};
use crate::plan::Plan;
use crate::policy::Placed;
use crate::schema::Key;

pub use authz_bundle::directories::*;

/// Says which directories change no decision.
pub(crate) fn check(model: &Model, policies: &[Placed], diagnostics: &mut Diagnostics) {
    // Beside an error it would be noise.
    if diagnostics.has_errors() {
        return;
    }
    let mut readings = policies.iter().map(|placed| &placed.policy.reading);
    let is_trust_read = readings.any(|reading| reading.keys.contains(Key::Destination));
    for (name, rule) in &model.directories {
        let is_class = model.destinations.values().any(|one| one.directories.contains(name));
        if !(is_class || rule.trusted && is_trust_read) {
            diagnostics.warning(
                &rule.at,
                format!("nothing reads the directory `{name}`: it changes no decision"),
                "Name it in `destinations`, let a policy read `context.destination.trusted`, or remove it.",
            );
        }
    }
}

/// A directory of a bundle, as it is told.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Told<'a> {
    /// Its name.
    name: &'a str,
    /// Its file in the bundle; none: it is fetched.
    file: Option<&'a str>,
    /// Where it is fetched from.
    url: Option<&'a str>,
    /// The column of a CSV file; none: each line is an entry.
    column: Option<&'a str>,
    /// How old it may be; none: that makes no difference.
    max_age_seconds: Option<u64>,
    /// How many entries it has; none: the bundle does not say.
    entries: Option<usize>,
    /// What is in it is trusted.
    trusted: bool,
}

impl Plan {
    /// The bundle's directories, by name.
    pub fn directories(&self) -> impl Iterator<Item = Told<'_>> {
        self.model().directories.iter().map(|(name, rule)| {
            let (file, url, entries) = match &rule.from {
                DirectorySource::File(file, entries) => (Some(&**file), None, Some(entries.len())),
                DirectorySource::Url(url) => (None, Some(&**url), None),
            };
            Told {
                name,
                file,
                url,
                column: rule.column.as_deref(),
                max_age_seconds: rule.max_age.map(|age| age.as_secs()),
                entries,
                trusted: rule.trusted,
            }
        })
    }
}
