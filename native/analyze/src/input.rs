//! The request of the executable: one JSON document on standard input.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use authz_kernel::decision::Time;
use authz_kernel::diagnostic::Diagnostics;
use authz_kernel::plan::{Plan, PlanCompiler};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::Deserialize;

/// Files of a bundle and values of its variables.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BundleInput {
    /// Contents in Base64 (RFC 4648 §4), by path relative to the bundle folder.
    pub files: BTreeMap<String, String>,
    /// Values of `${…}`.
    #[serde(default)]
    pub vars: BTreeMap<String, String>,
}

/// Settings of an analysis.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Options {
    /// Unix time in milliseconds: exceptions and entries of `mode` end by it.
    pub now_ms: i64,
    /// Program of the solver and its arguments; empty: no solver, so that nothing is proved.
    #[serde(default)]
    pub solver: Vec<String>,
    /// Time limit of a question in milliseconds.
    #[serde(default = "default_limit_ms")]
    pub question_limit_ms: u64,
    /// Folder with answers of earlier runs. `None`: nothing is kept.
    #[serde(default)]
    pub cache: Option<PathBuf>,
    /// Solver processes that run at once.
    #[serde(default = "one")]
    pub jobs: usize,
}

const fn default_limit_ms() -> u64 {
    10_000
}

const fn one() -> usize {
    1
}

impl Options {
    /// Time limit of a question.
    #[must_use]
    pub const fn question_limit(&self) -> Duration {
        Duration::from_millis(self.question_limit_ms)
    }
}

/// Rights of the secret that a broker makes for a permitted operation.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Lease {
    /// Operation that is permitted.
    pub operation: String,
    /// Name of the broker. Leases of one broker are for the same server.
    pub broker: String,
    /// Key of the configuration.
    pub place: String,
    /// Rights.
    pub rights: Vec<Right>,
}

/// A right of a leased secret on one object.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Right {
    /// Name of the privilege, for example `SELECT`.
    pub privilege: String,
    /// Effects, of which an operation has one if it needs the right; the usual one first. Empty: the right has no effect.
    pub effects: Vec<String>,
    /// Kind of the object, for example `table`.
    pub kind: String,
    /// Database of the object. `None`: that of the broker's connection.
    #[serde(default)]
    pub database: Option<String>,
    /// Name of the object; `schema.*`: each one of the schema.
    pub name: String,
    /// Columns to which the right is limited. Empty if it covers all columns.
    #[serde(default)]
    pub columns: Vec<String>,
}

/// Request of `authz-analyze analyze`.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AnalyzeRequest {
    /// The bundle.
    pub bundle: BundleInput,
    /// Leases of the configuration.
    #[serde(default)]
    pub leases: Vec<Lease>,
    /// Settings.
    pub options: Options,
}

/// Request of `authz-analyze diff`.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DiffRequest {
    /// The bundle before the change.
    pub old: BundleInput,
    /// The bundle after the change.
    pub new: BundleInput,
    /// Settings.
    pub options: Options,
}

/// A bundle that cannot be analyzed.
#[derive(Debug, thiserror::Error)]
pub enum InputError {
    /// A file is not Base64.
    #[error("the file `{0}` is not Base64")]
    Encoding(String),
    /// The bundle does not compile.
    #[error("the bundle does not compile")]
    Bundle(Diagnostics),
}

impl BundleInput {
    /// Contents of the files, by path.
    ///
    /// # Errors
    /// A file is not Base64.
    pub fn contents(&self) -> Result<BTreeMap<String, Vec<u8>>, InputError> {
        let content = |(path, text): (&String, &String)| {
            let content = STANDARD.decode(text).map_err(|_| InputError::Encoding(path.clone()))?;
            Ok((path.clone(), content))
        };
        self.files.iter().map(content).collect()
    }

    /// Compiles the bundle as a server does.
    ///
    /// # Errors
    /// A file is not Base64, or the bundle does not compile.
    pub fn compile(&self, now_ms: i64) -> Result<Plan, InputError> {
        let files = self.contents()?;
        let reader = authz_cases::source::reader(&files, &self.vars).at(Time(now_ms));
        let bundle = reader.read().map_err(InputError::Bundle)?;
        PlanCompiler::new().compile(bundle).map_err(InputError::Bundle)
    }
}
