//! The one entry point.

use std::sync::Arc;

use sha2::{Digest as _, Sha256};

use crate::cache::{CacheKey, TokenCache, Verified};
use crate::dpop::Presentation;
use crate::facts::{Evidence, Facts, Role, Scheme, UnixTime};
use crate::jws::{Header, Parts};
use crate::refusal::{Refusal, RefusalReason};
use crate::trust::TrustStore;
use crate::{agent, subject};

/// Verifies evidence: at most one agent's and one subject's credential, at least one in all.
///
/// Args: `evidence`: the credentials as received; `presentation`: how the call came; `trust`: what is
/// trusted; `cache`: tokens verified before, which changes no answer; `now`: the time.
/// Returns: who is calling, and for whom.
/// Errors: the first refusal in the order of `evidence`. Two credentials of one role are
/// [`RefusalReason::BadCredential`]; a scheme with a proof, or a proof beside a bearer token, is
/// [`RefusalReason::BadProof`]; a token with `cnf` is [`RefusalReason::UnboundCredential`]; for the
/// rest see [`RefusalReason`]. Last, a subject token whose `may_act` (RFC 8693 §4.4) is not the agent
/// beside it is [`RefusalReason::BadCredential`]; where no agent is, the claim does not apply.
pub fn verify(
    evidence: &[Evidence<'_>],
    _presentation: &Presentation<'_>,
    trust: &TrustStore,
    cache: &TokenCache,
    now: UnixTime,
) -> Result<Facts, Refusal> {
    if evidence.is_empty() {
        return Err(Refusal::new(RefusalReason::NoCredential, "no credential was presented"));
    }
    for role in [Role::Agent, Role::Subject] {
        if evidence.iter().filter(|evidence| evidence.role == role).nth(1).is_some() {
            return Err(Refusal::bad("more than one credential of this role").of(role));
        }
    }
    let mut facts = Facts::default();
    for evidence in evidence {
        let verified =
            verify_one(evidence, trust, cache, now).map_err(|refusal| refusal.of(evidence.role))?;
        match verified {
            Verified::Agent(agent) => facts.agent = Some(agent),
            Verified::Subject(subject) => facts.subject = Some(subject),
        }
    }
    if let (Some(subject), Some(agent)) = (&facts.subject, &facts.agent) {
        subject::check_actor(subject, agent).map_err(|refusal| refusal.of(Role::Subject))?;
    }
    Ok(facts)
}

fn verify_one(
    evidence: &Evidence<'_>,
    trust: &TrustStore,
    cache: &TokenCache,
    now: UnixTime,
) -> Result<Verified, Refusal> {
    let bad_proof = |detail: &str| Refusal::new(RefusalReason::BadProof, detail);
    match (evidence.scheme, evidence.proof) {
        (Scheme::Bearer, None) => {}
        (Scheme::Bearer, Some(_)) => {
            return Err(bad_proof(
                "a proof came with a bearer token; proofs are not in this version",
            ));
        }
        (Scheme::Dpop | Scheme::Wpt, _) => {
            return Err(bad_proof("the scheme needs a proof; proofs are not in this version"));
        }
        (Scheme::Other, _) => return Err(Refusal::bad("the scheme is not known")),
    }
    let parts = Parts::split(evidence.token, trust.max_token_bytes())?;
    let key = CacheKey::new(trust.revision_bytes(), evidence.role, evidence.token);
    if let Some((verified, times)) = cache.0.find(&key) {
        times.check(trust.time_limits(), now)?;
        return Ok(verified);
    }
    let header = Header::read(&parts)?;
    cache.0.missed();
    let digest = Sha256::digest(evidence.token).into();
    let (verified, times) = match evidence.role {
        Role::Agent => {
            let (facts, times) = agent::verify(&header, &parts, digest, trust)?;
            (Verified::Agent(Arc::new(facts)), times)
        }
        Role::Subject => {
            let (facts, times) = subject::verify(&header, &parts, digest, trust)?;
            (Verified::Subject(Arc::new(facts)), times)
        }
    };
    times.check(trust.time_limits(), now)?;
    cache.0.insert(key, (verified.clone(), times));
    Ok(verified)
}
