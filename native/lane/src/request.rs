//! The request of a call as a typed value: its evidence, and the operation or HTTP request that it asks about.

use std::borrow::Cow;

use authz_kernel::routes::Body;
use authz_token::{Evidence, Role, Scheme};

use crate::limits;
use crate::proto::authz::v1 as wire;
use crate::refusal::CallRefusal;
use crate::settings::Settings;

/// One request of any surface that judges.
#[derive(Debug)]
pub(crate) struct CallRequest<'a> {
    pub(crate) evidence: Vec<Evidence<'a>>,
    pub(crate) target: RequestTarget<'a>,
    /// Labels that the enforcer says the call carries, each once.
    pub(crate) labels: Vec<&'a str>,
    pub(crate) supported_obligations: Vec<&'a str>,
    /// Method and URI of the HTTP request that the enforcer was sent.
    pub(crate) sent: Option<(&'a str, &'a str)>,
    /// The task that the request names beside its body.
    pub(crate) task: Option<&'a str>,
    /// Approval that the call presents; empty if it presents none.
    pub(crate) approval_id: &'a str,
    /// Statement of a guard about the call; empty without one.
    pub(crate) confidence_jws: &'a str,
    /// Idempotency key of an enforcer; empty if it gives none.
    pub(crate) idempotency_key: &'a str,
    pub(crate) probe: bool,
    /// Context of the session that a front end names; empty if it names none.
    pub(crate) session_context: &'a str,
    /// The permit is to be kept, so that a credential can be issued of it.
    pub(crate) wants_credential: bool,
    /// Message of the refusal of a caller without an agent, on a surface where each caller is an agent.
    pub(crate) agentless: Option<&'static str>,
    /// The agent that a trusted enforcer says it verified.
    pub(crate) relayed: Option<Relayed<'a>>,
    /// A task credential was given in a place of its own, where no other credential may be.
    pub(crate) has_credential: bool,
    /// `authorization` of the request, if it may hold another credential than the agent's.
    pub(crate) authorization: Option<Authorization<'a>>,
}

/// Agent that an enforcer verified on a connection of its own.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Relayed<'a> {
    /// SPIFFE id of the agent; never empty.
    pub(crate) principal: &'a str,
    /// Certificate of the agent; empty if it was not sent along.
    pub(crate) certificate: &'a str,
}

/// Identity of the agent as a message claims it, as far as that can be read although other parts of the message cannot.
#[derive(Debug, Default)]
pub(crate) struct AgentClaim<'a> {
    pub(crate) evidence: Vec<Evidence<'a>>,
    /// The agent that a trusted proxy says it verified.
    pub(crate) relayed: Option<Relayed<'a>>,
}

/// An `authorization` header, which may be for Authz or for the upstream.
#[derive(Clone, Copy)]
pub(crate) struct Authorization<'a> {
    pub(crate) value: &'a str,
    pub(crate) proof: Option<&'a str>,
}

// Written by hand so that no log can hold a token.
impl std::fmt::Debug for Authorization<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Authorization").field("bytes", &self.value.len()).finish_non_exhaustive()
    }
}

/// The operation, or the HTTP request that a route turns into one.
#[derive(Debug)]
pub(crate) enum RequestTarget<'a> {
    Operation {
        id: &'a str,
        /// Exact name of the tool that the operation must belong to.
        tool: Option<&'a str>,
        arguments: &'a [u8],
        resource: Option<&'a str>,
        destinations: Vec<&'a str>,
    },
    Http {
        method: &'a str,
        host: &'a str,
        path: &'a str,
        headers: Cow<'a, [(&'a str, &'a str)]>,
        /// Names of headers whose values are not UTF-8.
        unusable: Vec<&'a str>,
        body: Body<'a>,
    },
}

