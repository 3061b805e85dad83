//! How records are written: JSON, under a number for the kind and an id.

use authz_base::record::{Record, RecordKey};

use super::StoreError;

/// Bytes that most records have at most.
pub(crate) const RECORD_BYTES: usize = 1024;

/// A record as it is written.
pub(crate) fn encode(record: &Record) -> Result<Vec<u8>, StoreError> {
    let mut bytes = Vec::with_capacity(RECORD_BYTES);
    write(&mut bytes, record)?;
    Ok(bytes)
}

/// Writes a record.
pub(crate) fn write(to: &mut Vec<u8>, record: &Record) -> Result<(), StoreError> {
    record
        .write_json(to)
        .map_err(|error| StoreError::Unavailable(format!("a record cannot be written: {error}")))
}

/// A record as it was written under `key`.
pub(crate) fn decode(key: &RecordKey, bytes: &[u8]) -> Result<Record, String> {
    let record = Record::from_json(key.kind, bytes).map_err(|error| {
        format!("{:?} `{}` cannot be read by this version: {error}", key.kind, key.id)
    })?;
    if record.key() != *key {
        return Err(format!("{:?} `{}` holds another record", key.kind, key.id));
    }
    Ok(record)
}
