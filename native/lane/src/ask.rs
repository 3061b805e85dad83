//! A request as a typed value: who proves what, and what is asked.

use std::borrow::Cow;

use authz_kernel::reason::ReasonCode;
use authz_kernel::routes::Body;
use authz_token::{Evidence, Refusal, RefusalReason, Role, Scheme};

use crate::limits;
use crate::proto::authz::v1 as wire;
use crate::settings::Settings;

/// The step of a decision.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Step {
    Identify,
    Resolve,
    Locate,
    Judge,
    Record,
}

impl Step {
    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::Identify => "identify",
            Self::Resolve => "resolve",
            Self::Locate => "locate",
            Self::Judge => "judge",
            Self::Record => "record",
        }
    }
}

/// Why a decision ended before policy was asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Refused {
    pub(crate) reason: ReasonCode,
    pub(crate) step: Step,
    /// For the enforcer: never bytes of the request.
    pub(crate) message: String,
    /// The request was read whole, in the only way it can be read, and judged as what it is: without that no `mode`
    /// lets it through.
    pub(crate) understood: bool,
    /// Whoever proves must put a nonce of ours into the proof (RFC 9449 §8).
    pub(crate) use_nonce: bool,
}

impl Refused {
    pub(crate) fn new(reason: ReasonCode, step: Step, message: impl Into<String>) -> Self {
        Self { reason, step, message: message.into(), understood: false, use_nonce: false }
    }

    /// The refusal of a token or of a proof of possession.
    pub(crate) fn of_token(refusal: &Refusal) -> Self {
        let reason = refusal_reason(refusal.reason);
        let use_nonce = refusal.reason == RefusalReason::UseNonce;
        Self { use_nonce, ..Self::new(reason, Step::Identify, refusal.to_string()) }
    }

    pub(crate) fn credential(message: impl Into<String>) -> Self {
        Self::new(ReasonCode::BadCredential, Step::Identify, message)
    }

    pub(crate) fn input(message: impl Into<String>) -> Self {
        Self::new(ReasonCode::BadInput, Step::Resolve, message)
    }

    pub(crate) fn ambiguous(message: impl Into<String>) -> Self {
        Self::new(ReasonCode::AmbiguousRequest, Step::Resolve, message)
    }
}

const fn refusal_reason(reason: RefusalReason) -> ReasonCode {
    match reason {
        RefusalReason::NoCredential => ReasonCode::NoCredential,
        RefusalReason::BadCredential => ReasonCode::BadCredential,
        RefusalReason::ExpiredCredential => ReasonCode::ExpiredCredential,
        RefusalReason::WrongAudience => ReasonCode::WrongAudience,
        RefusalReason::UntrustedIssuer => ReasonCode::UntrustedIssuer,
        RefusalReason::UnboundCredential => ReasonCode::UnboundCredential,
        RefusalReason::BadProof | RefusalReason::UseNonce => ReasonCode::BadProof,
    }
}

/// One request of any surface.
#[derive(Debug)]
pub(crate) struct Ask<'a> {
    pub(crate) evidence: Vec<Evidence<'a>>,
    pub(crate) target: Target<'a>,
    /// Labels that whoever asks says the call carries, each once.
    pub(crate) labels: Vec<&'a str>,
    pub(crate) supported_obligations: Vec<&'a str>,
    /// Method and URI of the HTTP request that whoever asks was sent.
    pub(crate) sent: Option<(&'a str, &'a str)>,
    /// The task that is named beside the body.
    pub(crate) task: Option<&'a str>,
    pub(crate) has_approval: bool,
    /// The key of an enforcer that executes at most once a key; empty: none.
    pub(crate) idempotency_key: &'a str,
    pub(crate) probe: bool,
    /// The context of the session that a front end names; empty: none.
    pub(crate) session_context: &'a str,
    /// The permit is kept, so that a credential can be issued of it.
    pub(crate) wants_credential: bool,
    /// What to say where no agent is known: this surface knows no caller that is none.
    pub(crate) agentless: Option<&'static str>,
    /// The agent, on the word of whoever asks, who is believed in that.
    pub(crate) relayed: Option<Relayed<'a>>,
    /// A task credential came in a place of its own, so that nothing else may stand there.
    pub(crate) has_credential: bool,
    /// The request's `authorization`, where another credential than the agent's may stand there.
    pub(crate) authorization: Option<Authorization<'a>>,
}