/// Reads a `CheckRequest`. Every field is bounded, and every unknown value refused.
pub(crate) fn read_check<'a>(
    request: &'a wire::CheckRequest,
    settings: &Settings,
) -> Result<CallRequest<'a>, CallRefusal> {
    let evidence = read_evidence(&request.evidence, settings)?;
    let probe = match wire::Mode::try_from(request.mode) {
        Ok(wire::Mode::Unspecified | wire::Mode::Enforce) => false,
        Ok(wire::Mode::Probe) => true,
        Err(_) => return Err(CallRefusal::input("`mode` has an unknown value")),
    };
    check_id("operation", &request.operation)?;
    check_id("tool", &request.tool)?;
    check_id("resource", &request.resource)?;
    check_id("task", &request.task)?;
    check_id("approval_id", &request.approval_id)?;
    check_list("destinations", &request.destinations, limits::DESTINATION)?;
    let labels = read_labels(request.labels.iter().map(String::as_str))?;
    check_list("supported_obligations", &request.supported_obligations, limits::OBLIGATION)?;
    if request.arguments_json.len() > settings.max_arguments_bytes {
        return Err(CallRefusal::input(format!(
            "`arguments_json` is longer than {} bytes",
            settings.max_arguments_bytes
        )));
    }
    check_id("idempotency_key", &request.idempotency_key)?;
    check_id("session_context", &request.session_context)?;
    check_length("http_method", &request.http_method, limits::METHOD)?;
    check_length("http_uri", &request.http_uri, limits::PATH)?;
    if request.http_method.is_empty() != request.http_uri.is_empty() {
        return Err(CallRefusal::input("`http_method` and `http_uri` come together"));
    }
    check_length("confidence_jws", &request.confidence_jws, limits::CONFIDENCE)?;
    Ok(CallRequest {
        evidence,
        target: RequestTarget::Operation {
            id: &request.operation,
            tool: Some(request.tool.as_str()).filter(|tool| !tool.is_empty()),
            arguments: &request.arguments_json,
            resource: Some(request.resource.as_str()).filter(|id| !id.is_empty()),
            destinations: request.destinations.iter().map(String::as_str).collect(),
        },
        labels,
        supported_obligations: request.supported_obligations.iter().map(String::as_str).collect(),
        sent: Some((request.http_method.as_str(), request.http_uri.as_str()))
            .filter(|(method, _)| !method.is_empty()),
        task: Some(request.task.as_str()).filter(|task| !task.is_empty()),
        approval_id: &request.approval_id,
        confidence_jws: &request.confidence_jws,
        idempotency_key: &request.idempotency_key,
        probe,
        session_context: &request.session_context,
        wants_credential: request.wants_credential,
        agentless: None,
        relayed: None,
        has_credential: false,
        authorization: None,
    })
}

/// Reads the credentials of a request.
pub(crate) fn read_evidence<'a>(
    list: &'a [wire::Evidence],
    settings: &Settings,
) -> Result<Vec<Evidence<'a>>, CallRefusal> {
    if list.len() > limits::EVIDENCE {
        return Err(CallRefusal::credential(format!(
            "there are more than {} pieces of evidence",
            limits::EVIDENCE
        )));
    }
    list.iter()
        .map(|item| {
            let role = match wire::EvidenceRole::try_from(item.role) {
                Ok(wire::EvidenceRole::Agent) => Role::Agent,
                Ok(wire::EvidenceRole::Subject) => Role::Subject,
                _ => return Err(CallRefusal::credential("evidence has no known `role`")),
            };
            let scheme = match wire::EvidenceScheme::try_from(item.scheme) {
                Ok(wire::EvidenceScheme::Bearer) => Scheme::Bearer,
                Ok(wire::EvidenceScheme::Dpop) => Scheme::Dpop,
                Ok(wire::EvidenceScheme::Wpt) => Scheme::Wpt,
                _ => return Err(CallRefusal::credential("evidence has no known `scheme`")),
            };
            read_credential(role, scheme, &item.token, Some(item.proof.as_str()), settings)
        })
        .collect()
}

/// Reads the agent's credentials of a request whose other parts may be malformed.
pub(crate) fn read_agent_claim<'a>(
    list: &'a [wire::Evidence],
    settings: &Settings,
) -> AgentClaim<'a> {
    let items = list.iter().take(limits::EVIDENCE);
    let evidence = items
        .filter(|item| item.role == wire::EvidenceRole::Agent as i32)
        .filter_map(|item| read_evidence(std::slice::from_ref(item), settings).ok()?.pop())
        .collect();
    AgentClaim { evidence, relayed: None }
}

