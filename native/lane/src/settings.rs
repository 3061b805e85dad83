//! How the engine and its listeners are set up.

mod credentials;
mod listener;
mod surface;
mod trace;

use std::fmt;
use std::path::PathBuf;

use serde::Deserialize;

pub use self::credentials::{CredentialSettings, DpopSettings, Injection, Lifetimes};
pub use self::listener::{EnforcerSpec, INSECURE_DEV, Listener, PeerSpec, Relay, ReportWay};
pub use self::surface::{Lane, Surface};
pub use self::trace::TraceSettings;

/// Settings of an [`crate::Engine`], from JSON.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Settings {
    /// The audit file; required, since a decision without a record is none.
    pub audit_path: PathBuf,
    /// Most records that wait for the disk.
    #[serde(default = "defaults::audit_queue_lines")]
    pub audit_queue_lines: usize,
    /// Most bytes of records that wait for the disk.
    #[serde(default = "defaults::audit_queue_bytes")]
    pub audit_queue_bytes: usize,
    /// Records of low tiers are synced at least this often.
    #[serde(default = "defaults::audit_sync_interval_ms")]
    pub audit_sync_interval_ms: u64,
    /// Longest wait for a durable record where the caller's deadline is later or none.
    #[serde(default = "defaults::audit_max_wait_ms")]
    pub audit_max_wait_ms: u64,
    /// Records a minute of refusals of callers of whom nothing was verified, for each peer and reason code; further ones are
    /// summed up.
    #[serde(default = "defaults::audit_unverified_refusals")]
    pub audit_unverified_refusals: u64,
    /// Verified tokens that are remembered; 0: none.
    #[serde(default = "defaults::token_cache_size")]
    pub token_cache_size: usize,
    /// Largest request.
    #[serde(default = "defaults::max_message_bytes")]
    pub max_message_bytes: usize,
    /// Longest arguments.
    #[serde(default = "defaults::max_arguments_bytes")]
    pub max_arguments_bytes: usize,
    /// Longest token or proof.
    #[serde(default = "defaults::max_token_bytes")]
    pub max_token_bytes: usize,
    /// PROBE requests a second and caller.
    #[serde(default = "defaults::probe_rate")]
    pub probe_rate: f64,
    /// PROBE requests that a caller may send at once.
    #[serde(default = "defaults::probe_burst")]
    pub probe_burst: f64,
    /// Callers whose rate is remembered.
    #[serde(default = "defaults::probe_callers")]
    pub probe_callers: usize,
    /// Answer Envoy with `error_response` where the decision could not be made. Its `failure_mode_allow` then permits.
    #[serde(default)]
    pub envoy_error_response: bool,
    /// Name of this server in audit records.
    #[serde(default)]
    pub node_id: String,
    /// Spans of decisions; none: no traces.
    #[serde(default)]
    pub trace: Option<TraceSettings>,
    /// Where tasks are kept.
    #[serde(default)]
    pub state: StateSettings,
    /// Version in audit records and `authz_build_info`.
    #[serde(default = "defaults::version")]
    pub version: String,
}

