//! How the engine and its listeners are set up.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::path::PathBuf;

use authz_kernel::model::Tier;
use serde::Deserialize;

use crate::header_name::is_name_byte;
use crate::trace::TraceSettings;

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

/// One way in, as configured.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Listener {
    /// Its name, which each call gives.
    pub name: String,
    /// The enforcer that everybody who can reach it is; none: callers ask about themselves.
    #[serde(default)]
    pub enforcer: Option<EnforcerSpec>,
    /// Everybody who can reach it is an enforcer for all systems; for development only.
    #[serde(default)]
    pub insecure_dev: bool,
    /// Callers show a certificate (X.509-SVID), and are who it says; without one they are refused.
    #[serde(default)]
    pub mutual: bool,
    /// Explain is answered here.
    #[serde(default)]
    pub admin: bool,
    /// Clients of token endpoints, whom the server has authenticated itself: it says who calls, and is believed.
    #[serde(default)]
    pub http: bool,
    /// What is answered here; none: everything that the other keys allow.
    #[serde(default)]
    pub surfaces: Option<Vec<Surface>>,
}

impl Listener {
    /// Reads listeners from a JSON array.
    ///
    /// # Errors
    /// An unknown or missing key, or a wrong type.
    pub fn list_from_json(text: &[u8]) -> Result<Vec<Self>, EngineError> {
        serde_json::from_slice(text).map_err(|error| EngineError(format!("listeners: {error}")))
    }
}

/// How task credentials are issued, as configured.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CredentialSettings {
    /// Who issues: `iss` of the tokens, an `https` URL.
    pub issuer: String,
    /// The audience of each system whose audience is not its id.
    #[serde(default)]
    pub audiences: BTreeMap<String, String>,
    /// How long at most.
    #[serde(default)]
    pub lifetime: Lifetimes,
    /// Proofs of possession (RFC 9449).
    #[serde(default)]
    pub dpop: DpopSettings,
    /// Headers that carry the secret of a system that knows no tokens, by system.
    #[serde(default)]
    pub injections: BTreeMap<String, Injection>,
    /// Systems whose secrets are leased, each with the name of the broker that does.
    #[serde(default)]
    pub leases: BTreeMap<String, String>,
}

impl CredentialSettings {
    /// Reads settings.
    ///
    /// # Errors
    /// An unknown or missing key, or a value out of its range.
    pub fn from_json(text: &[u8]) -> Result<Self, EngineError> {
        let settings: Self = serde_json::from_slice(text)
            .map_err(|error| EngineError(format!("credentials: {error}")))?;
        settings.check()?;
        Ok(settings)
    }

    pub(crate) fn check(&self) -> Result<(), EngineError> {
        let Lifetimes { low, standard, high, critical } = self.lifetime;
        let bounds = [
            ("lifetime.low", low, 86_400),
            ("lifetime.standard", standard, 86_400),
            ("lifetime.high", high, 86_400),
            ("lifetime.critical", critical, 86_400),
            ("dpop.window", self.dpop.window, 600),
            ("dpop.max_proofs_per_key", self.dpop.max_proofs_per_key, 10_000),
        ];
        for (name, value, most) in bounds {
            if !(1..=most).contains(&value) {
                return Err(EngineError(format!(
                    "credentials: `{name}` is {value}; give 1 to {most}"
                )));
            }
        }
        if !self.issuer.starts_with("https://") {
            return Err(EngineError("credentials: `issuer` is no https URL".to_owned()));
        }
        for (system, injection) in &self.injections {
            injection.check().map_err(|what| {
                EngineError(format!("credentials: injection of system `{system}`: {what}"))
            })?;
        }
        let both = self.leases.keys().find(|system| self.injections.contains_key(*system));
        if let Some(system) = both {
            return Err(EngineError(format!(
                "credentials: system `{system}` has both a leased and an injected secret; give one"
            )));
        }
        Ok(())
    }

    /// The systems that are named, each once.
    pub(crate) fn systems(&self) -> BTreeSet<&str> {
        let Self { audiences, injections, leases, .. } = self;
        let all = audiences.keys().chain(injections.keys()).chain(leases.keys());
        all.map(String::as_str).collect()
    }

    /// The audience of a system.
    #[must_use]
    pub fn audience<'a>(&'a self, system: &'a str) -> &'a str {
        self.audiences.get(system).map_or(system, String::as_str)
    }
}

/// How long a credential may live at most, by the tier of what it permits, in seconds.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq)]
#[serde(deny_unknown_fields, default)]
pub struct Lifetimes {
    /// Of tier low.
    pub low: u32,
    /// Of tier standard.
    pub standard: u32,
    /// Of tier high.
    pub high: u32,
    /// Of tier critical.
    pub critical: u32,
}

