//! Stored form of records: JSON, under a number for the kind and an id.

use authz_base::record::{Record, RecordKey, RecordKind};
use thiserror::Error;

use super::{StoreError, StoreFault};

/// Usual size of a record in bytes.
pub(crate) const RECORD_BYTES: usize = 1024;

/// Encodes a record.
pub(crate) fn encode(record: &Record) -> Result<Vec<u8>, StoreError> {
    let mut bytes = Vec::with_capacity(RECORD_BYTES);
    write(&mut bytes, record)?;
    Ok(bytes)
}

/// Writes a record.
pub(crate) fn write(to: &mut Vec<u8>, record: &Record) -> Result<(), StoreError> {
    record.write_json(to).map_err(|error| {
        let reason = format!("a record cannot be written: {error}");
        StoreError::Unavailable(StoreFault::caused_by(reason, error))
    })
}

/// Stored bytes that are not the record of their key.
#[derive(Debug, Error)]
pub(crate) enum RecordError {
    #[error("{kind:?} `{id}` cannot be read by this version: {source}")]
    Form { kind: RecordKind, id: String, source: serde_json::Error },
    #[error("{kind:?} `{id}` holds another record")]
    OtherRecord { kind: RecordKind, id: String },
    #[error("record `{id}` is of kind {number}, which is unknown")]
    UnknownKind { number: i16, id: String },
}

impl From<RecordError> for StoreError {
    fn from(error: RecordError) -> Self {
        Self::Unavailable(StoreFault::caused_by(error.to_string(), error))
    }
}

/// Key of a stored record.
pub(crate) fn stored_key(number: i16, id: String) -> Result<RecordKey, RecordError> {
    match RecordKind::from_number(number) {
        Some(kind) => Ok(RecordKey::new(kind, id)),
        None => Err(RecordError::UnknownKind { number, id }),
    }
}

/// Reads the record of `key`.
pub(crate) fn decode(key: &RecordKey, bytes: &[u8]) -> Result<Record, RecordError> {
    let (kind, id) = (key.kind, || key.id.to_string());
    let record = Record::from_json(kind, bytes).map_err(|source| RecordError::Form {
        kind,
        id: id(),
        source,
    })?;
    if record.key() != *key {
        return Err(RecordError::OtherRecord { kind, id: id() });
    }
    Ok(record)
}
