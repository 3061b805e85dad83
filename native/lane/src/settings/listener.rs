//! Listeners and enforcers.
//!
//! INVARIANT (every member is given): no member has a default. A listener that lost `mutual` would take callers without a
//! certificate, one that lost `surfaces` would answer every surface, and an enforcer that lost `uids` would be any process.

use serde::Deserialize;

use super::required;
use super::surface::Surface;
use crate::error::EngineError;

/// Listener, and who its callers are.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Listener {
    /// Name of the listener. Each call names its listener.
    pub name: String,
    /// Enforcer that each caller is. `None`: callers ask about themselves.
    #[serde(deserialize_with = "required")]
    pub enforcer: Option<EnforcerSpec>,
    /// Each caller is an enforcer for all systems. For development only.
    pub insecure_dev: bool,
    /// Each caller shows a certificate (X.509-SVID), which proves its identity. A caller without one is refused.
    pub mutual: bool,
    /// Administration is answered here.
    pub admin: bool,
    /// Callers are clients of token endpoints. The server has authenticated them, and its word counts.
    pub http: bool,
    /// Surfaces that are answered here. `None`: all that the other members allow.
    #[serde(deserialize_with = "required")]
    pub surfaces: Option<Vec<Surface>>,
}

impl Listener {
    /// Reads listeners from a JSON array.
    ///
    /// # Errors
    /// A member is unknown or missing, or has a wrong type.
    pub fn list_from_json(text: &[u8]) -> Result<Vec<Self>, EngineError> {
        serde_json::from_slice(text).map_err(EngineError::json("listeners"))
    }
}

/// Enforcer of a listener.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EnforcerSpec {
    /// Name in policies and audit records.
    pub name: String,
    /// Systems that it asks about: `system:crm`, or `system:*` for all.
    pub asks: Vec<String>,
    /// Facts about agents that count on its word.
    pub relays: Vec<Relay>,
    /// Way by which it reports results of permits. `None`: it reports none.
    #[serde(deserialize_with = "required")]
    pub reports: Option<ReportWay>,
    /// Users that its processes run as. Empty: each user that can open the socket.
    pub uids: Vec<u32>,
}

/// Way by which an enforcer reports results of permits.
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
    /// Identity of the agent, which the enforcer verified on a connection of its own.
    Principal,
    /// Labels that the call carries.
    Labels,
    /// Prompt of a user, beside that user's token.
    Prompt,
    /// The context of the session that a call is made in, beside the subject's token.
    Session,
}

/// Enforcer that is recognized by its TLS certificate.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PeerSpec {
    /// Name in policies and audit records.
    pub name: String,
    /// SPIFFE ids of the peers; `*` stands for one whole path segment. If several enforcers match a peer, the most specific counts.
    pub r#match: String,
    /// As [`EnforcerSpec::asks`].
    pub asks: Vec<String>,
    /// As [`EnforcerSpec::relays`].
    pub relays: Vec<Relay>,
    /// As [`EnforcerSpec::reports`].
    #[serde(deserialize_with = "required")]
    pub reports: Option<ReportWay>,
}

impl PeerSpec {
    /// Reads enforcers from a JSON array.
    ///
    /// # Errors
    /// A member is unknown or missing, or has a wrong type.
    pub fn list_from_json(text: &[u8]) -> Result<Vec<Self>, EngineError> {
        serde_json::from_slice(text).map_err(EngineError::json("enforcers"))
    }
}

/// Name of the enforcer of an `insecure_dev` listener.
pub const INSECURE_DEV: &str = "insecure_dev";
