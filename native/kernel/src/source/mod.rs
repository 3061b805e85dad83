//! Reads a bundle without its tests, which `authz-cases` reads.

#[cfg(any(test, feature = "test-support"))]
pub mod fuzz;

use std::collections::BTreeMap;

use authz_bundle::bundle::Bundle;
pub use authz_bundle::source::{BundleReader, bundle_digest, bundle_schema, variables};

use crate::diagnostic::{Diagnostic, Diagnostics};

/// Reads a bundle without its tests: path relative to the bundle folder, `/`-separated, to bytes.
///
/// # Errors
/// All defects, with file, line and fix. Warnings of a good bundle are in its model.
pub fn load(
    files: &BTreeMap<String, Vec<u8>>,
    vars: &BTreeMap<String, String>,
) -> Result<Bundle, Diagnostics> {
    BundleReader::new(files, vars, skip_test).read()
}

/// Accepts a test file unread.
const fn skip_test(_: &str, _: &[u8], _: &BTreeMap<String, String>) -> Result<(), Diagnostic> {
    Ok(())
}

#[cfg(test)]
mod tests;