/// Where tasks are kept, and for how long.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StateSettings {
    /// Which store.
    #[serde(default)]
    pub engine: StateEngine,
    /// The folder of the embedded one.
    #[serde(default)]
    pub path: Option<PathBuf>,
    /// The connection string of the database.
    #[serde(default)]
    pub dsn: Option<Secret>,
    /// This node's name among those that share the database; the same after a restart.
    #[serde(default)]
    pub node: String,
    /// Connections to the database.
    #[serde(default = "defaults::connections")]
    pub connections: usize,
    /// Longest wait for the store where the caller's deadline is later or none.
    #[serde(default = "defaults::state_max_wait_ms")]
    pub max_wait_ms: u64,
    /// How old what this node knows of revocations may be; older: every request is denied.
    #[serde(default = "defaults::revocation_staleness_ms")]
    pub revocation_staleness_ms: u64,
    /// By how much this node's clock may differ from that of a shared store; beyond, every request is denied.
    #[serde(default = "defaults::clock_tolerance_ms")]
    pub clock_tolerance_ms: u64,
    /// After so long without a report a permitted operation counts as done.
    #[serde(default = "defaults::report_within_ms")]
    pub report_within_ms: u64,
    /// How long ended tasks, and answers to repeat, are kept.
    #[serde(default = "defaults::retention_ms")]
    pub retention_ms: u64,
    /// Most tasks, live and ended.
    #[serde(default = "defaults::max_tasks")]
    pub max_tasks: u64,
    /// Most live tasks of one agent.
    #[serde(default = "defaults::max_tasks_per_agent")]
    pub max_tasks_per_agent: u64,
    /// Most tasks of one tree, live and ended.
    #[serde(default = "defaults::max_tasks_per_session")]
    pub max_tasks_per_session: u32,
}

impl Default for StateSettings {
    fn default() -> Self {
        Self {
            engine: StateEngine::default(),
            path: None,
            dsn: None,
            node: String::new(),
            connections: defaults::connections(),
            max_wait_ms: defaults::state_max_wait_ms(),
            revocation_staleness_ms: defaults::revocation_staleness_ms(),
            clock_tolerance_ms: defaults::clock_tolerance_ms(),
            report_within_ms: defaults::report_within_ms(),
            retention_ms: defaults::retention_ms(),
            max_tasks: defaults::max_tasks(),
            max_tasks_per_agent: defaults::max_tasks_per_agent(),
            max_tasks_per_session: defaults::max_tasks_per_session(),
        }
    }
}

/// A kind of store.
#[derive(Clone, Copy, Debug, Default, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "snake_case")]
pub enum StateEngine {
    /// The process's memory: nothing outlives it.
    #[default]
    Memory,
    /// A folder that this process alone has.
    Embedded,
    /// A database that several nodes share.
    Postgresql,
}

/// A text that no log may hold.
#[derive(Clone, Deserialize)]
#[serde(transparent)]
pub struct Secret(pub String);

// Written by hand so that no log can hold it.
impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret")
    }
}

impl Settings {
    /// Reads settings.
    ///
    /// # Errors
    /// An unknown or missing key, a wrong type, or a limit out of its range.
    pub fn from_json(text: &[u8]) -> Result<Self, EngineError> {
        let settings: Self = serde_json::from_slice(text)
            .map_err(|error| EngineError(format!("engine settings: {error}")))?;
        settings.check()?;
        Ok(settings)
    }

