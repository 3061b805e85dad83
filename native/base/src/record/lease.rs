//! Leases of secrets.

use std::borrow::Cow;
use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::record::StoredValue;
use crate::time::Time;

/// State of a lease.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LeaseState {
    /// The broker has to make the secret at the system.
    Wanted,
    /// The secret exists.
    Live,
    /// The broker has to take the secret away at the system.
    Ending,
}

/// Lease of a secret of a system without tokens. The secret itself is stored nowhere.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Lease {
    /// `<session>/<uuid>`.
    pub id: String,
    /// Broker that makes the secret.
    pub broker: String,
    /// System of the secret.
    pub system: String,
    /// Id of the permitted operation.
    pub operation: String,
    /// Id of its task.
    pub task: String,
    /// Id of the session.
    pub session: String,
    /// Id of the permit's decision.
    pub decision_id: String,
    /// SPIFFE id of the agent to which it was issued.
    pub agent: String,
    /// Name of the secret in the system, such as a role.
    pub name: String,
    /// State of the lease.
    pub state: LeaseState,
    /// Latest end of the lease.
    pub expires_at: Time,
    /// Failed attempts to take it away.
    #[serde(default)]
    pub attempts: u32,
    /// Time of the next attempt.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next_try: Option<Time>,
    /// Error of the last attempt; empty without one.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub last_error: String,
    /// Members that this version does not know.
    #[serde(flatten)]
    pub rest: BTreeMap<String, serde_json::Value>,
}

// The broker removes a lease once the secret that it names is gone.
impl StoredValue for Lease {
    fn record_id(&self) -> Cow<'_, str> {
        Cow::Borrowed(&self.id)
    }
}
