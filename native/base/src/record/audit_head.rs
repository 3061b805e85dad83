//! Heads of the nodes' audit logs.

use std::borrow::Cow;
use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::record::StoredValue;
use crate::time::Time;

/// Time for which the head of a node that no longer writes is kept, in milliseconds.
const KEPT_MS: i64 = 30 * 24 * 60 * 60 * 1_000;

/// Newest head of a node's audit log, so that other nodes can tell later that records of that node are missing.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct AuditHead {
    /// Name of the node.
    pub id: String,
    /// Segment of the log that the head is about.
    pub segment: u64,
    /// Records of the segment that the head proves.
    pub count: u64,
    /// The head as the node signed it: JSON.
    pub head: String,
    /// Time at which the node stored it.
    pub at: Time,
    /// Members that this version does not know.
    #[serde(flatten)]
    pub rest: BTreeMap<String, serde_json::Value>,
}

impl StoredValue for AuditHead {
    fn record_id(&self) -> Cow<'_, str> {
        Cow::Borrowed(&self.id)
    }

    fn record_due(&self) -> Option<Time> {
        Some(Time(self.at.0.saturating_add(KEPT_MS)))
    }
}
