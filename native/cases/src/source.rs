//! Reads a bundle, its tests included.

use std::collections::BTreeMap;

use authz_bundle::source::BundleReader;
use authz_kernel::diagnostic::Diagnostic;

use crate::check::parse;

/// A reader of a bundle and its tests: path relative to the bundle folder, `/`-separated, to bytes.
///
/// `vars` fill `${name}` in the texts of YAML files and in Cedar files. The digest is over the files as they are.
#[must_use]
pub fn reader<'a>(
    files: &'a BTreeMap<String, Vec<u8>>,
    vars: &'a BTreeMap<String, String>,
) -> BundleReader<'a> {
    BundleReader::new(files, vars, read_test)
}

fn read_test(path: &str, bytes: &[u8], vars: &BTreeMap<String, String>) -> Result<(), Diagnostic> {
    parse(path, bytes, vars).map(drop)
}
