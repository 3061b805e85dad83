//! Compiled trust sources, and credentials that are verified outside of a call.

use std::sync::Arc;

use authz_token::{
    AgentProof, Evidence, PeerCache, Presentation, Refusal, RefusalReason, Role, Scheme,
    TokenCache, TrustSpec, TrustStore, UnixTime, verify, verify_peer,
};
use pyo3::prelude::*;

use crate::convert::{detach, json_text};

/// Compiled trust sources.
#[pyclass(frozen, name = "Trust", module = "authz._native")]
pub(crate) struct PyTrust {
    pub(crate) store: Arc<TrustStore>,
}

#[pymethods]
impl PyTrust {
    #[staticmethod]
    #[pyo3(signature = (spec, previous=None))]
    fn compile(py: Python<'_>, spec: &[u8], previous: Option<&Self>) -> PyResult<Self> {
        let previous = previous.map(|previous| Arc::clone(&previous.store));
        let store = detach(py, || {
            let spec = TrustSpec::from_json(spec).map_err(|error| vec![error])?;
            TrustStore::compile_after(&spec, previous.as_deref())
        })?;
        Ok(Self { store: Arc::new(store) })
    }

    #[getter]
    fn revision(&self) -> &str {
        self.store.revision()
    }

    #[getter]
    fn warnings(&self) -> PyResult<String> {
        json_text(&self.store.warnings())
    }

    #[getter]
    fn domains(&self) -> PyResult<String> {
        json_text(&self.store.domains())
    }

    #[getter]
    fn issuers(&self) -> PyResult<String> {
        json_text(&self.store.issuers())
    }

    fn verify_peer(&self, py: Python<'_>, chain: Vec<Vec<u8>>, now: i64) -> PyResult<String> {
        let peer = detach(py, || {
            let chain: Vec<&[u8]> = chain.iter().map(Vec::as_slice).collect();
            verify_peer(&chain, &self.store, &PeerCache::new(0), UnixTime(now))
        })?;
        Ok(peer.spiffe_id)
    }

    fn verify_svid(&self, py: Python<'_>, token: &str, now: i64) -> PyResult<String> {
        detach(py, || verify_svid(token, &self.store, UnixTime(now)))
    }
}

/// Verifies a JWT-SVID that was presented as a bearer token; returns its SPIFFE ID.
fn verify_svid(token: &str, trust: &TrustStore, now: UnixTime) -> Result<String, Refusal> {
    let evidence = [Evidence { role: Role::Agent, scheme: Scheme::Bearer, token, proof: None }];
    let facts = verify(&evidence, &Presentation::default(), trust, &TokenCache::new(0), now)?;
    match facts.agent {
        Some(agent) if agent.proof == AgentProof::JwtSvid => Ok(agent.spiffe_id.clone()),
        _ => Err(Refusal::new(RefusalReason::BadCredential, "the token is no JWT-SVID")),
    }
}
