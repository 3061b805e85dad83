//! Settings of the engine, of its listeners and of task credentials, as JSON.
//!
//! `authz.config` in Python owns names, defaults and bounds. Here every setting is required, and nothing is checked a second time
//! but what the engine's own code relies on; the check stands beside such a rule.

mod credentials;
mod lane;
mod listener;
mod surface;
mod trace;

use std::fmt;
use std::path::PathBuf;

use serde::{Deserialize, Deserializer};

use crate::error::EngineError;

pub use self::credentials::{CredentialSettings, DpopSettings, Lifetimes, StaticSecret};
pub use self::lane::Lane;
pub use self::listener::{EnforcerSpec, INSECURE_DEV, Listener, PeerSpec, Relay, ReportWay};
pub use self::surface::Surface;
pub use self::trace::TraceSettings;

/// Settings of an [`crate::Engine`].
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Settings {
    /// Path of the audit file.
    pub audit_path: PathBuf,
    /// Most records that wait for the disk.
    pub audit_queue_lines: usize,
    /// Most bytes of records that wait for the disk.
    pub audit_queue_bytes: usize,
    /// Treatment of a call whose record finds the queue full.
    pub audit_on_full: AuditOnFull,
    /// Longest time between two syncs of the audit file, for records of low tiers.
    pub audit_sync_interval_ms: u64,
    /// Longest wait for a durable record. An earlier deadline of the caller ends the wait.
    pub audit_max_wait_ms: u64,
    /// Records of refusals of unverified callers, for each peer, reason code and minute. Further refusals are summed up.
    pub audit_unverified_refusals: u64,
    /// Chain of the audit's lines. `null`: lines are not chained.
    #[serde(deserialize_with = "required")]
    pub audit_chain: Option<AuditChainSettings>,
    /// Verified tokens in the cache. Zero: no cache.
    pub token_cache_size: usize,
    /// Largest request, in bytes.
    pub max_message_bytes: usize,
    /// Longest arguments, in bytes.
    pub max_arguments_bytes: usize,
    /// Longest token or proof, in bytes.
    pub max_token_bytes: usize,
    /// PROBE requests of one caller, for each second.
    pub probe_rate: f64,
    /// PROBE requests that one caller may send at once.
    pub probe_burst: f64,
    /// Callers whose rate of PROBE requests is counted.
    pub probe_callers: usize,
    /// Answers Envoy with `error_response` if the decision could not be made. Its `failure_mode_allow` then permits.
    pub envoy_error_response: bool,
    /// Name of this server in audit records.
    pub node_id: String,
    /// Spans of decisions. `null`: no spans.
    #[serde(deserialize_with = "required")]
    pub trace: Option<TraceSettings>,
    /// Approvals of people.
    pub approvals: ApprovalSettings,
    /// Store of tasks.
    pub state: StateSettings,
    /// Version of Authz in audit records and `authz_build_info`.
    pub version: String,
}

/// Treatment of a call whose record finds the audit queue full.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "snake_case")]
pub enum AuditOnFull {
    /// The call is denied.
    Deny,
    /// The call waits for room, and is denied if there is none in time.
    Block,
    /// A decision that changes nothing is answered without a record; every other call is denied.
    Drop,
}

/// Chain of the audit's lines, its segments and its heads.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AuditChainSettings {
    /// Key that signs heads. `null`: heads are not signed.
    #[serde(deserialize_with = "required")]
    pub head_key: Option<HeadKeySettings>,
    /// Size at which a segment ends, in bytes.
    pub max_segment_bytes: u64,
    /// Age at which a segment ends.
    pub max_segment_age_ms: u64,
    /// Time between two heads of the segment that is being written.
    pub head_interval_ms: u64,
    /// Ended segments that are kept. `null`: all.
    #[serde(deserialize_with = "required")]
    pub keep_segments: Option<usize>,
}

/// Key that signs the heads of the audit.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct HeadKeySettings {
    /// Name of the key: the RFC 7638 thumbprint of its public half.
    pub kid: String,
    /// `EdDSA` or `ES256`.
    pub algorithm: String,
    /// The private key in PKCS#8, in base64.
    pub pkcs8: Secret,
}

/// Settings of approvals.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ApprovalSettings {
    /// Public address of the page on which people answer; empty if there is no page. A challenge adds `/a/<approval id>`.
    pub url: String,
}

