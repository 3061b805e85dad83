//! The one entry point.

use std::sync::Arc;

use sha2::{Digest as _, Sha256};

use crate::binding::{self, Presentation};
use crate::cache::{CacheKey, Kept, TokenCache, Verified};
use crate::dpop::ProofFacts;
use crate::facts::{CredentialFacts, Evidence, Facts, Role, Scheme, UnixTime};
use crate::jws::{Header, Parts, check_length};
use crate::refusal::{Refusal, RefusalReason};
use crate::trust::TrustStore;
use crate::{agent, credential, subject};

/// Verifies evidence: at most one agent's SVID, one task credential and one subject token, at least
/// one in all. A task credential alone proves its agent too.
///
/// Args: `evidence`: the credentials as received; `presentation`: how the call came; `trust`: what is
/// trusted; `cache`: tokens verified before, which changes no answer; `now`: the time.
/// Returns: who is calling, and for whom. That a proof was not seen before, and that it was made for
/// this request, is for the caller to ask, and so is whether a task credential is still active and
/// meant for this audience.
/// Errors: the first refusal in the order of `evidence`. Two credentials of one kind, or an SVID and a
/// task credential of two agents, are [`RefusalReason::BadCredential`]; a proof that is not accepted,
/// or came where none belongs, and a scheme without its proof are [`RefusalReason::BadProof`] or
/// [`RefusalReason::UseNonce`]; a token with `cnf` whose key was not proved is
/// [`RefusalReason::UnboundCredential`]; for the rest see [`RefusalReason`]. Last, a subject token
/// whose `may_act` (RFC 8693 §4.4) is not the agent beside it is [`RefusalReason::BadCredential`];
/// where no agent is, the claim does not apply.
pub fn verify(
    evidence: &[Evidence<'_>],
    presentation: &Presentation<'_>,
    trust: &TrustStore,
    cache: &TokenCache,
    now: UnixTime,
) -> Result<Facts, Refusal> {
    if evidence.is_empty() {
        return Err(Refusal::new(RefusalReason::NoCredential, "no credential was presented"));
    }
    for (role, most) in [(Role::Agent, 2), (Role::Subject, 1)] {
        if evidence.iter().filter(|evidence| evidence.role == role).count() > most {
            return Err(twice().of(role));
        }
    }
    let mut facts = Facts::default();
    let mut by_credential = None;
    for evidence in evidence {
        let (verified, proof) = verify_one(evidence, presentation, trust, cache, now)
            .map_err(|refusal| refusal.of(evidence.role))?;
        let is_second = match verified {
            Verified::Agent(agent) => facts.agent.replace(agent).is_some(),
            Verified::Subject(subject) => facts.subject.replace(subject).is_some(),
            Verified::Credential(credential, agent) => {
                by_credential = Some(agent);
                facts.credential.replace(credential).is_some()
            }
        };
        if is_second {
            return Err(twice().of(evidence.role));
        }
        facts.proofs.extend(proof);
    }
    if let Some(agent) = by_credential {
        let known = facts.agent.get_or_insert_with(|| Arc::clone(&agent));
        if known.spiffe_id != agent.spiffe_id {
            return Err(Refusal::others_credential());
        }
    }
    if let (Some(subject), Some(agent)) = (&facts.subject, &facts.agent) {
        subject::check_actor(subject, agent).map_err(|refusal| refusal.of(Role::Subject))?;
    }
    Ok(facts)
}

fn twice() -> Refusal {
    Refusal::bad("more than one credential of this role")
}

fn verify_one(
    evidence: &Evidence<'_>,
    presentation: &Presentation<'_>,
    trust: &TrustStore,
    cache: &TokenCache,
    now: UnixTime,
) -> Result<(Verified, Option<ProofFacts>), Refusal> {
    binding::check_scheme(evidence)?;
    let kept = known(evidence, trust, cache, now)?;
    let proof = binding::check(evidence, kept.binding, &kept.token_digest, presentation, now)?;
    Ok((kept.verified, proof))
}

/// Verifies a task credential of ours that somebody asks about: who asks is not who presents it, so the key that it is
/// bound to is not asked for.
///
/// Args: `token`: the credential; `trust`: what is trusted; `cache`: tokens verified before, which changes no answer;
/// `now`: the time.
/// Returns: what it says. That it is still active is for whoever keeps its record to say.
/// Errors: as [`verify`]; any other token is [`RefusalReason::BadCredential`].
pub fn verify_credential(
    token: &str,
    trust: &TrustStore,
    cache: &TokenCache,
    now: UnixTime,
) -> Result<Arc<CredentialFacts>, Refusal> {
    let evidence = Evidence { role: Role::Agent, scheme: Scheme::Bearer, token, proof: None };
    match known(&evidence, trust, cache, now)?.verified {
        Verified::Credential(credential, _) => Ok(credential),
        Verified::Agent(_) | Verified::Subject(_) => {
            Err(Refusal::bad("the token is no task credential"))
        }
    }
}

/// Verifies all of a token but the key that it is bound to.
fn known(
    evidence: &Evidence<'_>,
    trust: &TrustStore,
    cache: &TokenCache,
    now: UnixTime,
) -> Result<Kept, Refusal> {
    check_length(evidence.token, trust.max_token_bytes())?;
    let key = CacheKey::new(trust.revision_bytes(), evidence.role, evidence.token);
    Ok(match cache.0.find(&key) {
        Some(kept) => {
            kept.times.check(trust.time_limits(), now)?;
            kept
        }
        None => {
            let parts = Parts::split(evidence.token, trust.max_token_bytes())?;
            let header = Header::read(&parts)?;
            cache.0.missed();
            let kept = verify_token(evidence, &header, &parts, trust)?;
            kept.times.check(trust.time_limits(), now)?;
            cache.0.insert(key, kept.clone());
            kept
        }
    })
}

/// Verifies all of a token that does not depend on how and when it is presented.
fn verify_token(
    evidence: &Evidence<'_>,
    header: &Header,
    parts: &Parts<'_>,
    trust: &TrustStore,
) -> Result<Kept, Refusal> {
    let token_digest = Sha256::digest(evidence.token).into();
    let (verified, times, binding) = match evidence.role {
        Role::Agent if credential::is_meant(header, trust) => {
            let verified = credential::verify(header, parts, token_digest, trust)?;
            let credential = Arc::new(verified.credential);
            let agent = Arc::new(verified.agent);
            (Verified::Credential(credential, agent), verified.times, verified.binding)
        }
        Role::Agent => {
            let (facts, times, binding) = agent::verify(header, parts, token_digest, trust)?;
            (Verified::Agent(Arc::new(facts)), times, binding)
        }
        Role::Subject => {
            let (facts, times, binding) = subject::verify(header, parts, token_digest, trust)?;
            (Verified::Subject(Arc::new(facts)), times, binding)
        }
    };
    Ok(Kept { verified, times, binding, token_digest })
}
