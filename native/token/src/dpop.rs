//! The profile of proofs of possession: DPoP (RFC 9449 §4).

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use sha2::{Digest as _, Sha256};

use crate::algorithm::Algorithm;
use crate::claims;
use crate::evidence::Role;
use crate::facts::{ProofFacts, UnixTime};
use crate::json::{JsonObject, JsonValue};
use crate::jwk::PublicKey;
use crate::jws::{JwsHeader, JwsParts};
use crate::refusal::{Refusal, RefusalReason};
use authz_base::uri;

/// Nonces and clock by which proofs of possession are verified.
///
/// ```
/// use authz_token::{Nonces, RefusalReason, UnixTime, verify_proof};
///
/// let refusal = verify_proof("no.proof.here", &Nonces::default(), UnixTime(0)).unwrap_err();
/// assert_eq!(RefusalReason::BadProof, refusal.reason);
/// ```
#[derive(Clone, Copy, Debug)]
pub struct Nonces<'a> {
    /// The nonces of ours that are still accepted (RFC 9449 §8).
    pub valid: &'a [&'a str],
    /// A proof made before this time needs a nonce: proofs that were used before it may be forgotten.
    pub needed_before: UnixTime,
    /// A proof dated after this time needs a nonce. A verifier that forgets used proofs at a restart sets its
    /// clock here: a proof that it accepts without a nonce is then dated before its next start.
    pub needed_after: UnixTime,
    /// Largest distance of `iat` from now in either direction, in seconds.
    pub window: i64,
}

impl Default for Nonces<'_> {
    /// No nonce is valid, and every proof needs one: no proof is accepted.
    fn default() -> Self {
        Self {
            valid: &[],
            needed_before: UnixTime(i64::MAX),
            needed_after: UnixTime(i64::MIN),
            window: 60,
        }
    }
}

/// Verifies a DPoP proof that comes with no token, as where a token is asked for (RFC 9449 §5).
///
/// `jwt` is the proof in JWS compact serialization. The caller checks [`ProofFacts::is_for`], and that the
/// proof was not used before.
///
/// # Errors
/// [`RefusalReason::UseNonce`] if the nonce is missing and needed, or is not valid;
/// [`RefusalReason::BadProof`] otherwise.
pub fn verify_proof(jwt: &str, nonces: &Nonces<'_>, now: UnixTime) -> Result<ProofFacts, Refusal> {
    verify(jwt, ProofContext { role: Role::Agent, jkt: None, token: None }, nonces, now)
}

/// Credential with which a proof was presented.
#[derive(Clone, Copy)]
pub(crate) struct ProofContext<'a> {
    pub(crate) role: Role,
    /// The thumbprint of the key to which the token is bound.
    pub(crate) jkt: Option<&'a [u8; 32]>,
    /// SHA-256 of the token.
    pub(crate) token: Option<&'a [u8; 32]>,
}

/// Verifies a proof, in this order: form and size, header, key, signature, claims, time, nonce.
pub(crate) fn verify(
    jwt: &str,
    context: ProofContext<'_>,
    nonces: &Nonces<'_>,
    now: UnixTime,
) -> Result<ProofFacts, Refusal> {
    let parts = JwsParts::split(jwt, MAX_PROOF_BYTES).map_err(of_proof)?;
    let bytes = parts.header().map_err(of_proof)?;
    let object = JwsHeader::object(&bytes).map_err(of_proof)?;
    let header = JwsHeader::of(&object).map_err(of_proof)?;
    if header.typ.as_deref() != Some(TYP) {
        return Err(bad("its `typ` is not `dpop+jwt`"));
    }
    let Some(JsonValue::Object(jwk)) = object.get("jwk") else {
        return Err(bad("its header has no object `jwk`"));
    };
    if !Algorithm::PROOF.contains(&header.algorithm) {
        return Err(bad("its `alg` is not accepted"));
    }
    let (key, jkt) = PublicKey::read(jwk, &[header.algorithm])
        .map_err(|error| bad(&format!("its `jwk`: {error}")))?;
    if context.jkt.is_some_and(|bound| *bound != jkt) {
        return Err(bad("it is by another key than the one that the token is bound to"));
    }
    let signature = parts.signature().map_err(of_proof)?;
    if !key.verifies(header.algorithm, parts.signing_input.as_bytes(), &signature) {
        return Err(bad("its signature is not valid"));
    }

    // INVARIANT (signed): from here on the claims are signed by the holder of the key.
    let payload = parts.payload().map_err(of_proof)?;
    let claims = claims::read(&payload).map_err(of_proof)?;
    if let Some(token) = context.token {
        check_ath(&claims, token)?;
    }
    let jti = required(&claims, "jti", MAX_JTI_BYTES)?;
    let htm = required(&claims, "htm", MAX_METHOD_BYTES)?;
    let htu = required(&claims, "htu", MAX_PROOF_BYTES)?;
    let htu = uri::normal(htu).ok_or_else(|| bad("its `htu` is no `http` or `https` URI"))?;
    let (iat, expires_at) = check_time(&claims, nonces.window, now)?;
    check_nonce(&claims, nonces, iat)?;
    Ok(ProofFacts {
        jkt: URL_SAFE_NO_PAD.encode(jkt),
        jti_digest: Sha256::digest(jti).into(),
        htm: htm.to_owned(),
        htu,
        iat,
        expires_at,
        role: context.role,
    })
}

