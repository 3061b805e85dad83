//! Idempotency keys of enforcers: the same request under the same key gets the same answer.

use std::sync::Arc;

use authz_kernel::decision::{Given, Time};
use authz_kernel::hex::hex;
use authz_kernel::reason::ReasonCode;
use authz_kernel::task::{Idempotency, Record, RecordKey, RecordKind, Reservation};
use authz_state::store::{StoreError, Survives, Transaction};
use prost::Message;
use sha2::{Digest, Sha256};

use crate::answer;
use crate::ending::after;
use crate::engine::Engine;
use crate::judgement::{Judgement, name_of};
use crate::keeper::ChangeError;
use crate::proto::authz::v1 as wire;
use crate::refusal::{CallRefusal, Step};
use crate::speaker;
use crate::steps::judge::PolicyQuery;
use crate::steps::record::{ChangeContext, KeptRecord};
use crate::steps::settle::survives;

/// Time for which an idempotency key is remembered, in milliseconds.
const KEY_MS: u64 = 120_000;

/// Idempotency key of an enforcer: the enforcer executes once for each key.
pub(crate) struct EnforcerKey {
    pub(super) id: String,
    digest: String,
}

impl EnforcerKey {
    pub(super) fn record(&self) -> RecordKey {
        RecordKey::new(RecordKind::Idempotency, &self.id)
    }

    fn check(&self, known: &Idempotency) -> Result<(), CallRefusal> {
        if known.digest == self.digest {
            return Ok(());
        }
        Err(CallRefusal::new(
            ReasonCode::IdempotencyConflict,
            Step::Record,
            "the key was used for another request",
        ))
    }

    /// Refuses a key that another call used meanwhile. The next call with it gets that call's answer.
    pub(super) fn refuse_known(
        &self,
        transaction: &mut dyn Transaction,
        now: Time,
    ) -> Result<(), ChangeError> {
        match transaction.get(&self.record())? {
            Some(Record::Idempotency(known)) if known.expires_at > now => {
                self.check(&known)?;
                Err(ChangeError::Refused(met()))
            }
            _ => Ok(()),
        }
    }

    pub(super) fn keep(&self, transaction: &mut dyn Transaction, judgement: &Judgement, now: Time) {
        transaction.put(Record::Idempotency(Arc::new(Idempotency {
            id: self.id.clone(),
            digest: self.digest.clone(),
            answer: answer::decision(judgement).encode_to_vec(),
            expires_at: after(now, KEY_MS),
        })));
    }
}

impl Engine {
    /// Reads the idempotency key of a call. Only an enforcer may give one: an agent must not choose which answer is repeated.
    pub(super) fn key_of(
        &self,
        judgement: &Judgement,
        key: &str,
        judging: &PolicyQuery<'_>,
        task: Option<&str>,
    ) -> Result<Option<EnforcerKey>, CallRefusal> {
        if key.is_empty() {
            return Ok(None);
        }
        let Some(enforcer) = &judgement.arrival.asker.enforcer else {
            return Err(CallRefusal::input("only an enforcer gives an `idempotency_key`"));
        };
        let mut hash = Sha256::new();
        let mut add = |part: &str| {
            hash.update((part.len() as u64).to_be_bytes());
            hash.update(part);
        };
        add(&enforcer.name);
        // The chain names subject and assignee: no caller gets the answer of another one.
        add(&judgement.caller.chain.len().to_string());
        for principal in &judgement.caller.chain {
            add(&name_of(principal));
        }
        // A token that an agent may hold does not get the answer of the subject alone.
        add(if speaker::alone(&judgement.caller.facts).is_some() { "alone" } else { "" });
        add(key);
        let id = format!("check/{}", hex(&hash.finalize()));
        let request = judging.request;
        let mut digest = Sha256::new();
        let mut add = |part: &[u8]| {
            digest.update((part.len() as u64).to_be_bytes());
            digest.update(part);
        };
        add(task.unwrap_or_default().as_bytes());
        let credential = judgement.caller.facts.credential.as_ref();
        add(credential.map_or("", |credential| credential.jti.as_str()).as_bytes());
        add(request.operation.as_bytes());
        match judgement.evaluated().and_then(|decision| decision.arguments_digest) {
            Some(canonical) => add(&canonical),
            None => match request.arguments {
                Given::Json(bytes) => add(bytes),
                Given::Read(value) => {
                    let mut text = String::new();
                    value.write(&mut text);
                    add(text.as_bytes());
                }
            },
        }
        add(request.resource.unwrap_or_default().as_bytes());
        // The length comes first, so that no destination can be taken for a label.
        for texts in [request.destinations, request.labels, request.supported_obligations] {
            add(&(texts.len() as u64).to_be_bytes());
            texts.iter().for_each(|text| add(text.as_bytes()));
        }
        add(judgement.context.recalled.context().as_bytes());
        add(&[u8::from(judging.wants_credential)]);
        Ok(Some(EnforcerKey { id, digest: hex(&digest.finalize()) }))
    }

