//! Loads a bundle without its tests, which `authz-cases` reads.

#[cfg(any(test, feature = "test-support"))]
pub mod fuzz;

use std::collections::BTreeMap;

pub use authz_bundle::source::{bundle_schema, variables};

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
    authz_bundle::source::load(files, vars, unread_test)
}

/// A test file that nobody reads.
fn unread_test(_: &str, _: &[u8], _: &BTreeMap<String, String>) -> Result<(), Diagnostic> {
    Ok(())
}

#[cfg(test)]
mod tests;
