//! Reads `envoy.service.auth.v3.CheckRequest`: Envoy's, agentgateway's and gRPC's own (gRFC A92).
//!
//! Each field may be missing. A request that two readers could read differently is refused, never corrected.

mod answer;
mod body;
mod evidence;
mod headers;
mod metadata;
mod removed;
mod request;

use authz_kernel::reason::ReasonCode;
use authz_token::{AgentProof, Evidence, Role};
use request::EnvoyHttp;

use self::body::body;
use self::evidence::{evidence, relayed};
use self::headers::{AUTHORITY, AUTHORIZATION, DPOP, HOST, Headers, METHOD, PATH, Sought, is_ours};
use self::metadata::{SUPPORTED_OBLIGATIONS, labels, obligations, session_context};
use self::removed::to_remove;
use crate::judgement::Judgement;
use crate::refusal::{CallRefusal, Step};
use crate::request::{CallRequest, RequestTarget, is_dpop};
use crate::settings::Settings;
use crate::transport::Transport;
use crate::world::Enforcer;
use crate::{limits, trace};

pub(crate) use self::answer::answer;
pub(crate) use self::evidence::agent_claim;
pub(crate) use self::removed::Removed;
pub(crate) use request::EnvoyRequest;
#[cfg(feature = "test-support")]
pub(crate) use request::derived::assert_same;

/// The member of `baggage` that names a task.
const BAGGAGE_TASK: &str = "authz.task";

/// Value of `authorization`, and true if a proof of possession stands beside it.
#[derive(Clone, Copy)]
struct Shown<'a> {
    authorization: Option<&'a str>,
    has_proof: bool,
}

// Written by hand so that no log can hold a token.
impl std::fmt::Debug for Shown<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Shown").field("has_proof", &self.has_proof).finish_non_exhaustive()
    }
}

/// A request, and the parts that a permit must remove from the request.
#[derive(Debug)]
pub(crate) struct ParsedRequest<'a> {
    pub(crate) request: CallRequest<'a>,
    /// Inbound headers that must not reach the upstream, besides those that never do ([`ALWAYS_REMOVED`]).
    remove: Vec<String>,
    shown: Shown<'a>,
    /// The request's own place in a trace.
    pub(crate) trace: Trace<'a>,
}

/// W3C Trace Context of the request that the proxy asks about.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Trace<'a> {
    parent: Option<&'a str>,
    state: Option<&'a str>,
}

