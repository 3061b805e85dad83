//! The subject profiles: an OAuth access token (RFC 9068) or another JWT (RFC 7519, RFC 8725) of a
//! configured issuer.

use std::collections::{BTreeMap, BTreeSet};

use crate::binding;
use crate::claims::{self, Times};
use crate::facts::{ClaimValue, DerivedValue, KeyBinding, SubjectFacts};
use crate::json::{JsonObject, JsonValue};
use crate::jws::{JwsHeader, JwsParts};
use crate::refusal::{KeyOwner, Refusal};
use crate::spec::SubjectProfile;
use crate::trust::{TrustStore, media_type};

/// Verifies a subject token, except its times.
pub(crate) fn verify(
    header: &JwsHeader,
    parts: &JwsParts<'_>,
    token_digest: [u8; 32],
    trust: &TrustStore,
) -> Result<(SubjectFacts, Times, Option<KeyBinding>), Refusal> {
    let payload = parts.payload()?;
    let claims = claims::read(&payload)?;
    let iss = claims::text(&claims, "iss", MAX_ISS_BYTES)?
        .ok_or_else(|| Refusal::bad("the token has no `iss`"))?;
    let issuer = trust
        .issuer(iss)
        .ok_or_else(|| Refusal::untrusted("the token's `iss` is not a configured issuer"))?;
    if !issuer.algorithms.contains(&header.algorithm) {
        return Err(Refusal::bad("the token's `alg` is not in its issuer's `algorithms`"));
    }
    let typ = header.typ.as_deref().map(media_type).unwrap_or_default();
    if !issuer.typ.contains(&typ) {
        return Err(Refusal::bad("the token's `typ` is not one that its issuer's tokens have"));
    }
    if issuer.keys.keys.is_empty() {
        return Err(Refusal::untrusted(format!(
            "issuer `{}` has no usable key, so all its tokens are refused",
            issuer.alias
        )));
    }
    let key = issuer.keys.verify(header, parts, || KeyOwner::Issuer(issuer.alias.clone()))?;

    // INVARIANT (signed): from here on the claims are the issuer's word.
    let binding = binding::read(&claims)?;
    refuse_delegation(&claims)?;
    if issuer.profile == SubjectProfile::AccessToken {
        check_access_token(&claims)?;
    }
    let sub = claims::text(&claims, "sub", MAX_SUB_BYTES)?
        .ok_or_else(|| Refusal::bad("the token has no `sub`"))?;
    if !claims::is_readable(sub) {
        return Err(Refusal::bad("the token's `sub` is empty or has control characters"));
    }
    // A SPIFFE ID makes a JWT-SVID, also where an issuer and a trust domain share their keys.
    if sub.get(.."spiffe:".len()).is_some_and(|scheme| scheme.eq_ignore_ascii_case("spiffe:")) {
        return Err(Refusal::bad("a JWT-SVID is not a subject token"));
    }
    let is_for_alone = claims::is_for_alone(&claims, &issuer.alone_audience)?;
    if !is_for_alone {
        claims::check_audience(&claims, &issuer.audience)?;
    }
    let times = Times::read(&claims, trust.time_limits())?;
    let facts = SubjectFacts {
        issuer: issuer.alias.clone(),
        kind: issuer.kind,
        sub: sub.to_owned(),
        token_type: typ,
        client: client(&claims).to_owned(),
        kid: key.kid.clone(),
        claims: kept_claims(&claims, &issuer.claims)?,
        issued_at: times.issued_at,
        expires_at: times.expires_at,
        acr: claims::text(&claims, "acr", MAX_TEXT_BYTES)?.map(str::to_owned),
        auth_time: times.auth_time,
        may_act: may_act(&claims)?,
        token_digest,
        jti: claims::text(&claims, "jti", MAX_TEXT_BYTES)?.map(str::to_owned),
        bound: binding.is_some(),
        audiences: claims::audiences(&claims)?.into_iter().map(str::to_owned).collect(),
        is_for_alone,
        is_alone: is_for_alone || (binding.is_some() && issuer.alone_bound),
        derived: DerivedValue::default(),
    };
    Ok((facts, times, binding))
}

/// The client to which the token was issued; empty if no text of a sensible length names one.
fn client<'a>(claims: &'a JsonObject<'_>) -> &'a str {
    let named = |name| match claims.get(name) {
        Some(JsonValue::String(text)) if (1..=MAX_TEXT_BYTES).contains(&text.len()) => {
            Some(text.as_ref())
        }
        _ => None,
    };
    named("azp").or_else(|| named("client_id")).unwrap_or_default()
}

