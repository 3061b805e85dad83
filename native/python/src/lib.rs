//! The binding: convert, let other threads run, call, map the error. No logic stands here.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::mpsc::{Sender, channel};
use std::time::{Duration, Instant};

use authz_kernel::decision::Time;
use authz_kernel::diagnostic::{Diagnostic, Diagnostics};
use authz_kernel::model::Location;
use authz_kernel::reason::ReasonCode;
use authz_kernel::{casefile, format, source};
use authz_lane::{
    CredentialSettings, FastSettings, FastTls, Lane, Listener, Pace, PeerChain, PeerSpec, Settings,
    Surface, Transport, World, offline,
};
use authz_token::{
    AgentProof, Evidence, PeerCache, Presentation, Role, Scheme, TokenCache, TrustSpec, TrustStore,
    UnixTime, verify, verify_peer,
};
use pyo3::create_exception;
use pyo3::exceptions::{PyException, PyRuntimeError, PyValueError};
use pyo3::prelude::*;
use pyo3::pybacked::PyBackedBytes;
use pyo3::types::PyBytes;

/// Of Rust's memory alone; Python keeps its own.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

create_exception!(authz._native, BundleError, PyValueError, "A bundle was refused.");
create_exception!(
    authz._native,
    TrustError,
    PyValueError,
    "Trust sources were refused; the text says where and how to mend each."
);
create_exception!(
    authz._native,
    EngineError,
    PyRuntimeError,
    "The engine or its fast lane could not be set up."
);
create_exception!(
    authz._native,
    ApiError,
    PyException,
    "A call that answers no decision was refused."
);