/// A credential within its bounds. An empty proof counts as none.
pub(crate) fn read_credential<'a>(
    role: Role,
    scheme: Scheme,
    token: &'a str,
    proof: Option<&'a str>,
    settings: &Settings,
) -> Result<Evidence<'a>, CallRefusal> {
    let proof = proof.filter(|proof| !proof.is_empty());
    if token.is_empty() {
        return Err(CallRefusal::credential(format!("the {role}'s token is empty")));
    }
    let most = settings.max_token_bytes;
    if token.len() > most || proof.is_some_and(|proof| proof.len() > most) {
        return Err(CallRefusal::credential(format!(
            "the {role}'s token or proof is longer than {most} bytes"
        )));
    }
    Ok(Evidence { role, scheme, token, proof })
}

/// Refuses a text of a request that is longer than `most` bytes.
pub(crate) fn check_length(name: &str, value: &str, most: usize) -> Result<(), CallRefusal> {
    if value.len() > most {
        return Err(CallRefusal::input(format!("`{name}` is longer than {most} bytes")));
    }
    Ok(())
}

/// Refuses a text of a request that is longer than an id may be.
pub(crate) fn check_id(name: &str, value: &str) -> Result<(), CallRefusal> {
    check_length(name, value, limits::ID)
}

fn check_list(name: &str, values: &[String], most: usize) -> Result<(), CallRefusal> {
    if values.len() > limits::LIST {
        return Err(CallRefusal::input(format!("`{name}` has more than {} items", limits::LIST)));
    }
    values.iter().try_for_each(|value| check_length(name, value, most))
}

/// Labels of a call, each once.
pub(crate) fn read_labels<'a>(
    values: impl Iterator<Item = &'a str>,
) -> Result<Vec<&'a str>, CallRefusal> {
    let mut labels: Vec<&str> = values.take(limits::LIST.saturating_add(1)).collect();
    if labels.len() > limits::LIST {
        return Err(CallRefusal::input(format!("`labels` has more than {} items", limits::LIST)));
    }
    labels.iter().try_for_each(|label| check_id("labels", label))?;
    labels.sort_unstable();
    labels.dedup();
    Ok(labels)
}

/// Whether an `authorization` value may hold a credential of a kind that Authz verifies, or is not a credential at all.
pub(crate) fn may_be_verified(value: &str) -> bool {
    let scheme = value.split_once(' ').map(|(scheme, _)| scheme);
    scheme.is_none_or(|scheme| {
        scheme.eq_ignore_ascii_case("bearer") || scheme.eq_ignore_ascii_case("dpop")
    })
}

/// Whether an `authorization` value says that a DPoP proof goes with it.
pub(crate) fn is_dpop(value: &str) -> bool {
    value.split_once(' ').is_some_and(|(scheme, _)| scheme.eq_ignore_ascii_case("dpop"))
}

/// The token of an `authz-credential` value, and its scheme if it names one.
pub(crate) fn split_credential(value: &str) -> Result<(Option<Scheme>, &str), CallRefusal> {
    if value.contains(' ') {
        return scheme_and_token("authz-credential", value)
            .map(|(scheme, token)| (Some(scheme), token));
    }
    Ok((None, value))
}

/// The scheme and the token of an `authorization` value.
pub(crate) fn split_authorization(value: &str) -> Result<(Scheme, &str), CallRefusal> {
    scheme_and_token("authorization", value)
}

/// RFC 9110 §11.4 with RFC 6750 §2.1: the scheme in any case, spaces, one token. A comma means that two values were joined, and
/// the upstream may read either.
fn scheme_and_token<'a>(header: &str, value: &'a str) -> Result<(Scheme, &'a str), CallRefusal> {
    let refuse = |what: &str| Err(CallRefusal::credential(format!("`{header}` {what}")));
    let Some((scheme, token)) = value.split_once(' ') else {
        return refuse("is no scheme and token");
    };
    let token = token.trim_start_matches(' ');
    let is_of_token = |byte: u8| byte.is_ascii_graphic() && byte != b',';
    if token.is_empty() || !token.bytes().all(is_of_token) {
        return refuse("holds no token, or more than one");
    }
    let scheme = if scheme.eq_ignore_ascii_case("bearer") {
        Scheme::Bearer
    } else if scheme.eq_ignore_ascii_case("dpop") {
        Scheme::Dpop
    } else {
        return refuse("has a scheme that proves nothing here");
    };
    Ok((scheme, token))
}

/// The system of an operation id.
pub(crate) fn system_of(operation: &str) -> Option<&str> {
    operation.split_once('.').map(|(system, _)| system)
}
