//! Private keys that sign credentials, and rules for public keys.

use pyo3::prelude::*;
use pyo3::types::PyBytes;

use crate::convert::{detach, json_text};

/// Private key that signs credentials.
#[pyclass(frozen, name = "SigningKey", module = "authz._native")]
pub(crate) struct PySigningKey {
    key: authz_token::PrivateKey,
}

#[pymethods]
impl PySigningKey {
    #[staticmethod]
    fn from_pkcs8(py: Python<'_>, der: &[u8]) -> PyResult<Self> {
        let key = detach(py, || authz_token::PrivateKey::from_pkcs8(der))?;
        Ok(Self { key })
    }

    fn sign<'py>(&self, py: Python<'py>, message: &[u8]) -> PyResult<Bound<'py, PyBytes>> {
        let signature = detach(py, || self.key.sign(message))?;
        Ok(PyBytes::new(py, &signature))
    }
}

/// Lists the signature algorithms that Authz accepts, as JSON.
#[pyfunction]
pub(crate) fn accepted_algorithms() -> PyResult<String> {
    json_text(&authz_token::AcceptedAlgorithms::new())
}

/// Returns whether a JWK is a public key that Authz verifies signatures by.
#[pyfunction]
pub(crate) fn is_usable_key(jwk: &str) -> bool {
    authz_token::thumbprint(jwk).is_ok()
}