/// The interpreter's own bytes: copying them is left until it is let go.
type Files = BTreeMap<String, PyBackedBytes>;
type Samples = Vec<(String, Vec<(&'static str, String)>, f64)>;

/// Sets an attribute of an error that is about to be raised; failing to is an error of its own.
fn with<'py, T: IntoPyObject<'py>>(
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

fn bundle_error(py: Python<'_>, diagnostics: &Diagnostics) -> PyErr {
    let text: Vec<String> = diagnostics.iter().map(ToString::to_string).collect();
    let json = json_of(diagnostics.iter());
    with(py, BundleError::new_err(text.join("\n")), [("diagnostics", json)])
}

fn api_error(py: Python<'_>, error: &authz_lane::ApiError) -> PyErr {
    let raised = ApiError::new_err(error.to_string());
    let raised = with(py, raised, [("grpc_code", error.grpc_code)]);
    let texts = [
        ("reason_code", error.reason_code.as_str()),
        ("message", error.message.as_str()),
        ("step", error.step),
    ];
    with(py, raised, texts)
}

fn engine_error(error: &authz_lane::EngineError) -> PyErr {
    EngineError::new_err(error.to_string())
}

fn copied(files: &Files, rest: &mut dyn FnMut()) -> BTreeMap<String, Vec<u8>> {
    let copied = |(path, bytes): (&String, &PyBackedBytes)| {
        rest();
        (path.clone(), bytes.to_vec())
    };
    files.iter().map(copied).collect()
}

fn json_of<T: serde::Serialize>(items: impl Iterator<Item = T>) -> String {
    serde_json::to_string(&items.collect::<Vec<_>>()).unwrap_or_else(|_| "[]".to_owned())
}

/// A compiled bundle.
#[pyclass(frozen, module = "authz._native")]
struct Plan {
    inner: Arc<authz_kernel::plan::Plan>,
    /// Goes after `inner`, and so tells the thread of `drop` that it holds the last reference.
    gone: Option<Sender<()>>,
}

impl Drop for Plan {
    /// Freeing a large plan takes milliseconds, and Python frees objects with its lock held: no call would be answered
    /// meanwhile. So a thread of its own frees it.
    fn drop(&mut self) {
        let (gone, wait) = channel::<()>();
        let last = Arc::clone(&self.inner);
        // Where no thread can be had, it is freed here.
        let started = std::thread::Builder::new().name("authz-free".to_owned()).spawn(move || {
            // Nothing is ever sent: the sender is gone.
            let _gone = wait.recv();
            if let Some(last) = Arc::into_inner(last) {
                let mut pace = Pace::default();
                last.free_beside(&mut || pace.rest());
            }
        });
        drop(started);
        self.gone = Some(gone);
    }
}

#[pymethods]
impl Plan {
    #[staticmethod]
    #[pyo3(signature = (files, vars, now_ms, previous=None))]
    fn compile(
        py: Python<'_>,
        files: Files,
        vars: BTreeMap<String, String>,
        now_ms: i64,
        previous: Option<&Self>,
    ) -> PyResult<Self> {
        let previous = previous.map(|plan| Arc::clone(&plan.inner));
        let compiled = py.detach(|| {
            let previous = previous.as_deref();
            let before = previous.map(authz_kernel::plan::Plan::model);
            // The one before serves meanwhile.
            let mut pace = previous.map(|_| Pace::default());
            let mut rest = || {
                if let Some(pace) = &mut pace {
                    pace.rest();
                }
            };
            let files = copied(&files, &mut rest);
            let model = source::load_beside(&files, &vars, Time(now_ms), before, &mut rest)?;
            authz_kernel::plan::Plan::compile_beside(model, previous, &mut rest)
        });
        let inner = compiled.map_err(|diagnostics| bundle_error(py, &diagnostics))?;
        Ok(Self { inner: Arc::new(inner), gone: None })
    }

    fn test<'py>(
        &self,
        py: Python<'py>,
        files: Files,
        now_ms: i64,
    ) -> PyResult<Bound<'py, PyBytes>> {
        let report = py.detach(|| serde_json::to_vec(&offline::test(&self.inner, &files, now_ms)));
        let report = report.map_err(|error| PyRuntimeError::new_err(error.to_string()))?;
        Ok(PyBytes::new(py, &report))
    }

    fn eval<'py>(
        &self,
        py: Python<'py>,
        request_json: &[u8],
        now_ms: i64,
    ) -> PyResult<Bound<'py, PyBytes>> {
        let answer = py.detach(|| offline::eval(&self.inner, request_json, now_ms));
        let answer = answer.map_err(|what| {
            let at = Location { file: "request".to_owned(), ..Location::default() };
            bundle_error(py, &Diagnostic::error(&at, what, "").into())
        })?;
        Ok(PyBytes::new(py, &answer))
    }

    #[getter]
    fn name(&self) -> &str {
        self.inner.name()
    }

    #[getter]
    fn revision(&self) -> &str {
        self.inner.revision()
    }

    #[getter]
    fn digest(&self) -> String {
        authz_kernel::hex::hex(&self.inner.digest())
    }

    #[getter]
    fn warnings(&self) -> String {
        json_of(self.inner.warnings().iter())
    }

    /// Tools of MCP systems, as JSON.
    fn tools(&self, py: Python<'_>) -> String {
        py.detach(|| authz_kernel::catalog::state(self.inner.model()))
    }

    #[getter]
    fn observing(&self) -> String {
        json_of(self.inner.model().modes.observing())
    }

    /// Roles whose agents are their users' front ends too.
    #[getter]
    fn harnesses(&self) -> Vec<String> {
        self.inner.model().harnesses().map(str::to_owned).collect()
    }

    /// Requests that `mode` enforces where they stop early, as JSON.
    fn early_stops(&self, now_ms: i64) -> String {
        let stops = self.inner.early_stops(authz_kernel::decision::Time(now_ms));
        serde_json::to_string(&stops).unwrap_or_default()
    }

    /// Named sets of destinations that others keep, as JSON.
    #[getter]
    fn directories(&self) -> String {
        json_of(self.inner.directories())
    }

    /// What becomes of the progress of rules where the plan follows another, as JSON.
    fn renewal(&self, before: &Self) -> String {
        serde_json::to_string(&self.inner.renewal(&before.inner)).unwrap_or_default()
    }

    #[getter]
    fn operation_count(&self) -> usize {
        self.inner.operations().len()
    }

    #[getter]
    fn policy_count(&self) -> usize {
        self.inner.policy_count()
    }

    #[getter]
    fn systems(&self) -> Vec<String> {
        self.inner.systems().keys().cloned().collect()
    }
}

/// Who is in a directory that was fetched.
#[pyclass(frozen, module = "authz._native")]
struct Entries {
    inner: Arc<authz_kernel::directories::Entries>,
}

