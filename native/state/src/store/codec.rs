//! How records are written: JSON, under a number for the kind and an id.

use std::sync::Arc;

use authz_base::record::{Record, RecordKey, RecordKind};

use super::StoreError;

/// Bytes that most records have at most.
pub(crate) const RECORD_BYTES: usize = 1024;

/// The number that stands for a kind on disk.
pub(crate) const fn number(kind: RecordKind) -> i16 {
    match kind {
        RecordKind::Session => 1,
        RecordKind::Agent => 2,
        RecordKind::Task => 3,
        RecordKind::Reservation => 4,
        RecordKind::Idempotency => 5,
        RecordKind::Revocation => 6,
        RecordKind::Credential => 7,
        RecordKind::Proof => 8,
        RecordKind::SigningKey => 9,
        RecordKind::Lease => 10,
        RecordKind::Subject => 11,
        RecordKind::Object => 12,
        RecordKind::TrustDomain => 20,
        RecordKind::Pair => 13,
    }
}

/// The kind that a number stands for.
pub(crate) const fn kind(number: i16) -> Option<RecordKind> {
    Some(match number {
        1 => RecordKind::Session,
        2 => RecordKind::Agent,
        3 => RecordKind::Task,
        4 => RecordKind::Reservation,
        5 => RecordKind::Idempotency,
        6 => RecordKind::Revocation,
        7 => RecordKind::Credential,
        8 => RecordKind::Proof,
        9 => RecordKind::SigningKey,
        10 => RecordKind::Lease,
        11 => RecordKind::Subject,
        12 => RecordKind::Object,
        20 => RecordKind::TrustDomain,
        13 => RecordKind::Pair,
        _ => return None,
    })
}

/// A record as it is written.
pub(crate) fn encode(record: &Record) -> Result<Vec<u8>, StoreError> {
    let mut bytes = Vec::with_capacity(RECORD_BYTES);
    write(&mut bytes, record)?;
    Ok(bytes)
}

/// Writes a record.
pub(crate) fn write(to: &mut Vec<u8>, record: &Record) -> Result<(), StoreError> {
    let written = match record {
        Record::Session(one) => serde_json::to_writer(to, one),
        Record::Task(one) => serde_json::to_writer(to, one),
        Record::Reservation(one) => serde_json::to_writer(to, one),
        Record::Idempotency(one) => serde_json::to_writer(to, one),
        Record::Revocation(one) => serde_json::to_writer(to, one),
        Record::Credential(one) => serde_json::to_writer(to, one),
        Record::Proof(one) => serde_json::to_writer(to, one),
        Record::SigningKey(one) => serde_json::to_writer(to, one),
        Record::Lease(one) => serde_json::to_writer(to, one),
        Record::Agent(one) | Record::Subject(one) | Record::Pair(one) => {
            serde_json::to_writer(to, one)
        }
        Record::Object(one) => serde_json::to_writer(to, one),
        Record::TrustDomain(one) => serde_json::to_writer(to, one),
    };
    written.map_err(|error| StoreError::Unavailable(format!("a record cannot be written: {error}")))
}

/// A record as it was written under `key`.
pub(crate) fn decode(key: &RecordKey, bytes: &[u8]) -> Result<Record, String> {
    let record = match key.kind {
        RecordKind::Session => {
            serde_json::from_slice(bytes).map(|one| Record::Session(Arc::new(one)))
        }
        RecordKind::Task => serde_json::from_slice(bytes).map(|one| Record::Task(Arc::new(one))),
        RecordKind::Reservation => {
            serde_json::from_slice(bytes).map(|one| Record::Reservation(Arc::new(one)))
        }
        RecordKind::Idempotency => {
            serde_json::from_slice(bytes).map(|one| Record::Idempotency(Arc::new(one)))
        }
        RecordKind::Revocation => {
            serde_json::from_slice(bytes).map(|one| Record::Revocation(Arc::new(one)))
        }
        RecordKind::Credential => {
            serde_json::from_slice(bytes).map(|one| Record::Credential(Arc::new(one)))
        }
        RecordKind::Proof => serde_json::from_slice(bytes).map(|one| Record::Proof(Arc::new(one))),
        RecordKind::SigningKey => {
            serde_json::from_slice(bytes).map(|one| Record::SigningKey(Arc::new(one)))
        }
        RecordKind::Lease => serde_json::from_slice(bytes).map(|one| Record::Lease(Arc::new(one))),
        RecordKind::Agent => serde_json::from_slice(bytes).map(|one| Record::Agent(Arc::new(one))),
        RecordKind::Subject => {
            serde_json::from_slice(bytes).map(|one| Record::Subject(Arc::new(one)))
        }
        RecordKind::Object => {
            serde_json::from_slice(bytes).map(|one| Record::Object(Arc::new(one)))
        }
        RecordKind::TrustDomain => {
            serde_json::from_slice(bytes).map(|one| Record::TrustDomain(Arc::new(one)))
        }
        RecordKind::Pair => serde_json::from_slice(bytes).map(|one| Record::Pair(Arc::new(one))),
    };
    let record = record.map_err(|error| {
        format!("{:?} `{}` cannot be read by this version: {error}", key.kind, key.id)
    })?;
    if record.key() != *key {
        return Err(format!("{:?} `{}` holds another record", key.kind, key.id));
    }
    Ok(record)
}
