//! Proofs of possession and the task credential of a call. Each proof is taken once.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::sync::Arc;

use authz_kernel::decision::{Grant, Time};
use authz_kernel::hex::hex;
use authz_kernel::reason::ReasonCode;
use authz_kernel::task::{Credential, Proof, Record, RecordKey, RecordKind, Reservation};
use authz_state::Ticket;
use authz_state::store::{Commit, StoreError, Survives, Transaction};
use authz_token::{CredentialFacts, Facts, ProofFacts};

use crate::ask::{Ask, Refused, Step, Target};
use crate::engine::Engine;
use crate::keeper::{Keeper, Wait, refused};
use crate::world::Loaded;

/// The HTTP request that proofs of possession are of (RFC 9449 §4.2).
#[derive(Clone, Debug)]
pub(crate) struct ProvedRequest<'a> {
    method: &'a str,
    uri: Cow<'a, str>,
}

/// Reason why no proof can be of the request of a call.
pub(crate) type NoProvedRequest = &'static str;

impl<'a> ProvedRequest<'a> {
    /// A request to Authz.
    pub(crate) fn to_authz(uri: String) -> Self {
        Self { method: "POST", uri: Cow::Owned(uri) }
    }

    /// The request that a proxy asks about, at the system's own origin; or the request that an enforcer says it was sent.
    ///
    /// `system` is the system of the request, if it is known.
    ///
    /// # Errors
    /// No proof can be of the request.
    pub(crate) fn of(
        ask: &Ask<'a>,
        world: &Loaded,
        system: Option<&str>,
    ) -> Result<Self, NoProvedRequest> {
        match &ask.target {
            Target::Operation { .. } => match ask.sent {
                Some((method, uri)) => Ok(Self { method, uri: Cow::Borrowed(uri) }),
                None => Err("whoever asks does not say which HTTP request the proof is of"),
            },
            Target::Http { method, path, .. } => {
                let origin = system
                    .and_then(|system| world.plan.systems().get(system))
                    .map_or("", |system| system.origin.as_str());
                if origin.is_empty() {
                    return Err(
                        "the system has no `origin` in the catalog, so no proof can be of it",
                    );
                }
                let path = path.split(['?', '#']).next().unwrap_or_default();
                Ok(Self { method, uri: Cow::Owned(format!("{origin}{path}")) })
            }
        }
    }
}

/// The system of an operation's id.
pub(crate) fn system_of(operation: &str) -> Option<&str> {
    operation.split_once('.').map(|(system, _)| system)
}

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
) -> Result<PresentedCredential, Refused> {
    find_by(facts, now, &mut |key| keeper.peek(key, wait))
}

/// Finds the record of a presented credential in a transaction.
pub(crate) fn find_in(
    transaction: &mut dyn Transaction,
    facts: &CredentialFacts,
    now: Time,
) -> Result<PresentedCredential, Refused> {
    find_by(facts, now, &mut |key| transaction.get(key).map_err(|error| refused(&error)))
}

type ReadRecord<'a> = dyn FnMut(&RecordKey) -> Result<Option<Record>, Refused> + 'a;

