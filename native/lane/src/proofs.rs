//! Proofs of possession (RFC 9449): each is of the call's HTTP request, and is taken once.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use authz_kernel::decision::Time;
use authz_kernel::hex::hex;
use authz_kernel::reason::ReasonCode;
use authz_kernel::task::{Proof, Record, RecordKey, RecordKind};
use authz_state::Ticket;
use authz_state::store::{Commit, StoreError, Survives, Transaction};
use authz_token::ProofFacts;

use crate::engine::Engine;
use crate::keeper::Wait;
use crate::refusal::{CallRefusal, Step};
use crate::request::{CallRequest, RequestTarget};
use crate::world::Loaded;

/// The HTTP request that proofs of possession are of (RFC 9449 §4.2).
#[derive(Clone, Debug)]
pub(crate) struct ProvedRequest<'a> {
    method: &'a str,
    uri: Cow<'a, str>,
}

/// Reason why no proof can be of the request of a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum NoProvedRequest {
    /// The enforcer does not say which HTTP request it was sent.
    Unstated,
    /// The catalog does not have the origin of the system.
    NoOrigin,
    /// The configuration does not have the URL of Authz.
    NoUrl,
}

impl fmt::Display for NoProvedRequest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Unstated => "whoever asks does not say which HTTP request the proof is of",
            Self::NoOrigin => "the system has no `origin` in the catalog, so no proof can be of it",
            Self::NoUrl => "a proof is of our own URL, and none is configured",
        })
    }
}

impl std::error::Error for NoProvedRequest {}

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
        ask: &CallRequest<'a>,
        world: &Loaded,
        system: Option<&str>,
    ) -> Result<Self, NoProvedRequest> {
        match &ask.target {
            RequestTarget::Operation { .. } => match ask.sent {
                Some((method, uri)) => Ok(Self { method, uri: Cow::Borrowed(uri) }),
                None => Err(NoProvedRequest::Unstated),
            },
            RequestTarget::Http { method, path, .. } => {
                let origin = system
                    .and_then(|system| world.plan.systems().get(system))
                    .map_or("", |system| system.origin.as_str());
                if origin.is_empty() {
                    return Err(NoProvedRequest::NoOrigin);
                }
                let path = path.split(['?', '#']).next().unwrap_or_default();
                Ok(Self { method, uri: Cow::Owned(format!("{origin}{path}")) })
            }
        }
    }
}

impl Engine {
    /// Checks that the proofs of a call are of its request, and takes them: no later call may bring them again, also if this
    /// call is refused.
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
    ) -> Result<Option<Ticket>, CallRefusal> {
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
    ) -> Result<Option<Ticket>, CallRefusal> {
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
) -> Result<(), CallRefusal> {
    let refuse = |what: &str| Err(CallRefusal::new(ReasonCode::BadProof, Step::Resolve, what));
    match request {
        Err(error) => refuse(&error.to_string()),
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
) -> Result<Result<(), CallRefusal>, StoreError> {
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
) -> Result<Result<(), CallRefusal>, StoreError> {
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
        return Ok(Err(CallRefusal::new(
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

fn replayed() -> CallRefusal {
    CallRefusal::new(ReasonCode::Replayed, Step::Resolve, "the proof was brought before")
}
