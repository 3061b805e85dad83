//! Loads a bundle: `authz-bundle` reads its files, and the kernel its tests.

#[cfg(any(test, feature = "test-support"))]
pub mod fuzz;

use std::collections::BTreeMap;

pub use authz_bundle::source::{bundle_schema, variables};

use crate::casefile;
use crate::decision::Time;
use crate::diagnostic::{Diagnostic, Diagnostics};
use crate::model::Model;

/// Reads a bundle, given as its files: path relative to the bundle folder, `/`-separated, to bytes.
///
/// `vars` fill `${name}` in the texts of YAML files and in Cedar files; the digest is over the files as they stand.
///
/// # Errors
/// Everything that is wrong, with file, line and how to mend it. Warnings of a good bundle are in the model.
pub fn load(
    files: &BTreeMap<String, Vec<u8>>,
    vars: &BTreeMap<String, String>,
) -> Result<Model, Diagnostics> {
    authz_bundle::source::load(files, vars, read_test)
}

/// As [`load`], and holds the ends of `mode` against the time of loading.
///
/// Args:
/// * `previous`: what was read before; where nothing but policies is different, nothing else is read again.
///
/// # Errors
/// As [`load`]; also where an entry observes for longer than it may.
pub fn load_at(
    files: &BTreeMap<String, Vec<u8>>,
    vars: &BTreeMap<String, String>,
    now: Time,
    previous: Option<&Model>,
) -> Result<Model, Diagnostics> {
    authz_bundle::source::load_at(files, vars, now, previous, read_test)
}

/// As [`load_at`], while something else goes on that must not wait.
///
/// Args:
/// * `rest`: called again and again; it may wait.
///
/// # Errors
/// As [`load_at`].
pub fn load_beside(
    files: &BTreeMap<String, Vec<u8>>,
    vars: &BTreeMap<String, String>,
    now: Time,
    previous: Option<&Model>,
    rest: &mut (dyn FnMut() + Send),
) -> Result<Model, Diagnostics> {
    authz_bundle::source::load_beside(files, vars, now, previous, read_test, rest)
}

fn read_test(path: &str, bytes: &[u8], vars: &BTreeMap<String, String>) -> Result<(), Diagnostic> {
    casefile::parse(path, bytes, vars).map(drop)
}

#[cfg(test)]
mod tests;
