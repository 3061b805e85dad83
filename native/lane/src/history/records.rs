//! Reads records, and makes those that are not kept.

use std::sync::Arc;

use authz_kernel::decision::Time;
use authz_kernel::history::{Holder, Object, SessionHistory};
use authz_kernel::reason::ReasonCode;
use authz_kernel::task::{Party, Record, RecordKey, RecordKind, Session, Task};
use authz_state::store::{StoreError, Transaction};

use crate::ask::{Refused, Step};

/// What is known of a party: nothing, where its record is not there, or its time is up.
pub(crate) fn known_party(record: Option<Record>, key: &RecordKey, now: Time) -> Arc<Party> {
    match record {
        Some(Record::Agent(party) | Record::Subject(party) | Record::Pair(party))
            if party.expires_at > now =>
        {
            party
        }
        _ => Arc::new(Party {
            id: key.id.to_string(),
            history: SessionHistory::new(),
            denied_at: None,
            ended_before: None,
            tasks: Default::default(),
            shared: Default::default(),
            acted_at: None,
            expires_at: now,
            rest: Default::default(),
        }),
    }
}

/// What is known of something that was written: nothing, where its record is not there, or its time is up.
pub(super) fn written(record: Option<Record>, key: &RecordKey, now: Time) -> Arc<Object> {
    match record {
        Some(Record::Object(object)) if object.expires_at > now => object,
        _ => Arc::new(Object::new(key.id.to_string())),
    }
}

/// The record of the pair of a task's agent and subject.
pub(super) fn pair_of<E>(
    task: &Task,
    now: Time,
    read: impl FnOnce(&RecordKey) -> Result<Option<Record>, E>,
) -> Result<Option<Arc<Party>>, E> {
    let Some(key) = Holder::Pair.key(&task.chain()) else { return Ok(None) };
    Ok(Some(known_party(read(&key)?, &key, now)))
}

/// The record of a party.
pub(super) fn record_of(holder: Holder, party: Party) -> Record {
    let party = Arc::new(party);
    match holder {
        Holder::Subject => Record::Subject(party),
        Holder::Pair => Record::Pair(party),
        Holder::Session | Holder::Agent => Record::Agent(party),
    }
}

/// The session of that id.
pub(crate) fn session(
    transaction: &mut dyn Transaction,
    id: &str,
) -> Result<Option<Arc<Session>>, StoreError> {
    match transaction.get(&key(id))? {
        Some(Record::Session(session)) => Ok(Some(session)),
        _ => Ok(None),
    }
}

pub(super) fn key(session: &str) -> RecordKey {
    RecordKey::new(RecordKind::Session, session)
}

/// The session of a task is gone.
pub(crate) fn lost() -> Refused {
    Refused::new(
        ReasonCode::StateUnavailable,
        Step::Locate,
        "what the task's session did before is not kept any more",
    )
}