/// Settings of the store of tasks.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StateSettings {
    /// Kind of the store.
    pub engine: StateEngine,
    /// Folder of the embedded store. `null` for another kind.
    #[serde(deserialize_with = "required")]
    pub path: Option<PathBuf>,
    /// Connection string of the PostgreSQL database. `null` for another kind.
    #[serde(deserialize_with = "required")]
    pub dsn: Option<Secret>,
    /// Name of this node among those that share the database; the same after a restart.
    pub node: String,
    /// Connections to the database.
    pub connections: usize,
    /// Longest wait for the store. An earlier deadline of the caller ends the wait.
    pub max_wait_ms: u64,
    /// Interval at which this node reads the changes of others in a shared store if no notice makes it read them earlier.
    pub poll_interval_ms: u64,
    /// Greatest age of this node's view of revocations. Beyond it, every request is denied.
    pub revocation_staleness_ms: u64,
    /// Greatest difference between the clocks of this node and of a shared store. Beyond it, every request is denied.
    pub clock_tolerance_ms: u64,
    /// Time after which a permitted operation without a report counts as done.
    pub report_within_ms: u64,
    /// Time for which ended tasks, and answers to repeated requests, are kept.
    pub retention_ms: u64,
    /// Most tasks, live and ended.
    pub max_tasks: u64,
    /// Most live tasks of one agent.
    pub max_tasks_per_agent: u64,
    /// Most tasks of one tree, live and ended.
    pub max_tasks_per_session: u32,
}

/// A kind of store.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "snake_case")]
pub enum StateEngine {
    /// Memory of the process: nothing outlives it.
    Memory,
    /// A folder that this process alone has.
    Embedded,
    /// A PostgreSQL database that several nodes share.
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

/// Reads an optional value whose member must be there: without this, serde takes a missing member for `null`.
fn required<'de, D: Deserializer<'de>, T: Deserialize<'de>>(
    deserializer: D,
) -> Result<Option<T>, D::Error> {
    Option::deserialize(deserializer)
}

impl Settings {
    /// Settings of an engine that no server has, for simulations and offline evaluation: the store is in memory, nothing is cached
    /// or traced, and no file is named.
    #[must_use]
    pub fn offline() -> Self {
        const HOUR_MS: u64 = 3_600_000;
        Self {
            audit_path: PathBuf::new(),
            audit_queue_lines: 65_536,
            audit_queue_bytes: 1 << 26,
            audit_on_full: AuditOnFull::Deny,
            audit_sync_interval_ms: 1_000,
            audit_max_wait_ms: 2_000,
            audit_unverified_refusals: u64::MAX,
            audit_chain: None,
            token_cache_size: 0,
            max_message_bytes: 1 << 20,
            max_arguments_bytes: 1 << 18,
            max_token_bytes: 8_192,
            probe_rate: f64::MAX,
            probe_burst: f64::MAX,
            probe_callers: 10_000,
            envoy_error_response: false,
            node_id: String::new(),
            trace: None,
            approvals: ApprovalSettings::default(),
            state: StateSettings {
                engine: StateEngine::Memory,
                path: None,
                dsn: None,
                node: String::new(),
                connections: 1,
                max_wait_ms: 2_000,
                poll_interval_ms: 200,
                revocation_staleness_ms: 1_000,
                clock_tolerance_ms: 5_000,
                report_within_ms: 60_000,
                retention_ms: 24 * HOUR_MS,
                max_tasks: 250_000,
                max_tasks_per_agent: 10_000,
                max_tasks_per_session: 1_000,
            },
            version: env!("CARGO_PKG_VERSION").to_owned(),
        }
    }

    /// Reads settings.
    ///
    /// # Errors
    /// A member is unknown or missing, or has a wrong type; or the store lacks its folder or its database.
    pub fn from_json(text: &[u8]) -> Result<Self, EngineError> {
        let settings: Self =
            serde_json::from_slice(text).map_err(EngineError::json("engine settings"))?;
        settings.check()?;
        Ok(settings)
    }

    // INVARIANT (lasting): a store without its folder or its database would be one in memory, which forgets revocations.
    pub(crate) fn check(&self) -> Result<(), EngineError> {
        let StateSettings { engine, path, dsn, node, .. } = &self.state;
        let wants_dsn = *engine == StateEngine::Postgresql;
        if wants_dsn != dsn.is_some() || wants_dsn && node.is_empty() {
            return Err(EngineError::Invalid(
                "engine settings: `state.dsn` and `state.node` go with `state.engine: postgresql`"
                    .to_owned(),
            ));
        }
        if (*engine == StateEngine::Embedded) != path.is_some() {
            return Err(EngineError::Invalid(
                "engine settings: `state.path` goes with `state.engine: embedded`, and only with it"
                    .to_owned(),
            ));
        }
        Ok(())
    }
}
