//! Keys of records.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::record::RecordKind;

/// Key of a record.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RecordKey {
    /// Kind of the record.
    pub kind: RecordKind,
    /// Id within the kind.
    pub id: Arc<str>,
}

impl RecordKey {
    /// The key of a record.
    #[must_use]
    pub fn new(kind: RecordKind, id: impl AsRef<str>) -> Self {
        Self { kind, id: Arc::from(id.as_ref()) }
    }
}

/// Key of a record in the form in which other records store it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RecordName {
    /// Kind of the record.
    pub kind: RecordKind,
    /// Id within the kind.
    pub id: String,
}

impl RecordName {
    /// The key that is stored.
    #[must_use]
    pub fn key(&self) -> RecordKey {
        RecordKey::new(self.kind, &self.id)
    }
}

impl From<RecordKey> for RecordName {
    fn from(key: RecordKey) -> Self {
        Self { kind: key.kind, id: key.id.to_string() }
    }
}
