//! Compiled bundles and fetched recipient lists.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::mpsc::{Sender, channel};

use authz_cases::TestScope;
use authz_kernel::decision::Time;
use authz_kernel::diagnostic::{Diagnostic, Diagnostics};
use authz_kernel::lint::LintFacts;
use authz_kernel::model::Location;
use authz_kernel::pause::Pause;
use authz_kernel::plan::{Plan, PlanCompiler};
use authz_kernel::recipient_lists::{Columns, RecipientListEntries};
use authz_kernel::{catalog, hex};
use authz_lane::Pace;
use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;
use pyo3::types::PyBytes;

use crate::convert::{Files, detach, detach_json, detach_json_bytes, json_text};

/// Compiled bundle.
#[pyclass(frozen, name = "Plan", module = "authz._native")]
pub(crate) struct PyPlan {
    pub(crate) plan: Arc<Plan>,
    /// Fields are dropped in their order: dropping this one tells the thread of `drop` that it holds the last reference.
    released: Option<Sender<()>>,
}

impl Drop for PyPlan {
    /// Frees the plan on a thread of its own.
    ///
    /// Freeing a large plan takes milliseconds, and Python frees objects with its lock held: no call would be answered
    /// meanwhile. Where no thread can be started, the plan is freed here.
    fn drop(&mut self) {
        let (released, wait) = channel::<()>();
        let last = Arc::clone(&self.plan);
        let started = std::thread::Builder::new().name("authz-free".to_owned()).spawn(move || {
            // Nothing is ever sent: the wait ends when the sender is dropped.
            let _disconnected = wait.recv();
            if let Some(plan) = Arc::into_inner(last) {
                let mut pace = Pace::default();
                plan.free(Pause::by(&mut || pace.rest()));
            }
        });
        drop(started);
        self.released = Some(released);
    }
}

#[pymethods]
impl PyPlan {
    #[staticmethod]
    #[pyo3(signature = (files, vars, now_ms, previous=None))]
    fn compile(
        py: Python<'_>,
        files: Files,
        vars: BTreeMap<String, String>,
        now_ms: i64,
        previous: Option<&Self>,
    ) -> PyResult<Self> {
        let previous = previous.map(|previous| Arc::clone(&previous.plan));
        let plan = detach(py, || compile(&files, &vars, Time(now_ms), previous.as_deref(), None))?;
        Ok(Self { plan: Arc::new(plan), released: None })
    }

