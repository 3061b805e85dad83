//! The profile of task credentials: access tokens (RFC 9068) of our own, with the chain of actors (RFC
//! 8693 §4.1) and the permitted call (RFC 9396).

use std::collections::BTreeSet;

use crate::algorithm::Algorithm;
use crate::binding;
use crate::claims::{self, TimeLimits, Times};
use crate::facts::{AgentFacts, AgentProof, CredentialFacts, KeyBinding};
use crate::json::{JsonObject, JsonValue};
use crate::jws::{JwsHeader, JwsParts};
use crate::refusal::{KeyOwner, Refusal};
use crate::trust::TrustStore;
use authz_base::spiffe::SpiffeId;

/// Returns whether this profile applies to an agent's token, by its header.
pub(crate) fn is_meant(header: &JwsHeader, trust: &TrustStore) -> bool {
    header.typ.as_deref() == Some(TYP) && trust.own_keys().is_some()
}

/// Verified task credential, and the agent that it proves.
pub(crate) struct VerifiedCredential {
    pub(crate) credential: CredentialFacts,
    pub(crate) agent: AgentFacts,
    pub(crate) times: Times,
    pub(crate) binding: Option<KeyBinding>,
}

/// Verifies a task credential, except its times and the key to which it is bound.
pub(crate) fn verify(
    header: &JwsHeader,
    parts: &JwsParts<'_>,
    token_digest: [u8; 32],
    trust: &TrustStore,
) -> Result<VerifiedCredential, Refusal> {
    let own =
        trust.own_keys().ok_or_else(|| Refusal::untrusted("there are no task credentials"))?;
    if !header.plain {
        return Err(Refusal::bad("a task credential's header has only `alg`, `kid` and `typ`"));
    }
    if !Algorithm::CREDENTIAL.contains(&header.algorithm) {
        return Err(Refusal::bad("a task credential's `alg` is ES256 or EdDSA"));
    }
    let payload = parts.payload()?;
    let claims = claims::read(&payload)?;
    if claims::text(&claims, "iss", MAX_TEXT_BYTES)? != Some(own.issuer.as_str()) {
        return Err(Refusal::untrusted("an agent's access token is none that we issued"));
    }
    if own.keys.keys.is_empty() {
        return Err(Refusal::untrusted("we have no usable key, so all our tokens are refused"));
    }
    if header.kid.is_none() {
        return Err(Refusal::bad("a task credential's header has a `kid`"));
    }
    let key = own.keys.verify(header, parts, || KeyOwner::Own)?;

    // INVARIANT (signed): from here on the claims are our own word. They must have the form that we give
    // them all the same, so that no other text that our keys ever sign passes for a credential.
    let kid = key.kid.clone().unwrap_or_default();
    let limits = TimeLimits { max_lifetime: None, ..*trust.time_limits() };
    let times = Times::read(&claims, &limits)?;
    let credential = read(&claims, &times, token_digest, kid)?;
    let id = SpiffeId::parse(&credential.agent)
        .map_err(|error| Refusal::bad(format!("`client_id` is no SPIFFE ID: {error}")))?;
    // A task credential does not outlive the trust in its agent's domain.
    if trust.domain(id.trust_domain()).is_none_or(|domain| domain.is_empty()) {
        return Err(Refusal::untrusted(
            "the trust domain of the task credential's agent is not trusted, or has no usable key",
        ));
    }
    let agent = AgentFacts {
        spiffe_id: credential.agent.clone(),
        trust_domain: id.trust_domain().to_owned(),
        proof: AgentProof::TaskCredential,
        kid: Some(credential.kid.clone()),
        issued_at: Some(credential.issued_at),
        expires_at: Some(credential.expires_at),
        token_digest: Some(token_digest),
        certificate_digest: None,
        jti: Some(credential.jti.clone()),
        bound: credential.binding.is_some(),
        audiences: vec![credential.audience.clone()],
    };
    Ok(VerifiedCredential { binding: credential.binding, credential, agent, times })
}

/// Reads the claims in the form that we give them.
pub(crate) fn read(
    claims: &JsonObject<'_>,
    times: &Times,
    token_digest: [u8; 32],
    kid: String,
) -> Result<CredentialFacts, Refusal> {
    let issued_at =
        times.issued_at.ok_or_else(|| Refusal::bad("the task credential has no `iat`"))?;
    let agent = required(claims, "client_id", MAX_TEXT_BYTES)?;
    let id = SpiffeId::parse(agent)
        .map_err(|error| Refusal::bad(format!("`client_id` is no SPIFFE ID: {error}")))?;
    if id.path().is_empty() {
        return Err(Refusal::bad("`client_id` names a trust domain, not a workload"));
    }
    let subject = required(claims, "sub", MAX_TEXT_BYTES)?;
    let actors = actors(claims)?;
    // The outermost actor acts; without an actor, the subject itself.
    if actors.first().map_or(subject, String::as_str) != agent {
        return Err(Refusal::bad("`client_id` is not the agent that acts, by `act` or `sub`"));
    }
    Ok(CredentialFacts {
        jti: required(claims, "jti", MAX_ID_BYTES)?.to_owned(),
        issuer: required(claims, "iss", MAX_TEXT_BYTES)?.to_owned(),
        task: required(claims, "task", MAX_ID_BYTES)?.to_owned(),
        audience: required(claims, "aud", MAX_TEXT_BYTES)?.to_owned(),
        agent: agent.to_owned(),
        subject: subject.to_owned(),
        actors,
        decisions: decisions(claims)?,
        binding: binding::read(claims)?,
        issued_at,
        expires_at: times.expires_at,
        token_digest,
        kid,
    })
}