    /// Keeps the answer of a permit without a task under its key.
    pub(super) fn keep_key(
        &self,
        judgement: &mut Judgement,
        call: &ChangeContext<'_>,
        key: Option<&EnforcerKey>,
    ) -> Result<Option<KeptRecord>, CallRefusal> {
        let Some(key) = key else { return Ok(None) };
        let now = judgement.arrival.now();
        let locks = [key.record()];
        self.change(judgement, call, &locks, survives(judgement), &mut |transaction, judgement| {
            key.refuse_known(transaction, now)?;
            key.keep(transaction, judgement, now);
            Ok(())
        })
    }

    /// Repeats the answer that the same request got under the same key. `None`: there is no earlier answer.
    pub(super) fn repeated(
        &self,
        judgement: &mut Judgement,
        call: &ChangeContext<'_>,
        key: &EnforcerKey,
    ) -> Result<Option<KeptRecord>, CallRefusal> {
        let now = judgement.arrival.now();
        let Some(Record::Idempotency(known)) = self.keeper.peek(&key.record(), call.wait)? else {
            return self.admit_key(judgement);
        };
        if known.expires_at <= now {
            return self.admit_key(judgement);
        }
        key.check(&known)?;
        // Read within a transaction, so that the answer is durable before it is repeated.
        let locks = [key.record()];
        self.change(judgement, call, &locks, Survives::Crash, &mut |transaction, judgement| {
            let known = match transaction.get(&key.record())? {
                Some(Record::Idempotency(known)) if known.expires_at > now => known,
                _ => return Err(ChangeError::Refused(met())),
            };
            key.check(&known)?;
            let decision = wire::Decision::decode(known.answer.as_slice())
                .map_err(|_| ChangeError::Refused(met()))?;
            judgement.repeat(&decision.decision_id, &known.answer);
            Ok(())
        })
    }

    /// Counts a new key against the rate of its enforcer.
    pub(super) fn admit_key(
        &self,
        judgement: &Judgement,
    ) -> Result<Option<KeptRecord>, CallRefusal> {
        if self.keys.admit(judgement.arrival.asker.name(), self.clock.monotonic()) {
            return Ok(None);
        }
        Err(CallRefusal::new(
            ReasonCode::Overloaded,
            Step::Record,
            "the enforcer uses more idempotency keys than it may",
        ))
    }
}

/// Forgets the answer of a permit that was not performed: the same key is then judged anew.
///
/// INVARIANT (charged as often as performed): an answer whose charge was given back is not repeated.
pub(crate) fn forget_answer(
    transaction: &mut dyn Transaction,
    permit: &Reservation,
) -> Result<(), StoreError> {
    let Some(id) = &permit.idempotency else { return Ok(()) };
    let key = RecordKey::new(RecordKind::Idempotency, id);
    let Some(Record::Idempotency(known)) = transaction.get(&key)? else { return Ok(()) };
    // The key may have been used again since.
    let is_its = wire::Decision::decode(known.answer.as_slice())
        .is_ok_and(|decision| decision.decision_id == permit.decision_id);
    if is_its {
        transaction.delete(key);
    }
    Ok(())
}

/// Refusal of a call whose key another call used at the same time.
pub(super) fn met() -> CallRefusal {
    CallRefusal::new(
        ReasonCode::Unavailable,
        Step::Record,
        "another call with the same key was answered meanwhile; ask again",
    )
}
