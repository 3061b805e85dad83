//! Work without the interpreter's lock, and its results as Python's values.

use std::collections::BTreeMap;

use pyo3::exceptions::PyRuntimeError;
use pyo3::prelude::*;
use pyo3::pybacked::PyBackedBytes;
use pyo3::types::PyBytes;
use serde::Serialize;

use crate::errors::IntoException;

/// Files by path, in the interpreter's own memory: the copy of a bundle is made without the interpreter's lock.
pub(crate) type Files = BTreeMap<String, PyBackedBytes>;

/// Does `work` while other Python threads run, and raises its error.
pub(crate) fn detach<T: Send, E: IntoException + Send>(
    py: Python<'_>,
    work: impl FnOnce() -> Result<T, E> + Send,
) -> PyResult<T> {
    py.detach(work).map_err(|error| error.into_exception(py))
}

/// Does `work` while other Python threads run, and returns its result as JSON in a string.
pub(crate) fn detach_json<T: Serialize>(
    py: Python<'_>,
    work: impl FnOnce() -> T + Send,
) -> PyResult<String> {
    detach(py, || serde_json::to_string(&work()))
}

/// Does `work` while other Python threads run, and returns its result as JSON in bytes.
pub(crate) fn detach_json_bytes<T: Serialize>(
    py: Python<'_>,
    work: impl FnOnce() -> T + Send,
) -> PyResult<Bound<'_, PyBytes>> {
    let json = detach(py, || serde_json::to_vec(&work()))?;
    Ok(PyBytes::new(py, &json))
}

/// Writes a value as JSON.
pub(crate) fn json_text<T: Serialize>(value: &T) -> PyResult<String> {
    serde_json::to_string(value).map_err(|error| PyRuntimeError::new_err(error.to_string()))
}