/// Checks that a proof was made for its token (RFC 9449 §4.3 step 12).
fn check_ath(claims: &JsonObject<'_>, token_digest: &[u8; 32]) -> Result<(), Refusal> {
    let ath = required(claims, "ath", MAX_ATH_BYTES)?;
    if ath != URL_SAFE_NO_PAD.encode(token_digest) {
        return Err(bad("its `ath` is not that of the token that it came with"));
    }
    Ok(())
}

/// Checks the times of a proof (RFC 9449 §4.3 step 11, §11.1).
///
/// Returns the time at which it was made, and the last second in which it is accepted.
fn check_time(
    claims: &JsonObject<'_>,
    window: i64,
    UnixTime(now): UnixTime,
) -> Result<(i64, i64), Refusal> {
    let date = |name, round| claims::date(claims, name, round).map_err(of_proof);
    let iat = date("iat", f64::floor)?.ok_or_else(|| bad("it has no `iat`"))?;
    let latest = now.saturating_add(window);
    let mut expires_at = iat.saturating_add(window);
    if let Some(exp) = date("exp", f64::floor)? {
        expires_at = expires_at.min(exp.saturating_sub(1));
    }
    if iat > latest || date("nbf", f64::ceil)?.is_some_and(|nbf| nbf > latest) {
        return Err(bad("its `iat` or `nbf` is too far ahead"));
    }
    if now > expires_at {
        return Err(bad("it is too old"));
    }
    Ok((iat, expires_at))
}

/// Checks the nonce of a proof that has one or needs one (RFC 9449 §4.3 step 10, §8).
fn check_nonce(claims: &JsonObject<'_>, nonces: &Nonces<'_>, iat: i64) -> Result<(), Refusal> {
    let unmet = |detail| Err(Refusal::new(RefusalReason::UseNonce, about(detail)));
    match claims.get("nonce") {
        Some(JsonValue::String(nonce)) if nonces.valid.contains(&nonce.as_ref()) => Ok(()),
        Some(JsonValue::String(_)) => unmet("its `nonce` is not one of ours, or no more"),
        Some(_) => Err(bad("its `nonce` is no text")),
        None if iat < nonces.needed_before.0 || iat > nonces.needed_after.0 => {
            unmet("it has no `nonce`, and needs one")
        }
        None => Ok(()),
    }
}

/// A required claim: a readable text of at most `max` bytes.
fn required<'a>(
    claims: &'a JsonObject<'_>,
    name: &'static str,
    max: usize,
) -> Result<&'a str, Refusal> {
    match claims.get(name) {
        Some(JsonValue::String(text)) if text.len() <= max && claims::is_readable(text) => Ok(text),
        Some(_) => Err(bad(&format!("its `{name}` is ill-typed, empty or too long"))),
        None => Err(bad(&format!("it has no `{name}`"))),
    }
}

fn bad(detail: &str) -> Refusal {
    Refusal::new(RefusalReason::BadProof, about(detail))
}

fn about(detail: &str) -> String {
    format!("the proof of possession: {detail}")
}

/// The refusal of a JWT, as that of a proof.
fn of_proof(refusal: Refusal) -> Refusal {
    bad(&refusal.detail)
}

const TYP: &str = "dpop+jwt";
const MAX_PROOF_BYTES: usize = 8192;
const MAX_JTI_BYTES: usize = 255;
const MAX_METHOD_BYTES: usize = 64;
const MAX_ATH_BYTES: usize = 64;
