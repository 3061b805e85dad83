//! The relayed profile: an agent that an enforcer verified on a connection of its own, such as the client of a proxy.

use crate::cache::PeerCache;
use crate::facts::{AgentFacts, AgentProof, UnixTime};
use crate::peer::verify_certificate;
use crate::refusal::Refusal;
use crate::trust::TrustStore;
use authz_base::spiffe::SpiffeId;

/// Accepts an enforcer's statement about an agent. The caller checks that the enforcer may relay it.
///
/// `principal` is the agent's SPIFFE ID, as in Envoy's `source.principal`. `certificate` is the agent's own
/// certificate in the form of [`crate::verify_certificate`], as in Envoy's `source.certificate`; empty if the
/// enforcer does not send it.
///
/// # Errors
/// A principal that is not the SPIFFE ID of a workload, or not that of the certificate, is
/// [`crate::RefusalReason::BadCredential`]; a principal of a trust domain that is not trusted, or has no
/// usable authority, is [`crate::RefusalReason::UntrustedIssuer`]; a certificate has the errors of
/// [`crate::verify_peer`].
pub fn verify_relayed(
    principal: &str,
    certificate: &str,
    trust: &TrustStore,
    cache: &PeerCache,
    now: UnixTime,
) -> Result<AgentFacts, Refusal> {
    let id = SpiffeId::parse(principal)
        .map_err(|error| Refusal::bad(format!("the relayed principal is no SPIFFE ID: {error}")))?;
    if id.path().is_empty() {
        return Err(Refusal::bad("the relayed principal names a trust domain, not a workload"));
    }
    let domain = trust.domain(id.trust_domain()).ok_or_else(|| {
        Refusal::untrusted("the trust domain of the relayed principal is not trusted")
    })?;
    if domain.authorities.is_empty() {
        return Err(Refusal::untrusted(format!(
            "trust domain `{}` has no usable authority, so nobody of it can have shown a certificate",
            id.trust_domain()
        )));
    }
    if !certificate.is_empty() {
        let peer = verify_certificate(certificate, trust, cache, now)?;
        if peer.spiffe_id != principal {
            return Err(Refusal::bad("the relayed certificate is not the relayed principal's"));
        }
        return Ok(peer.agent(AgentProof::Relayed));
    }
    let (id, domain) = (id.as_str().to_owned(), id.trust_domain().to_owned());
    Ok(AgentFacts::named(id, domain, AgentProof::Relayed))
}
