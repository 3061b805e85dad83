//! Verification of all evidence of a call.

use std::sync::Arc;

use sha2::{Digest as _, Sha256};

use crate::binding::{self, Presentation};
use crate::cache::{CacheKey, CachedToken, TokenCache, VerifiedToken};
use crate::evidence::{Evidence, Role, Scheme};
use crate::facts::{CredentialFacts, ProofFacts, UnixTime, VerifiedFacts};
use crate::jws::{JwsHeader, JwsParts, check_length};
use crate::refusal::{Refusal, RefusalReason};
use crate::trust::TrustStore;
use crate::{agent, credential, subject};

/// Verifies evidence: at most one agent's SVID, one task credential and one subject token, at least
/// one in all. A task credential alone proves its agent too.
///
/// `cache` changes no answer. The caller of this function checks that each proof was made for the request and
/// was not used before, and that a task credential is still active and meant for the request's audience.
///
/// # Errors
/// The first refusal in the order of `evidence`. Two credentials of one kind, or an SVID and a
/// task credential of two agents, are [`RefusalReason::BadCredential`]; a proof that is not accepted,
/// or does not belong to its credential, and a scheme without its proof are [`RefusalReason::BadProof`] or
/// [`RefusalReason::UseNonce`]; a token with `cnf` whose key was not proved is
/// [`RefusalReason::UnboundCredential`]; for other refusals see [`RefusalReason`]. Last, a subject token
/// whose `may_act` (RFC 8693 §4.4) does not name the agent beside it is [`RefusalReason::BadCredential`];
/// without an agent, the claim does not apply.
pub fn verify(
    evidence: &[Evidence<'_>],
    presentation: &Presentation<'_>,
    trust: &TrustStore,
    cache: &TokenCache,
    now: UnixTime,
) -> Result<VerifiedFacts, Refusal> {
    if evidence.is_empty() {
        return Err(Refusal::new(RefusalReason::NoCredential, "no credential was presented"));
    }
    for (role, most) in [(Role::Agent, 2), (Role::Subject, 1)] {
        if evidence.iter().filter(|evidence| evidence.role == role).count() > most {
            return Err(repeated_credential().of(role));
        }
    }
    let mut facts = VerifiedFacts::default();
    let mut credential_agent = None;
    for evidence in evidence {
        let (verified, proof) = verify_one(evidence, presentation, trust, cache, now)
            .map_err(|refusal| refusal.of(evidence.role))?;
        let is_second = match verified {
            VerifiedToken::Agent(agent) => facts.agent.replace(agent).is_some(),
            VerifiedToken::Subject(subject) => facts.subject.replace(subject).is_some(),
            VerifiedToken::Credential(credential, agent) => {
                credential_agent = Some(agent);
                facts.credential.replace(credential).is_some()
            }
        };
        if is_second {
            return Err(repeated_credential().of(evidence.role));
        }
        facts.proofs.extend(proof);
    }
    if let Some(agent) = credential_agent {
        let presented = facts.agent.get_or_insert_with(|| Arc::clone(&agent));
        if presented.spiffe_id != agent.spiffe_id {
            return Err(Refusal::others_credential());
        }
    }
    if let (Some(subject), Some(agent)) = (&facts.subject, &facts.agent) {
        subject.check_actor(agent).map_err(|refusal| refusal.of(Role::Subject))?;
    }
    Ok(facts)
}

fn repeated_credential() -> Refusal {
    Refusal::bad("more than one credential of this role")
}

fn verify_one(
    evidence: &Evidence<'_>,
    presentation: &Presentation<'_>,
    trust: &TrustStore,
    cache: &TokenCache,
    now: UnixTime,
) -> Result<(VerifiedToken, Option<ProofFacts>), Refusal> {
    binding::check_scheme(evidence)?;
    let cached = find_or_verify(evidence, trust, cache, now)?;
    let proof = binding::check(evidence, cached.binding, &cached.token_digest, presentation, now)?;
    Ok((cached.verified, proof))
}

/// Verifies a task credential of ours that a caller asks about. The caller does not present it as its own, so its
/// key need not be proved.
///
/// The caller of this function checks in the credential's record that it is still active.
///
/// # Errors
/// Those of [`verify`]; any other token is [`RefusalReason::BadCredential`].
pub fn verify_credential(
    token: &str,
    trust: &TrustStore,
    cache: &TokenCache,
    now: UnixTime,
) -> Result<Arc<CredentialFacts>, Refusal> {
    let evidence = Evidence { role: Role::Agent, scheme: Scheme::Bearer, token, proof: None };
    match find_or_verify(&evidence, trust, cache, now)?.verified {
        VerifiedToken::Credential(credential, _) => Ok(credential),
        VerifiedToken::Agent(_) | VerifiedToken::Subject(_) => {
            Err(Refusal::bad("the token is no task credential"))
        }
    }
}

/// Verifies a token, except the key to which it is bound.
fn find_or_verify(
    evidence: &Evidence<'_>,
    trust: &TrustStore,
    cache: &TokenCache,
    now: UnixTime,
) -> Result<CachedToken, Refusal> {
    check_length(evidence.token, trust.max_token_bytes())?;
    let key = CacheKey::new(trust.revision_bytes(), evidence.role, evidence.token);
    Ok(match cache.0.find(&key) {
        Some(cached) => {
            cached.times.check(trust.time_limits(), now)?;
            cached
        }
        None => {
            let parts = JwsParts::split(evidence.token, trust.max_token_bytes())?;
            let header = JwsHeader::read(&parts)?;
            cache.0.missed();
            let cached = verify_token(evidence, &header, &parts, trust)?;
            cached.times.check(trust.time_limits(), now)?;
            cache.0.insert(key, cached.clone());
            cached
        }
    })
}

/// Verifies a token, except its times and the key to which it is bound.
fn verify_token(
    evidence: &Evidence<'_>,
    header: &JwsHeader,
    parts: &JwsParts<'_>,
    trust: &TrustStore,
) -> Result<CachedToken, Refusal> {
    let token_digest = Sha256::digest(evidence.token).into();
    let (verified, times, binding) = match evidence.role {
        Role::Agent if credential::is_meant(header, trust) => {
            let verified = credential::verify(header, parts, token_digest, trust)?;
            let credential = Arc::new(verified.credential);
            let agent = Arc::new(verified.agent);
            (VerifiedToken::Credential(credential, agent), verified.times, verified.binding)
        }
        Role::Agent => {
            let (facts, times, binding) = agent::verify(header, parts, token_digest, trust)?;
            (VerifiedToken::Agent(Arc::new(facts)), times, binding)
        }
        Role::Subject => {
            let (facts, times, binding) = subject::verify(header, parts, token_digest, trust)?;
            (VerifiedToken::Subject(Arc::new(facts)), times, binding)
        }
    };
    Ok(CachedToken { verified, times, binding, token_digest })
}
