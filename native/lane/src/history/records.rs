//! Reads records, and makes those that are not kept.

use std::sync::Arc;

use authz_kernel::decision::Time;
use authz_kernel::history::{Holder, Object, SessionHistory};
use authz_kernel::reason::ReasonCode;
use authz_kernel::task::{Party, Record, RecordKey, RecordKind, Session, Task};
use authz_state::store::{StoreError, Transaction};

use crate::refusal::{CallRefusal, Step};

/// Record of a party. If it is not kept, or its time is up, the record of a party without a past.
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

/// Record of an object. If it is not kept, or its time is up, the record of an object that nobody has written.
pub(super) fn written(record: Option<Record>, key: &RecordKey, now: Time) -> Arc<Object> {
    match record {
        Some(Record::Object(object)) if object.expires_at > now => object,
        _ => Arc::new(Object::new(key.id.to_string())),
    }
}

/// Record of the pair of a task's agent and subject.
pub(super) fn pair_of<E>(
    task: &Task,
    now: Time,
    read: impl FnOnce(&RecordKey) -> Result<Option<Record>, E>,
) -> Result<Option<Arc<Party>>, E> {
    let Some(key) = Holder::Pair.key(&task.chain()) else { return Ok(None) };
    Ok(Some(known_party(read(&key)?, &key, now)))
}

/// A party as the record of its holder.
pub(super) fn record_of(holder: Holder, party: Party) -> Record {
    let party = Arc::new(party);
    match holder {
        Holder::Subject => Record::Subject(party),
        Holder::Pair => Record::Pair(party),
        Holder::Session | Holder::Agent => Record::Agent(party),
    }
}

/// Session with an id.
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

/// Refusal of a call in a task whose session is no longer kept.
pub(crate) fn lost() -> CallRefusal {
    CallRefusal::new(
        ReasonCode::StateUnavailable,
        Step::Locate,
        "what the task's session did before is not kept any more",
    )
}