#[pymethods]
impl Entries {
    /// Reads a directory; a ValueError says what is wrong with it, without a word of it.
    #[staticmethod]
    #[pyo3(signature = (text, column=None))]
    fn read(py: Python<'_>, text: &[u8], column: Option<&str>) -> PyResult<Self> {
        let read = py.detach(|| authz_kernel::directories::Entries::read(text, column));
        let inner = read.map_err(|defect| PyValueError::new_err(defect.to_string()))?;
        Ok(Self { inner: Arc::new(inner) })
    }

    fn __len__(&self) -> usize {
        self.inner.len()
    }
}

/// Compiled trust sources.
#[pyclass(frozen, module = "authz._native")]
struct Trust {
    inner: Arc<TrustStore>,
}

#[pymethods]
impl Trust {
    #[staticmethod]
    #[pyo3(signature = (spec, previous=None))]
    fn compile(py: Python<'_>, spec: &[u8], previous: Option<&Self>) -> PyResult<Self> {
        let previous = previous.map(|previous| Arc::clone(&previous.inner));
        let compiled = py.detach(|| {
            let spec = TrustSpec::from_json(spec).map_err(|error| vec![error])?;
            TrustStore::compile_after(&spec, previous.as_deref())
        });
        let inner = compiled.map_err(|errors| {
            let lines: Vec<String> = errors.iter().map(ToString::to_string).collect();
            TrustError::new_err(lines.join("\n"))
        })?;
        Ok(Self { inner: Arc::new(inner) })
    }

    #[getter]
    fn revision(&self) -> &str {
        self.inner.revision()
    }

    #[getter]
    fn warnings(&self) -> String {
        json_of(self.inner.warnings().iter())
    }

    #[getter]
    fn domains(&self) -> String {
        json_of(self.inner.domains().iter())
    }

    #[getter]
    fn issuers(&self) -> String {
        json_of(self.inner.issuers().iter())
    }

    fn verify_peer(&self, py: Python<'_>, chain: Vec<Vec<u8>>, now: i64) -> PyResult<String> {
        let verified = py.detach(|| {
            let chain: Vec<&[u8]> = chain.iter().map(Vec::as_slice).collect();
            verify_peer(&chain, &self.inner, &PeerCache::new(0), UnixTime(now))
        });
        let facts =
            verified.map_err(|refusal| refused(py, refusal.reason.code(), &refusal.detail))?;
        Ok(facts.spiffe_id)
    }

    fn verify_svid(&self, py: Python<'_>, token: &str, now: i64) -> PyResult<String> {
        let evidence = [Evidence { role: Role::Agent, scheme: Scheme::Bearer, token, proof: None }];
        let called = Presentation::default();
        let verified = py
            .detach(|| verify(&evidence, &called, &self.inner, &TokenCache::new(0), UnixTime(now)));
        let facts =
            verified.map_err(|refusal| refused(py, refusal.reason.code(), &refusal.detail))?;
        match facts.agent {
            Some(agent) if agent.proof == AgentProof::JwtSvid => Ok(agent.spiffe_id.clone()),
            _ => Err(refused(py, ReasonCode::BadCredential.as_str(), "the token is no JWT-SVID")),
        }
    }
}

/// What Python raises where a credential is refused.
fn refused(py: Python<'_>, reason: &str, detail: &str) -> PyErr {
    let raised = with(py, ApiError::new_err(detail.to_owned()), [("grpc_code", 16)]);
    with(py, raised, [("reason_code", reason), ("message", detail)])
}

/// Facts of a call that its transport knows: `authz.model.CallFacts`, a tuple.
struct CallFacts<'a> {
    listener: &'a str,
    remaining: Option<f64>,
    traceparent: Option<&'a str>,
    authorization: Option<&'a str>,
    peer: Option<&'a str>,
    tracestate: Option<&'a str>,
    certificate: Option<&'a [u8]>,
    intermediates: Option<&'a [u8]>,
}

impl<'a, 'py> FromPyObject<'a, 'py> for CallFacts<'a> {
    type Error = PyErr;

    fn extract(facts: Borrowed<'a, 'py, PyAny>) -> PyResult<Self> {
        let (
            listener,
            remaining,
            traceparent,
            authorization,
            peer,
            tracestate,
            certificate,
            intermediates,
        ) = facts.extract()?;
        Ok(Self {
            listener,
            remaining,
            traceparent,
            authorization,
            peer,
            tracestate,
            certificate,
            intermediates,
        })
    }
}

