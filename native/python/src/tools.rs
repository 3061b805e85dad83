//! Functions for the commands that write and review bundles, and the build's own facts.

use authz_base::{hex, json};
use authz_kernel::model::{Effect, Tier};
use authz_kernel::{catalog, format, mcp, source, task};
use authz_state::store::DatabaseAddress;
use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;
use pyo3::types::PyBytes;

use crate::convert::{Files, detach, detach_json, json_text};

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

/// Returns the digest of a bundle's files in hex, also of a bundle that does not compile.
#[pyfunction]
pub(crate) fn bundle_digest(py: Python<'_>, files: Files) -> String {
    py.detach(|| {
        let files = files.iter().map(|(path, content)| (path.as_str(), &content[..]));
        hex::hex(&source::bundle_digest(files))
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

/// Returns the arguments of the operation that stands for a message of MCP, as JSON.
#[pyfunction]
#[pyo3(signature = (method, params, *, is_notification))]
pub(crate) fn mcp_arguments<'p>(
    py: Python<'p>,
    method: Option<&str>,
    params: &[u8],
    is_notification: bool,
) -> PyResult<Option<Bound<'p, PyBytes>>> {
    let read = |params| match json::parse(params, json::Limits::default()) {
        Ok(json::Value::Object(members)) => Ok(members),
        Ok(_) => Err("not a JSON object".to_owned()),
        Err(error) => Err(error.what.to_string()),
    };
    let written = py.detach(|| {
        let arguments = mcp::protocol_arguments(method, is_notification, &read(params)?);
        Ok(arguments.map(|arguments| {
            let mut text = String::new();
            arguments.write(&mut text);
            text
        }))
    });
    let written = written.map_err(|what: String| PyValueError::new_err(what))?;
    Ok(written.map(|text| PyBytes::new(py, text.as_bytes())))
}

/// Lists the destinations that a prompt names, as JSON.
#[pyfunction]
pub(crate) fn prompt_names(py: Python<'_>, prompt: &str) -> PyResult<String> {
    detach_json(py, || task::read_prompt(prompt))
}

/// Lists the words of a prompt that a task keeps, in order, as JSON: null for a gap.
#[pyfunction]
pub(crate) fn prompt_words(py: Python<'_>, prompt: &str) -> PyResult<String> {
    detach_json(py, || task::kept_words(prompt))
}

/// Tells of each value whether a prompt names it, as JSON.
#[pyfunction]
#[expect(clippy::needless_pass_by_value, reason = "pyo3 extracts a vector")]
pub(crate) fn prompt_values(py: Python<'_>, prompt: &str, values: Vec<String>) -> PyResult<String> {
    detach_json(py, || {
        let sample = task::SamplePrompt::read(prompt);
        let told = |value: &String| match sample.is_named(value) {
            Ok(is_named) => serde_json::json!({"value": value, "named": is_named}),
            Err(error) => serde_json::json!({"value": value, "named": false, "error": error.what}),
        };
        values.iter().map(told).collect::<Vec<_>>()
    })
}

/// Returns the profile that this module was compiled with.
#[pyfunction]
pub(crate) const fn build_profile() -> &'static str {
    authz_lane::build_profile()
}

/// Lists all effects with their default tiers, and all tiers, each in order, as JSON.
#[pyfunction]
pub(crate) fn effect_table(py: Python<'_>) -> PyResult<String> {
    detach_json(py, || {
        let effects = Effect::ALL.map(|effect| (effect.as_str(), effect.default_tier().as_str()));
        serde_json::json!({ "effects": effects, "tiers": Tier::ALL.map(Tier::as_str) })
    })
}

/// Tells whether a pattern of SPIFFE ids, or an id, covers an id or a narrower pattern.
#[pyfunction]
pub(crate) fn spiffe_covers(pattern: &str, id: &str) -> bool {
    authz_base::spiffe::covers(pattern, id)
}

/// Reads the connection string of a PostgreSQL server, as JSON with the password.
#[pyfunction]
pub(crate) fn parse_dsn(py: Python<'_>, dsn: &str) -> PyResult<String> {
    let address = py
        .detach(|| DatabaseAddress::parse(dsn))
        .map_err(|error| PyValueError::new_err(error.to_string()))?;
    json_text(&address)
}

/// Lists every reason code with its row, as JSON.
#[pyfunction]
pub(crate) fn reason_table(py: Python<'_>) -> Bound<'_, PyBytes> {
    let table = py.detach(authz_lane::message::reason_table);
    PyBytes::new(py, &table)
}