/// The claims kept for policy.
///
/// Objects, null, fractions and arrays of other values than texts are dropped, as if absent. A value
/// that is too long or holds too much refuses the token: a cut value would hide a part of the issuer's
/// statement from policies.
fn kept_claims(
    claims: &JsonObject<'_>,
    names: &[String],
) -> Result<BTreeMap<String, ClaimValue>, Refusal> {
    let mut kept = BTreeMap::new();
    for name in names {
        let value = match claims.get(name) {
            Some(JsonValue::Bool(value)) => ClaimValue::Bool(*value),
            Some(JsonValue::Integer(value)) => ClaimValue::Long(*value),
            Some(JsonValue::String(value)) => ClaimValue::String(bounded(value, name)?.to_owned()),
            Some(JsonValue::Array(items)) => {
                if items.len() > MAX_ITEMS {
                    return Err(too_much(name));
                }
                let mut set = BTreeSet::new();
                for item in items {
                    if let JsonValue::String(item) = item {
                        set.insert(bounded(item, name)?.to_owned());
                    }
                }
                if items.iter().any(|item| !matches!(item, JsonValue::String(_))) {
                    continue;
                }
                ClaimValue::Set(set)
            }
            Some(JsonValue::Object(_) | JsonValue::Float(_) | JsonValue::Null) | None => continue,
        };
        kept.insert(name.clone(), value);
    }
    Ok(kept)
}

/// Refuses a token in which an actor acts for its subject already (RFC 8693 §4.1). Taken for the
/// subject's own token, it would hide an actor that Authz did not verify.
fn refuse_delegation(claims: &JsonObject<'_>) -> Result<(), Refusal> {
    if claims.get("act").is_some() {
        return Err(Refusal::bad("the token has `act`; delegated tokens are not in this version"));
    }
    Ok(())
}

/// The claims that an access token has beyond those of any subject token (RFC 9068 §2.2); its `typ`
/// was checked before its signature (§2.1, §4).
fn check_access_token(claims: &JsonObject<'_>) -> Result<(), Refusal> {
    for name in ["client_id", "jti"] {
        match claims::text(claims, name, MAX_TEXT_BYTES)? {
            Some(text) if claims::is_readable(text) => {}
            Some(_) => {
                return Err(Refusal::bad(format!(
                    "the access token's `{name}` is empty or has control characters"
                )));
            }
            None => return Err(Refusal::bad(format!("the access token has no `{name}`"))),
        }
    }
    if claims.get("iat").is_none() {
        return Err(Refusal::bad("the access token has no `iat`"));
    }
    Ok(())
}

/// `may_act`, whose members are texts. A member of another type could limit the actor in a way that is lost
/// here, so it refuses the token.
fn may_act(claims: &JsonObject<'_>) -> Result<Option<BTreeMap<String, String>>, Refusal> {
    let ill_typed = || Refusal::bad("the token's `may_act` is not an object of a few texts");
    let actor = match claims.get("may_act") {
        None => return Ok(None),
        Some(JsonValue::Object(actor)) => actor,
        Some(_) => return Err(ill_typed()),
    };
    let mut members = BTreeMap::new();
    for (name, value) in actor.iter() {
        match value {
            JsonValue::String(value)
                if members.len() < MAX_ACTOR_MEMBERS
                    && name.len() <= MAX_TEXT_BYTES
                    && value.len() <= MAX_CLAIM_BYTES =>
            {
                members.insert(name.to_owned(), value.to_string());
            }
            _ => return Err(ill_typed()),
        }
    }
    Ok(Some(members))
}

fn bounded<'a>(value: &'a str, name: &str) -> Result<&'a str, Refusal> {
    if value.len() > MAX_CLAIM_BYTES { Err(too_much(name)) } else { Ok(value) }
}

fn too_much(name: &str) -> Refusal {
    Refusal::bad(format!("the token's claim `{name}` is too long or holds too many values"))
}

const MAX_ISS_BYTES: usize = 2048;
const MAX_SUB_BYTES: usize = 255;
const MAX_TEXT_BYTES: usize = 255;
const MAX_CLAIM_BYTES: usize = 2048;
const MAX_ITEMS: usize = 512;
const MAX_ACTOR_MEMBERS: usize = 8;