impl<'a> CallFacts<'a> {
    fn transport(&self, received: Instant) -> Transport<'a> {
        // A deadline that is past, or no number, is past.
        let remaining = self.remaining.map(|seconds| {
            Duration::try_from_secs_f64(seconds.max(0.0)).unwrap_or(if seconds > 0.0 {
                Duration::MAX
            } else {
                Duration::ZERO
            })
        });
        Transport {
            listener: self.listener,
            remaining,
            received,
            trace_parent: self.traceparent,
            trace_state: self.tracestate,
            authorization: self.authorization,
            peer: self.peer,
            peer_chain: self.certificate.map_or(PeerChain::None, |leaf| PeerChain::Pem {
                leaf,
                intermediates: self.intermediates.unwrap_or_default(),
            }),
            // grpcio does not tell it.
            peer_uid: None,
            lane: Lane::Python,
        }
    }
}

/// Decides.
#[pyclass(frozen, module = "authz._native")]
struct Engine {
    inner: Arc<authz_lane::Engine>,
}

#[pymethods]
impl Engine {
    #[new]
    fn new(py: Python<'_>, settings: &[u8]) -> PyResult<Self> {
        let engine = py.detach(|| Settings::from_json(settings).and_then(authz_lane::Engine::new));
        Ok(Self { inner: Arc::new(engine.map_err(|error| engine_error(&error))?) })
    }

    #[pyo3(signature = (plan, trust, listeners, peers, credentials=None, directories=BTreeMap::new(), fetched=BTreeMap::new()))]
    #[expect(clippy::too_many_arguments, reason = "they are the parts of a world")]
    fn load(
        &self,
        py: Python<'_>,
        plan: &Plan,
        trust: &Trust,
        listeners: &[u8],
        peers: &[u8],
        credentials: Option<&[u8]>,
        directories: BTreeMap<String, i64>,
        fetched: BTreeMap<String, Py<Entries>>,
    ) -> PyResult<()> {
        let fetched =
            fetched.into_iter().map(|(name, one)| (name, Arc::clone(&one.get().inner))).collect();
        let directories = directories.into_iter().map(|(name, at)| (name, Time(at))).collect();
        let (plan, trust) = (Arc::clone(&plan.inner), Arc::clone(&trust.inner));
        let loaded = py.detach(|| {
            let listeners = Listener::list_from_json(listeners)?;
            let peers = PeerSpec::list_from_json(peers)?;
            let credentials = credentials.map(CredentialSettings::from_json).transpose()?;
            let world = World { plan, trust, listeners, peers, credentials, directories, fetched };
            self.inner.load(world)
        });
        loaded.map_err(|error| engine_error(&error))
    }

