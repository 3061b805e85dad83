//! Functions for the commands that write and review bundles, and the build's own facts.

use authz_kernel::{catalog, format, source, task};
use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;
use pyo3::types::PyBytes;

use crate::convert::{Files, detach, detach_json};

/// Lays out a Cedar file.
#[pyfunction]
pub(crate) fn format_policy(py: Python<'_>, text: &str, file: &str) -> PyResult<String> {
    detach(py, || format::format_policy(file, text))
}

/// Lists the names of `${…}` in a bundle's files, sorted.
#[pyfunction]
pub(crate) fn bundle_variables(py: Python<'_>, files: Files) -> Vec<String> {
    py.detach(|| {
        let files = files.iter().map(|(path, content)| (path.as_str(), &content[..]));
        source::variables(files).into_iter().collect()
    })
}

/// Returns the JSON Schema of a bundle's YAML files.
#[pyfunction]
pub(crate) fn bundle_schema(py: Python<'_>) -> String {
    py.detach(source::bundle_schema)
}

/// Returns the JSON Schema of case files.
#[pyfunction]
pub(crate) fn case_schema(py: Python<'_>) -> String {
    py.detach(authz_cases::case_schema)
}

/// Computes the digests and the operations of an MCP server's tools.
#[pyfunction]
pub(crate) fn seal_catalog(py: Python<'_>, document: &[u8]) -> PyResult<String> {
    py.detach(|| catalog::seal(document)).map_err(|error| PyValueError::new_err(error.to_string()))
}

/// Lists the destinations that a prompt names, as JSON.
#[pyfunction]
pub(crate) fn prompt_names(py: Python<'_>, prompt: &str) -> PyResult<String> {
    detach_json(py, || task::read_prompt(prompt))
}

/// Returns the profile that this module was compiled with.
#[pyfunction]
pub(crate) const fn build_profile() -> &'static str {
    authz_lane::build_profile()
}

/// Lists every reason code with its row, as JSON.
#[pyfunction]
pub(crate) fn reason_table(py: Python<'_>) -> Bound<'_, PyBytes> {
    let table = py.detach(authz_lane::message::reason_table);
    PyBytes::new(py, &table)
}
