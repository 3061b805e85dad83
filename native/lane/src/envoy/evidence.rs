//! Credentials of the HTTP request that a proxy asks about.

use authz_kernel::reason::ReasonCode;
use authz_token::{Evidence, Role, Scheme};

use super::Relays;
use super::headers::{AUTHORIZATION, CREDENTIAL, DPOP, Headers, SUBJECT, Sought};
use super::request::EnvoyPeer;
use super::request::EnvoyRequest;
use crate::refusal::{CallRefusal, Step};
use crate::request::{self, AgentClaim, Authorization, Relayed};
use crate::settings::Settings;

/// The proxy's view of its own peer, the last hop: it counts only if the proxy may relay principals. An empty one names no peer.
pub(super) fn relayed<'a>(source: &EnvoyPeer<'a>) -> Result<Option<Relayed<'a>>, CallRefusal> {
    let &EnvoyPeer { principal, certificate } = source;
    match (principal.is_empty(), certificate.is_empty()) {
        (true, true) => Ok(None),
        (true, false) => Err(CallRefusal::credential(
            "`source.certificate` came without a principal: the proxy did not verify it",
        )),
        (false, _) => Ok(Some(Relayed { principal, certificate })),
    }
}

/// `authorization` is the agent, `authz-credential` its task credential, `authz-subject` the one on whose behalf it acts.
/// If the agent is known without `authorization`, the header may be the agent's or the upstream's, and is not yet evidence.
pub(super) fn evidence<'a>(
    headers: &Headers<'a>,
    settings: &Settings,
    is_relayed: bool,
) -> Result<(Vec<Evidence<'a>>, Option<Authorization<'a>>), CallRefusal> {
    let authorization = headers.single(Sought::Authorization, AUTHORIZATION)?;
    let credential = headers.single(Sought::Credential, CREDENTIAL)?;
    let credential = credential.map(request::split_credential).transpose()?;
    let subject = headers.single(Sought::Subject, SUBJECT)?;
    let proof = headers.single(Sought::Dpop, DPOP)?;
    if proof.is_some_and(str::is_empty) {
        return Err(CallRefusal::new(
            ReasonCode::BadProof,
            Step::Identify,
            "the `dpop` header is empty",
        ));
    }
    let mut evidence = Vec::with_capacity(3);
    let mut unknown = None;
    let is_known = is_relayed || credential.is_some();
    let mut proof = proof;
    if let Some((said, token)) = credential {
        let is_claimed = authorization.is_some_and(request::is_dpop);
        let scheme = match (said, proof) {
            // A proof is of one token, so it is not shared.
            (Some(Scheme::Dpop), _) if is_claimed => {
                return Err(CallRefusal::new(
                    ReasonCode::BadProof,
                    Step::Identify,
                    "`authorization` and `authz-credential` both need the one `dpop` proof",
                ));
            }
            (Some(scheme), _) => scheme,
            (None, Some(_)) if !is_claimed => Scheme::Dpop,
            (None, _) => Scheme::Bearer,
        };
        let own = if scheme == Scheme::Dpop { proof.take() } else { None };
        evidence.push(request::read_credential(Role::Agent, scheme, token, own, settings)?);
    }
    match authorization {
        Some(value) if is_known => unknown = Some(Authorization { value, proof }),
        Some(value) => {
            let (scheme, token) = request::split_authorization(value)?;
            evidence.push(request::read_credential(Role::Agent, scheme, token, proof, settings)?);
        }
        None => {}
    }
    if let Some(token) = subject {
        evidence.push(request::read_credential(
            Role::Subject,
            Scheme::Bearer,
            token,
            None,
            settings,
        )?);
    }
    Ok((evidence, unknown))
}

/// Reads the agent's credentials of a request whose other parts may be malformed.
pub(crate) fn agent_claim<'a>(
    request: &EnvoyRequest<'a>,
    settings: &Settings,
    relays: Relays,
) -> AgentClaim<'a> {
    let source = request.source.as_ref().filter(|_| relays.principal);
    let relayed = source.and_then(|source| relayed(source).ok()).flatten();
    let Some(http) = &request.http else { return AgentClaim { evidence: Vec::new(), relayed } };
    let authorization =
        http.only(AUTHORIZATION).and_then(|value| request::split_authorization(value).ok());
    let credential = http.only(CREDENTIAL).and_then(|value| request::split_credential(value).ok());
    let mut proof = http.only(DPOP);
    let svid = authorization.and_then(|(scheme, token)| {
        let own = if scheme == Scheme::Dpop { proof.take() } else { None };
        request::read_credential(Role::Agent, scheme, token, own, settings).ok()
    });
    let credential = credential.and_then(|(scheme, token)| {
        let unsaid = if proof.is_some() { Scheme::Dpop } else { Scheme::Bearer };
        let scheme = scheme.unwrap_or(unsaid);
        let own = if scheme == Scheme::Dpop { proof.take() } else { None };
        request::read_credential(Role::Agent, scheme, token, own, settings).ok()
    });
    AgentClaim { evidence: svid.into_iter().chain(credential).collect(), relayed }
}
