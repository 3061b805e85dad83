//! The profile of confidence statements: JWTs (RFC 7519) of a guard about one call.
//!
//! A guard looks at a call before it is made, and says how confident it is that the call is meant. Its statement is about one
//! operation with the digest of its arguments, in one task, and counts for a minute.

use crate::algorithm::Algorithm;
use crate::claims;
use crate::facts::{ConfidenceFacts, UnixTime};
use crate::json::{JsonObject, JsonValue};
use crate::jws::{JwsHeader, JwsParts};
use crate::refusal::{KeyOwner, Refusal, RefusalReason};
use crate::trust::TrustStore;

/// `typ` of a statement.
const TYP: &str = "authz-confidence+jwt";
/// Seconds for which a statement counts.
const MAX_AGE: i64 = 60;
const MAX_TEXT_BYTES: usize = 1024;
/// Bytes of a SHA-256 digest.
const DIGEST_BYTES: usize = 32;

/// Verifies the statement of a guard.
///
/// # Errors
/// No guard of the configuration signed the statement for this service, the statement is older than 60 seconds, or it has
/// another form.
pub fn verify_confidence(
    token: &str,
    trust: &TrustStore,
    now: UnixTime,
) -> Result<ConfidenceFacts, Refusal> {
    let parts = JwsParts::split(token, trust.max_token_bytes())?;
    let header = JwsHeader::read(&parts)?;
    if header.typ.as_deref() != Some(TYP) {
        return Err(Refusal::bad(format!("the `typ` of a guard's statement is `{TYP}`")));
    }
    if !Algorithm::CREDENTIAL.contains(&header.algorithm) {
        return Err(Refusal::bad("the `alg` of a guard's statement is ES256 or EdDSA"));
    }
    let payload = parts.payload()?;
    let claims = claims::read(&payload)?;
    let guard = required(&claims, "iss")?;
    let keys = trust
        .guard(guard)
        .ok_or_else(|| Refusal::untrusted("no guard has the statement's `iss`"))?;
    // The keys of a guard are files, so that an unknown key makes nothing be fetched.
    keys.verify(&header, &parts, || KeyOwner::Own)
        .map_err(|refusal| Refusal { unknown_key: None, ..refusal })?;

    // INVARIANT (signed): from here on the claims are the guard's.
    claims::check_audience(&claims, trust.audiences())?;
    let issued_at = claims::date(&claims, "iat", f64::floor)?
        .ok_or_else(|| Refusal::bad("the statement has no `iat`"))?;
    let UnixTime(now) = now;
    if issued_at > now.saturating_add(trust.time_limits().leeway) {
        return Err(late("the statement's `iat` is still to come"));
    }
    if now.saturating_sub(issued_at) > MAX_AGE {
        return Err(late("the statement is older than 60 seconds"));
    }
    Ok(ConfidenceFacts {
        guard: guard.to_owned(),
        task: claims::text(&claims, "task", MAX_TEXT_BYTES)?.unwrap_or_default().to_owned(),
        operation: required(&claims, "operation")?.to_owned(),
        arguments_digest: digest(required(&claims, "arguments_digest")?)?,
        confidence: confidence(&claims)?,
        issued_at,
    })
}

fn late(detail: &str) -> Refusal {
    Refusal::new(RefusalReason::ExpiredCredential, detail)
}

fn required<'a>(claims: &'a JsonObject<'_>, name: &'static str) -> Result<&'a str, Refusal> {
    let text = claims::text(claims, name, MAX_TEXT_BYTES)?.filter(|text| !text.is_empty());
    text.ok_or_else(|| Refusal::bad(format!("the statement has no `{name}`")))
}

fn confidence(claims: &JsonObject<'_>) -> Result<u8, Refusal> {
    let number = match claims.get("confidence") {
        Some(JsonValue::Integer(number)) => u8::try_from(*number).ok(),
        _ => None,
    };
    number
        .filter(|number| *number <= 100)
        .ok_or_else(|| Refusal::bad("the statement's `confidence` is no integer of 0 to 100"))
}

fn digest(text: &str) -> Result<[u8; DIGEST_BYTES], Refusal> {
    let is_hex = |byte: u8| matches!(byte, b'0'..=b'9' | b'a'..=b'f');
    let bytes: Vec<u8> = text
        .as_bytes()
        .chunks(2)
        .filter(|pair| pair.iter().all(|byte| is_hex(*byte)))
        .filter_map(|pair| u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok())
        .collect();
    let whole = (text.len() == 2 * DIGEST_BYTES).then_some(bytes);
    whole.and_then(|bytes| bytes.try_into().ok()).ok_or_else(|| {
        Refusal::bad("the statement's `arguments_digest` is no SHA-256 digest in lower-case hex")
    })
}
