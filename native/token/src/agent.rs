//! The agent profile: SPIFFE JWT-SVID.

use crate::algorithm::Algorithm;
use crate::binding;
use crate::claims::{self, Times};
use crate::facts::{AgentFacts, AgentProof, KeyBinding};
use crate::jws::{JwsHeader, JwsParts};
use crate::refusal::{KeyOwner, Refusal};
use crate::trust::TrustStore;
use authz_base::spiffe::SpiffeId;

/// Verifies a JWT-SVID, except its times.
pub(crate) fn verify(
    header: &JwsHeader,
    parts: &JwsParts<'_>,
    token_digest: [u8; 32],
    trust: &TrustStore,
) -> Result<(AgentFacts, Times, Option<KeyBinding>), Refusal> {
    if !header.plain {
        return Err(Refusal::bad("a JWT-SVID's header has only `alg`, `kid` and `typ`"));
    }
    if !matches!(header.typ.as_deref(), None | Some("JWT" | "JOSE")) {
        return Err(Refusal::bad("a JWT-SVID's `typ` is `JWT` or `JOSE`"));
    }
    if !Algorithm::JWT_SVID.contains(&header.algorithm) {
        return Err(Refusal::bad("a JWT-SVID's `alg` is one of RS, ES or PS with 256, 384 or 512"));
    }
    let payload = parts.payload()?;
    let claims = claims::read(&payload)?;
    let sub = claims::text(&claims, "sub", MAX_SUB_BYTES)?
        .ok_or_else(|| Refusal::bad("the token has no `sub`"))?;
    let id = SpiffeId::parse(sub)
        .map_err(|error| Refusal::bad(format!("the token's `sub` is no SPIFFE ID: {error}")))?;
    if id.path().is_empty() {
        return Err(Refusal::bad("the token's `sub` names a trust domain, not a workload"));
    }
    let domain = trust.domain(id.trust_domain()).ok_or_else(|| {
        Refusal::untrusted("the trust domain of the token's `sub` is not trusted")
    })?;
    if domain.keys.is_empty() {
        return Err(Refusal::untrusted(format!(
            "trust domain `{}` has no usable key, so all its tokens are refused",
            id.trust_domain()
        )));
    }
    let key = domain.verify(header, parts, || KeyOwner::Domain(id.trust_domain().to_owned()))?;

    // INVARIANT (signed): from here on the claims are the trust domain's word.
    let binding = binding::read(&claims)?;
    claims::check_audience(&claims, trust.audiences())?;
    let times = Times::read(&claims, trust.time_limits())?;
    let jti = claims::text(&claims, "jti", MAX_JTI_BYTES)?;
    let facts = AgentFacts {
        spiffe_id: id.as_str().to_owned(),
        trust_domain: id.trust_domain().to_owned(),
        proof: AgentProof::JwtSvid,
        kid: key.kid.clone(),
        issued_at: times.issued_at,
        expires_at: Some(times.expires_at),
        token_digest: Some(token_digest),
        certificate_digest: None,
        jti: jti.map(str::to_owned),
        bound: binding.is_some(),
        audiences: claims::audiences(&claims)?.into_iter().map(str::to_owned).collect(),
    };
    Ok((facts, times, binding))
}

const MAX_SUB_BYTES: usize = 2048;
const MAX_JTI_BYTES: usize = 255;
