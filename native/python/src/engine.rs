//! The engine that answers calls.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use authz_kernel::decision::Time;
use authz_kernel::reason::ReasonCode;
use authz_lane::metrics::Sample;
use authz_lane::{
    ApiError, ApprovalChange, CredentialSettings, Engine, Listener, PeerSpec, Settings, Surface,
    Transport, World,
};
use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;
use pyo3::types::PyBytes;

use crate::call_facts::CallFacts;
use crate::convert::{detach, detach_json, detach_json_bytes};
use crate::plan::{PyEntries, PyPlan};
use crate::trust::PyTrust;

/// Samples of a metric: name, labels and value of each.
type Samples = Vec<(String, Vec<(&'static str, String)>, f64)>;

/// Change of an approval: its id, its task, its status and its queues.
type Change = (String, String, &'static str, Vec<String>);

/// Engine that decides; all threads share it.
#[pyclass(frozen, name = "Engine", module = "authz._native")]
pub(crate) struct PyEngine {
    pub(crate) engine: Arc<Engine>,
}

#[pymethods]
impl PyEngine {
    #[new]
    fn new(py: Python<'_>, settings: &[u8]) -> PyResult<Self> {
        let engine = detach(py, || Settings::from_json(settings).and_then(Engine::new))?;
        Ok(Self { engine: Arc::new(engine) })
    }

    #[pyo3(signature = (plan, trust, listeners, peers, credentials=None, recipient_lists=BTreeMap::new(), fetched=BTreeMap::new(), shadow=None))]
    #[expect(clippy::too_many_arguments, reason = "they are the keyword arguments of Python")]
    fn load(
        &self,
        py: Python<'_>,
        plan: &PyPlan,
        trust: &PyTrust,
        listeners: &[u8],
        peers: &[u8],
        credentials: Option<&[u8]>,
        recipient_lists: BTreeMap<String, i64>,
        fetched: BTreeMap<String, Py<PyEntries>>,
        shadow: Option<&PyPlan>,
    ) -> PyResult<()> {
        let fetched = fetched
            .into_iter()
            .map(|(name, entries)| (name, Arc::clone(&entries.get().entries)))
            .collect();
        let recipient_lists = recipient_lists
            .into_iter()
            .map(|(name, changed_ms)| (name, Time(changed_ms)))
            .collect();
        let (plan, trust) = (Arc::clone(&plan.plan), Arc::clone(&trust.store));
        let shadow = shadow.map(|shadow| Arc::clone(&shadow.plan));
        detach(py, || {
            let listeners = Listener::list_from_json(listeners)?;
            let peers = PeerSpec::list_from_json(peers)?;
            let credentials = credentials.map(CredentialSettings::from_json).transpose()?;
            let world = World {
                plan,
                trust,
                listeners,
                peers,
                credentials,
                recipient_lists,
                fetched,
                shadow,
            };
            self.engine.load(world)
        })
    }

    fn record_refused_load(&self, py: Python<'_>, load: &[u8]) -> PyResult<bool> {
        detach(py, || self.engine.record_refused_load(load))
    }

    fn check<'py>(
        &self,
        py: Python<'py>,
        request: &[u8],
        facts: CallFacts<'_>,
    ) -> Bound<'py, PyBytes> {
        answer(py, &facts, |transport| self.engine.check(request, transport))
    }

    fn batch_check<'py>(
        &self,
        py: Python<'py>,
        request: &[u8],
        facts: CallFacts<'_>,
    ) -> Bound<'py, PyBytes> {
        answer(py, &facts, |transport| self.engine.batch_check(request, transport))
    }

    fn envoy_check<'py>(
        &self,
        py: Python<'py>,
        request: &[u8],
        facts: CallFacts<'_>,
    ) -> Bound<'py, PyBytes> {
        answer(py, &facts, |transport| self.engine.envoy_check(request, transport))
    }

    fn explain<'py>(
        &self,
        py: Python<'py>,
        request: &[u8],
        facts: CallFacts<'_>,
    ) -> PyResult<Bound<'py, PyBytes>> {
        answer_or_raise(py, &facts, |transport| self.engine.explain(request, transport))
    }

    fn call<'py>(
        &self,
        py: Python<'py>,
        surface: &str,
        request: &[u8],
        facts: CallFacts<'_>,
    ) -> PyResult<Bound<'py, PyBytes>> {
        let surface = parse_surface(surface)?;
        answer_or_raise(py, &facts, |transport| self.engine.call(surface, request, transport))
    }

    fn refusal<'py>(
        &self,
        py: Python<'py>,
        surface: &str,
        reason: &str,
    ) -> PyResult<Bound<'py, PyBytes>> {
        let surface = parse_surface(surface)?;
        let reason = ReasonCode::from_name(reason).unwrap_or(ReasonCode::Unavailable);
        let answer = py.detach(|| self.engine.refusal(surface, reason));
        Ok(PyBytes::new(py, &answer))
    }

    fn sweep(&self, py: Python<'_>) -> PyResult<String> {
        detach_json(py, || self.engine.sweep())
    }

    fn dpop_nonce(&self, py: Python<'_>) -> String {
        py.detach(|| self.engine.dpop_nonce())
    }

    fn signing_keys(&self, py: Python<'_>) -> PyResult<String> {
        detach(py, || self.engine.signing_keys())
    }

    fn put_signing_key(&self, py: Python<'_>, record: &[u8]) -> PyResult<()> {
        detach(py, || self.engine.put_signing_key(record))
    }

    fn remove_signing_key(&self, py: Python<'_>, kid: &str) -> PyResult<()> {
        detach(py, || self.engine.remove_signing_key(kid))
    }

    fn is_key_revoked(&self, kid: &str) -> bool {
        self.engine.is_key_revoked(kid)
    }

    fn trust_sequences(&self, py: Python<'_>) -> PyResult<String> {
        detach(py, || self.engine.trust_sequences())
    }

    fn note_trust_sequences(&self, py: Python<'_>, used: &[u8]) -> PyResult<()> {
        detach(py, || self.engine.note_trust_sequences(used))
    }

    fn approvals_list<'py>(
        &self,
        py: Python<'py>,
        person: &[u8],
        request: &[u8],
    ) -> PyResult<Bound<'py, PyBytes>> {
        let answer = detach(py, || self.engine.approvals_list(person, request))?;
        Ok(PyBytes::new(py, &answer))
    }

    fn approval_show<'py>(
        &self,
        py: Python<'py>,
        person: &[u8],
        request: &[u8],
    ) -> PyResult<Bound<'py, PyBytes>> {
        let answer = detach(py, || self.engine.approval_show(person, request))?;
        Ok(PyBytes::new(py, &answer))
    }

    fn approval_resolve<'py>(
        &self,
        py: Python<'py>,
        person: &[u8],
        request: &[u8],
    ) -> PyResult<Bound<'py, PyBytes>> {
        let answer = detach(py, || self.engine.approval_resolve(person, request))?;
        Ok(PyBytes::new(py, &answer))
    }

    fn breakglass_open<'py>(
        &self,
        py: Python<'py>,
        person: &[u8],
        request: &[u8],
    ) -> PyResult<Bound<'py, PyBytes>> {
        let answer = detach(py, || self.engine.breakglass_open(person, request))?;
        Ok(PyBytes::new(py, &answer))
    }

    fn breakglass_confirm<'py>(
        &self,
        py: Python<'py>,
        person: &[u8],
        request: &[u8],
    ) -> PyResult<Bound<'py, PyBytes>> {
        let answer = detach(py, || self.engine.breakglass_confirm(person, request))?;
        Ok(PyBytes::new(py, &answer))
    }

    fn breakglass_end<'py>(
        &self,
        py: Python<'py>,
        person: &[u8],
        request: &[u8],
    ) -> PyResult<Bound<'py, PyBytes>> {
        let answer = detach(py, || self.engine.breakglass_end(person, request))?;
        Ok(PyBytes::new(py, &answer))
    }

    fn breakglass_list<'py>(
        &self,
        py: Python<'py>,
        request: &[u8],
    ) -> PyResult<Bound<'py, PyBytes>> {
        let answer = detach(py, || self.engine.breakglass_list(request))?;
        Ok(PyBytes::new(py, &answer))
    }

    fn approval_status<'py>(
        &self,
        py: Python<'py>,
        request: &[u8],
        facts: CallFacts<'_>,
    ) -> PyResult<Bound<'py, PyBytes>> {
        answer_or_raise(py, &facts, |transport| {
            self.engine.call(Surface::ApprovalGet, request, transport)
        })
    }

    fn approval_changes(
        &self,
        py: Python<'_>,
        after: u64,
        wait_ms: u64,
    ) -> (u64, Option<Vec<Change>>) {
        let wait = Duration::from_millis(wait_ms);
        let (newest, changes) = py.detach(|| self.engine.approval_changes(after, wait));
        let changes = changes.map(|changes| {
            let tuple = |one: ApprovalChange| (one.approval_id, one.task, one.status, one.queues);
            changes.into_iter().map(tuple).collect()
        });
        (newest, changes)
    }

    fn passkeys(&self, py: Python<'_>, issuer: &str, sub: &str) -> PyResult<String> {
        detach(py, || self.engine.passkeys(issuer, sub))
    }

    fn put_passkey(&self, py: Python<'_>, record: &[u8]) -> PyResult<()> {
        detach(py, || self.engine.put_passkey(record))
    }

    fn remove_passkey(
        &self,
        py: Python<'_>,
        issuer: &str,
        sub: &str,
        credential_id: &str,
    ) -> PyResult<()> {
        detach(py, || self.engine.remove_passkey(issuer, sub, credential_id))
    }

    fn leases(&self, py: Python<'_>, filter: &[u8]) -> PyResult<String> {
        detach(py, || self.engine.leases(filter))
    }

    fn put_lease(&self, py: Python<'_>, record: &[u8], before: &[u8]) -> PyResult<bool> {
        detach(py, || self.engine.put_lease(record, before))
    }

    fn status<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyBytes>> {
        detach_json_bytes(py, || self.engine.status())
    }

    fn metrics(&self, py: Python<'_>) -> Vec<(&'static str, &'static str, &'static str, Samples)> {
        let families = py.detach(|| self.engine.metrics());
        families
            .into_iter()
            .map(|family| {
                (family.name, family.help, family.kind.as_str(), sample_tuples(family.samples))
            })
            .collect()
    }

    fn spans<'py>(&self, py: Python<'py>, most: usize) -> PyResult<Bound<'py, PyBytes>> {
        detach_json_bytes(py, || self.engine.spans(most))
    }

    fn unknown_keys(&self, py: Python<'_>) -> PyResult<String> {
        detach_json(py, || self.engine.take_unknown_keys())
    }

    fn close(&self, py: Python<'_>) {
        py.detach(|| self.engine.close());
    }
}

/// Answers a call whose every answer is a decision.
fn answer<'py>(
    py: Python<'py>,
    facts: &CallFacts<'_>,
    decide: impl FnOnce(&Transport<'_>) -> Vec<u8> + Send,
) -> Bound<'py, PyBytes> {
    let transport = facts.transport();
    let answer = py.detach(|| decide(&transport));
    PyBytes::new(py, &answer)
}

/// Answers a call that is refused by an error.
fn answer_or_raise<'py>(
    py: Python<'py>,
    facts: &CallFacts<'_>,
    call: impl FnOnce(&Transport<'_>) -> Result<Vec<u8>, ApiError> + Send,
) -> PyResult<Bound<'py, PyBytes>> {
    let transport = facts.transport();
    let answer = detach(py, || call(&transport))?;
    Ok(PyBytes::new(py, &answer))
}

fn parse_surface(name: &str) -> PyResult<Surface> {
    Surface::from_name(name).ok_or_else(|| PyValueError::new_err(format!("`{name}` is no surface")))
}

fn sample_tuples(samples: Vec<Sample>) -> Samples {
    samples.into_iter().map(|sample| (sample.name, sample.labels, sample.value)).collect()
}
