//! Reads `envoy.service.auth.v3.CheckRequest`: Envoy's, agentgateway's and gRPC's own (gRFC A92).
//!
//! Every field may be missing. What two readers could read differently is refused, never mended.

use std::borrow::Cow;
use std::sync::LazyLock;

use authz_kernel::reason::ReasonCode;
use authz_kernel::routes::{Body, Treatment, treatment};
use authz_token::{AgentProof, Evidence, Role, Scheme};
use prost_types::value::Kind;
use smallvec::SmallVec;

use crate::ask::{self, Ask, Authorization, Refused, Relayed, Step, Target};
use crate::header_name::{is_name_byte, spellings};
use crate::judgement::Judgement;
use crate::limits;
use crate::proto::envoy::config::core::v3::Metadata;
use crate::refused_agent::AgentClaim;
use crate::settings::Settings;
use crate::trace;
use crate::transport::Transport;
use crate::world::Enforcer;

mod request;

pub(crate) use request::Request;
#[cfg(feature = "test-support")]
pub(crate) use request::derived::assert_same;
use request::{Header, Http, Peer};

/// Headers that bring credentials and names; each may stand once.
const AUTHORIZATION: &str = "authorization";
const DPOP: &str = "dpop";
const SUBJECT: &str = "authz-subject";
const CREDENTIAL: &str = "authz-credential";
const TASK: &str = "authz-task";
/// What a proxy adds where it cut the body off.
const PARTIAL: &str = "x-envoy-auth-partial-body";
/// Pseudo headers (RFC 9113 §8.3.1), and what came before one of them.
const AUTHORITY: &str = ":authority";
const METHOD: &str = ":method";
const PATH: &str = ":path";
const HOST: &str = "host";
/// Inbound headers of ours that never reach the upstream, also where the proxy did not show them to us.
const OURS_INBOUND: [&str; 3] = [CREDENTIAL, SUBJECT, TASK];
/// Headers by which the upstream knows who acts; each has spellings that a CGI or WSGI server takes for it.
const IDENTITY: [&str; 3] = ["x-authz-agent", "x-authz-subject", "x-authz-decision-id"];
/// The member of `baggage` that names a task.
const BAGGAGE_TASK: &str = "authz.task";
/// The namespace of `metadata_context` that is read, and its member that lists labels.
const NAMESPACE: &str = "authz";
const LABELS: &str = "labels";
const SESSION_CONTEXT: &str = "session_context";
/// The key of `context_extensions` that lists obligations.
const SUPPORTED_OBLIGATIONS: &str = "authz.supported_obligations";

/// A header that is looked for here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Sought {
    Authority,
    Authorization,
    Baggage,
    Credential,
    Dpop,
    Host,
    Length,
    Method,
    Partial,
    Path,
    Subject,
    Task,
    TraceParent,
    TraceState,
    Transfer,
}

impl Sought {
    fn of(name: &str) -> Option<Self> {
        Some(match name {
            AUTHORITY => Self::Authority,
            AUTHORIZATION => Self::Authorization,
            "baggage" => Self::Baggage,
            CREDENTIAL => Self::Credential,
            DPOP => Self::Dpop,
            HOST => Self::Host,
            "content-length" => Self::Length,
            METHOD => Self::Method,
            PARTIAL => Self::Partial,
            PATH => Self::Path,
            SUBJECT => Self::Subject,
            TASK => Self::Task,
            "traceparent" => Self::TraceParent,
            "tracestate" => Self::TraceState,
            "transfer-encoding" => Self::Transfer,
            _ => return None,
        })
    }

    /// Whether it is read as a text, so that one that is none may not be passed over.
    const fn is_text(self) -> bool {
        matches!(
            self,
            Self::Authorization | Self::Dpop | Self::Baggage | Self::Partial | Self::Host
        )
    }
}

/// Headers that a permit removes, besides those that every permit does ([`ALWAYS_REMOVED`]).
#[derive(Debug, Default)]
pub(crate) struct Removed {
    /// Names that the request brought.
    names: Vec<String>,
    /// Headers of evidence.
    evidence: &'static [&'static str],
}

impl Removed {
    pub(crate) fn names(&self) -> impl Iterator<Item = &str> {
        self.names.iter().map(String::as_str).chain(self.evidence.iter().copied())
    }
}

/// The value of `authorization`, and whether a proof of possession stands beside it.
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

/// A request, and what a permit must take out of it.
#[derive(Debug)]
pub(crate) struct Parsed<'a> {
    pub(crate) ask: Ask<'a>,
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

