//! Loads a bundle, its tests included.

use std::collections::BTreeMap;

use authz_kernel::decision::Time;
use authz_kernel::diagnostic::{Diagnostic, Diagnostics};
use authz_kernel::model::Model;

use crate::check::parse;

/// Reads a bundle, given as its files: path relative to the bundle folder, `/`-separated, to bytes.
///
/// Args:
/// * `vars`: fill `${name}` in the texts of YAML files and in Cedar files; the digest is over the files as they stand.
/// * `now`: time of loading, which the ends of `mode` are compared with.
/// * `previous`: the model that was read before; where nothing but policies is different, nothing else is read again.
/// * `rest`: called again and again while the bundle is read; it may wait.
///
/// # Errors
/// All errors of the bundle and of its tests, with file, line and fix. Warnings of a good bundle are in the model.
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
    parse(path, bytes, vars).map(drop)
}