    pub(crate) fn check(&self) -> Result<(), EngineError> {
        let bounds = [
            ("audit_queue_lines", self.audit_queue_lines as u64, 1, 10_000_000),
            ("audit_queue_bytes", self.audit_queue_bytes as u64, 1 << 16, 1 << 34),
            ("audit_sync_interval_ms", self.audit_sync_interval_ms, 1, 60_000),
            ("audit_max_wait_ms", self.audit_max_wait_ms, 1, 60_000),
            ("audit_unverified_refusals", self.audit_unverified_refusals, 1, 1_000_000_000),
            ("token_cache_size", self.token_cache_size as u64, 0, 10_000_000),
            ("max_message_bytes", self.max_message_bytes as u64, 1 << 10, 1 << 24),
            ("max_arguments_bytes", self.max_arguments_bytes as u64, 1 << 8, 1 << 24),
            ("max_token_bytes", self.max_token_bytes as u64, 256, 65_536),
            ("probe_callers", self.probe_callers as u64, 1, 1_000_000),
            ("state.connections", self.state.connections as u64, 1, 1_000),
            ("state.max_wait_ms", self.state.max_wait_ms, 1, 60_000),
            ("state.revocation_staleness_ms", self.state.revocation_staleness_ms, 1, 60_000),
            ("state.clock_tolerance_ms", self.state.clock_tolerance_ms, 1_000, 60_000),
            ("state.report_within_ms", self.state.report_within_ms, 1, 86_400_000),
            ("state.retention_ms", self.state.retention_ms, 1_000, 366 * 86_400_000),
            ("state.max_tasks", self.state.max_tasks, 1, 10_000_000),
            ("state.max_tasks_per_agent", self.state.max_tasks_per_agent, 1, 1_000_000),
            (
                "state.max_tasks_per_session",
                u64::from(self.state.max_tasks_per_session),
                1,
                1_000_000,
            ),
        ];
        for (name, value, least, most) in bounds {
            if !(least..=most).contains(&value) {
                return Err(EngineError(format!(
                    "engine settings: `{name}` is {value}; give {least} to {most}"
                )));
            }
        }
        let wants_path = self.state.engine == StateEngine::Embedded;
        let wants_dsn = self.state.engine == StateEngine::Postgresql;
        if wants_dsn != self.state.dsn.is_some() || wants_dsn && self.state.node.is_empty() {
            return Err(EngineError(
                "engine settings: `state.dsn` and `state.node` go with `state.engine: postgresql`"
                    .to_owned(),
            ));
        }
        if wants_path != self.state.path.is_some() {
            return Err(EngineError(
                "engine settings: `state.path` goes with `state.engine: embedded`, and only with it"
                    .to_owned(),
            ));
        }
        if let Some(defect) = self.trace.as_ref().and_then(TraceSettings::defect) {
            return Err(EngineError(format!("engine settings: {defect}")));
        }
        for (name, value) in [("probe_rate", self.probe_rate), ("probe_burst", self.probe_burst)] {
            if !(0.0..=1e6).contains(&value) {
                return Err(EngineError(format!(
                    "engine settings: `{name}` is {value}; give 0 to 1000000"
                )));
            }
        }
        Ok(())
    }
}

/// The engine could not be set up: what, where, and how to mend it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EngineError(pub(crate) String);

impl fmt::Display for EngineError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for EngineError {}

mod defaults {
    pub(super) const fn connections() -> usize {
        8
    }
    pub(super) const fn state_max_wait_ms() -> u64 {
        2_000
    }
    pub(super) const fn revocation_staleness_ms() -> u64 {
        1_000
    }
    pub(super) const fn clock_tolerance_ms() -> u64 {
        5_000
    }
    pub(super) const fn report_within_ms() -> u64 {
        60_000
    }
    pub(super) const fn retention_ms() -> u64 {
        24 * 60 * 60 * 1_000
    }
    pub(super) const fn max_tasks() -> u64 {
        250_000
    }
    pub(super) const fn max_tasks_per_agent() -> u64 {
        10_000
    }
    pub(super) const fn max_tasks_per_session() -> u32 {
        1_000
    }
    pub(super) const fn audit_queue_lines() -> usize {
        65_536
    }
    pub(super) const fn audit_queue_bytes() -> usize {
        64 * 1024 * 1024
    }
    pub(super) const fn audit_sync_interval_ms() -> u64 {
        1_000
    }
    pub(super) const fn audit_unverified_refusals() -> u64 {
        10
    }
    pub(super) const fn audit_max_wait_ms() -> u64 {
        2_000
    }
    pub(super) const fn token_cache_size() -> usize {
        10_000
    }
    pub(super) const fn max_message_bytes() -> usize {
        1024 * 1024
    }
    pub(super) const fn max_arguments_bytes() -> usize {
        256 * 1024
    }
    pub(super) const fn max_token_bytes() -> usize {
        8_192
    }
    pub(super) const fn probe_rate() -> f64 {
        50.0
    }
    pub(super) const fn probe_burst() -> f64 {
        200.0
    }
    pub(super) const fn probe_callers() -> usize {
        10_000
    }
    pub(super) fn version() -> String {
        env!("CARGO_PKG_VERSION").to_owned()
    }
}