    #[pyo3(signature = (files, now_ms, *, covers=false, stops_at_failure=false))]
    fn test<'py>(
        &self,
        py: Python<'py>,
        files: Files,
        now_ms: i64,
        covers: bool,
        stops_at_failure: bool,
    ) -> PyResult<Bound<'py, PyBytes>> {
        let scope = TestScope { covers, stops_at_failure };
        detach_json_bytes(py, || authz_cases::test(&self.plan, &files, now_ms, scope))
    }

    /// The plan without one policy.
    fn without(&self, py: Python<'_>, files: Files, now_ms: i64, policy: &str) -> PyResult<Self> {
        let (vars, before) = (&self.plan.model().vars, Some(self.plan.as_ref()));
        let left_out = Some(policy);
        let plan = detach(py, || compile(&files, vars, Time(now_ms), before, left_out))?;
        Ok(Self { plan: Arc::new(plan), released: None })
    }

    fn eval<'py>(
        &self,
        py: Python<'py>,
        request_json: &[u8],
        now_ms: i64,
    ) -> PyResult<Bound<'py, PyBytes>> {
        let answer = detach(py, || {
            authz_cases::eval(&self.plan, request_json, now_ms).map_err(|problem| {
                let location = Location { file: "request".to_owned(), ..Location::default() };
                Diagnostics::from(Diagnostic::error(&location, problem, ""))
            })
        })?;
        Ok(PyBytes::new(py, &answer))
    }

    #[pyo3(signature = (record, now_ms, against=None))]
    fn replay<'py>(
        &self,
        py: Python<'py>,
        record: &[u8],
        now_ms: i64,
        against: Option<&Self>,
    ) -> PyResult<Bound<'py, PyBytes>> {
        let against = against.map(|against| &against.plan);
        let answer = detach(py, || {
            authz_cases::replay(&self.plan, against, record, now_ms).map_err(|problem| {
                let location = Location { file: "record".to_owned(), ..Location::default() };
                Diagnostics::from(Diagnostic::error(&location, problem, ""))
            })
        })?;
        Ok(PyBytes::new(py, &answer))
    }

    fn simulate<'py>(&self, py: Python<'py>, session_json: &[u8]) -> PyResult<Bound<'py, PyBytes>> {
        let answer = detach(py, || {
            authz_cases::simulate(&self.plan, session_json).map_err(|problem| {
                let location = Location { file: "session".to_owned(), ..Location::default() };
                Diagnostics::from(Diagnostic::error(&location, problem, ""))
            })
        })?;
        Ok(PyBytes::new(py, &answer))
    }

    fn can<'py>(
        &self,
        py: Python<'py>,
        query_json: &[u8],
        now_ms: i64,
    ) -> PyResult<Bound<'py, PyBytes>> {
        let answer = detach(py, || {
            authz_cases::can(&self.plan, query_json, now_ms).map_err(|problem| {
                let location = Location { file: "query".to_owned(), ..Location::default() };
                Diagnostics::from(Diagnostic::error(&location, problem, ""))
            })
        })?;
        Ok(PyBytes::new(py, &answer))
    }

    #[getter]
    fn name(&self) -> &str {
        self.plan.name()
    }

    #[getter]
    fn revision(&self) -> &str {
        self.plan.revision()
    }

    #[getter]
    fn digest(&self) -> String {
        hex::hex(&self.plan.digest())
    }

    #[getter]
    fn warnings(&self) -> PyResult<String> {
        json_text(&self.plan.warnings())
    }

    fn cedar_schema(&self, py: Python<'_>) -> String {
        py.detach(|| self.plan.cedar_schema())
    }

    fn cedar_schema_json(&self, py: Python<'_>) -> PyResult<String> {
        py.detach(|| self.plan.cedar_schema_json()).map_err(PyValueError::new_err)
    }

    #[pyo3(signature = (issuers=None, has_guards=None))]
    fn lint(
        &self,
        py: Python<'_>,
        issuers: Option<BTreeSet<String>>,
        has_guards: Option<bool>,
    ) -> PyResult<String> {
        let facts = LintFacts { issuers, has_guards };
        detach_json(py, || self.plan.lint(&facts))
    }

    fn describe(&self, py: Python<'_>) -> PyResult<String> {
        detach_json(py, || self.plan.describe())
    }

    fn tools(&self, py: Python<'_>) -> String {
        py.detach(|| catalog::state(self.plan.model()))
    }

    #[getter]
    fn observing(&self) -> PyResult<String> {
        json_text(&self.plan.observing().collect::<Vec<_>>())
    }

    #[getter]
    fn exceptions(&self) -> PyResult<String> {
        json_text(&self.plan.model().exception_summaries().collect::<Vec<_>>())
    }

    #[getter]
    fn harnesses(&self) -> Vec<String> {
        self.plan.model().harnesses().map(str::to_owned).collect()
    }

    #[getter]
    fn person_kinds(&self) -> Vec<String> {
        self.plan.person_kinds().into_iter().collect()
    }

    fn early_stops(&self, now_ms: i64) -> PyResult<String> {
        json_text(&self.plan.early_stops(Time(now_ms)))
    }

    #[getter]
    fn recipient_lists(&self) -> PyResult<String> {
        json_text(&self.plan.recipient_lists().collect::<Vec<_>>())
    }

    fn renewal(&self, py: Python<'_>, before: &Self) -> PyResult<String> {
        detach_json(py, || self.plan.renewal(&before.plan))
    }

    #[getter]
    fn operation_count(&self) -> usize {
        self.plan.operations().len()
    }

    #[getter]
    fn policy_count(&self) -> usize {
        self.plan.policy_count()
    }

    #[getter]
    fn systems(&self) -> Vec<String> {
        self.plan.systems().keys().cloned().collect()
    }
}

/// Compiles a bundle; pauses between its parts while a previous plan serves calls.
fn compile(
    files: &Files,
    vars: &BTreeMap<String, String>,
    now: Time,
    previous: Option<&Plan>,
    without: Option<&str>,
) -> Result<Plan, Diagnostics> {
    let mut pace = previous.map(|_| Pace::default());
    let mut rest = || {
        if let Some(pace) = &mut pace {
            pace.rest();
        }
    };
    let mut contents = BTreeMap::new();
    for (path, content) in files {
        rest();
        contents.insert(path.clone(), content.to_vec());
    }
    let reader =
        authz_cases::source::reader(&contents, vars).at(now).after(previous.map(Plan::bundle));
    let bundle = reader.pausing(&mut rest).read()?;
    let compiler = PlanCompiler::new().after(previous).without(without).at(now);
    compiler.pausing(&mut rest).compile(bundle)
}

/// Entries of a recipient list that was fetched.
#[pyclass(frozen, name = "Entries", module = "authz._native")]
pub(crate) struct PyEntries {
    pub(crate) entries: Arc<RecipientListEntries>,
}

#[pymethods]
impl PyEntries {
    #[staticmethod]
    #[pyo3(signature = (text, column=None, alias=None))]
    fn read(
        py: Python<'_>,
        text: &[u8],
        column: Option<&str>,
        alias: Option<&str>,
    ) -> PyResult<Self> {
        let columns = Columns { entry: column, alias };
        let entries = py
            .detach(|| RecipientListEntries::read(text, columns))
            .map_err(|defect| PyValueError::new_err(defect.to_string()))?;
        Ok(Self { entries: Arc::new(entries) })
    }

    fn __len__(&self) -> usize {
        self.entries.len()
    }
}