impl Parsed<'_> {
    /// The headers that a permit removes.
    ///
    /// Args: `evidence`: all evidence of the call.
    ///
    /// INVARIANT (evidence is not forwarded): whoever is sent what proves an agent or a subject can be it elsewhere. So only
    /// a token that is for the system goes on, or where the route says so, and what is not evidence here.
    pub(crate) fn removed(&mut self, judgement: &Judgement, evidence: &[Evidence<'_>]) -> Removed {
        let (goes_on, keeps_proof) = match self.shown.authorization {
            None => (true, false),
            Some(value) => {
                let goes_on = self.forwards(value, judgement, evidence);
                (goes_on, goes_on && ask::is_dpop(value))
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
        if judgement.injected().is_some() {
            self.add_undeclared(judgement, &mut names);
        }
        Removed { names, evidence }
    }

    /// Adds the headers that may not stand beside a secret. How many a request has is bounded ([`limits::HEADERS`]).
    fn add_undeclared(&self, judgement: &Judgement, names: &mut Vec<String>) {
        let Target::Http { headers, unusable, .. } = &self.ask.target else { return };
        let all = headers.iter().map(|(name, _)| *name).chain(unusable.iter().copied());
        let undeclared = all.filter(|name| !is_ours(name) && !judgement.declares_header(name));
        names.extend(undeclared.map(str::to_owned));
        names.sort_unstable();
        names.dedup();
    }

    /// Whether `authorization` goes on to the upstream.
    fn forwards(&self, value: &str, judgement: &Judgement, evidence: &[Evidence<'_>]) -> bool {
        // Evidence borrows its token from the header's value.
        let bytes = value.as_bytes().as_ptr_range();
        let is_here = |one: &&Evidence<'_>| bytes.contains(&one.token.as_ptr());
        let Some(evidence) = evidence.iter().find(is_here) else {
            // For the upstream: another scheme, or a token of an issuer that nobody configured.
            return true;
        };
        if judgement.forwards_authorization() {
            return true;
        }
        let facts = &judgement.caller.facts;
        let audiences = match evidence.role {
            Role::Subject => facts.subject.as_ref().map(|subject| &subject.audiences),
            // A task credential is for one system, and was refused for another.
            Role::Agent if facts.credential.is_some() && !self.ask.has_credential => return true,
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
    /// Facts in which an enforcer is believed; none where the caller is no enforcer.
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
/// Args: `relays`: facts in which the proxy is believed.
pub(crate) fn of_request<'a>(
    request: &'a Request<'a>,
    settings: &Settings,
    relays: Relays,
) -> Result<Parsed<'a>, Refused> {
    let http = request.http.as_ref().ok_or_else(|| Refused::input("there is no HTTP request"))?;
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
        return Err(Refused::ambiguous(
            "the target's query or fragment stands apart from its path",
        ));
    }
    let body = body(http, &headers)?;
    let extensions = &request.extensions;
    if extensions.len() > limits::EXTENSIONS {
        return Err(Refused::input("`context_extensions` has too many entries"));
    }
    // Of a name that stands twice in a map, the last counts (protobuf encoding, "Maps").
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
    let ask = Ask {
        evidence,
        target: Target::Http {
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
        has_approval: false,
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
    Ok(Parsed { ask, remove, shown, trace })
}

/// The labels that an earlier filter of the proxy wrote into its metadata: `labels` of the namespace `authz`.
fn labels(metadata: &Metadata) -> Result<Vec<&str>, Refused> {
    let said = metadata.filter_metadata.get(NAMESPACE).and_then(|own| own.fields.get(LABELS));
    let refuse = || Refused::input("`labels` of the metadata is no list of texts");
    let Some(said) = said else { return Ok(Vec::new()) };
    let Some(Kind::ListValue(list)) = &said.kind else { return Err(refuse()) };
    let texts = list.values.iter().map(|value| match &value.kind {
        Some(Kind::StringValue(text)) => Ok(text.as_str()),
        _ => Err(refuse()),
    });
    let texts: Vec<&str> = texts.collect::<Result<_, _>>()?;
    ask::labels(texts.into_iter())
}

/// The context of the session that an earlier filter of the proxy wrote into its metadata: `session_context` of the namespace
/// `authz`.
fn session_context(metadata: &Metadata) -> Result<&str, Refused> {
    let own = metadata.filter_metadata.get(NAMESPACE);
    let Some(value) = own.and_then(|own| own.fields.get(SESSION_CONTEXT)) else { return Ok("") };
    match &value.kind {
        Some(Kind::StringValue(text)) if text.len() <= limits::ID => Ok(text),
        _ => Err(Refused::input(format!(
            "`session_context` of the metadata is not a string of at most {} bytes",
            limits::ID
        ))),
    }
}

fn bounds(http: &Http<'_>) -> Result<(), Refused> {
    for (name, value, most) in [
        ("method", http.method, limits::METHOD),
        ("host", http.host, limits::HOST),
        ("path", http.path, limits::PATH),
    ] {
        if value.len() > most {
            return Err(Refused::input(format!("the HTTP {name} is longer than {most} bytes")));
        }
    }
    Ok(())
}

struct Headers<'a> {
    usable: Cow<'a, [(&'a str, &'a str)]>,
    unusable: Vec<&'a str>,
    /// Values of the usable ones that are looked for here, in their order; of `transfer-encoding` also an unusable one, empty.
    sought: SmallVec<[(Sought, &'a str); 8]>,
    /// Names that are ours, also as written by servers that take `_` for `-`, and those by which proxies say how a request
    /// came.
    ours: SmallVec<[&'a str; 8]>,
}

impl<'a> Headers<'a> {
    /// Reads either encoding. Names come in lower case from HTTP/2 and Envoy alike; others were made by hand.
    fn read(http: &'a Http<'a>) -> Result<Self, Refused> {
        let (map, list) = (&http.headers, &http.list);
        if !list.is_empty() && !map.is_empty() {
            return Err(Refused::ambiguous("headers came in both encodings"));
        }
        if list.len().max(map.len()) > limits::HEADERS {
            return Err(Refused::input(format!("there are more than {} headers", limits::HEADERS)));
        }
        let mut before = map.as_slice();
        while let Some(((name, _), rest)) = before.split_last() {
            if rest.iter().any(|(known, _)| known == name) {
                return Err(Refused::ambiguous("the map of headers has a name twice"));
            }
            before = rest;
        }
        let mut unusable = Vec::new();
        let usable = match list.as_slice() {
            [] => Cow::Borrowed(map.as_slice()),
            list => Cow::Owned(texts(list, &mut unusable)?),
        };
        let mut headers = Self { usable, unusable, sought: SmallVec::new(), ours: SmallVec::new() };
        for &(name, value) in headers.usable.iter() {
            headers.ours.extend(own(name)?);
            headers.sought.extend(Sought::of(name).map(|sought| (sought, value)));
        }
        for name in &headers.unusable {
            headers.ours.extend(own(name)?);
            let transfer = Sought::of(name).filter(|sought| *sought == Sought::Transfer);
            headers.sought.extend(transfer.map(|sought| (sought, "")));
        }
        Ok(headers)
    }

    fn all(&self, sought: Sought) -> impl Iterator<Item = &'a str> + '_ {
        self.sought.iter().filter(move |(known, _)| *known == sought).map(|(_, value)| *value)
    }

    /// The value of a credential header, which stands once or not at all.
    fn single(&self, sought: Sought, name: &str) -> Result<Option<&'a str>, Refused> {
        let mut values = self.all(sought);
        let value = values.next();
        if values.next().is_some() || value.is_some_and(|value| value.contains(',')) {
            return Err(Refused::credential(format!("`{name}` came more than once")));
        }
        Ok(value)
    }

    /// The value of a header that counts only where it stands once.
    fn only(&self, sought: Sought) -> Option<&'a str> {
        let mut values = self.all(sought);
        let value = values.next();
        value.filter(|_| values.next().is_none())
    }

    /// A pseudo header, where the proxy shows it, says what the field says.
    fn pseudo(&self, sought: Sought, name: &str, field: &str) -> Result<(), Refused> {
        if self.all(sought).any(|value| value != field) {
            return Err(Refused::ambiguous(format!(
                "`{name}` differs from the request's own field"
            )));
        }
        Ok(())
    }
}

/// Names and values of a list of headers; the names alone of those that are no text go to `unusable`.
fn texts<'a>(
    list: &[Header<'a>],
    unusable: &mut Vec<&'a str>,
) -> Result<Vec<(&'a str, &'a str)>, Refused> {
    let mut usable = Vec::with_capacity(list.len());
    for header in list {
        let name = header.key;
        let value = match (header.value.is_empty(), header.raw_value.is_empty()) {
            (false, false) => {
                return Err(Refused::ambiguous("a header has two values in one entry"));
            }
            (_, true) => Ok(header.value),
            (true, false) => std::str::from_utf8(header.raw_value),
        };
        match value {
            Ok(value) => usable.push((name, value)),
            Err(_) if is_read_here(name) => {
                return Err(Refused::ambiguous(format!("`{name}` is no text")));
            }
            Err(_) => unusable.push(name),
        }
    }
    Ok(usable)
}

/// A header's name where it is removed, or what is wrong with it.
fn own(name: &str) -> Result<Option<&str>, Refused> {
    let is_name = name.strip_prefix(':').unwrap_or(name).bytes().all(is_name_byte);
    if name.is_empty() || name.len() > limits::HEADER_NAME || !is_name {
        return Err(Refused::ambiguous("a header's name is no lower-case token"));
    }
    let may_be_partial = name.len() == PARTIAL.len() && name != PARTIAL;
    if may_be_partial && name.replace('_', "-") == PARTIAL {
        return Err(Refused::ambiguous(format!("`{PARTIAL}` has a twin with `_`")));
    }
    Ok(Some(name).filter(|name| is_ours(name) || treatment(name) == Some(Treatment::Removed)))
}

/// Which of the names a permit takes out, besides those that every one does.
fn to_remove(mut ours: SmallVec<[&str; 8]>) -> Result<Vec<String>, Refused> {
    ours.sort_unstable();
    ours.dedup();
    if ours.len() > limits::LIST {
        return Err(Refused::input(format!(
            "there are more than {} headers to remove",
            limits::LIST
        )));
    }
    let is_removed =
        |name: &str| ALWAYS_REMOVED.binary_search_by(|known| known.as_str().cmp(name)).is_ok();
    Ok(ours.into_iter().filter(|name| !is_removed(name)).map(str::to_owned).collect())
}

/// What is removed whether or not the proxy showed it, sorted.
pub(crate) static ALWAYS_REMOVED: LazyLock<Vec<String>> = LazyLock::new(|| {
    let twins = OURS_INBOUND.iter().chain(&IDENTITY).flat_map(|name| spellings(name));
    let mut all: Vec<String> = twins.filter(|name| !IDENTITY.contains(&name.as_str())).collect();
    all.sort_unstable();
    all.dedup();
    all
});

/// Whether a name is one of ours to a server that takes `_` for `-`.
fn is_ours(name: &str) -> bool {
    let starts = |start: &str| {
        name.len() >= start.len()
            && name.bytes().zip(start.bytes()).all(|(a, b)| a == b || (a == b'_' && b == b'-'))
    };
    starts("authz-") || starts("x-authz-")
}

fn is_read_here(name: &str) -> bool {
    Sought::of(name).is_some_and(Sought::is_text) || name.starts_with(':') || is_ours(name)
}

/// The proxy's own view of its peer, the last hop: it counts only where the proxy is believed in this. An empty one is
/// nobody.
fn relayed<'a>(source: &Peer<'a>) -> Result<Option<Relayed<'a>>, Refused> {
    let &Peer { principal, certificate } = source;
    match (principal.is_empty(), certificate.is_empty()) {
        (true, true) => Ok(None),
        (true, false) => Err(Refused::credential(
            "`source.certificate` came without a principal: the proxy did not verify it",
        )),
        (false, _) => Ok(Some(Relayed { principal, certificate })),
    }
}

/// `authorization` is the agent, `authz-credential` its task credential, `authz-subject` the one on whose behalf it acts.
/// Where the agent is known without `authorization`, what that is must be found out, and it is not yet evidence.
fn evidence<'a>(
    headers: &Headers<'a>,
    settings: &Settings,
    is_relayed: bool,
) -> Result<(Vec<Evidence<'a>>, Option<Authorization<'a>>), Refused> {
    let authorization = headers.single(Sought::Authorization, AUTHORIZATION)?;
    let credential = headers.single(Sought::Credential, CREDENTIAL)?;
    let credential = credential.map(ask::credential_value).transpose()?;
    let subject = headers.single(Sought::Subject, SUBJECT)?;
    let proof = headers.single(Sought::Dpop, DPOP)?;
    if proof.is_some_and(str::is_empty) {
        return Err(Refused::new(
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
        let is_claimed = authorization.is_some_and(ask::is_dpop);
        let scheme = match (said, proof) {
            // A proof is of one token, so it is not shared.
            (Some(Scheme::Dpop), _) if is_claimed => {
                return Err(Refused::new(
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
        evidence.push(ask::credential(Role::Agent, scheme, token, own, settings)?);
    }
    match authorization {
        Some(value) if is_known => unknown = Some(Authorization { value, proof }),
        Some(value) => {
            let (scheme, token) = ask::authorization(value)?;
            evidence.push(ask::credential(Role::Agent, scheme, token, proof, settings)?);
        }
        None => {}
    }
    if let Some(token) = subject {
        evidence.push(ask::credential(Role::Subject, Scheme::Bearer, token, None, settings)?);
    }
    Ok((evidence, unknown))
}

/// Reads the agent's credentials of a request whose other parts may be malformed.
pub(crate) fn agent_claim<'a>(
    request: &Request<'a>,
    settings: &Settings,
    relays: Relays,
) -> AgentClaim<'a> {
    let source = request.source.as_ref().filter(|_| relays.principal);
    let relayed = source.and_then(|source| relayed(source).ok()).flatten();
    let Some(http) = &request.http else { return AgentClaim { evidence: Vec::new(), relayed } };
    let authorization = http.only(AUTHORIZATION).and_then(|value| ask::authorization(value).ok());
    let credential = http.only(CREDENTIAL).and_then(|value| ask::credential_value(value).ok());
    let mut proof = http.only(DPOP);
    let svid = authorization.and_then(|(scheme, token)| {
        let own = if scheme == Scheme::Dpop { proof.take() } else { None };
        ask::credential(Role::Agent, scheme, token, own, settings).ok()
    });
    let credential = credential.and_then(|(scheme, token)| {
        let unsaid = if proof.is_some() { Scheme::Dpop } else { Scheme::Bearer };
        let scheme = scheme.unwrap_or(unsaid);
        let own = if scheme == Scheme::Dpop { proof.take() } else { None };
        ask::credential(Role::Agent, scheme, token, own, settings).ok()
    });
    AgentClaim { evidence: svid.into_iter().chain(credential).collect(), relayed }
}

/// The task that is named; header and baggage must agree.
fn task<'a>(headers: &Headers<'a>) -> Result<Option<&'a str>, Refused> {
    let conflict = || {
        Refused::new(
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

fn body<'a>(http: &Http<'a>, headers: &Headers<'a>) -> Result<Body<'a>, Refused> {
    let length = content_length(headers)?;
    if headers.all(Sought::Transfer).nth(1).is_some() {
        return Err(Refused::ambiguous("`transfer-encoding` stands twice"));
    }
    if headers.all(Sought::Partial).any(|value| value != "false") {
        return Ok(Body::Partial);
    }
    let bytes = match (http.body.is_empty(), http.raw_body.is_empty()) {
        (false, false) => return Err(Refused::ambiguous("the body came twice")),
        (false, true) => http.body.as_bytes(),
        (true, _) => http.raw_body,
    };
    let sent = bytes.len() as u64;
    // More of it passed the proxy than it sent along.
    if u64::try_from(http.size).is_ok_and(|size| size > sent) {
        return Ok(Body::Partial);
    }
    match length {
        Some(length) if length == sent => Ok(Body::Whole(bytes)),
        // Nobody can tell an empty body from one that was not sent along, unless its length is said.
        _ if bytes.is_empty() => Ok(Body::Absent),
        None => Ok(Body::Whole(bytes)),
        Some(_) => Err(Refused::ambiguous("`content-length` is not the length of the body")),
    }
}

/// What `content-length` says. With `transfer-encoding` beside it the next server may believe either (RFC 9112 §6.3).
fn content_length(headers: &Headers<'_>) -> Result<Option<u64>, Refused> {
    let mut values = headers.all(Sought::Length);
    let Some(value) = values.next() else {
        return Ok(None);
    };
    if values.next().is_some() || headers.all(Sought::Transfer).next().is_some() {
        return Err(Refused::ambiguous("the length of the body is said twice"));
    }
    // RFC 9110 §8.6: digits only.
    let length = value.bytes().all(|byte| byte.is_ascii_digit()).then(|| value.parse().ok());
    match length.flatten() {
        Some(length) => Ok(Some(length)),
        None => Err(Refused::ambiguous("`content-length` is no number")),
    }
}

fn obligations(list: Option<&str>) -> Result<Vec<&str>, Refused> {
    let Some(list) = list else {
        return Ok(Vec::new());
    };
    let names: Vec<&str> = list
        .split(',')
        .map(str::trim)
        .filter(|name| !name.is_empty())
        .take(limits::LIST + 1)
        .collect();
    if names.len() > limits::LIST || names.iter().any(|name| name.len() > limits::OBLIGATION) {
        return Err(Refused::input("`authz.supported_obligations` is too long"));
    }
    Ok(names)
}