impl Default for Lifetimes {
    fn default() -> Self {
        Self { low: 900, standard: 300, high: 120, critical: 60 }
    }
}

impl Lifetimes {
    /// How long a credential of this tier may live at most, in seconds.
    #[must_use]
    pub const fn of(&self, tier: Tier) -> u32 {
        match tier {
            Tier::Low => self.low,
            Tier::Standard => self.standard,
            Tier::High => self.high,
            Tier::Critical => self.critical,
        }
    }
}

/// How proofs of possession are taken.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq)]
#[serde(deny_unknown_fields, default)]
pub struct DpopSettings {
    /// How many seconds `iat` may lie before or after now.
    pub window: u32,
    /// Most proofs of one key that are remembered; one more is refused.
    pub max_proofs_per_key: u32,
    /// Every proof needs a nonce of ours.
    pub require_nonce: bool,
}

impl Default for DpopSettings {
    fn default() -> Self {
        Self { window: 60, max_proofs_per_key: 4_096, require_nonce: false }
    }
}

/// The header that carries the secret of a system that knows no tokens.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Injection {
    /// Its name, in lower case.
    pub header: String,
    /// Its value; none: it cannot be read, and no request is let through to the system.
    #[serde(default)]
    pub value: Option<Secret>,
}

impl Injection {
    /// Most `-` in a header's name: each doubles the spellings that some server takes for it.
    const DASHES: usize = 6;
    const LONGEST_NAME: usize = 128;
    const LONGEST_VALUE: usize = 8192;

    fn check(&self) -> Result<(), &'static str> {
        let name = self.header.as_bytes();
        if name.is_empty()
            || name.len() > Self::LONGEST_NAME
            || !name.iter().all(|b| is_name_byte(*b))
        {
            return Err("`header` is no lower-case name of a header");
        }
        if name.iter().filter(|byte| matches!(byte, b'-' | b'_')).count() > Self::DASHES {
            return Err("`header` has more than 6 `-`");
        }
        // A line's end would begin another header.
        let is_fine = |value: &Secret| {
            (1..=Self::LONGEST_VALUE).contains(&value.0.len())
                && value.0.bytes().all(|byte| (0x20..0x7f).contains(&byte))
        };
        if !self.value.as_ref().is_none_or(is_fine) {
            return Err("`value` is no line of printable ASCII");
        }
        Ok(())
    }
}

/// An enforcer, as configured.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EnforcerSpec {
    /// Its name in policies and audit records.
    pub name: String,
    /// Systems that it asks about: `system:crm`, or `system:*` for all.
    pub asks: Vec<String>,
    /// What it may say of the agents that it asks about, and is believed.
    #[serde(default)]
    pub relays: Vec<Relay>,
    /// How it tells what came of what it was permitted; none: not at all.
    #[serde(default)]
    pub reports: Option<ReportWay>,
    /// Users that its processes run as; empty: any that can open the socket.
    #[serde(default)]
    pub uids: Vec<u32>,
}

/// How an enforcer tells what came of what it was permitted.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "snake_case")]
pub enum ReportWay {
    /// By `Report`.
    Sdk,
    /// By its access log.
    AccessLog,
}

/// A fact that an enforcer may relay.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "snake_case")]
pub enum Relay {
    /// Who the agent is, as the enforcer verified on a connection of its own.
    Principal,
    /// Labels that the call carries.
    Labels,
    /// What a user wrote, beside that user's token.
    Prompt,
    /// The context of the session that a call is made in, beside the subject's token.
    Session,
}

/// A TLS peer that is an enforcer, as configured.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PeerSpec {
    /// Its name in policies and audit records.
    pub name: String,
    /// SPIFFE ids of such peers; `*` stands for one whole path segment. Of several that match, the most specific counts.
    pub r#match: String,
    /// As of [`EnforcerSpec`].
    pub asks: Vec<String>,
    /// As of [`EnforcerSpec`].
    #[serde(default)]
    pub relays: Vec<Relay>,
    /// As of [`EnforcerSpec`].
    #[serde(default)]
    pub reports: Option<ReportWay>,
}

impl PeerSpec {
    /// Reads enforcers from a JSON array.
    ///
    /// # Errors
    /// An unknown or missing key, or a wrong type.
    pub fn list_from_json(text: &[u8]) -> Result<Vec<Self>, EngineError> {
        serde_json::from_slice(text).map_err(|error| EngineError(format!("enforcers: {error}")))
    }
}

/// The name of the enforcer that an `insecure_dev` listener is.
pub const INSECURE_DEV: &str = "insecure_dev";

