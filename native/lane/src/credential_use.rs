//! The task credential that a call presents.

use std::sync::Arc;

use authz_kernel::decision::{Grant, Time};
use authz_kernel::reason::ReasonCode;
use authz_kernel::task::{Credential, Record, RecordKey, RecordKind, Reservation};
use authz_state::store::Transaction;
use authz_token::{CredentialFacts, VerifiedFacts};

use crate::keeper::{Keeper, Wait, refused};
use crate::refusal::{CallRefusal, Step};
use crate::request::system_of;
use crate::world::Loaded;

/// A presented task credential with its record.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct PresentedCredential {
    credential: Arc<Credential>,
    /// Reservation of each detail; none if it is no longer kept.
    reservations: Vec<Option<Arc<Reservation>>>,
}

impl PresentedCredential {
    /// The operations that the credential permits.
    pub(crate) fn grants(&self) -> Vec<Grant<'_>> {
        let both = self.credential.details.iter().zip(&self.reservations);
        both.map(|(detail, reservation)| Grant {
            operation: &detail.operation,
            resource: detail.resource.as_deref(),
            arguments_digest: detail.arguments_digest.as_deref(),
            destinations: &detail.destinations,
            // INVARIANT (once): a detail without a reservation is not permitted again.
            is_redeemed: reservation.as_ref().is_none_or(|reservation| reservation.redeemed),
            charged: reservation.as_ref().map_or(&[], |reservation| &reservation.charged),
        })
        .collect()
    }

    /// The task that the credential was issued for.
    pub(crate) fn task(&self) -> &str {
        &self.credential.task
    }

    /// Id of the decision that a detail was issued of.
    pub(crate) fn decision_id(&self, detail: usize) -> Option<&str> {
        self.credential.details.get(detail).map(|detail| detail.decision_id.as_str())
    }

    /// Reservation of a detail, if it is kept.
    pub(crate) fn reservation(&self, detail: usize) -> Option<&Reservation> {
        self.reservations.get(detail)?.as_deref()
    }
}

/// Finds the record of a presented credential in this node's view of the store.
pub(crate) fn find(
    keeper: &Keeper,
    facts: &CredentialFacts,
    now: Time,
    wait: Wait,
) -> Result<PresentedCredential, CallRefusal> {
    find_by(facts, now, &mut |key| keeper.peek(key, wait))
}

/// Finds the record of a presented credential in a transaction.
pub(crate) fn find_in(
    transaction: &mut dyn Transaction,
    facts: &CredentialFacts,
    now: Time,
) -> Result<PresentedCredential, CallRefusal> {
    find_by(facts, now, &mut |key| transaction.get(key).map_err(|error| refused(&error)))
}

type ReadRecord<'a> = dyn FnMut(&RecordKey) -> Result<Option<Record>, CallRefusal> + 'a;

fn find_by(
    facts: &CredentialFacts,
    now: Time,
    read: &mut ReadRecord<'_>,
) -> Result<PresentedCredential, CallRefusal> {
    let refuse = |reason, what: &str| Err(CallRefusal::new(reason, Step::Locate, what));
    let key = RecordKey::new(RecordKind::Credential, &facts.jti);
    let Some(Record::Credential(credential)) = read(&key)? else {
        return refuse(ReasonCode::Revoked, "the task credential is no longer kept");
    };
    if !is_of_record(facts, &credential) {
        return refuse(
            ReasonCode::BadCredential,
            "the task credential is not the one of its record",
        );
    }
    if credential.revoked_at.is_some() {
        return refuse(ReasonCode::Revoked, "the task credential is revoked");
    }
    if credential.is_over(now) {
        return refuse(ReasonCode::ExpiredCredential, "the task credential has ended");
    }
    let mut reservations = Vec::with_capacity(credential.details.len());
    for detail in &credential.details {
        let key = RecordKey::new(RecordKind::Reservation, &detail.decision_id);
        reservations.push(match read(&key)? {
            Some(Record::Reservation(one))
                if one.credential.as_deref() == Some(facts.jti.as_str()) =>
            {
                Some(one)
            }
            _ => None,
        });
    }
    Ok(PresentedCredential { credential, reservations })
}

/// Whether the claims of a token are those of a record.
pub(crate) fn is_of_record(facts: &CredentialFacts, credential: &Credential) -> bool {
    let binding = credential.binding.as_ref().map(|known| (known.member(), known.value()));
    let proved = facts.binding.map(|binding| (binding.method(), binding.text()));
    credential.jti == facts.jti
        && credential.task == facts.task
        && credential.agent == facts.agent
        && credential.audience == facts.audience
        && binding == proved.as_ref().map(|(member, value)| (*member, value.as_str()))
}

/// Refuses a task credential that was issued for another system than the operation's.
pub(crate) fn check_audience(
    facts: &VerifiedFacts,
    world: &Loaded,
    operation: &str,
) -> Result<(), CallRefusal> {
    let Some(facts) = &facts.credential else { return Ok(()) };
    let audience = world
        .credentials
        .as_ref()
        .zip(system_of(operation))
        .map(|(settings, system)| settings.audience(system));
    if audience == Some(facts.audience.as_str()) {
        return Ok(());
    }
    Err(CallRefusal::new(
        ReasonCode::WrongAudience,
        Step::Resolve,
        "the task credential is for another system",
    ))
}