fn find_by(
    facts: &CredentialFacts,
    now: Time,
    read: &mut ReadRecord<'_>,
) -> Result<PresentedCredential, Refused> {
    let refuse = |reason, what: &str| Err(Refused::new(reason, Step::Locate, what));
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

impl Engine {
    /// Refuses a task credential that was issued for another system than the operation's.
    pub(crate) fn check_audience(
        facts: &Facts,
        world: &Loaded,
        operation: &str,
    ) -> Result<(), Refused> {
        let Some(facts) = &facts.credential else { return Ok(()) };
        let audience = world
            .credentials
            .as_ref()
            .zip(system_of(operation))
            .map(|(settings, system)| settings.audience(system));
        if audience == Some(facts.audience.as_str()) {
            return Ok(());
        }
        Err(Refused::new(
            ReasonCode::WrongAudience,
            Step::Resolve,
            "the task credential is for another system",
        ))
    }

    /// Checks that the proofs of a call are of its request, and takes them: no later call may bring them again, whatever the
    /// outcome of this one.
    ///
    /// `is_dry` says that the call changes nothing, so its proofs are not taken.
    ///
    /// Returns the write that a permit must wait for, so that no crash makes the proofs usable again.
    pub(crate) fn take_proofs(
        &self,
        proofs: &[ProofFacts],
        now: Time,
        world: &Loaded,
        request: &Result<ProvedRequest<'_>, NoProvedRequest>,
        is_dry: bool,
        wait: Wait,
    ) -> Result<Option<Ticket>, Refused> {
        check_request(proofs, request)?;
        if is_dry {
            for proof in proofs {
                if self.keeper.peek(&key_of(proof), wait)?.is_some() {
                    return Err(replayed());
                }
            }
            return Ok(None);
        }
        self.take_proofs_once(proofs, world, now, wait)
    }

    /// Takes proofs without a look at their request; refuses those that were taken before.
    ///
    /// Returns the write that a permit must wait for, so that no crash makes the proofs usable again.
    pub(crate) fn take_proofs_once(
        &self,
        proofs: &[ProofFacts],
        world: &Loaded,
        now: Time,
        wait: Wait,
    ) -> Result<Option<Ticket>, Refused> {
        let locks: Vec<RecordKey> = proofs.iter().map(lock_of).collect();
        let mut outcome = Ok(());
        let mut work = |transaction: &mut dyn Transaction| {
            outcome = take_all(transaction, proofs, world, now, self.keeper.proof_slack_ms())?;
            Ok(true)
        };
        let commit = self.keeper.transact(&locks, Survives::Crash, wait, &mut work)?;
        outcome?;
        Ok(match commit {
            Commit::Done => None,
            Commit::Pending(ticket) => Some(ticket),
        })
    }
}

/// Refuses proofs of another request than the call's.
pub(crate) fn check_request(
    proofs: &[ProofFacts],
    request: &Result<ProvedRequest<'_>, NoProvedRequest>,
) -> Result<(), Refused> {
    let refuse = |what: &str| Err(Refused::new(ReasonCode::BadProof, Step::Resolve, what));
    match request {
        Err(why) => refuse(why),
        Ok(sent) if proofs.iter().all(|proof| proof.is_for(sent.method, &sent.uri)) => Ok(()),
        Ok(_) => refuse("the proof is of another HTTP request"),
    }
}

/// The record that is locked while a proof is taken.
pub(crate) fn lock_of(proof: &ProofFacts) -> RecordKey {
    RecordKey::new(RecordKind::Proof, &proof.jkt)
}

/// Takes proofs whose [locks](lock_of) are held. Where one was taken before, the others are taken nevertheless.
///
/// `slack_ms` is the time for which a proof is remembered after it has expired.
///
/// Returns the first refusal.
pub(crate) fn take_all(
    transaction: &mut dyn Transaction,
    proofs: &[ProofFacts],
    world: &Loaded,
    now: Time,
    slack_ms: i64,
) -> Result<Result<(), Refused>, StoreError> {
    let most = world.dpop().max_proofs_per_key;
    let mut outcome = Ok(());
    for proof in proofs {
        let taken = take(transaction, proof, most, now, slack_ms)?;
        outcome = outcome.and(taken);
    }
    Ok(outcome)
}

/// Takes one proof, unless it was taken before or its key has brought too many.
fn take(
    transaction: &mut dyn Transaction,
    proof: &ProofFacts,
    most: u32,
    now: Time,
    slack_ms: i64,
) -> Result<Result<(), Refused>, StoreError> {
    let key = key_of(proof);
    if transaction.get(&key)?.is_some() {
        return Ok(Err(replayed()));
    }
    let mut tally = match transaction.get(&lock_of(proof))? {
        Some(Record::Proof(tally)) => Arc::unwrap_or_clone(tally),
        _ => Proof::tally(&proof.jkt),
    };
    // A proof is valid until the end of its last second.
    let expires_at = Time(proof.expires_at.saturating_add(1).saturating_mul(1_000));
    if !tally.count(expires_at, now, most) {
        return Ok(Err(Refused::new(
            ReasonCode::Overloaded,
            Step::Resolve,
            "the key has brought more proofs than are remembered of one",
        )));
    }
    transaction.put(Record::Proof(Arc::new(tally)));
    let expires_at = Time(expires_at.0.saturating_add(slack_ms));
    let taken = Proof { id: key.id.to_string(), expires_at, counts: BTreeMap::new() };
    transaction.put(Record::Proof(Arc::new(taken)));
    Ok(Ok(()))
}

fn key_of(proof: &ProofFacts) -> RecordKey {
    RecordKey::new(RecordKind::Proof, format!("{}/{}", proof.jkt, hex(&proof.jti_digest)))
}

fn replayed() -> Refused {
    Refused::new(ReasonCode::Replayed, Step::Resolve, "the proof was brought before")
}