    fn check<'py>(
        &self,
        py: Python<'py>,
        request: &[u8],
        facts: CallFacts<'_>,
    ) -> Bound<'py, PyBytes> {
        let received = Instant::now();
        let answer = py.detach(|| self.inner.check(request, &facts.transport(received)));
        PyBytes::new(py, &answer)
    }

    fn batch_check<'py>(
        &self,
        py: Python<'py>,
        request: &[u8],
        facts: CallFacts<'_>,
    ) -> Bound<'py, PyBytes> {
        let received = Instant::now();
        let answer = py.detach(|| self.inner.batch_check(request, &facts.transport(received)));
        PyBytes::new(py, &answer)
    }

    fn envoy_check<'py>(
        &self,
        py: Python<'py>,
        request: &[u8],
        facts: CallFacts<'_>,
    ) -> Bound<'py, PyBytes> {
        let received = Instant::now();
        let answer = py.detach(|| self.inner.envoy_check(request, &facts.transport(received)));
        PyBytes::new(py, &answer)
    }

    fn explain<'py>(
        &self,
        py: Python<'py>,
        request: &[u8],
        facts: CallFacts<'_>,
    ) -> PyResult<Bound<'py, PyBytes>> {
        let received = Instant::now();
        let answer = py.detach(|| self.inner.explain(request, &facts.transport(received)));
        Ok(PyBytes::new(py, &answer.map_err(|error| api_error(py, &error))?))
    }

    fn call<'py>(
        &self,
        py: Python<'py>,
        surface: &str,
        request: &[u8],
        facts: CallFacts<'_>,
    ) -> PyResult<Bound<'py, PyBytes>> {
        let received = Instant::now();
        let surface = Surface::from_name(surface)
            .ok_or_else(|| PyValueError::new_err(format!("`{surface}` is no surface")))?;
        let answer = py.detach(|| self.inner.call(surface, request, &facts.transport(received)));
        Ok(PyBytes::new(py, &answer.map_err(|error| api_error(py, &error))?))
    }

    /// Does what is due, and tells what it did, as JSON.
    fn sweep(&self, py: Python<'_>) -> String {
        py.detach(|| serde_json::to_string(&self.inner.sweep()).unwrap_or_else(|_| "{}".to_owned()))
    }

    /// The nonce that the next proof of possession should bring.
    fn dpop_nonce(&self, py: Python<'_>) -> String {
        py.detach(|| self.inner.dpop_nonce())
    }

    /// Signing keys of all nodes, as JSON.
    fn signing_keys(&self, py: Python<'_>) -> PyResult<String> {
        py.detach(|| self.inner.signing_keys()).map_err(|error| engine_error(&error))
    }

    fn put_signing_key(&self, py: Python<'_>, record: &[u8]) -> PyResult<()> {
        py.detach(|| self.inner.put_signing_key(record)).map_err(|error| engine_error(&error))
    }

    fn remove_signing_key(&self, py: Python<'_>, kid: &str) -> PyResult<()> {
        py.detach(|| self.inner.remove_signing_key(kid)).map_err(|error| engine_error(&error))
    }

    fn is_key_revoked(&self, kid: &str) -> bool {
        self.inner.is_key_revoked(kid)
    }

    /// The newest bundle of each trust domain, as JSON.
    fn trust_sequences(&self, py: Python<'_>) -> PyResult<String> {
        py.detach(|| self.inner.trust_sequences()).map_err(|error| engine_error(&error))
    }

    fn note_trust_sequences(&self, py: Python<'_>, used: &[u8]) -> PyResult<()> {
        py.detach(|| self.inner.note_trust_sequences(used)).map_err(|error| engine_error(&error))
    }

    /// Leases, as JSON.
    fn leases(&self, py: Python<'_>, filter: &[u8]) -> PyResult<String> {
        py.detach(|| self.inner.leases(filter)).map_err(|error| engine_error(&error))
    }

    fn put_lease(&self, py: Python<'_>, record: &[u8], before: &[u8]) -> PyResult<bool> {
        py.detach(|| self.inner.put_lease(record, before)).map_err(|error| engine_error(&error))
    }

    fn refusal<'py>(
        &self,
        py: Python<'py>,
        surface: &str,
        reason: &str,
    ) -> PyResult<Bound<'py, PyBytes>> {
        let surface = Surface::from_name(surface)
            .ok_or_else(|| PyValueError::new_err(format!("`{surface}` is no surface")))?;
        let reason = ReasonCode::from_name(reason).unwrap_or(ReasonCode::Unavailable);
        let answer = py.detach(|| self.inner.refusal(surface, reason));
        Ok(PyBytes::new(py, &answer))
    }

    fn status<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyBytes>> {
        let status = py.detach(|| serde_json::to_vec(&self.inner.status()));
        let status = status.map_err(|error| PyRuntimeError::new_err(error.to_string()))?;
        Ok(PyBytes::new(py, &status))
    }

    fn metrics(&self, py: Python<'_>) -> Vec<(&'static str, &'static str, &'static str, Samples)> {
        let families = py.detach(|| self.inner.metrics());
        let samples = |list: Vec<authz_lane::metrics::Sample>| {
            list.into_iter().map(|sample| (sample.name, sample.labels, sample.value)).collect()
        };
        families
            .into_iter()
            .map(|family| (family.name, family.help, family.kind.as_str(), samples(family.samples)))
            .collect()
    }

    fn spans<'py>(&self, py: Python<'py>, most: usize) -> PyResult<Bound<'py, PyBytes>> {
        let spans = py.detach(|| serde_json::to_vec(&self.inner.spans(most)));
        let spans = spans.map_err(|error| PyRuntimeError::new_err(error.to_string()))?;
        Ok(PyBytes::new(py, &spans))
    }

    fn unknown_keys(&self, py: Python<'_>) -> String {
        let owners = py.detach(|| self.inner.take_unknown_keys());
        json_of(owners.iter())
    }

    fn close(&self, py: Python<'_>) {
        py.detach(|| self.inner.close());
    }
}

