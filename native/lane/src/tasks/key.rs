//! Idempotency keys of callers that start or delegate tasks: the same request under the same key gets the same task.

use std::sync::Arc;

use authz_kernel::decision::Time;
use authz_kernel::hex::hex;
use authz_kernel::reason::ReasonCode;
use authz_kernel::task::{Idempotency, Record, RecordKey, RecordKind, Task, TaskSubject};
use authz_state::store::Transaction;
use sha2::{Digest, Sha256};

use crate::api_call::ApiCaller;
use crate::ending::after;
use crate::keeper::ChangeError;
use crate::locate;
use crate::refusal::{CallRefusal, Step};
use crate::speaker;

/// Time for which a key is remembered, in milliseconds: an hour.
const KEY_MS: u64 = 60 * 60 * 1_000;

/// Parties of a keyed request.
///
/// Credentials are not part of the digest of a request, so its parties are part of its key. A task that was started for one
/// subject is never the answer to a request for another, nor a task that an agent started by a subject's token the answer to
/// the subject itself.
pub(super) struct KeyParties<'a> {
    pub(super) caller: &'a str,
    /// Subject of the task. Default: the first agent acts for itself.
    pub(super) subject: Option<&'a TaskSubject>,
    pub(super) assignee: &'a str,
}

/// Idempotency key of a caller that starts or delegates a task.
pub(super) struct TaskKey {
    id: String,
    digest: String,
}

impl TaskKey {
    /// The key of a request; none if the caller gave none.
    pub(super) fn of(
        method: &str,
        key: &str,
        caller: &ApiCaller<'_>,
        parties: &KeyParties<'_>,
        request: &[u8],
    ) -> Option<Self> {
        if key.is_empty() {
            return None;
        }
        let kind = match parties.subject {
            None => "itself",
            Some(subject) if subject.is_service => "service",
            Some(_) => "user",
        };
        let (issuer, sub) =
            parties.subject.map_or(("", ""), |subject| (&*subject.issuer, &*subject.sub));
        let mut hash = Sha256::new();
        let [proved, speaker, front_end] =
            speaker::proof_of(caller.asker(), caller.facts(), &caller.world);
        let caller = [parties.caller, proved, speaker, front_end];
        for part in caller.into_iter().chain([kind, issuer, sub, parties.assignee, key]) {
            hash.update((part.len() as u64).to_be_bytes());
            hash.update(part);
        }
        let id = format!("{method}/{}", hex(&hash.finalize()));
        Some(Self { id, digest: hex(&Sha256::digest(request)) })
    }

    pub(super) fn record(&self) -> RecordKey {
        RecordKey::new(RecordKind::Idempotency, &self.id)
    }

    /// The task that the same request got earlier.
    ///
    /// # Errors
    /// The key was used for another request (IDEMPOTENCY_CONFLICT).
    pub(super) fn find_task(
        &self,
        transaction: &mut dyn Transaction,
        now: Time,
    ) -> Result<Option<Arc<Task>>, ChangeError> {
        let Some(Record::Idempotency(known)) = transaction.get(&self.record())? else {
            return Ok(None);
        };
        if known.expires_at <= now {
            return Ok(None);
        }
        if known.digest != self.digest {
            return Err(ChangeError::Refused(CallRefusal::new(
                ReasonCode::IdempotencyConflict,
                Step::Record,
                "the key was used for another request",
            )));
        }
        let id = String::from_utf8_lossy(&known.answer).into_owned();
        Ok(Some(locate::find_in(transaction, &id)?.task))
    }

    pub(super) fn keep(&self, transaction: &mut dyn Transaction, task: &Task, now: Time) {
        transaction.put(Record::Idempotency(Arc::new(Idempotency {
            id: self.id.clone(),
            digest: self.digest.clone(),
            answer: task.id.clone().into_bytes(),
            expires_at: after(now, KEY_MS),
        })));
    }
}