/// The nested actors (RFC 8693 §4.1), the outermost first; each has the SPIFFE ID of a workload and no other
/// member.
fn actors(claims: &JsonObject<'_>) -> Result<Vec<String>, Refusal> {
    let ill_formed = || Refusal::bad("the task credential's `act` is not a short chain of agents");
    let mut actors = Vec::new();
    let mut next = claims.get("act");
    while let Some(actor) = next {
        let JsonValue::Object(actor) = actor else { return Err(ill_formed()) };
        if actor.iter().any(|(name, _)| !matches!(name, "sub" | "act"))
            || actors.len() >= MAX_ACTORS
        {
            return Err(ill_formed());
        }
        match actor.get("sub") {
            Some(JsonValue::String(sub))
                if SpiffeId::parse(sub).is_ok_and(|id| !id.path().is_empty()) =>
            {
                actors.push(sub.to_string());
            }
            _ => return Err(ill_formed()),
        }
        next = actor.get("act");
    }
    Ok(actors)
}

/// The decisions of the credential (RFC 9396 §2). An unknown member could restrict them, so it refuses the
/// token.
fn decisions(claims: &JsonObject<'_>) -> Result<Vec<String>, Refusal> {
    let details = match claims.get("authorization_details") {
        Some(JsonValue::Array(details)) if (1..=MAX_DETAILS).contains(&details.len()) => details,
        _ => return Err(Refusal::bad("`authorization_details` is not a short array")),
    };
    let mut decisions = BTreeSet::new();
    let mut in_order = Vec::with_capacity(details.len());
    for detail in details {
        let decision = match detail {
            JsonValue::Object(detail) => decision(detail),
            _ => None,
        };
        let decision = decision.ok_or_else(|| {
            Refusal::bad("one of the `authorization_details` is not in the form of `authz_task`")
        })?;
        if !decisions.insert(decision) {
            return Err(Refusal::bad("two `authorization_details` are of one decision"));
        }
        in_order.push(decision.to_owned());
    }
    Ok(in_order)
}

/// The `decision_id` of one detail. `None` if the detail is not in our form.
fn decision<'a>(detail: &'a JsonObject<'_>) -> Option<&'a str> {
    let mut known = 0;
    for (name, value) in detail.iter() {
        let is_sound = match (name, value) {
            ("type", JsonValue::String(text)) => text == DETAIL_TYPE,
            ("operation" | "decision_id", JsonValue::String(text)) => {
                known += 1;
                text.len() <= MAX_ID_BYTES && claims::is_readable(text)
            }
            ("resource", JsonValue::String(text)) => is_bounded(text),
            ("arguments_digest", JsonValue::String(text)) => {
                text.len() == 64
                    && text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
            }
            ("destinations", JsonValue::Array(texts)) => {
                texts.len() <= MAX_DESTINATIONS
                    && texts.iter().all(|text| match text {
                        JsonValue::String(text) => is_bounded(text),
                        _ => false,
                    })
            }
            ("uses", JsonValue::Integer(1)) => {
                known += 1;
                true
            }
            _ => false,
        };
        if !is_sound {
            return None;
        }
    }
    // Member names are distinct, so these are `operation`, `decision_id` and `uses`.
    match (detail.get("type"), detail.get("decision_id"), known) {
        (Some(_), Some(JsonValue::String(decision)), 3) => Some(decision),
        _ => None,
    }
}

fn is_bounded(text: &str) -> bool {
    (1..=MAX_TEXT_BYTES).contains(&text.len())
}

/// A required claim: a readable text of at most `max` bytes.
fn required<'a>(
    claims: &'a JsonObject<'_>,
    name: &'static str,
    max: usize,
) -> Result<&'a str, Refusal> {
    match claims::text(claims, name, max)? {
        Some(text) if claims::is_readable(text) => Ok(text),
        Some(_) => Err(Refusal::bad(format!(
            "the task credential's `{name}` is empty or has control characters"
        ))),
        None => Err(Refusal::bad(format!("the task credential has no `{name}`"))),
    }
}

/// RFC 9068 §2.1, in our spelling.
const TYP: &str = "at+jwt";
const DETAIL_TYPE: &str = "authz_task";
const MAX_TEXT_BYTES: usize = 4096;
const MAX_ID_BYTES: usize = 255;
const MAX_ACTORS: usize = 12;
const MAX_DETAILS: usize = 64;
const MAX_DESTINATIONS: usize = 256;
