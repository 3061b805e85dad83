//! Listeners and enforcers, as configured.

use serde::Deserialize;

use super::EngineError;
use super::surface::Surface;

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