/// The tonic server.
#[pyclass(frozen, module = "authz._native")]
struct FastLane {
    inner: authz_lane::FastLane,
}

#[pymethods]
impl FastLane {
    #[staticmethod]
    fn start(py: Python<'_>, engine: &Engine, settings: &[u8]) -> PyResult<Self> {
        let engine = Arc::clone(&engine.inner);
        let started = py.detach(|| {
            let settings = FastSettings::from_json(settings)?;
            authz_lane::FastLane::start(engine, settings)
        });
        Ok(Self { inner: started.map_err(|error| engine_error(&error))? })
    }

    #[getter]
    fn addresses(&self) -> Vec<String> {
        self.inner.addresses().to_vec()
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
        py.detach(|| self.inner.renew_tls(listener, &files)).map_err(|error| engine_error(&error))
    }

    fn close(&self, py: Python<'_>, grace: f64) {
        let grace = Duration::try_from_secs_f64(grace.max(0.0)).unwrap_or(Duration::ZERO);
        py.detach(|| self.inner.close(grace));
    }
}

/// A private key that signs credentials.
#[pyclass(frozen, module = "authz._native")]
struct SigningKey {
    inner: authz_token::SigningKey,
}

#[pymethods]
impl SigningKey {
    #[staticmethod]
    fn from_pkcs8(py: Python<'_>, der: &[u8]) -> PyResult<Self> {
        let inner = py.detach(|| authz_token::SigningKey::from_pkcs8(der));
        let inner = inner.map_err(|error| PyValueError::new_err(error.to_string()))?;
        Ok(Self { inner })
    }

    fn sign<'py>(&self, py: Python<'py>, message: &[u8]) -> PyResult<Bound<'py, PyBytes>> {
        let signature = py.detach(|| self.inner.sign(message));
        let signature = signature.map_err(|error| PyRuntimeError::new_err(error.to_string()))?;
        Ok(PyBytes::new(py, &signature))
    }
}

/// Lays out a Cedar file.
#[pyfunction]
fn format_policy(py: Python<'_>, text: &str, file: &str) -> PyResult<String> {
    py.detach(|| format::format_policy(file, text))
        .map_err(|diagnostics| bundle_error(py, &diagnostics))
}

/// JSON Schema of a bundle's YAML files.
#[pyfunction]
fn bundle_schema(py: Python<'_>) -> String {
    py.detach(source::bundle_schema)
}

/// Digests and operations of an MCP server's tools.
#[pyfunction]
fn seal_catalog(py: Python<'_>, document: &[u8]) -> PyResult<String> {
    py.detach(|| authz_kernel::catalog::seal(document)).map_err(PyValueError::new_err)
}

/// JSON Schema of case files.
#[pyfunction]
fn case_schema(py: Python<'_>) -> String {
    py.detach(casefile::case_schema)
}

/// What a prompt names, and why other words of it name nothing, as JSON.
#[pyfunction]
fn prompt_names(py: Python<'_>, prompt: &str) -> String {
    py.detach(|| json_of(authz_kernel::task::read_prompt(prompt).into_iter()))
}

/// How this module was compiled.
#[pyfunction]
const fn build_profile() -> &'static str {
    authz_lane::build_profile()
}

/// Every reason code with its row, as JSON.
#[pyfunction]
fn reason_table(py: Python<'_>) -> Bound<'_, PyBytes> {
    let table = py.detach(authz_lane::message::reason_table);
    PyBytes::new(py, &table)
}

/// The names of the signature algorithms that are accepted, as JSON.
#[pyfunction]
fn accepted_algorithms() -> String {
    let accepted = authz_token::AcceptedAlgorithms::new();
    serde_json::to_string(&accepted).unwrap_or_else(|_| "{}".to_owned())
}

/// Whether signatures may be verified by a public key, a JWK: it is none for which anybody can sign.
#[pyfunction]
fn is_usable_key(jwk: &str) -> bool {
    authz_token::thumbprint(jwk).is_ok()
}

/// Kernel, verification and fast lane.
#[pymodule(gil_used = false, name = "_native")]
mod native {
    #[pymodule_export]
    use super::{
        ApiError, BundleError, Engine, EngineError, Entries, FastLane, Plan, SigningKey, Trust,
        TrustError, accepted_algorithms, build_profile, bundle_schema, case_schema, format_policy,
        is_usable_key, prompt_names, reason_table, seal_catalog,
    };
}
