//! Task credentials.

use std::borrow::Cow;
use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::record::StoredValue;
use crate::time::Time;

/// Time for which a credential and its reservation are kept after their end, in milliseconds: clocks of nodes differ.
const KEPT_AFTER_END_MS: i64 = 60_000;

/// Task credential as it was issued. Its token never permits more than this record.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Credential {
    /// `jti` of the token.
    pub jti: String,
    /// Id of its task.
    pub task: String,
    /// Id of the session.
    pub session: String,
    /// SPIFFE id of the agent to which it was issued.
    pub agent: String,
    /// The only audience.
    pub audience: String,
    /// Permitted operations; never empty.
    pub details: Vec<Detail>,
    /// Key that must be proved with it. `None`: any bearer may use it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub binding: Option<Binding>,
    /// Time of issue.
    pub issued_at: Time,
    /// End of the credential.
    pub expires_at: Time,
    /// Revocation of this credential alone; the end of its task has no mark here.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub revoked_at: Option<Time>,
    /// Members that this version does not know.
    #[serde(flatten)]
    pub rest: BTreeMap<String, serde_json::Value>,
}

impl StoredValue for Credential {
    fn record_id(&self) -> Cow<'_, str> {
        Cow::Borrowed(&self.jti)
    }

    fn record_due(&self) -> Option<Time> {
        Some(self.due())
    }
}

impl Credential {
    /// Time at which it may be forgotten.
    #[must_use]
    pub const fn due(&self) -> Time {
        Time(self.expires_at.0.saturating_add(KEPT_AFTER_END_MS))
    }

    /// Returns whether it was revoked by itself, or has ended. The caller checks its task and other revocations.
    #[must_use]
    pub fn is_over(&self, now: Time) -> bool {
        self.revoked_at.is_some() || self.expires_at <= now
    }
}

/// One operation that a credential permits, once.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Detail {
    /// Id of the permit's decision and of its reservation.
    pub decision_id: String,
    /// Operation id.
    pub operation: String,
    /// Id of the resource. `None` if the operation has none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub resource: Option<String>,
    /// SHA-256 of the arguments in their canonical form, in hex.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub arguments_digest: Option<String>,
    /// Destinations of the decision.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub destinations: Vec<String>,
}

/// Key to which a credential is bound, in base64url.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Binding {
    /// Thumbprint of a key (RFC 7638): `cnf.jkt`.
    Jkt(String),
    /// SHA-256 of a certificate (RFC 8705): `cnf.x5t#S256`.
    X5t(String),
}

impl Binding {
    /// Name of its member of `cnf`.
    #[must_use]
    pub const fn member(&self) -> &'static str {
        match self {
            Self::Jkt(_) => "jkt",
            Self::X5t(_) => "x5t#S256",
        }
    }

    /// Value of its member of `cnf`.
    #[must_use]
    pub fn value(&self) -> &str {
        match self {
            Self::Jkt(value) | Self::X5t(value) => value,
        }
    }
}