/// Whom an enforcer verified on a connection of its own.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Relayed<'a> {
    /// Never empty.
    pub(crate) principal: &'a str,
    /// Empty where it was not sent along.
    pub(crate) certificate: &'a str,
}

/// Identity of the agent as a message claims it, as far as that can be read although other parts of the message cannot.
#[derive(Debug, Default)]
pub(crate) struct AgentClaim<'a> {
    pub(crate) evidence: Vec<Evidence<'a>>,
    /// The agent, on the word of a proxy that is believed in that.
    pub(crate) relayed: Option<Relayed<'a>>,
}

/// A header that may be meant for us or for the upstream.
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
pub(crate) enum Target<'a> {
    Operation {
        id: &'a str,
        arguments: &'a [u8],
        resource: Option<&'a str>,
        destinations: Vec<&'a str>,
    },
    Http {
        method: &'a str,
        host: &'a str,
        path: &'a str,
        headers: Cow<'a, [(&'a str, &'a str)]>,
        /// Names of headers whose values are no UTF-8.
        unusable: Vec<&'a str>,
        body: Body<'a>,
    },
}

/// Reads a `CheckRequest`: every field is bounded, every unknown value refused.
pub(crate) fn of_request<'a>(
    request: &'a wire::CheckRequest,
    settings: &Settings,
) -> Result<Ask<'a>, Refused> {
    let evidence = evidence(&request.evidence, settings)?;
    let probe = match wire::Mode::try_from(request.mode) {
        Ok(wire::Mode::Unspecified | wire::Mode::Enforce) => false,
        Ok(wire::Mode::Probe) => true,
        Err(_) => return Err(Refused::input("`mode` has an unknown value")),
    };
    check_id("operation", &request.operation)?;
    check_id("resource", &request.resource)?;
    check_id("task", &request.task)?;
    check_id("approval_id", &request.approval_id)?;
    check_list("destinations", &request.destinations, limits::DESTINATION)?;
    let labels = labels(request.labels.iter().map(String::as_str))?;
    check_list("supported_obligations", &request.supported_obligations, limits::OBLIGATION)?;
    if request.arguments_json.len() > settings.max_arguments_bytes {
        return Err(Refused::input(format!(
            "`arguments_json` is longer than {} bytes",
            settings.max_arguments_bytes
        )));
    }
    check_id("idempotency_key", &request.idempotency_key)?;
    check_id("session_context", &request.session_context)?;
    check_length("http_method", &request.http_method, limits::METHOD)?;
    check_length("http_uri", &request.http_uri, limits::PATH)?;
    if request.http_method.is_empty() != request.http_uri.is_empty() {
        return Err(Refused::input("`http_method` and `http_uri` come together"));
    }
    if !request.confidence_jws.is_empty() {
        return Err(Refused::input("`confidence_jws` is not in this version"));
    }
    Ok(Ask {
        evidence,
        target: Target::Operation {
            id: &request.operation,
            arguments: &request.arguments_json,
            resource: Some(request.resource.as_str()).filter(|id| !id.is_empty()),
            destinations: request.destinations.iter().map(String::as_str).collect(),
        },
        labels,
        supported_obligations: request.supported_obligations.iter().map(String::as_str).collect(),
        sent: Some((request.http_method.as_str(), request.http_uri.as_str()))
            .filter(|(method, _)| !method.is_empty()),
        task: Some(request.task.as_str()).filter(|task| !task.is_empty()),
        has_approval: !request.approval_id.is_empty(),
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
pub(crate) fn evidence<'a>(
    list: &'a [wire::Evidence],
    settings: &Settings,
) -> Result<Vec<Evidence<'a>>, Refused> {
    if list.len() > limits::EVIDENCE {
        return Err(Refused::credential(format!(
            "there are more than {} pieces of evidence",
            limits::EVIDENCE
        )));
    }
    list.iter()
        .map(|item| {
            let role = match wire::EvidenceRole::try_from(item.role) {
                Ok(wire::EvidenceRole::Agent) => Role::Agent,
                Ok(wire::EvidenceRole::Subject) => Role::Subject,
                _ => return Err(Refused::credential("evidence has no known `role`")),
            };
            let scheme = match wire::EvidenceScheme::try_from(item.scheme) {
                Ok(wire::EvidenceScheme::Bearer) => Scheme::Bearer,
                Ok(wire::EvidenceScheme::Dpop) => Scheme::Dpop,
                Ok(wire::EvidenceScheme::Wpt) => Scheme::Wpt,
                _ => return Err(Refused::credential("evidence has no known `scheme`")),
            };
            credential(role, scheme, &item.token, Some(item.proof.as_str()), settings)
        })
        .collect()
}