/// What a call asks for, whichever lane it came by.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[serde(rename_all = "snake_case")]
pub enum Surface {
    /// `authz.v1.Authorizer/Check`.
    Check,
    /// `authz.v1.Authorizer/BatchCheck`.
    BatchCheck,
    /// `authz.v1.Authorizer/Explain`.
    Explain,
    /// `envoy.service.auth.v3.Authorization/Check`.
    ExtAuthz,
    /// `authz.v1.Authorizer/List`.
    List,
    /// `authz.v1.Authorizer/Report`.
    Report,
    /// `envoy.service.accesslog.v3.AccessLogService/StreamAccessLogs`, a message of it.
    AccessLog,
    /// `authz.v1.Tasks/Start`.
    TaskStart,
    /// `authz.v1.Tasks/Delegate`.
    TaskDelegate,
    /// `authz.v1.Tasks/Extend`.
    TaskExtend,
    /// `authz.v1.Tasks/Get`.
    TaskGet,
    /// `authz.v1.Tasks/List`.
    TaskList,
    /// `authz.v1.Tasks/End`.
    TaskEnd,
    /// `authz.v1.Admin/Revoke`.
    Revoke,
    /// `authz.v1.Admin/Forget`.
    Forget,
    /// `authz.v1.Credentials/Issue`.
    CredentialIssue,
    /// `authz.v1.Credentials/Introspect`, and token introspection over HTTP.
    CredentialIntrospect,
    /// `authz.v1.Credentials/Revoke`, and token revocation over HTTP.
    CredentialRevoke,
    /// Token exchange over HTTP.
    CredentialExchange,
}

impl Surface {
    /// The word used in metrics and configuration.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Check => "check",
            Self::BatchCheck => "batch_check",
            Self::Explain => "explain",
            Self::ExtAuthz => "ext_authz",
            Self::List => "list",
            Self::Report => "report",
            Self::AccessLog => "access_log",
            Self::TaskStart => "task_start",
            Self::TaskDelegate => "task_delegate",
            Self::TaskExtend => "task_extend",
            Self::TaskGet => "task_get",
            Self::TaskList => "task_list",
            Self::TaskEnd => "task_end",
            Self::Revoke => "revoke",
            Self::Forget => "forget",
            Self::CredentialIssue => "credential_issue",
            Self::CredentialIntrospect => "credential_introspect",
            Self::CredentialRevoke => "credential_revoke",
            Self::CredentialExchange => "credential_exchange",
        }
    }

    /// The surface of that name.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|surface| surface.as_str() == name)
    }

    /// `path` of an audit record.
    #[must_use]
    pub const fn path(self) -> &'static str {
        match self {
            Self::Check => "authz.v1.Authorizer/Check",
            Self::BatchCheck => "authz.v1.Authorizer/BatchCheck",
            Self::Explain => "authz.v1.Authorizer/Explain",
            Self::ExtAuthz => "envoy.service.auth.v3.Authorization/Check",
            Self::List => "authz.v1.Authorizer/List",
            Self::Report => "authz.v1.Authorizer/Report",
            Self::AccessLog => "envoy.service.accesslog.v3.AccessLogService/StreamAccessLogs",
            Self::TaskStart => "authz.v1.Tasks/Start",
            Self::TaskDelegate => "authz.v1.Tasks/Delegate",
            Self::TaskExtend => "authz.v1.Tasks/Extend",
            Self::TaskGet => "authz.v1.Tasks/Get",
            Self::TaskList => "authz.v1.Tasks/List",
            Self::TaskEnd => "authz.v1.Tasks/End",
            Self::Revoke => "authz.v1.Admin/Revoke",
            Self::Forget => "authz.v1.Admin/Forget",
            Self::CredentialIssue => "authz.v1.Credentials/Issue",
            Self::CredentialIntrospect => "authz.v1.Credentials/Introspect",
            Self::CredentialRevoke => "authz.v1.Credentials/Revoke",
            Self::CredentialExchange => "/oauth/token",
        }
    }

    /// All surfaces.
    pub const ALL: [Self; 19] = [
        Self::Check,
        Self::BatchCheck,
        Self::Explain,
        Self::ExtAuthz,
        Self::List,
        Self::Report,
        Self::AccessLog,
        Self::TaskStart,
        Self::TaskDelegate,
        Self::TaskExtend,
        Self::TaskGet,
        Self::TaskList,
        Self::TaskEnd,
        Self::Revoke,
        Self::Forget,
        Self::CredentialIssue,
        Self::CredentialIntrospect,
        Self::CredentialRevoke,
        Self::CredentialExchange,
    ];
}

/// Which server a call came by.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Lane {
    /// grpcio's.
    Python,
    /// [`crate::FastLane`].
    Fast,
}

impl Lane {
    /// The word used in metrics and configuration.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Python => "python",
            Self::Fast => "fast",
        }
    }

    /// Both.
    pub const ALL: [Self; 2] = [Self::Python, Self::Fast];
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
