//! The listener that answers hot calls without Python.

use std::sync::Arc;
use std::time::Duration;

use authz_lane::{FastLane, FastSettings, FastTls};
use pyo3::prelude::*;

use crate::convert::detach;
use crate::engine::PyEngine;

/// Listener on tonic; its threads never call Python.
#[pyclass(frozen, name = "FastLane", module = "authz._native")]
pub(crate) struct PyFastLane {
    lane: FastLane,
}

#[pymethods]
impl PyFastLane {
    #[staticmethod]
    fn start(py: Python<'_>, engine: &PyEngine, settings: &[u8]) -> PyResult<Self> {
        let engine = Arc::clone(&engine.engine);
        let lane = detach(py, || {
            let settings = FastSettings::from_json(settings)?;
            FastLane::start(engine, settings)
        })?;
        Ok(Self { lane })
    }

    #[getter]
    fn addresses(&self) -> Vec<String> {
        self.lane.addresses().to_vec()
    }

    fn renew_tls(
        &self,
        py: Python<'_>,
        listener: &str,
        certificate: &[u8],
        key: &[u8],
        client_ca: Option<&[u8]>,
    ) -> PyResult<()> {
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        let files = FastTls {
            certificate: text(certificate),
            key: text(key),
            client_ca: client_ca.map(text),
        };
        detach(py, || self.lane.renew_tls(listener, &files))
    }

    fn close(&self, py: Python<'_>, grace: f64) {
        let grace = Duration::try_from_secs_f64(grace.max(0.0)).unwrap_or(Duration::ZERO);
        py.detach(|| self.lane.close(grace));
    }
}
