//! Sessions: the state that one task tree shares.

use std::borrow::Cow;
use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::record::StoredValue;
use crate::record::history::SessionHistory;
use crate::time::Time;

/// Task tree as a whole.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Session {
    /// Id of the session.
    pub id: String,
    /// Id of the root task.
    pub root: String,
    /// Tasks of the tree, live and ended.
    pub tasks: u32,
    /// Start of the root.
    pub started_at: Time,
    /// Time at which the session may be forgotten: a while after the last of its tasks has ended.
    pub expires_at: Time,
    /// End of a session without a task: a revocation, or denials. End of the session of an agent that works without tasks:
    /// denials.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ended_at: Option<Time>,
    /// Denials, and no revocation, ended a session without a task.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub denied: bool,
    /// SPIFFE id of the agent of a session without a task that has a subject. The end of this session also holds for the
    /// agent when it leaves the subject out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub agent: Option<String>,
    /// History of its tasks, as far as rules read it.
    #[serde(default, skip_serializing_if = "SessionHistory::is_empty")]
    pub history: SessionHistory,
    /// Members that this version does not know.
    #[serde(flatten)]
    pub rest: BTreeMap<String, serde_json::Value>,
}

impl StoredValue for Session {
    fn record_id(&self) -> Cow<'_, str> {
        Cow::Borrowed(&self.id)
    }

    fn record_due(&self) -> Option<Time> {
        Some(self.expires_at)
    }
}