impl ParsedRequest<'_> {
    /// The headers that a permit removes.
    ///
    /// `evidence` is all evidence of the call.
    ///
    /// INVARIANT (evidence is not forwarded): an upstream that receives proof of an agent or a subject can pose as it elsewhere. So a
    /// token is forwarded only if it is for the system, if the route says so, or if it is not evidence here.
    pub(crate) fn removed(&mut self, judgement: &Judgement, evidence: &[Evidence<'_>]) -> Removed {
        let (goes_on, keeps_proof) = match self.shown.authorization {
            None => (true, false),
            Some(value) => {
                let goes_on = self.forwards(value, judgement, evidence);
                (goes_on, goes_on && is_dpop(value))
            }
        };
        let keeps_proof = keeps_proof || judgement.forwards_authorization();
        let evidence: &[&str] = match (goes_on, keeps_proof || !self.shown.has_proof) {
            (true, true) => &[],
            (false, true) => &[AUTHORIZATION],
            (true, false) => &[DPOP],
            (false, false) => &[AUTHORIZATION, DPOP],
        };
        let mut names = std::mem::take(&mut self.remove);
        if judgement.secret_header().is_some() {
            self.add_undeclared(judgement, &mut names);
        }
        Removed { names, evidence }
    }

    /// Adds the headers that may not stand beside a secret. Their number is bounded ([`limits::HEADERS`]).
    fn add_undeclared(&self, judgement: &Judgement, names: &mut Vec<String>) {
        let RequestTarget::Http { headers, unusable, .. } = &self.request.target else { return };
        let all = headers.iter().map(|(name, _)| *name).chain(unusable.iter().copied());
        let undeclared = all.filter(|name| !is_ours(name) && !judgement.declares_header(name));
        names.extend(undeclared.map(str::to_owned));
        names.sort_unstable();
        names.dedup();
    }

    /// True if `authorization` is forwarded to the upstream.
    fn forwards(&self, value: &str, judgement: &Judgement, evidence: &[Evidence<'_>]) -> bool {
        // Evidence borrows its token from the header's value.
        let bytes = value.as_bytes().as_ptr_range();
        let is_here = |one: &&Evidence<'_>| bytes.contains(&one.token.as_ptr());
        let Some(evidence) = evidence.iter().find(is_here) else {
            // For the upstream: another scheme, or a token of an issuer that is not configured.
            return true;
        };
        if judgement.forwards_authorization() {
            return true;
        }
        let facts = &judgement.caller.facts;
        let audiences = match evidence.role {
            Role::Subject => facts.subject.as_ref().map(|subject| &subject.audiences),
            // A task credential is for one system, and was refused for another.
            Role::Agent if facts.credential.is_some() && !self.request.has_credential => {
                return true;
            }
            Role::Agent => {
                let agent = facts.agent.as_ref();
                agent.filter(|a| a.proof == AgentProof::JwtSvid).map(|agent| &agent.audiences)
            }
        };
        audiences.is_some_and(|audiences| audiences.iter().any(|one| judgement.is_for_system(one)))
    }
}

impl<'a> Trace<'a> {
    /// The call with the request's trace, unless it has one itself: a proxy that traces puts its own span there, which is
    /// nearer.
    pub(crate) fn over(self, transport: &Transport<'a>) -> Transport<'a> {
        if transport.trace_parent.is_some_and(|value| trace::parent(value).is_some()) {
            return *transport;
        }
        Transport { trace_parent: self.parent, trace_state: self.state, ..*transport }
    }
}

/// Facts that a proxy may say of a request.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Relays {
    /// The agent's identity.
    pub(crate) principal: bool,
    /// Labels that the call carries.
    pub(crate) labels: bool,
    /// The context of the session.
    pub(crate) session: bool,
}

impl Relays {
    /// Facts for which an enforcer's word counts. Default: none, for a caller that is not an enforcer.
    pub(crate) fn of(enforcer: Option<&Enforcer>) -> Self {
        enforcer.map_or_else(Self::default, |enforcer| Self {
            principal: enforcer.relays_principal,
            labels: enforcer.relays_labels,
            session: enforcer.relays_session,
        })
    }
}

/// Reads a request.
///
/// `relays` are the facts for which the proxy's word counts.
pub(crate) fn of_request<'a>(
    request: &'a EnvoyRequest<'a>,
    settings: &Settings,
    relays: Relays,
) -> Result<ParsedRequest<'a>, CallRefusal> {
    let http =
        request.http.as_ref().ok_or_else(|| CallRefusal::input("there is no HTTP request"))?;
    bounds(http)?;
    let headers = Headers::read(http)?;
    let has_credential = headers.all(Sought::Credential).next().is_some();
    let relayed = match &request.source {
        Some(source) if relays.principal => relayed(source)?,
        _ => None,
    };
    let (evidence, authorization) = evidence(&headers, settings, relayed.is_some())?;
    let shown = Shown {
        authorization: headers.only(Sought::Authorization),
        has_proof: headers.only(Sought::Dpop).is_some(),
    };
    let task = task(&headers)?;
    headers.pseudo(Sought::Path, PATH, http.path)?;
    headers.pseudo(Sought::Method, METHOD, http.method)?;
    headers.pseudo(Sought::Authority, AUTHORITY, http.host)?;
    headers.pseudo(Sought::Host, HOST, http.host)?;
    if !http.query.is_empty() || !http.fragment.is_empty() {
        return Err(CallRefusal::ambiguous(
            "the target's query or fragment stands apart from its path",
        ));
    }
    let body = body(http, &headers)?;
    let extensions = &request.extensions;
    if extensions.len() > limits::EXTENSIONS {
        return Err(CallRefusal::input("`context_extensions` has too many entries"));
    }
    // If a name stands twice in a map, the last value counts (protobuf encoding, "Maps").
    let supported = extensions.iter().rfind(|(name, _)| *name == SUPPORTED_OBLIGATIONS);
    let supported_obligations = obligations(supported.map(|(_, list)| *list))?;
    let labels = match &request.metadata {
        Some(metadata) if relays.labels => labels(metadata)?,
        _ => Vec::new(),
    };
    let session_context = match &request.metadata {
        Some(metadata) if relays.session => session_context(metadata)?,
        _ => "",
    };
    let trace = Trace {
        parent: headers.only(Sought::TraceParent),
        state: headers.only(Sought::TraceState),
    };
    let remove = to_remove(headers.ours)?;
    let request = CallRequest {
        evidence,
        target: RequestTarget::Http {
            method: http.method,
            host: http.host,
            path: http.path,
            headers: headers.usable,
            unusable: headers.unusable,
            body,
        },
        labels,
        supported_obligations,
        sent: None,
        task,
        approval_id: "",
        confidence_jws: "",
        idempotency_key: "",
        session_context,
        wants_credential: false,
        probe: false,
        agentless: Some(match relays.principal {
            true => "there is neither a relayed principal nor an `authorization` header",
            false => "there is no `authorization` header",
        }),
        relayed,
        has_credential,
        authorization,
    };
    Ok(ParsedRequest { request, remove, shown, trace })
}

fn bounds(http: &EnvoyHttp<'_>) -> Result<(), CallRefusal> {
    for (name, value, most) in [
        ("method", http.method, limits::METHOD),
        ("host", http.host, limits::HOST),
        ("path", http.path, limits::PATH),
    ] {
        if value.len() > most {
            return Err(CallRefusal::input(format!("the HTTP {name} is longer than {most} bytes")));
        }
    }
    Ok(())
}

/// The task that is named; header and baggage must agree.
fn task<'a>(headers: &Headers<'a>) -> Result<Option<&'a str>, CallRefusal> {
    let conflict = || {
        CallRefusal::new(
            ReasonCode::TaskConflict,
            Step::Locate,
            "the task is named more than once, differently",
        )
    };
    let mut named: Option<&'a str> = None;
    // W3C Baggage §3.2: list members `key=value;property`, joined by commas.
    let members = headers.all(Sought::Baggage).flat_map(|value| value.split(','));
    let in_baggage = members.filter_map(|member| {
        let (key, value) = member.split(';').next().unwrap_or_default().split_once('=')?;
        (key.trim() == BAGGAGE_TASK).then(|| value.trim())
    });
    for value in headers.all(Sought::Task).map(str::trim).chain(in_baggage) {
        if named.is_some_and(|known| known != value) {
            return Err(conflict());
        }
        named = Some(value);
    }
    Ok(named)
}