/// Reads the agent's credentials of a request whose other parts may be malformed.
pub(crate) fn agent_claim<'a>(list: &'a [wire::Evidence], settings: &Settings) -> AgentClaim<'a> {
    let items = list.iter().take(limits::EVIDENCE);
    let evidence = items
        .filter(|item| item.role == wire::EvidenceRole::Agent as i32)
        .filter_map(|item| evidence(std::slice::from_ref(item), settings).ok()?.pop())
        .collect();
    AgentClaim { evidence, relayed: None }
}

/// A credential within its bounds; an empty proof is none.
pub(crate) fn credential<'a>(
    role: Role,
    scheme: Scheme,
    token: &'a str,
    proof: Option<&'a str>,
    settings: &Settings,
) -> Result<Evidence<'a>, Refused> {
    let proof = proof.filter(|proof| !proof.is_empty());
    if token.is_empty() {
        return Err(Refused::credential(format!("the {role}'s token is empty")));
    }
    let most = settings.max_token_bytes;
    if token.len() > most || proof.is_some_and(|proof| proof.len() > most) {
        return Err(Refused::credential(format!(
            "the {role}'s token or proof is longer than {most} bytes"
        )));
    }
    Ok(Evidence { role, scheme, token, proof })
}

/// Refuses a text of a request that is longer than `most` bytes.
pub(crate) fn check_length(name: &str, value: &str, most: usize) -> Result<(), Refused> {
    if value.len() > most {
        return Err(Refused::input(format!("`{name}` is longer than {most} bytes")));
    }
    Ok(())
}

/// Refuses a text of a request that is longer than an id may be.
pub(crate) fn check_id(name: &str, value: &str) -> Result<(), Refused> {
    check_length(name, value, limits::ID)
}

fn check_list(name: &str, values: &[String], most: usize) -> Result<(), Refused> {
    if values.len() > limits::LIST {
        return Err(Refused::input(format!("`{name}` has more than {} items", limits::LIST)));
    }
    values.iter().try_for_each(|value| check_length(name, value, most))
}

/// Labels of a call: each once, and no more than a list holds.
pub(crate) fn labels<'a>(values: impl Iterator<Item = &'a str>) -> Result<Vec<&'a str>, Refused> {
    let mut labels: Vec<&str> = values.take(limits::LIST.saturating_add(1)).collect();
    if labels.len() > limits::LIST {
        return Err(Refused::input(format!("`labels` has more than {} items", limits::LIST)));
    }
    labels.iter().try_for_each(|label| check_id("labels", label))?;
    labels.sort_unstable();
    labels.dedup();
    Ok(labels)
}

/// Whether an `authorization` value may hold a credential of a kind that is verified here, or is none at all.
pub(crate) fn may_be_ours(value: &str) -> bool {
    let scheme = value.split_once(' ').map(|(scheme, _)| scheme);
    scheme.is_none_or(|scheme| {
        scheme.eq_ignore_ascii_case("bearer") || scheme.eq_ignore_ascii_case("dpop")
    })
}

/// Whether an `authorization` value says that a DPoP proof goes with it.
pub(crate) fn is_dpop(value: &str) -> bool {
    value.split_once(' ').is_some_and(|(scheme, _)| scheme.eq_ignore_ascii_case("dpop"))
}

/// The token of an `authz-credential` value, with its scheme where it says one.
pub(crate) fn credential_value(value: &str) -> Result<(Option<Scheme>, &str), Refused> {
    if value.contains(' ') {
        return scheme_and_token("authz-credential", value)
            .map(|(scheme, token)| (Some(scheme), token));
    }
    Ok((None, value))
}

/// The one token under a scheme of an `authorization` value, or what is wrong with it.
pub(crate) fn authorization(value: &str) -> Result<(Scheme, &str), Refused> {
    scheme_and_token("authorization", value)
}

/// RFC 9110 §11.4 with RFC 6750 §2.1: the scheme in any case, spaces, one token. A comma means that somebody joined two
/// values, of which nobody knows which one the upstream reads.
fn scheme_and_token<'a>(header: &str, value: &'a str) -> Result<(Scheme, &'a str), Refused> {
    let refuse = |what: &str| Err(Refused::credential(format!("`{header}` {what}")));
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
