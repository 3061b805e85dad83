//! Exceptions of the extension, and the errors of other crates as exceptions.

use authz_kernel::diagnostic::Diagnostics;
use authz_token::{Refusal, SigningError};
use pyo3::create_exception;
use pyo3::exceptions::{PyException, PyRuntimeError, PyValueError};
use pyo3::prelude::*;

use crate::convert::json_text;

create_exception!(authz._native, BundleError, PyValueError, "Authz refused a bundle.");
create_exception!(
    authz._native,
    TrustError,
    PyValueError,
    "Authz refused trust sources; the text names each source and its fix."
);
create_exception!(
    authz._native,
    EngineError,
    PyRuntimeError,
    "Authz cannot set up the engine or its fast lane."
);
create_exception!(
    authz._native,
    ApiError,
    PyException,
    "Authz refused a call whose answer is not a decision."
);

/// `google.rpc.Code` of a call whose caller is not authenticated.
const UNAUTHENTICATED: i32 = 16;

/// Error of another crate that Python receives as an exception.
pub(crate) trait IntoException {
    /// Makes the exception, with its attributes.
    fn into_exception(self, py: Python<'_>) -> PyErr;
}

impl IntoException for authz_lane::EngineError {
    fn into_exception(self, _: Python<'_>) -> PyErr {
        EngineError::new_err(self.to_string())
    }
}

impl IntoException for authz_lane::ApiError {
    fn into_exception(self, py: Python<'_>) -> PyErr {
        let texts = [
            ("reason_code", self.reason_code.as_str()),
            ("message", self.message.as_str()),
            ("step", self.step),
        ];
        let raised = ApiError::new_err(self.to_string());
        let raised = set_attributes(py, raised, [("grpc_code", self.grpc_code)]);
        set_attributes(py, raised, texts)
    }
}

impl IntoException for Diagnostics {
    fn into_exception(self, py: Python<'_>) -> PyErr {
        let text: Vec<String> = self.iter().map(ToString::to_string).collect();
        match json_text(&self.iter().collect::<Vec<_>>()) {
            Ok(json) => {
                let raised = BundleError::new_err(text.join("\n"));
                set_attributes(py, raised, [("diagnostics", json)])
            }
            Err(error) => error,
        }
    }
}

impl IntoException for Vec<authz_token::TrustError> {
    fn into_exception(self, _: Python<'_>) -> PyErr {
        let lines: Vec<String> = self.iter().map(ToString::to_string).collect();
        TrustError::new_err(lines.join("\n"))
    }
}

impl IntoException for Refusal {
    fn into_exception(self, py: Python<'_>) -> PyErr {
        let texts = [("reason_code", self.reason.code()), ("message", &*self.detail)];
        let raised = ApiError::new_err(self.detail.clone());
        let raised = set_attributes(py, raised, [("grpc_code", UNAUTHENTICATED)]);
        set_attributes(py, raised, texts)
    }
}

impl IntoException for SigningError {
    fn into_exception(self, _: Python<'_>) -> PyErr {
        match self {
            Self::Unusable => PyValueError::new_err(self.to_string()),
            Self::Failed => PyRuntimeError::new_err(self.to_string()),
        }
    }
}

impl IntoException for serde_json::Error {
    fn into_exception(self, _: Python<'_>) -> PyErr {
        PyRuntimeError::new_err(self.to_string())
    }
}

/// Sets attributes of an exception that is about to be raised.
///
/// Where Python refuses an attribute, its refusal takes the place of the exception.
fn set_attributes<'py, T: IntoPyObject<'py>>(
    py: Python<'py>,
    error: PyErr,
    attributes: impl IntoIterator<Item = (&'static str, T)>,
) -> PyErr {
    for (name, value) in attributes {
        if let Err(failed) = error.value(py).setattr(name, value) {
            return failed;
        }
    }
    error
}
